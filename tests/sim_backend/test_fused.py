"""The compiled pass over a small board: what it computes is what the ordinary way computes."""

import math
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Checkpoint, ContrastiveLearning, DeviceRange, Network, RobbinsMonro, Step, Task, train
from hilcl.board import Contrast, contrast_from_responses
from hilcl.certificate import Certificate
from hilcl.device_range import Rounding
from hilcl.errors import InputError, MeasurementError, SolverError
from hilcl.sim_backend import Imperfections, PotDefects, SimulatedBoard, SourceDefects
from hilcl.sim_backend import fused as fused_module
from hilcl.sim_backend.basis import BasisSolver
from hilcl.sim_backend.board import fused_contrast
from hilcl.sim_backend.fused import is_compiled
from hilcl.sim_backend.fused_plan import Section, elimination_order, factor_pattern, make_plan
from hilcl.whole_step import StepsWhole
from tests.sim_backend.boards import networks

FloatArray = npt.NDArray[np.float64]

GRID = Network.grid(7, 7, inputs=[0, 6, 42, 48, 3, 21, 27, 45], outputs=[8, 12, 36, 40])
LIMITS = DeviceRange(1e-4, 1e-3)


def grid_problem(n_samples: int = 16) -> tuple[Task, FloatArray]:
    generator = np.random.default_rng(n_samples)
    inputs = generator.uniform(0.0, 1.0, (n_samples, 8))
    targets = generator.uniform(inputs.min(1, keepdims=True), inputs.max(1, keepdims=True), (n_samples, 4))
    return Task(inputs, targets), generator.uniform(1e-4, 1e-3, GRID.n_edges)


class OrdinaryBoard(SimulatedBoard):
    """The same board, asked for a contrast and then programmed, as any board is."""

    def contrast(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, nudge: float) -> Contrast:
        return super().contrast(inputs, targets, nudge)


def steps_of(board: SimulatedBoard, task: Task, rule: ContrastiveLearning, epochs: int) -> list[Step]:
    return list(train(board, task, rule, epochs))


def assert_same(one: Step, other: Step) -> None:
    for name in ("loss", "contrast", "power", "residual", "outputs", "conductances", "state", "conductances_before"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-11, err_msg=name)
    assert one.lower_bound == pytest.approx(other.lower_bound, rel=1e-9, abs=1e-20)
    assert (one.epoch, one.step_size, one.clamp_error) == (other.epoch, other.step_size, other.clamp_error)
    assert one.codes is None
    assert one.pinned.dtype == other.pinned.dtype
    np.testing.assert_array_equal(one.pinned, other.pinned)
    assert (one.checkpoint.epoch, one.checkpoint.updates) == (other.checkpoint.epoch, other.checkpoint.updates)
    assert one.checkpoint.lower_bound == one.lower_bound
    np.testing.assert_array_equal(one.checkpoint.state, one.state)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 19), st.floats(0.01, 1.0))
def test_the_kernel_is_the_contrast_from_the_basis(data: st.DataObject, n_samples: int, nudge: float) -> None:
    network = data.draw(networks(max_nodes=9, max_inputs=5, max_outputs=4).filter(lambda drawn: len(drawn.outputs) > 0))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    g = generator.uniform(1e-4, 1e-3, network.n_edges)
    inputs = generator.uniform(-1, 1, (n_samples, len(network.inputs)))
    targets = generator.uniform(-1, 1, (n_samples, len(network.outputs)))
    found = SimulatedBoard(network, g, solver="fused").contrast(inputs, targets, nudge)
    expected = fused_contrast(BasisSolver(network, "dense").solve(g), inputs, targets, nudge)
    for field in fields(Contrast):
        got, wanted = getattr(found, field.name), getattr(expected, field.name)
        assert np.shape(got) == np.shape(wanted)
        scale = float(np.abs(wanted).max(initial=0.0))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * scale, err_msg=field.name)


