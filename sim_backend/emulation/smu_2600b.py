"""The Keithley Series 2600B on the wire: TSP in a real Lua (Reference Manual 2600BS-901-01 Rev. C, sections 2 to 8)."""

import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.instrument import wire_number
from hilcl.sim_backend.emulation.port import Applied, Clock, Port
from hilcl.sim_backend.emulation.scpi import ScpiError
from hilcl.sim_backend.emulation.smu_2600b_channel import (
    BUFFER_CAPACITY,
    DCVOLTS,
    MODELS,
    OUTPUT_ON,
    BufferColumn,
    Channel,
    ReadingBuffer,
)
from hilcl.sim_backend.emulation.source_measure import IDEAL, Analogue, SourceMeasure
from hilcl.sim_backend.emulation.status import POWER_ON, ErrorQueue, event_bit
from hilcl.sim_backend.emulation.tsp import LuaError, TspError, TspInterpreter, TspObject

MAX_BUFFERS = 32
QUEUE_CAPACITY = 100
MAX_SCRIPT = 1 << 20
SEVERITY = {-285: 20, -286: 20}
ASCII, REAL32, REAL64 = 1, 2, 3

CONSTANTS = {
    "OUTPUT_OFF": 0,
    "OUTPUT_ON": 1,
    "OUTPUT_HIGH_Z": 2,
    "OUTPUT_NORMAL": 0,
    "OUTPUT_ZERO": 1,
    "OUTPUT_DCAMPS": 0,
    "OUTPUT_DCVOLTS": 1,
    "DISABLE": 0,
    "ENABLE": 1,
    "SENSE_LOCAL": 0,
    "SENSE_REMOTE": 1,
    "SENSE_CALA": 3,
    "AUTORANGE_OFF": 0,
    "AUTORANGE_ON": 1,
    "AUTORANGE_FOLLOW_LIMIT": 2,
    "AUTOZERO_OFF": 0,
    "AUTOZERO_ONCE": 1,
    "AUTOZERO_AUTO": 2,
    "FILTER_OFF": 0,
    "FILTER_ON": 1,
    "FILTER_MOVING_AVG": 0,
    "FILTER_REPEAT_AVG": 1,
    "FILTER_MEDIAN": 2,
    "REL_OFF": 0,
    "REL_ON": 1,
    "DELAY_OFF": 0,
    "DELAY_AUTO": -1,
    "SOURCE_IDLE": 0,
    "SOURCE_HOLD": 1,
    "SETTLE_SMOOTH": 0,
    "SETTLE_FAST_RANGE": 1,
    "SETTLE_FAST_POLARITY": 2,
    "SETTLE_DIRECT_IRANGE": 3,
    "SETTLE_SMOOTH_100NA": 4,
    "SETTLE_FAST_ALL": 128,
    "OE_NONE": 0,
    "OE_OUTPUT_OFF": 1,
}

EVENTS = (
    "SWEEPING_EVENT_ID",
    "ARMED_EVENT_ID",
    "SOURCE_COMPLETE_EVENT_ID",
    "MEASURE_COMPLETE_EVENT_ID",
    "PULSE_COMPLETE_EVENT_ID",
    "SWEEP_COMPLETE_EVENT_ID",
    "IDLE_EVENT_ID",
)

SWEEPS = """
function SweepVLinMeasureI(smu, start, stop, stime, points)
  smu.nvbuffer1.clear() smu.nvbuffer1.appendmode = 1
  smu.source.func = smu.OUTPUT_DCVOLTS smu.source.levelv = start smu.source.output = smu.OUTPUT_ON
  for index = 1, points do
    smu.source.levelv = start + (index - 1) * (stop - start) / math.max(points - 1, 1)
    delay(stime)
    smu.measure.i(smu.nvbuffer1)
  end
  smu.source.output = smu.OUTPUT_OFF smu.source.levelv = start
end
function SweepILinMeasureV(smu, start, stop, stime, points)
  smu.nvbuffer1.clear() smu.nvbuffer1.appendmode = 1
  smu.source.func = smu.OUTPUT_DCAMPS smu.source.leveli = start smu.source.output = smu.OUTPUT_ON
  for index = 1, points do
    smu.source.leveli = start + (index - 1) * (stop - start) / math.max(points - 1, 1)
    delay(stime)
    smu.measure.v(smu.nvbuffer1)
  end
  smu.source.output = smu.OUTPUT_OFF smu.source.leveli = start
end
"""
"""Two of the factory scripts (section 5, KISweep): a linear sweep, readings in nvbuffer1, the output off at the end."""

