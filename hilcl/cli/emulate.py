"""``hilcl emulate``: the bench of an experiment file, served for any client until Ctrl-C."""

import threading
from contextlib import suppress
from pathlib import Path

import click

from hilcl.cli.options import experiment_argument
from hilcl.cli.signals import signals_interrupt
from hilcl.errors import InputError


@click.command()
@experiment_argument
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="NAME=PORT",
    help="Serve an instrument on this TCP port instead of any free one; may be given for each. A pot board named here "
    "is on TCP too instead of a pseudo-terminal.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(0, 10),
    default=None,
    help="Real seconds per emulated second; 0 waits for nothing. By default that of [simulation].",
)
def emulate(experiment: Path, ports: tuple[str, ...], time_scale: float | None) -> None:
    """Serve the emulated bench of EXPERIMENT.toml on loopback until Ctrl-C, and print where each instrument answers.

    All instruments are wired to one exact circuit. Any client can use them: PyVISA, PyMeasure, QCoDeS, a terminal.
    """
    from hilcl.experiment import Experiment
    from hilcl.preparation import prepare
    from hilcl.sim_backend.emulated_bench import EmulatedBench

    bench = EmulatedBench(prepare(Experiment.load(experiment)), time_scale=time_scale)
    wanted = _ports(ports, [*bench.instruments, *bench.boards])
    # Being told to end is how this ends, from the moment the first resource is printed.
    with suppress(KeyboardInterrupt), signals_interrupt(), bench.start(wanted):
        width = max(len(name) for name in bench.resources)
        for name, resource in bench.resources.items():
            identity = (bench.instruments.get(name) or bench.boards[name]).identity
            click.echo(f"{name:{width}}  {resource}  {identity}")
        click.echo("Serving until Ctrl-C.")
        threading.Event().wait()


def _ports(given: tuple[str, ...], names: list[str]) -> dict[str, int]:
    found = {}
    for each in given:
        name, _, port = each.partition("=")
        if name not in names:
            raise InputError(f"--port {each}: there is no instrument {name!r} in the file, only {', '.join(names)}")
        if not (port.isdecimal() and 0 <= int(port) < 65_536):
            raise InputError(f"--port {each}: a port is a number from 0 to 65535, as in {name}=5025")
        found[name] = int(port)
    return found
