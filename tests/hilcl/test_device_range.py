from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import DeviceRange, Potentiometer
from hilcl.errors import DeviceRangeError

FloatArray = npt.NDArray[np.float64]

CONDUCTANCE = st.floats(1e-6, 2e-2)

REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("zero", lambda: DeviceRange(0.0, 1.0), r"g_min must be a positive .* got 0 S$"),
    ("negative on an edge", lambda: DeviceRange([1e-3, -1e-3], 1.0), r"g_min .* got -0\.001 S on edge 1"),
    ("nan", lambda: DeviceRange(np.nan, 1.0), r"g_min must be a positive"),
    ("infinite", lambda: DeviceRange(np.inf, np.inf), r"g_min must be a positive"),
    ("crossed", lambda: DeviceRange(2e-3, 1e-3), r"g_max must not be below g_min, got 0\.001 S"),
    ("crossed on an edge", lambda: DeviceRange([1e-3, 3e-3], 2e-3), r"g_max .* got 0\.002 S on edge 1"),
    ("crossed by an edge", lambda: DeviceRange(2e-3, [3e-3, 1e-3]), r"got 0\.001 S on edge 1"),
    ("upper limit nan", lambda: DeviceRange(1e-3, np.nan), r"g_max"),
    ("words", lambda: DeviceRange("low", 1.0), r"g_min must be a number of siemens"),
    ("upper words", lambda: DeviceRange(1.0, [1.0, "high"]), r"g_max must be a number of siemens"),  # type: ignore[arg-type]
    ("nested", lambda: DeviceRange([[1e-3]], 1.0), r"g_min must be one number or one per edge.*\(1, 1\)"),
    ("counts differ", lambda: DeviceRange([1e-3] * 2, [1e-2] * 3), r"g_min has 2 values and g_max has 3"),
    ("empty table", lambda: DeviceRange.from_table([]), r"a table needs one row"),
    ("empty rows", lambda: DeviceRange.from_table([[], []]), r"a table needs one row"),
    ("number for a table", lambda: DeviceRange.from_table(1e-3), r"a table needs one row"),
    ("deep table", lambda: DeviceRange.from_table(np.ones((1, 1, 1))), r"a table needs one row"),
    ("words in the table", lambda: DeviceRange.from_table([1e-3, "x"]), r"numbers only"),  # type: ignore[arg-type]
    ("words in a ragged row", lambda: DeviceRange.from_table([[1e-3], [1e-3, "x"]]), r"numbers only"),  # type: ignore[arg-type]
    ("zero in the table", lambda: DeviceRange.from_table([0.0, 1e-3]), r"not a positive number of siemens"),
    ("infinity in the table", lambda: DeviceRange.from_table([1e-3, np.inf]), r"not a positive"),
    ("no code left", lambda: DeviceRange(1e-3, 2e-3, [1e-4, 3e-3]), r"the edges have no code between"),
    (
        "no code left on an edge",
        lambda: DeviceRange(1e-3, 2e-3, [[1e-4, 1.5e-3], [3e-3, np.nan]]),
        r"edge 1 has no code between",
    ),
    (
        "row without a code",
        lambda: DeviceRange.from_table([[1e-3], []]),
        r"edge 1 has no code between",
    ),
    (
        "more limits than rows",
        lambda: DeviceRange([1e-6] * 3, 1.0, [[1e-3], [1e-3]]),
        r"3 .*2|2 .*3",
    ),
]


@pytest.mark.parametrize(("build", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_no_device_can_have_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(DeviceRangeError, match=message):
        build()


def test_the_box() -> None:
    limits = DeviceRange([1e-4, 2e-4, 1e-4], [1e-2, 1e-3, np.inf])
    wished = np.array([1e-5, 5e-4, 7.0])
    projection = limits.project(wished)
    assert projection.conductances.tolist() == [1e-4, 5e-4, 7.0]
    assert projection.codes is None
    assert projection.pinned.tolist() == [0]
    assert not limits.is_discrete
    np.testing.assert_array_equal(limits.clip(wished), projection.conductances)


def test_a_wish_on_a_limit_is_pinned() -> None:
    projection = DeviceRange(1e-4, 1e-2).project(np.array([1e-4, 1e-2, 5e-3, 1.0]))
    assert projection.pinned.tolist() == [0, 1, 3]


def test_an_ideal_resistor_takes_any_conductance() -> None:
    wished = np.array([1e-11, 1.0, 1e6])
    projection = DeviceRange.unbounded().project(wished)
    np.testing.assert_array_equal(projection.conductances, wished)
    assert projection.pinned.size == 0


def test_scalars_stand_for_every_edge() -> None:
    wide = DeviceRange(1e-4, 1e-2).for_edges(3)
    assert wide.g_min.tolist() == [1e-4] * 3
    assert wide.g_max.tolist() == [1e-2] * 3
    mixed = DeviceRange([1e-4, 1e-3], 1e-2).for_edges(2)
    assert mixed.g_max.tolist() == [1e-2] * 2
    table = DeviceRange.from_table([3e-3, 1e-3]).for_edges(2)
    assert table.table is not None
    assert table.table.tolist() == [[3e-3, 1e-3]] * 2
    assert table.for_edges(2) is table


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (DeviceRange([1e-4] * 2, 1e-2), "g_min has 2 values, but the board has 3 edges"),
        (DeviceRange(1e-4, [1e-2] * 4), "g_max has 4 values, but the board has 3 edges"),
        (DeviceRange.from_table([[1e-3, 2e-3]] * 2), "2 .*board has 3 edges"),
    ],
)
def test_a_range_for_another_board_is_refused(limits: DeviceRange, message: str) -> None:
    with pytest.raises(DeviceRangeError, match=message):
        limits.for_edges(3)


