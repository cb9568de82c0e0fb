import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.errors import BoardError
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.scpi import ScpiError
from hilcl.sim_backend.emulation.server import (
    MAX_CLIENTS,
    MAX_LINE,
    Delivery,
    LineBuffer,
    RunningServer,
    serve,
)
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from tests.sim_backend.emulation.bench import ManualClock, Node


class Echo:
    """An instrument that answers questions with themselves."""

    identity = "echo"
    outputs_on = ()

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors: list[int] = []

    def handle(self, line: str) -> str | None:
        self.lines.append(line)
        if line == "boom":
            raise RuntimeError(line)
        if line.startswith("big"):
            return "x" * (1 << 20)
        return line if line.endswith("?") else None

    def refuse(self, error: ScpiError) -> None:
        self.errors.append(error.code)


class Client:
    """A plain TCP client."""

    def __init__(self, running: RunningServer, name: str = "echo") -> None:
        self.socket = socket.create_connection(("127.0.0.1", running.ports[name]), timeout=20)
        self.reader = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes) -> bytes:
        self.send(data + b"\n")
        return self.reader.readline().rstrip(b"\n")

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def running(echo: Echo) -> Iterator[RunningServer]:
    with serve({"echo": echo}) as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[Client]:
    made = Client(running)
    yield made
    made.close()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_lines_do_not_depend_on_how_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = LineBuffer(50).feed(data)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    buffer = LineBuffer(50)
    assert [line for start, stop in pairwise(places) for line in buffer.feed(data[start:stop])] == whole
    assert len(whole) == data.count(b"\n")


def test_a_long_line_is_dropped_and_the_next_is_not() -> None:
    buffer = LineBuffer(4)
    assert buffer.feed(b"12345\nabc\r\n1234\n\n") == [None, b"abc", b"1234", b""]


def test_instruments_follow_the_protocol() -> None:
    assert isinstance(Smu2400(Node(), ManualClock()), EmulatedInstrument)
    assert isinstance(Smu2600B((Node(), Node()), ManualClock()), EmulatedInstrument)


def test_resources_are_visa_resources(running: RunningServer) -> None:
    assert running.resources == {"echo": f"TCPIP::127.0.0.1::{running.ports['echo']}::SOCKET"}


def test_questions_are_answered_and_commands_are_not(client: Client, echo: Echo) -> None:
    client.send(b"one\r\ntwo\n")
    assert client.ask(b"three?") == b"three?"
    assert echo.lines == ["one", "two", "three?"]


def test_the_socket_has_no_nagle_on_the_server_side(running: RunningServer, client: Client) -> None:
    assert client.ask(b"a?") == b"a?"
    (host,) = running._hosts
    (peer,) = host._clients
    assert peer._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_several_clients_share_one_instrument(running: RunningServer, echo: Echo) -> None:
    clients = [Client(running) for _ in range(5)]
    for index, client in enumerate(clients):
        assert client.ask(b"%d?" % index) == b"%d?" % index
    assert len(echo.lines) == 5
    for client in clients:
        client.close()


def test_instruments_have_threads_of_their_own() -> None:
    gate = threading.Event()

    class Slow(Echo):
        def handle(self, line: str) -> str | None:
            gate.wait(20)
            return line

    with serve({"slow": Slow(), "echo": Echo()}) as running:
        slow, quick = Client(running, "slow"), Client(running)
        slow.send(b"wait?\n")
        assert quick.ask(b"quick?") == b"quick?"
        gate.set()
        assert slow.reader.readline() == b"wait?\n"
        slow.close()
        quick.close()


