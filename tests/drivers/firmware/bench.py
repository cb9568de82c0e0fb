"""The firmware's protocol on the host, the emulator in Python beside it, and sequences of chance for both."""

import ctypes
import random
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.firmware.build import Built, build, copy_sources
from hilcl.drivers.firmware.header import render
from hilcl.drivers.firmware.wiring import Wiring, read_wiring
from hilcl.drivers.potboard_framing import Frame, FrameDecoder
from hilcl.drivers.potboard_text import COMMANDS
from hilcl.sim_backend.emulation.firmware import models_of
from hilcl.sim_backend.emulation.port import OPEN, Applied, Seen
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard, PotFaults, SwitchedPort

HOST = Path(__file__).parent / "host"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wshadow"]

NANO: dict[str, object] = {
    "board": "nano",
    "pots": [{"chip": "MCP4351", "select": ["D2", "D3", "D4", "D5"], "safe": 200}],
    "adc": {"channels": [f"A{index}" for index in range(8)]},
    "sources": [{"select": "D6", "switches": [0, 1]}],
    "switches": ["D7", "D8", "D9"],
}
"""Sixteen pots on SPI with readback, two sources with clamp switches, and a free switch."""

MIXED: dict[str, object] = {
    "board": "mega",
    "serial": "7",
    "pots": [
        {"chip": "AD5206", "select": ["D22"], "safe": 20},
        {"chip": "AD5272", "address": ["vdd"], "safe": 30},
        {"chip": "AD5220", "select": ["D36", "D37"], "up_down": "D38", "clock": "D39"},
        {"chip": "AD5144", "select": ["D23"]},
        {"chip": "X9C103", "select": ["D34"], "up_down": "D33", "clock": "D32"},
        {"chip": "DS1803", "address": [0x28], "safe": 60},
        {"chip": "ISL22316", "address": [0x2A]},
        {"chip": "MCP4551", "address": [0x2E]},
    ],
    "adc": {"channels": [f"A{index}" for index in range(16)], "volts": 4.096},
    "sources": [{"select": "D40", "switches": [0, -1]}],
    "switches": ["D41", "D42"],
}
"""Every bus and nearly every way a chip is talked to."""


NUMBERS = ("0", "1", "2", "3", "+1", "-1", "15", "300", "70000", "x", "1.5", "0000000001")
VOLTS = ("0", "1.5", "2.5E0", "-1", "5.0000001", "FLOAT", "float", ".25", "3e-3", "1e9", "7E99", "x", "1e-99", "1.")


def wiring(table: dict[str, object], **changes: object) -> Wiring:
    return read_wiring({**table, **changes}, "1.0")


_builds: dict[str, tuple[tempfile.TemporaryDirectory[str], Built]] = {}


def built(board: Wiring) -> Built:
    """Return the firmware for a wiring, compiled once in a test run."""
    key = board.board.name + render(board)
    if key not in _builds:
        folder = tempfile.TemporaryDirectory(prefix="hilcl-firmware-")
        _builds[key] = folder, build(board, Path(folder.name))
    return _builds[key][1]


def compile_host(board: Wiring, folder: Path, sources: list[str], *options: str, output: str) -> Path:
    """Compile the protocol, and more, for this computer."""
    copy_sources(folder)
    (folder / "wiring.h").write_text(render(board), encoding="ascii")
    built = folder / output
    files = ["protocol.c", "text.c", *(str(HOST / name) for name in sources)]
    subprocess.run(["gcc", *WARNINGS, "-I.", *options, "-o", built.name, *files], cwd=folder, check=True)
    return built


class HostFirmware:
    """The firmware's protocol as a board: ``feed`` and ``tick`` as the emulated board has them."""

    def __init__(self, board: Wiring, folder: Path, volts: FloatArray, *options: str) -> None:
        built = compile_host(board, folder, ["host.c"], "-O1", "-shared", "-fPIC", *options, output="potboard.so")
        self._library = ctypes.CDLL(str(built))
        self._library.host_feed.restype = ctypes.c_size_t
        self._library.host_code.restype = ctypes.c_uint16
        self._answer = ctypes.create_string_buffer(65536)
        self._wiring, self._volts = board, volts
        self._boots = 0
        self.reset()

    def reset(self) -> None:
        self._boots += 1
        self._library.host_start(ctypes.c_uint16(self._boots))
        if self._wiring.adc is not None:
            for channel, volts in enumerate(self._volts.tolist()):
                self._library.host_adc(channel, min(max(round(volts / self._wiring.adc.volts * 1024), 0), 1023))

    def feed(self, data: bytes, now: float) -> bytes:
        count = self._library.host_feed(data, ctypes.c_size_t(len(data)), ctypes.c_uint32(_ms(now)), self._answer)
        return self._answer.raw[:count]

    def tick(self, now: float) -> None:
        self._library.host_tick(ctypes.c_uint32(_ms(now)))

    @property
    def codes(self) -> list[int]:
        return [self._library.host_code(ctypes.c_uint16(pot)) for pot in range(self._wiring.pots)]

    def fault(self, pot: int, code: int | None, *, dead: bool) -> None:
        self._library.host_fault(ctypes.c_uint16(pot), ctypes.c_int32(-1 if code is None else code), dead)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class Terminal:
    def __init__(self) -> None:
        self.applied = OPEN

    def apply(self, applied: Applied) -> None:
        self.applied = applied

    def see(self) -> Seen:
        return Seen(0.0, 0.0, limited=False)


