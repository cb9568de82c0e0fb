"""Four doubles at a time in kernels: what the processor's vector units do, said explicitly.

``load``, ``store``, ``minus_times`` and so on become single vector instructions; compilers miss them in blocked loops.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 4
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


class _FourType(types.Type):
    """Numba's type of four doubles."""

    def __init__(self) -> None:
        super().__init__(name="FourDoubles")


_FOUR = _FourType()


@register_model(_FourType)
class _FourModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of_type: Any) -> None:
        super().__init__(manager, of_type, _DOUBLES)  # type: ignore[no-untyped-call]


_function: Any = cgutils.get_or_insert_function


def _operation(code: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for kernels from one that says its type and writes its instructions."""
    operation: Callable[..., Any] = intrinsic(code)
    return operation


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _DOUBLES.as_pointer())


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), value, cgutils.int32_t(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_DOUBLES, ir.Undefined), zeros)


@_operation
def load(_: Any, array: Any, index: Any) -> Any:
    """Return array[index:index + 4] of a contiguous array."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *values), align=8)

    return _FOUR(array, types.intp), code


@_operation
def store(_: Any, array: Any, index: Any, four: Any) -> Any:
    """Set array[index:index + 4]."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, signature.args[0], *values[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _FOUR), code


@_operation
def minus_times(_: Any, four: Any, value: Any, by: Any) -> Any:
    """Return four − value · by, a number times four; fused where the processor can."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        product = builder.fmul(_spread(builder, values[1]), values[2], flags=("contract",))
        return builder.fsub(values[0], product, flags=("contract",))

    return _FOUR(_FOUR, types.float64, _FOUR), code


@_operation
def times(_: Any, value: Any, four: Any) -> Any:
    """Return value · four."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(_spread(builder, values[0]), values[1])

    return _FOUR(types.float64, _FOUR), code


@_operation
def product(_: Any, four: Any, other: Any) -> Any:
    """Return the products of the four pairs."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(*values)

    return _FOUR(_FOUR, _FOUR), code


@_operation
def plus(_: Any, four: Any, other: Any) -> Any:
    """Return four + other."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(*values)

    return _FOUR(_FOUR, _FOUR), code


@_operation
def minus(_: Any, four: Any, other: Any) -> Any:
    """Return four − other."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(*values)

    return _FOUR(_FOUR, _FOUR), code


@_operation
def magnitude(_: Any, four: Any) -> Any:
    """Return |four|."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_DOUBLES, [_DOUBLES])
        absolute = _function(builder.module, kind, f"llvm.fabs.v{LANES}f64")
        return builder.call(absolute, values)

    return _FOUR(_FOUR), code


@_operation
def dot(_: Any, four: Any, other: Any) -> Any:
    """Return the sum of the products of the four pairs."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        products = builder.fmul(*values)
        terms = [builder.extract_element(products, cgutils.int32_t(lane)) for lane in range(LANES)]
        return builder.fadd(builder.fadd(terms[0], terms[1]), builder.fadd(terms[2], terms[3]))

    return types.float64(_FOUR, _FOUR), code


@_operation
def any_beyond(_: Any, four: Any, other: Any) -> Any:
    """Return whether any of four is not at most its partner in other."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        beyond = builder.fcmp_unordered(">", *values)
        bits = builder.bitcast(beyond, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(_FOUR, _FOUR), code


@_operation
def fetch(_: Any, array: Any, index: Any) -> Any:
    """Have the processor bring array[index] near."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        address = builder.bitcast(builder.gep(data, [values[1]]), cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        prefetch = _function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(prefetch, [address, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), code
