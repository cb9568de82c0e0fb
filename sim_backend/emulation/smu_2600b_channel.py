"""One channel of a Keithley Series 2600B: settings, output, readings (2600BS-901-01 Rev. C, sections 2 and 7)."""

import math
from dataclasses import dataclass
from typing import Any

from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.scpi import NAN, OVERFLOW
from hilcl.sim_backend.emulation.source_measure import Reading, SourceMeasure, smallest_range
from hilcl.sim_backend.emulation.tsp import TspError


@dataclass(frozen=True)
class Model2600B:
    """What differs between the models: ranges and limits in volts and amperes, and the number of channels."""

    name: str
    channels: int
    volt_ranges: tuple[float, ...]
    ampere_ranges: tuple[float, ...]

    @property
    def volts(self) -> float:
        """Highest voltage."""
        return self.volt_ranges[-1]

    @property
    def amperes(self) -> float:
        """Highest current."""
        return self.ampere_ranges[-1]


_LOW_VOLTS, _HIGH_VOLTS = (0.1, 1.0, 6.0, 40.0), (0.2, 2.0, 20.0, 200.0)
_AMPERES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
_LOW_AMPERES = (1e-9, 1e-8, *_AMPERES)

MODELS = {
    model.name: model
    for model in (
        Model2600B("2601B", 1, _LOW_VOLTS, (*_AMPERES, 3.0)),
        Model2600B("2602B", 2, _LOW_VOLTS, (*_AMPERES, 3.0)),
        Model2600B("2604B", 2, _LOW_VOLTS, (*_AMPERES, 3.0)),
        Model2600B("2611B", 1, _HIGH_VOLTS, (*_AMPERES, 1.5)),
        Model2600B("2612B", 2, _HIGH_VOLTS, (*_AMPERES, 1.5)),
        Model2600B("2614B", 2, _HIGH_VOLTS, (*_AMPERES, 1.5)),
        Model2600B("2634B", 2, _HIGH_VOLTS, (*_LOW_AMPERES, 1.5)),
        Model2600B("2635B", 1, _HIGH_VOLTS, (*_LOW_AMPERES, 1.5)),
        Model2600B("2636B", 2, _HIGH_VOLTS, (*_LOW_AMPERES, 1.5)),
    )
}

OVERRANGE = 1.01
"""A source reaches 101 % of its range (section 2, maximum source values and readings)."""
READING_OVERRANGE = 1.02
"""A reading reaches 102 % of its range (same place)."""

OUTPUT_OFF, OUTPUT_ON, OUTPUT_HIGH_Z = 0, 1, 2
OFF_NORMAL, OFF_ZERO, OFF_HIGH_Z = 0, 1, 2
DCAMPS, DCVOLTS = 0, 1
VOLTAGE_LIMIT_BIT, CURRENT_LIMIT_BIT, OVERFLOW_BIT, BUFFER_BIT = 1, 2, 128, 256
"""status.measurement.instrument.smuX (section 7)."""

BUFFER_CAPACITY = 60_000


class ReadingBuffer:
    """A reading buffer and its columns."""

    COLUMNS = ("readings", "timestamps", "sourcevalues", "statuses", "measureranges", "sourceranges")

    def __init__(self, capacity: int = BUFFER_CAPACITY) -> None:
        self.capacity = capacity
        self.append = False
        self.settings = {
            "collecttimestamps": 0.0,
            "collectsourcevalues": 0.0,
            "cachemode": 1.0,
            "fillmode": 0.0,
            "fillcount": 0.0,
            "timestampresolution": 1e-6,
        }
        self.base = 0.0
        self.columns: dict[str, list[float]] = {name: [] for name in self.COLUMNS}

    def __len__(self) -> int:
        return len(self.columns["readings"])

    def clear(self) -> None:
        """Forget all readings and go back to storing from the start."""
        for column in self.columns.values():
            column.clear()
        self.append = False

    def start(self, seconds: float) -> None:
        """Begin a measurement: without append mode the old readings go."""
        if not self.append:
            for column in self.columns.values():
                column.clear()
        if not len(self):
            self.base = seconds

    def store(self, value: float, reading: Reading, source: float, status: int, ranges: tuple[float, float]) -> None:
        """Add one reading; raises TspError where the buffer is full."""
        if len(self) >= self.capacity:
            raise TspError(1114, "Reading buffer is full")
        row = (value, reading.seconds - self.base, source, float(status), *ranges)
        for name, entry in zip(self.COLUMNS, row, strict=True):
            self.columns[name].append(entry)

    def column(self, name: str) -> "BufferColumn":
        """Return a column as an object of its own."""
        return BufferColumn(self, name)


