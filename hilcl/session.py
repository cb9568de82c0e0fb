"""The place that assembles: an experiment file, a back end, a store, the loop, and the summary at the end."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, cast, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_board import BenchBoard
from hilcl.bench_session import Surroundings, open_bench
from hilcl.board import Board
from hilcl.calibration.apply import CalibratedBoard
from hilcl.calibration.watch import WatchedBoard
from hilcl.calibration_section import CalibrationSection
from hilcl.calibration_session import calibration_mark, check_instruments, through_calibration, twin_board
from hilcl.certificate import Certificate
from hilcl.devices import Device
from hilcl.errors import BoardError, ExperimentError, HilclError, InputError, StoreError
from hilcl.evaluation import decoding_centres, evaluate, judge
from hilcl.events import Event, events_of
from hilcl.journalled_board import JournalledBoard
from hilcl.preparation import Preparation
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.described import imperfections_of
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.fused import is_worth_it
from hilcl.sim_backend.solvers import SolverName
from hilcl.store import History, RunInfo, StepWriter, Store
from hilcl.summary import run_summary
from hilcl.suspension import Suspensions
from hilcl.training import BestState, Checkpoint, Step, StepFigures, residual_of, train
from hilcl.uninterrupted import uninterrupted

Backend = Literal["sim", "emulated", "bench"]

COMMIT_SECONDS = 0.5
"""How often simulated steps are committed: a lost one can be computed again, a measured one cannot."""

FREE_TO_CHANGE = (
    ("learning", "epochs"),
    ("learning", "stop"),
    ("learning", "keep"),
    ("store",),
    ("bench", "visa"),
    ("bench", "guard"),
    *(("calibration", key) for key in CalibrationSection.model_fields if key not in {"file", "watch"}),
)
"""Keys that may differ when a run is resumed: they do not touch the trajectory."""

FREE_OF_INSTRUMENTS = {"resource", "timeout", "baud", "turnaround", "boot_time", "watchdog"}
"""The same for keys of an instrument: a port may be called otherwise after it was plugged in again."""

EMULATED_PATIENCE = 10.0
"""Seconds added to every time-out on an emulated bench: its instruments share this computer's processors."""


def open_board(
    preparation: Preparation,
    backend: Backend = "sim",
    devices: Mapping[str, Device] | None = None,
    *,
    calibrate: bool = True,
    plausible: bool = True,
    solver: SolverName | None = None,
) -> Board:
    """Return the board an experiment describes on a back end; close it (or use ``with``) when done.

    ``devices`` are what a program hands over on a bench, by the name of their instrument with ``driver = "python"``.
    ``calibrate`` False leaves the currents of floating channels uncorrected, ``plausible`` False takes readings that no
    resistors can give, as those of a miswired bench are. With a calibration the board is known,
    programmed and read through it; on "sim" it is the digital twin of the calibrated board. ``solver`` is what a file
    that leaves the solver to us was computed with before.
    """
    if backend == "sim":
        return open_simulated(preparation, solver) if preparation.calibration is None else twin_board(preparation)
    nominal = preparation.nominal or preparation
    # Before anything is driven: another board's calibration would allow what this one may not stand.
    accept = None if preparation.calibration is None else partial(check_instruments, preparation)
    board = (
        open_bench(
            nominal, Surroundings(devices=devices or {}, calibrate=calibrate, plausible=plausible, accept=accept)
        )
        if backend == "bench"
        else open_emulated(nominal, calibrate=calibrate, plausible=plausible, accept=accept)
    )
    if preparation.calibration is None:
        return board
    with _closed_on_failure(board):
        return through_calibration(board, preparation)


def open_simulated(preparation: Preparation, solver: SolverName | None = None) -> SimulatedBoard:
    """Return the simulated board of an experiment; ``solver`` as in ``open_board``."""
    section, source = preparation.experiment.simulation, preparation.experiment.source
    try:
        return SimulatedBoard(
            preparation.network,
            preparation.initial,
            preparation.device_range,
            imperfections_of(section),
            section.seed,
            pots=preparation.pots,
            solver=solver or solver_for(preparation) if section.solver == "auto" else section.solver,
            accuracy=section.accuracy,
        )
    except InputError as error:
        raise type(error)(f"{source}, [simulation]: {error}") from error


