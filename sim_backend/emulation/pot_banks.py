"""The real drivers of pots on buses and behind kernel drivers, opened on emulated chips."""

from pathlib import Path

from hilcl.drivers.bus_pots import I2cPots, SpiPots, UpDownPots
from hilcl.drivers.chips import chip as catalogued
from hilcl.drivers.iio import IioPots
from hilcl.drivers.pot_bank import PotBank
from hilcl.drivers.pot_bank_opening import iio_chips, placed
from hilcl.errors import ExperimentError
from hilcl.pot_bank_section import BankInstrument, I2cInstrument, IioInstrument, SpiInstrument
from hilcl.sim_backend.emulation.pot_chips import (
    EmulatedI2cBus,
    EmulatedSpiBus,
    EmulatedUpDownBus,
    IioDevice,
    IioTree,
    SetCodes,
)


def emulated_bank(
    name: str, instrument: BankInstrument, chip: str | None, folder: Path, set_codes: SetCodes
) -> PotBank:
    """Return the open driver of a bank on emulated chips, which hand their codes (P,) to ``set_codes``.

    ``chip`` is what a device of the kernel is where the file does not say; ``folder`` is for its tree of files.
    Raises ExperimentError where that is not known.
    """
    if isinstance(instrument, IioInstrument):
        return _kernel_bank(name, instrument, chip, folder, set_codes)
    chips, safe, tries = placed(instrument), instrument.safe_codes, instrument.tries
    if isinstance(instrument, SpiInstrument):
        return SpiPots(name, EmulatedSpiBus(chips, set_codes), chips, tries=tries, safe_codes=safe).open()
    if isinstance(instrument, I2cInstrument):
        return I2cPots(name, EmulatedI2cBus(chips, set_codes), chips, tries=tries, safe_codes=safe).open()
    return UpDownPots(name, EmulatedUpDownBus(chips, set_codes), chips, tries=tries, safe_codes=safe).open()


def _kernel_bank(name: str, instrument: IioInstrument, chip: str | None, folder: Path, set_codes: SetCodes) -> PotBank:
    devices = []
    for one in instrument.chips:
        called = one.chip or chip
        if called is None:
            raise ExperimentError(
                f"bench.instruments.{name}: what {one.device} is cannot be emulated without its chip: name it there or "
                "in board.pots"
            )
        kind = catalogued(called)
        if one.channels is not None and one.channels != list(range(kind.wipers)):
            raise ExperimentError(f"bench.instruments.{name}: only all channels of {one.device} can be emulated")
        devices.append(
            IioDevice(
                kind.name.lower(), one.device, kind.positions, kind.wipers, readable=kind.readable, available=True
            )
        )
    tree = IioTree(folder, devices, set_codes)
    chips = iio_chips(instrument)
    return IioPots(name, chips, root=tree.root, attributes=tree.attributes, safe_codes=instrument.safe_codes).open()
