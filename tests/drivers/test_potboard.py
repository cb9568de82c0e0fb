"""The pot board's driver against the emulated board on a real pseudo-terminal."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from hilcl.arrays import FloatArray, IntArray
from hilcl.devices import RheostatBank, SourceBank, Voltmeter
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_framing import REPLY, FrameDecoder
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.errors import BoardError, InputError, MeasurementError
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

PATIENT = PotBoardOptions(turnaround=20.0, boot_time=0.0, watchdog=30.0, heartbeat=False)
"""For tests in which nothing is lost: only a failing one waits."""

HASTY = replace(PATIENT, turnaround=1.0)
"""For tests in which something is lost."""


class Terminal:
    def __init__(self) -> None:
        self.applied = OPEN

    def apply(self, applied: Applied) -> None:
        self.applied = applied

    def see(self) -> Seen:
        return Seen(0.0, 0.0, limited=False)


class Faults:
    """A wire on which the next frames are lost or damaged."""

    def __init__(self) -> None:
        self.damage_requests = 0
        self.lose_requests = 0
        self.lose_replies = 0
        self.prefix = b""
        self.before: Callable[[], None] | None = None

    def received(self, data: bytes) -> bytes:
        if self.before is not None:
            before, self.before = self.before, None
            before()
        if data and self.lose_requests:
            self.lose_requests -= 1
            return b""
        if self.damage_requests:
            self.damage_requests -= 1
            return data[:3] + bytes([data[3] ^ 0x80]) + data[4:]
        return data

    def replied(self, data: bytes) -> bytes:
        if data and self.lose_replies:
            self.lose_replies -= 1
            return b""
        prefix, self.prefix = self.prefix, b""
        return prefix + data


class Bench:
    def __init__(
        self, pots: int = 16, *, readback: bool = True, channels: int = 3, now: Callable[[], float] | None = None
    ) -> None:
        self.volts = np.linspace(0.5, 2.5, channels)
        self.terminals = (Terminal(), Terminal())
        self.clamped = Terminal()
        self.switched = SwitchedPort(self.clamped)
        self.pot_faults = PotFaults()
        self.wire = Faults()
        self.seconds = 0.0
        self.given: list[list[int]] = []
        self.board = EmulatedPotBoard(
            [PotModel("AD5144", pots, 255, 128, 20, readback=readback)],
            self.take,
            adcs=[AdcModel(channels, bits=16, zero=1 << 15, span=10.0)],
            read_nodes=self.read,
            sources=[SourceModel(-5.0, 5.0, switch=0), SourceModel(-5.0, 5.0)],
            ports=self.terminals,
            switches={1: self.switched},
            identity="lab,emulated pot board,7,1.0",
            faults=self.pot_faults,
        )
        self.server = PotBoardServer(self.board, faults=self.wire, now=now or (lambda: self.seconds))

    def take(self, codes: IntArray) -> None:
        self.given.append(codes.tolist())

    def read(self) -> FloatArray:
        return self.volts

    def open(self, options: PotBoardOptions = PATIENT) -> PotBoard:
        return PotBoard("pots", self.server.port, options).open()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.server.close()


def test_is_what_a_bench_is_made_of(bench: Bench) -> None:
    with bench.open() as board:
        assert isinstance(board, RheostatBank)
        assert isinstance(board.meter(), Voltmeter)
        assert isinstance(board.sources(), SourceBank)
        assert board.identity == "lab,emulated pot board,7,1.0"
        assert board.code_counts.tolist() == [256] * 16
        assert board.meter().channels == ("0", "1", "2")
        assert board.sources().channels == ("0", "1")
        assert board.switches().channels == ("1",)
        assert board.text("*IDN?") == board.identity


def test_opening_changes_no_output_and_no_pot(bench: Bench) -> None:
    with bench.open():
        assert bench.given == [[128] * 16]
        assert not any(bench.board.outputs_on)


def test_codes_written_are_codes_read(bench: Bench) -> None:
    with bench.open() as board:
        codes = np.arange(16) * 17
        board.write(codes)
        assert bench.given[1:] == [codes.tolist()]
        assert board.read().tolist() == codes.tolist()


@pytest.mark.parametrize("pots", [1, 400])
def test_many_pots_are_written_at_once(pots: int) -> None:
    bench = Bench(pots)
    codes = np.arange(pots) % 256
    with bench.server, bench.open() as board:
        board.write(codes)
        assert bench.given[1:] == [codes.tolist()]
        assert board.read().tolist() == codes.tolist()


def test_chips_without_readback_read_as_minus_one() -> None:
    bench = Bench(4, readback=False)
    with bench.server, bench.open() as board:
        board.write(np.array([1, 2, 3, 4]))
        assert board.read().tolist() == [-1] * 4
        assert bench.board.codes.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full(16, 256), "pot 0 has codes 0 to 255, not 256"),
        (np.array([0] * 15 + [-1]), "pot 15 has codes 0 to 255, not -1"),
        (np.zeros(15, dtype=int), "16 pots"),
        (np.zeros(16), "whole codes"),
    ],
)
def test_bad_codes_are_refused_before_anything_is_sent(bench: Bench, codes: IntArray, message: str) -> None:
    with bench.open() as board:
        with pytest.raises(InputError, match=message):
            board.write(codes)
        assert bench.board.writes == 0


def test_reads_volts_with_their_uncertainty(bench: Bench) -> None:
    step = 10.0 / 65536
    with bench.open() as board:
        readings = board.meter(["2", "0"]).read(averages=9)
        assert readings.volts == pytest.approx(bench.volts[[2, 0]], abs=step / 2)
        assert readings.volts_u == pytest.approx([step / np.sqrt(12)] * 2)
        with pytest.raises(InputError, match="averages 1 to 65535 readings, not 0"):
            board.meter().read(0)
        assert board.meter().start_read().result(60).volts == pytest.approx(bench.volts, abs=step / 2)


def test_scans_longer_than_a_frame_come_in_parts() -> None:
    bench = Bench(1, channels=60)
    with bench.server, bench.open() as board:
        assert board.meter().read(3).volts == pytest.approx(bench.volts, abs=10.0 / 65536 / 2)


def test_a_reading_at_the_end_of_the_range_is_none(bench: Bench) -> None:
    with bench.open() as board:
        for volts in (7.0, -7.0):
            bench.volts = np.array([0.0, volts, 0.0])
            with pytest.raises(MeasurementError, match="ADC channel 1 is at the end"):
                board.meter().read()


def test_sources_drive_float_and_are_made_safe(bench: Bench) -> None:
    with bench.open() as board:
        sources = board.sources()
        sources.drive(np.array([2.05, -1.0]))
        assert [terminal.applied for terminal in bench.terminals] == [
            Applied("voltage", 2.05),
            Applied("voltage", -1.0),
        ]
        readings = sources.read()
        assert np.isnan(readings.volts).all()
        assert np.isnan(readings.amperes).all()
        assert not readings.in_compliance.any()
        sources.drive(np.array([np.nan, 1.0]))
        assert bench.terminals[0].applied == OPEN
        for _ in range(2):
            sources.make_safe()
            assert not any(bench.board.outputs_on)
        sources.drive(np.array([1.0, 1.0]))
        assert bench.board.outputs_on[:2] == (True, True)


def test_drives_the_board_cannot_make_are_refused(bench: Bench) -> None:
    with bench.open() as board:
        sources = board.sources()
        for volts, message in (([0.0, np.nan], "source 1 has no switch"), ([5.1, 0], "not 5.1 V"), ([1.0], "2 source")):
            with pytest.raises(InputError, match=message):
                sources.drive(np.array(volts))
        with pytest.raises(InputError, match="source channels 0 to 1, not 2"):
            board.sources(["2"])
        with pytest.raises(InputError, match="listed twice"):
            board.meter(["0", "0"])
        assert not any(bench.board.outputs_on)


def test_clamp_switches_connect_another_instrument(bench: Bench) -> None:
    drive = Applied("voltage", 3.0)
    bench.switched.apply(drive)
    with bench.open() as board:
        board.switches().set(np.array([True]))
        assert bench.clamped.applied == drive
        board.make_safe()
        assert bench.clamped.applied == OPEN


@pytest.mark.parametrize("pots", [16, 200])
def test_a_step_writes_drives_and_reads(pots: int) -> None:
    bench = Bench(pots)
    with bench.server, bench.open() as board:
        codes = np.arange(pots) % 256
        readings = board.step(codes, np.array([np.nan, 2.0]), averages=4)
        assert readings.volts == pytest.approx(bench.volts, abs=10.0 / 65536 / 2)
        assert bench.given[1:] == [codes.tolist()]
        assert bench.terminals[1].applied == Applied("voltage", 2.0)


def test_a_lost_reply_is_sent_again_and_nothing_executes_twice(bench: Bench) -> None:
    with bench.open(HASTY) as board:
        bench.wire.lose_replies = 1
        board.write(np.full(16, 3))
        assert bench.board.writes == 1
        assert board.counters().replays >= 1


def test_a_board_that_heard_nothing_hears_it_again_before_its_watchdog_expires() -> None:
    bench = Bench(now=time.monotonic)
    with bench.server, bench.open(replace(PATIENT, watchdog=2.0, heartbeat=True)) as board:
        bench.wire.lose_requests = 1
        board.write(np.full(16, 3))
        assert bench.board.codes.tolist() == [3] * 16


def test_a_damaged_frame_is_sent_again(bench: Bench) -> None:
    with bench.open(HASTY) as board:
        bench.wire.damage_requests = 2
        board.write(np.full(16, 4))
        assert bench.board.codes.tolist() == [4] * 16
        assert board.retries >= 2
        assert board.counters().crc_errors >= 2


def test_garbage_before_a_reply_is_no_reply(bench: Bench) -> None:
    with bench.open() as board:
        bench.wire.prefix = b"\x55\xaa garbage\0"
        board.write(np.full(16, 5))
        assert bench.board.writes == 1


def test_a_silent_board_is_greeted_anew(bench: Bench) -> None:
    with bench.open(HASTY) as board:
        bench.wire.lose_replies = 3
        board.write(np.full(16, 6))
        assert board.recoveries >= 1
        assert board.restarts == 0
        assert bench.board.codes.tolist() == [6] * 16


def test_after_a_restart_everything_is_written_again(bench: Bench) -> None:
    bench.switched.apply(Applied("voltage", 3.0))
    with bench.open() as board:
        board.write(np.arange(16))
        board.sources().drive(np.array([1.0, 2.0]))
        board.switches().set(np.array([True]))
        bench.wire.before = bench.board.reset
        readings = board.meter().read()
        assert readings.volts == pytest.approx(bench.volts, abs=10.0 / 65536 / 2)
        assert board.restarts == 1
        assert bench.board.codes.tolist() == list(range(16))
        assert bench.board.outputs_on == (True, True, True)
        assert bench.given[-2:] == [[128] * 16, list(range(16))]


def test_a_restart_found_while_making_safe_leaves_outputs_off(bench: Bench) -> None:
    with bench.open() as board:
        board.write(np.arange(16))
        board.sources().drive(np.array([1.0, 2.0]))
        bench.wire.before = bench.board.reset
        board.make_safe()
        assert not any(bench.board.outputs_on)
        board.meter().read()
        assert not any(bench.board.outputs_on)
        assert bench.board.codes.tolist() == list(range(16))


def test_an_expired_watchdog_is_an_error_that_says_so(bench: Bench) -> None:
    with bench.open() as board:
        board.sources().drive(np.array([1.0, 2.0]))
        bench.seconds = 31.0
        with pytest.raises(BoardError, match=r"pots \(.*its watchdog expired"):
            board.write(np.zeros(16, dtype=int))
        assert not any(bench.board.outputs_on)
        assert bench.board.codes.tolist() == [20] * 16
    with bench.open() as board:
        board.write(np.zeros(16, dtype=int))


def test_the_heartbeat_keeps_the_watchdog_quiet_and_reports_what_it_finds(bench: Bench) -> None:
    options = replace(PATIENT, watchdog=0.4, heartbeat=True)
    board = bench.open(options)
    try:
        bench.board.reset()
        heart = board._heart
        assert heart is not None
        # The board clock jumps: whatever beat comes next finds the watchdog expired, and the thread ends.
        board.write(np.zeros(16, dtype=int))
        bench.seconds = 100.0
        heart.join(60)
        assert not heart.is_alive()
        with pytest.raises(BoardError, match="its watchdog expired"):
            board.meter().read()
    finally:
        board.close()


@pytest.mark.parametrize(
    ("stuck", "dead", "message"),
    [({5: 9}, set(), "at pot or channel 5: a chip holds another code"), ({}, {6}, "at pot or channel 6: .* answer")],
)
def test_a_pot_that_fails_is_named(bench: Bench, stuck: dict[int, int], dead: set[int], message: str) -> None:
    bench.pot_faults.stuck, bench.pot_faults.dead = stuck, dead
    with bench.open() as board:
        with pytest.raises(BoardError, match=message):
            board.write(np.zeros(16, dtype=int))
        with pytest.raises(BoardError, match="a pot could not be written"):
            board.write(np.zeros(16, dtype=int))


def test_closing_makes_the_board_safe(bench: Bench) -> None:
    board = bench.open()
    board.write(np.arange(16))
    board.sources().drive(np.array([1.0, 2.0]))
    board.close()
    board.close()
    assert not any(bench.board.outputs_on)
    assert bench.board.codes.tolist() == list(range(16))
    with pytest.raises(BoardError, match="closed"):
        board.read()


def test_a_port_that_goes_away_is_named(bench: Bench) -> None:
    """Over TCP: the number of a pseudo-terminal is given to somebody else as soon as it is free."""
    server = PotBoardServer(bench.board, tcp=0)
    board = PotBoard("pots", server.port, PATIENT).open()
    server.close()
    with pytest.raises(BoardError, match=rf"the connection to pots \({server.port}\) broke .* check the cable"):
        board.read()
    with pytest.raises(BoardError, match="could not be told to switch its sources off, its watchdog"):
        board.close()
    board.close()


def test_a_port_that_is_not_there_is_named() -> None:
    board = PotBoard("pots", "/dev/no-such-port", PATIENT)
    with pytest.raises(InputError, match=r"pots \(/dev/no-such-port\) cannot be opened \(No such file"):
        board.open()
    board.abandon()


def test_a_port_where_nothing_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = f"socket://127.0.0.1:{silent.getsockname()[1]}"
        board = PotBoard("pots", port, replace(PATIENT, turnaround=0.01))
        with pytest.raises(InputError, match=r"no pot board was found: .* nothing came back"):
            board.open()
        board.abandon()


def test_another_version_of_the_protocol_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAJOR", 2)
    board = PotBoard("pots", bench.server.port, PATIENT)
    with pytest.raises(BoardError, match="refused HELLO: the board speaks another version"):
        board.open()
    board.abandon()


def test_works_over_a_socket_too() -> None:
    bench = Bench()
    bench.server.close()
    with PotBoardServer(bench.board, tcp=0) as server, PotBoard("pots", server.port, PATIENT) as board:
        board.write(np.arange(16))
        assert board.read().tolist() == list(range(16))


def test_what_goes_over_the_wire_is_what_is_needed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.open() as board:
        heard = bytearray()
        said = bytearray()

        def hear(data: bytes) -> bytes:
            heard.extend(data)
            return data

        def say(data: bytes) -> bytes:
            said.extend(data)
            return data

        monkeypatch.setattr(bench.wire, "received", hear)
        monkeypatch.setattr(bench.wire, "replied", say)
        board.step(np.arange(16), np.array([np.nan, 2.0]))
        (request,) = FrameDecoder(250).feed(bytes(heard))
        (reply,) = FrameDecoder(250).feed(bytes(said))
        levels = (wire.Level(0, wire.FLOAT), wire.Level(1, 2_000_000_000))
        assert wire.decode_request(request) == wire.Step(wire.Write(0, tuple(range(16))), levels, wire.Scan(0, 3))
        assert (reply.kind, reply.seq) == (request.kind | REPLY, request.seq)


@pytest.mark.parametrize(
    "wrong", [{"baud": 0}, {"tries": 0}, {"turnaround": -1.0}, {"watchdog": 0.0}, {"settling": float("nan")}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        PotBoardOptions(**wrong)  # type: ignore[arg-type]


class Asked(EmulatedPotBoard):
    """A board that remembers which widths of sums it was asked for."""

    def _check_scan(self, scan: wire.Scan, before: int) -> None:
        self.widths = {*getattr(self, "widths", ()), scan.width}
        super()._check_scan(scan, before)


class VersionOneZero(Asked):
    """A board from before sums of width 7."""

    def _hello(self, request: wire.Hello) -> wire.Reply:
        greeting = super()._hello(request)
        assert isinstance(greeting, wire.Greeting)
        return replace(greeting, minor=0)

    def _check_scan(self, scan: wire.Scan, before: int) -> None:
        if scan.width == wire.SEVENS:
            raise wire.ProtocolError(wire.Status.LENGTH)
        super()._check_scan(scan, before)


@pytest.mark.parametrize(("kind", "width"), [(VersionOneZero, 2), (Asked, wire.SEVENS)])
def test_older_boards_are_asked_for_what_they_know(kind: type[Asked], width: int) -> None:
    volts = np.array([0.5, 2.0])
    emulated = kind(
        [PotModel("AD5144", 2, 255, 128, 20)],
        lambda codes: None,
        adcs=[AdcModel(2, bits=10, span=5.0)],
        read_nodes=lambda: volts,
    )
    with PotBoardServer(emulated) as server, PotBoard("pots", server.port, PATIENT).open() as board:
        assert np.abs(board.step(np.array([3, 4])).volts - volts).max() < 5 / 1024
        assert emulated.widths == {width}
        assert board.scan([0, 1], 4).volts_u.shape == (2,)