def solver_for(preparation: Preparation) -> SolverName:
    """Return the solver for an experiment that leaves it to us: "fused" for long runs of small boards, else "auto".

    What decides is in the file alone.
    """
    section, learning = preparation.experiment.simulation, preparation.experiment.learning
    plain = section.accuracy == "standard" and imperfections_of(section).ideal_terminals
    return "fused" if plain and is_worth_it(preparation.network, learning.epochs) else "auto"


def open_emulated(
    preparation: Preparation,
    bench: EmulatedBench | None = None,
    *,
    calibrate: bool = True,
    plausible: bool = True,
    accept: Callable[[Mapping[str, str]], None] | None = None,
) -> BenchBoard:
    """Return the board of an experiment made of its real drivers, against its instruments emulated in this process.

    ``bench`` is served already, or made here; it ends when the board is closed.
    """
    emulated = bench or EmulatedBench(preparation).start()
    emulated.clock.follow()
    surroundings = Surroundings(
        resources=emulated.resources,
        devices=emulated.devices,
        watchers=emulated.links,
        settle=emulated.settle,
        patience=EMULATED_PATIENCE,
        calibrate=calibrate,
        plausible=plausible,
        accept=accept,
        memory=emulated,
        on_close=(emulated.close,),
    )
    return open_bench(preparation, surroundings)