@pytest.mark.parametrize("nudge", [1.0, 0.1])
@pytest.mark.parametrize("n_samples", [1, 16, 21])
def test_a_whole_step_is_measuring_updating_and_programming(nudge: float, n_samples: int) -> None:
    task, start = grid_problem(n_samples)
    rule = ContrastiveLearning(2e-3, nudge=nudge)
    whole = SimulatedBoard(GRID, start, LIMITS, solver="fused")
    ordinary = OrdinaryBoard(GRID, start, LIMITS, solver="dense")
    pinned = 0
    for one, other in zip(steps_of(whole, task, rule, 12), steps_of(ordinary, task, rule, 12), strict=True):
        assert_same(one, other)
        pinned += len(one.pinned)
    assert pinned > 0
    np.testing.assert_array_equal(whole.conductances, one.conductances)
    np.testing.assert_array_equal(whole.true_conductances, one.conductances)


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(1, 9), st.sampled_from([1.0, 0.3]), st.sampled_from(["nearest", "stochastic"]))
def test_a_whole_step_of_codes_is_the_ordinary_one_bit_for_bit(
    data: st.DataObject, n_samples: int, nudge: float, rounding: Rounding
) -> None:
    network = data.draw(networks(max_nodes=9, max_inputs=5, max_outputs=4).filter(lambda drawn: len(drawn.outputs) > 0))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    inputs = generator.uniform(0, 1, (n_samples, len(network.inputs)))
    low, high = inputs.min(1, keepdims=True), inputs.max(1, keepdims=True)
    task = Task(inputs, generator.uniform(low, high, (n_samples, len(network.outputs))))
    rows = data.draw(st.sampled_from([(), (network.n_edges,)]))
    limits = DeviceRange.from_table(generator.uniform(1e-4, 1e-3, (*rows, 32)))
    rule = ContrastiveLearning(data.draw(st.sampled_from([1e-5, 1e-3])), nudge=nudge)
    board, ordinary = (kind(network, 5e-4, limits, solver="fused") for kind in (SimulatedBoard, OrdinaryBoard))
    assert board.stepper(task, nudge, board.device_range) is not None
    ways = [train(each, task, rule, 8, seed=3, rounding=rounding) for each in (board, ordinary)]
    for one, other in zip(*ways, strict=True):
        for name in ("codes", "conductances", "conductances_before", "state", "pinned"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert one.checkpoint.generator == other.checkpoint.generator
        assert one.residual == pytest.approx(other.residual, rel=1e-11)
        assert one.lower_bound == pytest.approx(other.lower_bound, rel=1e-9, abs=1e-20)
    # The unrounded state is no more than a wish to such a board.
    np.testing.assert_array_equal(board.program(one.state), board.device_range.project(one.state).conductances)


def test_without_upper_limits_nothing_is_known_from_below() -> None:
    task, start = grid_problem()
    bounded, open_above = (
        steps_of(SimulatedBoard(GRID, start, limits, solver="fused"), task, ContrastiveLearning(1e-4), 3)[-1]
        for limits in (LIMITS, DeviceRange(1e-4, math.inf))
    )
    ordinary = steps_of(OrdinaryBoard(GRID, start, LIMITS), task, ContrastiveLearning(1e-4), 3)[-1]
    assert bounded.lower_bound == pytest.approx(ordinary.lower_bound, rel=1e-12)
    assert bounded.lower_bound > 0
    assert open_above.lower_bound == 0.0


def test_a_lower_bound_is_proven_where_targets_cannot_be_met() -> None:
    network = Network.crossbar(3, 2)
    task = Task([[1.0, 0.0, 0.5]] * 2, [[0.9, 0.1], [0.1, 0.9]])
    boards = SimulatedBoard(network, 5e-4, LIMITS, solver="fused"), OrdinaryBoard(network, 5e-4, LIMITS)
    whole, ordinary = (steps_of(board, task, ContrastiveLearning("auto"), 200)[-1] for board in boards)
    assert whole.lower_bound == pytest.approx(ordinary.lower_bound, rel=1e-9)
    assert whole.lower_bound > 0
    certificate = Certificate.of(SimulatedBoard(network, 5e-4, LIMITS), task, ContrastiveLearning("auto"), whole)
    assert certificate.realisable is False


def test_a_falling_step_size_and_a_resumed_run_go_the_same_way() -> None:
    task, start = grid_problem()
    rule = ContrastiveLearning(RobbinsMonro(2e-4, 10.0))
    together = steps_of(SimulatedBoard(GRID, start, LIMITS, solver="fused"), task, rule, 9)
    checkpoint: Checkpoint = together[3].checkpoint
    board = SimulatedBoard(GRID, start, LIMITS, solver="fused")
    resumed = list(train(board, task, rule, 9, resume=checkpoint))
    for one, other in zip(resumed, together[4:], strict=True):
        assert (one.loss, one.residual, one.step_size) == (other.loss, other.residual, other.step_size)
        np.testing.assert_array_equal(one.conductances, other.conductances)


def test_steps_do_not_share_memory() -> None:
    task, start = grid_problem()
    steps = train(SimulatedBoard(GRID, start, LIMITS, solver="fused"), task, ContrastiveLearning(2e-4), 4)
    first = next(steps)
    copies = first.outputs.copy(), first.conductances.copy(), first.pinned.copy()
    list(steps)
    for kept, copy in zip((first.outputs, first.conductances, first.pinned), copies, strict=True):
        np.testing.assert_array_equal(kept, copy)
    with pytest.raises(ValueError, match="read-only"):
        first.conductances[0] = 1.0


def test_programming_between_steps_is_seen() -> None:
    task, start = grid_problem()
    board = SimulatedBoard(GRID, start, LIMITS, solver="fused")
    steps = train(board, task, ContrastiveLearning(2e-4), 3)
    next(steps)
    board.program(np.full(GRID.n_edges, 3e-4))
    second = next(steps)
    assert set(second.conductances_before.tolist()) == {3e-4}
    measured = OrdinaryBoard(GRID, 3e-4, LIMITS).contrast(task.inputs, task.targets, 1.0)
    np.testing.assert_allclose(second.outputs, measured.outputs, rtol=1e-12)


@pytest.mark.parametrize("change", ["wrong pots", "batches", "direction", "wrapped", "series resistance", "certified"])
def test_whatever_needs_the_ordinary_way_goes_it(change: str) -> None:
    """Pots that are not what they say, mini-batches, own rules, boards that change measuring, and real sources."""

    class Slower(ContrastiveLearning):
        def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
            return 0.5 * super().direction(contrast, n_samples)

    task, start = grid_problem()
    limits = DeviceRange.from_table(np.linspace(1e-4, 1e-3, 64)) if change == "wrong pots" else LIMITS
    kind = OrdinaryBoard if change == "wrapped" else SimulatedBoard
    defects = Imperfections(
        pots=PotDefects(tolerance=0.1 if change == "wrong pots" else 0.0),
        sources=SourceDefects(series=10.0 if change == "series resistance" else 0.0),
    )
    accuracy = "certified" if change == "certified" else "standard"
    of_rule = Slower if change == "direction" else ContrastiveLearning
    rule = of_rule(2e-4, batch_size=5 if change == "batches" else None)
    ways = [
        steps_of(kind(GRID, start, limits, defects, solver=solver, accuracy=accuracy), task, rule, 4)  # type: ignore[arg-type]
        for solver in ("fused", "dense")
    ]
    for one, other in zip(*ways, strict=True):
        np.testing.assert_allclose(one.conductances, other.conductances, rtol=1e-10)
        assert (one.codes is None) == (change != "wrong pots")


def test_a_board_without_outputs_or_floating_nodes_still_answers() -> None:
    inputs_only = Network(3, [[0, 1], [1, 2]], [0, 2], [])
    drives = [[1.0, 0.0]]
    assert SimulatedBoard(inputs_only, 1e-3, solver="fused").respond(drives).potentials[0, 1] == pytest.approx(0.5)
    held = Network(2, [[0, 1]], [0, 1], [])
    assert SimulatedBoard(held, 1e-3, solver="fused").respond(drives).currents[0] == pytest.approx([1e-3, -1e-3])


def test_one_input_is_the_reference() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0], [2])
    board = SimulatedBoard(network, 1e-3, solver="fused")
    inputs, targets = np.array([[0.25]]), np.array([[0.75]])
    result, measured = board.contrast(inputs, targets, 1.0), contrast_from_responses(board, inputs, targets, 1.0)
    np.testing.assert_allclose(result.gradient, [0.0625, 0.0625], rtol=1e-13)
    np.testing.assert_allclose(result.gradient, measured.gradient, rtol=1e-13)
    assert result.outputs[0, 0] == 0.25
    assert result.power_free[0] == 0.0


