"""The pot board as a bank of rheostats, with its ADC, sources and clamp switches as separate devices on one link."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.devices import SourceReadings, VoltReadings
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.owner_thread import OwnerThread
from hilcl.drivers.potboard_link import Broken, PotBoardLink, PotBoardOptions, Refused, Silence, microseconds
from hilcl.drivers.potboard_protocol import FLOAT, NO_SWITCH, NOTHING, Reason, Status
from hilcl.errors import BoardError, InputError, MeasurementError
from hilcl.events import Event, EventLog

T = TypeVar("T")
R = TypeVar("R", bound=wire.Reply)

RECOVERIES = 2
"""How often one operation is begun again after the link was lost."""

MOST_AVERAGES = 0xFFFF

_BECAUSE = {
    Reason.HOST: "it was told to",
    Reason.WATCHDOG: "its watchdog expired: the host was silent for too long",
    Reason.FAULT: "a pot could not be written",
}


class PotBoard:
    """A pot board on ``port``: a RheostatBank of all its pots.

    All traffic is done by one thread of its own; ``submit`` hands it work and returns a future, the other methods
    wait, and no wait is unbounded. A board that stops answering is greeted anew and the operation done again; if it
    has restarted meanwhile, everything is written again first.
    """

    def __init__(self, name: str, port: str, options: PotBoardOptions | None = None) -> None:
        self.name, self.port = name, port
        self.options = PotBoardOptions() if options is None else options
        self.label = f"{name} ({port})"
        self.recoveries = 0
        """How often the link was greeted anew."""
        self.restarts = 0
        """How often the board was found to have restarted."""
        self._link: PotBoardLink | None = None
        self._greeting: wire.Greeting | None = None
        self._pots: tuple[wire.PotsDescription, ...] = ()
        self._adcs: tuple[wire.AdcDescription, ...] = ()
        self._source_descriptions: tuple[wire.SourceDescription, ...] = ()
        self._codes: tuple[int, ...] | None = None
        self._levels: dict[int, int] = {}
        self._closed_switches: dict[int, bool] = {}
        self._failure: BoardError | None = None
        self._stale = False
        self._closed = False
        self._owner = OwnerThread(name)
        self._events = EventLog(name)
        self._stop_beating = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # The link.

    def open(self) -> Self:
        """Open the port, greet the board, learn what it is and arm its watchdog; no output and no pot changes.

        Raises InputError if the port cannot be opened or no pot board answers there.
        """
        self._owner.run(self._open)
        watchdog = self.options.watchdog
        if watchdog is not None and self.options.heartbeat and self._heart is None:
            self._heart = threading.Thread(
                target=self._beat, args=(watchdog / 4,), name=f"hilcl-{self.name}-heartbeat", daemon=True
            )
            self._heart.start()
        return self

    def take_events(self) -> list[Event]:
        """Return what went wrong with the link and was put right since the last call."""
        return self._events.take()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the owner thread do ``work``, which may call any method, and return its future."""
        return self._owner.submit(work)

    def make_safe(self) -> None:
        """Switch the sources off and open the switches; the pots keep their codes. May be called any number of times.

        Raises BoardError if the board cannot be told so; the heartbeat then ends too, so that its watchdog acts.
        """
        if self._link is None or self._closed:
            return
        self._owner.run(self._make_safe)

    def close(self) -> None:
        """Make the board safe, return it to text mode and close the port; may be called twice."""
        if self._closed:
            return
        try:
            self.make_safe()
        except BoardError:
            self.abandon()
            raise
        self.abandon(leave=True)

    def abandon(self, *, leave: bool = False) -> None:
        """Let go of a board that could not be opened; may be called twice."""
        if self._closed:
            return
        self._stop_beating.set()
        if self._heart is not None:
            self._heart.join()
        self._closed = True
        try:
            self._owner.run(lambda: self._leave(leave))
        finally:
            self._owner.close()

    @property
    def identity(self) -> str:
        """Maker, model, serial number and firmware as the board reports them, empty before ``open``."""
        return "" if self._greeting is None else self._greeting.identity

    @property
    def greeting(self) -> wire.Greeting:
        """What the board said of itself."""
        if self._greeting is None:
            raise BoardError(f"{self.label} has not been opened yet: open it first")
        return self._greeting

    @property
    def retries(self) -> int:
        """How often a frame had to be sent again."""
        return 0 if self._link is None else self._link.retries

    def counters(self) -> wire.Counters:
        """Return the board's own error counters."""
        return self._do(lambda: self._ask(wire.ReadCounters(), wire.Counters))

    def text(self, line: str) -> str:
        """Send one line of text mode (``"*IDN?"``) and return what it prints, "" for nothing."""
        if not line.isascii() or not line.isprintable():
            raise InputError(f"a line for {self.label} is one line of printable ASCII")
        return self._do(lambda: self._ask(wire.Text(line), wire.Answer).text)

    # Pots.

    @property
    def pots(self) -> tuple[wire.PotsDescription, ...]:
        """The groups of like pots, in order."""
        return self._pots

    @property
    def code_counts(self) -> IntArray:
        """Number of codes of each pot, (P,)."""
        return np.array([group.highest + 1 for group in self._pots for _ in range(group.count)], dtype=np.int64)

    def write(self, codes: IntArray) -> None:
        """Write one code per pot, (P,): all are checked before any is written, and read back where possible.

        Raises InputError for codes the pots do not have, and BoardError naming the first pot that took another code
        or does not answer; the board is then safe.
        """
        checked = self._checked_codes(codes)
        self._do(lambda: self._write(checked))

    def read(self) -> IntArray:
        """Return the codes (P,) the chips hold, −1 where a chip cannot be read."""
        codes = self._do(self._read_codes)
        return np.array([-1 if code == NOTHING else code for code in codes], dtype=np.int64)

    # What else is on the board.

    def meter(self, channels: Sequence[str] | None = None) -> "PotBoardVoltmeter":
        """Return the ADC, or some of its channels ``"0"``, ``"1"``, …, as a Voltmeter.

        Raises InputError for a channel the board has not.
        """
        return PotBoardVoltmeter(self, channels)

    def sources(self, channels: Sequence[str] | None = None) -> "PotBoardSources":
        """Return the sources, or some of them, as a SourceBank.

        Raises InputError for a channel the board has not.
        """
        return PotBoardSources(self, channels)

    def switches(self, channels: Sequence[str] | None = None) -> "PotBoardSwitches":
        """Return the clamp switches that belong to no source, or some of the switches.

        Raises InputError for a switch the board has not.
        """
        return PotBoardSwitches(self, channels)

    def step(self, codes: IntArray, volts: FloatArray | None = None, averages: int = 1) -> VoltReadings:
        """Write all pots (P,), drive all sources (C,) in volts with NaN floating, settle, and read the whole ADC.

        One turnaround if the board's frames are long enough, else three messages with the same effect. Raises what
        ``write``, ``drive`` and ``read`` raise.
        """
        checked = self._checked_codes(codes)
        sources = tuple(range(len(self._source_descriptions)))
        levels = () if volts is None else self.checked_levels(sources, volts)
        channels = tuple(range(self.greeting.adcs))
        self.check_averages(averages)
        return self._do(lambda: self._step_all(checked, levels, channels, averages))

    def channel_indices(self, kind: str, count: int, channels: Sequence[str] | None) -> tuple[int, ...]:
        """Return the numbers of channels by name, all if None.

        Raises InputError naming what the board has not, or what is named twice.
        """
        known = [str(index) for index in range(count)]
        names = known if channels is None else list(channels)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            has = f"{kind} channels 0 to {count - 1}" if count else f"no {kind} channels"
            raise InputError(f"{self.label} has {has}, not {unknown[0] if unknown else 'none'}: correct the wiring")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{self.label}: {kind} channel {twice[0]} is listed twice: correct the wiring")
        return tuple(int(name) for name in names)

    def check_averages(self, averages: int) -> None:
        """Raise InputError for a number of readings that the protocol cannot carry."""
        if not 1 <= averages <= MOST_AVERAGES:
            raise InputError(f"{self.label} averages 1 to {MOST_AVERAGES} readings, not {averages}")

    def checked_levels(self, sources: Sequence[int], volts: FloatArray) -> tuple[wire.Level, ...]:
        """Return volts (C,) as the protocol has them.

        Raises InputError naming a source that cannot drive them, or cannot float.
        """
        values = np.asarray(volts, dtype=float)
        if values.shape != (len(sources),):
            raise InputError(f"{self.label} has {len(sources)} source channels, but volts of shape {values.shape} came")
        levels = []
        for source, value in zip(sources, values.tolist(), strict=True):
            description = self._source_descriptions[source]
            if math.isnan(value):
                if description.switch == NO_SWITCH:
                    raise InputError(
                        f"{self.label}: source {source} has no switch and cannot float: wire an output to another one"
                    )
                levels.append(wire.Level(source, FLOAT))
                continue
            if not description.lowest <= value * 1e9 <= description.highest:
                raise InputError(
                    f"{self.label}: source {source} drives {description.lowest / 1e9:g} V to "
                    f"{description.highest / 1e9:g} V, not {value:g} V: change the drives or use another source"
                )
            levels.append(wire.Level(source, round(value * 1e9)))
        return tuple(levels)

    def drive(self, levels: tuple[wire.Level, ...]) -> None:
        """Drive sources, or let them float, as checked before."""
        self._do(lambda: self._drive(levels))

    def switch(self, switches: tuple[tuple[int, bool], ...]) -> None:
        """Open, then close switches given as (switch, closed)."""
        self._do(lambda: self._switch(switches))

    def scan(self, channels: Sequence[int], averages: int) -> VoltReadings:
        """Read ADC channels, in the order given."""
        self.check_averages(averages)
        return self._do(lambda: self._scan(channels, averages))

    @property
    def adc_descriptions(self) -> tuple[wire.AdcDescription, ...]:
        """The groups of like ADC channels, in order."""
        return self._adcs

    @property
    def source_descriptions(self) -> tuple[wire.SourceDescription, ...]:
        """The sources, in order."""
        return self._source_descriptions

    # The owner thread's work.

    def _do(self, work: Callable[[], T]) -> T:
        return self._owner.run(lambda: self._step(work))

    def _ask(self, request: wire.Request, expected: type[R], seconds: float = 0.0) -> R:
        if self._link is None:
            raise BoardError(f"{self.label} has not been opened yet: open it first")
        before = self._link.retries
        reply = self._link.ask(request, expected, seconds)
        if self._link.retries > before:
            self._events.note("a message was lost, late or damaged", "sent it again; the board carries it out once")
        return reply

    def _step(self, work: Callable[[], T]) -> T:
        """Do ``work``, again where the board fell silent or restarted; it must bear being begun anew."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        for _ in range(RECOVERIES):
            try:
                if self._stale and self._link is not None:
                    self._restore(self._link)
                return work()
            except Broken:
                self._reopen()
            except Silence:
                self._recover("no answer came in time")
            except Refused as error:
                if error.status == Status.GREETING:
                    self._recover("it had restarted")
                elif error.status == Status.SAFE:
                    raise self._latched(_reason(error.detail)) from error
                else:
                    raise
        return work()

    def _open(self) -> None:
        if self._link is not None:
            return
        link = PotBoardLink(self.name, self.port, self.options)
        try:
            greeting = link.greet(self.options.boot_time)
            self._speed_up(link)
            self._pots = tuple(
                link.ask(wire.Describe(wire.Kind.POTS, index), wire.PotsDescription)
                for index in range(greeting.pot_groups)
            )
            self._adcs = tuple(
                link.ask(wire.Describe(wire.Kind.ADC, index), wire.AdcDescription)
                for index in range(greeting.adc_groups)
            )
            self._source_descriptions = tuple(
                link.ask(wire.Describe(wire.Kind.SOURCE, index), wire.SourceDescription)
                for index in range(greeting.sources)
            )
            _check_counts(self.label, greeting, self._pots, self._adcs)
            if greeting.latched != Reason.NONE:
                # Left by whoever used the board before. Nothing is on, and nothing comes on by this.
                link.ask(wire.Safe(wire.SafeAction.CLEAR), wire.Latched)
            link.ask(self._arming(), wire.Watching)
        except Silence as error:
            link.close()
            raise InputError(f"no pot board was found: {error}") from error
        except BaseException:
            link.close()
            raise
        self._link, self._greeting = link, greeting

    def _speed_up(self, link: PotBoardLink) -> None:
        if not link.speed_up():
            self._stale = True
            self._events.note(
                f"it cannot be reached at {self.options.fast_baud} baud", f"stayed at {self.options.baud} baud"
            )

    def _arming(self) -> wire.Watchdog:
        watchdog = self.options.watchdog
        return wire.Watchdog(0 if watchdog is None else round(watchdog * 1000))

    def _reopen(self) -> None:
        """Open a port that vanished, and greet whoever is there."""
        if self._link is not None:
            self._link.reopen(self.options.boot_time)
            self._recover("its port vanished")

    def _recover(self, what: str) -> None:
        """Greet the board anew; if it has restarted, write everything again."""
        link, before = self._link, self.greeting
        if link is None:
            return
        self.recoveries += 1
        greeting = link.greet(self.options.boot_time)
        if greeting.identity != before.identity:
            raise BoardError(
                f"{self.label} answers as {greeting.identity!r} and was {before.identity!r} before: plug the right "
                "board in and start again"
            )
        if greeting.latched != Reason.NONE:
            raise self._latched(greeting.latched)
        self._note(greeting)
        self._speed_up(link)
        again = "wrote codes, sources and switches again" if self._stale else "asked again"
        self._events.note(what, f"greeted it anew and {again}")
        if self._stale:
            self._restore(link)

    def _note(self, greeting: wire.Greeting) -> None:
        """Remember that the board has restarted, until everything is written again."""
        if greeting.boots != self.greeting.boots:
            self.restarts += 1
            self._stale = True
        self._greeting = greeting

    def _restore(self, link: PotBoardLink) -> None:
        link.ask(self._arming(), wire.Watching)
        if self._codes is not None:
            self._write(self._codes)
        if self._levels:
            self._drive(tuple(wire.Level(source, level) for source, level in self._levels.items()))
        if self._closed_switches:
            self._switch(tuple(self._closed_switches.items()))
        self._stale = False

    def _latched(self, reason: Reason) -> BoardError:
        return BoardError(
            f"{self.label} is in its safe state, sources off and pots at their safe codes, because "
            f"{_BECAUSE.get(reason, 'of a fault')}; remove the cause and open it again"
        )

    def _make_safe(self) -> None:
        self._levels, self._closed_switches, self._failure = {}, {}, None
        try:
            for last in (False, True):
                try:
                    self._ask(wire.Safe(wire.SafeAction.OUTPUTS), wire.Latched)
                    return
                except (Silence, Refused, Broken) as error:
                    if last or (isinstance(error, Refused) and error.status != Status.GREETING) or self._link is None:
                        raise
                    if isinstance(error, Broken):
                        self._link.reopen(self.options.boot_time)
                    self._note(self._link.greet())  # at whatever rate: this is no time to negotiate
        except BoardError as error:
            self._stop_beating.set()
            watchdog = self.options.watchdog
            then = (
                "unplug its supply"
                if watchdog is None
                else f"its watchdog switches it off after {watchdog:g} s; unplug its supply to be sure"
            )
            raise BoardError(f"{self.label} could not be told to switch its sources off, {then} ({error})") from error

    def _leave(self, polite: bool) -> None:
        if self._link is None:
            return
        try:
            if polite:
                self._link.leave()
        finally:
            self._link.close()

    def _beat(self, interval: float) -> None:
        """Keep the watchdog quiet until told to stop; what goes wrong is raised by the next operation."""
        while not self._stop_beating.wait(interval):
            try:
                watching = self._do(lambda: self._ask(self._arming(), wire.Watching))
                if watching.latched != Reason.NONE:
                    raise self._latched(watching.latched)
            except BoardError as error:
                self._failure = error
                return

    def _checked_codes(self, codes: IntArray) -> tuple[int, ...]:
        values, counts = np.asarray(codes), self.code_counts
        if values.shape != counts.shape or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"{self.label} has {len(counts)} pots and needs as many whole codes, but {values.dtype} of shape "
                f"{values.shape} came"
            )
        bad = np.flatnonzero((values < 0) | (values >= counts))
        if bad.size:
            pot = int(bad[0])
            raise InputError(f"{self.label}: pot {pot} has codes 0 to {counts[pot] - 1}, not {values[pot]}")
        return tuple(values.tolist())

    def _write(self, codes: tuple[int, ...]) -> None:
        settling = self.options.settling
        request = wire.Write(0, codes, settling=microseconds(settling))
        if self._fits(request):
            written = self._ask(request, wire.Written, settling)
        else:
            # Two bytes a code, and the seven beside them in a STAGE.
            room = max(1, (self.greeting.frame_limit - 7) // 2)
            for first in range(0, len(codes), room):
                self._ask(wire.Stage(first, codes[first : first + room]), wire.Staged)
            commit = wire.Commit(wire.stage_crc(enumerate(codes)), settling=microseconds(settling))
            written = self._ask(commit, wire.Written, settling)
        self._check_echo(written, codes)
        self._codes = codes

    def _check_echo(self, written: wire.Written, codes: tuple[int, ...]) -> None:
        if written.count == len(codes) and written.echo == wire.stage_crc(enumerate(codes)):
            return
        held = self._read_codes()
        wrong = [pot for pot, code in enumerate(codes) if held[pot] not in {code, NOTHING}]
        where = f"pot {wrong[0]} holds {held[wrong[0]]} and not {codes[wrong[0]]}" if wrong else "no pot differs now"
        raise BoardError(f"{self.label} echoed other codes than were written, {where}: check the chips' wiring")

    def _read_codes(self) -> tuple[int, ...]:
        count = len(self.code_counts)
        room = max(1, (self.greeting.frame_limit - 5) // 2)
        codes: list[int] = []
        for first in range(0, count, room):
            part = min(room, count - first)
            answer = self._ask(wire.Read(first, part), wire.Codes).codes
            if len(answer) != part:
                raise self._odd_count("codes")
            codes += answer
        return tuple(codes)

    def _drive(self, levels: tuple[wire.Level, ...]) -> None:
        settling = self.options.settling
        request = wire.SetSources(levels, microseconds(settling))
        if not self._fits(request):
            raise BoardError(f"{self.label} cannot take {len(levels)} sources in one frame: wire fewer of them")
        self._ask(request, wire.Done, settling)
        self._levels.update((level.source, level.nanovolts) for level in levels)

    def _switch(self, switches: tuple[tuple[int, bool], ...]) -> None:
        settling = self.options.settling
        self._ask(wire.SetSwitches(switches, microseconds(settling)), wire.Done, settling)
        self._closed_switches.update(switches)

    def _fits(self, request: wire.Request, reply_bytes: int = 0) -> bool:
        return self._link is not None and self._link.fits(request, reply_bytes)

    def _adc(self, channel: int) -> wire.AdcDescription:
        return next(group for group in self._adcs if group.first <= channel < group.first + group.count)

    def _scan_request(self, first: int, count: int, averages: int) -> wire.Scan:
        largest = averages * max((1 << self._adc(channel).bits) - 1 for channel in range(first, first + count))
        sevens = averages == 1 and self.greeting.minor >= wire.SEVENS_MINOR
        widths = (wire.SEVENS, *wire.WIDTHS) if sevens else wire.WIDTHS
        width = next(width for width in widths if largest <= wire.largest_sum(width))
        return wire.Scan(first, count, averages, width, scatter=averages > 1)

    def _scan_seconds(self, scan: wire.Scan) -> float:
        channels = range(scan.first, scan.first + scan.count)
        return scan.averages * sum(self._adc(channel).conversion for channel in channels) / 1e6

    def _scan(self, channels: Sequence[int], averages: int) -> VoltReadings:
        found: dict[int, tuple[float, float]] = {}
        room = max(1, (self.greeting.frame_limit - 7) // 16)
        for first, count in _runs(sorted(channels), room):
            scan = self._scan_request(first, count, averages)
            scanned = self._ask(scan, wire.Scanned, self._scan_seconds(scan))
            found.update(self._volts(scan, scanned))
        return _readings(found, channels)

    def _volts(self, scan: wire.Scan, scanned: wire.Scanned) -> dict[int, tuple[float, float]]:
        """Return volts and standard uncertainty by channel: the scatter of the mean and the rounding to a code."""
        if len(scanned.sums) != scan.count or (scanned.squares is None) == scan.scatter:
            raise self._odd_count("readings")
        found = {}
        count = scan.averages
        for index, total in enumerate(scanned.sums):
            channel = scan.first + index
            adc = self._adc(channel)
            top = count * ((1 << adc.bits) - 1)
            # Code 0 of a converter without negative volts is 0 V, a reading like any other.
            if total == top or (total == 0 and adc.zero > 0):
                raise MeasurementError(
                    f"{self.label}: ADC channel {channel} is at the end of its range: check its wiring, or keep the "
                    "node's potential within what the board can read"
                )
            step = adc.span / (1 << adc.bits) / 1e9
            volts = (total - count * adc.zero) * adc.span / (count * (1 << adc.bits) * 10**9)
            squares = 0 if scanned.squares is None else scanned.squares[index]
            variance = squares / (count - 1) / count if count > 1 else 0.0
            found[channel] = (volts, step * math.sqrt(variance + 1 / 12))
        return found

    def _step_all(
        self, codes: tuple[int, ...], levels: tuple[wire.Level, ...], channels: tuple[int, ...], averages: int
    ) -> VoltReadings:
        settling = self.options.settling
        if channels:
            scan = self._scan_request(0, len(channels), averages)
            request = wire.Step(wire.Write(0, codes, settling=microseconds(settling)), levels, scan)
            if self._fits(request, 5 + scan.reply_bytes):
                stepped = self._ask(request, wire.Stepped, settling + self._scan_seconds(scan))
                self._check_echo(stepped.written, codes)
                self._codes = codes
                self._levels.update((level.source, level.nanovolts) for level in levels)
                return _readings(self._volts(scan, stepped.scanned), channels)
        self._write(codes)
        if levels:
            self._drive(levels)
        return self._scan(channels, averages)

    def _odd_count(self, what: str) -> BoardError:
        return BoardError(
            f"{self.label} sent another number of {what} than asked: its firmware does not keep to the protocol"
        )


class _OnBoard:
    """What the devices on one board share: its identity, its safe state, its events and its end."""

    def __init__(self, board: PotBoard, kind: str, count: int, channels: Sequence[str] | None) -> None:
        self.board = board
        self._indices = board.channel_indices(kind, count, channels)

    @property
    def identity(self) -> str:
        """Identity of the board."""
        return self.board.identity

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels: their numbers on the board, ``("0", "1")``."""
        return tuple(str(index) for index in self._indices)

    @property
    def name(self) -> str:
        """Name of the board."""
        return self.board.name

    def take_events(self) -> list[Event]:
        """Return the events of the board."""
        return self.board.take_events()

    def make_safe(self) -> None:
        """Make the board safe."""
        self.board.make_safe()

    def close(self) -> None:
        """Close the board, with everything on it."""
        self.board.close()


