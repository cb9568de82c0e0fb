"""Which process is at work on a run, and whether it still is."""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

_PROC = Path("/proc")

GONE_STATES = "ZXx"
"""Process states of Linux in which nothing runs any more, though the entry is still there."""


@dataclass(frozen=True)
class Owner:
    """A process: its number, when it started (in ticks since the computer did), and which start of which computer.

    Numbers are used again, the four together are not. ``started`` and ``boot`` are empty where the system does not
    tell.
    """

    pid: int
    started: str
    boot: str
    host: str

    @classmethod
    def this_process(cls) -> Self:
        """Return the present process."""
        pid = os.getpid()
        boot = ""
        with contextlib.suppress(OSError):
            boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        state = _state(pid)
        return cls(pid, "" if state is None else state[1], boot, platform.node())

    def fate(self) -> Literal["here", "alive", "gone", "elsewhere"]:
        """Return whether this is the present process, another one that runs, none any more, or cannot be known."""
        here = Owner.this_process()
        if self == here:
            return "here"
        if self.host != here.host:
            return "elsewhere"
        if self.boot != here.boot:
            return "gone"
        if not self.started:
            return "alive" if _exists(self.pid) else "gone"
        state = _state(self.pid)
        return "alive" if state is not None and state[1] == self.started and state[0] not in GONE_STATES else "gone"


def _state(pid: int) -> tuple[str, str] | None:
    """Return the state of a process and its start in ticks (proc(5), /proc/pid/stat, fields 3 and 22)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
        # The name in field 2 may hold blanks and brackets.
        fields = text[text.rindex(")") + 2 :].split()
        return fields[0], fields[19]
    except (OSError, ValueError, IndexError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
