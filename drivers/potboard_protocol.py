"""Messages of the pot-board protocol, version 1, for both sides, sans I/O; docs/potboard-protocol.md specifies it.

Integers of more than one byte have their most significant byte first, like the CRC. Pots, ADC channels, sources and
switches are numbered from 0. Volts are whole nanovolts in 8 bytes, two's complement.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from hilcl.drivers.potboard_framing import REPLY, Frame, crc16

MAJOR, MINOR = 1, 1

NOTHING = 0xFFFF
"""Detail of a refusal that concerns no pot or channel, and the code of a chip that cannot be read."""

FLOAT = -(1 << 63)
"""Nanovolts that stand for an open switch."""

NO_SWITCH = 0xFF
"""Switch of a source that is always connected."""

WIDTHS = (2, 4, 8)
"""Bytes a sum of ADC codes may have."""

SEVENS = 7
"""Width of sums of two bytes with seven bits each: none is zero, so a board can send one before it knows the next."""

SEVENS_MINOR = 1
"""Minor version since when boards know SEVENS."""


class Opcode(IntEnum):
    """T of a request."""

    NOTICE = 0x00
    HELLO = 0x01
    DESC = 0x02
    COUNTERS = 0x03
    STAGE = 0x10
    COMMIT = 0x11
    WRITE = 0x12
    READ = 0x13
    SCAN = 0x20
    STEP = 0x21
    SOURCE = 0x30
    SWITCH = 0x31
    WATCHDOG = 0x40
    SAFE = 0x41
    TEXT = 0x7E
    EXIT = 0x7F


class Status(IntEnum):
    """First byte of every reply's payload."""

    OK = 0
    LENGTH = 1
    RANGE = 2
    OPCODE = 3
    STAGE_CRC = 4
    VERIFY = 5
    BUS = 6
    BUSY = 7
    SAFE = 8
    VERSION = 9
    OVERFLOW = 10
    GREETING = 11


class Reason(IntEnum):
    """Why a board is safe and refuses to leave that state."""

    NONE = 0
    HOST = 1
    WATCHDOG = 2
    FAULT = 3


class SafeAction(IntEnum):
    """What SAFE does: switch the outputs off; also move the pots to their safe codes and latch; release the latch."""

    OUTPUTS = 0
    LATCH = 1
    CLEAR = 2


class Verdict(IntEnum):
    """What is known of codes that were written."""

    VERIFIED = 0
    UNVERIFIABLE = 1
    UNCHECKED = 2


class Kind(IntEnum):
    """What DESC describes."""

    POTS = 0
    ADC = 1
    SOURCE = 2


class ProtocolError(ValueError):
    """A payload that means nothing: the status to answer with, and the pot or channel it is about."""

    def __init__(self, status: Status, detail: int = NOTHING) -> None:
        super().__init__(f"{status.name}, detail {detail}")
        self.status, self.detail = status, detail


def stage_crc(codes: Iterable[tuple[int, int]]) -> int:
    """Return the CRC over pot and code, two bytes each, of pots in ascending order."""
    return crc16(b"".join(struct.pack(">HH", pot, code) for pot, code in codes))


def _unpack(layout: str, payload: bytes) -> tuple[int, ...]:
    """Return the fields of a payload that has exactly that layout."""
    try:
        return struct.unpack(f">{layout}", payload)
    except struct.error as cause:
        raise ProtocolError(Status.LENGTH) from cause


