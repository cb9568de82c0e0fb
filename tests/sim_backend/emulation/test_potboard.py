"""The emulated pot board: what it does on the wire, without a wire, and on a pseudo-terminal and a socket."""

import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from hilcl.arrays import FloatArray, IntArray
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_framing import Frame, FrameDecoder
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.port import OPEN, Applied, Seen
from hilcl.sim_backend.emulation.potboard import (
    AdcModel,
    EmulatedPotBoard,
    PotFaults,
    PotModel,
    SourceModel,
    SwitchedPort,
)
from hilcl.sim_backend.emulation.potboard_wire import PotBoardServer

T = TypeVar("T")


class Terminal:
    def __init__(self) -> None:
        self.applied: list[Applied] = []

    def apply(self, applied: Applied) -> None:
        self.applied.append(applied)

    def see(self) -> Seen:
        return Seen(1.25, 0.0, limited=False)


class CountingClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds

    def aside(self, work: Callable[[], T]) -> tuple[T, float]:
        before = self.seconds
        result = work()
        seconds, self.seconds = self.seconds - before, before
        return result, seconds


class Bench:
    """A board of two kinds of pots, two ADC channels, a source with and one without a switch, and a free switch."""

    def __init__(self, noise: float = 0.0) -> None:
        self.codes: list[list[int]] = []
        self.volts = np.array([1.25, 2.5])
        self.terminals = (Terminal(), Terminal())
        self.other = Terminal()
        self.switched = SwitchedPort(self.other)
        self.faults = PotFaults()
        self.clock = CountingClock()
        self.board = EmulatedPotBoard(
            [PotModel("AD5206", 2, 255, 128, 20, readback=False), PotModel("AD5272", 1, 1023, 512, 30)],
            self.take,
            adcs=[AdcModel(2, bits=12, span=4.096, conversion=1e-3, noise=noise)],
            read_nodes=self.read,
            sources=[SourceModel(0.0, 5.0, switch=0, series=10.0), SourceModel(-5.0, 5.0)],
            ports=self.terminals,
            switches={1: self.switched},
            clock=self.clock,
            faults=self.faults,
        )
        self.seq = 0
        self.decoder = FrameDecoder(1024)

    def take(self, codes: IntArray) -> None:
        self.codes.append(codes.tolist())

    def read(self) -> FloatArray:
        return self.volts

    def send(self, data: bytes, now: float = 0.0) -> list[Frame]:
        return self.decoder.feed(self.board.feed(data, now))

    def ask(self, request: wire.Request, now: float = 0.0) -> wire.Reply | wire.Refusal:
        self.seq = 0 if isinstance(request, wire.Hello) else self.seq % 255 + 1
        (frame,) = self.send(wire.request_frame(request, self.seq).encode(), now)
        assert frame.seq == self.seq
        return wire.decode_reply(frame)

    def say(self, line: str) -> str:
        return self.board.feed(line.encode() + b"\n", 0.0).decode()


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    assert isinstance(bench.ask(wire.Hello()), wire.Greeting)
    return bench


def test_starts_with_power_on_codes_and_outputs_off() -> None:
    bench = Bench()
    assert bench.codes == [[128, 128, 512]]
    assert bench.board.outputs_on == (False, False, False)
    assert bench.terminals[0].applied == [OPEN]
    assert bench.terminals[1].applied == [Applied("voltage", 0.0)]


def test_says_what_it_is() -> None:
    bench = Bench()
    greeting = bench.ask(wire.Hello())
    assert isinstance(greeting, wire.Greeting)
    assert (greeting.pots, greeting.adcs, greeting.sources, greeting.switches, greeting.boots) == (3, 2, 2, 2, 1)
    assert bench.ask(wire.Describe(wire.Kind.POTS, 1)) == wire.PotsDescription("AD5272", 2, 1, 1023, 512, 30)
    assert bench.ask(wire.Describe(wire.Kind.ADC, 0)) == wire.AdcDescription(0, 2, 12, 0, 4_096_000_000, 1000)
    assert bench.ask(wire.Describe(wire.Kind.SOURCE, 1)) == wire.SourceDescription(
        wire.NO_SWITCH, -5_000_000_000, 5_000_000_000
    )
    assert bench.ask(wire.Describe(wire.Kind.POTS, 2)) == wire.Refusal(wire.Status.RANGE, 2)


