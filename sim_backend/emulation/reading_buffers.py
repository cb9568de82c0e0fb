"""Reading buffers and their SCPI commands, as the Keithley 2450 and DAQ6510 share them (:TRACe, :READ?, :FETCh?).

Source: Model 2450 Reference Manual, 2450-901-01, section 6 (:READ?, :TRACe subsystem, *LANG).
"""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hilcl.sim_backend.emulation.port import Clock
from hilcl.sim_backend.emulation.scpi import Argument, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import (
    Choice,
    Request,
    ScpiInstrument,
    Setting,
    Whole,
)
from hilcl.sim_backend.emulation.status import QueuedError, RegisterSet, Status

DEFAULT_BUFFERS = ("defbuffer1", "defbuffer2")
MAX_BUFFERS = 16
MAX_POINTS = 100_000

ELEMENTS = Choice(
    (
        "READing",
        "SOURce",
        "RELative",
        "SEConds",
        "FRACtional",
        "STATus",
        "SOURSTATus",
        "UNIT",
        "SOURUNIT",
        "FORMatted",
        "SOURFORMatted",
        "CHANnel",
        "DATE",
        "TIME",
        "TSTamp",
    )
)


@dataclass(frozen=True)
class Row:
    """One reading with what belongs to it; ``channel`` 0 is the front panel."""

    value: float
    seconds: float
    unit: str
    source: float = 0.0
    source_unit: str = ""
    status: int = 0
    source_status: int = 0
    channel: int = 0


class Buffer:
    """A bounded list of readings; a full one drops the oldest."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Append a reading."""
        if len(self.rows) >= self.size:
            del self.rows[0]
        self.rows.append(row)


NUMBERS: dict[str, Callable[[Row], float]] = {
    "READ": lambda row: row.value,
    "REL": lambda row: row.seconds,
    "SOUR": lambda row: row.source,
}
"""The elements a binary block can hold (:FORMat[:DATA])."""

COMMON_SETTINGS = (
    Setting(":SYSTem:BEEPer:STATe", "beeper", Choice(("ON", "OFF")), "ON"),
    Setting(":FORMat:ASCii:PRECision", "precision", Whole(0, 16), 0),
    Setting(":DISPlay:LIGHt:STATe", "light", Choice(("ON100", "ON75", "ON50", "ON25", "OFF", "BLACkout")), "ON50"),
    Setting("[:SENSe#]:COUNt", "count", Whole(1, 300_000), 1),
)


