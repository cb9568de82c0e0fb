"""Numba as the kernels use it: compiled once and kept on disk.

Importing this module imports numba, so only modules of kernels do, and those only when a kernel is wanted.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Return the function compiled at its first call; the machine code is kept beside the module.

    Where that folder cannot be written numba keeps it under NUMBA_CACHE_DIR or in the user's cache folder, and where
    there is no place at all it compiles in every process.
    """
    try:
        return cast(FunctionT, numba.njit(function, cache=True, nogil=True, error_model="numpy"))
    except RuntimeError:
        return cast(FunctionT, numba.njit(function, nogil=True, error_model="numpy"))
