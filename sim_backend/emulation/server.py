"""Emulated instruments behind TCP sockets on loopback: one thread and one event loop per instrument.

A real instrument does one thing at a time and several instruments work in parallel, and so do these. Nothing a client
sends can grow memory without bound: lines, pending work, unread replies and connections are all limited.
"""

import asyncio
import logging
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from hilcl.errors import BoardError
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.scpi import ScpiError

LOOPBACK = "127.0.0.1"

MAX_LINE = 1 << 20
"""Bytes in one line; a longer one is thrown away whole, with −363 in the error queue."""

MAX_CLIENTS = 16
"""Connections to one instrument; further ones are closed at once."""

MAX_BACKLOG = 1 << 20
"""Bytes of lines read but not yet carried out; above it the socket is not read."""

LINES_AT_ONCE = 16
"""Lines of one client carried out before the others get their turn."""

AtRest = Callable[[int, int, int], None]
"""Told the port number of a client and the bytes taken from and given to it, when all that was taken is done with."""

REPLY_LIMIT = 1 << 16
"""Bytes of replies a client has not taken; above it none of its lines is carried out."""

QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """A reply on its way: its bytes, after how many seconds of real time they leave, and whether the line then breaks.

    ``hang_up`` resets the connection, as a cable pulled out does.
    """

    data: bytes
    after: float = 0.0
    hang_up: bool = False


class Line(Protocol):
    """What a fault can do to the connections of one instrument; called in the thread that serves it."""

    def refuse(self, seconds: float) -> None:
        """Break all connections, and let nobody connect for a while."""
        ...


class Faults(Protocol):
    """What may go wrong between the wire and the instrument; the default is nothing."""

    def received(self, line: str) -> str | None:
        """Return the line as the instrument gets it, None where it is lost."""
        ...

    def replied(self, reply: bytes) -> Delivery | None:
        """Return what leaves for the client, terminator included, None where the reply is lost."""
        ...


@runtime_checkable
class LineFaults(Protocol):
    """Faults that also need to break connections."""

    def attach(self, line: Line) -> None:
        """Take what breaks them, before anything is served."""
        ...


class NoFaults:
    """A perfect wire."""

    def received(self, line: str) -> str | None:
        """Return the line unchanged."""
        return line

    def replied(self, reply: bytes) -> Delivery | None:
        """Return the reply, now."""
        return Delivery(reply)


