"""Running one target on inputs: each bounded in time, what it raised told apart by kind and place."""

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.targets import Run

SECONDS = 5.0
"""Time one input may take; the slowest parsers need milliseconds."""


class TooSlowError(BaseException):
    """An input took longer than allowed; no parser may catch it."""


@dataclass(frozen=True)
class Failure:
    """What an input did: ``key`` is alike for failures of one kind at one place."""

    key: str
    report: str


def _late(number: int, frame: FrameType | None) -> None:
    raise TooSlowError(f"no answer within {SECONDS:g} s")


@contextmanager
def watched() -> Iterator[None]:
    """Let inputs that take too long raise TooSlowError, in the main thread."""
    before = signal.signal(signal.SIGALRM, _late)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(run: Run, data: bytes) -> Failure | None:
    """Run one input and return how it failed; to be called within ``watched``."""
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        run(data)
    except (Exception, TooSlowError) as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        signal.setitimer(signal.ITIMER_REAL, 0)
        place = traceback.extract_tb(error.__traceback__)[-1]
        # Where a slow input is caught is chance.
        where = "" if isinstance(error, TooSlowError) else f" at {place.filename.rsplit('/', 1)[-1]}:{place.name}"
        return Failure(f"{type(error).__name__}{where}", "".join(traceback.format_exception(error)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def shortened(run: Run, data: bytes, failure: Failure, tries: int = 400) -> bytes:
    """Return a shorter input that fails alike, by leaving out pieces; ``tries`` and half a minute bound the search."""
    piece, deadline = max(1, len(data) // 2), time.monotonic() + 30
    while tries > 0 and time.monotonic() < deadline:
        start, before = 0, len(data)
        while start < len(data) and tries > 0:
            candidate = data[:start] + data[start + piece :]
            tries -= 1
            found = tried(run, candidate)
            if found is not None and found.key == failure.key:
                data = candidate
            else:
                start += piece
        if piece == 1 and len(data) == before:
            break
        piece = max(1, piece // 2)
    return data
