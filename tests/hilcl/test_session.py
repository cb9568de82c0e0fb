from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from hilcl.errors import BoardError, ExperimentError, HilclError, StoreError
from hilcl.experiment import Experiment, SimulationSection
from hilcl.preparation import Preparation, prepare
from hilcl.session import Run, fingerprint, first_difference, open_board, versions
from hilcl.sim_backend import Imperfections, MeterDefects, PotDefects, SimulatedBoard, SourceDefects
from hilcl.sim_backend.described import imperfections_of
from hilcl.store import Store
from tests.command_line import DIVIDER, stored_steps, stored_summary

KINDS = {
    "all samples": "",
    "mini-batches": "batch_size = 2",
    "independent draws and a falling step": 'batch_size = 1\ndraw = "independent"\ndecay_updates = 30.0',
    "stochastic rounding": 'rounding = "stochastic"',
    "a small nudge and the last state": 'nudge = 0.25\nkeep = "last"',
    "stochastic rounding of mini-batches": 'rounding = "stochastic"\nbatch_size = 1',
}


def noisy(more: str = "", epochs: int = 24) -> str:
    """Return an experiment with pots and noisy 12-bit meters, three training samples and one test sample."""
    return f"""
[board]
network = {{ kind = "torus", rows = 3, cols = 3, inputs = [0, 4], outputs = [2, 7] }}
pots = {{ positions = 128, end_to_end = "10 kΩ", wiper = "75 Ω", series = "500 Ω" }}

[task]
inputs_volts = [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 2.0]]
targets_volts = [[0.6, 0.5], [0.4, 0.5], [1.6, 1.5], [1.4, 1.5]]
test_fraction = 0.25

[learning]
step_size = "1e-4 S/V²"
epochs = {epochs}
seed = 5
{more}

[simulation]
seed = 3
pots = {{ tolerance = "20 %", stuck = {{ 1 = 60 }} }}
meters = {{ bits = 12, range = "5 V", noise = "2 mV" }}
"""


def prepared(text: str, folder: Path = Path()) -> Preparation:
    return prepare(Experiment.parse(text, folder / "experiment.toml"))


def go(store: Store, name: str, text: str) -> dict[str, Any]:
    """Train from beginning to end."""
    with Run.start(prepared(text), store, name) as run:
        assert sum(1 for _ in run.steps()) > 0
        return run.finish()


def go_on(store: Store, name: str, text: str) -> dict[str, Any]:
    """Resume and train to the end."""
    with Run.resume(prepared(text), store, name) as run:
        for _ in run.steps():
            pass
        return run.finish()


def abandon(store: Store, name: str, text: str, epochs: int) -> None:
    """Start a run and drop it after some epochs."""
    with Run.start(prepared(text), store, name) as run:
        assert len(list(islice(run.steps(), epochs))) == epochs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.sqlite"


def assert_same(path: Path, one: str, other: str) -> None:
    steps, expected = stored_steps(path, one), stored_steps(path, other)
    assert len(steps) == len(expected)
    for step, twin in zip(steps, expected, strict=True):
        assert step == twin
    assert stored_summary(path, one) == stored_summary(path, other)


def test_a_run_from_start_to_finish(path: Path) -> None:
    with Store(path) as store, Run.start(prepared(DIVIDER), store, "run") as run:
        assert (run.name, run.first_epoch, run.certificate.coverage) == ("run", 0, "convex")
        taken = list(run.steps())
        assert [step.epoch for step in taken] == list(range(20))
        assert store.run("run").status == "running"
        summary = run.finish()
        info = store.run("run")
    assert (info.status, info.steps, info.backend, info.experiment) == ("finished", 20, "sim", DIVIDER)
    assert info.settings == Experiment.parse(DIVIDER, Path("x.toml")).model_dump(mode="json")
    assert info.summary == summary
    assert (summary["epochs"], summary["stopped_by"], summary["coverage"]) == (20, "all epochs are done", "convex")
    best = min(taken, key=lambda step: step.loss)
    assert summary["kept_epoch"] == best.epoch
    assert summary["kept_conductances"] == best.conductances_before.tolist()
    assert summary["evaluation"]["train"]["loss"] == best.loss
    assert summary["evaluation"]["untrained"]["loss"] == taken[0].loss == pytest.approx(0.09)
    np.testing.assert_array_equal(info.arrays["initial"], taken[0].conductances_before)


