"""``hilcl check``: what an experiment file means, and whether it can run, before anything is driven."""

from pathlib import Path

import click

from hilcl.cli.options import backend_option, experiment_argument


@click.command()
@experiment_argument
@backend_option
def check(experiment: Path, backend: str) -> None:
    """Check EXPERIMENT.toml: the file, the data, the limits, and what the theory promises. Nothing is written."""
    import numpy as np

    from hilcl.certificate import Certificate
    from hilcl.experiment import Experiment
    from hilcl.preparation import prepare
    from hilcl.session import open_board

    preparation = prepare(Experiment.load(experiment))
    network, data, limits = preparation.network, preparation.data, preparation.device_range
    with open_board(preparation) as board:
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