def _head(layout: str, payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the fields at the beginning of a payload, and what follows them."""
    size = struct.calcsize(f">{layout}")
    return _unpack(layout, payload[:size]), payload[size:]


def _flag(value: int) -> bool:
    if value not in {0, 1}:
        raise ProtocolError(Status.RANGE)
    return value == 1


def _width(codes: Sequence[int]) -> int:
    return 1 if max(codes, default=0) < 256 else 2


def _pack_codes(codes: Sequence[int]) -> bytes:
    width = _width(codes)
    return b"".join(code.to_bytes(width, "big") for code in codes)


def _unpack_codes(width: int, payload: bytes) -> tuple[int, ...]:
    if width not in {1, 2}:
        raise ProtocolError(Status.RANGE)
    if not payload or len(payload) % width:
        raise ProtocolError(Status.LENGTH)
    return struct.unpack(f">{len(payload) // width}{'xBH'[width]}", payload)


# Requests.


@dataclass(frozen=True)
class Hello:
    """Greets the board and resynchronises: SEQ 0, the staged codes and the stored reply are forgotten."""

    opcode: ClassVar[Opcode] = Opcode.HELLO
    major: int = MAJOR
    minor: int = MINOR

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">BB", self.major, self.minor)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message; a payload may be longer, for later minor versions."""
        (major, minor), _ = _head("BB", payload)
        return cls(major, minor)


@dataclass(frozen=True)
class Describe:
    """Asks what group ``index`` of pots or ADC channels, or source ``index``, is."""

    opcode: ClassVar[Opcode] = Opcode.DESC
    kind: Kind
    index: int

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">BB", self.kind, self.index)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        kind, index = _unpack("BB", payload)
        if kind not in {each.value for each in Kind}:
            raise ProtocolError(Status.RANGE)
        return cls(Kind(kind), index)


@dataclass(frozen=True)
class ReadCounters:
    """Asks for the error counters."""

    opcode: ClassVar[Opcode] = Opcode.COUNTERS

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        _unpack("", payload)
        return cls()


@dataclass(frozen=True)
class Stage:
    """Lays codes of pots ``first`` … aside without writing them."""

    opcode: ClassVar[Opcode] = Opcode.STAGE
    first: int
    codes: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the payload; codes are one byte wide where that is enough for all of them."""
        return struct.pack(">HB", self.first, _width(self.codes)) + _pack_codes(self.codes)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (first, width), rest = _head("HB", payload)
        return cls(first, _unpack_codes(width, rest))


@dataclass(frozen=True)
class Commit:
    """Writes what is staged if its CRC is ``crc``, reads it back if ``verify``, and waits ``settling`` µs."""

    opcode: ClassVar[Opcode] = Opcode.COMMIT
    crc: int
    verify: bool = True
    settling: int = 0

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">HBI", self.crc, self.verify, self.settling)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        crc, verify, settling = _unpack("HBI", payload)
        return cls(crc, _flag(verify), settling)


@dataclass(frozen=True)
class Write:
    """STAGE and COMMIT in one frame."""

    opcode: ClassVar[Opcode] = Opcode.WRITE
    first: int
    codes: tuple[int, ...]
    verify: bool = True
    settling: int = 0

    def encode(self) -> bytes:
        """Return the payload."""
        head = struct.pack(">HBBI", self.first, _width(self.codes), self.verify, self.settling)
        return head + _pack_codes(self.codes)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (first, width, verify, settling), rest = _head("HBBI", payload)
        return cls(first, _unpack_codes(width, rest), _flag(verify), settling)


@dataclass(frozen=True)
class Read:
    """Asks for ``count`` codes: as the chips hold them, or what was last written if ``shadow``."""

    opcode: ClassVar[Opcode] = Opcode.READ
    first: int
    count: int
    shadow: bool = False

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">HHB", self.first, self.count, self.shadow)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        first, count, shadow = _unpack("HHB", payload)
        return cls(first, count, _flag(shadow))


def largest_sum(width: int) -> int:
    """Return the largest sum of codes a width of SCAN has room for."""
    return (1 << (14 if width == SEVENS else 8 * width)) - 1


def _goes_with(width: int, scatter: bool) -> bool:
    return width in WIDTHS or (width == SEVENS and not scatter)


@dataclass(frozen=True)
class Scan:
    """Reads ADC channels ``averages`` times each: sums of ``width`` bytes come back, and squares if ``scatter``.

    ``width`` is one of WIDTHS, or SEVENS without scatter.
    """

    opcode: ClassVar[Opcode] = Opcode.SCAN
    first: int
    count: int
    averages: int = 1
    width: int = 2
    scatter: bool = False

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">BBHBB", self.first, self.count, self.averages, self.width, self.scatter)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        first, count, averages, width, scatter = _unpack("BBHBB", payload)
        if averages == 0 or not _goes_with(width, _flag(scatter)):
            raise ProtocolError(Status.RANGE)
        return cls(first, count, averages, width, _flag(scatter))

    @property
    def reply_bytes(self) -> int:
        """Bytes of the reply's payload, status included."""
        if self.width == SEVENS:
            return 3 + 2 * self.count + 1
        return 3 + self.count * (self.width + (8 if self.scatter else 0))


