"""The emulated pot board's wire: a pseudo-terminal or a TCP socket on loopback, served by a thread of its own."""

import contextlib
import logging
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from hilcl.errors import BoardError
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard

LOOPBACK = "127.0.0.1"

TCGETS2, TERMIOS2_BYTES = 0x802C542A, 44
"""Linux's call for the settings of a terminal, and what it returns; the output rate comes last."""

PIECE = 4096
"""Bytes read at once."""

MOST_UNSENT = 1 << 16
"""Bytes of replies the other end has not taken; above it replies are lost, as on a real line."""

TICK = 0.02
"""Seconds between two looks of the watchdog at the time."""

log = logging.getLogger(__name__)


class WireFaults(Protocol):
    """What may go wrong on the wire; the default is nothing."""

    def received(self, data: bytes) -> bytes:
        """Return the bytes as the board gets them."""
        ...

    def replied(self, data: bytes) -> bytes:
        """Return the bytes as they leave for the host."""
        ...


class WireControl(Protocol):
    """What a fault can do to the connection; called in the thread that serves it."""

    def break_off(self, seconds: float) -> None:
        """Let the port vanish for a while, as a USB device does that is pulled out or reset."""
        ...


@runtime_checkable
class BreakingFaults(Protocol):
    """Faults that also need to break the connection."""

    def attach(self, wire: WireControl) -> None:
        """Take what breaks it, before anything is served."""
        ...


@runtime_checkable
class RatedBoard(Protocol):
    """A board that hears garbage at another baud rate than its own."""

    def host_baud(self, rate: int | None) -> None:
        """Take the host's rate, None where the line has none."""
        ...


@dataclass(frozen=True)
class NoWireFaults:
    """A perfect wire."""

    def received(self, data: bytes) -> bytes:
        """Return the bytes unchanged."""
        return data

    def replied(self, data: bytes) -> bytes:
        """Return the bytes unchanged."""
        return data