def test_the_last_state_is_kept_where_asked_for(path: Path) -> None:
    text = DIVIDER + 'keep = "last"\n'
    with Store(path) as store, Run.start(prepared(text), store, "run") as run:
        taken = list(run.steps())
        summary = run.finish()
    assert summary["kept_epoch"] is None
    assert summary["kept_conductances"] == taken[-1].conductances.tolist()
    assert summary["evaluation"]["train"]["loss"] < taken[-1].loss


def test_the_same_file_gives_the_same_run(path: Path) -> None:
    with Store(path) as store:
        go(store, "one", noisy())
        go(store, "two", noisy())
    assert_same(path, "one", "two")


@pytest.mark.parametrize("done", [0, 1, 7, 23])
@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_an_abandoned_run_goes_on_as_if_nothing_had_happened(path: Path, more: str, done: int) -> None:
    text = noisy(more)
    with Store(path) as store:
        go(store, "undisturbed", text)
        abandon(store, "abandoned", text, done)
        assert store.run("abandoned").status == "running"
        assert store.run("abandoned").steps == done
    with Store(path) as store:
        go_on(store, "abandoned", text)
        assert store.run("abandoned").status == "finished"
    assert_same(path, "abandoned", "undisturbed")


def test_a_run_abandoned_again_and_again(path: Path) -> None:
    text = noisy(KINDS["stochastic rounding of mini-batches"])
    with Store(path) as store:
        go(store, "undisturbed", text)
        abandon(store, "abandoned", text, 1)
        for epochs in (2, 1, 5):
            with Run.resume(prepared(text), store, "abandoned") as run:
                first = run.first_epoch
                assert [step.epoch for step in islice(run.steps(), epochs)] == list(range(first, first + epochs))
        go_on(store, "abandoned", text)
    assert_same(path, "abandoned", "undisturbed")


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_a_run_lost_between_its_last_step_and_its_summary(path: Path, more: str) -> None:
    text = noisy(more)
    with Store(path) as store:
        go(store, "undisturbed", text)
        abandon(store, "lost", text, 24)
        go_on(store, "lost", text)
    assert_same(path, "lost", "undisturbed")


@pytest.mark.parametrize("stop", ['stop.loss = "1e-6 V²"', 'stop.residual = "1e-3 V²"'])
def test_a_run_lost_between_its_reason_to_stop_and_its_summary(path: Path, stop: str) -> None:
    text = DIVIDER.replace("epochs = 20", "epochs = 500") + stop + "\n"
    with Store(path) as store:
        summary = go(store, "undisturbed", text)
        n_steps = store.run("undisturbed").steps
        assert n_steps < 500
        assert "reached" in summary["stopped_by"]
        abandon(store, "lost", text, n_steps)
        go_on(store, "lost", text)
    assert_same(path, "lost", "undisturbed")


def test_more_epochs_extend_a_finished_run(path: Path) -> None:
    with Store(path) as store:
        go(store, "long", noisy(epochs=30))
        go(store, "extended", noisy(epochs=10))
        go_on(store, "extended", noisy(epochs=30))
        info = store.run("extended")
        assert (info.status, info.steps) == ("finished", 30)
    assert_same(path, "extended", "long")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('step_size = "1e-4 S/V²"', 'step_size = "2e-4 S/V²"', "learning.step_size"),
        ('step_size = "1e-4 S/V²"', 'step_size = "auto"', "learning.step_size"),
        ("seed = 5", "seed = 6", "learning.seed"),
        ("seed = 3", "seed = 4", "simulation.seed"),
        ('noise = "2 mV"', 'noise = "1 mV"', "simulation.meters.noise"),
        ("{ 1 = 60 }", "{ 1 = 61 }", "simulation.pots.stuck.1"),
        ("{ 1 = 60 }", "{ 2 = 60 }", "simulation.pots.stuck.1"),
        ("[1.4, 1.5]]", "[1.4, 1.6]]", "task.targets_volts"),
        ('"10 kΩ"', '"20 kΩ"', "board.pots.end_to_end"),
        ("test_fraction = 0.25\n", "", "task.test_fraction"),
        ("seed = 5", "seed = 5\nbatch_size = 2", "learning.batch_size"),
    ],
)
def test_a_file_that_differs_is_refused(path: Path, old: str, new: str, key: str) -> None:
    with Store(path) as store:
        abandon(store, "run", noisy(), 3)
        assert noisy() != noisy().replace(old, new)
        with pytest.raises(ExperimentError, match=rf"{key} differs from what the run 'run' was started with"):
            Run.resume(prepared(noisy().replace(old, new)), store, "run")
        info = store.run("run")
    assert (info.status, info.steps) == ("running", 3)


