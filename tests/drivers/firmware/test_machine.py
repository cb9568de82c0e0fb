"""The compiled binary on the emulated microcontroller: chips at its pins, timing in its cycles, resets and rates."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hilcl.arrays import FloatArray, IntArray
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.chips import Chip, chips
from hilcl.drivers.chips.layouts import Counter
from hilcl.drivers.firmware.header import render
from hilcl.drivers.firmware.wiring import MOST_POTS, Wiring
from hilcl.drivers.potboard_framing import FrameDecoder
from hilcl.sim_backend.emulation.firmware import FirmwareBoard
from hilcl.sim_backend.emulation.port import OPEN
from tests.drivers.firmware.bench import (
    MIXED,
    NANO,
    Sequences,
    Terminal,
    built,
    emulated,
    volts_of,
    wiring,
    without_window,
)

CLOCK = 16e6
FAST = 1_000_000


class Board:
    """A firmware board, its pots' codes as they changed, and requests to it."""

    def __init__(self, board: Wiring, volts: FloatArray | None = None) -> None:
        self.wiring = board
        self.codes: list[list[int]] = []
        self.volts = volts_of(board) if volts is None else volts
        self.terminals = [Terminal() for _ in board.sources]
        self.firmware = FirmwareBoard(
            board, self.take, read_nodes=lambda: self.volts, ports=self.terminals, built=built(board)
        )
        self.machine = self.firmware.machine
        self._seq = 0

    def take(self, codes: IntArray) -> None:
        self.codes.append(codes.tolist())

    def raw(self, request: wire.Request) -> bytes:
        self._seq = 0 if isinstance(request, wire.Hello) else self._seq % 255 + 1
        return wire.request_frame(request, self._seq).encode()

    def ask(self, request: wire.Request) -> wire.Reply | wire.Refusal:
        (frame,) = FrameDecoder(4096).feed(self.machine.feed(self.raw(request)).sent)
        return wire.decode_reply(frame)

    def greet(self) -> wire.Greeting:
        greeting = self.ask(wire.Hello())
        assert isinstance(greeting, wire.Greeting)
        return greeting

    def begin(self) -> None:
        """Switch the board off and on, and forget what was before."""
        self.machine.reset(power=True)
        self.machine.host_baud(self.wiring.baud)
        self.machine.reports.clear()
        self.codes.clear()
        self.volts = volts_of(self.wiring)
        self._seq = 0


Make = Callable[..., Board]


@pytest.fixture(scope="module")
def emulators() -> Iterator[dict[str, Board]]:
    """Emulators that run, by wiring: starting one takes longer than most tests."""
    running: dict[str, Board] = {}
    yield running
    for each in running.values():
        each.firmware.close()


@pytest.fixture
def make(emulators: dict[str, Board]) -> Iterator[Make]:
    """A board that has just been switched on; ``alone`` where the test breaks it, or nobody else has its wiring."""
    own: list[Board] = []

    def board(table: dict[str, object], *, alone: bool = False, **changes: object) -> Board:
        known = wiring(table, **changes)
        if alone:
            own.append(Board(known))
            return own[-1]
        key = render(known)
        if key not in emulators:
            emulators[key] = Board(known)
        emulators[key].begin()
        return emulators[key]

    yield board
    for each in own:
        each.firmware.close()


def boards_of_all_chips() -> list[tuple[dict[str, object], list[str]]]:
    """Return wirings that together have every chip of the catalogue on each of its buses."""
    left: list[tuple[Chip, str]] = [(chip, bus) for chip in chips() for bus in chip.buses]
    tables: list[tuple[dict[str, object], list[str]]] = []
    while left:
        pins = [f"D{pin}" for pin in range(22, 50)] + [f"A{pin}" for pin in range(16)]
        addresses: set[int] = set()
        pots: list[dict[str, object]] = []
        names, count, later = [], 0, []
        for chip, bus in left:
            known = [] if chip.address is None else sorted(set(chip.address.all().values()))
            free = next((one for one in known if one not in addresses), None)
            if count + chip.wipers > 110 or (bus == "i2c" and free is None) or (bus != "i2c" and len(pins) < 3):
                later.append((chip, bus))
                continue
            entry: dict[str, object] = {"chip": chip.name}
            if bus == "i2c" and free is not None:
                addresses.add(free)
                entry["address"] = [free]
            else:
                entry["select"] = [pins.pop()]
            if isinstance(chip.layout, Counter):
                entry |= {"up_down": pins.pop(), "clock": pins.pop()}
            pots.append(entry)
            names.append(chip.name)
            count += chip.wipers
        assert len(later) < len(left)
        tables.append(({"board": "mega", "baud": FAST, "pots": pots}, names))
        left = later
    return tables


