"""Train an emulated bench while a fault happens, and judge the end: the undisturbed codes, or stopped safe and resumed.

Used by the tests and by the reliability benchmark; the same can be done with any experiment that has a [bench].
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from hilcl.bench_board import BenchBoard
from hilcl.bench_session import Surroundings, open_bench
from hilcl.errors import BoardError, HilclError
from hilcl.events import Event
from hilcl.preparation import Preparation
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.faults import Fault, FaultPlan, Happened
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard
from hilcl.training import Checkpoint, Step, train

Verdict = Literal["unharmed", "stopped", "wrong", "never happened"]


@dataclass(frozen=True)
class Trial:
    """What a fault did.

    ``verdict``: "unharmed" where the final codes are the undisturbed ones, "stopped" where a sentence ended the run
    and it could be resumed to the same codes, "wrong" where the codes are others. ``outputs_on`` are instruments whose
    output was on after the bench was closed; ``seconds`` is the real time to the end, resuming left out.
    """

    fault: Fault
    verdict: Verdict
    sentence: str
    outputs_on: tuple[str, ...]
    seconds: float
    happened: tuple[Happened, ...]
    events: tuple[Event, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, and outputs are off or said not to be."""
        told = all(name in self.sentence and "could not be" in self.sentence for name in self.outputs_on)
        return self.verdict != "wrong" and told


def opened(preparation: Preparation, bench: EmulatedBench) -> BenchBoard:
    """Return the board of a served bench, with hardly more patience than the file's time-outs."""
    bench.clock.follow()
    surroundings = Surroundings(
        resources=bench.resources,
        devices=bench.devices,
        watchers=bench.links,
        settle=bench.settle,
        patience=0.05,
        memory=bench,
    )
    return open_bench(preparation, surroundings)


def steps_on(board: BenchBoard, preparation: Preparation, resume: Checkpoint | None = None) -> Iterator[Step]:
    """Train as the experiment says."""
    learning, data = preparation.experiment.learning, preparation.data
    return train(
        board,
        data.train,
        preparation.rule,
        learning.epochs,
        seed=learning.seed,
        rounding=learning.rounding,
        resume=resume,
    )


def undisturbed(preparation: Preparation) -> tuple[list[list[int]], dict[str, int]]:
    """Return the codes after every step of a run to which nothing happens, and the messages of each instrument."""
    plan = FaultPlan()
    with EmulatedBench(preparation, plan=plan) as bench, opened(preparation, bench) as board:
        codes = [_codes(step) for step in steps_on(board, preparation)]
        counts = {name: plan.messages(name) for name in (*bench.instruments, *bench.boards)}
    return codes, counts


def trial(preparation: Preparation, fault: Fault, expected: Sequence[list[int]]) -> Trial:
    """Train with one fault, against the codes (epochs, M) of the undisturbed run."""
    plan = FaultPlan([fault])
    with EmulatedBench(preparation, plan=plan) as bench:
        start = time.monotonic()
        last, codes, sentence, events = None, [], "", list[Event]()
        try:
            board = opened(preparation, bench)
            try:
                with board:
                    for step in steps_on(board, preparation):
                        last = step
                        codes.append(_codes(step))
                        events += board.take_events()
            finally:
                events += board.take_events()
        except HilclError as error:
            sentence = str(error)
        seconds = time.monotonic() - start
        left_on = _left_on(bench)
        right = codes == list(expected[: len(codes)])
        if sentence:
            right = right and _resumed(preparation, bench, plan, last) == expected[-1]
        elif right:
            right = codes == list(expected)
        verdict: Verdict = "wrong"
        if right:
            verdict = "stopped" if sentence else "unharmed"
        if not plan.happened:
            verdict = "never happened"
        return Trial(fault, verdict, sentence, left_on, seconds, tuple(plan.happened), tuple(events))


def _left_on(bench: EmulatedBench) -> tuple[str, ...]:
    """Return the instruments with an output on.

    A switch that is welded closed counts only while an instrument is on: nothing opens it, and it leads to no source.
    """
    on = {name: sum(outputs) for name, outputs in bench.outputs_on.items() if any(outputs)}
    if not set(on) & set(bench.instruments):
        for name, board in bench.boards.items():
            if isinstance(board, EmulatedPotBoard) and on.get(name, 0) <= sum(board.faults.welded.values()):
                on.pop(name, None)
    return tuple(on)


def _resumed(preparation: Preparation, bench: EmulatedBench, plan: FaultPlan, last: Step | None) -> list[int]:
    """Let everything work again, go on after the last step, and return the final codes."""
    repair(bench, plan)
    codes = [] if last is None else _codes(last)
    with _patiently_opened(preparation, bench) as board:
        for step in steps_on(board, preparation, None if last is None else last.checkpoint):
            codes = _codes(step)
    return codes


def repair(bench: EmulatedBench, plan: FaultPlan) -> None:
    """End all faults of a bench."""
    plan.clear()
    for board in bench.boards.values():
        # Nothing goes wrong on the compiled firmware but what it does itself.
        if isinstance(board, EmulatedPotBoard):
            board.repair()


def _patiently_opened(preparation: Preparation, bench: EmulatedBench) -> BenchBoard:
    """Open the board; what was away may take a moment to come back."""
    end = time.monotonic() + 20.0
    while True:
        with suppress(BoardError):
            try:
                return opened(preparation, bench)
            except HilclError:
                if time.monotonic() > end:
                    raise
        time.sleep(0.1)


def _codes(step: Step) -> list[int]:
    return [] if step.codes is None else [int(code) for code in step.codes]