def test_a_file_written_differently_is_the_same_file(path: Path) -> None:
    with Store(path) as store:
        abandon(store, "run", noisy(), 3)
        same = noisy().replace("[board]", "# a remark\n[board]").replace('"10 kΩ"', '"10000 ohm"')
        go_on(store, "run", same + '\n[store]\nfile = "elsewhere.sqlite"\n')
        assert store.run("run").steps == 24


CSV_EXPERIMENT = DIVIDER.replace(
    "inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[0.2]]", 'file = "data.csv"\ninputs = ["a", "b"]\ntargets = ["y"]'
)


def test_data_that_differ_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b,y\n1,0,0.2\n", "utf-8")
    with Store(path) as store:
        with Run.start(prepared(CSV_EXPERIMENT, tmp_path), store, "run") as run:
            list(islice(run.steps(), 3))
        (tmp_path / "data.csv").write_text("a,b,y\n1,0,0.3\n", "utf-8")
        with pytest.raises(ExperimentError, match="the data are not those the run 'run' was started with"):
            Run.resume(prepared(CSV_EXPERIMENT, tmp_path), store, "run")
        assert store.run("run").status == "running"


def test_an_unknown_or_finished_run_is_refused(path: Path) -> None:
    with Store(path) as store:
        summary = go(store, "done", noisy())
        for _ in range(2):
            with pytest.raises(StoreError, match=r"'done' is complete, 24 epochs: raise learning\.epochs"):
                Run.resume(prepared(noisy()), store, "done")
        with pytest.raises(StoreError, match="has no run 'x': it has done"):
            Run.resume(prepared(noisy()), store, "x")
        assert store.run("done").summary == summary


def test_a_run_that_met_its_reason_to_stop_is_complete(path: Path) -> None:
    text = DIVIDER.replace("epochs = 20", "epochs = 500") + 'stop.loss = "1e-6 V²"\n'
    with Store(path) as store:
        summary = go(store, "done", text)
        n_steps = store.run("done").steps
        with pytest.raises(StoreError, match="'done' is complete"):
            go_on(store, "done", text)
        assert (store.run("done").summary, store.run("done").steps) == (summary, n_steps)
        stricter = go_on(store, "done", text.replace("1e-6", "1e-8"))
        assert stricter["evaluation"]["train"]["loss"] <= 1e-8 < summary["evaluation"]["train"]["loss"]


def test_names_are_made_up_from_the_file_or_taken_from_it(path: Path) -> None:
    with Store(path) as store:
        for expected in ("experiment", "experiment-2"):
            with Run.start(prepared(DIVIDER), store, None) as run:
                assert run.name == expected
        named = DIVIDER + '[store]\nrun = "mine"\n'
        with Run.start(prepared(named), store, None) as run:
            assert run.name == "mine"
        with pytest.raises(StoreError, match="already has a run 'mine'"):
            Run.start(prepared(named), store, None)


class UnknownBoardError(HilclError):
    """Something went wrong on the bench."""


def fail_after(run: Run, epochs: int, error: BaseException) -> None:
    for _ in islice(run.steps(), epochs):
        pass
    raise error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (KeyboardInterrupt(), "stopped", "stopped by the keyboard or a signal"),
        (BoardError("source 3 is silent: check its plug"), "failed", "source 3 is silent: check its plug"),
        (UnknownBoardError("smoke"), "failed", "smoke"),
    ],
)
def test_how_a_run_ended_is_noted_and_it_can_go_on(path: Path, error: BaseException, status: str, reason: str) -> None:
    text = noisy()
    with Store(path) as store:
        go(store, "undisturbed", text)
        run = Run.start(prepared(text), store, "run")
        with pytest.raises(type(error)), run:
            fail_after(run, 5, error)
        info = store.run("run")
        assert (info.status, info.reason, info.steps) == (status, reason, 5)
        assert info.finished is not None
        go_on(store, "run", text)
    assert_same(path, "run", "undisturbed")


class Fuse:
    """Stands in for a board's method and blows at its n-th call."""

    def __init__(self, method: Callable[..., Any], calls: int, error: BaseException) -> None:
        self._method, self._left, self._error = method, calls, error

    def __call__(self, *arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise self._error
        return self._method(*arguments)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BoardError("the link is gone: plug it in")])