@pytest.mark.parametrize("table", [table for table, _ in boards_of_all_chips()])
def test_every_chip_of_the_catalogue_takes_its_codes(make: Make, table: dict[str, object]) -> None:
    """By the models' own reading of the data sheets, which also watch modes, clocks, lengths and orders."""
    board = make(table, alone=True)
    assert board.wiring.pots <= MOST_POTS["atmega2560"]
    board.greet()
    highest = [group.chip.positions - 1 for group in board.wiring.groups for _ in range(group.count)]
    readable = [group.chip.readable for group in board.wiring.groups for _ in range(group.count)]
    for share in (1.0, 0.0, 0.5, 1 / 3):
        codes = [int(share * most) for most in highest]
        for first in range(0, len(codes), 60):
            part = tuple(codes[first : first + 60])
            written = board.ask(wire.Write(first, part))
            assert isinstance(written, wire.Written)
            assert written.echo == wire.stage_crc(enumerate(part, first))
            read = board.ask(wire.Read(first, len(part)))
            expected = [code if can else wire.NOTHING for code, can in zip(part, readable[first:], strict=False)]
            assert read == wire.Codes(tuple(expected))
        assert board.firmware.codes.tolist() == codes
    assert board.firmware.reports == ()


@pytest.mark.parametrize("table", [NANO, MIXED], ids=["one kind of pot", "every bus"])
def test_agrees_with_the_emulator(make: Make, table: dict[str, object]) -> None:
    """The same sequences of chance that the protocol alone agrees on; benchmarks/firmware.py runs ten thousand."""
    board = make(table, baud=FAST)
    twin, _ = emulated(board.wiring, board.volts, board.greet().boots)
    board.firmware.reset()
    twin.reset()
    # Pauses that the watchdog sleeps through cost the emulator most of its time.
    sequences = Sequences(board.wiring, seed=2, pauses=(*[0.001] * 24, 0.5, 0.5, 7.0))
    now = 0.0
    for number in range(40):
        if number:
            board.firmware.reset()
            twin.reset()
        now += 1.0
        for pause, piece in sequences.sequence():
            now += pause
            answer = without_window(board.firmware.feed(piece, now))
            assert answer == without_window(twin.feed(piece, now)), (number, piece)
    assert board.firmware.reports == ()
    assert board.machine.feed(b"").overruns == 0


def test_sixty_pots_at_a_megabaud(make: Make) -> None:
    table = {"board": "mega", "baud": FAST, "pots": [{"chip": "MCP4351", "select": [f"D{22 + i}" for i in range(15)]}]}
    board = make(table, alone=True)
    board.greet()
    codes = np.random.default_rng(1).integers(0, 256, (100, 60)).tolist()
    before = board.machine.feed(b"").cycles
    for row in codes:
        assert board.ask(wire.Write(0, tuple(row))) == wire.Written(
            60, wire.Verdict.VERIFIED, wire.stage_crc(enumerate(row))
        )
    ran = board.machine.feed(b"")
    assert ran.overruns == 0
    assert 100 / ((ran.cycles - before) / CLOCK) > 300
    assert board.firmware.codes.tolist() == codes[-1]


@pytest.mark.parametrize(
    ("prescaler", "shares"),
    [(128, {FAST: 2.95}), (32, {FAST: 1.4}), (16, {115_200: 1.05, 250_000: 1.1, 500_000: 1.15, FAST: 1.3})],
)
def test_a_step_takes_little_more_than_its_wire_time(make: Make, prescaler: int, shares: dict[int, float]) -> None:
    """Sixteen pots written and read back, sixteen channels read by the AVR's own ADC."""
    board = make(
        {
            "board": "mega",
            "pots": [{"chip": "MCP4351", "select": ["D22", "D23", "D24", "D25"]}],
            "adc": {"channels": [f"A{index}" for index in range(16)], "prescaler": prescaler},
        },
        alone=True,
    )
    codes = tuple(600 + 7 * channel for channel in range(16))
    board.volts = (np.array(codes) + 0.25) * 5.0 / 1024
    for baud, most in shares.items():
        board.greet()
        board.ask(wire.Text(f"SYST:BAUD {baud}"))
        board.machine.host_baud(baud)
        request = board.raw(wire.Step(wire.Write(0, tuple(range(100, 116))), (), wire.Scan(0, 16, width=wire.SEVENS)))
        began = board.machine.feed(b"").cycles
        ran = board.machine.feed(request)
        reply = wire.decode_reply(FrameDecoder(999).feed(ran.sent)[0])
        assert isinstance(reply, wire.Stepped)
        assert reply.scanned.sums == codes
        wire_time = 10 * (len(request) + len(ran.sent)) / baud
        assert (ran.last_sent - began) / CLOCK < most * wire_time