@dataclass(frozen=True)
class Level:
    """What a source is to do: ``nanovolts``, or FLOAT."""

    source: int
    nanovolts: int


def _pack_levels(levels: Sequence[Level]) -> bytes:
    return b"".join(struct.pack(">Bq", level.source, level.nanovolts) for level in levels)


def _unpack_levels(payload: bytes) -> tuple[Level, ...]:
    if len(payload) % 9:
        raise ProtocolError(Status.LENGTH)
    return tuple(Level(source, nanovolts) for source, nanovolts in struct.iter_unpack(">Bq", payload))


@dataclass(frozen=True)
class SetSources:
    """Opens the switches of sources that are to float, sets the others, closes theirs, and waits ``settling`` µs."""

    opcode: ClassVar[Opcode] = Opcode.SOURCE
    levels: tuple[Level, ...]
    settling: int = 0

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">I", self.settling) + _pack_levels(self.levels)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (settling,), rest = _head("I", payload)
        return cls(_unpack_levels(rest), settling)


@dataclass(frozen=True)
class SetSwitches:
    """Opens, then closes switches given as (switch, closed), and waits ``settling`` µs."""

    opcode: ClassVar[Opcode] = Opcode.SWITCH
    switches: tuple[tuple[int, bool], ...]
    settling: int = 0

    def encode(self) -> bytes:
        """Return the payload."""
        pairs = b"".join(struct.pack(">BB", switch, closed) for switch, closed in self.switches)
        return struct.pack(">I", self.settling) + pairs

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (settling,), rest = _head("I", payload)
        if len(rest) % 2:
            raise ProtocolError(Status.LENGTH)
        return cls(tuple((switch, _flag(closed)) for switch, closed in struct.iter_unpack(">BB", rest)), settling)


@dataclass(frozen=True)
class Step:
    """A whole measurement in one turnaround: pots, sources, settling (that of ``write``), scan."""

    opcode: ClassVar[Opcode] = Opcode.STEP
    write: Write
    levels: tuple[Level, ...]
    scan: Scan

    def encode(self) -> bytes:
        """Return the payload."""
        counts = struct.pack(">HB", len(self.write.codes), len(self.levels))
        return counts + self.scan.encode() + _pack_levels(self.levels) + self.write.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (codes, count), rest = _head("HB", payload)
        scan, rest = Scan.decode(rest[:6]), rest[6:]
        levels, rest = _unpack_levels(rest[: 9 * count]), rest[9 * count :]
        write = Write.decode(rest)
        if len(write.codes) != codes or len(levels) != count:
            raise ProtocolError(Status.LENGTH)
        return cls(write, levels, scan)


@dataclass(frozen=True)
class Watchdog:
    """Arms the watchdog to ``milliseconds`` of silence, 0 disarms it; sent again, it is the heartbeat."""

    opcode: ClassVar[Opcode] = Opcode.WATCHDOG
    milliseconds: int

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">H", self.milliseconds)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (milliseconds,) = _unpack("H", payload)
        return cls(milliseconds)


@dataclass(frozen=True)
class Safe:
    """Makes the board safe, or releases the latch."""

    opcode: ClassVar[Opcode] = Opcode.SAFE
    action: SafeAction

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack(">B", self.action)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (action,) = _unpack("B", payload)
        if action not in {each.value for each in SafeAction}:
            raise ProtocolError(Status.RANGE)
        return cls(SafeAction(action))


@dataclass(frozen=True)
class Text:
    """One line of text mode."""

    opcode: ClassVar[Opcode] = Opcode.TEXT
    line: str

    def encode(self) -> bytes:
        """Return the payload."""
        return self.line.encode("latin-1", "replace")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        return cls(payload.decode("latin-1"))