def emulated(board: Wiring, volts: FloatArray, boots: int = 1) -> tuple[EmulatedPotBoard, PotFaults]:
    """Return the emulator in Python for the same board, after so many starts."""
    pots, adcs, sources = models_of(board)
    owned = {source.switch for source in sources}
    faults = PotFaults()
    twin = EmulatedPotBoard(
        pots,
        lambda codes: None,
        adcs=adcs,
        read_nodes=lambda: volts,
        sources=sources,
        ports=[Terminal() for _ in sources],
        switches={index: SwitchedPort(Terminal()) for index in range(len(board.switches)) if index not in owned},
        identity=board.identity,
        faults=faults,
    )
    for _ in range(boots - 1):
        twin.reset()
    return twin, faults


def without_window(answer: bytes) -> bytes:
    """Return an answer with the receive window of HELLO, which is the board's own affair, put to 0."""
    decoder = FrameDecoder(4096)
    if b"\0" not in answer:
        return answer
    text, _, binary = answer.partition(b"\0")
    frames = decoder.feed(b"\0" + binary)
    encoded = b""
    for frame in frames:
        payload = frame.payload
        if frame.kind == wire.Opcode.HELLO | 0x80 and payload[:1] == b"\0":
            payload = payload[:14] + b"\0\0" + payload[16:]
        encoded += Frame(frame.kind, frame.seq, payload).encode()
    return text + encoded


