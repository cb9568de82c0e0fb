"""Digital potentiometers behind Linux kernel drivers: one file per wiper under /sys/bus/iio/devices.

Files and their meaning: Linux, Documentation/ABI/testing/sysfs-bus-iio (out_resistance_raw, out_resistanceX_raw) and
sysfs-bus-iio-potentiometer-mcp4531 (…_raw_available); names of devices: drivers/iio/potentiometer.
"""

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hilcl.drivers.chips import Chip, chip, chips
from hilcl.drivers.pot_bank import Pot, PotBank
from hilcl.errors import BoardError, InputError

ROOT = Path("/sys/bus/iio/devices")

_WIPER = re.compile(r"out_resistance(\d*)_raw")
_RANGE = re.compile(r"\[\s*(-?\d+)\s+(-?\d+)\s+(-?\d+)\s*\]")
_GONE = {errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT}
_CLEARED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class IioChip:
    """One chip with a kernel driver.

    ``device``: its entry ("iio:device0"), its place on its bus ("1-002e", "spi0.0"), its label, or the name its driver
    gives it ("mcp4631-103") if no other device has it; a path works too. Places and labels stay the same over restarts,
    entries may not. ``chip``: name in the catalogue, checked against the device; needed only for devices that neither
    the catalogue nor the driver knows the codes of. ``channels``: wipers in the order of the pots, all by default.
    """

    device: str
    chip: str | None = None
    channels: tuple[int, ...] | None = None


class Attributes(Protocol):
    """How attribute files are read and written; both raise OSError as the kernel tells it."""

    def read(self, path: Path) -> str:
        """Return what a file says, without the line end."""
        ...

    def write(self, path: Path, text: str) -> None:
        """Write a file in one go."""
        ...


class SysfsAttributes:
    """The files themselves. Never creates one: a file that has gone is an error."""

    def read(self, path: Path) -> str:
        """Return what a file says, without the line end."""
        return path.read_text(encoding="ascii", errors="replace").strip()

    def write(self, path: Path, text: str) -> None:
        """Write a file with one system call, which is what the kernel takes as one value."""
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode("ascii") + b"\n")
        finally:
            os.close(descriptor)