def test_an_endless_line_is_refused_and_the_session_goes_on(client: Client, echo: Echo) -> None:
    chunk = b"x" * 65536
    for _ in range(4 * MAX_LINE // len(chunk)):
        client.send(chunk)
    assert client.ask(b"\nalive?") == b"alive?"
    assert echo.errors == [-363]
    assert echo.lines == ["alive?"]


def test_binary_garbage_is_passed_on_and_answered_with_errors() -> None:
    with serve({"smu": Smu2400(Node(), ManualClock())}) as running:
        client = Client(running, "smu")
        client.send(bytes(range(256)) * 50 + b"\n*CLS\n")
        assert client.ask(b"*IDN?").startswith(b"KEITHLEY")
        client.send(b"\x00\xff\n")
        assert client.ask(b"SYST:ERR?") == b'-101,"Invalid character"'
        client.close()


def test_connections_are_bounded(running: RunningServer) -> None:
    kept = [Client(running) for _ in range(MAX_CLIENTS)]
    for client in kept:
        assert client.ask(b"in?") == b"in?"
    for _ in range(2000):
        with socket.create_connection(("127.0.0.1", running.ports["echo"]), timeout=20) as refused:
            assert refused.recv(1) == b""
    assert kept[0].ask(b"still?") == b"still?"
    kept.pop().close()
    while True:
        late = Client(running)
        try:
            if late.ask(b"now?") == b"now?":
                break
        except ConnectionResetError:
            continue
        finally:
            late.close()
    for client in kept:
        client.close()


def test_a_peer_that_never_reads_is_not_served_further(running: RunningServer, echo: Echo) -> None:
    greedy, other = Client(running), Client(running)
    greedy.send(b"big?\n" * 2000)
    for index in range(50):
        assert other.ask(b"%d?" % index) == b"%d?" % index
    # Two gigabytes were asked for: no more than the socket buffers and one reply were made.
    assert echo.lines.count("big?") < 50
    greedy.close()
    assert other.ask(b"alive?") == b"alive?"
    other.close()


def test_a_flood_of_lines_does_not_shut_out_others(running: RunningServer, echo: Echo) -> None:
    flood, other = Client(running), Client(running)
    flood.send(b"x\n" * 200_000)
    assert other.ask(b"turn?") == b"turn?"
    assert flood.ask(b"done?") == b"done?"
    assert echo.lines.count("x") == 200_000
    flood.close()
    other.close()


def test_a_failure_of_the_emulator_is_an_error_of_the_instrument(
    client: Client, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    client.send(b"boom\n")
    assert client.ask(b"alive?") == b"alive?"
    assert echo.errors == [-310]
    assert "emulated echo failed at 'boom'" in caplog.text


class FaultyWire:
    """Loses some lines and replies, garbles and delays others."""

    def received(self, line: str) -> str | None:
        return None if line == "lost?" else line.replace("garble", "garbage")

    def replied(self, reply: bytes) -> Delivery | None:
        if reply == b"mute?\n":
            return None
        return Delivery(reply, 0.001 if reply == b"late?\n" else 0.0)


def test_faults_lie_between_wire_and_instrument() -> None:
    echo = Echo()
    with serve({"echo": echo}, faults={"echo": FaultyWire()}) as running:
        client = Client(running)
        client.send(b"lost?\nmute?\nlate?\ngarble?\nlast?\n")
        assert [client.reader.readline() for _ in range(3)] == [b"late?\n", b"garbage?\n", b"last?\n"]
        assert echo.lines == ["mute?", "late?", "garbage?", "last?"]
        client.close()


def test_closing_ends_threads_and_frees_ports(echo: Echo) -> None:
    before = set(threading.enumerate())
    running = serve({"one": echo, "two": Echo()})
    client = Client(running, "one")
    assert client.ask(b"a?") == b"a?"
    port = running.ports["one"]
    running.close()
    running.close()
    assert set(threading.enumerate()) == before
    assert client.reader.read() == b""
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)
    with serve({"one": echo}, ports={"one": port}) as again:
        assert again.ports["one"] == port


def test_a_port_in_use_is_told_and_nothing_is_served(running: RunningServer) -> None:
    before = threading.active_count()
    with pytest.raises(BoardError, match=r"emulated b: cannot listen on 127\.0\.0\.1:\d+ .*choose another port"):
        serve({"a": Echo(), "b": Echo()}, ports={"b": running.ports["echo"]})
    assert threading.active_count() == before


def test_the_instruments_keep_their_state_when_clients_go() -> None:
    smu = Smu2400(Node(), ManualClock())
    with serve({"smu": smu}) as running:
        first = Client(running, "smu")
        assert first.ask(b"OUTP ON;:OUTP?") == b"1"
        first.close()
        second = Client(running, "smu")
        assert second.ask(b"OUTP?") == b"1"
        second.close()
    assert smu.outputs_on == (True,)
