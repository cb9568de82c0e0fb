"""``hilcl calibration`` and ``hilcl twin``: what calibration files say, how they differ, and runs beside the twin."""

from pathlib import Path

import click

from hilcl.cli.options import DEFAULT_STORE, force_option, output_option, refuse_overwriting, store_option
from hilcl.errors import InputError

file_argument = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")


@click.group()
def calibration() -> None:
    """Show, compare or plot calibration files."""


@calibration.command()
@file_argument
@click.option("--edges", is_flag=True, help="List every edge, not only the least certain ones.")
def show(file: Path, edges: bool) -> None:
    """Show what a calibration found, how well it is known, and until when it holds."""
    from hilcl.calibration.file import Calibration
    from hilcl.calibration.tables import calibration_lines

    for line in calibration_lines(Calibration.load(file), every_edge=edges):
        click.echo(line)


@calibration.command()
@click.argument("first", type=click.Path(path_type=Path), metavar="FIRST")
@click.argument("second", type=click.Path(path_type=Path), metavar="SECOND")
@click.option("--edges", is_flag=True, help="List every edge, not only those that moved.")
@output_option
@force_option
def compare(first: Path, second: Path, edges: bool, output: Path | None, force: bool) -> None:
    """Show how the board moved between two calibrations, edge by edge, in units of uncertainty; -o plots it too."""
    from hilcl.calibration.compare import compare as compared
    from hilcl.calibration.file import Calibration
    from hilcl.calibration.plots import comparison_figure
    from hilcl.calibration.tables import comparison_lines

    if output is not None:
        refuse_overwriting(output, force=force)
    comparison = compared(Calibration.load(first), Calibration.load(second))
    for line in comparison_lines(comparison, every_edge=edges):
        click.echo(line)
    if output is not None:
        _save(comparison_figure(comparison), output)
        click.echo(f"Plot: {output}")


@calibration.command()
@file_argument
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), default=None, help="Folder; by default that of FILE."
)
def plot(file: Path, folder: Path | None) -> None:
    """Plot conductances, uncertainties and residuals of a calibration as SVG files."""
    from hilcl.calibration.file import Calibration
    from hilcl.cli.calibrate import write_plots

    loaded = Calibration.load(file)
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is not a folder: make it, or choose another one")
    for path in write_plots(loaded, file if folder is None else folder / file.name):
        click.echo(f"Plot: {path}")


@click.command()
@click.argument("run")
@click.option(
    "--calibration",
    "file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="The calibration that describes the twin; needed where the run used none.",
)
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Replay every so many epochs.")
@store_option
@output_option
@force_option
def twin(run: str, file: Path | None, every: int, store_path: Path | None, output: Path | None, force: bool) -> None:
    """Replay RUN on the digital twin of its board, and show where measurement and twin part; -o plots both losses."""
    from hilcl.calibration.plots import twin_figure
    from hilcl.calibration_session import replay_run
    from hilcl.results import load_run
    from hilcl.store import Store

    if output is not None:
        refuse_overwriting(output, force=force)
    with Store(store_path or Path(DEFAULT_STORE), writable=False) as store:
        result = load_run(store, run)
    found = replay_run(result, file, every=every)
    for line in found.lines(result.network):
        click.echo(line)
    if output is not None:
        _save(twin_figure(found.measured_loss, found.twin_loss), output)
        click.echo(f"Plot: {output}")


def _save(figure: object, path: Path) -> None:
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        raise TypeError("a figure is wanted")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as cause:
        raise InputError(f"the plot cannot be written to {path} ({cause}): choose another place or suffix") from cause