class PotBoardServer:
    """Serves a board until ``close``; ``port`` is what pySerial's ``serial_for_url`` opens.

    On a pseudo-terminal, or with ``tcp`` (0: any free one) on that TCP port for one client at a time. ``now`` gives
    the seconds by which the watchdog counts. ``at_rest`` is told 0 and the bytes taken and given when all that was
    taken is done with, for a board that answers at once.

    Raises BoardError where no terminal or port can be had.
    """

    def __init__(
        self,
        board: EmulatedPotBoard,
        *,
        tcp: int | None = None,
        faults: WireFaults | None = None,
        now: Callable[[], float] = time.monotonic,
        at_rest: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self.board = board
        self._faults: WireFaults = NoWireFaults() if faults is None else faults
        self._now, self._at_rest = now, at_rest
        self._taken = self._given = 0
        self._unsent = bytearray()
        self._lost = 0
        self._selector = selectors.DefaultSelector()
        self._waking, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._terminal: int | None = None
        self._kept_open: int | None = None
        self._listening: socket.socket | None = None
        self._client: socket.socket | None = None
        self._tcp = tcp
        self._away_until: float | None = None
        self._folder: TemporaryDirectory[str] | None = None
        if isinstance(self._faults, BreakingFaults):
            self._faults.attach(self)
            if tcp is None:
                # A name that stays the same when the terminal behind it is another one, as udev gives.
                self._folder = TemporaryDirectory(prefix="hilcl-")
        try:
            self.port = self._open_terminal() if tcp is None else self._listen(tcp)
        except OSError as cause:
            self._release()
            what = "a pseudo-terminal" if tcp is None else f"{LOOPBACK}:{tcp}"
            raise BoardError(
                f"the emulated pot board cannot have {what} ({cause.strerror}): choose another way to reach it"
            ) from cause
        self._thread = threading.Thread(target=self._serve, name="emulated pot board", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Bytes of replies thrown away because nobody took them."""
        return self._lost

    def close(self) -> None:
        """End the thread and close the port; may be called twice."""
        with contextlib.suppress(OSError):
            self._waking.send(b"x")
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_terminal(self) -> str:
        # Not on every system, so not imported with the module.
        import tty

        self._terminal, self._kept_open = os.openpty()
        tty.setraw(self._kept_open)
        os.set_blocking(self._terminal, False)
        self._selector.register(self._terminal, selectors.EVENT_READ)
        terminal = os.ttyname(self._kept_open)
        if self._folder is None:
            return terminal
        link = Path(self._folder.name) / "tty"
        link.symlink_to(terminal)
        return str(link)

    def break_off(self, seconds: float) -> None:
        """Let the port vanish for a while; called in the thread that serves it."""
        self._away_until = time.monotonic() + seconds
        self._unsent.clear()
        for each in (self._client, self._listening):
            if each is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(each)
                each.close()
        if self._listening is not None:
            self._tcp = int(self.port.rpartition(":")[2])
        self._client = self._listening = None
        if self._terminal is not None and self._kept_open is not None:
            self._selector.unregister(self._terminal)
            os.close(self._terminal)
            os.close(self._kept_open)
            self._terminal = self._kept_open = None
            Path(self.port).unlink()

    def _return(self) -> None:
        """Come back where it was, at the end of a fault."""
        if self._away_until is None or time.monotonic() < self._away_until:
            return
        self._away_until = None
        try:
            if self._tcp is None:
                self._open_terminal()
            else:
                self._listen(self._tcp)
        except OSError:
            # The port has been taken meanwhile: the board stays away, as a broken one does.
            log.exception("the emulated pot board cannot come back at %s", self.port)

    def _listen(self, port: int) -> str:
        self._listening = socket.create_server((LOOPBACK, port))
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        return f"socket://{LOOPBACK}:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        try:
            while True:
                ready = {key.fileobj for key, _ in self._selector.select(TICK)}
                if self._woken in ready:
                    return
                self.board.tick(self._now())
                self._return()
                if self._listening is not None and self._listening in ready:
                    self._accept(self._listening)
                else:
                    self._exchange()
        finally:
            self._release()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = listening.accept()
            # The next client waits until this one has gone.
            self._selector.unregister(listening)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setblocking(False)
            self._client = client
            self._unsent.clear()
            self._selector.register(client, selectors.EVENT_READ)

    def _exchange(self) -> None:
        wire = self._terminal if self._client is None else self._client.fileno()
        if wire is None:
            return
        try:
            data = os.read(wire, PIECE)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            self._hang_up()
            return
        if data:
            answer = self._answer(data)
            if self._away_until is not None:
                return
            if len(self._unsent) + len(answer) > MOST_UNSENT:
                self._lost += len(answer)
            else:
                self._unsent += answer
                self._given += len(answer)
            self._taken += len(data)
            if self._at_rest is not None:
                self._at_rest(0, self._taken, self._given)
        self._send(wire)

    def _answer(self, data: bytes) -> bytes:
        if isinstance(self.board, RatedBoard):
            self.board.host_baud(None if self._terminal is None else _line_rate(self._terminal))
        try:
            return self._faults.replied(self.board.feed(self._faults.received(data), self._now()))
        except Exception:
            # A fault of the circuit behind the board must not end the service; the host hears nothing and says so.
            log.exception("the emulated pot board failed at %d bytes", len(data))
            return b""

    def _send(self, wire: int) -> None:
        try:
            if self._unsent:
                del self._unsent[: os.write(wire, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(wire, events)

    def _hang_up(self) -> None:
        """Let go of a client that has gone; the board notices by its watchdog only."""
        if self._client is not None:
            self._selector.unregister(self._client)
            self._client.close()
            self._client = None
            if self._listening is not None:
                self._selector.register(self._listening, selectors.EVENT_READ)

    def _release(self) -> None:
        self._selector.close()
        for each in (self._client, self._listening, self._waking, self._woken):
            if each is not None:
                each.close()
        for descriptor in (self._terminal, self._kept_open):
            if descriptor is not None:
                os.close(descriptor)
        if self._folder is not None:
            self._folder.cleanup()


def _line_rate(terminal: int) -> int | None:
    """Return the baud rate that the other end of a pseudo-terminal has set, None where the system does not tell."""
    # Not on every system, so not imported with the module. TCGETS2 of Linux also tells rates without a constant.
    import fcntl

    with contextlib.suppress(OSError):
        settings = fcntl.ioctl(terminal, TCGETS2, bytes(TERMIOS2_BYTES))
        return int.from_bytes(settings[-4:], sys.byteorder)
    return None