class Run:
    """One training run: ``steps`` trains and stores, ``finish`` evaluates and stores the summary.

    Leaving the ``with`` block makes the board safe and notes how the run ended, whatever happened; signals wait for
    that. On a bench every step is on disk before the next one begins, and codes before they are written. Make one
    with ``start`` or ``resume``.
    """

    def __init__(
        self,
        preparation: Preparation,
        store: Store,
        name: str,
        board: Board,
        checkpoint: Checkpoint | None = None,
        best: BestState | None = None,
        history: History | None = None,
    ) -> None:
        self.preparation, self.store, self.name, self.board = preparation, store, name, board
        self.stop_reason = ""
        self._checkpoint = checkpoint
        self._best = best or BestState()
        self._last: Step | StepFigures | None = None
        self._finished = False
        self.changed_versions: dict[str, tuple[str, str]] = {}
        self._writer: StepWriter | None = None
        self._epoch = self.first_epoch
        self._suspensions = Suspensions()
        self._loop_board: Board = board
        self._events: list[Event] = []
        inner = innermost(board)
        self._bench = inner if isinstance(inner, BenchBoard) else None
        self._alarms_noted = self._alarms_told = 0
        if self._bench is not None:
            self._loop_board = JournalledBoard(board, self._intend, self._suspensions)
        if history is not None and len(history):
            self._last = _last_figures(history)
            self.stop_reason = preparation.stopping.reason(self._last, 0.0) or ""

    @classmethod
    def start(
        cls,
        preparation: Preparation,
        store: Store,
        name: str | None,
        backend: Backend = "sim",
        board: Board | None = None,
    ) -> "Run":
        """Enter a new run; without a name it is called like the experiment file, numbered where that is taken.

        ``board`` was opened before on that back end; it is closed when the run ends, and also where it cannot begin.
        Raises StoreError where the name is taken.
        """
        experiment = preparation.experiment
        name = name or experiment.store.run or store.free_name(experiment.source.stem)
        board = board or open_board(preparation, backend)
        with _closed_on_failure(board):
            enter_run(preparation, store, name, backend, board)
        return cls(preparation, store, name, board)

    @classmethod
    def resume(
        cls,
        preparation: Preparation,
        store: Store,
        name: str,
        backend: Backend | None = None,
        board: Board | None = None,
    ) -> "Run":
        """Take up a stored run after its last stored step, as if it had never stopped.

        ``backend`` is the run's if None. ``board`` was opened before on it; it is closed when the run ends, and also
        where it cannot go on. Raises StoreError where the run is complete and ExperimentError where the file, the data
        or the back end differ from the run's.
        """
        with _closed_on_failure(board):
            store.refuse_taken(name)
            info, history = store.run(name), store.history(name)
            experiment = preparation.experiment
            _check_resumable(preparation, info, history, backend)
            checkpoint = store.checkpoint(name)
            best = BestState()
            before = np.vstack([info.arrays["initial"][None, :], history.conductances])
            for epoch, loss in enumerate(history.scalars["loss"].tolist()):
                best.note(epoch, loss, before[epoch])
        there = info.versions.get("solver")
        # More epochs, or another installation, must not change the solver of a run that has begun.
        solver = cast(SolverName, there) if there in get_args(SolverName) else None
        board = board or open_board(preparation, cast(Backend, info.backend), solver=solver)
        with _closed_on_failure(board):
            now = versions(board, preparation)
            here = now.get("solver")
            if here != there:
                raise ExperimentError(
                    f"{experiment.source}: the run {name!r} was computed by the solver {there}, here it would be "
                    f"{here}: set simulation.solver, or install what is missing"
                )
            run = cls(preparation, store, name, board, checkpoint, best, history)
            run.changed_versions = {
                part: (then, now[part]) for part, then in info.versions.items() if now.get(part, then) != then
            }
            store.take_up(name)
            try:
                run._take_codes_back(cast(Backend, info.backend))
            except HilclError as error:
                store.set_status(name, "failed", str(error))
                raise
        return run

    def __enter__(self) -> "Run":
        # One thread: the trajectory must not depend on how many cores a machine has.
        self._threads = threadpool_limits(limits=1)
        self._suspensions.__enter__()
        return self

    @uninterrupted("making the board safe and storing what is known")
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.board.close()
        finally:
            self._suspensions.__exit__(None, None, None)
            self._threads.restore_original_limits()
            # Here too: an interrupt may have hit the last commit, and an abandoned generator ends when it pleases.
            if not isinstance(error, StoreError):
                writer = self._open_writer()
                writer.note(self._taken_events())
                if error is not None and not self._finished and self._bench is not None:
                    writer.note([Event("", _reason(error), "stopped", self._epoch)])
                writer.flush()
            if error is not None and not self._finished and not isinstance(error, StoreError):
                status = "failed" if isinstance(error, HilclError) else "stopped"
                self.store.set_status(self.name, status, _reason(error))

    @property
    def first_epoch(self) -> int:
        """The epoch this sitting begins with."""
        return 0 if self._checkpoint is None else self._checkpoint.epoch

    @property
    def certificate(self) -> Certificate:
        """What the theory promises, completed with the last step where there is one."""
        return Certificate.of(self.board, self.preparation.data.train, self.preparation.rule, self._last)

    def steps(self) -> Iterator[Step]:
        """Train, and yield every step once it has been handed to the store."""
        learning, stopping = self.preparation.experiment.learning, self.preparation.stopping
        writer = self._open_writer()
        started = time.perf_counter()
        epochs = self.first_epoch if self.stop_reason else learning.epochs
        try:
            for step in train(
                self._loop_board,
                self.preparation.data.train,
                self.preparation.rule,
                epochs,
                seed=learning.seed,
                rounding=learning.rounding,
                resume=self._checkpoint,
            ):
                writer.write(step, self._taken_events())
                self._epoch = step.epoch + 1
                self._best.see(step)
                self._last = step
                yield step
                self.stop_reason = stopping.reason(step, time.perf_counter() - started) or ""
                if self.stop_reason:
                    return
        finally:
            writer.flush()

    def finish(self) -> dict[str, Any]:
        """Program the state to keep, measure training and test data on it, store the summary and return it."""
        train_task, test_task = self.preparation.data.train, self.preparation.data.test
        history = self.store.history(self.name)
        kept_epoch = None
        if self.preparation.experiment.learning.keep == "best" and self._best.conductances is not None:
            kept_epoch = self._best.epoch
            self._loop_board.program(self._best.conductances)
        kept, outputs = self._measured(history)
        centres = self.preparation.centres
        if centres is None and train_task.labels is not None:
            centres = decoding_centres(outputs, train_task)
        evaluations = {"train": judge(outputs, train_task, centres)}
        if len(history):
            evaluations["untrained"] = judge(history.outputs[0], train_task, centres)
        if test_task is not None:
            evaluations["test"] = evaluate(self._loop_board, test_task, centres)
        summary = run_summary(
            history,
            stopped_by=self.stop_reason or "all epochs are done",
            kept_epoch=kept_epoch,
            kept_conductances=self.board.conductances,
            centres=centres,
            evaluations=evaluations,
            certificate=Certificate.of(self.board, train_task, self.preparation.rule, kept),
            device_range=self.preparation.device_range,
        )
        self.store.set_status(self.name, "finished", self.stop_reason, summary)
        self._finished = True
        return summary

    def new_alarms(self) -> list[str]:
        """Return what the watch of a calibrated board said since the last call, a sentence each."""
        if not isinstance(self.board, WatchedBoard):
            return []
        alarms = self.board.watch.alarms[self._alarms_told :]
        self._alarms_told += len(alarms)
        return [alarm.sentence for alarm in alarms]

    def _open_writer(self) -> StepWriter:
        """Return the writer of the run's steps, the same at every call."""
        if self._writer is None:
            measured = self._bench is not None
            self._writer = self.store.writer(
                self.name, commit_seconds=0.0 if measured else COMMIT_SECONDS, durable=measured
            )
        return self._writer

    def _intend(self, codes: IntArray) -> None:
        """Put codes (M,) on record that are about to be written."""
        self._open_writer().intend(self._epoch, codes)

    def _taken_events(self) -> list[Event]:
        """Return the events since the last call, each with its epoch."""
        events = [*self._events, *events_of([self._bench, self._loop_board])]
        self._events = []
        if isinstance(self.board, WatchedBoard):
            alarms = self.board.watch.alarms[self._alarms_noted :]
            self._alarms_noted += len(alarms)
            events += [Event("", alarm.sentence, "told and went on") for alarm in alarms]
        return [replace(event, step=self._epoch) if event.step is None else event for event in events]

    def _take_codes_back(self, backend: Backend) -> None:
        """Write the codes of the last stored step to the pots of a bench, and verify that they hold them.

        Raises BoardError naming an edge that holds another code. Codes found that the run did not write are noted as
        an event; emulated pots are new ones, so there it says nothing.
        """
        if self._checkpoint is None or self._bench is None:
            return
        codes = self.board.device_range.project(self._checkpoint.conductances).codes
        found, intent = self._bench.found_codes, self.store.intent(self.name)
        if codes is None:
            return
        known = found == codes
        if intent is not None and intent.codes.shape == found.shape:
            known |= found == intent.codes
        strange = int((~known & (found >= 0)).sum())
        if strange and backend == "bench":
            what = f"{strange} of {len(found)} pots were found at codes that the run did not write"
            self._events.append(Event("", what, "wrote those of the last stored step and verified them"))
        self._loop_board.program(self._checkpoint.conductances)
        held = self._bench.read_codes()
        other = np.flatnonzero((held >= 0) & (held != codes))
        if other.size:
            edge = int(other[0])
            raise BoardError(
                f"edge {edge} holds code {held[edge]} after {codes[edge]} was written to go on with the run: check "
                "that pot, and that nothing else writes to it"
            )

    def _measured(self, history: History) -> tuple[StepFigures, FloatArray]:
        """Measure both phases of the training data on the state to keep: its figures, and its free outputs (S, O)."""
        task, rule, limits = self.preparation.data.train, self.preparation.rule, self.preparation.device_range
        contrast = self._loop_board.contrast(task.inputs, task.targets, rule.nudge)
        direction, state = rule.direction(contrast, len(task)), self.board.conductances
        step_size = self.certificate.step_size
        residual = residual_of(limits, state, direction, step_size)
        bound = float(history.scalars["lower_bound"].max(initial=0.0))
        loss = float(((task.targets - contrast.outputs) ** 2).mean())
        q = float(contrast.contrast.mean())
        return StepFigures(loss, q, float(np.linalg.norm(residual)), bound), contrast.outputs


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the keyboard or a signal"
    return str(error) or type(error).__name__


