"""Faults of an emulated bench: planned at a message or a step, or drawn at random by a seed, and laid into its wires.

docs/reliability.md lists the classes. Instruments have one FaultyLine each, pot boards one FaultyBoardWire; a FaultPlan
tells both what is due. Everything is decided by counting messages, and what lasts ends by the bench's clock.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from hilcl.drivers.potboard_framing import Frame, FrameDecoder
from hilcl.drivers.potboard_protocol import Opcode
from hilcl.faults_section import FaultKind, FaultsSection
from hilcl.sim_backend.emulation.bench_port import BenchPort
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.output_relay import OutputRelay
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard
from hilcl.sim_backend.emulation.potboard_wire import WireControl
from hilcl.sim_backend.emulation.scpi import ScpiError
from hilcl.sim_backend.emulation.server import Delivery, Line

SMU_FAULTS: tuple[FaultKind, ...] = (
    "delayed",
    "lost",
    "dropped",
    "duplicated",
    "half",
    "garbled",
    "slow",
    "reset",
    "refused",
    "dead",
    "power_cycle",
    "brown_out",
    "wrong_serial",
    "error_overflow",
    "nan",
    "overflow",
    "compliance",
    "output_open",
    "output_closed",
    "clock_jump",
)
"""What can happen to a source."""

OF_SOURCES: frozenset[FaultKind] = frozenset({"compliance", "output_open", "output_closed"})

METER_FAULTS: tuple[FaultKind, ...] = (*(kind for kind in SMU_FAULTS if kind not in OF_SOURCES), "glitch")
"""What can happen to a scanning multimeter."""

BOARD_FAULTS: tuple[FaultKind, ...] = (
    "delayed",
    "lost",
    "dropped",
    "duplicated",
    "half",
    "garbled",
    "slow",
    "noise",
    "lost_bytes",
    "reset",
    "dead",
    "power_cycle",
    "brown_out",
    "wrong_serial",
    "overflow",
    "glitch",
    "stuck_pot",
    "pots_reset",
)
"""What can happen to a pot board; ``stuck_relay`` too where it has clamp switches."""

ON_READINGS: frozenset[FaultKind] = frozenset({"nan", "overflow", "compliance", "glitch"})
ON_REPLIES: frozenset[FaultKind] = frozenset({"delayed", "slow", "dropped", "duplicated", "half", "garbled", "reset"})

SLOW_REPLIES = 20
"""How many replies of a slow instrument come late."""

_NUMBER = re.compile(rb"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Fault:
    """One fault at one place, as ``PlannedFault`` of the experiment file has it: seconds, and volts of a glitch."""

    kind: FaultKind
    instrument: str
    message: int = 0
    step: int | None = None
    seconds: float = 0.3
    times: int = 1
    volts: float = 0.3


@dataclass(frozen=True)
class Happened:
    """A fault that happened: to whom, in which step (−1 before the first), with which message from the start."""

    kind: FaultKind
    instrument: str
    step: int
    message: int


@dataclass
class _Counts:
    """Messages of one instrument: from the start, in this step, and in the step before."""

    total: int = 0
    in_step: int = 0
    last_step: int = 1


class FaultPlan:
    """What is to go wrong; asked by every wire at every message, from several threads.

    ``planned`` faults, and in each step with the probability ``rate`` one of ``kinds`` (all if empty) at a random
    message of a random instrument; random ones take their ``seconds`` and ``volts`` from here.
    """

    def __init__(
        self,
        planned: Iterable[Fault] = (),
        *,
        rate: float = 0.0,
        kinds: Sequence[FaultKind] = (),
        seed: int = 0,
        seconds: float = 0.3,
        volts: float = 0.3,
    ) -> None:
        self._lock = threading.RLock()
        self._waiting = list(planned)
        self._rate, self._kinds = rate, tuple(kinds)
        self._seconds, self._volts = seconds, volts
        self._seed = seed
        self._possible: dict[str, tuple[FaultKind, ...]] = {}
        self._counts: dict[str, _Counts] = {}
        self._step = -1
        self._armed = True
        self.happened: list[Happened] = []
        """What has happened so far."""

    @classmethod
    def of(cls, section: FaultsSection) -> "FaultPlan":
        """Return the plan an experiment file describes."""
        planned = [Fault(**each.model_dump()) for each in section.planned]
        return cls(
            planned,
            rate=section.rate,
            kinds=section.kinds,
            seed=section.seed,
            seconds=section.seconds,
            volts=section.volts,
        )

    @property
    def step(self) -> int:
        """How often the pots have been programmed, less one."""
        return self._step

    def add(self, fault: Fault) -> None:
        """Plan one more fault."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Let nothing more happen; what lasts ends with the next message."""
        with self._lock:
            self._waiting.clear()
            self._armed = False

    @property
    def cleared(self) -> bool:
        """Whether everything is to work again."""
        return not self._armed

    def messages(self, instrument: str) -> int:
        """Return how many messages an instrument has had."""
        with self._lock:
            return self._counts[instrument].total

    def place(self, instrument: str) -> tuple[int, int]:
        """Return how often the pots have been programmed, and how many messages an instrument has had since."""
        with self._lock:
            return self._step + 1, self._counts[instrument].in_step

    def possible(self, instrument: str) -> tuple[FaultKind, ...]:
        """Return what can happen to an instrument."""
        return self._possible[instrument]

    def knows(self, instrument: str, possible: tuple[FaultKind, ...]) -> None:
        """Take note of an instrument and of what can happen to it."""
        with self._lock:
            self._possible[instrument] = possible
            self._counts[instrument] = _Counts()

    def next_step(self) -> None:
        """Take note that the pots are being programmed, and draw what happens in this step."""
        with self._lock:
            self._step += 1
            for counts in self._counts.values():
                counts.last_step, counts.in_step = max(counts.in_step, 1), 0
            # A generator for each step: what has been drawn before does not matter.
            random = np.random.default_rng([self._seed, self._step])
            if not (self._armed and self._rate and random.random() < self._rate):
                return
            pairs = [
                (name, kind)
                for name, possible in sorted(self._possible.items())
                for kind in possible
                if not self._kinds or kind in self._kinds
            ]
            if pairs:
                name, kind = pairs[int(random.integers(len(pairs)))]
                message = int(random.integers(self._counts[name].last_step))
                self._waiting.append(
                    Fault(
                        kind=kind,
                        instrument=name,
                        step=self._step,
                        message=message,
                        seconds=self._seconds,
                        volts=self._volts,
                    )
                )

    def snapshot(self) -> dict[str, Any]:
        """Return where the plan is, as JSON values."""
        with self._lock:
            return {
                "step": self._step,
                "counts": {name: asdict(counts) for name, counts in self._counts.items()},
                "waiting": [asdict(fault) for fault in self._waiting],
            }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from where ``snapshot`` was taken."""
        with self._lock:
            self._step = snapshot["step"]
            self._counts |= {name: _Counts(**counts) for name, counts in snapshot["counts"].items()}
            self._waiting = _faults(snapshot["waiting"])

    def due(self, instrument: str) -> list[Fault]:
        """Count a message of an instrument and return what happens with it."""
        with self._lock:
            counts = self._counts[instrument]
            found = [fault for fault in self._waiting if self._is_due(fault, instrument, counts)]
            for fault in found:
                self._waiting.remove(fault)
                self.happened.append(Happened(fault.kind, instrument, self._step, counts.total))
            counts.total += 1
            counts.in_step += 1
            return found

    def _is_due(self, fault: Fault, instrument: str, counts: _Counts) -> bool:
        if fault.instrument != instrument:
            return False
        if fault.step is None:
            return counts.total >= fault.message
        return self._step > fault.step or (self._step == fault.step and counts.in_step >= fault.message)


@dataclass
class _Pending:
    """What is still to happen to replies and readings, and to how many replies more by how much late."""

    replies: list[Fault] = field(default_factory=list)
    readings: list[Fault] = field(default_factory=list)
    slow: tuple[int, float] = (0, 0.0)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return what ``asdict`` made JSON values of."""
        left, seconds = stored["slow"]
        return cls(_faults(stored["replies"]), _faults(stored["readings"]), (left, seconds))


