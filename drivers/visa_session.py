"""One open VISA resource: lines out, lines in, every wait bounded, the end of the stream noticed."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from hilcl.errors import BoardError, InputError
from hilcl.link_watcher import LinkWatcher

if TYPE_CHECKING:
    from pyvisa.resources import MessageBasedResource

T = TypeVar("T")

LONGEST_ANSWER = 1 << 20
"""Bytes after which an answer without an end of line is taken for garbage."""
_PIECE = 2048
_SLICE = 0.005
"""Seconds between two questions to a watcher."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two attempts to connect again, doubled from one to the next."""

Fault = Literal["absent", "silent", "closed", "garbage"]


class LinkError(BoardError):
    """The link failed, which says nothing of the instrument's state; the session is poisoned and must be replaced.

    ``fault``: "absent" nobody there, "silent" no answer in time, "closed" the other end hung up, "garbage" out of step.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class LinkOptions:
    """How to reach an instrument.

    ``backend`` is PyVISA's: "@py" (pyvisa-py), "@ivi" or the path of an installed VISA library. ``timeout`` is in
    seconds, for one answer on top of the time the instrument is known to need. ``retries`` bounds how often a step is
    done again after a link failure, ``reconnecting`` for how many seconds an instrument that was there and is gone is
    looked for, three time-outs if None. ``baud_rate`` counts on serial ports only. ``watcher`` is told of every
    message. ``slack`` seconds are waited on top of every time-out, unless the watcher knows that nothing will come.
    """

    backend: str = "@py"
    timeout: float = 3.0
    open_timeout: float = 3.0
    retries: int = 2
    reconnecting: float | None = None
    read_termination: str = "\n"
    write_termination: str = "\n"
    baud_rate: int = 9600
    watcher: LinkWatcher | None = None
    slack: float = 0.0

    @property
    def patience(self) -> float:
        """Seconds for which an instrument that is gone is looked for."""
        return 3 * (self.timeout + self.slack) if self.reconnecting is None else self.reconnecting

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and self.open_timeout > 0):
            raise InputError("the time-outs of a link must be positive, in seconds")
        if self.retries < 0:
            raise InputError("the retries of a link cannot be fewer than 0")
        if self.reconnecting is not None and not self.reconnecting >= 0:
            raise InputError("the time for connecting again cannot be negative")
        if not (self.read_termination and self.write_termination):
            raise InputError('the terminations of a link cannot be empty: most instruments end lines with "\\n"')


def patiently(work: Callable[[], T], seconds: float) -> T:
    """Do ``work``, again for up to ``seconds`` while nobody is there: cables and restarts take their time.

    Raises what ``work`` raised last; every other failure at once.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        try:
            return work()
        except LinkError as error:
            if error.fault != "absent" or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


