"""The grammar of SCPI: messages into headers and arguments, and headers into commands. Pure functions, no I/O.

Sources: SCPI-1999 volume 1 (sections 5 and 6: headers, short and long forms, header paths, numeric suffixes) and
IEEE 488.2-1992 section 7 (program messages, strings, character data, blocks and expressions).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

NAN = 9.91e37
"""What SCPI says instead of a number it does not have (SCPI-1999 volume 1, 7.2.1)."""

OVERFLOW = 9.9e37
"""What SCPI says instead of a number above the range (SCPI-1999 volume 1, 7.2.1)."""

MAX_ARGUMENTS = 10_000
MAX_CHANNELS = 1000

MESSAGES = {
    0: "No error",
    -101: "Invalid character",
    -102: "Syntax error",
    -103: "Invalid separator",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -112: "Program mnemonic too long",
    -113: "Undefined header",
    -114: "Header suffix out of range",
    -121: "Invalid character in number",
    -123: "Exponent too large",
    -131: "Invalid suffix",
    -141: "Invalid character data",
    -151: "Invalid string data",
    -171: "Invalid expression",
    -211: "Trigger ignored",
    -214: "Trigger deadlock",
    -221: "Settings conflict",
    -222: "Parameter data out of range",
    -223: "Too much data",
    -224: "Illegal parameter value",
    -230: "Data corrupt or stale",
    -310: "System error",
    -350: "Queue overflow",
    -363: "Input buffer overrun",
    -420: "Query UNTERMINATED",
}


class ScpiError(Exception):
    """An error for the instrument's queue: ``code`` as in SCPI-1999 volume 2, 21.8, and its text."""

    def __init__(self, code: int, message: str | None = None) -> None:
        self.code = code
        self.message = MESSAGES.get(code, "Error") if message is None else message
        super().__init__(f'{code},"{self.message}"')


@dataclass(frozen=True)
class Argument:
    """One argument: a number with an optional unit, a quoted string, a word, or a channel list."""

    kind: Literal["number", "string", "word", "channels"]
    text: str
    value: float = math.nan
    unit: str = ""
    channels: tuple[int, ...] = ()

    def is_word(self, pattern: str) -> bool:
        """Return whether this is the word, in its short or long form: ``is_word("MINimum")``."""
        return self.kind == "word" and self.text.upper() in forms(pattern)


@dataclass(frozen=True)
class Unit:
    """One program message unit: its header's keywords from the root, whether it asks, and its arguments."""

    keywords: tuple[str, ...]
    query: bool
    arguments: tuple[Argument, ...] = ()
    common: bool = False

    @property
    def header(self) -> str:
        """The header as absolute text, for messages: ``":SOUR:VOLT?"``."""
        return ("" if self.common else ":") + ":".join(self.keywords) + ("?" if self.query else "")


_HEADER = re.compile(r"(?P<absolute>:)?(?P<path>\*?[A-Za-z][A-Za-z0-9_]*(?::[A-Za-z][A-Za-z0-9_]*)*)(?P<query>\?)?")
_NUMBER = re.compile(r"(?P<digits>[+-]?(?:\d+\.?\d*|\.\d+)(?:\s?[eE]\s?[+-]?\d+)?)\s?(?P<unit>[A-Za-z%/]*)")
_BASED = re.compile(r"#(?:[hH](?P<hex>[0-9a-fA-F]+)|[qQ](?P<octal>[0-7]+)|[bB](?P<binary>[01]+))")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_:]*")
_RANGE = re.compile(r"\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*)?")
_SPACE = " \t\r\n"
MAX_MNEMONIC = 12
"""Characters in a mnemonic, its numeric suffix not counted (SCPI-1999 volume 1, 6.2.1)."""

MAX_DEPTH = 32
"""Keywords in a header with its path; no instrument has half as many."""

_PREFIXES = {"": 1.0, "N": 1e-9, "U": 1e-6, "M": 1e-3, "K": 1e3, "MA": 1e6, "G": 1e9, "P": 1e-12}
_UNITS = ("V", "A", "OHM", "S", "HZ", "PCT", "%", "PLC")