class LineBuffer:
    """Bytes into lines, sans I/O: bounded, and in step again after a line that was too long."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines completed by ``data``, None for each that was too long."""
        lines: list[bytes | None] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data[start:end])
            lines.append(None if self._dropping else bytes(self._partial).rstrip(b"\r"))
            self._partial.clear()
            self._dropping = False
            start = end + 1
        self._keep(data[start:])
        return lines

    def _keep(self, data: bytes) -> None:
        if self._dropping:
            return
        if len(self._partial) + len(data) > self._limit:
            self._partial.clear()
            self._dropping = True
        else:
            self._partial += data


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, host: "_Host") -> None:
        self._host = host
        self._lines = LineBuffer()
        self._pending: deque[bytes | None] = deque()
        self._pending_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._scheduled: asyncio.Handle | None = None
        self._held = False
        self._reading = True
        self._socket: Any = None
        self._port = self._taken = self._given = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport) or not self._host.admit(self):
            transport.close()
            return
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._port = transport.get_extra_info("peername")[1]
        # Nagle's algorithm and delayed acknowledgement together cost 40 ms a round trip: no Nagle on this side, ...
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=REPLY_LIMIT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pending.clear()
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._transport = None
        self._host.forget(self)

    def data_received(self, data: bytes) -> None:
        if QUICK_ACK is not None:
            # ... and no delay for clients that have Nagle on theirs. Linux wants this said again after each segment.
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        self._taken += len(data)
        for line in self._lines.feed(data):
            self._pending.append(line)
            self._pending_bytes += _weight(line)
        if not self._held and self._scheduled is None:
            self._work()
        self._balance()

    def pause_writing(self) -> None:
        self._held = True

    def resume_writing(self) -> None:
        self._held = False
        self._schedule(0.0)

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Drop the connection so that the other end sees it broken, and nothing sent since the last reply arrives."""
        if self._transport is not None:
            # Without lingering, closing sends a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _schedule(self, after: float) -> None:
        if self._scheduled is None and self._transport is not None:
            self._scheduled = asyncio.get_running_loop().call_later(after, self._resume)

    def _resume(self) -> None:
        self._scheduled = None
        if not self._held:
            self._work()
        self._balance()

    def _work(self) -> None:
        for _ in range(LINES_AT_ONCE):
            if not self._pending or self._held or self._transport is None:
                return
            line = self._pending.popleft()
            self._pending_bytes -= _weight(line)
            delivery = self._host.carry_out(line)
            if delivery is None:
                continue
            if delivery.hang_up:
                self.reset()
                return
            if delivery.after > 0:
                # The instrument answers in order, so what follows waits too.
                data = delivery.data
                self._scheduled = asyncio.get_running_loop().call_later(delivery.after, self._send_late, data)
                return
            self._give(self._transport, delivery.data)
        if self._pending and not self._held:
            self._schedule(0.0)

    def _send_late(self, data: bytes) -> None:
        self._scheduled = None
        if self._transport is not None:
            self._give(self._transport, data)
        self._resume()

    def _give(self, transport: asyncio.Transport, data: bytes) -> None:
        self._given += len(data)
        transport.write(data)

    def _balance(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        wanted = self._pending_bytes < MAX_BACKLOG
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif not wanted and self._reading:
            self._transport.pause_reading()
        self._reading = wanted
        if not self._pending and self._scheduled is None:
            self._host.at_rest(self._port, self._taken, self._given)


def _nobody(port: int, taken: int, given: int) -> None:
    pass


def _weight(line: bytes | None) -> int:
    # An empty line costs memory too.
    return 64 + (len(line) if line is not None else 0)


class _Host:
    """One instrument, its thread, its loop and its listening socket."""

    def __init__(self, name: str, instrument: EmulatedInstrument, port: int, faults: Faults, at_rest: AtRest) -> None:
        self.name, self.at_rest = name, at_rest
        self._instrument = instrument
        self._faults = faults
        self._clients: set[_Client] = set()
        self._listening = _listen(name, port)
        self.port = int(self._listening.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"emulated {name}", daemon=True)
        self._server: asyncio.Server | None = None
        if isinstance(faults, LineFaults):
            faults.attach(self)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Drop all connections and end the thread; may be called twice."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def abandon(self) -> None:
        """Let go of the port without ever having served it."""
        self._loop.close()
        self._listening.close()

    def refuse(self, seconds: float) -> None:
        """Break all connections, and let nobody connect for a while; called in the serving thread."""
        for client in list(self._clients):
            client.reset()
        if self._server is not None:
            self._server.close()
            self._server = None
            self._loop.call_later(seconds, lambda: self._loop.create_task(self._listen_again()))

    async def _listen_again(self) -> None:
        self._listening = _listen(self.name, self.port)
        self._server = await self._loop.create_server(lambda: _Client(self), sock=self._listening, backlog=64)

    def admit(self, client: _Client) -> bool:
        """Return whether there is room for one more client, and count it."""
        if len(self._clients) >= MAX_CLIENTS:
            return False
        self._clients.add(client)
        return True

    def forget(self, client: _Client) -> None:
        """Stop counting a client."""
        self._clients.discard(client)

    def carry_out(self, line: bytes | None) -> Delivery | None:
        """Carry out one line, None for one that was too long."""
        if line is None:
            self._instrument.refuse(ScpiError(-363))
            return None
        text = self._faults.received(line.decode("latin-1"))
        if text is None:
            return None
        try:
            reply = self._instrument.handle(text)
        except Exception:
            # A fault of the emulator itself, or of the circuit behind it, must not end the service.
            log.exception("emulated %s failed at %r", self.name, text[:200])
            self._instrument.refuse(ScpiError(-310))
            return None
        return None if reply is None else self._faults.replied(reply.encode("latin-1", "replace") + b"\n")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._server = self._loop.run_until_complete(
                self._loop.create_server(lambda: _Client(self), sock=self._listening, backlog=64)
            )
            self._ready.set()
            self._loop.run_forever()
            for client in list(self._clients):
                client.close()
            if self._server is not None:
                self._server.close()
                # One more turn, in which the transports close their sockets.
                self._loop.run_until_complete(self._server.wait_closed())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._ready.set()
            asyncio.set_event_loop(None)
            self._loop.close()
            self._listening.close()


def _listen(name: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
    except OSError as cause:
        listening.close()
        raise BoardError(
            f"emulated {name}: cannot listen on {LOOPBACK}:{port} ({cause.strerror}): choose another port, or 0 for any"
        ) from cause
    return listening


class RunningServer:
    """Instruments being served; ``resources`` are their VISA resource strings by name."""

    def __init__(self, hosts: list[_Host]) -> None:
        self._hosts = hosts

    @property
    def resources(self) -> dict[str, str]:
        """VISA resource of each instrument: ``{"smu1": "TCPIP::127.0.0.1::50123::SOCKET"}``."""
        return {host.name: f"TCPIP::{LOOPBACK}::{host.port}::SOCKET" for host in self._hosts}

    @property
    def ports(self) -> dict[str, int]:
        """TCP port of each instrument."""
        return {host.name: host.port for host in self._hosts}

    def close(self) -> None:
        """Close all connections and end all threads; may be called twice."""
        for host in self._hosts:
            host.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(
    instruments: Mapping[str, EmulatedInstrument],
    ports: Mapping[str, int] | None = None,
    faults: Mapping[str, Faults] | None = None,
    at_rest: Mapping[str, AtRest] | None = None,
) -> RunningServer:
    """Serve instruments by name on loopback, each on its own port, and return at once.

    ``ports`` fixes some of them (0 or absent: any free one), ``faults`` lays a faulty wire in front of some,
    ``at_rest`` is told when some have nothing to do.

    Raises BoardError where a port cannot be had; nothing is served then.
    """
    hosts: list[_Host] = []
    try:
        for name, instrument in instruments.items():
            fault = (faults or {}).get(name, NoFaults())
            rest = (at_rest or {}).get(name, _nobody)
            hosts.append(_Host(name, instrument, (ports or {}).get(name, 0), fault, rest))
    except BoardError:
        for host in hosts:
            host.abandon()
        raise
    for host in hosts:
        host.start()
    return RunningServer(hosts)
