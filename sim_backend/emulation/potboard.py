"""The emulated pot board without its wire: bytes in, bytes out, in text and binary, with pots, ADC, sources, switches.

docs/potboard-protocol.md is what it does. Time comes in with the bytes; only settling and conversions pass on the
bench's clock, while the watchdog measures the host's silence in the caller's seconds.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_framing import OVERHEAD, Frame, FrameDecoder
from hilcl.drivers.potboard_protocol import ProtocolError, Reason, Refusal, Status, Verdict
from hilcl.drivers.potboard_text import LONGEST_LINE, VERSION, Command, TextError, error_text, parse_line
from hilcl.errors import InputError
from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port, Seen
from hilcl.sim_backend.emulation.server import LineBuffer
from hilcl.sim_backend.emulation.status import ErrorQueue

FRAME_LIMIT = 250
"""Bytes of a decoded frame a small microcontroller takes."""


Moving = wire.Commit | wire.Write | wire.Step | wire.SetSources | wire.SetSwitches


@dataclass(frozen=True)
class PotModel:
    """A group of ``count`` like pots; codes 0 … ``highest``, ``safe`` in the safe state. Flags as DESC reports them."""

    chip: str
    count: int
    highest: int
    power_on: int
    safe: int
    readback: bool = True
    nonvolatile: bool = False
    latch: bool = False
    counter: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.highest < wire.NOTHING:
            raise InputError(f"a group of {self.count} pots {self.chip} with codes up to {self.highest} cannot be")
        for name in ("power_on", "safe"):
            if not 0 <= getattr(self, name) <= self.highest:
                raise InputError(f"the {name} code of {self.chip} must lie between 0 and {self.highest}")


@dataclass(frozen=True)
class AdcModel:
    """A group of ``count`` like ADC channels: ``span`` volts over 2^``bits`` codes, 0 V at code ``zero``.

    ``conversion`` seconds per reading; ``noise`` codes rms.
    """

    count: int
    bits: int = 16
    zero: int = 0
    span: float = 5.0
    conversion: float = 50e-6
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (self.count >= 1 and 1 <= self.bits <= 32 and 0 <= self.zero < 1 << self.bits and self.span > 0):
            raise InputError(f"an ADC with {self.bits} bits over {self.span} V and 0 V at code {self.zero} cannot be")


@dataclass(frozen=True)
class SourceModel:
    """A source of ``lowest`` … ``highest`` volts behind ``series`` ohms, limited to ±``limit`` amperes.

    ``switch``: number of the clamp switch that connects it, None where it always is.
    """

    lowest: float = 0.0
    highest: float = 5.0
    switch: int | None = None
    series: float = 0.0
    limit: float = float("inf")


@dataclass
class PotFaults:
    """What may be wrong with the board.

    Pots ``stuck`` at a code or ``dead`` on the bus, switches ``welded`` open (False) or closed (True), and
    ``glitches``: by how many codes the next single conversion of a channel is off.
    """

    stuck: dict[int, int] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    welded: dict[int, bool] = field(default_factory=dict)
    glitches: dict[int, int] = field(default_factory=dict)


class SwitchedPort:
    """A clamp switch in the wire between another instrument and its node; open until the board closes it."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._applied = OPEN
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the switch connects."""
        return self._closed

    def set(self, closed: bool) -> None:
        """Open or close the switch."""
        if closed != self._closed:
            self._closed = closed
            self._port.apply(self._applied if closed else OPEN)

    def apply(self, applied: Applied) -> None:
        """Change what the instrument does to its side of the switch."""
        self._applied = applied
        if self._closed:
            self._port.apply(applied)

    def see(self) -> Seen:
        """Return the state at the instrument's terminals: behind an open switch there is nothing."""
        if self._closed:
            return self._port.see()
        applied = self._applied
        if applied.kind == "current" and applied.level != 0:
            return Seen(float(np.copysign(applied.limit, applied.level)), 0.0, limited=True)
        return Seen(applied.level if applied.kind == "voltage" else 0.0, 0.0, limited=False)


