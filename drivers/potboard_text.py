"""Text mode of the pot board, sans I/O: one table of commands, IEEE 488.2 in style, and its parser.

Mnemonics in any case, in their short (capitals) or long form, with an optional leading colon (SCPI-1999 volume 1, 6.2).
"""

import re
from dataclasses import dataclass

LONGEST_LINE = 80
"""Bytes of a line, its end not counted; a longer one is thrown away whole."""

VERSION = "1999.0"
"""Answer to ``SYST:VERS?``: the SCPI version whose syntax is followed."""

ERRORS = {
    0: "No error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -200: "Execution error",
    -221: "Settings conflict",
    -222: "Data out of range",
    -350: "Queue overflow",
    -363: "Input buffer overrun",
}
"""Codes and texts of SCPI-1999 volume 2, 21.8."""

COMMANDS: dict[str, str] = {
    "*IDN?": "",
    "*CLS": "",
    "*OPC?": "",
    "SYSTem:ERRor?": "",
    "SYSTem:VERSion?": "",
    "SYSTem:CAPability?": "",
    "SYSTem:COUNters?": "",
    "SYSTem:BOOTs?": "",
    "POT": "n,n",
    "POT?": "n",
    "MEASure?": "n",
    "SOURce": "n,v",
    "SOURce?": "n",
    "ROUTe:CLOSe": "n",
    "ROUTe:OPEN": "n",
    "ROUTe:CLOSe?": "n",
    "WATChdog": "n",
    "SAFE": "",
    "SAFE?": "",
    "SAFE:CLEar": "",
}
"""Commands with their parameters: n a whole number, v volts or FLOAT."""


class TextError(ValueError):
    """A line that cannot be carried out: its SCPI error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code},{ERRORS[code]}")
        self.code = code


@dataclass(frozen=True)
class Command:
    """A command as in COMMANDS, its whole numbers, and its volts (None for FLOAT or where there are none)."""

    name: str
    numbers: tuple[int, ...] = ()
    volts: float | None = None


def _pattern(name: str) -> re.Pattern[str]:
    nodes = []
    for node in name.rstrip("?").split(":"):
        short = re.match(r"\*?[A-Z]+", node)
        length = short.end() if short else 0
        nodes.append(f"{re.escape(node[:length])}(?:{re.escape(node[length:])})?")
    return re.compile(":?" + ":".join(nodes) + (r"\?" if name.endswith("?") else ""), re.IGNORECASE)


_PATTERNS = {name: _pattern(name) for name in COMMANDS}
_NUMBER = re.compile(r"[+-]?\d{1,9}")
_VOLTS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d{1,2})?", re.IGNORECASE)


def parse_line(line: str) -> Command | None:
    """Return the command in a line, None for an empty one.

    Raises TextError with the SCPI error code.
    """
    text = line.strip().rstrip(";").rstrip()
    if not text:
        return None
    header, _, tail = text.partition(" ")
    name = next((each for each, pattern in _PATTERNS.items() if pattern.fullmatch(header)), None)
    if name is None:
        raise TextError(-113)
    kinds = [kind for kind in COMMANDS[name].split(",") if kind]
    given = [field.strip() for field in tail.split(",")] if tail.strip() else []
    if len(given) != len(kinds):
        raise TextError(-109 if len(given) < len(kinds) else -108)
    numbers: list[int] = []
    volts = None
    for kind, field in zip(kinds, given, strict=True):
        if kind == "n" and _NUMBER.fullmatch(field):
            numbers.append(int(field))
        elif kind == "v" and _VOLTS.fullmatch(field):
            volts = float(field)
        elif not (kind == "v" and field.upper() == "FLOAT"):
            raise TextError(-104)
    return Command(name, tuple(numbers), volts)


def error_text(code: int) -> str:
    """Return an entry of the error queue as ``SYST:ERR?`` prints it: ``-222,"Data out of range"``."""
    return f'{code},"{ERRORS[code]}"'
