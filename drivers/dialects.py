"""How a compound message is put together and its answer taken apart: SCPI, and the Lua statements of TSP."""

import math
import re
from typing import Protocol

_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")


class Dialect(Protocol):
    """A command language. Every message ends with a question for the error queue, so that no step goes unchecked."""

    next_error: str
    """Message that takes the oldest entry from the error queue."""

    def join(self, commands: list[str], questions: list[str]) -> str:
        """Return one message of the commands and the questions, the error queue asked last."""
        ...

    def split(self, answer: str, questions: int) -> list[str]:
        """Return the answers to the questions and, last, that of the error queue."""
        ...


class Scpi:
    """SCPI-1999: program message units joined by ``;``, each from the root; answers joined by ``;``."""

    next_error = ":SYST:ERR?"

    def join(self, commands: list[str], questions: list[str]) -> str:
        """Return ``:SOUR:VOLT 1.5;:OUTP?;:SYST:ERR?``."""
        return ";".join([*commands, *questions, self.next_error])

    def split(self, answer: str, questions: int) -> list[str]:
        """Split at the first semicolons only: an error's text may hold one."""
        return answer.split(";", questions)


class Tsp:
    """Test Script Processor (Series 2600B manual, section 7): Lua statements, and one ``print`` of all answers."""

    next_error = "print(errorqueue.next())"

    def join(self, commands: list[str], questions: list[str]) -> str:
        """Return ``smua.source.levelv = 1.5 print(smua.source.output, errorqueue.count)``."""
        return " ".join([*commands, f"print({', '.join([*questions, 'errorqueue.count'])})"])

    def split(self, answer: str, questions: int) -> list[str]:
        """Split at the tabs ``print`` puts between its arguments."""
        return answer.split("\t")


def error_code(answer: str) -> int | None:
    """Return the number an error-queue answer starts with, None if there is none.

    ``0,"No error"``, ``+0,"No error"`` and ``0.00000e+00`` are all 0: the number is parsed, texts differ between
    makers.
    """
    found = _NUMBER.match(answer)
    if found is None or not math.isfinite(code := float(found[1])):
        return None
    return int(code)
