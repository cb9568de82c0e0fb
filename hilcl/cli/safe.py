"""``hilcl safe``: switch a bench off, whoever left it on."""

from pathlib import Path

import click

from hilcl.cli.options import experiment_argument
from hilcl.errors import BoardError, ExperimentError


@click.command()
@experiment_argument
@click.option(
    "--backend",
    type=click.Choice(["bench"]),
    default="bench",
    help="What is made safe: the bench. Emulated instruments end with the program that emulates them.",
)
def safe(experiment: Path, backend: str) -> None:
    """Make every instrument on the bench of EXPERIMENT.toml safe, and verify it.

    Outputs are switched off before anything else is asked, pot boards go to their safe state, and other pots to their
    safe codes. Neither data nor wiring need be in order. It works beside a run too, which then stops.
    """
    from hilcl.bench_lock import users_of
    from hilcl.bench_safety import Outcome, make_bench_safe
    from hilcl.bench_targets import bench_targets
    from hilcl.experiment import Experiment

    loaded = Experiment.load(experiment)
    if loaded.bench is None:
        raise ExperimentError(f"{experiment} has no [bench] section: there is nothing to make safe")

    def told(outcome: Outcome) -> None:
        click.echo(f"{outcome.name}: {'' if outcome.safe else 'NOT SAFE: '}{outcome.sentence}")

    outcomes = make_bench_safe(bench_targets(loaded.bench), told=told)
    left = [outcome.name for outcome in outcomes if not outcome.safe]
    if left:
        for instrument, owner in users_of(loaded.bench):
            who = "another process" if owner is None else f"{owner.command!r} (process {owner.pid})"
            click.echo(f"Note: {instrument} is in use by {who}; stopping that makes it safe, too.", err=True)
        raise BoardError(
            f"{', '.join(left)} could not be verified to be safe: see above, and switch off at the instrument"
        )
    click.echo("The bench is safe.")
