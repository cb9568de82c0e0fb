"""``hilcl sweep``: many virtual boards, with progress, a summary and a yield plot."""

import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from hilcl.cli.options import report_path, store_option
from hilcl.cli.output import PatientStream, remark
from hilcl.cli.signals import signals_interrupt
from hilcl.errors import BoardError, InputError, StoreError, SweepError

if TYPE_CHECKING:
    from rich.table import Table

    from hilcl.sweep import Sitting
    from hilcl.sweep_file import SweepFile
    from hilcl.sweep_point import PointResult
    from hilcl.sweep_summary import Group

TOLD = 10
"""How often a sweep without a terminal says how far it is."""

ROWS = 40
"""Rows of a table on the screen: the file of points has all."""


@click.command()
@click.argument("sweep_file", type=click.Path(path_type=Path), metavar="SWEEP.toml")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=None,
    metavar="N",
    help="Worker processes on this computer; by default one for each processor.",
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Compute on the workers of this Dask scheduler, such as tcp://host:8786."
)
@store_option
@click.option(
    "--report/--no-report", default=True, show_default=True, help="Write plot and table of points at the end."
)
def sweep(sweep_file: Path, workers: int | None, scheduler: str | None, store_path: Path | None, report: bool) -> int:
    """Train a virtual board for every point of SWEEP.toml; points that are in the store already are not done again.

    What comes out does not depend on how many workers there are.
    """
    from hilcl.sweep import Compute, Sweep
    from hilcl.sweep_dask import dask_results
    from hilcl.sweep_file import SweepFile
    from hilcl.sweep_store import SweepStore
    from hilcl.sweep_workers import local_results

    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers is for this computer, --scheduler for a cluster: give one of them")
    file = SweepFile.load(sweep_file)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", sweep_file.stem).strip("-.")[:90] or "sweep"
    loaded = Sweep(file, name)
    location = store_path or Path(file.experiment.store.file)
    plot = report_path(location, f"{name}-yield")
    if report:
        _check_folder(plot.parent)
    count = workers or _processors()
    compute: Compute = (
        partial(local_results, workers=count) if scheduler is None else partial(dask_results, address=scheduler)
    )
    with signals_interrupt(), SweepStore(location) as store:
        sitting = loaded.run(store, compute)
        started = time.perf_counter()
        try:
            _watched(sitting, name)
        except (KeyboardInterrupt, BoardError, StoreError, SweepError) as error:
            what = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
            words = ["hilcl", "sweep", str(sweep_file), "--store", str(location)]
            words += [] if workers is None else ["--workers", str(workers)]
            words += [] if scheduler is None else ["--scheduler", scheduler]
            done = len(loaded.points) - len(sitting.remaining) + sitting.computed
            raise SweepError(
                f"{what}; {done} of {len(loaded.points)} points are stored, go on with: {shlex.join(words)}"
            ) from error
        seconds = time.perf_counter() - started
        for note in sitting.notes:
            remark(f"Note: {note}.")
        results = sitting.results()
    _say(file, results, f"{len(sitting.remaining)} computed in {seconds:.3g} s", name)
    click.echo(f"Stored as sweep {name!r} in {location}.")
    if report:
        _write(file, results, plot)
    return 0 if any(result.status == "done" for result in results) else 1


