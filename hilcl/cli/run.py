"""``hilcl run``: train as an experiment file says, with progress, a summary and a report."""

import os
import re
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from hilcl.cli.options import backend_option, checked_run_name, experiment_argument, report_path, store_option
from hilcl.cli.output import PatientStream, remark
from hilcl.cli.signals import signals_interrupt
from hilcl.errors import BoardError, InputError, StoreError
from hilcl.filesystems import network_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hilcl.board import Board
    from hilcl.guard import Guard
    from hilcl.preparation import Preparation
    from hilcl.session import Backend, Run
    from hilcl.store import Store
    from hilcl.training import Step

REDRAWS_PER_SECOND = 10.0


@click.command()
@experiment_argument
@backend_option
@click.option("--resume", metavar="RUN", help="Go on with a stored run, exactly as if it had never stopped.")
@click.option("--name", metavar="NAME", help="What the run is called; by default like the file, numbered if taken.")
@store_option
@click.option("--report/--no-report", default=True, show_default=True, help="Write the HTML report at the end.")
def run(
    experiment: Path,
    backend: "Backend | None",
    resume: str | None,
    name: str | None,
    store_path: Path | None,
    report: bool,
) -> None:
    """Train a board as EXPERIMENT.toml says; every step is stored, and the run ends with a summary and a report.

    A resumed run goes on with the back end it was started with.
    """
    from hilcl.calibration_session import prepare_calibrated
    from hilcl.experiment import Experiment
    from hilcl.guard import guard_log, guarded
    from hilcl.session import Run, innermost, open_board
    from hilcl.store import Store

    if resume is not None and name is not None:
        raise click.UsageError("--name is for a new run, --resume for a stored one: give one of them")
    loaded = Experiment.load(experiment)
    preparation = prepare_calibrated(loaded)
    location = store_path or Path(loaded.store.file)
    wanted = loaded.store.run if name is None else name
    if wanted is not None:
        checked_run_name(wanted)
    if report:
        _check_report_folder(report_path(location, "x").parent)
    with signals_interrupt(), ExitStack() as opened:
        if resume is not None:
            store = opened.enter_context(Store(location, create=False))
            guard = opened.enter_context(guarded(loaded, store.run(resume).backend, guard_log(location)))
            session = Run.resume(preparation, store, resume, backend)
        else:
            guard = opened.enter_context(guarded(loaded, backend or "sim", guard_log(location)))
            # The board first: one that cannot be opened must leave no store behind.
            board = opened.enter_context(open_board(preparation, backend or "sim"))
            store = opened.enter_context(Store(location, create=True))
            stem = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment.stem).strip("-.") or "run"
            session = _start(preparation, store, wanted, stem[:90], backend or "sim", board)
        for part, (before, now) in session.changed_versions.items():
            remark(f"Note: {part} was {before} and is {now} now; the last digits may come out differently.")
        for note in getattr(innermost(session.board), "notes", ()):
            remark(f"Note: {note}.")
        drive = network_kind(location)
        if drive is not None:
            remark(
                f"Note: {location} is on a network drive ({drive}), where a run may be lost or damaged: name a "
                "store on a disk of this computer with --store."
            )
        started = time.perf_counter()
        try:
            with session:
                done = _watched(session, loaded.learning.epochs, guard)
                summary = session.finish()
        except (KeyboardInterrupt, BoardError, StoreError) as error:
            raise BoardError(_how_to_go_on(error, session, experiment, location)) from error
        lines = summary_lines(session.name, summary, done, time.perf_counter() - started)
        events = len(store.events(session.name))
        if events:
            lines.append(f"{events} events were put right or ended a sitting: hilcl show {session.name}.")
        lines.append(f"Stored as run {session.name!r} in {location}.")
        try:
            click.echo("\n".join(lines))
        finally:
            # Also where nobody reads the lines any more.
            if report:
                _report(store, location, session.name)


def _report(store: "Store", location: Path, name: str) -> None:
    from hilcl.report import write_report
    from hilcl.results import load_run

    target = report_path(location, name)
    target.parent.mkdir(exist_ok=True)
    click.echo(f"Report: {write_report(load_run(store, name), target)}")


