"""A SCPI instrument out of tables: settings declared as data, commands with logic of their own, status, dispatch."""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hilcl.sim_backend.emulation.instrument import wire_number
from hilcl.sim_backend.emulation.scpi import Argument, CommandTree, ScpiError, Unit, forms, units
from hilcl.sim_backend.emulation.status import QueuedError, Status


class Kind(Protocol):
    """A type of parameter: how it is read from an argument and written in a reply."""

    def parse(self, argument: Argument, reset: Any) -> Any:
        """Return the value an argument stands for; raises ScpiError where it stands for none."""
        ...

    def show(self, value: Any, digits: int | None) -> str:
        """Return the value as a query answers it."""
        ...

    def named(self, argument: Argument, reset: Any) -> Any:
        """Return what MINimum, MAXimum or DEFault in a query stands for; raises ScpiError −108 for anything else."""
        ...


def _no_named(argument: Argument, reset: Any) -> Any:
    raise ScpiError(-108)


@dataclass(frozen=True)
class Real:
    """A real number from ``low`` to ``high``; ``unit`` as in SCPI-1999 volume 1, 7.1."""

    low: float = -math.inf
    high: float = math.inf
    unit: str = ""

    def parse(self, argument: Argument, reset: Any) -> float:
        """Return the number, MINimum, MAXimum and DEFault included."""
        if argument.kind == "word":
            return float(self._word(argument, reset))
        if argument.kind != "number":
            raise ScpiError(-104)
        if argument.unit and argument.unit != self.unit:
            raise ScpiError(-131)
        if not self.low <= argument.value <= self.high:
            raise ScpiError(-222)
        return argument.value

    def named(self, argument: Argument, reset: Any) -> float:
        """Return the limit or the default asked for."""
        return float(self._word(argument, reset))

    def _word(self, argument: Argument, reset: Any) -> float:
        for pattern, value in (("MINimum", self.low), ("MAXimum", self.high), ("DEFault", reset)):
            if argument.is_word(pattern):
                return float(value)
        raise ScpiError(-141)

    def show(self, value: Any, digits: int | None) -> str:
        """Return ``+1.500000E+00``."""
        return wire_number(float(value), digits)


@dataclass(frozen=True)
class Whole(Real):
    """A whole number; fractions are rounded (IEEE 488.2-1992, 7.7.2.4)."""

    def parse(self, argument: Argument, reset: Any) -> int:
        """Return the number."""
        return round(super().parse(argument, reset))

    def named(self, argument: Argument, reset: Any) -> int:
        """Return the limit or the default asked for."""
        return round(super().named(argument, reset))

    def show(self, value: Any, digits: int | None) -> str:
        """Return ``10``."""
        return str(int(value))


@dataclass(frozen=True)
class Boolean:
    """ON, OFF, or a number that rounds to one or the other (SCPI-1999 volume 1, 7.3)."""

    named = staticmethod(_no_named)

    def parse(self, argument: Argument, reset: Any) -> bool:
        """Return whether it is on."""
        if argument.kind == "number":
            return round(argument.value) != 0
        if argument.is_word("ON"):
            return True
        if argument.is_word("OFF"):
            return False
        raise ScpiError(-141 if argument.kind == "word" else -104)

    def show(self, value: Any, digits: int | None) -> str:
        """Return ``1`` or ``0``."""
        return "1" if value else "0"


@dataclass(frozen=True)
class AutoZero(Boolean):
    """ON, OFF, or ONCE, which leaves it off."""

    def parse(self, argument: Argument, reset: Any) -> bool:
        """Return whether autozero is on from now on."""
        return False if argument.is_word("ONCE") else super().parse(argument, reset)