class EmulatedPotBoard:
    """A pot board. ``set_codes`` gets the codes (P,) the chips hold whenever they change, and once at power-on.

    ``read_nodes`` returns the volts (A,) at the ADC's channels; ``ports`` are the sources' terminals in order and
    ``switches`` the clamp switches, by number, that connect other instruments. All are called by whoever calls
    ``feed``, ``tick`` and ``reset``, one at a time.

    Raises InputError for a board that cannot be.
    """

    def __init__(
        self,
        pots: Sequence[PotModel],
        set_codes: Callable[[IntArray], None],
        *,
        adcs: Sequence[AdcModel] = (),
        read_nodes: Callable[[], FloatArray] | None = None,
        sources: Sequence[SourceModel] = (),
        ports: Sequence[Port] = (),
        switches: Mapping[int, SwitchedPort] | None = None,
        clock: Clock | None = None,
        identity: str = "hilcl,emulated pot board,0,1.0",
        frame_limit: int = FRAME_LIMIT,
        faults: PotFaults | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        self.identity = identity
        self.faults = PotFaults() if faults is None else faults
        self._models = [model for model in pots for _ in range(model.count)]
        self._pot_groups, self._adc_groups = tuple(pots), tuple(adcs)
        self._adcs = [model for model in adcs for _ in range(model.count)]
        self._sources, self._ports = tuple(sources), tuple(ports)
        self._switches = dict(switches or {})
        if len(self._sources) != len(self._ports):
            raise InputError(f"{len(self._sources)} sources of the pot board need as many ports")
        if self._adcs and read_nodes is None:
            raise InputError("the ADC of the pot board needs nodes to read")
        owned = [source.switch for source in self._sources if source.switch is not None]
        if sorted({*owned, *self._switches}) != list(range(len(owned) + len(self._switches))):
            raise InputError("the switches of the pot board are numbered 0, 1, …, each with one source or port")
        self._set_codes, self._clock = set_codes, clock
        self._read_nodes = read_nodes or (lambda: np.empty(0))
        self._limit = frame_limit
        self._noise = np.random.default_rng(seed)
        self._lock = threading.RLock()
        self._boots = 0
        self._watchdog, self._heard = 0, 0.0
        self._writes = self._replays = self._expiries = 0
        self._start()

    # What whoever serves and tests the board calls.

    @property
    def codes(self) -> IntArray:
        """Codes the chips hold, (P,)."""
        with self._lock:
            return np.array([self._held(pot) for pot in range(len(self._models))], dtype=np.int64)

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which sources drive something else than 0 V, and then which switches are closed for other instruments."""
        with self._lock:
            driving = [self._connected(source) and self._levels[source] != 0 for source in range(len(self._sources))]
            return (*driving, *(self._switches[switch].closed for switch in sorted(self._switches)))

    @property
    def switches(self) -> tuple[int, ...]:
        """Numbers of all clamp switches, the sources' own included."""
        return tuple(range(len(self._closed)))

    @property
    def adc_models(self) -> tuple[AdcModel, ...]:
        """What each ADC channel is."""
        return tuple(self._adcs)

    def highest(self, pot: int) -> int:
        """Return the highest code of a pot."""
        return self._models[pot].highest

    def is_closed(self, switch: int) -> bool:
        """Return whether a switch connects."""
        return self._is_closed(switch)

    @property
    def writes(self) -> int:
        """How often pots have been written since the start: a replayed request does not count."""
        return self._writes

    @property
    def latched(self) -> Reason:
        """Why the board refuses to leave the safe state, if it does."""
        return self._latched

    def reset(self) -> None:
        """Start again, as after a brown-out: power-on codes, outputs off, text mode."""
        with self._lock:
            self._start()

    def forget_codes(self) -> None:
        """Let the pots alone lose their supply for a moment: power-on codes, and the board does not know."""
        with self._lock:
            self._codes = [model.power_on for model in self._models]
            self._put_codes()

    def tick(self, now: float) -> None:
        """Let the watchdog look at the time, seconds."""
        with self._lock:
            if self._watchdog and now - self._heard > self._watchdog / 1000:
                self._watchdog = 0
                self._expiries += 1
                self._make_safe(Reason.WATCHDOG)

    def feed(self, data: bytes, now: float) -> bytes:
        """Take bytes that came at ``now`` seconds, and return the answer."""
        with self._lock:
            self.tick(now)
            answer = bytearray()
            while data:
                if self._binary:
                    end = data.find(b"\0") + 1 or len(data)
                    piece, data = data[:end], data[end:]
                    answer += self._feed_binary(piece, now)
                else:
                    end = data.find(b"\0")
                    piece, data = (data, b"") if end < 0 else (data[:end], data[end:])
                    answer += self._feed_text(piece, now)
                    if data:
                        self._enter_binary()
            return bytes(answer)

    # Starting, modes.

    def _start(self) -> None:
        self._boots = self._boots % 0xFFFF + 1
        self._binary = False
        self._greeted = False
        self._lines = LineBuffer(LONGEST_LINE)
        self._frames = FrameDecoder(self._limit)
        self._errors = ErrorQueue(16)
        self._codes = [model.power_on for model in self._models]
        self._homed = [not model.counter for model in self._models]
        self._staged: dict[int, int] = {}
        self._stored: tuple[int, int, Frame] | None = None
        self._levels = [0] * len(self._sources)
        self._closed = [False] * (len(self._switches) + sum(each.switch is not None for each in self._sources))
        self._watchdog, self._heard = 0, 0.0
        self._latched = Reason.NONE
        self._writes = self._replays = self._expiries = 0
        self._put_sources()
        self._put_codes()

    def _enter_binary(self) -> None:
        self._binary = True
        self._lines = LineBuffer(LONGEST_LINE)
        self._frames.reset()

    # Binary.

    def _feed_binary(self, data: bytes, now: float) -> bytes:
        overflows = self._frames.overflows
        frames = self._frames.feed(data, now)
        answer = b""
        if self._frames.overflows > overflows:
            answer += wire.reply_frame(wire.Opcode.NOTICE, 0, Refusal(Status.OVERFLOW)).encode()
        for frame in frames:
            self._heard = now
            reply = self._answer(frame)
            answer += reply.encode()
            if frame.kind == wire.Opcode.EXIT and reply.payload[:1] == bytes((Status.OK,)):
                self._binary = False
        return answer

    def _answer(self, frame: Frame) -> Frame:
        if frame.seq and self._stored is not None and self._stored[:2] == (frame.seq, frame.crc):
            self._replays += 1
            return self._stored[2]
        try:
            reply = self._execute(frame)
        except ProtocolError as error:
            reply = Refusal(error.status, error.detail)
            if frame.kind == wire.Opcode.COMMIT:
                self._staged = {}
        answer = wire.reply_frame(frame.kind, frame.seq, reply)
        if len(answer.payload) + OVERHEAD > self._limit:
            answer = wire.reply_frame(frame.kind, frame.seq, Refusal(Status.LENGTH))
        if frame.seq:
            self._stored = (frame.seq, frame.crc, answer)
        return answer

    def _execute(self, frame: Frame) -> wire.Reply | Refusal:
        request = wire.decode_request(frame)
        if isinstance(request, wire.Hello) != (frame.seq == 0):
            raise ProtocolError(Status.RANGE)
        if not self._greeted and not isinstance(request, wire.Hello):
            raise ProtocolError(Status.GREETING)
        if isinstance(request, Moving):
            return self._move(request)
        match request:
            case wire.Hello():
                return self._hello(request)
            case wire.Describe():
                return self._describe(request)
            case wire.ReadCounters():
                return self._counters()
            case wire.Stage():
                self._check_codes(request.first, request.codes)
                self._staged.update(enumerate(request.codes, request.first))
                return wire.Staged(len(self._staged))
            case wire.Read():
                return self._read(request)
            case wire.Scan():
                self._check_scan(request, 0)
                return self._scan(request)
            case wire.Watchdog():
                self._watchdog = request.milliseconds
                return wire.Watching(self._watchdog, self._latched)
            case wire.Safe():
                return self._safe(request.action)
            case wire.Text():
                return wire.Answer("\n".join(self._line(request.line)))
        self._watchdog = 0
        self._outputs_off()
        return wire.Done()

    def _move(self, request: Moving) -> wire.Reply:
        """Carry out a request that the safe state refuses."""
        if self._latched != Reason.NONE:
            raise ProtocolError(Status.SAFE, self._latched)
        match request:
            case wire.Commit():
                staged, self._staged = self._staged, {}
                if wire.stage_crc(sorted(staged.items())) != request.crc:
                    raise ProtocolError(Status.STAGE_CRC)
                written = self._write(staged, request.verify)
                self._spend(request.settling)
                return written
            case wire.Write():
                self._check_codes(request.first, request.codes)
                written = self._write(dict(enumerate(request.codes, request.first)), request.verify)
                self._spend(request.settling)
                return written
            case wire.Step():
                return self._step(request)
            case wire.SetSources():
                self._check_levels(request.levels)
                self._drive(request.levels)
            case wire.SetSwitches():
                self._switch(request.switches)
        self._spend(request.settling)
        return wire.Done()

    def _hello(self, request: wire.Hello) -> wire.Reply:
        if request.major != wire.MAJOR:
            raise ProtocolError(Status.VERSION, wire.MAJOR << 8 | wire.MINOR)
        self._greeted = True
        self._staged = {}
        self._stored = None
        return wire.Greeting(
            boots=self._boots,
            pots=len(self._models),
            pot_groups=len(self._pot_groups),
            adcs=len(self._adcs),
            adc_groups=len(self._adc_groups),
            sources=len(self._sources),
            switches=len(self._closed),
            frame_limit=self._limit,
            window=2 * self._limit,
            latched=self._latched,
            identity=self.identity,
        )

    def _describe(self, request: wire.Describe) -> wire.Reply:
        groups = (self._pot_groups, self._adc_groups, self._sources)[request.kind]
        if request.index >= len(groups):
            raise ProtocolError(Status.RANGE, request.index)
        group = groups[request.index]
        match group:
            case PotModel():
                first = sum(each.count for each in self._pot_groups[: request.index])
                return wire.PotsDescription(
                    group.chip,
                    first,
                    group.count,
                    group.highest,
                    group.power_on,
                    group.safe,
                    group.readback,
                    group.nonvolatile,
                    group.latch,
                    group.counter,
                )
            case AdcModel():
                first = sum(each.count for each in self._adc_groups[: request.index])
                span, conversion = round(group.span * 1e9), round(group.conversion * 1e6)
                return wire.AdcDescription(first, group.count, group.bits, group.zero, span, conversion)
            case SourceModel():
                switch = wire.NO_SWITCH if group.switch is None else group.switch
                return wire.SourceDescription(switch, round(group.lowest * 1e9), round(group.highest * 1e9))

    def _counters(self) -> wire.Counters:
        return wire.Counters(self._frames.crc_errors, self._frames.overflows, self._replays, self._expiries)

    def _step(self, request: wire.Step) -> wire.Reply:
        self._check_codes(request.write.first, request.write.codes)
        self._check_levels(request.levels)
        self._check_scan(request.scan, 5)
        written = self._write(dict(enumerate(request.write.codes, request.write.first)), request.write.verify)
        self._drive(request.levels)
        self._spend(request.write.settling)
        return wire.Stepped(written, self._scan(request.scan))

    # Pots.

    def _check_codes(self, first: int, codes: Sequence[int]) -> None:
        for pot, code in enumerate(codes, first):
            if pot >= len(self._models) or code > self._models[pot].highest:
                raise ProtocolError(Status.RANGE, pot)

    def _held(self, pot: int) -> int:
        return self.faults.stuck.get(pot, self._codes[pot])

    def _put_codes(self) -> None:
        self._set_codes(np.array([self._held(pot) for pot in range(len(self._models))], dtype=np.int64))

    def _write(self, codes: Mapping[int, int], verify: bool) -> wire.Written:
        """Write codes that are known to be valid; a fault leaves the board safe."""
        dead = sorted(self.faults.dead & codes.keys())
        if dead:
            self._make_safe(Reason.FAULT)
            raise ProtocolError(Status.BUS, dead[0])
        self._writes += 1
        for pot, code in codes.items():
            self._codes[pot] = code
            self._homed[pot] = True
        self._put_codes()
        readable = [pot for pot in sorted(codes) if self._models[pot].readback]
        wrong = [pot for pot in readable if self._held(pot) != codes[pot]]
        if verify and wrong:
            self._make_safe(Reason.FAULT)
            raise ProtocolError(Status.VERIFY, wrong[0])
        verdict = Verdict.VERIFIED if len(readable) == len(codes) else Verdict.UNVERIFIABLE
        held = {pot: self._held(pot) if self._models[pot].readback else codes[pot] for pot in sorted(codes)}
        return wire.Written(len(codes), verdict if verify else Verdict.UNCHECKED, wire.stage_crc(held.items()))

    def _read(self, request: wire.Read) -> wire.Codes:
        pots = range(request.first, request.first + request.count)
        if pots.stop > len(self._models) or not pots:
            raise ProtocolError(Status.RANGE, len(self._models))
        if not request.shadow:
            dead = sorted(self.faults.dead & set(pots))
            if dead:
                raise ProtocolError(Status.BUS, dead[0])
            return wire.Codes(tuple(self._held(pot) if self._models[pot].readback else wire.NOTHING for pot in pots))
        return wire.Codes(tuple(self._codes[pot] if self._homed[pot] else wire.NOTHING for pot in pots))

    # ADC.

    def _check_scan(self, scan: wire.Scan, before: int) -> None:
        if scan.count == 0 or scan.first + scan.count > len(self._adcs):
            raise ProtocolError(Status.RANGE, len(self._adcs))
        for channel in range(scan.first, scan.first + scan.count):
            if scan.averages * ((1 << self._adcs[channel].bits) - 1) > wire.largest_sum(scan.width):
                raise ProtocolError(Status.RANGE, channel)
        if before + scan.reply_bytes + OVERHEAD > self._limit:
            raise ProtocolError(Status.LENGTH)

    def _scan(self, scan: wire.Scan) -> wire.Scanned:
        sums, squares = [], []
        if self._clock is not None:
            models = self._adcs[scan.first : scan.first + scan.count]
            self._clock.spend(scan.averages * sum(model.conversion for model in models))
        volts = self._volts()
        for channel in range(scan.first, scan.first + scan.count):
            codes = self._convert(self._adcs[channel], float(volts[channel]), scan.averages)
            if channel in self.faults.glitches:
                top = (1 << self._adcs[channel].bits) - 1
                codes[0] = min(max(codes[0] + self.faults.glitches.pop(channel), 0), top)
            total = sum(codes)
            sums.append(total)
            # Σx² − (Σx)²/n in whole numbers, so that nothing cancels.
            square = scan.averages * sum(code * code for code in codes) - total * total
            squares.append((square + scan.averages // 2) // scan.averages)
        return wire.Scanned(tuple(sums), tuple(squares) if scan.scatter else None, scan.width)

    def _volts(self) -> FloatArray:
        return np.asarray(self._read_nodes(), dtype=float)

    def _convert(self, model: AdcModel, volts: float, count: int) -> list[int]:
        top = (1 << model.bits) - 1
        exact = volts / model.span * (top + 1) + model.zero
        noise = self._noise.standard_normal(count) * model.noise if model.noise else np.zeros(count)
        return [min(max(round(exact + float(each)), 0), top) for each in noise]

    # Sources, switches, safety.

    def _check_levels(self, levels: Sequence[wire.Level]) -> None:
        for level in levels:
            if level.source >= len(self._sources):
                raise ProtocolError(Status.RANGE, level.source)
            model = self._sources[level.source]
            if level.nanovolts == wire.FLOAT:
                if model.switch is None:
                    raise ProtocolError(Status.RANGE, level.source)
            elif not round(model.lowest * 1e9) <= level.nanovolts <= round(model.highest * 1e9):
                raise ProtocolError(Status.RANGE, level.source)

    def _drive(self, levels: Sequence[wire.Level]) -> None:
        for level in levels:
            switch = self._sources[level.source].switch
            if switch is not None:
                self._closed[switch] = level.nanovolts != wire.FLOAT
            if level.nanovolts != wire.FLOAT:
                self._levels[level.source] = level.nanovolts
        self._put_sources()

    def _switch(self, switches: Sequence[tuple[int, bool]]) -> None:
        for switch, _ in switches:
            if switch >= len(self._closed):
                raise ProtocolError(Status.RANGE, switch)
        for switch, closed in switches:
            self._closed[switch] = closed
        self._put_sources()

    def _connected(self, source: int) -> bool:
        switch = self._sources[source].switch
        return switch is None or self._is_closed(switch)

    def _is_closed(self, switch: int) -> bool:
        return self.faults.welded.get(switch, self._closed[switch])

    def _put_sources(self) -> None:
        """Bring the circuit up to date: what is opened first, so that two sources never meet on the way."""
        wanted = [
            Applied("voltage", self._levels[source] / 1e9, model.limit, model.series)
            if self._connected(source)
            else OPEN
            for source, model in enumerate(self._sources)
        ]
        for opening in (True, False):
            for port, applied in zip(self._ports, wanted, strict=True):
                if (applied is OPEN) == opening:
                    port.apply(applied)
            for switch, switched in self._switches.items():
                if self._is_closed(switch) != opening:
                    switched.set(self._is_closed(switch))

    def weld(self, switch: int, closed: bool) -> None:
        """Let a switch stay as it is given from now on, whatever it is told."""
        with self._lock:
            self.faults.welded[switch] = closed
            self._put_sources()

    def repair(self) -> None:
        """End all faults of pots, switches and ADC; stuck ones move to where they were last told to be."""
        with self._lock:
            for each in (self.faults.stuck, self.faults.welded, self.faults.glitches):
                each.clear()
            self.faults.dead.clear()
            self._put_codes()
            self._put_sources()

    def _outputs_off(self) -> None:
        self._levels = [0] * len(self._sources)
        self._closed = [False] * len(self._closed)
        self._put_sources()

    def _make_safe(self, reason: Reason) -> None:
        self._outputs_off()
        self._codes = [model.safe for model in self._models]
        self._homed = [True] * len(self._models)
        self._put_codes()
        self._latched = reason

    def _safe(self, action: wire.SafeAction) -> wire.Latched:
        match action:
            case wire.SafeAction.OUTPUTS:
                self._outputs_off()
            case wire.SafeAction.LATCH:
                self._make_safe(Reason.HOST)
            case wire.SafeAction.CLEAR:
                self._latched = Reason.NONE
        return wire.Latched(self._latched)

    def _spend(self, microseconds: int) -> None:
        if self._clock is not None and microseconds:
            self._clock.spend(microseconds / 1e6)

    # Text.

    def _feed_text(self, data: bytes, now: float) -> bytes:
        answer = ""
        for line in self._lines.feed(data):
            self._heard = now
            if line is None:
                self._errors.push(-363, "")
            else:
                answer += "".join(f"{each}\n" for each in self._line(line.decode("latin-1")))
        return answer.encode("latin-1", "replace")

    def _line(self, line: str) -> list[str]:
        """Carry out one line and return what it prints: nothing, or one line."""
        try:
            command = parse_line(line)
            if command is None:
                return []
            printed = self._carry_out(command)
        except TextError as error:
            self._errors.push(error.code, "")
            return []
        except ProtocolError as error:
            self._errors.push(-222 if error.status == Status.RANGE else -200, "")
            return []
        return [] if printed is None else [printed]

    def _carry_out(self, command: Command) -> str | None:
        numbers = command.numbers
        if any(number < 0 for number in numbers):
            raise TextError(-222)
        moving = command.name in {"POT", "SOURce", "ROUTe:CLOSe", "ROUTe:OPEN"}
        if moving and self._latched != Reason.NONE:
            raise TextError(-221)
        if command.name.endswith("?"):
            return self._tell(command.name, numbers[0]) if numbers else self._say(command.name)
        self._obey(command)
        return None

    def _say(self, name: str) -> str:
        """Answer a question without parameters."""
        match name:
            case "*IDN?":
                return self.identity
            case "SYSTem:ERRor?":
                return error_text(self._errors.pop().code)
            case "SYSTem:VERSion?":
                return VERSION
            case "SYSTem:CAPability?":
                return (
                    f"protocol={wire.MAJOR}.{wire.MINOR},pots={len(self._models)},adcs={len(self._adcs)},"
                    f"sources={len(self._sources)},switches={len(self._closed)},frame={self._limit}"
                )
            case "SYSTem:COUNters?":
                each = self._counters()
                return f"{each.crc_errors},{each.overflows},{each.replays},{each.watchdog_expiries}"
            case "SYSTem:BOOTs?":
                return str(self._boots)
            case "SAFE?":
                return str(int(self._latched))
            case _:
                return "1"

    def _tell(self, name: str, number: int) -> str:
        """Answer a question about one pot or channel."""
        known: dict[str, Sequence[object]] = {
            "POT?": self._models,
            "MEASure?": self._adcs,
            "SOURce?": self._sources,
            "ROUTe:CLOSe?": self._closed,
        }
        if number >= len(known[name]):
            raise TextError(-222)
        match name:
            case "POT?":
                (code,) = self._read(wire.Read(number, 1)).codes
                return str(-1 if code == wire.NOTHING else code)
            case "MEASure?":
                model = self._adcs[number]
                (code,) = self._convert(model, float(self._volts()[number]), 1)
                return f"{(code - model.zero) * model.span / (1 << model.bits):.9g}"
            case "SOURce?":
                return f"{self._levels[number] / 1e9:.10g}" if self._connected(number) else "FLOAT"
            case _:
                return str(int(self._closed[number]))

    def _obey(self, command: Command) -> None:
        """Carry out a command that prints nothing."""
        numbers = command.numbers
        match command.name:
            case "*CLS":
                self._errors.clear()
            case "POT":
                self._check_codes(numbers[0], numbers[1:])
                self._write({numbers[0]: numbers[1]}, verify=True)
            case "SOURce":
                nanovolts = wire.FLOAT if command.volts is None else round(command.volts * 1e9)
                levels = (wire.Level(numbers[0], nanovolts),)
                self._check_levels(levels)
                self._drive(levels)
            case "ROUTe:CLOSe":
                self._switch(((numbers[0], True),))
            case "ROUTe:OPEN":
                self._switch(((numbers[0], False),))
            case "WATChdog":
                if numbers[0] > 0xFFFF:
                    raise TextError(-222)
                self._watchdog = numbers[0]
            case "SAFE":
                self._make_safe(Reason.HOST)
            case "SAFE:CLEar":
                self._latched = Reason.NONE
