"""The serial line to a pot board: frames out and in, bounded waits, the same frame sent again, greetings.

pySerial's ``serial_for_url`` opens it, so that a tty, a pseudo-terminal and ``socket://host:port`` share one path.
"""

import contextlib
import math
import os
import time
from dataclasses import dataclass
from typing import TypeVar

import serial

from hilcl.drivers.potboard_framing import REPLY, Frame, FrameDecoder, longest_encoded
from hilcl.drivers.potboard_protocol import (
    MAJOR,
    MINOR,
    NOTHING,
    Answer,
    Done,
    Exit,
    Greeting,
    Hello,
    Opcode,
    ProtocolError,
    Reply,
    Request,
    Status,
    Text,
    decode_reply,
    request_frame,
)
from hilcl.errors import BoardError, InputError
from hilcl.link_watcher import LinkWatcher

R = TypeVar("R", bound=Reply)

SLICE = 0.02
"""Longest wait in one read, seconds; deadlines are kept to within it."""

REOPENING = 0.1
"""Seconds between two attempts to open a port again."""

BAUD_TRIAL = 2.5
"""Seconds after which a board that is not heard at a new baud rate is back at the first one; it allows 2 s."""

LONGEST_REPLY = 4096
"""Decoded bytes of a reply; bounds what garbage can make the host keep."""


@dataclass(frozen=True)
class PotBoardOptions:
    """How the line is used.

    ``baud`` bits a second, also for the waits where the line itself has none (USB, sockets); ``fast_baud`` is asked for
    after the greeting, None for never, and a board or a cable that cannot leaves it at ``baud``; ``turnaround`` seconds
    added to every wait; ``tries`` of one frame; ``boot_time`` seconds a board may take to start, as many do when
    their port is opened; ``watchdog`` seconds of silence after which the board makes itself safe, None for never;
    ``heartbeat``: a thread keeps the watchdog quiet while this process lives; ``settling`` seconds after each write;
    ``watcher`` is told of every message; ``slack`` seconds are waited on top unless it knows that nothing will come.
    """

    baud: int = 115_200
    turnaround: float = 0.02
    tries: int = 3
    boot_time: float = 3.0
    watchdog: float | None = 2.0
    heartbeat: bool = True
    settling: float = 0.0
    watcher: LinkWatcher | None = None
    slack: float = 0.0
    fast_baud: int | None = None

    def __post_init__(self) -> None:
        if self.baud < 1 or self.tries < 1 or (self.fast_baud is not None and self.fast_baud < 1):
            raise InputError("the pot board needs a positive baud rate and at least one try")
        for name, value, high in (
            ("turnaround", self.turnaround, 60.0),
            ("boot_time", self.boot_time, 60.0),
            ("settling", self.settling, 60.0),
        ):
            if not 0 <= value <= high:
                raise InputError(f"the {name} of the pot board must lie between 0 and {high:g} s, but it is {value}")
        if self.watchdog is not None and not 0.1 <= self.watchdog <= 60:
            raise InputError(
                f"the watchdog of the pot board must lie between 0.1 and 60 s, or be None, but it is {self.watchdog}"
            )


class Silence(BoardError):  # noqa: N818 - what happened, not that it is an error
    """No valid answer came within the time allowed, however often the frame was sent."""


class Broken(BoardError):  # noqa: N818
    """The port itself is gone: unplugged, or reset."""


class Refused(BoardError):  # noqa: N818
    """The board answered with a status that is not OK; ``detail`` as in the protocol."""

    def __init__(self, sentence: str, status: Status, detail: int) -> None:
        super().__init__(sentence)
        self.status, self.detail = status, detail


_MEANINGS = {
    Status.LENGTH: "it had another length than the board expects: the firmware does not keep to the protocol",
    Status.RANGE: "a number is beyond what the board has: check the experiment file against the board",
    Status.OPCODE: "the board does not know it: update its firmware",
    Status.STAGE_CRC: "the staged codes were damaged on the way: check the cable",
    Status.VERIFY: "a chip holds another code than was written: check its supply, wiring and chip select",
    Status.BUS: "a chip does not answer on its bus: check its supply, wiring and address",
    Status.BUSY: "the board is busy: check that no other program uses it",
    Status.SAFE: "the board is latched in its safe state: find out why, then open it again",
    Status.VERSION: "the board speaks another version of the protocol: update its firmware or hilcl",
    Status.OVERFLOW: "the board could not take the bytes as fast as they came: lower the baud rate",
    Status.GREETING: "the board has restarted: check its supply",
}