class IioPots(PotBank):
    """A RheostatBank of wipers with kernel drivers, under ``root``.

    Each pot is one write to one file; there is no way to move several at once. Chips that store every write in their
    EEPROM are refused, because their kernel drivers let them.

    Raises InputError for devices that are not there, are other chips than named, or have no codes that are known.
    """

    def __init__(
        self,
        name: str,
        devices: Sequence[IioChip],
        *,
        root: str | os.PathLike[str] = ROOT,
        safe_codes: Sequence[int] | None = None,
        attributes: Attributes | None = None,
    ) -> None:
        self.root = Path(root)
        self._attributes: Attributes = SysfsAttributes() if attributes is None else attributes
        found = [self._found(name, device) for device in devices]
        self.files = tuple(path for pots in found for path, _ in pots)
        """The file of each pot, in order."""
        if not self.files:
            raise InputError(f"{name} lists no pots: name at least one device")
        twice = [path for path in self.files if self.files.count(path) > 1]
        if twice:
            raise InputError(f"{name} lists the pot {twice[0]} twice: correct the devices")
        super().__init__(name, [pot for pots in found for _, pot in pots], safe_codes)

    @property
    def identity(self) -> str:
        """Root and chips: ``"/sys/bus/iio/devices: MCP4631 iio:device0"``."""
        return f"{self.root}: {', '.join(dict.fromkeys(f'{pot.chip} {pot.place}' for pot in self.pots))}"

    def _start(self) -> None:
        for pot, which in enumerate(self.pots):
            if which.readable:
                self._get(pot)

    def _put(self, pot: int, code: int) -> None:
        try:
            self._attributes.write(self.files[pot], str(code))
        except OSError as cause:
            raise self._failed(pot, f"did not take code {code}", cause) from cause

    def _get(self, pot: int) -> int:
        try:
            answer = self._attributes.read(self.files[pot])
        except OSError as cause:
            raise self._failed(pot, "could not be read", cause) from cause
        try:
            return int(answer)
        except ValueError as cause:
            raise BoardError(
                f"{self._where(pot)} reads {answer!r} in {self.files[pot]}, which is no code: check the kernel driver"
            ) from cause

    def _release(self) -> None:
        """No file stays open."""

    def _failed(self, pot: int, what: str, cause: OSError) -> BoardError:
        if cause.errno in _GONE:
            remedy = "the device has gone or does not answer: check its supply and wiring, then load its driver again"
        elif cause.errno in _CLEARED:
            remedy = "give this user the right to write it, with a udev rule for example"
        else:
            remedy = "see the kernel log"
        reason = os.strerror(cause.errno) if cause.errno else str(cause)
        return BoardError(f"{self._where(pot)} {what} through {self.files[pot]} ({reason}): {remedy}")

    # Finding devices.

    def _found(self, bank: str, wanted: IioChip) -> list[tuple[Path, Pot]]:
        """Return file and pot of each wiper of a device that was asked for."""
        folder = self._folder(bank, wanted.device)
        label = f"{bank}: {wanted.device}"
        driver_name = self._said(folder / "name")
        known = _known_chip(label, driver_name, wanted.chip)
        if known is not None and known.memory is not None and known.memory.every_write:
            raise InputError(
                f"{label} is a {known.name}, whose kernel driver stores every write in its EEPROM, which wears out: "
                'reach it with the driver "i2c" instead'
            )
        wipers = {int(match[1] or 0): path for path in folder.iterdir() if (match := _WIPER.fullmatch(path.name))}
        if not wipers:
            raise InputError(
                f"{label} ({driver_name}) has no file out_resistance_raw or out_resistanceN_raw in {folder}: it is no "
                "potentiometer, name another device"
            )
        channels = tuple(sorted(wipers)) if wanted.channels is None else wanted.channels
        pots = []
        for channel in channels:
            if channel not in wipers:
                raise InputError(
                    f"{label} ({driver_name}) has no channel {channel}, only {', '.join(map(str, sorted(wipers)))}"
                )
            path = wipers[channel]
            positions = self._positions(label, path, known)
            readable = (known is None or known.readable) and self._can_be_read(path)
            pots.append(
                (path, Pot(driver_name if known is None else known.name, folder.name, channel, positions, readable))
            )
        return pots

    def _folder(self, bank: str, device: str) -> Path:
        """Return the folder of a device by path, entry, place on its bus, label or name."""
        if not device:
            raise InputError(f"{bank} lists a device without a name: name its entry, its place on its bus or its label")
        if os.sep in device:
            if not Path(device).is_dir():
                raise InputError(f"{bank}: there is no device folder {device}: correct the path")
            return Path(device)
        try:
            entries = sorted(path for path in self.root.iterdir() if path.name.startswith("iio:device"))
        except OSError as cause:
            raise InputError(
                f"{bank}: there are no IIO devices in {self.root}: load the kernel driver of the chip (a device-tree "
                "overlay, or new_device of its I2C bus), or correct root"
            ) from cause
        matching = [entry for entry in entries if device in self._names(entry)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            places = ", ".join(f"{entry.name} ({entry.resolve().parent.name})" for entry in matching)
            raise InputError(f'{bank}: several devices are called "{device}": {places}: name one of these')
        there = ", ".join(f"{entry.name} ({self._said(entry / 'name')})" for entry in entries) or "none"
        raise InputError(f'{bank}: there is no IIO device "{device}" in {self.root}, there are: {there}')

    def _names(self, entry: Path) -> set[str]:
        return {entry.name, entry.resolve().parent.name, self._said(entry / "name"), self._said(entry / "label")}

    def _said(self, path: Path) -> str:
        """Return what a file says, "" where there is none."""
        try:
            return self._attributes.read(path)
        except OSError:
            return ""

    def _positions(self, label: str, path: Path, known: Chip | None) -> int:
        """Return the number of codes: what the driver says, which must be what the chip has, or what the chip has."""
        said = self._said(path.with_name(f"{path.name}_available")) or self._said(
            path.with_name("out_resistance_raw_available")
        )
        if not said:
            if known is None:
                raise InputError(
                    f"{label}: neither its driver nor the catalogue tells its number of codes: name the chip"
                )
            return known.positions
        match = _RANGE.fullmatch(said)
        if match is None or (int(match[1]), int(match[2])) != (0, 1):
            raise InputError(f"{label}: its driver offers the codes {said}, not all from 0 to a greatest one")
        positions = int(match[3]) + 1
        if known is not None and positions != known.positions:
            raise InputError(
                f"{label}: its driver offers {positions} codes, but {known.name} has {known.positions}: it is another "
                "chip, correct the device or the chip"
            )
        return positions

    def _can_be_read(self, path: Path) -> bool:
        """Return whether the driver reads codes back: those that cannot answer with EINVAL."""
        try:
            self._attributes.read(path)
        except OSError as error:
            return error.errno not in {errno.EINVAL, errno.EACCES, errno.EPERM}
        return True


def open_iio(
    name: str,
    devices: Sequence[IioChip],
    *,
    root: str | os.PathLike[str] = ROOT,
    safe_codes: Sequence[int] | None = None,
) -> IioPots:
    """Return an open bank of pots with kernel drivers; no pot has moved.

    Raises InputError or BoardError.
    """
    return IioPots(name, devices, root=root, safe_codes=safe_codes).open()


def _known_chip(label: str, driver_name: str, named: str | None) -> Chip | None:
    """Return the chip a driver's name means, which is the one that was named, if any; None if nobody knows it."""
    # Drivers add the end-to-end resistance ("mcp4631-103") and leave a last letter out ("tpl0401-103").
    stem = driver_name.split("-", maxsplit=1)[0].upper()
    meant = [known for known in chips() if stem == known.name or (stem == known.name[:-1] and known.name[-1].isalpha())]
    if named is None:
        return meant[0] if meant else None
    wanted = chip(named)
    if meant and wanted not in meant:
        raise InputError(f'{label} is "{driver_name}", not {wanted.name}: correct the device or the chip')
    return wanted