def test_wants_a_greeting_of_its_own_version_first() -> None:
    bench = Bench()
    assert bench.ask(wire.Scan(0, 1)) == wire.Refusal(wire.Status.GREETING)
    assert bench.ask(wire.Hello(2, 0)) == wire.Refusal(wire.Status.VERSION, 0x101)
    assert bench.ask(wire.Scan(0, 1)) == wire.Refusal(wire.Status.GREETING)
    bench.ask(wire.Hello())
    assert bench.ask(wire.Scan(0, 1)) == wire.Scanned((1250,))
    bench.board.reset()
    assert bench.ask(wire.Scan(0, 1)) == wire.Refusal(wire.Status.GREETING)


def test_writes_all_or_nothing(bench: Bench) -> None:
    assert bench.ask(wire.Write(0, (1, 2, 1024))) == wire.Refusal(wire.Status.RANGE, 2)
    assert bench.board.writes == 0
    reply = bench.ask(wire.Write(0, (1, 2, 1023), settling=500))
    assert reply == wire.Written(3, wire.Verdict.UNVERIFIABLE, wire.stage_crc([(0, 1), (1, 2), (2, 1023)]))
    assert bench.codes[1:] == [[1, 2, 1023]]
    assert bench.clock.seconds == pytest.approx(500e-6)
    assert bench.ask(wire.Read(0, 3)) == wire.Codes((wire.NOTHING, wire.NOTHING, 1023))
    assert bench.ask(wire.Read(0, 3, shadow=True)) == wire.Codes((1, 2, 1023))
    assert bench.ask(wire.Read(2, 2)) == wire.Refusal(wire.Status.RANGE, 3)


def test_staged_codes_are_written_together(bench: Bench) -> None:
    assert bench.ask(wire.Stage(0, (5,))) == wire.Staged(1)
    assert bench.ask(wire.Stage(2, (900,))) == wire.Staged(2)
    assert bench.codes == [[128, 128, 512]]
    assert bench.ask(wire.Commit(0x1234)) == wire.Refusal(wire.Status.STAGE_CRC)
    assert bench.codes == [[128, 128, 512]]
    crc = wire.stage_crc([(0, 5), (2, 900)])
    bench.ask(wire.Stage(0, (5,)))
    bench.ask(wire.Stage(2, (900,)))
    assert bench.ask(wire.Commit(crc)) == wire.Written(2, wire.Verdict.UNVERIFIABLE, crc)
    assert bench.codes[1:] == [[5, 128, 900]]


@pytest.mark.parametrize("refused", ["latched", "malformed", "another CRC"])
def test_a_refused_commit_forgets_the_stage(bench: Bench, refused: str) -> None:
    bench.ask(wire.Stage(0, (5,)))
    crc = wire.stage_crc([(0, 5)])
    if refused == "latched":
        bench.ask(wire.Safe(wire.SafeAction.LATCH))
        assert bench.ask(wire.Commit(crc)) == wire.Refusal(wire.Status.SAFE, wire.Reason.HOST)
        bench.ask(wire.Safe(wire.SafeAction.CLEAR))
    elif refused == "malformed":
        bench.send(Frame(wire.Opcode.COMMIT, 9, b"\x01").encode())
    else:
        bench.ask(wire.Commit(crc ^ 1))
    assert bench.ask(wire.Stage(2, (900,))) == wire.Staged(1)


def test_a_replayed_request_executes_once(bench: Bench) -> None:
    frame = wire.request_frame(wire.Write(0, (9,)), 7).encode()
    first, again = bench.send(frame), bench.send(frame)
    assert first == again
    assert bench.board.writes == 1
    counters = bench.ask(wire.ReadCounters())
    assert isinstance(counters, wire.Counters)
    assert counters.replays == 1
    bench.send(wire.request_frame(wire.Write(0, (10,)), 7).encode())
    assert bench.board.writes == 2