@contextmanager
def _closed_on_failure(board: Board | None) -> Iterator[None]:
    """Close an open board where what was to be done with it cannot be done."""
    try:
        yield
    except BaseException:
        if board is not None:
            board.close()
        raise


def _check_resumable(preparation: Preparation, info: RunInfo, history: History, backend: Backend | None) -> None:
    """Raise where a stored run is complete, or is not the one of this file, these data and this back end."""
    experiment, name = preparation.experiment, info.name
    if backend is not None and info.backend != backend:
        raise ExperimentError(
            f"{experiment.source}: the run {name!r} was made with --backend {info.backend}, not {backend}: go on with "
            "that one, or start a new run"
        )
    changed = first_difference(info.settings, experiment.model_dump(mode="json"))
    if changed is not None:
        raise ExperimentError(
            f"{experiment.source}: {changed} differs from what the run {name!r} was started with: "
            "set it back, or start a new run"
        )
    then, now = info.versions.get("calibration"), calibration_mark(preparation)
    if then != now:
        raise ExperimentError(
            f"{experiment.source}: the run {name!r} was started with the calibration {then or '(none)'}, the file has "
            f"now {now or '(none)'}: name that one, or start a new run"
        )
    if info.fingerprint != fingerprint(preparation):
        raise ExperimentError(
            f"{experiment.source}: the data are not those the run {name!r} was started with: start a new run"
        )
    if info.status != "finished":
        return
    if len(history) >= experiment.learning.epochs:
        raise StoreError(
            f"the run {name!r} is complete, {len(history)} epochs: raise learning.epochs to train it further"
        )
    if len(history) and (reason := preparation.stopping.reason(_last_figures(history), 0.0)):
        raise StoreError(f"the run {name!r} is complete, {reason}: change learning.stop to train it further")


