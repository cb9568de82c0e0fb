"""Pots without a pot board in the [bench] section: on buses of this computer, or behind a kernel driver."""

from typing import Annotated, Literal

from pydantic import Field

from hilcl.file_values import Section, Switch, Whole

Line = Annotated[Whole, Field(ge=0)]
Channels = Annotated[list[Line], Field(min_length=1)]


class IioChipSection(Section):
    """One device of the kernel: ``device`` is its place on its bus ("1-002e"), ``chip`` where nobody tells."""

    device: str = Field(min_length=1)
    chip: str | None = None
    channels: Channels | None = None


class SpiChipSection(Section):
    """One chip on an SPI bus."""

    chip: str
    select: Line
    identifier: Line | None = None
    channels: Channels | None = None
    readback: Switch = True
    together: Switch = False


class I2cChipSection(Section):
    """One chip on an I2C bus."""

    chip: str
    address: Annotated[Whole, Field(ge=0x08, le=0x77)]
    channels: Channels | None = None
    readback: Switch = True
    together: Switch = False


class UpDownChipSection(Section):
    """One chip on up/down lines, counted to the end ``home`` when it is opened."""

    chip: str
    line: Line
    home: Literal["low", "high"] = "high"


class IioInstrument(Section):
    """Pots with a Linux kernel driver."""

    driver: Literal["iio"]
    resource: str = "/sys/bus/iio/devices"
    chips: list[IioChipSection] = Field(min_length=1)
    safe_codes: list[Line] | None = None


class SpiInstrument(Section):
    """Pots on an SPI bus of this computer or of an FTDI adapter."""

    driver: Literal["spi"]
    resource: str
    chips: list[SpiChipSection] = Field(min_length=1)
    speed: Annotated[float, Field(gt=0)] = 1e6
    tries: Annotated[Whole, Field(ge=1, le=10)] = 3
    safe_codes: list[Line] | None = None


class I2cInstrument(Section):
    """Pots on an I2C bus of this computer or of an FTDI adapter."""

    driver: Literal["i2c"]
    resource: str
    chips: list[I2cChipSection] = Field(min_length=1)
    speed: Annotated[float, Field(gt=0)] = 1e5
    tries: Annotated[Whole, Field(ge=1, le=10)] = 3
    safe_codes: list[Line] | None = None


class UpDownInstrument(Section):
    """Up/down pots on GPIO lines of this computer or of an FTDI adapter."""

    driver: Literal["updown"]
    resource: str
    up: Line
    clock: Line
    chips: list[UpDownChipSection] = Field(min_length=1)
    rate: Annotated[float, Field(gt=0)] = 1e5
    tries: Annotated[Whole, Field(ge=1, le=10)] = 3
    safe_codes: list[Line] | None = None


BankInstrument = IioInstrument | SpiInstrument | I2cInstrument | UpDownInstrument
