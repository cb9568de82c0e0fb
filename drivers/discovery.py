"""What is connected: VISA resources and serial ports, with what they answer to ``*IDN?``."""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace

from hilcl.drivers.visa_session import LinkOptions, VisaSession
from hilcl.errors import BoardError, InputError

SERIAL_RATES = (115_200, 9600)
"""Baud rates a serial port is asked at: that of pot boards, and that of most instruments."""

LISTING_TIME = 15.0
"""Seconds the VISA library may take to look around."""


@dataclass(frozen=True)
class Found:
    """A resource, what it answered to ``*IDN?``, and why it did not if it did not; ``note`` describes a serial port."""

    resource: str
    identity: str | None
    problem: str | None = None
    note: str = ""


def find_resources(
    backend: str = "@py", *, also: Iterable[str] = (), timeout: float = 0.5, ask_serial: bool = True
) -> list[Found]:
    """Return what is connected, in the order of resource names, asking each one ``*IDN?`` for ``timeout`` seconds.

    Raw sockets cannot be listed by any VISA: name those to be asked in ``also``. Some boards restart when their
    serial port is opened; ``ask_serial`` False lists the ports only. Raises InputError if the back end cannot be
    used.
    """
    notes = _serial_ports()
    names = {*_listed(backend), *notes, *also}
    options = LinkOptions(backend=backend, timeout=timeout, open_timeout=timeout)
    asked = [name for name in sorted(names) if ask_serial or not name.upper().startswith("ASRL")]
    found = {name: Found(name, None, "not asked") for name in names}
    if asked:
        with ThreadPoolExecutor(max_workers=min(8, len(asked)), thread_name_prefix="hilcl-find") as pool:
            found.update(zip(asked, pool.map(lambda name: identify(name, options), asked), strict=True))
    return [replace(found[name], note=notes.get(name, "")) for name in sorted(names)]


def identify(resource: str, options: LinkOptions) -> Found:
    """Ask one resource who it is, a serial port at each of ``SERIAL_RATES``; a problem is told, not raised."""
    rates = SERIAL_RATES if resource.upper().startswith("ASRL") else (options.baud_rate,)
    problem = ""
    for rate in rates:
        try:
            with VisaSession(resource, resource, replace(options, baud_rate=rate)) as session:
                answer = session.query("*IDN?")
        except (BoardError, InputError) as error:
            problem = problem or str(error)
            continue
        if answer.isascii() and answer.isprintable():
            return Found(resource, answer)
        problem = f"{resource} answered what is no text: its baud rate is another"
    return Found(resource, None, problem)


def _listed(backend: str) -> tuple[str, ...]:
    import pyvisa

    try:
        manager = pyvisa.ResourceManager(backend)
    except (OSError, ValueError) as cause:
        raise InputError(f"the VISA back end {backend!r} cannot be used ({cause}): install it, or use '@py'") from cause
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hilcl-list")
    try:
        with warnings.catch_warnings():
            # pyvisa-py warns of optional packages it could look further with.
            warnings.simplefilter("ignore")
            return tuple(pool.submit(manager.list_resources, "?*::INSTR").result(LISTING_TIME))
    except FutureTimeoutError as cause:
        raise BoardError(
            f"the VISA back end {backend!r} did not list its resources within {LISTING_TIME:g} s"
        ) from cause
    except pyvisa.VisaIOError:  # what some libraries say when there is nothing
        return ()
    finally:
        pool.shutdown(wait=False)


def _serial_ports() -> dict[str, str]:
    """Return the serial ports as VISA resources, with what the system knows of each."""
    from serial.tools.list_ports import comports

    return {f"ASRL{port.device}::INSTR": port.description or "" for port in comports()}