def test_a_lost_pivot_is_said() -> None:
    network = Network(5, [[0, 1], [1, 2], [2, 3], [3, 4]], [0, 4], [3])
    task = Task([[1.0, 0.0]], [[0.5]])
    board = SimulatedBoard(network, [1e-11, 1e6, 1e6, 1e-11], solver="fused")
    with pytest.raises(SolverError, match="narrow the conductance range"):
        board.contrast(task.inputs, task.targets, 1.0)
    with pytest.raises(SolverError, match="narrow the conductance range"):
        next(train(board, task, ContrastiveLearning(1e-3), 1))


def test_outputs_joined_too_tightly_are_refused() -> None:
    network = Network(4, [[0, 1], [1, 2], [2, 3]], [0, 3], [1, 2])
    board = SimulatedBoard(network, [1e-6, 1e15, 1e-6], solver="fused")
    with pytest.raises(SolverError, match=r"lower the conductances between them|narrow the conductance range"):
        board.contrast([[1.0, 0.0]], [[0.5, 0.4]], 1.0)


def test_volts_that_are_no_numbers_are_refused() -> None:
    board = SimulatedBoard(Network.crossbar(2, 1), 1e-3, solver="fused")
    for inputs, targets in (([[math.nan, 0.0]], [[0.5]]), ([[1.0, 0.0]], [[math.inf]])):
        with pytest.raises(InputError, match="finite volts"):
            board.contrast(inputs, targets, 1.0)


