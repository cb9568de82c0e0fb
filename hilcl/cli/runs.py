"""``hilcl runs``, ``show``, ``export`` and ``report``: what a store holds, and how to take it out."""

from pathlib import Path
from typing import get_args

import click

from hilcl.cli.options import DEFAULT_STORE, force_option, output_option, refuse_overwriting, report_path, store_option
from hilcl.errors import InputError

EVENTS_SHOWN = 20
"""Events that ``hilcl show`` lists unless asked for all."""


@click.command()
@store_option
def runs(store_path: Path | None) -> None:
    """List the runs in a store, oldest first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hilcl.store import Store

    location = store_path or Path(DEFAULT_STORE)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("run", "created (UTC)", "backend", "epochs", "last loss", "best loss", "status"):
        table.add_column(heading, justify="right" if heading in {"epochs", "last loss", "best loss"} else "left")
    with Store(location, writable=False) as store:
        for name in store.names():
            info = store.run(name)
            losses = ["–" if loss is None else f"{loss:.4g} V²" for loss in (info.last_loss, info.best_loss)]
            created = info.created.removesuffix("+00:00").replace("T", " ")
            table.add_row(name, created, info.backend, str(info.steps), *losses, info.status)
    if not table.row_count:
        click.echo(f"{location} holds no runs yet.")
        return
    # A table squeezed into 80 columns helps nobody who reads it from a pipe or a file.
    console = Console() if Console().is_terminal else Console(width=1000)
    console.print(table)


@click.command()
@click.argument("run")
@click.option("--edges", is_flag=True, help="Also list every edge of the board with its conductance.")
@click.option("--events", "all_events", is_flag=True, help=f"List all events, not only the last {EVENTS_SHOWN}.")
@store_option
def show(run: str, edges: bool, all_events: bool, store_path: Path | None) -> None:
    """Show what RUN was, how far it came, and what it achieved."""
    from hilcl.cli.run import summary_lines
    from hilcl.results import load_run
    from hilcl.store import Store

    with Store(store_path or Path(DEFAULT_STORE), writable=False) as store:
        result, events = load_run(store, run), store.events(run)
    info = result.info
    click.echo(f"Run {info.name}: {info.status}{f' ({info.reason})' if info.reason else ''}, {info.steps} epochs.")
    click.echo(f"Started {info.created}, ended {info.finished or '–'}; back end {info.backend}.")
    click.echo(f"Board: {result.network!r}. Data: {result.train!r}.")
    click.echo("Computed by " + ", ".join(f"{name} {value}" for name, value in info.versions.items()) + ".")
    if info.summary is not None:
        for line in summary_lines(info.name, info.summary, info.steps, info.summary["loop_seconds"]):
            click.echo(line)
    elif info.status == "running":
        click.echo("Not finished: it still runs.")
    else:
        click.echo(f"Not finished: go on with `hilcl run EXPERIMENT.toml --resume {info.name}`.")
    if info.summary is None and info.last_loss is not None:
        click.echo(f"Loss {info.last_loss:.4g} V² at the last stored epoch, {info.best_loss:.4g} V² at the best.")
    if events:
        click.echo(f"Events: {len(events)}.")
        shown = events if all_events else events[-EVENTS_SHOWN:]
        for each in shown:
            time = each.time.removesuffix("+00:00").replace("T", " ")
            click.echo(f"  epoch {each.event.step}, {time} UTC: {each.event}.")
        if len(shown) < len(events):
            click.echo(f"  ({len(events) - len(shown)} earlier ones: add --events)")
    if edges:
        click.echo("edge,first,second,siemens,ohms")
        for edge, (pair, value) in enumerate(zip(result.network.edges.tolist(), result.last_conductances, strict=True)):
            click.echo(f"{edge},{pair[0]},{pair[1]},{value:.9g},{1 / value:.9g}")


@click.command()
@click.argument("run")
@click.option("--to", "kind", type=click.Choice(["csv", "npz", "netcdf", "parquet"]), required=True, help="The format.")
@output_option
@store_option
@force_option
def export(run: str, kind: str, output: Path | None, store_path: Path | None, force: bool) -> None:
    """Write the numbers of RUN to a file: losses, conductances, codes, outputs, data and settings."""
    from hilcl.export import SUFFIXES, ExportFormat, export_run
    from hilcl.results import load_run
    from hilcl.store import Store

    chosen: ExportFormat = next(each for each in get_args(ExportFormat) if each == kind)
    with Store(store_path or Path(DEFAULT_STORE), writable=False) as store:
        result = load_run(store, run)
    target = output or Path(f"{run}{SUFFIXES[kind]}")
    refuse_overwriting(target, force=force)
    click.echo(f"Wrote {export_run(result, chosen, target)}: {result.info.steps} epochs of run {run!r}.")


@click.command()
@click.argument("run")
@output_option
@store_option
@force_option
def report(run: str, output: Path | None, store_path: Path | None, force: bool) -> None:
    """Write the report of RUN as one HTML file that needs no network to be read."""
    from hilcl.report import write_report
    from hilcl.results import load_run
    from hilcl.store import Store

    location = store_path or Path(DEFAULT_STORE)
    with Store(location, writable=False) as store:
        result = load_run(store, run)
    target = output or report_path(location, run)
    if output is None:
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as cause:
            raise InputError(f"cannot make {target.parent}: {cause.strerror}; choose a place with --output") from cause
    else:
        refuse_overwriting(target, force=force)
    click.echo(f"Report: {write_report(result, target)}")
