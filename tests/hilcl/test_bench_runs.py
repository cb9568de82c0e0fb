"""Runs on a bench that outlives them: what is on disk when, and what becomes of pots between two sittings."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_board import BenchBoard
from hilcl.bench_session import Surroundings, open_bench
from hilcl.drivers.potboard import PotBoard
from hilcl.errors import BoardError
from hilcl.events import Event
from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.session import EMULATED_PATIENCE, Run
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.store import Store
from tests.command_line import EXAMPLES, stored_steps, stored_summary

EPOCHS = 8


@pytest.fixture
def preparation() -> Preparation:
    text = (EXAMPLES / "bench16.toml").read_text("utf-8").replace("epochs = 60", f"epochs = {EPOCHS}")
    return prepare(Experiment.parse(text, Path("bench16.toml")))


@pytest.fixture
def emulated(preparation: Preparation) -> Iterator[EmulatedBench]:
    with EmulatedBench(preparation) as bench:
        yield bench


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "runs.sqlite") as opened:
        yield opened


def opened(preparation: Preparation, emulated: EmulatedBench) -> BenchBoard:
    return open_bench(
        preparation,
        Surroundings(resources=emulated.resources, settle=emulated.settle, patience=EMULATED_PATIENCE, memory=emulated),
    )


def whole(run: Run) -> dict[str, Any]:
    with run:
        assert len(list(run.steps())) == EPOCHS - run.first_epoch
        return run.finish()


def abandoned(preparation: Preparation, emulated: EmulatedBench, store: Store, epochs: int) -> None:
    with Run.start(preparation, store, "run", "bench", opened(preparation, emulated)) as run:
        assert len(list(islice(run.steps(), epochs))) == epochs


def assert_as_undisturbed(preparation: Preparation, store: Store) -> None:
    with EmulatedBench(preparation) as another:
        whole(Run.start(preparation, store, "undisturbed", "bench", opened(preparation, another)))
    assert stored_steps(store.path, "run") == stored_steps(store.path, "undisturbed")
    assert stored_summary(store.path, "run") == stored_summary(store.path, "undisturbed")


def test_every_step_and_every_code_is_on_disk_before_the_next(
    preparation: Preparation, emulated: EmulatedBench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = opened(preparation, emulated)
    program, seen = board.program, []
    with Store(store.path, writable=False) as other, ExitStack() as stack:

        def watched(conductances: FloatArray) -> FloatArray:
            intent, codes = other.intent("run"), board.device_range.project(conductances).codes
            assert intent is not None
            assert codes is not None
            assert intent.codes.tolist() == codes.tolist()
            seen.append((intent.epoch, other.run("run").steps))
            return program(conductances)

        monkeypatch.setattr(board, "program", watched)
        run = stack.enter_context(Run.start(preparation, store, "run", "bench", board))
        for step in islice(run.steps(), 4):
            assert other.run("run").steps == step.epoch + 1
        assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert seen == [(epoch, epoch) for epoch in range(4)]


def test_a_bench_left_in_peace_is_taken_up_without_a_word(
    preparation: Preparation, emulated: EmulatedBench, store: Store
) -> None:
    abandoned(preparation, emulated, store, 3)
    run = Run.resume(preparation, store, "run", board=opened(preparation, emulated))
    assert run.board.conductances.tolist() == store.history("run").conductances[-1].tolist()
    whole(run)
    assert store.events("run") == []
    assert_as_undisturbed(preparation, store)


def test_pots_that_somebody_turned_are_written_again(
    preparation: Preparation, emulated: EmulatedBench, store: Store
) -> None:
    abandoned(preparation, emulated, store, 3)
    with PotBoard("board", emulated.resources["board"]) as pots:
        pots.write(np.full(16, 77))
    whole(Run.resume(preparation, store, "run", board=opened(preparation, emulated)))
    [event] = store.events("run")
    assert event.event == Event(
        "",
        "16 of 16 pots were found at codes that the run did not write",
        "wrote those of the last stored step and verified them",
        3,
    )
    assert_as_undisturbed(preparation, store)


class PulledOutError(Exception):
    """The plug is pulled."""


def test_codes_that_were_half_written_are_known_from_the_intent(
    preparation: Preparation, emulated: EmulatedBench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = opened(preparation, emulated)
    program = board.program
    left = [3]

    def half(conductances: FloatArray) -> FloatArray:
        left[0] -= 1
        if left[0]:
            return program(conductances)
        program(np.where(np.arange(16) < 8, conductances, board.conductances))
        raise PulledOutError

    monkeypatch.setattr(board, "program", half)
    run = Run.start(preparation, store, "run", "bench", board)
    with pytest.raises(PulledOutError), run:
        list(run.steps())
    whole(Run.resume(preparation, store, "run", board=opened(preparation, emulated)))
    assert [str(each.event) for each in store.events("run")] == ["PulledOutError; stopped"]
    assert_as_undisturbed(preparation, store)


def test_a_pot_that_does_not_take_its_code_back_is_named(
    preparation: Preparation, emulated: EmulatedBench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(preparation, emulated, store, 3)
    board = opened(preparation, emulated)
    read = board.read_codes

    def one_off() -> IntArray:
        codes = read()
        codes[5] += 1
        return codes

    monkeypatch.setattr(board, "read_codes", one_off)
    with pytest.raises(BoardError, match=r"edge 5 holds code \d+ after \d+ was written to go on with the run"):
        Run.resume(preparation, store, "run", board=board)
    assert not any(on for each in emulated.outputs_on.values() for on in each)
    info = store.run("run")
    assert info.status == "failed"
    assert info.reason.startswith("edge 5 holds code")


def test_events_of_the_bench_are_stored_with_their_epoch(
    preparation: Preparation, emulated: EmulatedBench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = opened(preparation, emulated)
    waiting = [Event("left", "the reply was lost", "asked again")]

    def take_events() -> list[Event]:
        taken = waiting.copy()
        waiting.clear()
        return taken

    monkeypatch.setattr(board, "take_events", take_events, raising=False)

    def until_it_smokes(run: Run) -> None:
        for step in run.steps():
            if step.epoch == 1:
                waiting.append(Event("right", "it was slow", "waited"))
            if step.epoch == 2:
                waiting.append(Event("right", "it smokes", "looked away"))
                raise BoardError("smoke")

    with pytest.raises(BoardError, match="smoke"), Run.start(preparation, store, "run", "bench", board) as run:
        until_it_smokes(run)
    found = [(each.event.step, str(each.event)) for each in store.events("run")]
    assert found == [
        (0, "left: the reply was lost; asked again"),
        (2, "right: it was slow; waited"),
        (3, "right: it smokes; looked away"),
        (3, "smoke; stopped"),
    ]