class VisaSession:
    """A VISA session that is used by one thread only.

    After any failure it is poisoned: an answer that comes late would be taken for the next one's, so every further
    use is refused and a new session must be opened.
    """

    def __init__(self, name: str, resource: str, options: LinkOptions) -> None:
        self.name, self.resource, self.options = name, resource, options
        self._poisoned = False
        self._visa = _open_resource(name, resource, options)
        self._socket: socket.socket | None = None
        self._heard = 0
        with self._closed_on_failure():
            for found in _sockets(self._visa):
                _set_no_delay(found)
            self._socket = _raw_socket(self._visa)
            if self._socket is None:
                # Half a line may wait in the instrument since the last session; raw sockets start empty.
                self._clear()
            else:
                self._socket.settimeout(options.timeout + options.slack)
                self._check_connected(self._socket)
                if options.watcher is not None:
                    options.watcher.opened(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def query(self, message: str, timeout: float | None = None) -> str:
        """Send a line and return the line that answers it, without its end; ``timeout`` in seconds.

        Raises LinkError, after which the session is poisoned.
        """
        seconds = self.options.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds + self.options.slack
        self.write(message)
        try:
            return self._read_line(message, seconds, deadline)
        except LinkError:
            self._poisoned = True
            raise

    def write(self, message: str) -> None:
        """Send a line.

        Raises LinkError, after which the session is poisoned.
        """
        if self._poisoned:
            raise self._fault("closed", message, "is not in step any more: open a new session")
        data = (message + self.options.write_termination).encode("ascii")
        try:
            if self._socket is not None:
                self._check_quiet(self._socket, message)
            if self.options.watcher is not None:
                self.options.watcher.sent(len(data))
            for start in range(0, len(data), _PIECE):
                self._write_piece(message, data[start : start + _PIECE])
        except LinkError:
            self._poisoned = True
            raise

    def close(self) -> None:
        """Close the session; may be called twice."""
        self._poisoned = True
        with contextlib.suppress(Exception):  # a dead link may not even be able to close
            self._visa.close()

    def _write_piece(self, message: str, piece: bytes) -> None:
        if self._socket is not None:
            ready = select.select([], [self._socket], [], self.options.timeout + self.options.slack)[1]
            if not ready:
                raise self._fault("silent", message, f"took nothing for {self.options.timeout:g} s")
        try:
            self._visa.write_raw(piece)
        except Exception as cause:  # back ends raise OSError, VisaIOError and bare Exception here
            raise self._translated(message, cause) from cause

    def _read_line(self, message: str, seconds: float, deadline: float) -> str:
        if self._socket is not None:
            data = self._read_socket(self._socket, message, seconds, deadline)
        else:
            data = self._read_visa(message, deadline)
        if self.options.watcher is not None:
            self.options.watcher.received(len(data))
        return data.decode("ascii", errors="backslashreplace").strip()

    def _read_socket(self, link: socket.socket, message: str, seconds: float, deadline: float) -> bytes:
        """Read one line; peek first, so that the back end never waits on a stream that has ended."""
        end = self.options.read_termination.encode("ascii")
        received = bytearray()
        while True:
            if not self._comes(link, seconds, deadline):
                raise self._fault("silent", message, _silence(received))
            try:
                waiting = link.recv(65536, socket.MSG_PEEK)
            except OSError as cause:
                raise self._translated(message, cause) from cause
            if not waiting:
                raise self._fault("closed", message, "closed the connection before it answered")
            # Look for the end across the seam of two packets.
            tail = bytes(received[-(len(end) - 1) :]) if len(end) > 1 else b""
            position = (tail + waiting).find(end)
            count = len(waiting) if position < 0 else position - len(tail) + len(end)
            received += self._take(message, count)
            if position >= 0:
                return bytes(received)
            if len(received) > LONGEST_ANSWER:
                raise self._fault("garbage", message, f"sent {len(received)} bytes without an end of line")

    def _comes(self, link: socket.socket, seconds: float, deadline: float) -> bool:
        """Wait for more, and return whether there is."""
        watcher = self.options.watcher
        while (remaining := deadline - time.monotonic()) > 0:
            if select.select([link], [], [], remaining if watcher is None else min(remaining, _SLICE))[0]:
                return True
            if watcher is not None and watcher.silent(self._heard, seconds):
                return False
        return False

    def _take(self, message: str, count: int) -> bytes:
        from pyvisa.constants import StatusCode

        taken = b""
        try:
            # Asking for just the bytes that wait makes the back end return at once; it warns of having got them all.
            with self._visa.ignore_warning(StatusCode.success_max_count_read):
                while len(taken) < count:
                    taken += self._visa.visalib.read(self._visa.session, count - len(taken))[0]
        except Exception as cause:
            raise self._translated(message, cause) from cause
        self._heard += len(taken)
        return taken

    def _read_visa(self, message: str, deadline: float) -> bytes:
        self._visa.timeout = max(1, round((deadline - time.monotonic()) * 1000))
        try:
            return self._visa.read_raw()
        except Exception as cause:
            raise self._translated(message, cause) from cause

    def _check_connected(self, link: socket.socket) -> None:
        """Raise if nobody listens: pyvisa-py opens such a port without complaint."""
        code = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise self._absent(OSError(code, "connection refused"))

    def _check_quiet(self, link: socket.socket, message: str) -> None:
        """Raise if the other end hung up, or if an answer waits that nobody asked for."""
        if not select.select([link], [], [], 0)[0]:
            return
        try:
            waiting = link.recv(80, socket.MSG_PEEK)
        except OSError as cause:
            raise self._translated(message, cause) from cause
        if not waiting:
            raise self._fault("closed", message, "had closed the connection")
        raise self._fault("garbage", message, f"had sent {waiting[:40]!r} unasked, so answers are out of step")

    def _clear(self) -> None:
        with contextlib.suppress(Exception):  # not every interface can, and *IDN? is checked next
            self._visa.clear()

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _absent(self, cause: Exception) -> LinkError:
        return LinkError(
            f"{self.name}: nothing answers at {self.resource} ({_reason(cause)}): check that the instrument is on and "
            "connected and that the resource in the file is its own",
            "absent",
        )

    def _translated(self, message: str, cause: Exception) -> LinkError:
        if isinstance(cause, ConnectionRefusedError):
            return self._absent(cause)
        if _is_timeout(cause):
            return self._fault("silent", message, "gave no answer in time")
        if isinstance(cause, OSError) and cause.errno is not None and not hasattr(cause, "error_code"):
            return self._fault("closed", message, f"broke the connection ({_reason(cause)})")
        return self._fault("closed", message, f"cannot be reached ({_reason(cause)})")

    def _fault(self, fault: Fault, message: str, what: str) -> LinkError:
        shown = message if len(message) <= 120 else f"{message[:117]}..."
        return LinkError(
            f"{self.name} ({self.resource}) {what} (command {shown!r}): check its power, its cable and that no other "
            "program uses it",
            fault,
        )


def _open_resource(name: str, resource: str, options: LinkOptions) -> "MessageBasedResource":
    import pyvisa
    from pyvisa.resources import MessageBasedResource

    try:
        manager = pyvisa.ResourceManager(options.backend)
    except (OSError, ValueError) as cause:
        raise InputError(
            f"{name}: the VISA back end {options.backend!r} cannot be used ({_reason(cause)}): install it, or use '@py'"
        ) from cause
    settings: dict[str, Any] = {
        "read_termination": options.read_termination,
        "write_termination": options.write_termination,
        "timeout": round((options.timeout + options.slack) * 1000),
    }
    if resource.upper().startswith("ASRL"):
        settings["baud_rate"] = options.baud_rate
    try:
        opened = manager.open_resource(
            resource, open_timeout=round((options.open_timeout + options.slack) * 1000), **settings
        )
    except pyvisa.errors.InvalidSession as cause:  # the manager was closed by someone else in this process
        raise LinkError(f"{name}: the VISA resource manager was closed: start again", "absent") from cause
    except pyvisa.VisaIOError as cause:
        if cause.error_code == pyvisa.constants.StatusCode.error_invalid_resource_name:
            raise _bad_resource(name, resource) from cause
        raise _not_opened(name, resource, cause) from cause
    except pyvisa.rname.InvalidResourceName as cause:
        raise _bad_resource(name, resource) from cause
    except Exception as cause:  # pyvisa-py raises a bare Exception when it cannot connect
        raise _not_opened(name, resource, cause) from cause
    if not isinstance(opened, MessageBasedResource):
        opened.close()
        raise _bad_resource(name, resource)
    return opened


def _bad_resource(name: str, resource: str) -> InputError:
    return InputError(
        f"{name}: {resource!r} is no VISA resource of an instrument: write it like 'TCPIP::192.168.0.5::5025::SOCKET', "
        "'GPIB::24::INSTR' or 'USB0::0x05E6::0x2450::04312345::INSTR'; 'hilcl devices' lists what is there"
    )


def _not_opened(name: str, resource: str, cause: Exception) -> LinkError:
    return LinkError(
        f"{name}: {resource} cannot be opened ({_reason(cause)}): check that the instrument is on and connected, and "
        "that "
        "the resource in the file is its own",
        "absent",
    )


def _sockets(visa: "MessageBasedResource") -> list[socket.socket]:
    """Return the sockets a pyvisa-py session keeps, whatever its kind; none for other back ends."""
    interface = _interface(visa)
    if isinstance(interface, socket.socket):
        return [interface]
    inner = vars(interface).values() if hasattr(interface, "__dict__") else ()
    return [value for value in inner if isinstance(value, socket.socket)]


def _raw_socket(visa: "MessageBasedResource") -> socket.socket | None:
    """Return the socket whose bytes are the instrument's lines, None where a protocol or another library is between."""
    interface = _interface(visa)
    return interface if isinstance(interface, socket.socket) else None


def _interface(visa: "MessageBasedResource") -> object:
    sessions = getattr(visa.visalib, "sessions", None)
    if not isinstance(sessions, dict):
        return None
    return getattr(sessions.get(visa.session), "interface", None)


def _set_no_delay(link: socket.socket) -> None:
    """Send small messages at once: waiting to fill packets costs 40 ms a round."""
    if link.family in {socket.AF_INET, socket.AF_INET6} and link.type == socket.SOCK_STREAM:
        with contextlib.suppress(OSError):  # on a refused connection; that is found out next
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _is_timeout(cause: Exception) -> bool:
    if isinstance(cause, TimeoutError):
        return True
    import pyvisa

    return isinstance(cause, pyvisa.VisaIOError) and cause.error_code == pyvisa.constants.StatusCode.error_timeout


def _silence(received: bytes | bytearray) -> str:
    if received:
        return f"stopped in the middle of its answer, after {bytes(received[-40:])!r}"
    return "gave no answer in time"


def _reason(cause: Exception) -> str:
    lines = (str(getattr(cause, "strerror", None) or cause) or type(cause).__name__).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__