@pytest.mark.parametrize(("stuck", "dead", "status"), [({2: 700}, set(), "VERIFY"), ({}, {2}, "BUS")])
def test_a_pot_that_fails_leaves_the_board_safe(
    bench: Bench, stuck: dict[int, int], dead: set[int], status: str
) -> None:
    bench.ask(wire.SetSources((wire.Level(0, 10**9),)))
    bench.faults.stuck.update(stuck)
    bench.faults.dead.update(dead)
    assert bench.ask(wire.Write(0, (1, 2, 3))) == wire.Refusal(wire.Status[status], 2)
    assert bench.board.outputs_on == (False, False, False)
    assert bench.codes[-1] == [20, 20, stuck.get(2, 30)]
    assert bench.ask(wire.Write(0, (1,))) == wire.Refusal(wire.Status.SAFE, wire.Reason.FAULT)


def test_scans_what_the_nodes_hold(bench: Bench) -> None:
    bench.volts = np.array([1.0004, -3.0])
    assert bench.ask(wire.Scan(0, 2, averages=4, scatter=True)) == wire.Scanned((4000, 0), (0, 0))
    assert bench.clock.seconds == pytest.approx(8e-3)
    bench.volts = np.array([9.0, 4.095])
    assert bench.ask(wire.Scan(0, 2, averages=16)) == wire.Scanned((65520, 65520))
    assert bench.ask(wire.Scan(0, 2, averages=17)) == wire.Refusal(wire.Status.RANGE, 0)
    assert bench.ask(wire.Scan(1, 2)) == wire.Refusal(wire.Status.RANGE, 2)


def test_squares_are_those_of_the_noise() -> None:
    bench = Bench(noise=10.0)
    bench.ask(wire.Hello())
    reply = bench.ask(wire.Scan(0, 1, averages=5000, width=4, scatter=True))
    assert isinstance(reply, wire.Scanned)
    assert reply.squares is not None
    # 5000 normal deviates: six standard deviations of their variance and of their mean.
    assert reply.squares[0] / 4999 == pytest.approx(100 + 1 / 12, abs=6 * 100 * np.sqrt(2 / 5000))
    assert reply.sums[0] / 5000 == pytest.approx(1250, abs=6 * 10 / np.sqrt(5000))


def test_sources_drive_and_float(bench: Bench) -> None:
    first, second = bench.terminals
    levels = (wire.Level(0, 2_500_000_000), wire.Level(1, -1_000_000_000))
    assert bench.ask(wire.SetSources(levels)) == wire.Done()
    assert first.applied[-1] == Applied("voltage", 2.5, series=10.0)
    assert second.applied[-1] == Applied("voltage", -1.0)
    assert bench.board.outputs_on == (True, True, False)
    assert bench.ask(wire.SetSources((wire.Level(0, wire.FLOAT),))) == wire.Done()
    assert first.applied[-1] == OPEN
    assert bench.ask(wire.SetSources((wire.Level(1, wire.FLOAT),))) == wire.Refusal(wire.Status.RANGE, 1)
    assert bench.ask(wire.SetSources((wire.Level(0, 5_000_000_001),))) == wire.Refusal(wire.Status.RANGE, 0)


def test_a_clamp_switch_connects_another_instrument(bench: Bench) -> None:
    drive = Applied("voltage", 3.0, limit=0.01)
    bench.switched.apply(drive)
    assert bench.switched.see() == Seen(3.0, 0.0, limited=False)
    assert bench.other.applied == []
    bench.ask(wire.SetSwitches(((1, True),)))
    assert bench.other.applied == [drive]
    assert bench.switched.see() == Seen(1.25, 0.0, limited=False)
    bench.ask(wire.SetSwitches(((1, False),)))
    assert bench.other.applied == [drive, OPEN]
    bench.switched.apply(Applied("current", -1e-6, limit=5.0))
    assert bench.switched.see() == Seen(-5.0, 0.0, limited=True)


