"""The drivers by the names an experiment file calls them."""

import difflib
from collections.abc import Sequence
from typing import TypeVar

from hilcl.drivers.daq6510 import Daq6510
from hilcl.drivers.keithley2400 import Keithley2400
from hilcl.drivers.keithley2450 import Keithley2450
from hilcl.drivers.keithley2600b import Keithley2600B
from hilcl.drivers.keysight_34970a import Keysight34970A
from hilcl.drivers.keysight_b2900 import KeysightB2900
from hilcl.drivers.scanner import Scanner, ScannerSettings
from hilcl.drivers.smu import Relay, Smu, SmuSettings
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import InputError

SOURCES: dict[str, type[Smu]] = {
    "keithley2400": Keithley2400,
    "keithley2450": Keithley2450,
    "keithley2600b": Keithley2600B,
    "keysight-b2900": KeysightB2900,
}
"""SMU drivers; each can also be a voltmeter, through ``SmuVoltmeter``."""

VOLTMETERS: dict[str, type[Scanner]] = {"daq6510": Daq6510, "34970a": Keysight34970A}
"""Scanner drivers."""

D = TypeVar("D")


def source_driver(driver: str) -> type[Smu]:
    """Return the class of an SMU driver.

    Raises InputError naming the drivers there are.
    """
    return _driver(driver, SOURCES, "source")


def voltmeter_driver(driver: str) -> type[Scanner]:
    """Return the class of a voltmeter driver.

    Raises InputError naming the drivers there are.
    """
    return _driver(driver, VOLTMETERS, "voltmeter")


def open_source(
    driver: str,
    name: str,
    resource: str,
    settings: SmuSettings,
    *,
    link: LinkOptions | None = None,
    model: str | None = None,
    serial: str | None = None,
    relay: Relay | None = None,
    channels: Sequence[str] | None = None,
) -> Smu:
    """Return an open SMU of which ``channels`` are used, all if None; no output has changed.

    Raises InputError or BoardError, and then nothing stays open.
    """
    smu = source_driver(driver)(
        name, resource, settings, link=link, model=model, serial=serial, relay=relay, channels=channels
    )
    return _opened(smu)


def open_voltmeter(
    driver: str,
    name: str,
    resource: str,
    channels: Sequence[str],
    settings: ScannerSettings | None = None,
    *,
    link: LinkOptions | None = None,
    model: str | None = None,
    serial: str | None = None,
) -> Scanner:
    """Return an open voltmeter.

    Raises InputError or BoardError, and then nothing stays open.
    """
    meter = voltmeter_driver(driver)(name, resource, channels, settings, link=link, model=model, serial=serial)
    return _opened(meter)


Opened = TypeVar("Opened", Smu, Scanner)


def _opened(device: Opened) -> Opened:
    try:
        device.open()
    except BaseException:
        device.abandon()
        raise
    return device


def _driver(driver: str, known: dict[str, type[D]], kind: str) -> type[D]:
    try:
        return known[driver.lower()]
    except KeyError:
        near = difflib.get_close_matches(driver.lower(), known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no {kind} driver {driver!r}, only {', '.join(map(repr, known))}{hint}") from None