@pytest.mark.parametrize(("method", "calls"), [("contrast", 6), ("program", 6), ("contrast", 1), ("program", 1)])
def test_a_board_that_fails_within_an_epoch_loses_that_epoch_only(
    path: Path, monkeypatch: pytest.MonkeyPatch, method: str, calls: int, error: BaseException
) -> None:
    text = noisy()
    with Store(path) as store:
        go(store, "undisturbed", text)
        run = Run.start(prepared(text), store, "run")
        monkeypatch.setattr(run.board, method, Fuse(getattr(run.board, method), calls, error))
        with pytest.raises(type(error)), run:
            list(run.steps())
        assert store.run("run").steps == calls - 1
        go_on(store, "run", text)
    assert_same(path, "run", "undisturbed")


def test_the_board_is_closed_whatever_happens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    with Store(path) as store:
        for name, error in (("fine", None), ("wrong", KeyboardInterrupt())):
            run = Run.start(prepared(DIVIDER), store, name)
            monkeypatch.setattr(run.board, "close", Fuse(lambda name=name: closed.append(name), 0, RuntimeError()))
            if error is None:
                with run:
                    list(run.steps())
            else:
                with pytest.raises(KeyboardInterrupt), run:
                    raise error
    assert closed == ["fine", "wrong"]


def test_a_run_counts_on_one_thread_and_gives_the_others_back(path: Path) -> None:
    before = threadpool_info()
    assert before
    with Store(path) as store, Run.start(prepared(DIVIDER), store, "run"):
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert threadpool_info() == before


@pytest.mark.parametrize("outlives", [True, False])
def test_steps_that_nobody_takes_to_the_end_are_stored(path: Path, *, outlives: bool) -> None:
    """Whether their generator ends before the run or after the store is closed."""
    with Store(path) as store, Run.start(prepared(DIVIDER), store, "run") as run:
        steps = run.steps()
        assert next(steps).epoch == 0
        if not outlives:
            del steps
            assert store.run("run").steps == 1
    assert len(stored_steps(path, "run")) == 1


def test_a_start_that_fails_enters_no_run(path: Path) -> None:
    text = DIVIDER + "[simulation]\npots = { opened = [9] }\n"
    with Store(path) as store:
        with pytest.raises(HilclError, match="edge 9"):
            Run.start(prepared(text), store, "run")
        assert store.names() == []


def test_open_board_builds_what_the_file_describes() -> None:
    preparation = prepared(noisy())
    board = open_board(preparation)
    assert isinstance(board, SimulatedBoard)
    assert board.network.n_edges == 18
    assert not board.exact
    np.testing.assert_array_equal(board.conductances, preparation.initial)
    other = open_board(prepared(noisy().replace("seed = 3", "seed = 4")))
    assert isinstance(other, SimulatedBoard)
    assert (board.true_conductances != other.true_conductances).any()
    exact = open_board(prepared(DIVIDER))
    assert isinstance(exact, SimulatedBoard)
    assert exact.exact


def test_every_imperfection_of_the_file_reaches_the_board() -> None:
    section = SimulationSection.model_validate(
        {
            "pots": {
                "tolerance": "20 %",
                "wiper_spread": "50 %",
                "series_spread": "1 %",
                "inl_codes": 0.5,
                "temperature_coefficient": "0.0007 / K",
                "temperature_rise": "10 K",
                "stuck": {3: 7},
                "opened": [4],
            },
            "meters": {
                "gain": "0.1 %",
                "offset": "1 mV",
                "noise": "2 mV",
                "bits": 12,
                "range": "5 V",
                "input_resistance": "10 MΩ",
            },
            "sources": {"series": "50 Ω", "offset": "3 mV", "compliance": "10 mA"},
        }
    )
    assert imperfections_of(section) == Imperfections(
        PotDefects(0.2, 0.5, 0.01, 0.5, 0.0007, 10.0, {3: 7}, (4,)),
        MeterDefects(0.001, 0.001, 0.002, 5 / 4096, 1e7),
        SourceDefects(50.0, 0.003, 0.01),
    )
    assert imperfections_of(SimulationSection()).none_at_all


def test_the_fingerprint_tells_numbers_apart_and_nothing_else() -> None:
    first = fingerprint(prepared(noisy()))
    assert first == fingerprint(prepared(noisy(epochs=99)))
    assert len(first) == 64
    changes = [("1.6, 1.5", "1.6, 1.5000000000000002"), ("cols = 3", "cols = 4"), ("[2, 7]", "[2, 8]")]
    others = {fingerprint(prepared(noisy().replace(old, new))) for old, new in changes}
    assert len(others | {first}) == 4


