"""Make the instruments of a bench safe from outside, whoever used them before: off first, then verified."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import assert_never

from hilcl.bench_targets import Target
from hilcl.drivers.pot_bank_opening import open_bank
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.drivers.potboard_safety import latch_safe
from hilcl.drivers.registry import source_driver
from hilcl.drivers.smu import SmuSettings
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import BoardError, HilclError

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts at an instrument: a dying program lets go of its ports within milliseconds."""


@dataclass(frozen=True)
class Outcome:
    """What became of one instrument: a sentence without its name, or why it could not be verified to be safe."""

    name: str
    safe: bool
    sentence: str


def make_bench_safe(
    targets: Sequence[Target],
    *,
    ramp: bool = False,
    patience: float = 0.0,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Make all instruments safe at the same time, and return what became of each, in their order.

    An instrument that cannot be reached or verified is tried again for ``patience`` seconds. ``ramp`` brings volts
    to 0 in steps where that costs no time. ``told`` is called as each is done.
    """
    if not targets:
        return []

    def secure(target: Target) -> Outcome:
        outcome = _secured(target, ramp, patience)
        told(outcome)
        return outcome

    with ThreadPoolExecutor(max_workers=len(targets), thread_name_prefix="hilcl-safe") as pool:
        return list(pool.map(secure, targets))


def make_safe(target: Target, *, ramp: bool = False, retries: int = 2) -> str:
    """Make one instrument safe and return a sentence of what it is now.

    Raises HilclError where that could not be verified.
    """
    match target.kind:
        case "smu":
            return _switch_off(target, ramp, retries)
        case "potboard":
            # No watchdog: nobody would feed it.
            options = PotBoardOptions(
                baud=target.baud,
                fast_baud=target.fast_baud,
                turnaround=target.turnaround,
                boot_time=target.boot_time,
                watchdog=None,
            )
            identity = latch_safe(target.name, target.resource, options, target.serial)
            return f"safe, verified: sources off, switches open, pots at their safe codes ({identity})"
        case "bank":
            return _move_to_safe_codes(target)
        case "meter":
            return "a meter, drives nothing"
        case "python":
            raise BoardError("only the program that opens it can make it safe: switch it off by hand")
        case _:
            assert_never(target.kind)


def _secured(target: Target, ramp: bool, patience: float) -> Outcome:
    until, pause = time.monotonic() + patience, FIRST_PAUSE
    waiting = threading.Event()
    while True:
        try:
            # With time to try again, every attempt is short; by hand, one has to do.
            return Outcome(target.name, True, make_safe(target, ramp=ramp, retries=0 if patience else 2))
        except HilclError as error:
            if target.kind == "python" or time.monotonic() + pause > until:
                return Outcome(target.name, False, str(error).removeprefix(f"{target.name}: "))
        waiting.wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _switch_off(target: Target, ramp: bool, retries: int) -> str:
    link = LinkOptions(
        backend=target.visa,
        timeout=target.timeout,
        open_timeout=target.timeout,
        retries=retries,
        baud_rate=target.baud,
    )
    # Nothing is driven, so limits play no part.
    settings = SmuSettings(limit_volts=1.0, limit_amperes=1e-3)
    smu = source_driver(target.driver)(
        target.name,
        target.resource,
        settings,
        link=link,
        model=target.model,
        serial=target.serial,
        channels=target.channels,
    )
    try:
        smu.force_off(ramp=ramp)
    finally:
        smu.abandon()
    return f"off, verified ({smu.identity})"


def _move_to_safe_codes(target: Target) -> str:
    if target.bank is None or target.bank.safe_codes is None:
        return "pots keep their codes, as the file names no safe_codes"
    bank = open_bank(target.name, target.bank)
    try:
        bank.make_safe()
    finally:
        bank.abandon()
    told = "verified" if bank.readable.all() else "written, not every chip can be read"
    return f"pots at their safe codes, {told} ({bank.identity})"