class PotBoardVoltmeter(_OnBoard):
    """The board's ADC: a Voltmeter."""

    def __init__(self, board: PotBoard, channels: Sequence[str] | None = None) -> None:
        super().__init__(board, "ADC", board.greeting.adcs, channels)

    def read(self, averages: int = 1) -> VoltReadings:
        """Read every channel, the mean of ``averages`` readings each.

        ``volts_u`` combines the scatter of the mean with the resolution; a single reading has no scatter to tell.
        Raises MeasurementError naming a channel at the end of its range.
        """
        return self.board.scan(self._indices, averages)

    def start_read(self, averages: int = 1) -> "Future[VoltReadings]":
        """Start ``read`` in the board's thread."""
        self.board.check_averages(averages)
        return self.board.submit(lambda: self.read(averages))


class PotBoardSources(_OnBoard):
    """The board's sources with their clamp switches: a SourceBank that cannot measure what it drives."""

    def __init__(self, board: PotBoard, channels: Sequence[str] | None = None) -> None:
        super().__init__(board, "source", board.greeting.sources, channels)

    def drive(self, volts: FloatArray) -> None:
        """Set every channel, (C,) in volts; NaN opens its switch. Switches open before any closes.

        Raises InputError naming a channel that cannot drive these volts or cannot float.
        """
        self.board.drive(self.board.checked_levels(self._indices, volts))

    def read(self) -> SourceReadings:
        """Return NaN for every channel: the sources have no meter of their own."""
        unknown = np.full(len(self._indices), np.nan)
        return SourceReadings(unknown, unknown.copy(), np.zeros(len(self._indices), dtype=np.bool_))