def test_the_values_are_copied_and_read_only() -> None:
    low, table = np.array([1e-4, 1e-4]), np.array([[1e-4, 1e-3], [2e-4, 1e-3]])
    limits = DeviceRange(low, 1e-2, table)
    low[0], table[0, 0] = 1.0, 1.0
    assert limits.g_min.tolist() == [1e-4, 2e-4]
    assert limits.table is not None
    assert limits.table[0, 0] == 1e-4
    for array in (limits.g_min, limits.g_max, limits.table):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.5


def test_limits_are_tightened_to_the_outermost_usable_codes() -> None:
    limits = DeviceRange(5e-4, 5e-3, [1e-4, 4e-3, 6e-4, 1e-2, np.nan])
    assert limits.g_min == 6e-4
    assert limits.g_max == 4e-3
    projection = limits.project(np.array([1e-4, 1e-2, 2e-3]))
    assert projection.conductances.tolist() == [6e-4, 4e-3, 6e-4]
    assert projection.codes is not None
    assert projection.codes.tolist() == [2, 1, 2]
    assert projection.pinned.tolist() == [0, 1]


def test_codes_on_the_limits_are_usable() -> None:
    limits = DeviceRange(1e-3, 3e-3, [1e-3, 2e-3, 3e-3])
    assert limits.project(np.array([0.0, 9.0])).conductances.tolist() == [1e-3, 3e-3]


def test_a_tie_goes_to_the_lower_conductance() -> None:
    limits = DeviceRange.from_table([4.0, 1.0, 2.0])
    projection = limits.project(np.array([1.5, 3.0, np.nextafter(1.5, 2), np.nextafter(3.0, 4)]))
    assert projection.conductances.tolist() == [1.0, 2.0, 2.0, 4.0]
    per_edge = limits.for_edges(4).project(np.array([1.5, 3.0, np.nextafter(1.5, 2), np.nextafter(3.0, 4)]))
    assert per_edge.conductances.tolist() == [1.0, 2.0, 2.0, 4.0]


def test_rows_of_different_length_give_each_edge_its_own_codes() -> None:
    rows = [[1e-3], [2e-3, 5e-4, 1e-3], [1e-4, np.nan, 9e-4]]
    limits = DeviceRange.from_table(rows)
    projection = limits.project(np.array([5.0, 1.4e-3, 6e-4]))
    assert projection.conductances.tolist() == [1e-3, 1e-3, 9e-4]
    assert projection.codes is not None
    assert projection.codes.tolist() == [0, 2, 2]
    np.testing.assert_array_equal(limits.conductances_of(projection.codes), projection.conductances)


def test_codes_need_a_table_and_stochastic_rounding_a_generator() -> None:
    with pytest.raises(DeviceRangeError, match="no codes"):
        DeviceRange(1e-4, 1e-2).conductances_of(np.array([0]))
    with pytest.raises(DeviceRangeError, match="random generator"):
        DeviceRange.from_table([1.0, 2.0]).project(np.array([1.5]), "stochastic")


def test_the_range_of_a_potentiometer_is_its_code_table() -> None:
    pot = Potentiometer(256, 10e3, wiper=75.0)
    limits = DeviceRange.of_pots(pot)
    assert limits.table is not None
    np.testing.assert_array_equal(limits.table, pot.conductances())
    assert limits.g_max == pytest.approx(1 / 75, rel=1e-15)
    small = Potentiometer(64, 5e3, wiper=50.0)
    both = DeviceRange.of_pots([pot, small])
    assert both.table is not None
    assert np.isnan(both.table[1, 64:]).all()
    np.testing.assert_array_equal(both.table[1, :64], small.conductances())