@dataclass
class _Silence:
    """Until when nothing gets through."""

    plan: FaultPlan
    time: Callable[[], float]
    end: float = -math.inf

    def begin(self, seconds: float) -> None:
        self.end = self.time() + seconds

    @property
    def now(self) -> bool:
        return self.time() < self.end and not self.plan.cleared


class FaultyLine:
    """The wire of one instrument that speaks in lines: implements ``Faults`` and ``LineFaults`` of the server.

    ``ports`` are those of its sources, for compliance, and ``relays`` those at its outputs; ``now`` gives seconds,
    ``jump`` moves the bench's clock.
    """

    def __init__(
        self,
        name: str,
        plan: FaultPlan,
        instrument: EmulatedInstrument,
        *,
        possible: tuple[FaultKind, ...],
        ports: Sequence[BenchPort] = (),
        relays: Sequence[OutputRelay] = (),
        now: Callable[[], float] = time.monotonic,
        jump: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._name, self._plan, self._instrument = name, plan, instrument
        self._ports, self._relays, self._jump = tuple(ports), tuple(relays), jump
        self._line: Line | None = None
        self._silence = _Silence(plan, now)
        self.pending = _Pending()
        self._reading: Fault | None = None
        self._other = False
        plan.knows(name, possible)

    def attach(self, line: Line) -> None:
        """Take what breaks connections."""
        self._line = line

    def received(self, line: str) -> str | None:
        """Count the line, let happen what is due, and return the line unless it is lost."""
        gone = self._silence.now
        if self._plan.cleared:
            for relay in self._relays:
                relay.stick(None)
        for fault in self._plan.due(self._name):
            gone = self._begin(fault) or gone
        if gone:
            return None
        if self.pending.readings and _is_reading(line):
            self._reading = self.pending.readings.pop(0)
            for port in self._ports:
                port.tripped = self._reading.kind == "compliance"
        return line

    def replied(self, reply: bytes) -> Delivery | None:
        """Return what becomes of a reply."""
        for port in self._ports:
            port.tripped = False
        reading, self._reading = self._reading, None
        if reading is not None:
            reply = _spoilt(reply, reading)
        if self._other and not self._plan.cleared:
            reply = _other_serial(reply)
        if self.pending.replies:
            return self._delivered(reply, self.pending.replies.pop(0))
        left, seconds = self.pending.slow
        if left and not self._plan.cleared:
            self.pending.slow = (left - 1, seconds)
            return Delivery(reply, seconds)
        return Delivery(reply)

    def _begin(self, fault: Fault) -> bool:
        """Let a fault happen and return whether the line that came with it is lost."""
        kind, instrument = fault.kind, self._instrument
        if kind in ON_READINGS:
            self.pending.readings += [fault] * fault.times
        elif kind in ON_REPLIES:
            self.pending.replies += [fault] * fault.times
            if kind == "slow":
                self.pending.slow = (SLOW_REPLIES, fault.seconds)
        elif kind == "error_overflow":
            for _ in range(200):
                instrument.refuse(ScpiError(-222))
        elif kind == "brown_out":
            _switched_off_and_on(instrument)
        elif kind == "clock_jump":
            self._jump(fault.seconds)
        elif kind in OF_SOURCES and self._relays:
            at = np.random.default_rng(self._plan.place(self._name)).integers(len(self._relays))
            self._relays[int(at)].stick(kind == "output_closed")
        else:
            self._break(fault)
            return True
        return False

    def _break(self, fault: Fault) -> None:
        if fault.kind == "dead":
            self._silence.begin(fault.seconds)
        if fault.kind == "power_cycle":
            _switched_off_and_on(self._instrument)
        if fault.kind == "wrong_serial":
            self._other = True
        if fault.kind in {"refused", "power_cycle", "wrong_serial"} and self._line is not None:
            self._line.refuse(0.0 if fault.kind == "wrong_serial" else fault.seconds)

    def _delivered(self, reply: bytes, fault: Fault) -> Delivery | None:
        match fault.kind:
            case "delayed" | "slow":
                return Delivery(reply, fault.seconds)
            case "duplicated":
                return Delivery(reply * 2)
            case "half":
                return Delivery(reply[: len(reply) // 2])
            case "garbled":
                return Delivery(_garbled(reply))
            case "reset":
                return Delivery(b"", hang_up=True)
            case _:
                return None


class FaultyBoardWire:
    """The wire of a pot board: implements ``WireFaults`` of its server.

    Heartbeats are no messages: they are not counted, and since no time passes with them they come through a silence.
    """

    def __init__(
        self,
        name: str,
        plan: FaultPlan,
        board: EmulatedPotBoard,
        *,
        seed: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._plan, self._board = name, plan, board
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._decoder = FrameDecoder(4096)
        self._wire: WireControl | None = None
        self._silence = _Silence(plan, now)
        self.pending = _Pending()
        self._last = (-1, -1)
        self._own = board.identity
        switches = len(board.switches)
        plan.knows(name, (*BOARD_FAULTS, "stuck_relay") if switches else BOARD_FAULTS)

    def attach(self, wire: WireControl) -> None:
        """Take what breaks the connection."""
        self._wire = wire

    def received(self, data: bytes) -> bytes:
        """Count the frames, let happen what is due, and return the bytes as the board gets them."""
        if self._plan.cleared:
            self._board.identity = self._own
        beats = b""
        for frame in self._decoder.feed(data):
            if frame.kind == Opcode.WATCHDOG:
                beats += frame.encode()
                continue
            self._note_step(frame)
            for fault in self._plan.due(self._name):
                data = self._begin(fault, data)
            if self.pending.readings and frame.kind in {Opcode.SCAN, Opcode.STEP}:
                self._spoil(self.pending.readings.pop(0))
        return beats if self._silence.now else data

    def replied(self, data: bytes) -> bytes:
        """Return the bytes as they leave for the host."""
        if not data:
            return data
        if self.pending.replies:
            return self._delivered(data, self.pending.replies.pop(0))
        left, seconds = self.pending.slow
        if left and not self._plan.cleared:
            self.pending.slow = (left - 1, seconds)
            time.sleep(seconds)
        return data

    def _note_step(self, frame: Frame) -> None:
        again = (frame.kind, frame.seq) == self._last
        self._last = (frame.kind, frame.seq)
        if frame.kind in {Opcode.WRITE, Opcode.COMMIT, Opcode.STEP} and not again:
            self._plan.next_step()

    def _begin(self, fault: Fault, data: bytes) -> bytes:
        """Let a fault happen and return what is left of the bytes that came with it."""
        self._random = np.random.default_rng([self._seed, *self._plan.place(self._name)])
        match fault.kind:
            case "lost":
                return b""
            case "lost_bytes":
                at = int(self._random.integers(max(len(data) - 2, 1)))
                return data[:at] + data[at + 2 :]
            case "noise":
                return self._random.integers(0, 256, 12, dtype=np.uint8).tobytes() + data
            case "overflow" | "glitch":
                self.pending.readings += [fault] * fault.times
            case "dead":
                self._silence.begin(fault.seconds)
            case "reset":
                if self._wire is not None:
                    self._wire.break_off(fault.seconds)
                return b""
            case "delayed" | "slow" | "dropped" | "duplicated" | "half" | "garbled":
                self.pending.replies += [fault] * fault.times
                if fault.kind == "slow":
                    self.pending.slow = (SLOW_REPLIES, fault.seconds)
            case _:
                self._harm(fault)
        return data

    def _harm(self, fault: Fault) -> None:
        """Let a fault of the board itself happen."""
        board = self._board
        match fault.kind:
            case "power_cycle":
                board.reset()
                self._silence.begin(fault.seconds)
            case "brown_out":
                board.reset()
            case "wrong_serial":
                maker, model, _, firmware = self._own.split(",")
                board.identity = f"{maker},{model},999999,{firmware}"
                board.reset()
            case "pots_reset":
                board.forget_codes()
            case "stuck_pot":
                pot = int(self._random.integers(len(board.codes)))
                board.faults.stuck[pot] = (int(board.codes[pot]) + 7) % (board.highest(pot) + 1)
            case _:
                switches = board.switches
                switch = switches[int(self._random.integers(len(switches)))]
                board.weld(switch, not board.is_closed(switch))

    def _spoil(self, fault: Fault) -> None:
        channels = self._board.adc_models
        channel = int(self._random.integers(len(channels)))
        model = channels[channel]
        off = 1 << 40 if fault.kind != "glitch" else round(fault.volts / model.span * (1 << model.bits))
        self._board.faults.glitches[channel] = off

    def _delivered(self, data: bytes, fault: Fault) -> bytes:
        match fault.kind:
            case "delayed" | "slow":
                time.sleep(fault.seconds)
                return data
            case "duplicated":
                return data * 2
            case "half":
                return data[: len(data) // 2]
            case "garbled":
                spoilt = bytearray(data)
                for at in self._random.integers(1, max(len(data) - 1, 2), 3).tolist():
                    spoilt[at] ^= 0x55
                return bytes(spoilt)
            case _:
                return b""


@dataclass
class BenchFaults:
    """The faulty wires of a bench: by instrument, and by pot board."""

    plan: FaultPlan
    lines: dict[str, FaultyLine] = field(default_factory=dict)
    boards: dict[str, FaultyBoardWire] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """Return where the plan and its wires are, as JSON values; silences and what is broken are left out."""
        wires = {name: asdict(wire.pending) for name, wire in self._wires().items()}
        return {"plan": self.plan.snapshot(), "wires": wires}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from where ``snapshot`` was taken, unless everything is to work again."""
        if self.plan.cleared:
            return
        self.plan.restore(snapshot["plan"])
        for name, wire in self._wires().items():
            wire.pending = _Pending.of(snapshot["wires"][name])

    def _wires(self) -> dict[str, FaultyLine | FaultyBoardWire]:
        return {**self.lines, **self.boards}


@dataclass(frozen=True)
class SourceFaults:
    """What may fail at the outputs of sources, by instrument: ``ports`` report their limit, ``relays`` stick."""

    ports: Mapping[str, Sequence[BenchPort]]
    relays: Mapping[str, Sequence[OutputRelay]]


def lay(
    plan: FaultPlan,
    instruments: Mapping[str, EmulatedInstrument],
    boards: Mapping[str, EmulatedPotBoard],
    sources: SourceFaults,
    nows: Mapping[str, Callable[[], float]],
    jump: Callable[[float], None],
) -> BenchFaults:
    """Return the wires on which a plan happens."""
    laid = BenchFaults(plan)
    for name, instrument in instruments.items():
        possible = SMU_FAULTS if instrument.outputs_on else METER_FAULTS
        laid.lines[name] = FaultyLine(
            name,
            plan,
            instrument,
            possible=possible,
            ports=sources.ports.get(name, ()),
            relays=sources.relays.get(name, ()),
            now=nows[name],
            jump=jump,
        )
    for index, (name, board) in enumerate(boards.items()):
        laid.boards[name] = FaultyBoardWire(name, plan, board, seed=index, now=nows[name])
    return laid


def _faults(stored: Iterable[Mapping[str, Any]]) -> list[Fault]:
    return [Fault(**each) for each in stored]


def _switched_off_and_on(instrument: EmulatedInstrument) -> None:
    instrument.handle("*RST")
    instrument.handle("*CLS")


def _is_reading(line: str) -> bool:
    upper = line.upper()
    return any(word in upper for word in ("READ?", "MEASURE.IV", "MEASURE.OVERLAPPEDIV", "FETC", "TRAC:DATA"))


def _spoilt(reply: bytes, fault: Fault) -> bytes:
    """Return a reply whose first number is not what was measured."""
    found = _NUMBER.search(reply)
    if found is None or fault.kind == "compliance":
        return reply
    if fault.kind == "glitch":
        number = b"%+.9E" % (float(found[0]) + fault.volts)
    else:
        number = b"+9.910000E+37" if fault.kind == "nan" else b"+9.900000E+37"
    return reply[: found.start()] + number + reply[found.end() :]


def _other_serial(reply: bytes) -> bytes:
    """Return another instrument's answer to ``*IDN?``, and every other answer as it is."""
    fields = reply.split(b",")
    maker = fields[0].upper()
    if len(fields) == 4 and (b"KEITHLEY" in maker or b"KEYSIGHT" in maker or b"HEWLETT" in maker):
        fields[2] = b" 999999"
    return b",".join(fields)


def _garbled(reply: bytes) -> bytes:
    """Return a reply in which every third character is none that an instrument sends."""
    body = bytearray(reply.rstrip(b"\n"))
    body[::3] = b"\x7f" * len(body[::3])
    return bytes(body) + b"\n"