_ANYTHING = re.compile(r"\*(?P<name>[A-Za-z]{3,4})(?P<query>\?)?\s*(?P<value>\d{1,5})?\s*", re.ASCII)
_LOAD = re.compile(r"\s*load(?P<run>andrun)?script(?:\s+(?P<name>[A-Za-z_][A-Za-z0-9_]*))?\s*", re.ASCII)


class Smu2600B:
    """A Series 2600B with one port per channel: smua, and smub on two-channel models.

    ``model`` is one of MODELS. Endless scripts end with a run-time error after ``instruction_limit`` instructions.
    """

    def __init__(
        self,
        ports: tuple[Port, ...],
        clock: Clock,
        *,
        model: str = "2602B",
        serial: str = "4200001",
        analogue: Analogue = IDEAL,
        line_frequency: int = 60,
        seed: int = 0,
        instruction_limit: int = 20_000_000,
    ) -> None:
        self._model = MODELS[model]
        if len(ports) != self._model.channels:
            raise ValueError(f"a {model} has {self._model.channels} channels, got {len(ports)} ports")
        self._identity = f"Keithley Instruments Inc., Model {model}, {serial}, 3.3.5"
        self._serial, self._clock, self._mains = serial, clock, line_frequency
        self._digits = analogue.digits
        self._instruction_limit = instruction_limit
        self.errors = ErrorQueue(QUEUE_CAPACITY)
        self._event = POWER_ON
        self._enables = {"ese": 0, "sre": 0}
        self.smus = tuple(
            Channel(self._model, SourceMeasure(port, clock, analogue, seed=seed + index), line_frequency)
            for index, port in enumerate(ports)
        )
        self._power_on()

    def _power_on(self) -> None:
        self._format: dict[str, float] = {"data": ASCII, "asciiprecision": 6, "byteorder": 1}
        self._script: list[str] | None = None
        self._script_name, self._script_runs, self._script_length = "", False, 0
        self._initiated: set[int] = set()
        self._sweeping: set[int] = set()
        self._sweep_seen = False
        self._made_buffers = 0
        self._timer = self._overlapped = self._clock.now()
        self._lua = TspInterpreter(
            on_error=lambda error: self._queue(error.code, error.message),
            precision=self._precision,
            instruction_limit=self._instruction_limit,
        )
        self._define()

    @property
    def identity(self) -> str:
        """The answer to ``*IDN?``."""
        return self._identity

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which outputs are on, smua first."""
        return tuple(smu.output == OUTPUT_ON for smu in self.smus)

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What each channel applies to its node now."""
        return tuple(smu.smu.applied for smu in self.smus)

    def refuse(self, error: ScpiError) -> None:
        """Queue an error."""
        self._queue(error.code, error.message)

    def handle(self, line: str) -> str | None:
        """Carry out one line: a common command, a Lua chunk, or a line of a script being loaded."""
        if self._script is not None:
            return self._load_line(self._script, line)
        text = line.strip()
        if not text:
            return None
        if text.startswith("*"):
            return self._common(text)
        if match := _LOAD.fullmatch(text):
            self._script, self._script_length = [], 0
            self._script_name, self._script_runs = match["name"] or "", match["run"] is not None
            return None
        return self._execute(lambda: self._lua.run(line))

    def _execute(self, action: Callable[[], str | None]) -> str | None:
        try:
            return action()
        except LuaError as fault:
            self._queue(fault.code, fault.message)
            printed = self._lua.taken()
            if self._lua.exhausted:
                self._power_on()
            return printed

    def _load_line(self, script: list[str], line: str) -> str | None:
        if line.strip() != "endscript":
            self._script_length += len(line) + 1
            if self._script_length <= MAX_SCRIPT:
                script.append(line)
            return None
        code, self._script = "\n".join(script), None
        if self._script_length > MAX_SCRIPT:
            self._queue(-223, "Too much data")
            return None
        return self._execute(lambda: self._loaded(code))

    def _loaded(self, code: str) -> str | None:
        name = self._script_name
        function = self._lua.compile(code, "TSP")
        if name:
            # A named script is an object with run() and a call of its own name; both run it (section 6).
            self._lua.define("_script", function)
            self._lua.run(
                f"{name} = setmetatable({{run = _script, source = ''}}, {{__call = function() _script_{name}() end}}) "
                f"_script_{name} = _script _script = nil"
            )
        return self._lua.call(function) if self._script_runs else None

    def _common(self, text: str) -> str | None:
        match = _ANYTHING.fullmatch(text)
        if match is None:
            self._queue(-285, "TSP Syntax error at line 1: unexpected symbol near `*'")
            return None
        name, value = match["name"].lower(), int(match["value"] or 0)
        if match["query"]:
            return self._common_query(name)
        match name:
            case "rst":
                self.reset()
            case "cls":
                self.errors.clear()
                self._event = 0
            case "trg":
                self._bus_trigger()
            case "opc":
                self._finish_sweep()
                self._event |= 1
            case "wai":
                self._finish_sweep()
            case "ese" | "sre":
                self._enables[name] = value & 0xFF
            case _:
                self._queue(-113, "Undefined header")
        return None

    def _common_query(self, name: str) -> str | None:
        match name:
            case "idn":
                return self._identity
            case "opc":
                self._finish_sweep()
                return "1"
            case "esr":
                event, self._event = self._event, 0
                return str(event)
            case "stb":
                return str(self._status_byte())
            case "ese" | "sre":
                return str(self._enables[name])
            case "tst":
                return "0"
        self._queue(-113, "Undefined header")
        return None

    def _status_byte(self) -> int:
        byte = (4 if self.errors else 0) | (32 if self._event & self._enables["ese"] else 0)
        return byte | (64 if byte & self._enables["sre"] else 0)

    def _queue(self, code: int, message: str) -> None:
        self.errors.push(code, message)
        self._event |= event_bit(code)

    def reset(self) -> None:
        """``reset()``: every channel to its defaults, outputs off."""
        self._initiated.clear()
        self._sweeping.clear()
        for smu in self.smus:
            smu.reset()
        self._format.update(data=ASCII, asciiprecision=6, byteorder=1)

    def _precision(self) -> int | None:
        return None if self._digits is None else max(int(self._format["asciiprecision"]), 1)

    # Sweeps

    def _initiate(self, index: int) -> None:
        self._initiated.add(index)
        trigger = self.smus[index].trigger
        own = range(_first_event(index), _first_event(index + 1))
        # A channel that waits for events of another one sweeps with it, so it does not start by itself.
        follows = any(
            _first_event(0) <= stimulus < _first_event(2) and int(stimulus) not in own
            for stimulus in (trigger.source_stimulus, trigger.measure_stimulus)
        )
        if not trigger.arm_stimulus and not follows:
            self._bus_trigger()

    def _bus_trigger(self) -> None:
        self._finish_sweep()
        self._sweeping, self._initiated = self._initiated, set()
        self._sweep_seen = False

    def _sweep_condition(self) -> int:
        """Return which channels sweep; a sweep is over once it has been seen running."""
        if not self._sweeping:
            return 0
        if self._sweep_seen:
            self._finish_sweep()
            return 0
        self._sweep_seen = True
        return sum(2 << index for index in self._sweeping)

    def _finish_sweep(self) -> None:
        sweeping, self._sweeping = sorted(self._sweeping), set()
        channels = [self.smus[index] for index in sweeping]
        for index in range(max((_points(smu) for smu in channels), default=0)):
            active = [smu for smu in channels if index < _points(smu)]
            for smu in active:
                if smu.trigger.source_action and smu.trigger.levels:
                    level = smu.trigger.levels[index % len(smu.trigger.levels)]
                    self._set_level(smu, level)
            for smu in active:
                if smu.trigger.measure_action and smu.trigger.measured:
                    self._sweep_measure(smu)
            for smu in active:
                if smu.trigger.end_pulse == 0 and smu.trigger.source_action:
                    smu.drive()
        for smu in channels:
            if smu.trigger.end_sweep == 0:
                smu.drive()

    def _set_level(self, smu: Channel, level: float) -> None:
        name = f"source.level{smu.trigger.quantity}"
        idle = smu.values[name]
        try:
            smu.write(name, level)
        except TspError as error:
            self._queue(error.code, error.message)
        # The programmed level is the idle level, to which the output returns unless it is held.
        smu.values[name] = idle

    def _sweep_measure(self, smu: Channel) -> None:
        appending = [buffer.append for buffer in smu.trigger.buffers]
        for buffer in smu.trigger.buffers:
            buffer.append = True
        try:
            smu.measure(smu.trigger.measured, smu.trigger.buffers)
        except TspError as error:
            self._queue(error.code, error.message)
        for buffer, append in zip(smu.trigger.buffers, appending, strict=True):
            buffer.append = append

    # What scripts see

    def _define(self) -> None:
        lua = self._lua
        for index in range(len(self.smus)):
            lua.define(_smu_name(index), self._smu_object(index))
        lua.define("localnode", self._localnode())
        lua.define("errorqueue", self._errorqueue())
        lua.define("status", self._status())
        lua.define("display", self._display())
        lua.define("beeper", _stub({"enable": 1.0}, {"beep": lambda *_: None}))
        lua.define("format", self._format_object())
        lua.define("trigger", self._trigger())
        lua.define("timer", self._timer_object())
        lua.define("delay", self._delay)
        lua.define("opc", lambda: self._common("*OPC"))
        lua.define("waitcomplete", lambda *_: self._wait_complete())
        lua.define("reset", lambda *_: self.reset())
        lua.define("printbuffer", self._printbuffer)
        lua.define("printnumber", self._printnumber)
        lua.define("makebuffer", self._make_buffer)
        lua.run(SWEEPS)

    def _touching(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with any running sweep finished first: it touches what the sweep works on."""

        def touching(*arguments: Any) -> Any:
            self._finish_sweep()
            return function(*arguments)

        return touching

    def _smu_object(self, index: int) -> TspObject:
        smu = self.smus[index]
        source, measure = TspObject(), TspObject()
        filter_, rel = TspObject(), TspObject()
        whole = TspObject(handle=smu, constants=CONSTANTS)
        groups = {"source": source, "measure": measure, "measure.filter": filter_, "measure.rel": rel, "": whole}
        for path in smu.values:
            group, _, name = path.rpartition(".")
            groups[group].attributes[name] = (self._getter(smu, path), self._setter(smu, path))
        source.attributes["output"] = (lambda: smu.output, self._setter(smu, "source.output"))
        source.attributes["compliance"] = (self._touching(smu.compliance), None)
        measure.parts.update(filter=filter_, rel=rel)
        for name in ("v", "i", "r", "p", "iv"):
            measure.functions[name] = self._touching(lambda *given, name=name: smu.measure(name, _buffers(given)))
            overlapped = partial(self._measure_overlapped, smu, name)
            measure.functions[f"overlapped{name}"] = self._touching(overlapped)
        whole.functions.update(
            {
                "reset": self._touching(smu.reset),
                "abort": lambda: self._abort(index),
                "makebuffer": self._make_buffer,
                "savebuffer": lambda *_: None,
                "measurevandstep": self._and_step(smu, "v"),
                "measureiandstep": self._and_step(smu, "i"),
                "measureivandstep": self._and_step(smu, "iv"),
            }
        )
        whole.parts.update(
            source=source,
            measure=measure,
            nvbuffer1=self._buffer_object(smu.buffers[0]),
            nvbuffer2=self._buffer_object(smu.buffers[1]),
            trigger=self._smu_trigger(index),
        )
        return whole

    def _measure_overlapped(self, smu: Channel, quantities: str, *given: Any) -> None:
        """Measure into buffers while the script goes on (section 7, smuX.measure.overlappedY())."""
        buffers = _buffers(given)
        if len(buffers) != len(quantities):
            raise TspError(-109, "Missing parameter")
        _, seconds = self._clock.aside(lambda: smu.measure(quantities, buffers))
        self._overlapped = max(self._overlapped, self._clock.now() + seconds)

    def _wait_complete(self) -> None:
        self._finish_sweep()
        self._clock.spend(max(0.0, self._overlapped - self._clock.now()))

    def _getter(self, smu: Channel, path: str) -> Callable[[], Any]:
        return self._touching(lambda: smu.values[path])

    def _setter(self, smu: Channel, path: str) -> Callable[[Any], None]:
        return self._touching(lambda value: smu.write(path, value))

    def _and_step(self, smu: Channel, quantities: str) -> Callable[..., Any]:
        def measure_and_step(*arguments: Any) -> tuple[float, ...]:
            *buffers, level = arguments
            shown = smu.measure(quantities, _buffers(tuple(buffers)))
            smu.write("source.levelv" if smu.values["source.func"] == DCVOLTS else "source.leveli", level)
            return shown

        return self._touching(measure_and_step)

    def _abort(self, index: int) -> None:
        self._initiated.discard(index)
        self._sweeping.discard(index)

    def _make_buffer(self, size: float) -> TspObject:
        if not 1 <= size <= BUFFER_CAPACITY:
            raise TspError(1102, "Parameter too big")
        self._made_buffers += 1
        if self._made_buffers > MAX_BUFFERS:
            raise TspError(-225, "Out of memory")
        return self._buffer_object(ReadingBuffer(int(size)))

    def _buffer_object(self, buffer: ReadingBuffer) -> TspObject:
        def set_append(value: Any) -> None:
            buffer.append = bool(value)

        attributes: dict[str, tuple[Callable[[], Any], Callable[[Any], None] | None]] = {
            "n": (self._touching(lambda: len(buffer)), None),
            "capacity": (lambda: buffer.capacity, None),
            "appendmode": (lambda: int(buffer.append), set_append),
            "basetimestamp": (lambda: buffer.base, None),
        }
        for name in buffer.settings:
            attributes[name] = _entry(buffer.settings, name)
        readings = buffer.column("readings")
        return TspObject(
            attributes=attributes,
            functions={"clear": self._touching(buffer.clear), "clearcache": lambda: None},
            parts={name: self._column_object(buffer.column(name)) for name in ReadingBuffer.COLUMNS},
            element=self._touching(readings.at),
            handle=buffer,
            luatype="reading_buffer",
        )

    def _column_object(self, column: BufferColumn) -> TspObject:
        at = self._touching(column.at)
        return TspObject(functions={"getreading": at}, element=at, handle=column, luatype="synchronous_table")

    def _smu_trigger(self, index: int) -> TspObject:
        smu = self.smus[index]
        events = {name: _first_event(index) + number for number, name in enumerate(EVENTS)}

        def model(name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
            def write(value: Any) -> None:
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
                    raise TspError(1102, "Parameter too big")
                setattr(smu.trigger, name, float(value))

            return (lambda: getattr(smu.trigger, name)), self._touching(write)

        source = TspObject(
            attributes={
                "action": model("source_action"),
                "stimulus": model("source_stimulus"),
                **{name: _entry({name: 0.0}, name) for name in ("limitv", "limiti")},
            }
        )
        for quantity in "vi":
            source.functions[f"list{quantity}"] = self._sweep_of(smu, quantity, self._listed)
            source.functions[f"linear{quantity}"] = self._sweep_of(smu, quantity, _linear)
            source.functions[f"log{quantity}"] = self._sweep_of(smu, quantity, _logarithmic)
        measure = TspObject(attributes={"action": model("measure_action"), "stimulus": model("measure_stimulus")})
        for name in ("v", "i", "r", "p", "iv"):
            measure.functions[name] = lambda *given, name=name: self._arm_measure(smu, name, given)
        return TspObject(
            attributes={"count": model("count"), "autoclear": _entry({"a": 0.0}, "a")},
            functions={"initiate": self._touching(lambda: self._initiate(index))},
            constants=events,
            parts={
                "source": source,
                "measure": measure,
                "endpulse": TspObject(
                    attributes={"action": model("end_pulse"), "stimulus": _entry({"s": 0.0}, "s")},
                    functions={"set": lambda: None},
                ),
                "endsweep": TspObject(attributes={"action": model("end_sweep")}),
                "arm": TspObject(
                    attributes={"count": model("arm_count"), "stimulus": model("arm_stimulus")},
                    functions={"set": self._touching(lambda: self._initiate_now(index))},
                ),
            },
        )

    def _initiate_now(self, index: int) -> None:
        if index in self._initiated:
            self._bus_trigger()

    def _sweep_of(self, smu: Channel, quantity: str, levels: Callable[..., tuple[float, ...]]) -> Callable[..., None]:
        def set_sweep(*arguments: Any) -> None:
            smu.trigger.levels, smu.trigger.quantity = levels(*arguments), quantity

        return self._touching(set_sweep)

    def _listed(self, values: Any) -> tuple[float, ...]:
        return tuple(self._lua.values(values))

    def _arm_measure(self, smu: Channel, quantities: str, given: tuple[Any, ...]) -> None:
        smu.trigger.measured, smu.trigger.buffers = quantities, _buffers(given)

    def _localnode(self) -> TspObject:
        values = {"prompts": 0.0, "prompts4882": 1.0, "showerrors": 0.0, "autolinefreq": 1.0, "description": ""}
        attributes: dict[str, tuple[Callable[[], Any], Callable[[Any], None] | None]] = {
            name: _entry(values, name) for name in values
        }
        attributes.update(
            model=(lambda: self._model.name, None),
            serialno=(lambda: self._serial, None),
            revision=(lambda: "3.3.5", None),
            linefreq=(lambda: self._mains, self._set_line_frequency),
        )
        return TspObject(attributes=attributes, functions={"reset": lambda *_: self.reset()})

    def _set_line_frequency(self, value: Any) -> None:
        if value not in {50, 60}:
            raise TspError(1102, "Parameter too big")
        self._mains = int(value)
        for smu in self.smus:
            smu.mains = self._mains

    def _errorqueue(self) -> TspObject:
        def next_() -> tuple[Any, ...]:
            entry = self.errors.pop()
            if entry.code == 0:
                return 0, "Queue Is Empty", 0, 0
            return entry.code, entry.message, SEVERITY.get(entry.code, 20), 1

        return TspObject(
            attributes={"count": (lambda: len(self.errors), None)},
            functions={"next": next_, "clear": self.errors.clear},
        )

    def _status(self) -> TspObject:
        instrument = TspObject()
        for index, smu in enumerate(self.smus):
            instrument.parts[_smu_name(index)] = _register(
                smu.check_buffers,
                {"VOLTAGE_LIMIT": 1, "VLMT": 1, "CURRENT_LIMIT": 2, "ILMT": 2, "READING_OVERFLOW": 128, "ROF": 128},
            )
        measurement = _register(self._measurement_condition, {"VLMT": 1, "ILMT": 2, "ROF": 128, "BAV": 256})
        measurement.parts["instrument"] = instrument
        operation = _register(lambda: 0, {})
        operation.parts["sweeping"] = _register(self._sweep_condition, {"SMUA": 2, "SMUB": 4})
        standard = _register(lambda: 0, {"OPC": 1, "QYE": 4, "DDE": 8, "EXE": 16, "CME": 32, "PON": 128})
        standard.attributes["event"] = (self._standard_event, None)
        return TspObject(
            attributes={
                "condition": (self._status_byte, None),
                "request_enable": self._enable("sre"),
                "node_enable": _entry({"n": 0.0}, "n"),
            },
            functions={"reset": self._reset_status},
            constants={"MSB": 1, "EAV": 4, "MAV": 16, "ESB": 32, "MSS": 64, "OSB": 128},
            parts={"measurement": measurement, "operation": operation, "standard": standard},
        )

    def _enable(self, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        def write(value: Any) -> None:
            self._enables[name] = int(value) & 0xFF

        return (lambda: self._enables[name]), write

    def _measurement_condition(self) -> int:
        return sum({bit for smu in self.smus for bit in _bits(smu.check_buffers())})

    def _standard_event(self) -> int:
        event, self._event = self._event, 0
        return event

    def _reset_status(self) -> None:
        self._enables.update(ese=0, sre=0)

    def _display(self) -> TspObject:
        constants = {"SMUA": 0, "SMUB": 1, "SMUA_SMUB": 2, "USER": 3, "DIGITS_4_5": 4, "DIGITS_5_5": 5, "DIGITS_6_5": 6}
        for number, name in enumerate(("DCAMPS", "DCVOLTS", "OHMS", "WATTS")):
            constants[f"MEASURE_{name}"] = number
        made = _stub(
            {"screen": 2.0, "locallockout": 0.0, "numpad": 1.0},
            {name: lambda *_: None for name in ("clear", "settext", "setcursor", "sendkey", "trigger")},
            constants,
        )
        for index in range(len(self.smus)):
            part = _stub({"digits": 5.0}, {})
            part.parts["measure"] = _stub({"func": 1.0}, {})
            part.parts["limit"] = _stub({"func": 0.0}, {})
            made.parts[_smu_name(index)] = part
        return made

    def _format_object(self) -> TspObject:
        bounds = {"data": (1, 3), "asciiprecision": (0, 16), "byteorder": (0, 1)}

        def write(name: str) -> Callable[[Any], None]:
            def set_(value: Any) -> None:
                low, high = bounds[name]
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                    raise TspError(1102, "Parameter too big")
                self._format[name] = float(value)

            return set_

        return TspObject(
            attributes={name: (partial(self._format.__getitem__, name), write(name)) for name in bounds},
            constants={
                "ASCII": ASCII,
                "REAL32": REAL32,
                "SREAL": REAL32,
                "REAL": REAL64,
                "REAL64": REAL64,
                "DREAL": REAL64,
                "NORMAL": 0,
                "NETWORK": 0,
                "BIGENDIAN": 0,
                "SWAPPED": 1,
                "LITTLEENDIAN": 1,
            },
        )

    def _trigger(self) -> TspObject:
        blenders: dict[int, Any] = {}
        for number in range(1, 7):
            stimulus = TspObject(elements=dict.fromkeys(range(1, 5), 0.0), luatype="synchronous_table")
            blenders[number] = TspObject(
                attributes={"orenable": _entry({"o": False}, "o"), "overrun": (lambda: False, None)},
                functions={"clear": lambda: None, "reset": lambda: None, "wait": lambda *_: True},
                constants={"EVENT_ID": 200.0 + number},
                parts={"stimulus": stimulus},
            )
        return TspObject(
            functions={"clear": lambda: None, "wait": lambda *_: False},
            constants={"EVENT_ID": 1.0},
            parts={"blender": TspObject(elements=blenders)},
        )

    def _timer_object(self) -> TspObject:
        def reset() -> None:
            self._timer = self._clock.now()

        return TspObject(
            functions={"reset": reset},
            parts={"measure": TspObject(functions={"t": lambda: self._clock.now() - self._timer})},
        )

    def _delay(self, seconds: float) -> None:
        if not 0 <= seconds <= 1e5:
            raise TspError(1102, "Parameter too big")
        self._clock.spend(float(seconds))

    def _printnumber(self, *values: Any) -> None:
        self._print_values([float(value) for value in values])

    def _printbuffer(self, start: float, stop: float, *columns: Any) -> None:
        self._finish_sweep()
        lists = []
        for column in columns:
            chosen = column.column("readings") if isinstance(column, ReadingBuffer) else column
            if not isinstance(chosen, BufferColumn):
                raise TspError(-104, "Data type error")
            lists.append(chosen.values)
        first, last = int(start), int(stop)
        if first < 1 or not lists:
            raise TspError(1101, "Parameter too small")
        last = min(last, *(len(values) for values in lists), BUFFER_CAPACITY)
        self._print_values([values[index - 1] for index in range(first, last + 1) for values in lists])

    def _print_values(self, values: list[float]) -> None:
        if self._format["data"] == ASCII:
            text = ", ".join(wire_number(value, self._precision()).replace("E", "e").lstrip("+") for value in values)
        else:
            order = "<" if self._format["byteorder"] else ">"
            code = "f" if self._format["data"] == REAL32 else "d"
            # The block of undefined length "#0" (section 7, format.data).
            text = "#0" + struct.pack(f"{order}{len(values)}{code}", *values).decode("latin-1")
        if not self._lua.emit(text):
            raise LuaError(-286, "output queue overflow")


def _smu_name(index: int) -> str:
    return f"smu{'ab'[index]}"


def _first_event(index: int) -> int:
    """Return the number of a channel's first trigger event."""
    return 100 + 10 * index


def _points(smu: Channel) -> int:
    return int(min(smu.trigger.count * smu.trigger.arm_count, BUFFER_CAPACITY))


def _buffers(given: tuple[Any, ...]) -> tuple[ReadingBuffer, ...]:
    if not all(isinstance(entry, ReadingBuffer) for entry in given):
        raise TspError(-104, "Data type error")
    return given


def _linear(start: float, stop: float, points: float) -> tuple[float, ...]:
    count = _count(points)
    return tuple(start + (stop - start) * index / max(count - 1, 1) for index in range(count))


def _logarithmic(start: float, stop: float, points: float, asymptote: float = 0.0) -> tuple[float, ...]:
    count = _count(points)
    first, last = start - asymptote, stop - asymptote
    if not first * last > 0:
        raise TspError(1102, "Parameter too big")
    ratio = last / first
    return tuple(asymptote + first * ratio ** (index / max(count - 1, 1)) for index in range(count))


def _count(points: float) -> int:
    if not 1 <= points <= BUFFER_CAPACITY:
        raise TspError(1102, "Parameter too big")
    return int(points)


def _bits(value: int) -> list[int]:
    return [1 << place for place in range(16) if value >> place & 1]


def _entry(values: dict[str, Any], name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Return getter and setter of a plain value that nothing else depends on."""

    def write(value: Any) -> None:
        if type(value) is not type(values[name]) and not (
            isinstance(value, (int, float)) and isinstance(values[name], (int, float))
        ):
            raise TspError(-104, "Data type error")
        values[name] = value

    return (lambda: values[name]), write


def _stub(
    values: dict[str, float], functions: dict[str, Callable[..., Any]], constants: dict[str, int] | None = None
) -> TspObject:
    """Return an object that remembers what is written to it and does nothing."""
    return TspObject(
        attributes={name: _entry(values, name) for name in values}, functions=functions, constants=constants or {}
    )


def _register(condition: Callable[[], int], constants: dict[str, int]) -> TspObject:
    plain = {"enable": 0.0, "ntr": 0.0, "ptr": 0.0}
    attributes: dict[str, tuple[Callable[[], Any], Callable[[Any], None] | None]] = {
        name: _entry(plain, name) for name in plain
    }
    attributes["condition"] = (condition, None)
    attributes["event"] = (condition, None)
    return TspObject(attributes=attributes, constants=constants)
