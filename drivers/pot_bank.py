"""What banks of digital potentiometers have in common: codes checked first, then written, then read back."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from hilcl.arrays import BoolArray, IntArray
from hilcl.errors import BoardError, InputError

UNREADABLE = -1


@dataclass(frozen=True)
class Pot:
    """One wiper: its chip's name, ``place`` as a sentence says it ("at 0x2C"), its channel and its codes."""

    chip: str
    place: str
    channel: int
    positions: int
    readable: bool


class PotBank(ABC):
    """A RheostatBank whose pots are written one by one. Pots are numbered from 0 in the order they are listed.

    ``safe_codes``: codes (P,) that ``make_safe`` writes; without them the pots keep their codes, as a resistor cannot
    do harm by itself. Not every chip can be read back: ``readable`` tells which pots are verified.

    Raises InputError for safe codes the pots do not have.
    """

    def __init__(self, name: str, pots: Sequence[Pot], safe_codes: Sequence[int] | None = None) -> None:
        self.name = name
        self.pots = tuple(pots)
        self._lock = threading.RLock()
        self._opened = self._closed = False
        self._safe_codes = None if safe_codes is None else self._checked(np.asarray(safe_codes))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the bank is made of and where: ``"/dev/i2c-1: 4 × AD5254"``."""

    @property
    def code_counts(self) -> IntArray:
        """Number of codes of each pot, (P,)."""
        return np.array([pot.positions for pot in self.pots], dtype=np.int64)

    @property
    def readable(self) -> BoolArray:
        """Which pots can be read back, (P,); the others cannot be verified."""
        return np.array([pot.readable for pot in self.pots], dtype=np.bool_)

    def open(self) -> Self:
        """Bring the chips to where they take codes; may be called twice.

        Raises BoardError naming the first pot that does not answer.
        """
        with self._lock:
            if self._closed:
                raise BoardError(f"{self.name} has been closed: open a new one")
            if not self._opened:
                self._start()
                self._opened = True
        return self

    def write(self, codes: IntArray) -> None:
        """Write one code per pot, (P,): all are checked, then written one by one, then read back where possible.

        Raises InputError for codes the pots do not have, and BoardError naming the first pot that could not be
        written or holds another code; pots before it have moved then.
        """
        wanted = self._checked(codes)
        with self._lock:
            self._require_open()
            self._write_all(wanted)
            for pot, code in enumerate(wanted):
                self._verify(pot, code)

    def read(self) -> IntArray:
        """Return the codes (P,) the chips hold, −1 where a chip cannot be read.

        Raises BoardError naming the first pot that does not answer.
        """
        with self._lock:
            self._require_open()
            held = [self._get(index) if pot.readable else UNREADABLE for index, pot in enumerate(self.pots)]
        return np.array(held, dtype=np.int64)

    def make_safe(self) -> None:
        """Write the safe codes if there are any; may be called any number of times.

        Raises BoardError naming the pots that did not take them, after all were tried.
        """
        if self._safe_codes is None:
            return
        failures = []
        with self._lock:
            if not self._opened or self._closed:
                return
            for pot, code in enumerate(self._safe_codes):
                try:
                    self._put(pot, code)
                    self._verify(pot, code)
                except BoardError as error:
                    failures.append(str(error))
        if failures:
            raise BoardError("; ".join(failures))

    def close(self) -> None:
        """Make the pots safe and let go of what reaches them; may be called twice."""
        try:
            self.make_safe()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of what reaches the pots, without touching them; may be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()

    # What a kind of bank fills in. All run under the lock, with checked codes.

    @abstractmethod
    def _start(self) -> None:
        """Bring the chips to where they take codes."""

    @abstractmethod
    def _put(self, pot: int, code: int) -> None:
        """Write one code.

        Raises BoardError naming the pot.
        """

    @abstractmethod
    def _get(self, pot: int) -> int:
        """Read one code back.

        Raises BoardError naming the pot.
        """

    @abstractmethod
    def _release(self) -> None:
        """Let go of what reaches the pots."""

    def _write_all(self, codes: Sequence[int]) -> None:
        for pot, code in enumerate(codes):
            self._put(pot, code)

    def _where(self, pot: int) -> str:
        """Return how a sentence names a pot."""
        which = self.pots[pot]
        return f"{self.name}: pot {pot} ({which.chip} {which.place}, channel {which.channel})"

    def _verify(self, pot: int, code: int) -> None:
        if self.pots[pot].readable and (held := self._get(pot)) != code:
            raise BoardError(
                f"{self._where(pot)} holds code {held} after {code} was written: check its supply and its wiring, and "
                "that nothing else writes to it"
            )

    def _require_open(self) -> None:
        if self._closed:
            raise BoardError(f"{self.name} has been closed: open a new one")
        if not self._opened:
            raise BoardError(f"{self.name} has not been opened yet: open it first")

    def _checked(self, codes: npt.NDArray[np.generic]) -> tuple[int, ...]:
        """Return codes (P,) as whole numbers the pots have."""
        given = np.asarray(codes)
        if given.shape != (len(self.pots),):
            raise InputError(f"{self.name} has {len(self.pots)} pots, but codes of shape {given.shape} came")
        if not np.issubdtype(given.dtype, np.integer):
            raise InputError(f"{self.name} takes whole numbers as codes, but {given.dtype} came")
        wanted = tuple(int(code) for code in given)
        for index, (pot, code) in enumerate(zip(self.pots, wanted, strict=True)):
            if not 0 <= code < pot.positions:
                raise InputError(f"{self._where(index)} has the codes 0 to {pot.positions - 1}, not {code}")
        return wanted
