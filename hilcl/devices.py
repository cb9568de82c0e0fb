"""The three small device protocols a bench is made of, so that instruments can be mixed freely."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hilcl.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class SourceReadings:
    """What C source channels measure of themselves.

    ``volts`` (C,) at the terminal, NaN where the channel cannot tell; ``amperes`` (C,) from the channel into the board,
    NaN likewise; ``in_compliance`` (C,) marks channels at their limit, whose readings are no readings.
    """

    volts: FloatArray
    amperes: FloatArray
    in_compliance: BoolArray


@dataclass(frozen=True)
class VoltReadings:
    """Node potentials read by C meter channels: ``volts`` (C,) and their standard uncertainties ``volts_u`` (C,)."""

    volts: FloatArray
    volts_u: FloatArray


@runtime_checkable
class Device(Protocol):
    """What every device has."""

    @property
    def identity(self) -> str:
        """Maker, model and serial number as the device reports them: ``"KEITHLEY,2450,04312345,1.7.12"``."""
        ...

    def make_safe(self) -> None:
        """Bring the device to a state that can harm nothing: outputs off and verified. Idempotent, never stops halfway.

        Raises a BoardError naming the device only after everything that could be done was done.
        """
        ...

    def close(self) -> None:
        """Make the device safe and let go of its connection; may be called twice."""
        ...


@runtime_checkable
class RheostatBank(Device, Protocol):
    """P adjustable resistors behind one link."""

    @property
    def code_counts(self) -> IntArray:
        """Number of codes of each pot, (P,): ``array([128, 128])``."""
        ...

    def write(self, codes: IntArray) -> None:
        """Write one code per pot, (P,), all or none where the link allows it, and verify where the chips can be read.

        Raises BoardError naming the first pot whose code could not be written or read back.
        """
        ...

    def read(self) -> IntArray:
        """Return the codes (P,) the chips hold, −1 where a chip cannot be read: ``array([64, -1])``."""
        ...


@runtime_checkable
class SourceBank(Device, Protocol):
    """C channels that drive volts or float."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, as wiring refers to them: ``("a", "b")``."""
        ...

    def drive(self, volts: FloatArray) -> None:
        """Set every channel, (C,) in volts; NaN floats. Returns when the instrument has taken the settings."""
        ...

    def read(self) -> SourceReadings:
        """Measure every channel once."""
        ...


@runtime_checkable
class Voltmeter(Device, Protocol):
    """C channels that read node potentials."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, as wiring refers to them: ``("101", "102")``."""
        ...

    def read(self, averages: int = 1) -> VoltReadings:
        """Read every channel, the mean of ``averages`` readings each."""
        ...


@runtime_checkable
class JointVoltmeter(Voltmeter, Protocol):
    """A Voltmeter whose channels are those of a source bank, so that one measurement tells what both read."""

    @property
    def bank(self) -> SourceBank:
        """The source bank it is a part of."""
        ...

    def read_both(self, averages: int = 1) -> tuple[SourceReadings, VoltReadings]:
        """Return what the bank's ``read`` and this ``read`` would, from the same measurements."""
        ...
