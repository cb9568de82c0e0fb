"""What the wrapper adds to a bench; the bench here answers out of the exact simulator's circuit, with noise."""

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hilcl.arrays import FloatArray
from hilcl.bench_board import BenchBoard
from hilcl.board import Board
from hilcl.errors import BoardError
from hilcl.experiment import Experiment
from hilcl.journalled_board import MOST_SUSPENSIONS, JournalledBoard
from hilcl.preparation import Preparation, prepare
from hilcl.session import open_board
from hilcl.suspension import Suspensions
from tests.command_line import EXAMPLES


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return prepare(Experiment.load(EXAMPLES / "bench16.toml"))


@pytest.fixture
def bench(preparation: Preparation) -> Iterator[BenchBoard]:
    with open_board(preparation, "emulated") as board:
        assert isinstance(board, BenchBoard)
        yield board


def disturbed(method: Callable[..., object], times: int) -> Callable[..., object]:
    """Let the process be continued during the first calls of a method, just before it returns."""
    left = [times]

    def call(*arguments: object) -> object:
        found = method(*arguments)
        if left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGCONT)
        return found

    return call


def test_codes_are_on_record_before_they_are_written(bench: BenchBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, list[int]]] = []
    wished = bench.device_range.full_table
    assert wished is not None
    codes = np.arange(16) + 100
    conductances = np.broadcast_to(wished, (16, wished.shape[-1]))[np.arange(16), codes]
    program = bench.program

    def write(wanted: FloatArray) -> FloatArray:
        order.append(("write", codes.tolist()))
        return program(wanted)

    monkeypatch.setattr(bench, "program", write)
    journalled: Board = JournalledBoard(bench, lambda each: order.append(("intend", each.tolist())), Suspensions())
    np.testing.assert_array_equal(journalled.program(conductances), conductances)
    assert order == [("intend", codes.tolist()), ("write", codes.tolist())]
    assert bench.read_codes().tolist() == codes.tolist()


def test_a_measurement_across_a_suspension_is_taken_again(
    bench: BenchBoard, preparation: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise and all, it is the one an undisturbed bench would have given."""
    task = preparation.data.train
    before = bench.snapshot()
    expected = bench.contrast(task.inputs, task.targets, 1.0)
    bench.restore(before)
    monkeypatch.setattr(bench, "contrast", disturbed(bench.contrast, 2))
    with Suspensions() as suspensions:
        journalled = JournalledBoard(bench, lambda _: None, suspensions)
        found = journalled.contrast(task.inputs, task.targets, 1.0)
        np.testing.assert_array_equal(found.gradient, expected.gradient)
        events = [str(event) for event in journalled.take_events()]
        assert events == ["hilcl was suspended during a measurement; discarded it and measured again"] * 2
        assert journalled.take_events() == []


def test_somebody_who_stops_it_again_and_again_ends_it(bench: BenchBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "respond", disturbed(bench.respond, MOST_SUSPENSIONS))
    with Suspensions() as suspensions:
        journalled = JournalledBoard(bench, lambda _: None, suspensions)
        with pytest.raises(BoardError, match="suspended during each of 10 tries"):
            journalled.respond(np.array([[0.1, 0.0, np.nan, np.nan]]))


def test_an_error_after_a_suspension_says_so(bench: BenchBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        signal.raise_signal(signal.SIGCONT)
        raise BoardError("left has its output off")

    monkeypatch.setattr(bench, "respond", fail)
    with Suspensions() as suspensions:
        journalled = JournalledBoard(bench, lambda _: None, suspensions)
        with pytest.raises(BoardError, match=r"output off \(hilcl had been suspended during the measurement\)"):
            journalled.respond(np.zeros((1, 4)))
        assert journalled.take_events() == []