def units(message: str) -> Iterator[Unit]:
    """Yield the units of one program message, in order.

    Raises ScpiError at the first unit that is no SCPI: those before it have been yielded, as an instrument has already
    carried them out. Header paths follow SCPI-1999 volume 1, 6.2.4: a header without a leading colon continues where
    the last one stood; common commands leave that place alone.
    """
    path: tuple[str, ...] = ()
    for part in split_outside(message, ";"):
        text = part.strip(_SPACE)
        if not text:
            continue
        if not (text.isascii() and text.replace("\t", " ").isprintable()):
            raise ScpiError(-101)
        match = _HEADER.match(text)
        if match is None:
            raise ScpiError(-102)
        rest = text[match.end() :]
        if rest and rest[0] not in _SPACE and rest[0] not in "(\"'":
            raise ScpiError(-103 if rest[0] in ",;" else -101)
        keywords = tuple(match["path"].upper().split(":"))
        if any(len(word.rstrip("0123456789")) > MAX_MNEMONIC + word.startswith("*") for word in keywords):
            raise ScpiError(-112)
        arguments = tuple(_arguments(rest.strip(_SPACE)))
        query = match["query"] is not None
        if keywords[0].startswith("*"):
            if len(keywords) > 1:
                raise ScpiError(-113)
            yield Unit(keywords, query, arguments, common=True)
            continue
        full = keywords if match["absolute"] else path + keywords
        if len(full) > MAX_DEPTH:
            raise ScpiError(-113)
        path = full[:-1]
        yield Unit(full, query, arguments)


def split_outside(text: str, separator: str) -> Iterator[str]:
    """Yield the parts of ``text`` between separators, those inside quotes and parentheses left alone.

    Raises ScpiError −151 for a quote that is never closed, −171 for a parenthesis.
    """
    quote, depth, start = "", 0, 0
    for place, character in enumerate(text):
        if quote:
            if character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == separator and depth <= 0:
            yield text[start:place]
            start = place + 1
    if quote:
        raise ScpiError(-151)
    if depth:
        raise ScpiError(-171)
    yield text[start:]


def _arguments(text: str) -> Iterator[Argument]:
    if not text:
        return
    for count, part in enumerate(split_outside(text, ",")):
        if count >= MAX_ARGUMENTS:
            raise ScpiError(-223)
        yield argument(part.strip(_SPACE))


def argument(text: str) -> Argument:
    """Return the argument a piece of text is; raises ScpiError where it is none."""
    if not text:
        raise ScpiError(-109)
    if text[0] in "\"'":
        if len(text) < 2 or text[-1] != text[0]:
            raise ScpiError(-151)
        inner = text[1:-1]
        if text[0] in inner.replace(text[0] * 2, ""):
            raise ScpiError(-151)
        return Argument("string", inner.replace(text[0] * 2, text[0]))
    if text[0] == "(":
        return Argument("channels", text, channels=channel_list(text))
    if based := _BASED.fullmatch(text):
        digits, base = next((found, base) for name, base in _BASES if (found := based[name]) is not None)
        if len(digits) > 64:
            raise ScpiError(-223)
        return Argument("number", text, float(int(digits, base)))
    if number := _NUMBER.fullmatch(text):
        return _number(text, number)
    if _WORD.fullmatch(text):
        return Argument("word", text)
    raise ScpiError(-121 if text[0] in "+-.0123456789" else -101)


_BASES = (("hex", 16), ("octal", 8), ("binary", 2))


def _number(text: str, match: re.Match[str]) -> Argument:
    digits = "".join(match["digits"].split())
    value = float(digits)
    if math.isinf(value):
        raise ScpiError(-123)
    unit = match["unit"].upper()
    if not unit:
        return Argument("number", text, value)
    for base in sorted(_UNITS, key=len, reverse=True):
        if unit.endswith(base) and (prefix := unit[: -len(base)]) in _PREFIXES:
            # SCPI writes mega as MA, except for ohms and hertz, where M is mega (SCPI-1999 volume 1, table 7-1).
            scale = 1e6 if prefix == "M" and base in {"OHM", "HZ"} else _PREFIXES[prefix]
            return Argument("number", text, value * scale, base)
    raise ScpiError(-131)


def channel_list(text: str) -> tuple[int, ...]:
    """Return the channels of ``(@101,103:105)``; an empty list ``(@)`` is no channel.

    Raises ScpiError −171 for anything else, −223 for more than MAX_CHANNELS.
    """
    if not text.startswith("(") or not text.endswith(")"):
        raise ScpiError(-171)
    inner = text[1:-1].strip(_SPACE)
    if not inner.startswith("@"):
        raise ScpiError(-171)
    inner = inner[1:].strip(_SPACE)
    channels: list[int] = []
    for part in inner.split(",") if inner else []:
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ScpiError(-171)
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if abs(last - first) + len(channels) >= MAX_CHANNELS:
            raise ScpiError(-223)
        channels.extend(range(first, last + 1) if last >= first else range(first, last - 1, -1))
    return tuple(channels)