def long_run(epochs: int, more: str = "") -> str:
    """Return a board of ideal meters with so many epochs."""
    ideal = noisy(epochs=epochs).replace('meters = { bits = 12, range = "5 V", noise = "2 mV" }', more)
    assert ideal != noisy(epochs=epochs)
    return ideal


@pytest.mark.parametrize(
    ("epochs", "more", "solver"),
    [
        (1000, "", "dense"),
        (20000, "", "fused"),
        (20000, 'solver = "superlu"', "superlu"),
        (10, 'solver = "fused"', "fused"),
        (20000, 'accuracy = "certified"', "multifrontal"),
        (20000, 'meters = { noise = "1 mV" }', "dense"),
    ],
)
def test_long_runs_of_small_ideal_boards_are_compiled(epochs: int, more: str, solver: str) -> None:
    with open_board(prepared(long_run(epochs, more))) as board:
        assert isinstance(board, SimulatedBoard)
        assert board.solver_name == solver


def test_without_numba_long_runs_go_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilcl.sim_backend.fused.is_installed", lambda: False)
    with open_board(prepared(long_run(20000))) as board:
        assert isinstance(board, SimulatedBoard)
        assert board.solver_name == "dense"


@pytest.mark.parametrize(("before", "after", "solver"), [(20, 20000, "dense"), (20000, 20, "fused")])
def test_more_or_fewer_epochs_do_not_change_the_solver_of_a_run(
    path: Path, before: int, after: int, solver: str
) -> None:
    stop = 'keep = "last"\nstop = { loss = "1e-30 V²" }'
    texts = [long_run(epochs).replace("seed = 5", f"seed = 5\n{stop}") for epochs in (before, after)]
    with Store(path) as store:
        abandon(store, "run", texts[0], 5)
        with Run.resume(prepared(texts[1]), store, "run") as run:
            assert isinstance(run.board, SimulatedBoard)
            assert run.board.solver_name == solver
            assert not run.changed_versions
            assert len(list(islice(run.steps(), 10))) == 10
        abandon(store, "undisturbed", texts[0], 15)
        one, other = store.history("run"), store.history("undisturbed")
        np.testing.assert_array_equal(one.conductances, other.conductances)
        np.testing.assert_array_equal(one.scalars["loss"], other.scalars["loss"])


def test_what_computed_a_run_is_stored(path: Path) -> None:
    board = open_board(prepared(DIVIDER))
    found = versions(board)
    assert found.keys() == {"hilcl", "numpy", "scipy", "python", "machine", "solver"}
    assert found["numpy"] == np.__version__
    with Store(path) as store:
        go(store, "run", DIVIDER)
        assert store.run("run").versions == found


@pytest.mark.parametrize(
    ("stored", "present", "key"),
    [
        ({}, {}, None),
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 2}, "a"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c"),
        ({"a": 1}, {}, "a"),
        ({}, {"a": 1}, "a"),
        ({"a": None}, {"a": {"b": 1}}, "a"),
        ({"learning": {"epochs": 1, "stop": {"loss": 1}, "keep": "best"}}, {"learning": {}}, None),
        ({"learning": {"epochs": 1, "seed": 1}}, {"learning": {"epochs": 2, "seed": 2}}, "learning.seed"),
        ({"store": {"file": "a"}}, {"store": {"file": "b"}}, None),
        ({"task": {"epochs": 1}}, {"task": {"epochs": 2}}, "task.epochs"),
    ],
)
def test_first_difference(stored: dict[str, Any], present: dict[str, Any], key: str | None) -> None:
    assert first_difference(stored, present) == key


def test_the_certificate_is_about_the_board_that_was_kept(tmp_path: Path) -> None:
    """Two samples that contradict each other drive both edges down; the first state had the smallest loss."""
    text = """
[board]
network = { kind = "crossbar", inputs = 2, outputs = 1 }
g_min = "10 µS"
g_max = "1 mS"
[task]
inputs_volts = [[1, 0], [0, 1]]
targets_volts = [[0], [0]]
[learning]
epochs = 300
"""
    preparation = prepare(Experiment.parse(text, tmp_path / "contradiction.toml"))
    with Store(tmp_path / "runs.sqlite") as store, Run.start(preparation, store, "x") as run:
        steps = list(run.steps())
        summary = run.finish()
    assert summary["kept_epoch"] == 0
    assert f"Contrast Q = {steps[0].contrast:.4g} W" in " ".join(summary["certificate"])
    assert steps[0].contrast > 5 * steps[-1].contrast
    assert summary["pinned"] == []
    assert "2 edges were held at a limit, more than on the board that was kept" in " ".join(summary["remarks"])