@pytest.mark.parametrize("settling", [0, 40, 400, 40_000])
def test_readings_wait_for_settling(make: Make, settling: int) -> None:
    """Settling runs while the pots are read back, and is never cut short; nor is it waited for twice."""
    board = make(NANO, baud=FAST)
    board.greet()
    steps = []
    for wait in (0, settling):
        request = board.raw(wire.Step(wire.Write(0, tuple(range(16)), settling=wait), (), wire.Scan(0, 8)))
        ran = board.machine.feed(request)
        steps.append((ran.last_sent - ran.arrived) / CLOCK)
    assert settling * 1e-6 - 200e-6 <= steps[1] - steps[0] <= settling * 1e-6 + 250e-6


def test_a_commit_that_the_safe_state_refuses_forgets_the_stage(make: Make) -> None:
    board = make(NANO)
    board.greet()
    board.ask(wire.Stage(0, (5, 6)))
    board.ask(wire.Safe(wire.SafeAction.LATCH))
    crc = wire.stage_crc([(0, 5), (1, 6)])
    assert board.ask(wire.Commit(crc)) == wire.Refusal(wire.Status.SAFE, wire.Reason.HOST)
    board.ask(wire.Safe(wire.SafeAction.CLEAR))
    assert board.ask(wire.Commit(crc)) == wire.Refusal(wire.Status.STAGE_CRC)


def test_the_adc_reads_to_the_nearest_code(make: Make) -> None:
    board = make(NANO)
    board.greet()
    scanned = board.ask(wire.Scan(0, 8, averages=4))
    assert scanned == wire.Scanned(tuple(4 * (37 + 61 * channel) for channel in range(8)))


def test_silence_of_the_host_makes_the_board_safe(make: Make) -> None:
    board = make(NANO)
    board.greet()
    board.ask(wire.SetSources((wire.Level(0, 2_500_000_000),)))
    heard = board.machine.feed(board.raw(wire.Watchdog(500))).arrived
    board.machine.feed(b"", heard + round(0.499 * CLOCK))
    assert board.firmware.outputs_on == (True, False)
    board.machine.feed(b"", heard + round(0.503 * CLOCK))
    assert board.firmware.outputs_on == (False, False)
    assert board.terminals[0].applied is OPEN
    assert board.codes[-1] == [200] * 16
    assert board.ask(wire.Write(0, (1,))) == wire.Refusal(wire.Status.SAFE, wire.Reason.WATCHDOG)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_reset_within_a_frame_leaves_what_the_host_is_told(make: Make, share: float) -> None:
    board = make(NANO)
    greeting = board.greet()
    board.ask(wire.Write(0, tuple(range(16))))
    request = board.raw(wire.Write(0, tuple(range(100, 116))))
    board.machine.send(request)
    board.machine.run(round(share * len(request) * 10 / 115_200 * CLOCK))
    board.machine.reset()
    assert board.ask(wire.Read(0, 16)) == wire.Refusal(wire.Status.GREETING)
    again = board.greet()
    assert again.boots == greeting.boots + 1
    assert board.ask(wire.Read(0, 16)) == wire.Codes((128,) * 16)
    assert board.firmware.codes.tolist() == [128] * 16
    assert not any(board.firmware.outputs_on)


def test_a_reset_while_pots_are_written_leaves_what_the_host_is_told(make: Make) -> None:
    board = make(MIXED, baud=FAST)
    board.greet()
    codes = (1, 2, 3, 4, 5, 6, 700, 0, 0, 10, 11, 12, 13, 50, 7, 8, 9, 200)
    request = board.raw(wire.Write(0, codes))
    wire_cycles = round(len(request) * 10 / FAST * CLOCK)
    for after in range(0, 12000, 1500):
        board.machine.send(request)
        board.machine.run(wire_cycles + after)
        board.machine.reset()
        board.greet()
        shadow = board.ask(wire.Read(0, 18, shadow=True))
        assert isinstance(shadow, wire.Codes)
        held = board.firmware.codes.tolist()
        for pot, code in enumerate(shadow.codes):
            assert code == wire.NOTHING if pot in {7, 8, 13} else code == held[pot]
        # The counters are unknown now, and the next write finds them all the same.
        assert isinstance(board.ask(wire.Write(7, (5, 6))), wire.Written)
        assert board.firmware.codes[7:9].tolist() == [5, 6]
    assert board.firmware.reports == ()