@dataclass(frozen=True)
class BufferColumn:
    """One column of a reading buffer, as ``printbuffer`` takes it."""

    buffer: ReadingBuffer
    name: str

    @property
    def values(self) -> list[float]:
        """The entries."""
        return self.buffer.columns[self.name]

    def at(self, index: float) -> float | None:
        """Return an entry by its number from 1, None beyond the end."""
        place = int(index)
        return self.values[place - 1] if 1 <= place <= len(self.values) else None


@dataclass
class TriggerModel:
    """Settings of one channel's trigger model, as far as a sweep needs them."""

    count: float = 1.0
    arm_count: float = 1.0
    arm_stimulus: float = 0.0
    levels: tuple[float, ...] = ()
    quantity: str = "v"
    source_action: float = 0.0
    source_stimulus: float = 0.0
    measure_stimulus: float = 0.0
    measure_action: float = 0.0
    measured: str = ""
    buffers: tuple[ReadingBuffer, ...] = ()
    end_pulse: float = 0.0
    end_sweep: float = 0.0


class Channel:
    """One SMU channel: settings, output, readings."""

    def __init__(self, model: Model2600B, smu: SourceMeasure, mains: int) -> None:
        self.model, self.smu, self.mains = model, smu, mains
        self.buffers = (ReadingBuffer(), ReadingBuffer())
        self.reset()

    def reset(self) -> None:
        """Return to the power-on settings, output off (section 7, defaults of smuX)."""
        model = self.model
        self.output = OUTPUT_OFF
        self.values: dict[str, float] = {
            "source.func": DCVOLTS,
            "source.levelv": 0.0,
            "source.leveli": 0.0,
            "source.limitv": model.volt_ranges[-2] if model.volts > 100 else 20.0,
            "source.limiti": 0.1,
            "source.limitp": 0.0,
            "source.rangev": model.volt_ranges[0],
            "source.rangei": model.ampere_ranges[0],
            "source.autorangev": 1,
            "source.autorangei": 1,
            "source.lowrangev": model.volt_ranges[0],
            "source.lowrangei": model.ampere_ranges[0],
            "source.delay": 0.0,
            "source.highc": 0,
            "source.settling": 0,
            "source.sink": 0,
            "source.offmode": OFF_NORMAL,
            "source.offfunc": DCVOLTS,
            "source.offlimitv": model.volts,
            "source.offlimiti": 1e-3,
            "source.outputenableaction": 0,
            "measure.nplc": 1.0,
            "measure.rangev": model.volt_ranges[0],
            "measure.rangei": model.ampere_ranges[0],
            "measure.autorangev": 1,
            "measure.autorangei": 1,
            "measure.lowrangev": model.volt_ranges[0],
            "measure.lowrangei": model.ampere_ranges[0],
            "measure.count": 1,
            "measure.interval": 0.0,
            "measure.delay": -1.0,
            "measure.delayfactor": 1.0,
            "measure.highcrangedelayfactor": 10.0,
            "measure.autozero": 2,
            "measure.filter.enable": 0,
            "measure.filter.type": 1,
            "measure.filter.count": 1,
            "measure.rel.enablev": 0,
            "measure.rel.enablei": 0,
            "measure.rel.levelv": 0.0,
            "measure.rel.leveli": 0.0,
            "sense": 0,
        }
        self.trigger = TriggerModel()
        self.condition = 0
        self.drive()

    def write(self, name: str, value: Any) -> None:
        """Set one attribute; raises TspError for what the channel refuses, which leaves the old value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TspError(-104, "Data type error")
        low, high = self._bounds(name)
        if not value <= high:
            raise TspError(1102, "Parameter too big")
        if not value >= low:
            raise TspError(1101, "Parameter too small")
        if name == "source.output":
            self.switch(int(value))
            return
        quantity = name[-1]
        if name.endswith(("rangev", "rangei")) and "auto" not in name:
            value = smallest_range(self._ranges(quantity), value)
            if "low" not in name:
                self.values[name.replace("range", "autorange")] = 0
        elif name in {"source.levelv", "source.leveli"}:
            self._fit_source(quantity, value)
        self.values[name] = float(value)
        self.drive()

    def switch(self, state: int) -> None:
        """Set the output to OUTPUT_OFF, OUTPUT_ON or OUTPUT_HIGH_Z."""
        self.output = state
        self.drive()

    def drive(self) -> None:
        """Apply to the node what the settings ask for."""
        values = self.values
        four_wire = values["sense"] == 1
        if self.output == OUTPUT_ON:
            if values["source.func"] == DCVOLTS:
                wanted = Applied("voltage", values["source.levelv"], values["source.limiti"])
            else:
                wanted = Applied("current", values["source.leveli"], values["source.limitv"])
            self.smu.drive(wanted, self._source_range(), four_wire=four_wire)
        else:
            self.smu.drive(self._off())

    def measure(self, quantities: str, buffers: tuple[ReadingBuffer, ...] = ()) -> tuple[float, ...]:
        """Take ``measure.count`` readings, store them, and return the last: one number per letter of v, i, r, p."""
        values = self.values
        for buffer in buffers:
            buffer.start(self.smu.now)
        shown: tuple[float, ...] = ()
        for index in range(int(values["measure.count"])):
            begun = self.smu.now
            reading = self._read(first=index == 0)
            shown = tuple(self._shown(letter, reading) for letter in quantities)
            status = (64 if reading.limited else 0) | (16 if values["sense"] == 1 else 0)
            self._set_condition(reading, any(abs(value) >= OVERFLOW for value in shown))
            source = values["source.levelv" if values["source.func"] == DCVOLTS else "source.leveli"]
            for letter, value, buffer in zip(quantities, shown, buffers, strict=False):
                ranges = (self._measure_range(letter), self._source_range())
                buffer.store(value, reading, source, status, ranges)
            self.smu.wait(values["measure.interval"] - (self.smu.now - begun))
        return shown

    def compliance(self) -> bool:
        """Whether the source is at its limit; brings the condition register up to date."""
        limited = self.output == OUTPUT_ON and self.smu.limited()
        bits = VOLTAGE_LIMIT_BIT | CURRENT_LIMIT_BIT
        self.condition = self.condition & ~bits | (self._limit_bit() if limited else 0)
        return limited

    def check_buffers(self) -> int:
        """Return the condition register of the channel."""
        stored = any(len(buffer) for buffer in self.buffers)
        return self.condition | (BUFFER_BIT if stored else 0)

    def _read(self, *, first: bool) -> Reading:
        values = self.values
        delay = values["measure.delay"]
        if first:
            self.smu.wait(values["source.delay"] + (0.0 if delay < 0 else delay))
        repeats = int(values["measure.filter.count"]) if values["measure.filter.enable"] else 1
        cycles = values["measure.nplc"]
        taken = [self.smu.measure(cycles / self.mains, cycles, four_wire=values["sense"] == 1) for _ in range(repeats)]
        volts = math.fsum(reading.volts for reading in taken) / repeats
        amperes = math.fsum(reading.amperes for reading in taken) / repeats
        return Reading(volts, amperes, any(reading.limited for reading in taken), taken[-1].seconds)

    def _shown(self, letter: str, reading: Reading) -> float:
        if self.smu.applied.kind == "open":
            return NAN
        values = self.values
        volts, amperes = reading.volts, reading.amperes
        volts -= values["measure.rel.levelv"] if values["measure.rel.enablev"] else 0.0
        amperes -= values["measure.rel.leveli"] if values["measure.rel.enablei"] else 0.0
        for quantity, value in (("v", volts), ("i", amperes)):
            fixed = not values[f"measure.autorange{quantity}"]
            if letter in (quantity, "r", "p") and fixed and not self._sources(quantity):
                reach = values[f"measure.range{quantity}"] * READING_OVERRANGE
                if abs(value) > reach * (1 + 1e-9):
                    return math.copysign(NAN, value)
        if letter == "r":
            return volts / amperes if amperes else NAN
        return {"v": volts, "i": amperes, "p": volts * amperes}[letter]

    def _set_condition(self, reading: Reading, overflow: bool) -> None:
        limited = reading.limited and self.output == OUTPUT_ON
        self.condition = (self._limit_bit() if limited else 0) | (OVERFLOW_BIT if overflow else 0)

    def _limit_bit(self) -> int:
        return CURRENT_LIMIT_BIT if self.values["source.func"] == DCVOLTS else VOLTAGE_LIMIT_BIT

    def _off(self) -> Applied:
        values = self.values
        mode = values["source.offmode"]
        if self.output == OUTPUT_HIGH_Z or mode == OFF_HIGH_Z:
            return OPEN
        if mode == OFF_ZERO:
            if values["source.func"] == DCVOLTS:
                return Applied("voltage", 0.0, values["source.limiti"])
            least = 0.1 * self._source_range()
            return Applied("voltage", 0.0, max(abs(values["source.leveli"]), least))
        if values["source.offfunc"] == DCVOLTS:
            return Applied("voltage", 0.0, values["source.offlimiti"])
        return Applied("current", 0.0, values["source.offlimitv"])

    def _sources(self, quantity: str) -> bool:
        return (quantity == "v") == (self.values["source.func"] == DCVOLTS)

    def _source_range(self) -> float:
        return self.values["source.rangev" if self.values["source.func"] == DCVOLTS else "source.rangei"]

    def _measure_range(self, letter: str) -> float:
        return self.values.get(f"measure.range{letter}", 0.0)

    def _ranges(self, quantity: str) -> tuple[float, ...]:
        return self.model.volt_ranges if quantity == "v" else self.model.ampere_ranges

    def _fit_source(self, quantity: str, value: float) -> None:
        if self.values[f"source.autorange{quantity}"]:
            best = smallest_range(self._ranges(quantity), value, OVERRANGE)
            self.values[f"source.range{quantity}"] = max(best, self.values[f"source.lowrange{quantity}"])
        elif abs(value) > self.values[f"source.range{quantity}"] * OVERRANGE * (1 + 1e-9):
            raise TspError(5007, "Source value exceeds the range")

    def _bounds(self, name: str) -> tuple[float, float]:
        volts, amperes = self.model.volts * OVERRANGE, self.model.amperes * OVERRANGE
        reach = volts if name.endswith("v") else amperes
        if name in {"source.levelv", "source.leveli"}:
            return -reach, reach
        if name in {"source.limitv", "source.offlimitv"}:
            return 0.1 * self.model.volt_ranges[0], reach
        if name in {"source.limiti", "source.offlimiti"}:
            return 0.1 * self.model.ampere_ranges[0], reach
        if name.endswith(("autorangev", "autorangei")):
            return 0, 2
        if name.endswith(("rangev", "rangei")):
            return -reach, reach
        return _BOUNDS.get(name, (-math.inf, math.inf))


_BOUNDS: dict[str, tuple[float, float]] = {
    "source.output": (0, 2),
    "source.func": (0, 1),
    "source.offmode": (0, 2),
    "source.offfunc": (0, 1),
    "source.highc": (0, 1),
    "source.delay": (-1, 1e4),
    "source.limitp": (0, 1e4),
    "measure.nplc": (0.001, 25),
    "measure.count": (1, BUFFER_CAPACITY),
    "measure.interval": (0, 1),
    "measure.delay": (-1, 1e4),
    "measure.autozero": (0, 2),
    "measure.filter.count": (1, 100),
    "measure.filter.type": (0, 2),
    "measure.filter.enable": (0, 1),
    "sense": (0, 3),
}