def _processors() -> int:
    """Return how many processors this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_folder(folder: Path) -> None:
    """Raise InputError where the plot could not be written after hours of training."""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"plot and table cannot go to {folder}: make it a folder you may write to, or add --no-report")


def _watched(sitting: "Sitting", name: str) -> None:
    """Compute with a live line where there is a terminal, else with a line now and then."""
    total = len(sitting.remaining)
    if not total:
        return
    if sys.stderr is None or not sys.stderr.isatty():
        started, told = time.perf_counter(), 0
        for number, _ in enumerate(sitting.steps(), 1):
            if number * TOLD // total > told:
                told = number * TOLD // total
                spent = time.perf_counter() - started
                remark(
                    f"{name}: {number} of {total} points, {spent:.0f} s, ETA {spent / number * (total - number):.0f} s"
                )
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("points"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    terminal = cast(IO[str], PatientStream())
    before = len(sitting.sweep.points) - total
    with Progress(*columns, console=Console(file=terminal), transient=True) as progress:
        bar = progress.add_task(name, total=before + total, completed=before)
        for _ in sitting.steps():
            progress.advance(bar)


def _say(file: "SweepFile", results: "Sequence[PointResult]", spent: str, name: str) -> None:
    """Write the summary: how many points, quantiles, yield, and what went wrong."""
    from rich.console import Console

    from hilcl.sweep_summary import QUANTILES, column, groups, quantiles, shown, shown_losses

    click.echo(f"{name}: {len(results)} points, {spent}.")
    console = Console() if Console().is_terminal else Console(width=1000)
    trained = [result for result in results if result.status == "done"]
    if trained:
        spread = _table("", [_quantile_name(share) for share in QUANTILES])
        for figure, unit in (("loss", "V²"), ("test_loss", "V²"), ("accuracy", ""), ("test_accuracy", ""),
                             ("contrast", "W"), ("epochs", ""), ("seconds", "s")):  # fmt: skip
            found = quantiles(column(trained, figure))
            if found:
                label = figure.replace("_", " ")
                spread.add_row(f"{label} ({unit})" if unit else label, *(f"{value:.3g}" for value in found))
        console.print(spread)
    rows = groups(results, file.by)
    losses = sorted(file.losses or shown_losses(results))
    if losses and rows:
        heads = [f"loss ≤ {loss:.3g} V²" for loss in losses]
        table = _table(file.by[0] if file.by else "", [*file.by[1:], "boards", *heads])
        for row in rows[:ROWS]:
            values = [shown(value) for value in row.values.values()] or ["all"]
            table.add_row(*values, str(row.boards), *(_share(row, loss) for loss in losses))
        console.print(table)
        if len(rows) > ROWS:
            click.echo(f"({len(rows) - ROWS} more rows)")
    for status, said in (("failed", "could not be trained"), ("lost", "were not computed and will be tried again")):
        reasons = [result.reason for result in results if result.status == status]
        if reasons:
            click.echo(f"{len(reasons)} of {len(results)} points {said}; the first: {reasons[0]}.")


def _table(first: str, others: "Iterable[str]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right")
    return table


def _quantile_name(share: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(share, f"{100 * share:g} %")


def _share(row: "Group", loss: float) -> str:
    share = row.share(loss)
    low, high = share.interval
    return f"{100 * share.value:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def _write(file: "SweepFile", results: "Sequence[PointResult]", plot: Path) -> None:
    """Write the yield plot as SVG and PNG, and the table of points."""
    from hilcl.drawing import figure_svg
    from hilcl.export import write_file
    from hilcl.plots import MOST_YIELD_CURVES, YieldCurve, yield_figure
    from hilcl.sweep_summary import groups, points_csv

    plot.parent.mkdir(exist_ok=True)
    stem = plot.name.removesuffix("-yield.html")
    table = plot.with_name(f"{stem}-points.csv")
    text = points_csv(results, [*file.grid, *file.random]).encode()
    write_file(table, lambda target: _put(target, text))
    written = [table]
    rows = groups(results, file.by)
    if len(rows) > MOST_YIELD_CURVES:
        rows = groups(results, [])
    if rows:
        figure = yield_figure([YieldCurve(row.label() or "all boards", row.losses, row.boards) for row in rows])
        figure.set_facecolor("white")
        svg = f"{figure_svg(figure, 'yield')}\n".encode()
        write_file(plot.with_suffix(".svg"), lambda target: _put(target, svg))
        write_file(plot.with_suffix(".png"), lambda target: figure.savefig(target, format="png", dpi=200))
        written = [plot.with_suffix(".svg"), plot.with_suffix(".png"), table]
    click.echo(f"Written: {', '.join(map(str, written))}")


def _put(target: Any, content: bytes) -> None:
    target.write(content)
