"""Eight numbers at a time inside compiled kernels: explicit vectors, for loops the compiler would not find by itself.

These functions exist inside functions compiled by numba only. Where a processor has no register of eight doubles the
compiler takes several smaller ones.
"""

from typing import Any, cast

from llvmlite import ir
from numba.core import types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic

LANES = 8
"""Numbers in a vector: one register of AVX-512, two of AVX2, four of NEON or SSE2."""

_MAY_FUSE = ("contract",)
"""A multiplication and the addition after it may round once, where the processor has such an instruction."""

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_INDEX = ir.IntType(32)

_primitive = cast(Any, intrinsic)


class _LanesType(types.Type):
    """Eight doubles in a register; exists inside kernels only."""

    def __init__(self) -> None:
        super().__init__(name="Lanes8")


_lanes = _LanesType()


@register_default(_LanesType)
class _LanesModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _broadcast(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INDEX, 0))
    pattern = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(first, first, pattern)


def _load(typing: Any, array: Any, index: Any) -> Any:
    """load(array, index): the eight numbers of a flat array from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_place(context, builder, signature.args[0], *args))
        loaded.align = 8
        return loaded

    return _lanes(array, types.intp), generate


def _store(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """store(array, index, lanes): write eight numbers to a flat array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


def _fill(typing: Any, value: Any) -> Any:
    """fill(value): eight times the same number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return _lanes(types.float64), generate


def _operation(name: str) -> Any:
    def make(typing: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return _lanes(_lanes, _lanes), generate

    return make


def _fused(sign: str) -> Any:
    def make(typing: Any, total: Any, first: Any, second: Any) -> Any:
        scalar = isinstance(first, types.Float)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            left = _broadcast(builder, args[1]) if scalar else args[1]
            product = builder.fmul(left, args[2], flags=_MAY_FUSE)
            return getattr(builder, sign)(args[0], product, flags=_MAY_FUSE)

        return _lanes(_lanes, types.float64 if scalar else _lanes, _lanes), generate

    return make


def _total(typing: Any, lanes: Any) -> Any:
    """total(lanes): the sum of the eight numbers, in halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            parts = [
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_INDEX, width), list(half)))
                for half in (range(width), range(width, 2 * width))
            ]
            value = builder.fadd(*parts)
        return builder.extract_element(value, ir.Constant(_INDEX, 0))

    return types.float64(_lanes), generate


def _least(typing: Any, lanes: Any) -> Any:
    """least(lanes): the smallest of the eight numbers; NaN where one is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        smallest = builder.extract_element(args[0], ir.Constant(_INDEX, 0))
        for at in range(1, LANES):
            other = builder.extract_element(args[0], ir.Constant(_INDEX, at))
            smaller = builder.fcmp_ordered("<=", smallest, other)
            unordered = builder.fcmp_unordered("uno", smallest, smallest)
            smallest = builder.select(builder.or_(smaller, unordered), smallest, other)
        return smallest

    return types.float64(_lanes), generate


def _lower(typing: Any, first: Any, second: Any) -> Any:
    """lower(first, second): lane by lane, the smaller one; NaN where one is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, second = args
        keep = builder.or_(builder.fcmp_ordered("<", first, second), builder.fcmp_unordered("uno", first, first))
        return builder.select(keep, first, second)

    return _lanes(_lanes, _lanes), generate


def _clip(typing: Any, value: Any, low: Any, high: Any) -> Any:
    """clip(value, low, high): lane by lane, as min(max(value, low), high); NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, low, high = args
        raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        return builder.select(builder.fcmp_ordered(">", raised, high), high, raised)

    return _lanes(_lanes, _lanes, _lanes), generate


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of eight rows of eight, by exchanging halves, quarters and eighths."""
    for width in (4, 2, 1):
        turned = list(rows)
        for k in range(LANES):
            if k & width:
                continue
            low = [i if not i & width else LANES + i - width for i in range(LANES)]
            high = [i + width if not i & width else LANES + i for i in range(LANES)]
            for place, pattern in ((k, low), (k + width, high)):
                mask = ir.Constant(ir.VectorType(_INDEX, LANES), pattern)
                turned[place] = builder.shuffle_vector(rows[k], rows[k + width], mask)
        rows = turned
    return rows


def _transpose(typing: Any, source: Any, start: Any, stride: Any, target: Any, at: Any, step: Any) -> Any:
    """transpose(source, start, stride, target, at, step): eight rows of eight, ``stride`` apart, become columns.

    What is stored at target[at + step·j …] is column j of the rows source[start + stride·k …].
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        rows = []
        for k in range(LANES):
            here = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, k)))
            loaded = builder.load(_place(context, builder, kinds[0], args[0], here))
            loaded.align = 8
            rows.append(loaded)
        for k, row in enumerate(_turned(builder, rows)):
            here = builder.add(args[4], builder.mul(args[5], ir.Constant(args[5].type, k)))
            builder.store(row, _place(context, builder, kinds[3], args[3], here), align=8)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


def _differences(
    typing: Any, source: Any, first: Any, second: Any, edge: Any, column: Any, target: Any, at: Any
) -> Any:
    """differences(source, first, second, edge, column, target, at): eight columns of eight edges, turned.

    Row k of the eight is source[first[edge + k] + column …] − source[second[edge + k] + column …]; what is stored at
    target[at + 8j …] is column j of these rows.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        starts = [context.make_array(kinds[k])(context, builder, args[k]).data for k in (1, 2)]
        rows = []
        for k in range(LANES):
            edge = builder.add(args[3], ir.Constant(args[3].type, k))
            ends = []
            for data in starts:
                place = builder.zext(builder.load(builder.gep(data, [edge])), args[4].type)
                loaded = builder.load(_place(context, builder, kinds[0], args[0], builder.add(place, args[4])))
                loaded.align = 8
                ends.append(loaded)
            rows.append(builder.fsub(*ends))
        rows = _turned(builder, rows)
        for k, row in enumerate(rows):
            here = builder.add(args[6], ir.Constant(args[6].type, LANES * k))
            builder.store(row, _place(context, builder, kinds[5], args[5], here), align=8)
        return context.get_dummy_value()

    return types.void(source, first, second, types.intp, types.intp, target, types.intp), generate


load, store, fill, total = map(_primitive, (_load, _store, _fill, _total))
least, lower, clip = map(_primitive, (_least, _lower, _clip))
add, subtract, multiply, divide = map(_primitive, map(_operation, ("fadd", "fsub", "fmul", "fdiv")))
add_product, subtract_product = _primitive(_fused("fadd")), _primitive(_fused("fsub"))
differences = _primitive(_differences)
transpose = _primitive(_transpose)