@dataclass
class Sequences:
    """Commands of chance for one board, well formed and not."""

    board: Wiring
    seed: int
    longest_settling: int = 300
    pauses: tuple[float, ...] = (*[0.001] * 12, 0.5, 0.5, 7.0, 30.0)
    chance: random.Random = field(init=False)
    staged: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def sequence(self) -> list[tuple[float, bytes]]:
        """Return pieces of one conversation, which begins in any mode, each with the seconds of silence before it."""
        self.staged = {}
        pieces = [(self._pause(), self._piece()) for _ in range(self.chance.randint(2, 8))]
        if self.chance.random() < 0.8:
            pieces.insert(0, (0.0, wire.request_frame(wire.Hello(), 0).encode()))
        return pieces

    def _pause(self) -> float:
        return self.chance.choice(self.pauses)

    def _piece(self) -> bytes:
        kind = self.chance.random()
        if kind < 0.12:
            return self._line().encode("latin-1") + self.chance.choice([b"\n", b"\r\n", b"\n\n"])
        if kind < 0.16:
            return bytes(self.chance.choices(range(256), k=self.chance.randint(1, 400)))
        frame = self._frame()
        data = bytearray(frame.encode())
        if kind < 0.24:
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        if kind > 0.93:
            data = data * 2
        if self.chance.random() < 0.03:
            del data[self.chance.randrange(len(data)) :]
        return bytes(data)

    def _frame(self) -> Frame:
        request = self._request()
        seq = 0 if isinstance(request, wire.Hello) else self.chance.randint(1, 255)
        if self.chance.random() < 0.03:
            seq = self.chance.randint(0, 2)
        payload = bytearray(request.encode())
        spoil = self.chance.random()
        if request.opcode != wire.Opcode.EXIT:
            if spoil < 0.05:
                payload += bytes(self.chance.choices(range(256), k=self.chance.randint(1, 9)))
            elif spoil < 0.1 and payload:
                del payload[self.chance.randrange(len(payload)) :]
            elif spoil < 0.2 and payload:
                payload[self.chance.randrange(len(payload))] = self.chance.choice([0, 1, 2, 255, 128])
        opcode = self.chance.randrange(128, 256) if self.chance.random() < 0.02 else int(request.opcode)
        if request.opcode == wire.Opcode.EXIT and seq == 0:
            seq = 1
        return Frame(opcode, seq, self._calm(opcode, bytes(payload)))

    def _calm(self, opcode: int, payload: bytes) -> bytes:
        """Return a payload whose settling is short enough to be emulated, and its watchdog no matter of rounding."""
        if opcode == wire.Opcode.WATCHDOG and len(payload) == 2 and 0 < int.from_bytes(payload) < 1000:
            return (5000).to_bytes(2)
        places = {
            wire.Opcode.WRITE: 4,
            wire.Opcode.COMMIT: 3,
            wire.Opcode.SOURCE: 0,
            wire.Opcode.SWITCH: 0,
            wire.Opcode.STEP: 13 + 9 * (payload[2] if len(payload) > 2 else 0),
        }
        at = places.get(wire.Opcode(opcode)) if opcode in set(wire.Opcode) else None
        if at is None or len(payload) < at + 4:
            return payload
        return payload[:at] + self.chance.randint(0, self.longest_settling).to_bytes(4, "big") + payload[at + 4 :]

    def _request(self) -> wire.Request:  # noqa: PLR0912  # one case per request
        chance, pots = self.chance, self.board.pots
        first = chance.randint(0, pots - 1)
        codes = tuple(self._code(first + index) for index in range(chance.randint(1, 6)))
        settling = chance.randint(0, self.longest_settling)
        match chance.randrange(17):
            case 0:
                return wire.Hello(chance.choice([1, 1, 1, 2]))
            case 1:
                return wire.Describe(wire.Kind(chance.randrange(3)), chance.randrange(4))
            case 2:
                return wire.ReadCounters()
            case 3 | 4:
                self.staged.update(enumerate(codes, first))
                return wire.Stage(first, codes)
            case 5:
                staged, self.staged = self.staged, {}
                crc = wire.stage_crc(sorted(staged.items())) if chance.random() < 0.9 else chance.randrange(65536)
                return wire.Commit(crc, chance.random() < 0.8, settling)
            case 6 | 7 | 8:
                return wire.Write(first, codes, chance.random() < 0.7, settling)
            case 9:
                return wire.Read(first, chance.randint(0, 20), chance.random() < 0.5)
            case 10:
                return self._scan()
            case 11:
                return wire.Step(wire.Write(first, codes, True, settling), self._levels(), self._scan())
            case 12:
                return wire.SetSources(self._levels(), settling)
            case 13:
                switches = tuple((chance.randint(0, len(self.board.switches)), chance.random() < 0.5) for _ in range(2))
                return wire.SetSwitches(switches, settling)
            case 14:
                return wire.Watchdog(chance.choice([0, 5000, 20000]))
            case 15:
                return wire.Safe(wire.SafeAction(chance.choice([0, 1, 2, 2])))
            case _:
                return wire.Exit() if chance.random() < 0.3 else wire.Text(self._line())

    def _code(self, pot: int) -> int:
        for group in self.board.groups:
            if group.first <= pot < group.first + group.count:
                highest = group.chip.positions - 1
                return self.chance.randint(0, highest if self.chance.random() < 0.97 else highest + 1)
        return 0

    def _scan(self) -> wire.Scan:
        chance = self.chance
        channels = 0 if self.board.adc is None else len(self.board.adc.channels)
        first = chance.randint(0, channels)
        count = chance.randint(0, channels - first + 1)
        width = chance.choice([2, 4, 7, 7, 8])
        return wire.Scan(first, count, chance.choice([1, 1, 2, 7, 65]), width, chance.random() < 0.4)

    def _levels(self) -> tuple[wire.Level, ...]:
        chance = self.chance
        return tuple(
            wire.Level(
                chance.randint(0, len(self.board.sources)),
                wire.FLOAT if chance.random() < 0.3 else chance.randint(-(10**8), 5 * 10**9 + 10**8),
            )
            for _ in range(chance.randint(0, 3))
        )

    def _line(self) -> str:
        chance = self.chance
        name = chance.choice(list(COMMANDS))
        words = "".join(each for each in name if not each.islower()) if chance.random() < 0.5 else name
        words = words.lower() if chance.random() < 0.3 else words
        fields = []
        for kind in COMMANDS[name].split(","):
            if kind == "n":
                fields.append(chance.choice(NUMBERS))
            elif kind == "v":
                fields.append(chance.choice(VOLTS))
        text = words + (" " + chance.choice([",", ", ", " ,"]).join(fields) if fields else "")
        if name == "WATChdog":
            text = words + " 0"
        if chance.random() < 0.1:
            text += chance.choice([";", " ; ", ",1", " 1", "?", "x" * 90])
        if chance.random() < 0.1:
            text = chance.choice([" ", ":", "\t", "::"]) + text
        return text


def volts_of(board: Wiring) -> FloatArray:
    """Return volts at the ADC's pins, no two alike and none midway between two codes."""
    count = 0 if board.adc is None else len(board.adc.channels)
    span = 5.0 if board.adc is None else board.adc.volts
    return np.array([(37 + 61 * index + 0.25) / 1024 * span for index in range(count)])