def forms(pattern: str) -> tuple[str, ...]:
    """Return the short and the long form of a mnemonic written as manuals do: ``("VOLT", "VOLTAGE")``."""
    short = "".join(character for character in pattern if not character.islower())
    return (short,) if short == pattern.upper() else (short, pattern.upper())


@dataclass(frozen=True)
class Keyword:
    """One node of a command pattern: its mnemonic, whether it takes a numeric suffix, whether it may be left out."""

    mnemonic: str
    suffix: bool = False
    optional: bool = False

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """Short and long form."""
        return forms(self.mnemonic)


_PATTERN = re.compile(r"(\[)?:?([*A-Za-z][A-Za-z0-9_]*)(#)?(\])?")


def pattern_keywords(pattern: str) -> tuple[Keyword, ...]:
    """Return the keywords of a pattern as manuals write it: ``"[:SOURce#]:VOLTage[:LEVel]"``; ``#`` takes a suffix.

    Raises ValueError for a pattern that is none: patterns are the program's own.
    """
    keywords, place = [], 0
    while place < len(pattern):
        match = _PATTERN.match(pattern, place)
        if match is None or (match[1] is None) != (match[4] is None):
            raise ValueError(f"{pattern!r} is no command pattern")
        keywords.append(Keyword(match[2], match[3] is not None, match[1] is not None))
        place = match.end()
    return tuple(keywords)


T = TypeVar("T")


class CommandTree(Generic[T]):
    """Commands by header; what a command is, is the owner's business."""

    def __init__(self) -> None:
        self._root = _Node[T]()
        self.patterns: list[str] = []

    def add(self, pattern: str, command: T) -> None:
        """Add a command; raises ValueError where another one has the same header."""
        self.patterns.append(pattern)
        self._root.add(pattern_keywords(pattern), command, pattern)

    def find(self, unit: Unit) -> tuple[T, tuple[int, ...]]:
        """Return the command of a unit and its numeric suffixes, 1 for each that was not written.

        Raises ScpiError −113 where there is none.
        """
        found = self._root.find(unit.keywords, ())
        if found is None:
            raise ScpiError(-113)
        return found


class _Node(Generic[T]):
    def __init__(self) -> None:
        self.command: T | None = None
        self.implied = 0
        self.children: dict[str, tuple[_Node[T], bool]] = {}

    def add(self, keywords: tuple[Keyword, ...], command: T, pattern: str, implied: int = 0) -> None:
        if not keywords:
            if self.command is not None:
                raise ValueError(f"{pattern!r} is already a command")
            self.command, self.implied = command, implied
            return
        first, rest = keywords[0], keywords[1:]
        if first.optional:
            # Only leading nodes with a suffix are ever optional, so what is left out comes first: a 1 each.
            self.add(rest, command, pattern, implied + first.suffix)
        node: _Node[T] | None = None
        for form in first.forms:
            existing = self.children.get(form)
            if existing is not None and existing[1] == first.suffix:
                node = existing[0]
        if node is None:
            node = _Node()
        for form in first.forms:
            self.children[form] = (node, first.suffix)
        node.add(rest, command, pattern, implied)

    def find(self, keywords: tuple[str, ...], suffixes: tuple[int, ...]) -> tuple[T, tuple[int, ...]] | None:
        if not keywords:
            return None if self.command is None else (self.command, (1,) * self.implied + suffixes)
        word, rest = keywords[0], keywords[1:]
        if word in self.children:
            node, takes_suffix = self.children[word]
            return node.find(rest, (*suffixes, 1) if takes_suffix else suffixes)
        bare = word.rstrip("0123456789")
        if bare != word and bare in self.children and len(word) - len(bare) <= 6:
            node, takes_suffix = self.children[bare]
            number = int(word[len(bare) :])
            if takes_suffix:
                return node.find(rest, (*suffixes, number))
            # A 1 names the only one there is, wherever suffixes are possible at all (SCPI-1999 volume 1, 6.2.5.2).
            if number == 1:
                return node.find(rest, suffixes)
        return None
