"""Numba for the kernels of large boards: how they are compiled, and LAPACK from within them.

Importing this module needs the extra ``hilcl[fast]``; only the modules of kernels do so, and only for large boards.
Compiled code is kept on disk, so that a machine compiles once.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from scipy.linalg import cython_blas, cython_lapack

IndexArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]
"""Whole numbers for kernels: 32 bits where there are many."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Return the function compiled at its first call, or loaded from the cache of an earlier process."""
    compiler: Any = numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
    kernel: Kernel = compiler(function)
    return kernel


def _lapack(module: Any, name: str, n_arguments: int) -> Any:
    """Return SciPy's Fortran routine as a function for kernels; every argument is an address."""
    capsule = module.__pyx_capi__[name]
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # By name, not by address: compiled code on disk must hold in the next process, too.
    symbol = f"hilcl_{name}"
    llvm.add_symbol(symbol, pointer_of(capsule, name_of(capsule)))
    return types.ExternalFunction(symbol, types.void(*[types.intp] * n_arguments))


dpotrf = _lapack(cython_lapack, "dpotrf", 5)
dtrsm = _lapack(cython_blas, "dtrsm", 11)
dsyrk = _lapack(cython_blas, "dsyrk", 10)
dgemm = _lapack(cython_blas, "dgemm", 13)
