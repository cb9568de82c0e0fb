"""What has to be known of the instruments of a bench to make them safe: plain values another process can be given."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from hilcl.bench_section import (
    AnyInstrument,
    BenchSection,
    PotBoardInstrument,
    PythonInstrument,
    ScannerInstrument,
    SmuInstrument,
)
from hilcl.bench_wiring import SMU_CHANNELS
from hilcl.file_values import Section
from hilcl.pot_bank_section import BankInstrument, IioInstrument

Bank = Annotated[BankInstrument, Field(discriminator="driver")]


class Target(Section):
    """One instrument: where it is, who it should be, and which of its channels are used. Times in seconds."""

    name: str
    kind: Literal["smu", "potboard", "bank", "meter", "python"]
    driver: str
    resource: str = ""
    channels: tuple[str, ...] = ()
    model: str | None = None
    serial: str | None = None
    visa: str = "@py"
    timeout: float = 3.0
    baud: int = 9600
    fast_baud: int | None = None
    turnaround: float = 0.02
    boot_time: float = 3.0
    bank: Bank | None = None


def bench_targets(bench: BenchSection) -> list[Target]:
    """Return the instruments of a bench in the order of the file.

    Neither network nor data are needed, so that a bench can be made safe by a file that cannot run any more.
    """
    return [_target(bench, name, instrument) for name, instrument in bench.instruments.items()]


def places(bench: BenchSection) -> dict[str, list[str]]:
    """Return by instrument the resources that nobody else may use meanwhile."""
    found: dict[str, list[str]] = {}
    for name, instrument in bench.instruments.items():
        match instrument:
            case PythonInstrument():
                continue
            case IioInstrument():
                # All chips share the tree, but each has a folder of its own in it.
                found[name] = [f"{instrument.resource}/{chip.device}" for chip in instrument.chips]
            case _:
                found[name] = [instrument.resource]
    return found


def _target(bench: BenchSection, name: str, instrument: AnyInstrument) -> Target:
    match instrument:
        case SmuInstrument() | ScannerInstrument():
            channels: tuple[str, ...] = ()
            if isinstance(instrument, SmuInstrument):
                known = SMU_CHANNELS[instrument.driver]
                wired = (bench.wiring.sources.get(name), bench.wiring.meters.get(name))
                used = dict.fromkeys(channel for table in wired for channel in _channels(table, known))
                # A file that wires none of them is wrong: rather one channel too many than one left on.
                channels = tuple(used) or known
            return Target(
                name=name,
                kind="smu" if isinstance(instrument, SmuInstrument) else "meter",
                driver=instrument.driver,
                resource=instrument.resource,
                channels=channels,
                model=instrument.model,
                serial=instrument.serial,
                visa=bench.visa,
                timeout=instrument.timeout,
                baud=instrument.baud,
            )
        case PotBoardInstrument():
            return Target(
                name=name,
                kind="potboard",
                driver=instrument.driver,
                resource=instrument.resource,
                serial=instrument.serial,
                baud=instrument.baud,
                fast_baud=instrument.fast_baud,
                turnaround=instrument.turnaround,
                boot_time=instrument.boot_time,
            )
        case PythonInstrument():
            return Target(name=name, kind="python", driver=instrument.driver)
        case _:
            return Target(
                name=name, kind="bank", driver=instrument.driver, resource=instrument.resource, bank=instrument
            )


def _channels(table: Mapping[str, Any] | list[int] | None, known: tuple[str, ...]) -> list[str]:
    """Return the channels that a table of the wiring uses, spelt as the driver spells them."""
    if table is None:
        return []
    if isinstance(table, list):
        return [channel for channel, node in zip(known, table, strict=False) if node >= 0]
    return [channel for channel in known if channel in table]