def test_a_step_is_write_drive_settle_scan(bench: Bench) -> None:
    write = wire.Write(0, (1, 2, 3), settling=2000)
    reply = bench.ask(wire.Step(write, (wire.Level(0, 10**9),), wire.Scan(0, 2)))
    assert isinstance(reply, wire.Stepped)
    assert reply.scanned.sums == (1250, 2500)
    assert bench.codes[-1] == [1, 2, 3]
    assert bench.clock.seconds == pytest.approx(4e-3)
    refused = bench.ask(wire.Step(wire.Write(0, (7,)), (wire.Level(9, 0),), wire.Scan(0, 2)))
    assert refused == wire.Refusal(wire.Status.RANGE, 9)
    assert bench.codes[-1] == [1, 2, 3]


def test_silence_makes_the_board_safe_until_it_is_cleared(bench: Bench) -> None:
    bench.ask(wire.SetSources((wire.Level(0, 10**9),)), now=10.0)
    assert bench.ask(wire.Watchdog(2000), now=10.0) == wire.Watching(2000, wire.Reason.NONE)
    bench.board.tick(11.9)
    assert bench.ask(wire.Watchdog(2000), now=12.0) == wire.Watching(2000, wire.Reason.NONE)
    bench.board.tick(14.0)
    assert bench.board.outputs_on[0]
    bench.board.tick(14.1)
    assert not any(bench.board.outputs_on)
    assert bench.codes[-1] == [20, 20, 30]
    refused = wire.Refusal(wire.Status.SAFE, wire.Reason.WATCHDOG)
    assert bench.ask(wire.SetSources((wire.Level(0, 0),)), now=15.0) == refused
    assert bench.ask(wire.Scan(0, 1), now=15.0) == wire.Scanned((1250,))
    assert bench.ask(wire.Safe(wire.SafeAction.CLEAR), now=15.0) == wire.Latched(wire.Reason.NONE)
    assert bench.ask(wire.SetSources((wire.Level(0, 0),)), now=15.0) == wire.Done()
    assert bench.ask(wire.ReadCounters()) == wire.Counters(0, 0, 0, 1)


def test_safe_switches_outputs_off_and_keeps_the_codes(bench: Bench) -> None:
    bench.ask(wire.Write(0, (1, 2, 3)))
    bench.ask(wire.SetSources((wire.Level(0, 10**9),)))
    for _ in range(2):
        assert bench.ask(wire.Safe(wire.SafeAction.OUTPUTS)) == wire.Latched(wire.Reason.NONE)
        assert not any(bench.board.outputs_on)
        assert bench.board.codes.tolist() == [1, 2, 3]
    assert bench.ask(wire.Safe(wire.SafeAction.LATCH)) == wire.Latched(wire.Reason.HOST)
    assert bench.board.codes.tolist() == [20, 20, 30]


def test_overflow_is_reported_at_once(bench: Bench) -> None:
    (notice,) = bench.send(b"\0" + b"\x11" * 1000)
    assert (notice.kind, notice.seq) == (0x80, 0)
    assert wire.decode_reply(notice) == wire.Refusal(wire.Status.OVERFLOW)
    assert isinstance(bench.ask(wire.ReadCounters()), wire.Counters)


def test_damaged_and_unknown_frames_change_nothing(bench: Bench) -> None:
    good = wire.request_frame(wire.Write(0, (1,)), 1).encode()
    assert bench.send(good[:4] + bytes([good[4] ^ 0x40]) + good[5:]) == []
    assert bench.board.writes == 0
    (unknown,) = bench.send(Frame(0x55, 3).encode())
    assert wire.decode_reply(unknown) == wire.Refusal(wire.Status.OPCODE)
    (short,) = bench.send(Frame(wire.Opcode.SCAN, 4, b"\0").encode())
    assert wire.decode_reply(short) == wire.Refusal(wire.Status.LENGTH)
    counters = bench.ask(wire.ReadCounters())
    assert isinstance(counters, wire.Counters)
    assert counters.crc_errors == 1


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_no_garbage_stops_the_board(pieces: list[bytes]) -> None:
    bench = Bench()
    for piece in pieces:
        bench.board.feed(piece, 0.0)
    bench.board.feed(b"\0\0", 0.0)
    frames = bench.send(wire.request_frame(wire.Hello(), 0).encode())
    assert isinstance(wire.decode_reply(frames[-1]), wire.Greeting)


