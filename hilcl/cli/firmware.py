"""``hilcl firmware``: build the pot board's firmware, flash it, and ask a board what it runs."""

from pathlib import Path

import click

from hilcl.cli.options import experiment_argument

TURNAROUND = 1.0
"""Seconds a board is given beyond the time on the wire: nobody waits for these few questions."""

port_option = click.option("--port", required=True, metavar="PORT", help="Serial port of the board, as /dev/ttyUSB0.")

folder_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("firmware-build"),
    show_default=True,
    metavar="FOLDER",
    help="Where sources, wiring.h and the compiled firmware go.",
)


@click.group()
def firmware() -> None:
    """Build, flash and ask the firmware of a pot board; docs/firmware.md says how a board is wired."""


@firmware.command()
@experiment_argument
@folder_option
def build(experiment: Path, output: Path) -> None:
    """Compile the firmware for the board and the wiring in [firmware] of EXPERIMENT.toml."""
    from hilcl.drivers.firmware import VERSION
    from hilcl.drivers.firmware.build import build as compile_firmware
    from hilcl.drivers.firmware.wiring import load_wiring

    wiring = load_wiring(experiment, VERSION)
    built = compile_firmware(wiring, output)
    click.echo(f"{wiring.board.title}, {wiring.pots} pots, {wiring.baud} baud: {built}.")
    click.echo(f"{built.hex}")


@firmware.command()
@experiment_argument
@port_option
@folder_option
@click.option(
    "--baud", type=int, default=None, metavar="RATE", help="Baud rate of the bootloader, if not the usual one."
)
def flash(experiment: Path, port: str, output: Path, baud: int | None) -> None:
    """Build the firmware, write it into the board on PORT with avrdude, and check what then answers there."""
    from hilcl.drivers.firmware import VERSION
    from hilcl.drivers.firmware.build import build as compile_firmware
    from hilcl.drivers.firmware.compare import check_board
    from hilcl.drivers.firmware.flash import flash as write_flash
    from hilcl.drivers.firmware.wiring import load_wiring
    from hilcl.drivers.potboard import PotBoard
    from hilcl.drivers.potboard_link import PotBoardOptions

    wiring = load_wiring(experiment, VERSION)
    built = compile_firmware(wiring, output)
    write_flash(wiring.board, built.hex, port, baud)
    with PotBoard("board", port, PotBoardOptions(baud=wiring.baud, turnaround=TURNAROUND, watchdog=None)) as board:
        check_board(wiring, board)
        click.echo(f"{port}: {board.identity}. {built}.")


@firmware.command()
@click.argument("port", metavar="PORT")
@click.option("--baud", type=int, default=115_200, show_default=True, metavar="RATE", help="Baud rate of the board.")
@click.option(
    "--check",
    "experiment",
    type=click.Path(path_type=Path),
    default=None,
    metavar="EXPERIMENT.toml",
    help="Compare the board with [firmware] of this file, and take the baud rate from there.",
)
def info(port: str, baud: int, experiment: Path | None) -> None:
    """Say what the board on PORT is. No output and no pot is changed."""
    from hilcl.drivers.firmware import VERSION
    from hilcl.drivers.firmware.compare import check_board
    from hilcl.drivers.firmware.wiring import load_wiring
    from hilcl.drivers.potboard import PotBoard
    from hilcl.drivers.potboard_link import PotBoardOptions

    wiring = None if experiment is None else load_wiring(experiment, VERSION)
    rate = baud if wiring is None else wiring.baud
    options = PotBoardOptions(baud=rate, turnaround=TURNAROUND, watchdog=None)
    with PotBoard("board", port, options) as board:
        greeting = board.greeting
        click.echo(f"{port}: {greeting.identity}, protocol {greeting.major}.{greeting.minor}, start {greeting.boots}.")
        for group in board.pots:
            read = "read back" if group.readback else "not read back"
            click.echo(
                f"Pots {group.first} to {group.first + group.count - 1}: {group.chip}, codes 0 to {group.highest}, "
                f"{group.safe} when safe, {read}."
            )
        for adc in board.adc_descriptions:
            click.echo(
                f"ADC channels {adc.first} to {adc.first + adc.count - 1}: {adc.bits} bits over {adc.span / 1e9:g} V, "
                f"{adc.conversion} µs each."
            )
        for index, source in enumerate(board.source_descriptions):
            click.echo(f"Source {index}: {source.lowest / 1e9:g} to {source.highest / 1e9:g} V.")
        click.echo(f"Switches: {greeting.switches}.")
        if wiring is not None:
            check_board(wiring, board)
            click.echo(f"It is wired as {experiment} says.")
