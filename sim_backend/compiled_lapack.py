"""LAPACK and BLAS for kernels, from the libraries that SciPy brings.

Importing this module imports numba, so only the modules of kernels do.
"""

import ctypes
from typing import Any

import llvmlite.binding as llvm
from numba.core import types
from scipy.linalg import cython_blas, cython_lapack


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
