"""A scripted instrument on a real TCP socket: what it must hear, byte for byte, and what it then says."""

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PATIENCE = 20.0
"""Seconds after which a script that hears nothing gives up; only a failing test waits that long."""


@dataclass(frozen=True)
class Hear:
    """One line that must come, without its end, and what is sent back: "" for nothing."""

    line: str
    say: str = ""
    then: str = "stay"
    """"hang up" closes the connection after saying it; "mid-line" says it without an end of line and hangs up."""
    before: threading.Event | None = field(default=None, compare=False)
    """Waited for before anything is said; that the other end has gone by then is no failure."""
    heard: threading.Event | None = field(default=None, compare=False)
    """Set when the line has come."""


class Wire:
    """Serves one script per connection, in order; ``check`` raises if anything else, more or less was heard."""

    def __init__(self, *scripts: Sequence[Hear]) -> None:
        self._scripts = scripts
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE)
        self.resource = "TCPIP0::{}::{}::SOCKET".format(*self._server.getsockname())
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._serve, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._thread.join(PATIENCE)
        # shutdown wakes a thread that waits for a connection; close alone does not.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(PATIENCE)
        if error is None:
            self.check()

    def check(self) -> None:
        assert not self._thread.is_alive(), "the scripted instrument still waits"
        assert not self.failures, "\n".join(self.failures)

    def _serve(self) -> None:
        players = []
        for index, script in enumerate(self._scripts):
            try:
                connection, _ = self._server.accept()
            except OSError:
                self.failures.append(f"connection {index} never came: {[step.line for step in script]}")
                break
            players.append(threading.Thread(target=self._play, args=(index, connection, script), daemon=True))
            players[-1].start()
        for player in players:
            player.join(PATIENCE)

    def _play(self, index: int, connection: socket.socket, script: Sequence[Hear]) -> None:
        with connection:
            connection.settimeout(PATIENCE)
            try:
                self._follow(index, connection, script)
            except OSError as error:
                self.failures.append(f"connection {index} broke: {error}")

    def _follow(self, index: int, connection: socket.socket, script: Sequence[Hear]) -> None:
        lines = _Lines(connection)
        for step in script:
            line = lines.next()
            if line != step.line:
                self.failures.append(f"connection {index}: expected {step.line!r}, heard {line!r}")
                return
            if step.heard is not None:
                step.heard.set()
            if step.before is not None and not _say_late(connection, step):
                return
            if step.before is None and step.say:
                connection.sendall(f"{step.say}{'' if step.then == 'mid-line' else chr(10)}".encode())
            if step.then != "stay":
                return
        rest = lines.next()
        if rest is not None:
            self.failures.append(f"connection {index}: expected nothing more, heard {rest!r}")


def _say_late(connection: socket.socket, step: Hear) -> bool:
    """Say it when the time has come, and tell whether the other end was still there."""
    if step.before is not None:
        step.before.wait(PATIENCE)
    try:
        connection.sendall(f"{step.say}\n".encode())
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


class _Lines:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def next(self) -> str | None:
        """Return the next line without its end, None at the end of the stream."""
        while b"\n" not in self._buffer:
            try:
                data = self._connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return self._buffer.decode() if self._buffer else None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()