@st.composite
def tables_and_wishes(draw: st.DrawFn) -> tuple[list[list[float]], FloatArray]:
    """Draw ragged rows with unusable codes, and a wish per edge: codes, points half way, and anything."""
    rows, wishes = [], []
    for _ in range(draw(st.integers(1, 4))):
        codes = draw(st.lists(CONDUCTANCE, min_size=1, max_size=6))
        first, second = draw(st.sampled_from(codes)), draw(st.sampled_from(codes))
        wishes.append(draw(st.sampled_from([first, (first + second) / 2]) | st.floats(0, 1)))
        rows.append(draw(st.permutations([*codes, np.nan])))
    return rows, np.array(wishes)


@settings(deadline=None)
@given(tables_and_wishes())
def test_the_projection_is_the_nearest_usable_code(case: tuple[list[list[float]], FloatArray]) -> None:
    rows, wished = case
    projection = DeviceRange.from_table(rows).project(wished)
    assert projection.codes is not None
    for edge, row in enumerate(rows):
        usable = sorted(value for value in row if not np.isnan(value))
        boxed = min(max(wished[edge], usable[0]), usable[-1])
        best = min(usable, key=lambda value: (abs(value - boxed), value))
        assert projection.conductances[edge] == best
        assert row[projection.codes[edge]] == best
        assert (edge in projection.pinned) == (not usable[0] < wished[edge] < usable[-1])


@settings(deadline=None)
@given(tables_and_wishes(), st.sampled_from(["nearest", "stochastic"]), st.integers(0, 2**32))
def test_projecting_twice_changes_nothing(case: tuple[list[list[float]], FloatArray], rounding: str, seed: int) -> None:
    rows, wished = case
    generator = np.random.default_rng(seed)
    limits = DeviceRange.from_table(rows)
    once = limits.project(wished, rounding, generator).conductances  # type: ignore[arg-type]
    twice = limits.project(once, rounding, generator).conductances  # type: ignore[arg-type]
    np.testing.assert_array_equal(twice, once)


@settings(deadline=None)
@given(st.lists(CONDUCTANCE, min_size=1, max_size=8), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_one_row_for_all_edges_means_the_same_row_on_each(codes: list[float], wishes: list[float]) -> None:
    wished, limits = np.array(wishes), DeviceRange.from_table(codes)
    shared, each = limits.project(wished), limits.for_edges(len(wished)).project(wished)
    np.testing.assert_array_equal(shared.conductances, each.conductances)
    np.testing.assert_array_equal(shared.pinned, each.pinned)


@settings(deadline=None)
@given(st.lists(st.tuples(CONDUCTANCE, CONDUCTANCE, st.floats(-1, 1)), min_size=1, max_size=6))
def test_the_box_projection_is_the_closest_point_and_idempotent(
    edges: list[tuple[float, float, float]],
) -> None:
    ends = np.sort([edge[:2] for edge in edges], axis=1)
    wished = np.array([edge[2] for edge in edges])
    limits = DeviceRange(ends[:, 0], ends[:, 1])
    taken = limits.project(wished).conductances
    assert ((taken >= ends[:, 0]) & (taken <= ends[:, 1])).all()
    distance = np.maximum(0.0, np.maximum(ends[:, 0] - wished, wished - ends[:, 1]))
    np.testing.assert_array_equal(np.abs(taken - wished), distance)
    np.testing.assert_array_equal(limits.project(taken).conductances, taken)


@settings(deadline=None)
@given(tables_and_wishes(), st.integers(0, 2**32))
def test_stochastic_rounding_takes_a_neighbour(case: tuple[list[list[float]], FloatArray], seed: int) -> None:
    rows, wished = case
    projection = DeviceRange.from_table(rows).project(wished, "stochastic", np.random.default_rng(seed))
    for edge, row in enumerate(rows):
        usable = [value for value in row if not np.isnan(value)]
        below = max([value for value in usable if value <= wished[edge]], default=min(usable))
        above = min([value for value in usable if value >= wished[edge]], default=max(usable))
        assert projection.conductances[edge] in (below, above)


@pytest.mark.parametrize("rows", [1, 20_000])
def test_stochastic_rounding_keeps_the_mean(rows: int) -> None:
    n_draws, wish = 20_000, 1.2e-3
    limits = DeviceRange.from_table(np.tile([5e-3, 1e-3, 2e-3], (rows, 1)).squeeze())
    projection = limits.project(np.full(n_draws, wish), "stochastic", np.random.default_rng(7))
    taken = projection.conductances
    assert set(taken.tolist()) == {1e-3, 2e-3}
    # The share of the upper neighbour is 0.2 with a standard deviation of √(0.2·0.8/n).
    assert np.mean(taken == 2e-3) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / n_draws))
    assert projection.pinned.size == 0


def test_stochastic_rounding_repeats_with_the_seed() -> None:
    limits, wished = DeviceRange.from_table([1.0, 2.0]), np.full(50, 1.5)
    draws = [limits.project(wished, "stochastic", np.random.default_rng(s)).conductances for s in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