@dataclass(frozen=True)
class Choice:
    """One of several words, written as manuals do; replies are short forms, quoted where the instrument does so."""

    words: tuple[str, ...]
    quoted: bool = False
    named = staticmethod(_no_named)

    def parse(self, argument: Argument, reset: Any) -> str:
        """Return the short form."""
        if argument.kind not in {"word", "string"}:
            raise ScpiError(-104)
        for word in self.words:
            if argument.text.upper() in forms_of_path(word):
                return forms_of_path(word)[0]
        raise ScpiError(-141 if argument.kind == "word" else -224)

    def show(self, value: Any, digits: int | None) -> str:
        """Return the short form."""
        return f'"{value}"' if self.quoted else str(value)


@dataclass(frozen=True)
class Text:
    """A quoted string of at most ``longest`` characters."""

    longest: int = 256
    named = staticmethod(_no_named)

    def parse(self, argument: Argument, reset: Any) -> str:
        """Return the string."""
        if argument.kind not in {"string", "word"}:
            raise ScpiError(-104)
        if len(argument.text) > self.longest:
            raise ScpiError(-223)
        return argument.text

    def show(self, value: Any, digits: int | None) -> str:
        """Return the string in quotes."""
        return '"' + str(value).replace('"', '""') + '"'


def forms_of_path(word: str) -> tuple[str, ...]:
    """Return all forms of words joined by colons: ``"VOLTage:DC"`` gives ``VOLT:DC`` first and three more."""
    combined: tuple[str, ...] = ("",)
    for part in word.split(":"):
        combined = tuple(f"{head}:{form}" if head else form for head in combined for form in forms(part))
    return combined


@dataclass(frozen=True)
class Setting:
    """One setting of one channel: its header, its name in the state, its type, its value after ``*RST``."""

    header: str
    name: str
    kind: Kind
    reset: Any


@dataclass(frozen=True)
class Request:
    """What a command is called with."""

    suffixes: tuple[int, ...]
    arguments: tuple[Argument, ...]

    @property
    def channel(self) -> int:
        """The first numeric suffix, which names the channel."""
        return self.suffixes[0] if self.suffixes else 1

    def take(self, least: int, most: int) -> tuple[Argument, ...]:
        """Return the arguments; raises ScpiError −109 or −108 unless there are ``least`` to ``most``."""
        if len(self.arguments) < least:
            raise ScpiError(-109)
        if len(self.arguments) > most:
            raise ScpiError(-108)
        return self.arguments


@dataclass(frozen=True)
class Command:
    """What a header does when it is sent and when it is asked; None where it cannot be."""

    do: Callable[[Request], None] | None = None
    ask: Callable[[Request], str] | None = None


_FORMAT_WORDS = {"ASC": "ASCii", "REAL": "REAL", "SRE": "SREal"}

State = dict[str, Any]