class PotBoardSwitches(_OnBoard):
    """Clamp switches between other instruments and their nodes."""

    def __init__(self, board: PotBoard, channels: Sequence[str] | None = None) -> None:
        count = board.greeting.switches
        owned = {description.switch for description in board.source_descriptions}
        free = [str(switch) for switch in range(count) if switch not in owned]
        super().__init__(board, "switch", count, free if channels is None else channels)

    def set(self, closed: BoolArray) -> None:
        """Open or close every switch, (C,), those that open first.

        Raises InputError for another number of switches.
        """
        values = np.asarray(closed, dtype=np.bool_)
        if values.shape != (len(self._indices),):
            raise InputError(
                f"{self.board.label} has {len(self._indices)} switches here, but a state of shape {values.shape} came"
            )
        self.board.switch(tuple(zip(self._indices, values.tolist(), strict=True)))


def _reason(detail: int) -> Reason:
    return Reason(detail) if detail in {each.value for each in Reason} else Reason.FAULT


def _runs(channels: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Return (first, count) of runs of consecutive channels, none longer than ``room``."""
    breaks = [0, *(index for index, (a, b) in enumerate(pairwise(channels), 1) if b != a + 1), len(channels)]
    for start, stop in pairwise(breaks):
        for first in range(start, stop, room):
            yield channels[first], min(room, stop - first)


def _readings(found: dict[int, tuple[float, float]], channels: Sequence[int]) -> VoltReadings:
    rows = np.array([found[channel] for channel in channels]).reshape(len(channels), 2)
    return VoltReadings(volts=rows[:, 0], volts_u=rows[:, 1])


def _check_counts(
    label: str,
    greeting: wire.Greeting,
    pots: Sequence[wire.PotsDescription],
    adcs: Sequence[wire.AdcDescription],
) -> None:
    for what, count, groups in (("pots", greeting.pots, pots), ("ADC channels", greeting.adcs, adcs)):
        first = 0
        for group in groups:
            if group.first != first:
                break
            first += group.count
        if first != count:
            raise BoardError(
                f"{label} describes {first} of its {count} {what}: its firmware does not keep to the protocol"
            )