def _last_figures(history: History) -> StepFigures:
    last = {key: float(values[-1]) for key, values in history.scalars.items()}
    return StepFigures(last["loss"], last["contrast"], last["residual"], last["lower_bound"])


def enter_run(preparation: Preparation, store: Store, name: str, backend: Backend, board: Board) -> None:
    """Enter a new run in the store.

    Raises StoreError where the name is taken.
    """
    experiment = preparation.experiment
    store.create_run(
        name,
        backend=backend,
        experiment=experiment.text,
        settings=experiment.model_dump(mode="json"),
        versions=versions(board, preparation),
        fingerprint=fingerprint(preparation),
        arrays=run_arrays(preparation, board.conductances),
    )


def innermost(board: Board) -> Board:
    """Return the board behind what calibrates and watches it."""
    while isinstance(board, CalibratedBoard | WatchedBoard):
        board = board.board
    return board


def device_identities(board: Board, preparation: Preparation) -> dict[str, str]:
    """Return who every device of a board says it is, by the name the file gives it."""
    inner = innermost(board)
    if isinstance(inner, BenchBoard):
        return dict(inner.identities)
    return {"board": f"simulated, seed {preparation.experiment.simulation.seed}"}


def versions(board: Board, preparation: Preparation | None = None) -> dict[str, str]:
    """Return what computed a run: packages, Python, machine type, the simulator's solver or the bench's instruments."""
    found = {name: version(name) for name in ("hilcl", "numpy", "scipy")}
    found |= {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    if isinstance(board, SimulatedBoard):
        found["solver"] = board.solver_name
    mark = None if preparation is None else calibration_mark(preparation)
    if mark is not None:
        found["calibration"] = mark
    board = innermost(board)
    if isinstance(board, BenchBoard):
        found |= {f"instrument {name}": identity for name, identity in board.identities.items()}
    return found


def fingerprint(preparation: Preparation) -> str:
    """Return the SHA-256 of the wiring and of every number that enters training."""
    digest = hashlib.sha256(preparation.network.fingerprint.encode())
    for name, array in sorted(run_arrays(preparation, preparation.initial).items()):
        if array.dtype.kind == "f":
            digest.update(name.encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def run_arrays(preparation: Preparation, initial: FloatArray) -> dict[str, Any]:
    """Return the arrays stored with a run: network, limits, data, and the first programmed conductances."""
    network, data = preparation.network, preparation.data
    arrays: dict[str, Any] = {
        "n_nodes": np.array(network.n_nodes),
        "edges": network.edges,
        "input_nodes": network.inputs,
        "output_nodes": network.outputs,
        "g_min": preparation.device_range.g_min,
        "g_max": preparation.device_range.g_max,
        "initial": initial,
        "class_names": np.array(data.train.class_names, dtype=np.str_),
    }
    if network.positions is not None:
        arrays["positions"] = network.positions
    for prefix, task in (("", data.train), ("test_", data.test)):
        if task is not None:
            arrays |= {f"{prefix}inputs": task.inputs, f"{prefix}targets": task.targets}
            if task.labels is not None:
                arrays[f"{prefix}labels"] = task.labels
    return arrays


def first_difference(stored: dict[str, Any], present: dict[str, Any], path: tuple[str, ...] = ()) -> str | None:
    """Return the first key whose value differs between two files' settings, or None; free ones are passed over."""
    for key in sorted(set(stored) | set(present)):
        here = (*path, key)
        if here in FREE_TO_CHANGE or (here[:2] == ("bench", "instruments") and here[-1] in FREE_OF_INSTRUMENTS):
            continue
        old, new = stored.get(key), present.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = first_difference(old, new, here)
            if inner is not None:
                return inner
        elif json.dumps(old) != json.dumps(new):
            return ".".join(here)
    return None