class ScpiInstrument:
    """Base of the SCPI instruments: parses, dispatches, keeps settings and status.

    ``settings`` are the declared tables, one value per channel and setting. Sub-classes add commands with logic, and
    override ``before`` to round or refuse a value and ``after`` to act on it.
    """

    def __init__(
        self,
        identity: str,
        settings: Sequence[Setting],
        status: Status,
        *,
        channels: int = 1,
        digits: int | None = None,
    ) -> None:
        self._identity = identity
        self.status = status
        self.digits = digits
        self.channels = tuple(range(1, channels + 1))
        self._settings = tuple(settings)
        self._tree: CommandTree[Command] = CommandTree()
        self.state: dict[int, State] = {}
        for setting in self._settings:
            self._tree.add(setting.header, self._command_of(setting))
        self._restore_defaults()
        self._add_common()
        self._formats: dict[str, str | None] = {"ASC": None}
        self._definite = False
        self._default_border: Literal["NORM", "SWAP"] = "NORM"
        self._restore_format()

    @property
    def identity(self) -> str:
        """The answer to ``*IDN?``."""
        return self._identity

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which outputs are on."""
        return ()

    @property
    def commands(self) -> tuple[str, ...]:
        """All headers the instrument knows, as patterns."""
        return tuple(self._tree.patterns)

    def handle(self, line: str) -> str | None:
        """Carry out one program message and return its reply.

        A command error ends the message, as the parser no longer knows where it stands; an execution error ends only
        its own unit (IEEE 488.2-1992, 6.1.6 and 11.5.1.1).
        """
        replies: list[str] = []
        try:
            for unit in units(line):
                try:
                    reply = self.execute(unit)
                except ScpiError as error:
                    if -199 <= error.code <= -100:
                        raise
                    self.refuse(error)
                else:
                    if reply is not None:
                        replies.append(reply)
        except ScpiError as error:
            self.refuse(error)
        return ";".join(replies) if replies else None

    def refuse(self, error: ScpiError) -> None:
        """Queue an error."""
        self.status.add_error(error)

    def execute(self, unit: Unit) -> str | None:
        """Carry out one unit; raises ScpiError."""
        command, suffixes = self._tree.find(unit)
        request = Request(suffixes, unit.arguments)
        if unit.query:
            if command.ask is None:
                raise ScpiError(-113)
            return command.ask(request)
        if command.do is None:
            raise ScpiError(-113)
        command.do(request)
        return None

    def add(
        self,
        header: str,
        do: Callable[[Request], None] | None = None,
        ask: Callable[[Request], str] | None = None,
    ) -> None:
        """Add a command with logic of its own."""
        self._tree.add(header, Command(do, ask))

    def before(self, channel: int, name: str, value: Any) -> Any:
        """Return the value a setting really takes; raise ScpiError to refuse it."""
        return value

    def after(self, channel: int, name: str) -> None:
        """Act on a setting that was just written."""

    def reset(self) -> None:
        """``*RST``: all settings to their defaults; the error queue stays."""
        self._restore_defaults()
        self._restore_format()

    def trigger(self) -> None:
        """``*TRG``."""
        raise ScpiError(-211)

    def error_text(self, entry: QueuedError) -> str:
        """Return an error-queue entry as this instrument writes it."""
        return f'{entry.code},"{entry.message}"'

    def number(self, value: float) -> str:
        """Return a number as this instrument writes it."""
        return wire_number(value, self.digits)

    def add_data_format(
        self, formats: dict[str, str | None], *, border: Literal["NORM", "SWAP"], definite: bool = False
    ) -> None:
        """Add ``:FORMat[:DATA]`` and ``:FORMat:BORDer``.

        ``formats`` maps what the query answers, such as ``"REAL,32"``, to the ``struct`` code of a number, None for
        ASCII; the first is the default. Blocks are of undefined length unless ``definite`` (IEEE 488.2-1992, 8.7.9).
        """
        self._formats, self._definite, self._default_border = formats, definite, border
        self._restore_format()
        self.add(":FORMat[:DATA]", self._set_format, lambda _: self.data_format)
        self.add(":FORMat:BORDer", self._set_border, lambda _: self.border)

    def data(self, values: Sequence[float]) -> str:
        """Return readings in the format chosen."""
        code = self._formats[self.data_format]
        if code is None:
            return ",".join(self.number(value) for value in values)
        order = ">" if self.border == "NORM" else "<"
        block = struct.pack(f"{order}{len(values)}{code}", *values).decode("latin-1")
        size = str(len(block))
        return f"#{len(size)}{size}{block}" if self._definite else f"#0{block}"

    def _restore_format(self) -> None:
        self.data_format, self.border = next(iter(self._formats)), self._default_border

    def _set_format(self, request: Request) -> None:
        word, *length = request.take(1, 2)
        for name in self._formats:
            head, _, bits = name.partition(",")
            if word.is_word(_FORMAT_WORDS[head]) and (
                not length or length[0].value == float(bits or 32) or (head == "ASC" and length[0].kind == "number")
            ):
                self.data_format = name
                return
        raise ScpiError(-141 if word.kind == "word" else -104)

    def _set_border(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        self.border = "SWAP" if Choice(("NORMal", "SWAPped")).parse(given, None) == "SWAP" else "NORM"

    def write_setting(self, channel: int, name: str, value: Any) -> None:
        """Set a setting as its command would."""
        self._of_channel(channel)[name] = self.before(channel, name, value)
        self.after(channel, name)

    def _of_channel(self, channel: int) -> State:
        if channel not in self.state:
            raise ScpiError(-114)
        return self.state[channel]

    def _restore_defaults(self) -> None:
        for channel in self.channels:
            self.state[channel] = {setting.name: setting.reset for setting in self._settings}

    def _command_of(self, setting: Setting) -> Command:
        def do(request: Request) -> None:
            self._of_channel(request.channel)
            (given,) = request.take(1, 1)
            self.write_setting(request.channel, setting.name, setting.kind.parse(given, setting.reset))

        def ask(request: Request) -> str:
            state = self._of_channel(request.channel)
            if given := request.take(0, 1):
                return setting.kind.show(setting.kind.named(given[0], setting.reset), self.digits)
            return setting.kind.show(state[setting.name], self.digits)

        return Command(do, ask)

    def _add_common(self) -> None:
        status = self.status
        self.add("*IDN", ask=lambda _: self.identity)
        self.add("*RST", lambda _: self.reset())
        self.add("*CLS", lambda _: status.clear())
        self.add("*TRG", lambda _: self.trigger())
        self.add("*WAI", lambda _: None)
        self.add("*TST", ask=lambda _: "0")
        self.add("*OPC", lambda _: self._complete(), lambda _: "1")
        self.add("*ESR", ask=lambda _: str(status.read_event()))
        self.add("*STB", ask=lambda _: str(status.status_byte()))
        self.add("*ESE", self._set_event_enable, lambda _: str(status.event_enable))
        self.add("*SRE", self._set_service_enable, lambda _: str(status.service_enable))
        self.add(":SYSTem:ERRor[:NEXT]", ask=lambda _: self.error_text(status.errors.pop()))
        self.add(":SYSTem:ERRor:COUNt", ask=lambda _: str(len(status.errors)))
        self.add(":SYSTem:ERRor:CODE[:NEXT]", ask=lambda _: str(status.errors.pop().code))
        self.add(":SYSTem:ERRor:ALL", ask=lambda _: self._all_errors())
        self.add(":SYSTem:CLEar", lambda _: status.errors.clear())
        self.add(":SYSTem:VERSion", ask=lambda _: "1999.0")
        self.add(":STATus:PRESet", lambda _: status.preset())
        self.add(":STATus:QUEue[:NEXT]", ask=lambda _: self.error_text(status.errors.pop()))
        self.add(":STATus:QUEue:CLEar", lambda _: status.errors.clear())
        for name in status.registers:
            self._add_register(name)

    def _add_register(self, name: str) -> None:
        register, _ = self.status.registers[name]

        def enable(request: Request) -> None:
            register.enable = _byte(request, 0xFFFF)

        self.add(f":STATus:{name}[:EVENt]", ask=lambda _: str(register.read_event()))
        self.add(f":STATus:{name}:CONDition", ask=lambda _: str(self.condition(name)))
        self.add(f":STATus:{name}:ENABle", enable, lambda _: str(register.enable))

    def condition(self, name: str) -> int:
        """Return the condition of a SCPI register."""
        return self.status.registers[name][0].condition

    def _all_errors(self) -> str:
        entries = [self.error_text(self.status.errors.pop())]
        while self.status.errors:
            entries.append(self.error_text(self.status.errors.pop()))
        return ",".join(entries)

    def _complete(self) -> None:
        # Every command is carried out before the next is read, so nothing is ever pending.
        self.status.event |= 1

    def _set_event_enable(self, request: Request) -> None:
        self.status.event_enable = _byte(request, 0xFF)

    def _set_service_enable(self, request: Request) -> None:
        self.status.service_enable = _byte(request, 0xFF)


def _byte(request: Request, largest: int) -> int:
    (given,) = request.take(1, 1)
    return int(Whole(0, largest).parse(given, 0))