def test_an_update_that_is_no_number_names_its_edge() -> None:
    network = Network.crossbar(2, 1)
    board = SimulatedBoard(network, 1e-3, solver="fused")
    with pytest.raises(MeasurementError, match="the update of edge 0"), np.errstate(all="ignore"):
        next(train(board, Task([[1e200, 0.0]], [[1e170]]), ContrastiveLearning(1e-3), 1))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_plan_is_a_cholesky_pattern(data: st.DataObject) -> None:
    network = data.draw(networks(max_nodes=12, max_inputs=2))
    size = len(network.floating)
    number = np.full(network.n_nodes, -1)
    number[network.floating] = np.arange(size)
    ends = number[network.edges]
    order = elimination_order(size, ends)
    assert sorted(order.tolist()) == list(range(size))
    place = np.append(np.argsort(order), -1)
    pairs = place[ends][(ends >= 0).all(axis=1)].T
    starts, rows = factor_pattern(size, np.sort(pairs, axis=0))
    filled = np.eye(size, dtype=bool)
    filled[pairs[0], pairs[1]] = filled[pairs[1], pairs[0]] = True
    for k in range(size):
        later = np.flatnonzero(filled[k])[np.flatnonzero(filled[k]) > k]
        filled[np.ix_(later, later)] = True
    for column in range(size):
        below = np.flatnonzero(filled[:, column])
        assert rows[starts[column] : starts[column + 1]].tolist() == below[below > column].tolist()
    plan = make_plan(network)
    assert len(plan) == plan[len(Section)]


def test_without_numba_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_module, "is_installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'hilcl\[fast\]'"):
        SimulatedBoard(Network.crossbar(2, 1), 1e-3, solver="fused")


def test_boards_say_when_they_will_be_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task, start = grid_problem()
    board = SimulatedBoard(GRID, start, LIMITS, solver="fused")
    next(train(board, task, ContrastiveLearning(1e-4), 1))
    assert is_compiled()
    assert not board.notes
    monkeypatch.setattr("hilcl.sim_backend.board.is_compiled", lambda: False)
    assert ["compiled" in note for note in board.notes] == [True]
    assert not SimulatedBoard(GRID, start, LIMITS).notes


def test_numba_is_imported_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """It takes half a second: neither the package nor an ordinary board may need it."""
    script = """
import sys
import hilcl.session, hilcl.sim_backend.fused
from hilcl import *
from hilcl.sim_backend import SimulatedBoard
next(train(SimulatedBoard(Network.crossbar(2, 1), 1e-3, DeviceRange(1e-4, 1e-2)),
           Task([[1.0, 0.0]], [[0.4]]), ContrastiveLearning("auto"), 1))
print("numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("place", ["given", "none"])
def test_a_package_folder_that_cannot_be_written_to(place: str, tmp_path: Path) -> None:
    """The machine code then goes where NUMBA_CACHE_DIR says, or nowhere, and the function still works."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "doubling.py").write_text(
        "from hilcl.sim_backend.compiled import compiled\n@compiled\ndef double(x):\n    return 2 * x\n"
    )
    # A file where the cache folder would be: not even root can write there.
    (package / "__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    cache = tmp_path / "cache"
    environment = {**os.environ, "PYTHONPATH": str(package), "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if place == "given":
        environment["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", "from doubling import double; print(double(21))"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout == "42\n", done.stderr
    assert bool(list(cache.rglob("*.nbc"))) == (place == "given")


def test_a_protocol_of_the_core_is_what_the_board_offers() -> None:
    assert isinstance(SimulatedBoard(GRID, 5e-4), StepsWhole)


def test_machine_code_of_another_version_is_not_used(tmp_path: Path) -> None:
    """A kernel is made of constants of other modules: what was kept before one of them changed must be forgotten."""
    package = tmp_path / "kernels"
    package.mkdir()
    source = Path(fused_module.__file__).with_name("compiled.py").read_text("utf-8")
    (package / "compiled.py").write_text(source, "utf-8")
    (package / "scaling.py").write_text(
        "from compiled import compiled\nfrom constants import FACTOR\n\n"
        "@compiled\ndef scale(x):\n    return FACTOR * x\n"
    )
    script = "import scaling; from compiled import is_kept; print(is_kept(scaling.scale), scaling.scale(2))"
    said = []
    for factor in (3, 3, 5):
        (package / "constants.py").write_text(f"FACTOR = {factor}\n")
        done = subprocess.run(
            [sys.executable, "-B", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(package)},
            cwd=tmp_path,
        )
        said.append(done.stdout.strip())
    assert said == ["False 6", "True 6", "False 10"]