def _check_report_folder(folder: Path) -> None:
    """Raise InputError where a report could not be written after hours of training."""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"reports cannot go to {folder}: make it a folder you may write to, or add --no-report")


def _how_to_go_on(error: BaseException, session: "Run", experiment: Path, location: Path) -> str:
    """Return what ended a run, what is stored of it, and how to go on."""
    what = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
    command = shlex.join(["hilcl", "run", str(experiment), "--resume", session.name, "--store", str(location)])
    try:
        stored = session.store.run(session.name).steps
    except StoreError:
        return f"{what}; go on with: {command}"
    if stored == 0 and not isinstance(error, KeyboardInterrupt):
        return f"{what} (no step was made, so a corrected file needs a new run)"
    return f"{what}; the steps so far are stored ({stored} epochs), go on with: {command}"


def _start(
    preparation: "Preparation", store: "Store", wanted: str | None, stem: str, backend: "Backend", board: "Board"
) -> "Run":
    """Enter a new run; a name made up here may be taken by another process at the same moment."""
    from hilcl.session import Run, enter_run

    while wanted is None:
        name = store.free_name(stem)
        try:
            enter_run(preparation, store, name, backend, board)
        except StoreError:
            if store.free_name(stem) == name:
                raise
        else:
            return Run(preparation, store, name, board)
    return Run.start(preparation, store, wanted, backend, board)


def _steps(session: "Run", guard: "Guard | None") -> "Iterator[Step]":
    """Train as long as the guard, if there is one, is there."""
    for step in session.steps():
        if guard is not None:
            guard.check()
        for sentence in session.new_alarms():
            remark(f"Watch: {sentence}.")
        yield step


def _watched(session: "Run", epochs: int, guard: "Guard | None") -> int:
    """Train with a live line where there is a terminal; return the number of epochs of this sitting."""
    import sys

    if sys.stderr is None or not sys.stderr.isatty():
        return sum(1 for _ in _steps(session, guard))
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} epochs/s"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    done, started, drawn = 0, time.perf_counter(), 0.0
    terminal = cast(IO[str], PatientStream())
    with Progress(*columns, console=Console(file=terminal), transient=True) as progress:
        bar = progress.add_task(session.name, total=epochs, completed=session.first_epoch, loss="…", rate="…")

        def draw(step: "Step", now: float) -> None:
            rate = done / max(now - started, 1e-9)
            progress.update(
                bar,
                completed=step.epoch + 1,
                loss=f"{step.loss:.4g} V²",
                rate=f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}",
            )

        for step in _steps(session, guard):
            done += 1
            now = time.perf_counter()
            if now - drawn > 1.0 / REDRAWS_PER_SECOND:
                drawn = now
                draw(step, now)
    return done


def summary_lines(name: str, summary: dict[str, Any], epochs: int, seconds: float) -> list[str]:
    """Return what a finished run says at the end, line by line."""
    parts = summary["evaluation"]
    lines = [f"{name}: {epochs} epochs in {seconds:.3g} s, {summary['stopped_by']}."]
    trained = f"{parts['train']['loss']:.4g} V²"
    first = f"{parts['untrained']['loss']:.4g} V² → " if "untrained" in parts else ""
    kept = (
        "" if summary["kept_epoch"] is None else f" (kept: the state of epoch {summary['kept_epoch']}, measured again)"
    )
    test = f", test {parts['test']['loss']:.4g} V²" if "test" in parts else ""
    lines.append(f"Loss {first}{trained}{test}{kept}.")
    if parts["train"]["accuracy"] is not None:
        rates = [f"{part} {parts[part]['accuracy']:.1%}" for part in ("untrained", "train", "test") if part in parts]
        lines.append(f"Accuracy: {', '.join(rates)}.")
    if summary["pinned"]:
        lines.append(f"{len(summary['pinned'])} of {len(summary['kept_conductances'])} edges are held at a limit.")
    return [*lines, *summary["certificate"], *summary["remarks"]]