def test_text_for_people() -> None:
    bench = Bench()
    assert bench.say("*IDN?") == "hilcl,emulated pot board,0,1.0\n"
    assert bench.say("SYST:VERS?") == "1999.0\n"
    assert bench.say("SYST:CAP?") == "protocol=1.1,pots=3,adcs=2,sources=2,switches=2,frame=250\n"
    assert bench.say("POT 2,77\nPOT? 2\nPOT? 0") == "77\n-1\n"
    assert bench.say("MEAS? 1") == "2.5\n"
    assert bench.say("SOUR 0,1.5\nSOUR? 0\nSOUR 0,FLOAT\nSOUR? 0") == "1.5\nFLOAT\n"
    assert bench.say("ROUT:CLOS 1\nROUT:CLOS? 1\nROUT:OPEN 1\nROUT:CLOS? 1") == "1\n0\n"
    assert bench.say("SYST:ERR?") == '0,"No error"\n'
    assert bench.say("POT 2,1024\nHM\nPOT 1\nSOUR 1,FLOAT\nPOT? 3") == ""
    errors = [bench.say("SYST:ERR?").partition(",")[0] for _ in range(6)]
    assert errors == ["-222", "-113", "-109", "-222", "-222", "0"]
    assert bench.say("SAFE\nSAFE?\nPOT 2,1\nSYST:ERR?") == '1\n-221,"Settings conflict"\n'
    assert bench.say("SAFE:CLE\nPOT 2,1\nPOT? 2") == "1\n"
    assert bench.say("x" * 200 + "\nSYST:ERR?") == '-363,"Input buffer overrun"\n'


def test_text_within_binary_and_back(bench: Bench) -> None:
    assert bench.ask(wire.Text("MEAS? 0")) == wire.Answer("1.25")
    assert bench.ask(wire.Text("POT 2,5")) == wire.Answer("")
    bench.ask(wire.SetSources((wire.Level(0, 10**9),)))
    assert bench.ask(wire.Exit()) == wire.Done()
    assert not any(bench.board.outputs_on)
    assert bench.say("POT? 2") == "5\n"
    assert bench.ask(wire.Read(2, 1)) == wire.Codes((5,))


def test_boards_that_cannot_be_are_refused() -> None:
    pots = [PotModel("AD5206", 2, 255, 128, 20)]
    with pytest.raises(InputError, match="as many ports"):
        EmulatedPotBoard(pots, lambda codes: None, sources=[SourceModel()])
    with pytest.raises(InputError, match="nodes to read"):
        EmulatedPotBoard(pots, lambda codes: None, adcs=[AdcModel(1)])
    with pytest.raises(InputError, match="numbered"):
        EmulatedPotBoard(pots, lambda codes: None, switches={1: SwitchedPort(Terminal())})
    with pytest.raises(InputError, match="safe code"):
        PotModel("AD5206", 2, 255, 128, 256)
    with pytest.raises(InputError, match="cannot be"):
        AdcModel(1, bits=40)


@pytest.fixture(params=["pty", "tcp"])
def server(request: pytest.FixtureRequest) -> Iterator[PotBoardServer]:
    with PotBoardServer(Bench().board, tcp=0 if request.param == "tcp" else None) as server:
        yield server


def test_serves_any_client_that_opens_a_serial_port(server: PotBoardServer) -> None:
    for _ in range(2):
        with serial.serial_for_url(server.port, timeout=10) as port:
            port.write(b"*IDN?\n")
            assert port.readline() == b"hilcl,emulated pot board,0,1.0\n"


def test_closes_cleanly_and_more_than_once(server: PotBoardServer) -> None:
    with serial.serial_for_url(server.port, timeout=10) as port:
        port.write(b"*OPC?\n")
        assert port.readline() == b"1\n"
        server.close()
        server.close()
        with pytest.raises((serial.SerialException, OSError)):
            port.read()


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BoardError, match="choose another"):
        PotBoardServer(Bench().board, tcp=taken.getsockname()[1])