class BufferedInstrument(ScpiInstrument, ABC):
    """A SCPI instrument whose readings go through named buffers; sub-classes say what one reading is."""

    def __init__(
        self, identity: str, settings: Sequence[Setting], clock: Clock, *, line_frequency: int, digits: int | None
    ) -> None:
        status = Status(
            capacity=50,
            registers={"QUEStionable": (RegisterSet(), 1 << 3), "OPERation": (RegisterSet(), 1 << 7)},
        )
        self.clock = clock
        self.mains = line_frequency
        self.language = "SCPI"
        self.buffers = {name: Buffer(MAX_POINTS) for name in DEFAULT_BUFFERS}
        super().__init__(identity, (*COMMON_SETTINGS, *settings), status, digits=digits)
        self._add_buffer_commands()

    @abstractmethod
    def take(self) -> list[Row]:
        """Take one reading, or one scan of several."""
        ...

    def acquire(self, buffer: Buffer) -> None:
        """Take ``count`` readings into a buffer; raises ScpiError."""
        for _ in range(min(self.state[1]["count"], buffer.size)):
            for row in self.take():
                buffer.add(row)

    def error_text(self, entry: QueuedError) -> str:
        """Return ``-113,"Undefined header;1;12 340000000"``: code, text, event type, seconds and nanoseconds."""
        if entry.code == 0:
            return '0,"No error;0;0 0"'
        now = self.clock.now()
        return f'{entry.code},"{entry.message};1;{int(now)} {int(now % 1 * 1e9)}"'

    def reset(self) -> None:
        """``*RST``: settings to their defaults, buffers emptied, those made by the user deleted."""
        super().reset()
        self.buffers = {name: Buffer(MAX_POINTS) for name in DEFAULT_BUFFERS}

    def buffer_named(self, argument: Argument | None) -> Buffer:
        """Return a buffer, the default one where none is named; raises ScpiError 1133 where there is no such buffer."""
        if argument is None:
            return self.buffers[DEFAULT_BUFFERS[0]]
        if argument.kind != "string":
            raise ScpiError(-104)
        if argument.text not in self.buffers:
            raise ScpiError(1133, f"Parameter 1, Syntax error, no reading buffer {argument.text[:32]}")
        return self.buffers[argument.text]

    def show(self, rows: list[Row], elements: Sequence[str]) -> str:
        """Return rows element by element, in the data format chosen; a block holds numbers only."""
        if self.data_format != "ASC":
            if not set(elements) <= set(NUMBERS):
                raise ScpiError(1133, "Parameter 4, Syntax error, expected valid name parameters")
            return self.data([NUMBERS[name](row) for row in rows for name in elements])
        return ",".join(self._element(row, name) for row in rows for name in elements)

    def read(self, request: Request) -> str:
        """``:READ? [buffer [, elements]]``: take readings and return the last."""
        buffer, elements = self._buffer_and_elements(request.arguments)
        self.acquire(buffer)
        return self.show(buffer.rows[-1:], elements)

    def fetch(self, request: Request) -> str:
        """``:FETCh? [buffer [, elements]]``: return the last reading of a buffer."""
        buffer, elements = self._buffer_and_elements(request.arguments)
        if not buffer.rows:
            raise ScpiError(-230)
        return self.show(buffer.rows[-1:], elements)

    def _buffer_and_elements(self, arguments: Sequence[Argument]) -> tuple[Buffer, tuple[str, ...]]:
        named = arguments[0] if arguments and arguments[0].kind == "string" else None
        words = arguments[1:] if named is not None else arguments
        if len(words) > 14:
            raise ScpiError(-108)
        return self.buffer_named(named), tuple(ELEMENTS.parse(word, None) for word in words) or ("READ",)

    def _element(self, row: Row, name: str) -> str:
        match name:
            case "READ":
                return self.number(row.value)
            case "SOUR":
                return self.number(row.source)
            case "REL":
                return self.number(row.seconds)
            case "SEC":
                return str(int(row.seconds))
            case "FRAC":
                return self.number(row.seconds % 1)
            case "STAT":
                return str(row.status)
            case "SOURSTAT":
                return str(row.source_status)
            case "UNIT":
                return row.unit
            case "SOURUNIT":
                return row.source_unit
            case "FORM":
                return f"{row.value:+.6g} {row.unit}"
            case "SOURFORM":
                return f"{row.source:+.6g} {row.source_unit}"
            case "CHAN":
                return str(row.channel) if row.channel else "Front"
        # The bench has emulated seconds and no calendar.
        return f"{row.seconds:.6f}"

    def _add_buffer_commands(self) -> None:
        self.add_data_format({"ASC": None, "REAL": "d", "SRE": "f"}, border="SWAP")
        self.add("*LANG", self._set_language, lambda _: self.language)
        self.add(":READ", ask=self.read)
        self.add(":FETCh", ask=self.fetch)
        self.add(":TRACe:MAKE", self._make)
        self.add(":TRACe:DELete", self._delete)
        self.add(":TRACe:CLEar", lambda request: self._one(request).rows.clear())
        self.add(":TRACe:POINts", self._resize, lambda request: str(self._one(request).size))
        self.add(":TRACe:ACTual", ask=lambda request: str(len(self._one(request).rows)))
        self.add(":TRACe:ACTual:STARt", ask=lambda request: str(min(1, len(self._one(request).rows))))
        self.add(":TRACe:ACTual:END", ask=lambda request: str(len(self._one(request).rows)))
        self.add(":TRACe:DATA", ask=self._data)
        self.add(":TRACe:TRIGger", lambda request: self.acquire(self._one(request)))
        for header, function in (
            ("AVERage", statistics.fmean),
            ("MAXimum", max),
            ("MINimum", min),
            ("STDDev", lambda values: statistics.stdev(values) if len(values) > 1 else 0.0),
        ):
            self.add(
                f":TRACe:STATistics:{header}",
                ask=partial(self._statistic, function),
            )
        self.add(":STATus:CLEar", lambda _: self.status.clear())
        self.add(":SYSTem:LFRequency", ask=lambda _: str(self.mains))
        self.add(":SYSTem:BEEPer[:IMMediate]", lambda request: _discard(request, 2))
        self.add(":DISPlay:SCReen", lambda request: _discard(request, 1))
        self.add(":DISPlay:CLEar", lambda request: _discard(request, 0))
        self.add(":DISPlay:USER#:TEXT[:DATA]", lambda request: _discard(request, 1))
        self.add(":SYSTem:EVENtlog:NEXT", ask=lambda _: self.error_text(self.status.errors.pop()))
        self.add(":SYSTem:EVENtlog:COUNt", ask=lambda _: str(len(self.status.errors)))

    def _set_language(self, request: Request) -> None:
        # A change needs a power cycle to take effect, so the query goes on answering what is spoken now.
        (given,) = request.take(1, 1)
        Choice(("SCPI", "TSP", "SCPI2400", "SCPI2000", "SCPI34401")).parse(given, None)

    def _one(self, request: Request) -> Buffer:
        given = request.take(0, 1)
        return self.buffer_named(given[0] if given else None)

    def _make(self, request: Request) -> None:
        name, size, *_ = request.take(2, 3)
        if name.kind != "string" or not name.text.isidentifier() or len(name.text) > 31 or name.text in self.buffers:
            raise ScpiError(-224)
        if len(self.buffers) >= MAX_BUFFERS:
            raise ScpiError(-225, "Out of memory")
        self.buffers[name.text] = Buffer(Whole(1, MAX_POINTS).parse(size, MAX_POINTS))

    def _delete(self, request: Request) -> None:
        (name,) = request.take(1, 1)
        self.buffer_named(name)
        if name.text in DEFAULT_BUFFERS:
            raise ScpiError(-221)
        del self.buffers[name.text]

    def _resize(self, request: Request) -> None:
        size, *named = request.take(1, 2)
        buffer = self.buffer_named(named[0] if named else None)
        buffer.size = Whole(1, MAX_POINTS).parse(size, MAX_POINTS)
        del buffer.rows[: max(len(buffer.rows) - buffer.size, 0)]

    def _data(self, request: Request) -> str:
        if len(request.arguments) < 2:
            raise ScpiError(-109)
        first, last = (Whole(1, MAX_POINTS).parse(given, 1) for given in request.arguments[:2])
        buffer, elements = self._buffer_and_elements(request.arguments[2:])
        if last > len(buffer.rows) or first > last:
            raise ScpiError(-222)
        return self.show(buffer.rows[first - 1 : last], elements)

    def _statistic(self, function: Callable[[list[float]], float], request: Request) -> str:
        rows = self._one(request).rows
        if not rows:
            raise ScpiError(-230)
        return self.number(function([row.value for row in rows]))


def _discard(request: Request, most: int) -> None:
    request.take(0, most)