@pytest.mark.parametrize("seed", range(3))
def test_recovers_within_a_tenth_of_a_second_after_garbage(make: Make, seed: int) -> None:
    board = make(NANO, baud=FAST)
    board.greet()
    garbage = np.random.default_rng(seed).bytes(1000)
    ended = board.machine.feed(garbage).arrived
    ran = board.machine.feed(b"\0" + board.raw(wire.Read(0, 16)))
    last = FrameDecoder(4096).feed(ran.sent)[-1]
    assert wire.decode_reply(last) == wire.Codes((128,) * 16)
    assert (ran.last_sent - ended) / CLOCK < 0.1


def test_bytes_that_come_while_it_is_busy_are_reported_when_lost(make: Make) -> None:
    board = make(NANO, baud=FAST)
    board.greet()
    ran = board.machine.feed(board.raw(wire.Write(0, (1,), settling=10_000)) + b"\0" + b"\x55" * 600 + b"\0")
    kinds = [frame.kind for frame in FrameDecoder(4096).feed(ran.sent)]
    assert kinds[0] == wire.Opcode.WRITE | 0x80
    assert set(kinds[1:]) == {wire.Opcode.NOTICE | 0x80}
    counters = board.ask(wire.ReadCounters())
    assert isinstance(counters, wire.Counters)
    assert counters.overflows == len(kinds) - 1


class TestBaud:
    """The rate can be switched while the board runs, and cannot be lost for good."""

    def test_switches_and_stays_when_it_is_heard(self, make: Make) -> None:
        board = make(NANO)
        assert board.machine.feed(b"SYST:BAUD 1000000\n").sent == b""
        board.machine.host_baud(1_000_000)
        assert board.machine.feed(b"SYST:BAUD?\n").sent == b"1000000\n"
        ran = board.machine.feed(b"", board.machine.feed(b"").cycles + round(5 * CLOCK))
        assert board.machine.feed(b"SYST:BAUD?\n").sent == b"1000000\n", ran

    def test_falls_back_when_nobody_is_heard(self, make: Make) -> None:
        board = make(NANO)
        board.machine.feed(b"SYST:BAUD 1000000\n")
        ran = board.machine.feed(b"", board.machine.feed(b"").cycles + round(2.1 * CLOCK))
        assert board.machine.feed(b"SYST:BAUD?\n").sent == b"115200\n", ran

    def test_a_rate_the_clock_cannot_make_is_refused(self, make: Make) -> None:
        board = make(NANO)
        board.machine.feed(b"SYST:BAUD 900000\nSYST:BAUD 2000000\n")
        assert board.machine.feed(b"SYST:ERR?\nSYST:ERR?\nSYST:BAUD?\n").sent == (
            b'-222,"Data out of range"\n-222,"Data out of range"\n115200\n'
        )

    def test_exit_brings_the_first_rate_back(self, make: Make) -> None:
        board = make(NANO)
        board.greet()
        board.ask(wire.Text("SYST:BAUD 500000"))
        board.machine.host_baud(500_000)
        assert board.ask(wire.Exit()) == wire.Done()
        board.machine.host_baud(115_200)
        assert board.machine.feed(b"SYST:BAUD?\n").sent == b"115200\n"

    def test_the_wrong_rate_is_garbage_and_no_more(self, make: Make) -> None:
        board = make(NANO)
        board.machine.host_baud(57_600)
        board.machine.feed(b"POT 3,5\n")
        board.machine.host_baud(115_200)
        board.machine.feed(b"\n")
        assert board.firmware.codes.tolist() == [128] * 16


def test_boots_are_counted_over_resets(make: Make) -> None:
    board = make(NANO)
    seen = [board.greet().boots]
    for power in (False, True, True):
        board.machine.reset(power=power)
        seen.append(board.greet().boots)
    assert seen == [seen[0] + index for index in range(4)]


def test_a_chip_that_does_not_answer(make: Make) -> None:
    board = make(MIXED, alone=True, baud=FAST)
    board.greet()
    board.machine.fault(6, dead=True)
    assert board.ask(wire.Write(0, (1, 2, 3, 4, 5, 6, 7))) == wire.Refusal(wire.Status.BUS, 6)
    assert board.ask(wire.Write(0, (1,))) == wire.Refusal(wire.Status.SAFE, wire.Reason.FAULT)
    assert board.firmware.codes[:6].tolist() == [20] * 6


def test_a_chip_that_holds_another_code(make: Make) -> None:
    board = make(NANO, alone=True)
    board.greet()
    board.machine.fault(9, code=77)
    assert board.ask(wire.Write(8, (1, 2, 3))) == wire.Refusal(wire.Status.VERIFY, 9)
