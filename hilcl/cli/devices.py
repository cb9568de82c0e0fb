"""``hilcl devices``: what is connected, and who it says it is."""

import click


@click.command()
@click.option(
    "--visa", "backend", default="@py", show_default=True, help="The VISA back end; '' takes the system's own."
)
@click.option(
    "--also", multiple=True, metavar="RESOURCE", help="Ask this one too: raw sockets cannot be listed by VISA."
)
@click.option("--ask-serial/--no-ask-serial", default=True, show_default=True, help="Open serial ports to ask them.")
@click.option("--timeout", default=0.5, show_default=True, type=click.FloatRange(0.05, 60), help="Seconds per device.")
def devices(backend: str, also: tuple[str, ...], ask_serial: bool, timeout: float) -> None:
    """List VISA resources and serial ports with what they answer to *IDN?. No output is changed.

    Some boards restart when their serial port is opened: --no-ask-serial lists the ports without opening them.
    """
    from hilcl.drivers.discovery import find_resources

    found = find_resources(backend, also=also, timeout=timeout, ask_serial=ask_serial)
    if not found:
        click.echo("Nothing found. Raw sockets cannot be listed: name them with --also TCPIP::ADDRESS::PORT::SOCKET.")
        return
    for each in found:
        note = f" [{each.note}]" if each.note else ""
        click.echo(f"{each.resource}{note}: {each.identity or each.problem}")
