"""``hilcl calibrate``: measure the assembled board in place, and write what its codes are worth."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hilcl.cli.options import backend_option, experiment_argument, force_option, output_option
from hilcl.errors import BoardError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hilcl.calibration.file import Calibration
    from hilcl.calibration.parameters import CalibrationResult
    from hilcl.calibration.procedure import Progress
    from hilcl.guard import Guard
    from hilcl.session import Backend

VOIDING = ("swapped pots", "swapped channels", "dead channel", "drifted reference", "misfit")
"""Findings that make the whole calibration worthless; a pot that is stuck, open or shorted only concerns itself."""


@click.command()
@experiment_argument
@backend_option
@output_option
@click.option("--comment", default="", help="A remark for the file, such as the room or the reason.")
@click.option(
    "--temperature", type=click.FloatRange(-60, 200), default=None, metavar="°C", help="Temperature of the board."
)
@click.option("--plots/--no-plots", default=True, show_default=True, help="Write plots beside the file.")
@force_option
def calibrate(
    experiment: Path,
    backend: "Backend | None",
    output: Path | None,
    comment: str,
    temperature: float | None,
    plots: bool,
    force: bool,
) -> None:
    """Calibrate the board of EXPERIMENT.toml in place: meters, then the conductance of every code of every pot.

    Ends with a summary, a verification on fresh codes, plots, and the calibration file. A calibration that was there is
    kept beside it under its date. --force writes it although a fault was found or the verification failed.
    """
    from hilcl.calibration.file import Calibration
    from hilcl.calibration.tables import calibration_lines
    from hilcl.calibration_session import calibration_steps, default_path, usable_codes
    from hilcl.cli.signals import signals_interrupt
    from hilcl.experiment import Experiment
    from hilcl.guard import guard_log, guarded
    from hilcl.preparation import prepare
    from hilcl.session import device_identities, open_board

    loaded = Experiment.load(experiment)
    # A board is calibrated as it is, so a calibration that the file names plays no part.
    preparation = prepare(loaded)
    target = output or default_path(loaded)
    if target.exists():
        Calibration.load(target)
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a folder: make it, or choose another place with --output")
    with signals_interrupt(), ExitStack() as opened:
        guard = opened.enter_context(guarded(loaded, backend or "sim", guard_log(target)))
        board = opened.enter_context(open_board(preparation, backend or "sim", plausible=False))
        identities = device_identities(board, preparation)
        result = _watched(calibration_steps(preparation, board), experiment.stem, guard)
    calibration = Calibration.of(
        result,
        identities=identities,
        usable=usable_codes(preparation),
        valid_days=loaded.calibration.valid_days,
        temperature_celsius=temperature,
        comment=comment,
    )
    for line in calibration_lines(calibration):
        click.echo(line)
    _refuse_worthless(calibration, target, force=force)
    archive = calibration.save(target)
    if archive is not None:
        click.echo(f"The calibration before this one is kept as {archive}.")
    click.echo(f"Calibration: {target}")
    if plots:
        for path in write_plots(calibration, target):
            click.echo(f"Plot: {path}")
    if loaded.calibration.file is None:
        click.echo(f"Use it with [calibration] file = {_as_named_in(experiment, target)} in {experiment}.")


def _as_named_in(experiment: Path, target: Path) -> str:
    """Return the place of a calibration as an experiment file names it: relative to its folder, quoted for TOML."""
    try:
        name = os.path.relpath(target.absolute(), experiment.absolute().parent)
    except ValueError:  # on another drive
        name = str(target.absolute())
    return json.dumps(Path(name).as_posix(), ensure_ascii=False)


def _refuse_worthless(calibration: "Calibration", target: Path, *, force: bool) -> None:
    """Raise BoardError where what was found must not replace anything."""
    verdict = calibration.verification
    reasons = [finding.sentence for finding in calibration.fit.findings if finding.kind in VOIDING]
    if verdict is not None and not verdict.passed:
        reasons.append("fresh codes and drives do not agree with it")
    if reasons and not force:
        raise BoardError(
            f"no calibration was written to {target}: {reasons[0]}; put that right, or add --force to keep it anyway"
        )


def _watched(steps: "Iterator[Progress]", name: str, guard: "Guard | None") -> "CalibrationResult":
    """Go through a calibration with a live line where there is a terminal, else a line for each stage."""
    from hilcl.calibration.tables import duration

    stage, said = "", False
    result = None
    with ExitStack() as shown:
        bars, bar = None, None
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bars

            eta = TextColumn("{task.fields[eta]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), eta)
            bars = shown.enter_context(Bars(*columns, console=Console(stderr=True), transient=True))
            bar = bars.add_task(name, total=None, eta="")
        for progress in steps:
            result = progress.result or result
            if guard is not None:
                guard.check()
            if progress.forecast is not None and not said:
                said = True
                click.echo(progress.message)
            if bars is not None and bar is not None:
                bars.update(
                    bar,
                    description=progress.stage,
                    completed=progress.done,
                    total=progress.total,
                    eta=f"about {duration(progress.remaining)} left" if progress.remaining > 0 else "",
                )
            elif progress.stage not in (stage, "done"):
                stage = progress.stage
                click.echo(f"{stage}: {progress.message}", err=True)
    if result is None:
        raise BoardError("the calibration ended without a result; please report it")
    return result


def write_plots(calibration: "Calibration", target: Path) -> list[Path]:
    """Write the figures of a calibration beside its file as SVG, and return where they are."""
    from hilcl.calibration.plots import conductance_figure, residual_figure, residual_histogram, uncertainty_figure

    stem = target.name.removesuffix(".json").removesuffix(".calibration")
    written = []
    for name, make in (
        ("conductances", conductance_figure),
        ("uncertainty", uncertainty_figure),
        ("residuals", residual_figure),
        ("residual-histogram", residual_histogram),
    ):
        path = target.parent / f"{stem}.{name}.svg"
        make(calibration).savefig(path)
        written.append(path)
    return written