@dataclass(frozen=True)
class Exit:
    """Switches the outputs off, disarms the watchdog and returns to text."""

    opcode: ClassVar[Opcode] = Opcode.EXIT

    def encode(self) -> bytes:
        """Return the payload."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        _unpack("", payload)
        return cls()


Request = (
    Hello
    | Describe
    | ReadCounters
    | Stage
    | Commit
    | Write
    | Read
    | Scan
    | Step
    | SetSources
    | SetSwitches
    | Watchdog
    | Safe
    | Text
    | Exit
)

_REQUESTS: dict[int, Callable[[bytes], Request]] = {
    Opcode.HELLO: Hello.decode,
    Opcode.DESC: Describe.decode,
    Opcode.COUNTERS: ReadCounters.decode,
    Opcode.STAGE: Stage.decode,
    Opcode.COMMIT: Commit.decode,
    Opcode.WRITE: Write.decode,
    Opcode.READ: Read.decode,
    Opcode.SCAN: Scan.decode,
    Opcode.STEP: Step.decode,
    Opcode.SOURCE: SetSources.decode,
    Opcode.SWITCH: SetSwitches.decode,
    Opcode.WATCHDOG: Watchdog.decode,
    Opcode.SAFE: Safe.decode,
    Opcode.TEXT: Text.decode,
    Opcode.EXIT: Exit.decode,
}


# Replies: what follows the status 0. A refusal has another status and a detail instead.


@dataclass(frozen=True)
class Refusal:
    """A status that is not OK; ``detail`` names the pot or channel, the Reason of SAFE or the version of VERSION."""

    status: Status
    detail: int = NOTHING


@dataclass(frozen=True)
class Greeting:
    """What the board is. ``boots`` counts its starts; ``latched`` tells whether it is safe and why."""

    boots: int
    pots: int
    pot_groups: int
    adcs: int
    adc_groups: int
    sources: int
    switches: int
    frame_limit: int
    window: int
    latched: Reason
    identity: str
    major: int = MAJOR
    minor: int = MINOR

    def encode(self) -> bytes:
        """Return the payload after the status."""
        numbers = (self.pots, self.pot_groups, self.adcs, self.adc_groups, self.sources, self.switches)
        head = struct.pack(
            ">BBHHBBBBBHHB", self.major, self.minor, self.boots, *numbers, self.frame_limit, self.window, self.latched
        )
        return head + self.identity.encode("ascii", "replace")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        head, identity = _head("BBHHBBBBBHHB", payload)
        major, minor, boots, *numbers, frame_limit, window, latched = head
        pots, pot_groups, adcs, adc_groups, sources, switches = numbers
        return cls(
            boots,
            pots,
            pot_groups,
            adcs,
            adc_groups,
            sources,
            switches,
            frame_limit,
            window,
            _reason(latched),
            identity.decode("ascii", "replace"),
            major,
            minor,
        )


def _reason(value: int) -> Reason:
    return Reason(value) if value in {each.value for each in Reason} else Reason.FAULT


@dataclass(frozen=True)
class PotsDescription:
    """A group of like pots: ``count`` from ``first``, codes 0 … ``highest``; ``safe`` is their code in the safe state.

    ``readback``: chips can be read; ``nonvolatile``: they keep their code; ``latch``: they change simultaneously;
    ``counter``: up/down chips, homed by counting to an end stop.
    """

    chip: str
    first: int
    count: int
    highest: int
    power_on: int
    safe: int
    readback: bool = True
    nonvolatile: bool = False
    latch: bool = False
    counter: bool = False

    def encode(self) -> bytes:
        """Return the payload after the status."""
        flags = self.readback | self.nonvolatile << 1 | self.latch << 2 | self.counter << 3
        head = struct.pack(">BHHHHHB", Kind.POTS, self.first, self.count, self.highest, self.power_on, self.safe, flags)
        return head + self.chip.encode("ascii", "replace")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (_, first, count, highest, power_on, safe, flags), chip = _head("BHHHHHB", payload)
        bits = [bool(flags >> bit & 1) for bit in range(4)]
        return cls(chip.decode("ascii", "replace"), first, count, highest, power_on, safe, *bits)


@dataclass(frozen=True)
class AdcDescription:
    """A group of like ADC channels: volts = (code − ``zero``)·``span``/2^``bits``.

    ``span`` in nanovolts; ``conversion`` µs for one reading of one channel.
    """

    first: int
    count: int
    bits: int
    zero: int
    span: int
    conversion: int

    def encode(self) -> bytes:
        """Return the payload after the status."""
        fields = (self.first, self.count, self.bits, self.zero, self.span, self.conversion)
        return struct.pack(">BBBBIqI", Kind.ADC, *fields)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        _, *fields = _unpack("BBBBIqI", payload)
        return cls(*fields)


@dataclass(frozen=True)
class SourceDescription:
    """A source: its ``switch`` or NO_SWITCH, and the nanovolts it can drive."""

    switch: int
    lowest: int
    highest: int

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(">BBqq", Kind.SOURCE, self.switch, self.lowest, self.highest)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        _, switch, lowest, highest = _unpack("BBqq", payload)
        return cls(switch, lowest, highest)


Description = PotsDescription | AdcDescription | SourceDescription


def _decode_description(payload: bytes) -> Description:
    kind = payload[:1]
    if kind == bytes((Kind.POTS,)):
        return PotsDescription.decode(payload)
    if kind == bytes((Kind.ADC,)):
        return AdcDescription.decode(payload)
    if kind == bytes((Kind.SOURCE,)):
        return SourceDescription.decode(payload)
    raise ProtocolError(Status.RANGE)


@dataclass(frozen=True)
class Counters:
    """Faults since the board started, each stopping at 65535."""

    crc_errors: int
    overflows: int
    replays: int
    watchdog_expiries: int

    def encode(self) -> bytes:
        """Return the payload after the status."""
        values = (self.crc_errors, self.overflows, self.replays, self.watchdog_expiries)
        return struct.pack(">HHHH", *(min(value, 0xFFFF) for value in values))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        return cls(*_unpack("HHHH", payload))


@dataclass(frozen=True)
class Staged:
    """How many pots have a staged code now."""

    count: int

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(">H", self.count)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        return cls(*_unpack("H", payload))


@dataclass(frozen=True)
class Written:
    """``count`` pots were written; ``echo`` is ``stage_crc`` of what their chips hold, where they can be read."""

    count: int
    verdict: Verdict
    echo: int

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(">HBH", self.count, self.verdict, self.echo)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        count, verdict, echo = _unpack("HBH", payload)
        if verdict not in {each.value for each in Verdict}:
            raise ProtocolError(Status.RANGE)
        return cls(count, Verdict(verdict), echo)


@dataclass(frozen=True)
class Codes:
    """Codes read, NOTHING where a chip cannot be read."""

    codes: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(f">{len(self.codes)}H", *self.codes)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        if len(payload) % 2:
            raise ProtocolError(Status.LENGTH)
        return cls(_unpack(f"{len(payload) // 2}H", payload))


@dataclass(frozen=True)
class Scanned:
    """Sums of ADC codes, and Σ(code − mean)² of each channel rounded to whole counts² where it was asked for."""

    sums: tuple[int, ...]
    squares: tuple[int, ...] | None = None
    width: int = 2

    def encode(self) -> bytes:
        """Return the payload after the status."""
        head = struct.pack(">BB", self.width, self.squares is not None)
        if self.width == SEVENS:
            return head + b"".join(bytes([0x80 | total >> 7, 0x80 | total & 0x7F]) for total in self.sums) + b"\0"
        squares = (None,) * len(self.sums) if self.squares is None else self.squares
        rows = (
            total.to_bytes(self.width, "big") + (b"" if square is None else struct.pack(">Q", square))
            for total, square in zip(self.sums, squares, strict=True)
        )
        return head + b"".join(rows)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (width, scatter), rest = _head("BB", payload)
        if not _goes_with(width, _flag(scatter)):
            raise ProtocolError(Status.RANGE)
        if width == SEVENS:
            if len(rest) % 2 == 0 or rest[-1] or min(rest[:-1], default=0x80) < 0x80:
                raise ProtocolError(Status.LENGTH)
            pairs = zip(rest[:-1:2], rest[1:-1:2], strict=True)
            return cls(tuple((high & 0x7F) << 7 | low & 0x7F for high, low in pairs), None, width)
        size = width + (8 if _flag(scatter) else 0)
        if len(rest) % size:
            raise ProtocolError(Status.LENGTH)
        rows = [rest[start : start + size] for start in range(0, len(rest), size)]
        sums = tuple(int.from_bytes(row[:width], "big") for row in rows)
        squares = tuple(int.from_bytes(row[width:], "big") for row in rows) if scatter else None
        return cls(sums, squares, width)


@dataclass(frozen=True)
class Stepped:
    """The answers of WRITE and SCAN."""

    written: Written
    scanned: Scanned

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return self.written.encode() + self.scanned.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        return cls(Written.decode(payload[:5]), Scanned.decode(payload[5:]))


@dataclass(frozen=True)
class Done:
    """Nothing but the status."""

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        _unpack("", payload)
        return cls()


@dataclass(frozen=True)
class Watching:
    """The watchdog's time, and why the board is latched safe if it is."""

    milliseconds: int
    latched: Reason

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(">HB", self.milliseconds, self.latched)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        milliseconds, latched = _unpack("HB", payload)
        return cls(milliseconds, _reason(latched))