class PotBoardLink:
    """One open port. Not for several threads at once.

    Raises InputError where the port cannot be opened.
    """

    def __init__(self, name: str, port: str, options: PotBoardOptions) -> None:
        self.name, self.port, self.options = name, port, options
        self.label = f"{name} ({port})"
        self.frame_limit = 250
        self.retries = 0
        self._seq = 0
        self._decoder = FrameDecoder(LONGEST_REPLY)
        self._heard_bytes = self._all_heard = 0
        self.baud = options.baud
        """Bits a second at present."""
        self._patience = math.inf if options.watchdog is None else options.watchdog / (2 * options.tries)
        try:
            self._serial = self._open_port()
        except (serial.SerialException, OSError, ValueError) as cause:
            raise InputError(
                f"{self.label} cannot be opened ({_reason(cause)}): check the port's name, that the board is plugged "
                "in, and that no other program uses it"
            ) from cause

    def _open_port(self) -> serial.Serial:
        opened = serial.serial_for_url(self.port, baudrate=self.baud, timeout=SLICE, write_timeout=1.0, exclusive=True)
        self._all_heard = 0
        if self.options.watcher is not None:
            self.options.watcher.opened(0)
        return opened

    def reopen(self, patience: float) -> None:
        """Open the port again, for up to ``patience`` seconds: a USB device is away for a while after a reset.

        Raises Broken where it does not come back.
        """
        end = time.monotonic() + patience
        self.close()
        self._decoder.reset()
        self.baud = self.options.baud
        while True:
            try:
                self._serial = self._open_port()
            except (serial.SerialException, OSError, ValueError) as cause:
                if time.monotonic() > end:
                    raise self._lost(cause) from cause
                time.sleep(REOPENING)
            else:
                return

    def fits(self, request: Request, reply_bytes: int = 0) -> bool:
        """Return whether a request, and a reply with a payload of that many bytes, fit the board's frames."""
        return max(len(request.encode()), reply_bytes) + 4 <= self.frame_limit

    def greet(self, patience: float = 0.0) -> Greeting:
        """Resynchronise: end whatever was begun on either side, and return what the board is.

        ``patience`` seconds are allowed on top for a board that is starting. The board may have been left at either
        baud rate, or have fallen back to the first one.
        """
        end = time.monotonic() + patience
        greeting = None
        while greeting is None:
            rates = self._rates()
            for rate in rates:
                self._set_baud(rate)
                self._put(b"\0\0")
                try:
                    greeting = self._exchange(request_frame(Hello(MAJOR, MINOR), 0), 0.0)
                except Silence:
                    if rate == rates[-1] and time.monotonic() >= end:
                        raise
                else:
                    break
        if not isinstance(greeting, Greeting):
            raise self._nonsense("HELLO")
        if greeting.major != MAJOR:
            raise Refused(
                f"{self.label} speaks version {greeting.major}.{greeting.minor} of the protocol and hilcl speaks "
                f"{MAJOR}.{MINOR}: update the board's firmware or hilcl",
                Status.VERSION,
                greeting.major << 8 | greeting.minor,
            )
        self.frame_limit = greeting.frame_limit
        return greeting

    def ask(self, request: Request, expected: type[R], seconds: float = 0.0) -> R:
        """Send a request and return its reply; ``seconds`` is what the board's work takes.

        The same SEQ is sent again after a time-out, so the board carries the request out once at most.
        Raises Silence, or Refused for a status that is not OK.
        """
        self._seq = self._seq % 255 + 1
        reply = self._exchange(request_frame(request, self._seq), seconds)
        if not isinstance(reply, expected):
            raise self._nonsense(request.opcode.name)
        return reply

    def speed_up(self) -> bool:
        """Go over to the fast baud rate, if there is one. Return False if the board stays at the first one.

        Where that was found out by trying, the board may have left its outputs and its watchdog off.
        Raises Silence if the board is not heard at either rate any more.
        """
        wanted, first = self.options.fast_baud, self.options.baud
        if wanted is None or wanted == self.baud:
            return True
        if not self.ask(Text("SYST:BAUD?"), Answer).text:
            self.ask(Text("SYST:ERR?"), Answer)  # it does not know the question; its error is not the user's
            return False
        try:
            with contextlib.suppress(Silence):  # its answer may be lost after it has switched
                self.ask(Text(f"SYST:BAUD {wanted}"), Answer)
            self._set_baud(wanted)
            if self.ask(Text("SYST:BAUD?"), Answer).text == str(wanted):
                return True
        except Silence:
            # It may hear and not be heard. EXIT brings it back; if it hears nothing either, it comes back by itself.
            leaving = request_frame(Exit(), 255)
            self._put(leaving.encode())
            with contextlib.suppress(Refused):
                self._answer(leaving, 10 * SLICE, 0.0)
        self._set_baud(first)
        end = time.monotonic() + BAUD_TRIAL
        while True:
            try:
                self._exchange(request_frame(Hello(MAJOR, MINOR), 0), 0.0)
                break
            except Silence:
                if time.monotonic() >= end:
                    raise
        while self.ask(Text("SYST:ERR?"), Answer).text.startswith("-222"):
            pass
        return False

    def leave(self) -> None:
        """Tell the board that the host goes, and close the port."""
        try:
            self.ask(Exit(), Done)
        finally:
            self.close()

    def close(self) -> None:
        """Close the port; may be called twice."""
        # pySerial leaves a socket open whose other end has gone: its shutdown fails before the close is reached.
        left_open = getattr(self._serial, "_socket", None)
        self._serial.close()
        if left_open is not None:
            left_open.close()

    def _rates(self) -> list[int]:
        """Return the rates at which the board may be, the present one first."""
        fast = self.options.fast_baud
        known = [self.baud, self.options.baud, *([] if fast is None else [fast])]
        return list(dict.fromkeys(known))

    def _set_baud(self, rate: int) -> None:
        if rate == self.baud:
            return
        try:
            self._serial.baudrate = rate
        except (serial.SerialException, OSError, ValueError) as cause:
            raise self._lost(cause) from cause
        self.baud = rate
        self._decoder.reset()

    def _exchange(self, frame: Frame, seconds: float) -> Reply:
        data = frame.encode()
        self._heard_bytes = 0
        # The reply's length is not always known beforehand, so room is made for the longest.
        wire = 10 * (len(data) + longest_encoded(self.frame_limit) + 2) / self.baud
        work, turnaround, slack = 2 * wire + seconds, self.options.turnaround, self.options.slack
        # A board that has not heard the frame must hear it again before its watchdog takes the silence for the end.
        soon = min(turnaround, self._patience)
        for attempt in range(self.options.tries):
            last = attempt + 1 == self.options.tries
            self.retries += attempt > 0
            self._put(data)
            if last:
                reply = self._answer(frame, work + turnaround, slack)
            else:
                reply = self._answer(frame, work + soon, min(slack, self._patience - soon))
            if reply is not None:
                if self.options.watcher is not None:
                    self.options.watcher.received(self._heard_bytes)
                return reply
        heard = (
            "nothing came back: check that it is powered and that the port is the right one"
            if self._heard_bytes == 0
            else "only garbage came back: check the baud rate and the cable"
        )
        name = Opcode(frame.kind).name
        raise Silence(
            f"{self.label} did not answer {name} in {self.options.tries} tries of up to {work + turnaround:.3g} s; "
            f"{heard}"
        )

    def _answer(self, request: Frame, seconds: float, slack: float) -> Reply | None:
        """Return the reply to ``request``, None if none came in time or the board said that it lost the frame."""
        deadline, watcher = time.monotonic() + seconds + slack, self.options.watcher
        while time.monotonic() < deadline:
            data = self._get()
            if not data and watcher is not None and watcher.silent(self._all_heard, seconds):
                return None
            for frame in self._decoder.feed(data):
                if frame.kind == Opcode.NOTICE | REPLY:
                    return None
                if (frame.kind, frame.seq) != (request.kind | REPLY, request.seq):
                    continue
                try:
                    reply = decode_reply(frame)
                except ProtocolError as cause:
                    raise self._nonsense(Opcode(request.kind).name) from cause
                if isinstance(reply, Reply):
                    return reply
                raise self._refused(request, reply.status, reply.detail)
        return None

    def _refused(self, request: Frame, status: Status, detail: int) -> Refused:
        about = "" if detail == NOTHING or status in {Status.SAFE, Status.VERSION} else f" at pot or channel {detail}"
        sentence = f"{self.label} refused {Opcode(request.kind).name}{about}: {_MEANINGS[status]}"
        return Refused(sentence, status, detail)

    def _nonsense(self, name: str) -> BoardError:
        return BoardError(
            f"{self.label} answered {name} with a message of another kind: its firmware does not keep to the protocol"
        )

    def _put(self, data: bytes) -> None:
        if self.options.watcher is not None:
            self.options.watcher.sent(len(data))
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError) as cause:
            raise self._lost(cause) from cause

    def _get(self) -> bytes:
        """Return what has come, waiting a short while for the first byte."""
        try:
            data = self._serial.read(1)
            if data:
                data += self._serial.read(min(self._serial.in_waiting, LONGEST_REPLY))
        except (serial.SerialException, OSError, TypeError) as cause:
            # A port closed under a reading thread ends pySerial in a TypeError.
            raise self._lost(cause) from cause
        self._heard_bytes += len(data)
        self._all_heard += len(data)
        return bytes(data)

    def _lost(self, cause: Exception) -> Broken:
        return Broken(
            f"the connection to {self.label} broke ({_reason(cause)}): check the cable and the board's supply, and "
            "open it again"
        )


def _reason(cause: Exception) -> str:
    # pySerial puts sentences of its own where the system's message belongs.
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def microseconds(seconds: float) -> int:
    """Return whole microseconds, rounded up, as the protocol counts settling."""
    return math.ceil(seconds * 1e6 - 1e-6)
