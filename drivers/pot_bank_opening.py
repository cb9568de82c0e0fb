"""Open the pots on buses and behind kernel drivers that an experiment file describes."""

from hilcl.drivers.bus_pots import I2cPots, PlacedChip, SpiPots, UpDownPots, open_i2c, open_spi, open_updown
from hilcl.drivers.iio import IioChip, IioPots, open_iio
from hilcl.pot_bank_section import (
    BankInstrument,
    I2cChipSection,
    I2cInstrument,
    IioInstrument,
    SpiChipSection,
    SpiInstrument,
    UpDownChipSection,
    UpDownInstrument,
)


def placed(instrument: SpiInstrument | I2cInstrument | UpDownInstrument) -> list[PlacedChip]:
    """Return the chips of a bank with their places, of the bus or of its emulation."""
    found = []
    for one in instrument.chips:
        match one:
            case SpiChipSection():
                channels = None if one.channels is None else tuple(one.channels)
                found.append(PlacedChip(one.chip, one.select, channels, one.identifier, one.readback, one.together))
            case I2cChipSection():
                channels = None if one.channels is None else tuple(one.channels)
                found.append(PlacedChip(one.chip, one.address, channels, readback=one.readback, together=one.together))
            case UpDownChipSection():
                found.append(PlacedChip(one.chip, one.line, home=one.home))
    return found


def iio_chips(instrument: IioInstrument) -> list[IioChip]:
    """Return the devices of a bank behind kernel drivers."""
    return [
        IioChip(one.device, one.chip, None if one.channels is None else tuple(one.channels)) for one in instrument.chips
    ]


def open_bank(name: str, instrument: BankInstrument) -> IioPots | SpiPots | I2cPots | UpDownPots:
    """Return the open bank an experiment file describes.

    Raises InputError or BoardError naming the chip and the place; nothing stays open then.
    """
    safe = instrument.safe_codes
    match instrument:
        case IioInstrument():
            return open_iio(name, iio_chips(instrument), root=instrument.resource, safe_codes=safe)
        case SpiInstrument():
            return open_spi(
                name,
                instrument.resource,
                placed(instrument),
                speed=instrument.speed,
                tries=instrument.tries,
                safe_codes=safe,
            )
        case I2cInstrument():
            return open_i2c(
                name,
                instrument.resource,
                placed(instrument),
                speed=instrument.speed,
                tries=instrument.tries,
                safe_codes=safe,
            )
        case UpDownInstrument():
            return open_updown(
                name,
                instrument.resource,
                placed(instrument),
                up=instrument.up,
                clock=instrument.clock,
                rate=instrument.rate,
                tries=instrument.tries,
                safe_codes=safe,
            )