@dataclass(frozen=True)
class Latched:
    """Why the board is latched safe, if it is."""

    reason: Reason

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return struct.pack(">B", self.reason)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        (reason,) = _unpack("B", payload)
        return cls(_reason(reason))


@dataclass(frozen=True)
class Answer:
    """What text mode would have printed, without line end; empty for a command that prints nothing."""

    text: str

    def encode(self) -> bytes:
        """Return the payload after the status."""
        return self.text.encode("latin-1", "replace")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message."""
        return cls(payload.decode("latin-1"))


Reply = (
    Greeting
    | PotsDescription
    | AdcDescription
    | SourceDescription
    | Counters
    | Staged
    | Written
    | Codes
    | Scanned
    | Stepped
    | Done
    | Watching
    | Latched
    | Answer
)

_REPLIES: dict[int, Callable[[bytes], Reply]] = {
    Opcode.HELLO: Greeting.decode,
    Opcode.DESC: _decode_description,
    Opcode.COUNTERS: Counters.decode,
    Opcode.STAGE: Staged.decode,
    Opcode.COMMIT: Written.decode,
    Opcode.WRITE: Written.decode,
    Opcode.READ: Codes.decode,
    Opcode.SCAN: Scanned.decode,
    Opcode.STEP: Stepped.decode,
    Opcode.SOURCE: Done.decode,
    Opcode.SWITCH: Done.decode,
    Opcode.WATCHDOG: Watching.decode,
    Opcode.SAFE: Latched.decode,
    Opcode.TEXT: Answer.decode,
    Opcode.EXIT: Done.decode,
}


def request_frame(request: Request, seq: int) -> Frame:
    """Return a request as a frame; ``seq`` 0 for HELLO, 1 … 255 for others."""
    return Frame(request.opcode, seq, request.encode())


def reply_frame(kind: int, seq: int, reply: Reply | Refusal) -> Frame:
    """Return the answer to a request with that T and SEQ as a frame."""
    if isinstance(reply, Refusal):
        return Frame(kind | REPLY, seq, struct.pack(">BH", reply.status, reply.detail))
    return Frame(kind | REPLY, seq, bytes((Status.OK,)) + reply.encode())


def decode_request(frame: Frame) -> Request:
    """Return the request in a frame.

    Raises ProtocolError with the status to answer.
    """
    decode = _REQUESTS.get(frame.kind)
    if decode is None:
        raise ProtocolError(Status.OPCODE)
    return decode(frame.payload)


def decode_reply(frame: Frame) -> Reply | Refusal:
    """Return the reply in a frame.

    Raises ProtocolError if it is none.
    """
    (status,), rest = _head("B", frame.payload)
    if status not in {each.value for each in Status} or not frame.kind & REPLY:
        raise ProtocolError(Status.RANGE)
    if status != Status.OK:
        (detail,), _ = _head("H", rest)
        return Refusal(Status(status), detail)
    decode = _REPLIES.get(frame.kind & ~REPLY)
    if decode is None:
        raise ProtocolError(Status.OPCODE)
    return decode(rest)
