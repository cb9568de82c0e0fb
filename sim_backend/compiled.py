"""Numba as the kernels use it: compiled once and kept on disk.

Importing this module imports numba, so only modules of kernels do, and those only when a kernel is wanted.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]
"""Whole numbers for kernels: 32 bits where there are many."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _digest() -> str:
    """Return the SHA-256 of the modules around this one: whatever a kernel is made of is among them."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


_SOURCES = _digest()


def compiled(function: FunctionT) -> FunctionT:
    """Return the function compiled at its first call; the machine code is kept beside the module.

    Where that folder cannot be written numba keeps it under NUMBA_CACHE_DIR or in the user's cache folder, and where
    there is no place at all it compiles in every process.
    """
    return _compiled(function, fastmath=False)


def contracted(function: FunctionT) -> FunctionT:
    """As ``compiled``, with a product and a sum rounded once where the processor can."""
    return _compiled(function, fastmath={"contract"})


def _compiled(function: FunctionT, fastmath: bool | set[str]) -> FunctionT:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        kept = numba.njit(function, cache=True, **options)
    except RuntimeError:
        kept = None
    index = _index_of(kept)
    if index is None:
        return cast(FunctionT, numba.njit(function, **options))
    # Numba looks at the function's own file, but constants and functions of other files are compiled into it.
    index._source_stamp = (index._source_stamp, _SOURCES)
    return cast(FunctionT, kept)


def is_kept(function: object) -> bool:
    """Return whether machine code of a compiled function is on disk, and of this version."""
    index = _index_of(function)
    return index is not None and bool(index._load_index())


def _index_of(function: object) -> Any:
    """Return numba's index of what it keeps of a function, or None where there is none of the kind known here."""
    index = getattr(getattr(function, "_cache", None), "_cache_file", None)
    known = all(hasattr(index, name) for name in ("_source_stamp", "_load_index"))
    return index if known else None
