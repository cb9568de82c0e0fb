"""``hilcl check``: what an experiment file means, and whether it can run, before anything is trained."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hilcl.cli.options import backend_option, experiment_argument
from hilcl.errors import BoardError, ExperimentError

if TYPE_CHECKING:
    from hilcl.board import Board
    from hilcl.preflight import Names
    from hilcl.preparation import Preparation
    from hilcl.session import Backend

SHARE_OF_LIMIT = 0.2
"""Test volts of the preflight, as a part of limits.volts."""


@click.command()
@experiment_argument
@backend_option
@click.option(
    "--volts",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Test volts on a bench; by default a fifth of limits.volts.",
)
def check(experiment: Path, backend: "Backend | None", volts: float | None) -> None:
    """Check EXPERIMENT.toml: the file, the data, the limits, and what the theory promises.

    With --backend emulated or bench also the bench, at low volts: who the instruments are, whether each terminal, meter
    and pot is where the file says, and how long a step takes. Nothing is written.
    """
    from hilcl.bench_ratings import check_ratings
    from hilcl.calibration_session import prepare_calibrated
    from hilcl.cli.signals import signals_interrupt
    from hilcl.experiment import Experiment
    from hilcl.guard import guard_log, guarded
    from hilcl.session import open_board

    preparation = prepare_calibrated(Experiment.load(experiment))
    check_ratings(preparation.nominal or preparation)
    on_bench = backend in {"emulated", "bench"}
    if on_bench:
        volts = _test_volts(preparation, volts)
    elif volts is not None:
        raise click.UsageError("--volts is for a bench: add --backend emulated or bench")
    log = guard_log(Path(preparation.experiment.store.file))
    with signals_interrupt(), ExitStack() as opened:
        opened.enter_context(guarded(preparation.experiment, backend or "sim", log))
        # A bench is checked before anything on it is calibrated, which miswiring would upset.
        board = opened.enter_context(
            open_board(preparation, backend or "sim", calibrate=not on_bench, plausible=not on_bench)
        )
        _describe(preparation, board)
        if volts is not None:
            _preflight(preparation, board, volts)


def _test_volts(preparation: "Preparation", volts: float | None) -> float:
    """Return the volts of the preflight, within the file's limits."""
    limit = preparation.experiment.limits.volts
    if limit is None or preparation.wiring is None:
        raise ExperimentError(
            f"{preparation.experiment.source} has no [bench] section: add one, or check without --backend"
        )
    if volts is not None and volts > limit:
        raise ExperimentError(f"--volts {volts:g} is above limits.volts = {limit:g} V: choose less")
    return SHARE_OF_LIMIT * limit if volts is None else volts


def _describe(preparation: "Preparation", board: "Board") -> None:
    """Print what the file describes and what the theory says of it."""
    import numpy as np

    from hilcl.certificate import Certificate

    network, data, limits = preparation.network, preparation.data, preparation.device_range
    certificate = Certificate.of(board, data.train, preparation.rule)
    click.echo(f"Board: {network!r}.")
    low, high = float(limits.g_min.min()), float(limits.g_max.max())
    codes = "" if preparation.pots is None else f" in {preparation.pots.positions} codes"
    click.echo(f"Edges: {low * 1e6:.4g} to {high * 1e6:.4g} µS{codes}.")
    tasks = [data.train] if data.test is None else [data.train, data.test]
    click.echo("Data: " + ", test: ".join(repr(task) for task in tasks) + ".")
    driven = np.concatenate([np.hstack([task.inputs, task.targets]) for task in tasks])
    span = float(np.ptp(driven, axis=1).max())
    click.echo(f"Drives: {driven.min():.4g} to {driven.max():.4g} V, at most {span:.4g} V across an edge.")
    click.echo(f"Worst pot: {span * high * 1e3:.3g} mA and {span**2 * high * 1e3:.3g} mW.")
    for sentence in certificate.sentences():
        click.echo(sentence)
    click.echo("The file is in order.")


def _preflight(preparation: "Preparation", board: "Board", volts: float) -> None:
    """Check the wiring of a bench at low volts.

    Raises BoardError that counts the faults where there are any.
    """
    from hilcl.preflight import Preflight
    from hilcl.session import innermost

    for name, identity in getattr(innermost(board), "identities", {}).items():
        click.echo(f"{name}: {identity}")
    for note in getattr(innermost(board), "notes", ()):
        click.echo(f"Note: {note}.")
    wiring = preparation.wiring
    check = Preflight(board, volts, names(preparation), grounded=() if wiring is None else wiring.grounded)
    marks = {"done": "", "fault": "FAULT: ", "unchecked": "Not checked: "}
    for remark in check.run():
        click.echo(f"{marks[remark.kind]}{remark.sentence[0].upper() + remark.sentence[1:]}.")
    samples, epochs = len(preparation.data.train), preparation.experiment.learning.epochs
    step = check.step_seconds(samples)
    click.echo(f"Expected: {_duration(step)} for each of {epochs} epochs, {_duration(step * epochs)} for the run.")
    if not check.passed:
        count = len(check.faults)
        raise BoardError(
            f"the bench is not wired as {preparation.experiment.source} says: "
            f"{count} {'fault' if count == 1 else 'faults'} to correct first"
        )
    _settle(preparation, board)
    click.echo("The bench is in order.")


def _settle(preparation: "Preparation", board: "Board") -> None:
    """Say how long the board is given to settle, measured now where the file wants that."""
    from hilcl.bench_board import BenchBoard
    from hilcl.bench_session import measure_settling
    from hilcl.session import innermost

    bench, section = innermost(board), preparation.experiment.bench
    if section is None or not isinstance(bench, BenchBoard):
        return
    how = "as the file says"
    if section.settle.measured:
        measure_settling(bench, preparation)
        how = "measured"
    elif section.settle.capacitance is not None:
        how = "computed for the start"
    click.echo(f"Settling: {_duration(bench.settling_seconds)} after each change of the drives, {how}.")


def names(preparation: "Preparation") -> "Names":
    """Return what sources, meters and pots are called in an experiment file."""
    from hilcl.preflight import Names

    wiring = preparation.wiring
    if wiring is None:
        return Names()
    edges = range(preparation.network.n_edges)
    pots = {edge: wiring.pot_of(edge) for edge in edges}
    return Names(
        sources={node: f"{name} channel {each}" for name, at in wiring.sources.items() for each, node in at.items()},
        meters={node: f"{name} channel {each}" for name, at in wiring.meters.items() for each, node in at.items()},
        pots={edge: f"{name} pot {number}" for edge, (name, number) in pots.items()},
    )


def _duration(seconds: float) -> str:
    """Return a duration a person can read: "12 ms", "4.2 s", "3 min", "5.1 h"."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
