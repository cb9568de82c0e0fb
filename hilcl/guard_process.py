"""The guard's own process: it waits, and makes the bench safe when the controller has died or fallen silent.

Its standard input tells it everything: one line of orders, then signs of life, then END, or UNSURE where the controller
could not make the bench safe. The end of that stream without either is the controller's death, however it died.
Whatever is needed to act is imported beforehand. The guard's last word is what could not be verified to be safe.
"""

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hilcl.file_values import Section

if TYPE_CHECKING:
    from hilcl.bench_safety import Outcome
    from hilcl.bench_targets import Target

READY, BEAT, END, UNSURE = b"ready\n", b".", b"E", b"U"

UNSAFE = 3
"""What a guard ends with that could not verify that everything is safe."""

PATIENCE = 30.0
"""Seconds for which an instrument that cannot be made safe is tried again."""

SILENT_PATIENCE = 2.0
"""The same while a silent controller may still hold its port; then that process is ended."""

Ending = Literal["end", "unsure", "death", "silence"]


class Orders(Section):
    """What a guard is told: instruments, seconds of silence, where to write, whom it watches, locks it holds.

    ``targets`` are those of ``hilcl.bench_targets``, as JSON values. ``with_us``: the instruments are emulated by the
    controller and end with it.
    """

    targets: list[dict[str, Any]] = Field(default_factory=list)
    silence: float
    log: str
    command: str
    pid: int
    folder: str
    with_us: bool = False
    locks: list[int] = Field(default_factory=list)


class Log:
    """A file that is appended to, line by line with the time; one that cannot be written stops nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, sentence: str) -> None:
        """Add a line, and see that it is on the disk."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{now} {sentence}\n")
            file.flush()
            os.fsync(file.fileno())


def main() -> None:
    """Be the guard: read orders, say so, watch, act if need be."""
    # Whoever wants to end the guard ends the controller: these come to everybody when a session is cleared away.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    line = sys.stdin.fileno()
    orders = Orders.model_validate_json(_first_line(line))
    controller = _Controller(orders.pid)
    targets = prepare(orders)
    try:
        os.write(sys.stdout.fileno(), READY)
    except OSError:
        # It died before it could drive anything: it waits for this first.
        os._exit(0)
    with suppress(OSError):
        os.chdir(orders.folder)
    # What a library may print must not be taken for an answer.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
    ending = watch(line, orders.silence)
    if ending == "end":
        os._exit(0)
    try:
        left = act(orders, targets, ending, controller.end)
    except Exception:  # noqa: BLE001 # a defect of ours; there is nobody to raise it to
        Log(Path(orders.log)).write("the guard failed: " + " | ".join(traceback.format_exc().splitlines()))
        left = [target.name for target in targets] or ["the bench"]
    with suppress(OSError):
        os.write(answers, ", ".join(left).encode())
    os._exit(UNSAFE if left else 0)


def prepare(orders: Orders) -> "list[Target]":
    """Import what acting takes, so that it need not wait for it, and return the instruments."""
    if not orders.targets:
        return []
    import hilcl.bench_safety
    from hilcl.bench_targets import Target

    _ = hilcl.bench_safety
    targets = [Target.model_validate(each) for each in orders.targets]
    if visa := {target.visa for target in targets if target.kind == "smu"}:
        import pyvisa

        for backend in visa:
            # One that is not there is named when it is needed.
            with suppress(Exception):
                pyvisa.ResourceManager(backend)
    return targets


def watch(line: int, silence: float) -> Ending:
    """Read signs of life until there are no more, and return why."""
    heard = time.monotonic()
    while True:
        left = heard + silence - time.monotonic()
        if not select.select([line], [], [], max(left, 0.0))[0]:
            # We may have been stopped as long as the controller: then it is about to go on.
            if select.select([line], [], [], silence / 2)[0]:
                heard = time.monotonic()
                continue
            return "silence"
        data = os.read(line, 4096)
        if END in data:
            return "end"
        if UNSURE in data:
            return "unsure"
        if not data:
            return "death"
        heard = time.monotonic()


def act(orders: Orders, targets: "list[Target]", ending: Ending, end_controller: Callable[[], bool]) -> list[str]:
    """Make the bench safe, write down what was done, and return the instruments of which that could not be verified."""
    log = Log(Path(orders.log))
    did = {
        "unsure": "could not make the bench safe",
        "silence": f"gave no sign of life for {orders.silence:g} s",
    }.get(ending, "died without making the bench safe")
    why = f"process {orders.pid} ({orders.command}) {did}"
    if orders.with_us:
        log.write(f"{why}; its instruments were emulated by it and are off with it")
        return []
    from hilcl.bench_lock import Owner
    from hilcl.bench_safety import make_bench_safe

    me = Owner.now(orders.command, guard=True)
    for descriptor in orders.locks:
        me.write(descriptor)
    # The instruments are not kept waiting by a slow disk.
    writing = threading.Thread(target=log.write, args=(why,))
    writing.start()

    def told(outcome: "Outcome") -> None:
        if outcome.safe:
            log.write(f"{outcome.name}: {outcome.sentence}")

    patience = SILENT_PATIENCE if ending == "silence" else PATIENCE
    outcomes = make_bench_safe(targets, ramp=True, patience=patience, told=told)
    left = [target for target, outcome in zip(targets, outcomes, strict=True) if not outcome.safe]
    if left and ending == "silence" and end_controller():
        log.write(f"ended process {orders.pid}, which held what could not be reached")
        outcomes = make_bench_safe(left, ramp=True, patience=PATIENCE, told=told)
    writing.join()
    for outcome in outcomes:
        if not outcome.safe:
            log.write(f"{outcome.name}: NOT verified to be safe: {outcome.sentence}")
    return [outcome.name for outcome in outcomes if not outcome.safe]


class _Controller:
    """The process that is watched, held by a descriptor: its number may be another's by the time it counts."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = None
        if os.getppid() == pid and hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._descriptor = os.pidfd_open(pid)

    def end(self) -> bool:
        """Kill it, and return whether that could be done."""
        if self._descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except OSError:
            return False
        select.select([self._descriptor], [], [], SILENT_PATIENCE)
        return True


def _first_line(line: int) -> bytes:
    """Return the orders, without reading a byte beyond them."""
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(line, 1)
        if not piece:
            os._exit(1)
        data += piece
    return data
