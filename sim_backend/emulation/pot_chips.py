"""Emulated digital potentiometers on emulated buses, and an emulated /sys/bus/iio.

The chips decode what arrives as their data sheets say, apart from the builders that made it, and count what would have
worn their memories. The buses are what ``hilcl.drivers.buses`` calls buses, so that the real drivers use them.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hilcl.arrays import IntArray
from hilcl.drivers.bus_pots import PlacedChip
from hilcl.drivers.chips import Chip, Lines, chip
from hilcl.drivers.chips.layouts import X9250, AddressData, Byte, Command10, Max5481, Microchip, Register
from hilcl.drivers.iio import SysfsAttributes
from hilcl.errors import InputError

SetCodes = Callable[[IntArray], None]
"""Gets the codes (P,) the wipers hold, once at power-on and whenever one was moved."""


class PotChip:
    """One chip. ``codes`` are those of all its wipers; ``stores`` counts what wore its EEPROM or burnt its fuses.

    ``deaf`` makes it acknowledge and do nothing.
    """

    def __init__(self, kind: Chip, identifier: int | None = None) -> None:
        self.kind = kind
        self.deaf = False
        self.stores = 0
        self._identifier = identifier
        self.power_on()

    def power_on(self) -> None:
        """Take the codes of power-on; where the memory decides, the middle one."""
        kind = self.kind
        self.codes = [kind.positions // 2 if kind.power_on == "memory" else kind.power_on] * kind.wipers
        self._inputs = list(self.codes)
        # Chips that store every write do so until told otherwise; others with an unlocking refuse writes until then.
        self._volatile = not kind.guard
        self._enabled = not kind.unlock or kind.guard
        self._pointer = 0
        self._answer = 0

    # SPI.

    def window(self, payload: bytes) -> bytes:
        """Take the bits of one chip-select window and return those that came out meanwhile."""
        word = int.from_bytes(payload)
        match self.kind.layout:
            case AddressData(address_bits=address_bits, data_bits=data_bits):
                # A shift register keeps the last bits.
                self._move(word >> data_bits & ((1 << address_bits) - 1), word & ((1 << data_bits) - 1))
            case Max5481():
                command = word >> 20 & 0x3
                if command == 0:
                    self._move(0, word >> 6 & 0x3FF)
                elif command in {1, 2}:
                    self._store()
            case X9250():
                return self._x9250(payload)
            case Microchip():
                answer = self._microchip(word >> 12 & 0xF, word >> 10 & 0x3, word & 0x3FF)
                return (0xFE00 | answer if answer is not None else 0xFC00).to_bytes(2)
            case Command10():
                out, self._answer = self._answer, 0
                self._command10(word & 0xFFFF)
                return out.to_bytes(2)
            case Register():
                out, self._answer = self._answer, 0
                self._instruct(word >> 8 & 0xFF, word & 0xFF)
                return out.to_bytes(len(payload))
            case _:
                pass
        return bytes(len(payload))

    def _x9250(self, payload: bytes) -> bytes:
        silent = bytes(len(payload))
        if len(payload) != 3 or payload[0] != self._identifier:
            return silent
        command, channel = payload[1] & 0xF0, payload[1] & 0x03
        if command == 0xA0:
            self._move(channel, payload[2])
        elif command == 0x90:
            return bytes([0, 0, self.codes[channel]])
        elif command in {0x80, 0xC0, 0xE0}:
            self._store()
        return silent

    # I2C.

    def take(self, payload: bytes) -> None:
        """Take the bytes of a write."""
        match self.kind.layout:
            case Byte():
                self._move(0, payload[0] & (0x7F if self.kind.positions <= 128 else 0xFF))
            case Command10():
                self._command10(int.from_bytes(payload[:2]))
            case Microchip():
                code = (payload[0] & 0x3) << 8 | (payload[1] if len(payload) > 1 else 0)
                answer = self._microchip(payload[0] >> 4, payload[0] >> 2 & 0x3, code)
                self._answer = 0xFFFF if answer is None else answer
            case Register():
                self._pointer = payload[0]
                if len(payload) > 1:
                    self._instruct(payload[0], payload[1])
            case _:
                pass

    def give(self, count: int) -> bytes:
        """Return the bytes of a read."""
        match self.kind.layout:
            case Byte():
                out = bytes(self.codes[:1])
            case Command10() | Microchip():
                out = self._answer.to_bytes(2)
            case Register(read="plain") as layout:
                out = bytes(code << layout.shift for code in self.codes)
            case Register(read="command"):
                out = bytes([self._answer])
            case Register(read="register") as layout if self._pointer in layout.registers:
                out = bytes([self.codes[layout.registers.index(self._pointer)] << layout.shift])
            case _:
                out = b""
        # Nobody pulls the line down after the last byte.
        return out[:count].ljust(count, b"\xff")

    # Instructions.

    def _instruct(self, instruction: int, data: int) -> None:
        """Carry out an instruction byte with a data byte."""
        layout = self.kind.layout
        if not isinstance(layout, Register):
            raise TypeError(f"{self.kind.name} has no instruction bytes")
        if self._forbidden(instruction << 8 | data):
            self._volatile = False
            self._store()
        elif bytes([instruction, data]) in self.kind.unlock:
            self._volatile = True
        elif instruction in layout.registers:
            self._move(layout.registers.index(instruction), data >> layout.shift)
            if not self._volatile:
                self._store()
        elif instruction in layout.read_registers and data == layout.read_argument:
            self._answer = self.codes[layout.read_registers.index(instruction)] << layout.shift
        elif self.kind.family == "AD514x":
            self._load(instruction, data >> layout.shift)

    def _load(self, instruction: int, code: int) -> None:
        """Fill an input register of an AD514x, or move wipers to what their input registers hold."""
        command, channel = instruction >> 4, instruction & 0xF
        chosen = range(self.kind.wipers) if channel & 0x8 else range(channel, min(channel + 1, self.kind.wipers))
        for wiper in chosen:
            if command == 2:
                self._inputs[wiper] = code
            elif command == 6:
                self._move(wiper, self._inputs[wiper])

    def _command10(self, word: int) -> None:
        layout = self.kind.layout
        if not isinstance(layout, Command10):
            raise TypeError(f"{self.kind.name} has no commands of ten data bits")
        command, data = word >> 10 & 0xF, word & 0x3FF
        control = 7 if self.kind.family == "AD527x" else 6
        if command == 1 and self._enabled:
            self._move(0, data >> layout.shift)
        elif command == 2:
            self._answer = self.codes[0] << layout.shift
        elif command == 3:
            self._store()
        elif command == control:
            self._enabled = bool(data & 2)
            if data & 1:
                self._store()

    def _microchip(self, register: int, command: int, data: int) -> int | None:
        """Carry out a command at a register and return what is read, None for a command that is not known."""
        layout = self.kind.layout
        if not isinstance(layout, Microchip):
            raise TypeError(f"{self.kind.name} has no registers of ten data bits")
        if register in layout.registers:
            wiper = layout.registers.index(register)
            if command == 3:
                return self.codes[wiper]
            if command == 0:
                self._move(wiper, min(data & 0x1FF, self.kind.positions - 1))
            else:
                self._move(wiper, min(max(self.codes[wiper] + (1 if command == 1 else -1), 0), self.kind.positions - 1))
            return 0x1FF
        if command == 0 and self._forbidden(register << 12):
            self._store()
            return 0x1FF
        return None

    def _forbidden(self, head: int) -> bool:
        return any(head & rule.mask == rule.value for rule in self.kind.forbidden)

    # Wipers.

    def step(self, up: bool) -> None:
        """Count one step; at the end of the scale nothing moves."""
        self._move(0, min(max(self.codes[0] + (1 if up else -1), 0), self.kind.positions - 1))

    def deselect_with_clock_high(self) -> None:
        """Store, as an up/down chip with a memory does then."""
        if self.kind.memory is not None:
            self._store()

    def _move(self, wiper: int, code: int) -> None:
        if not self.deaf and wiper < len(self.codes) and code < self.kind.positions:
            self.codes[wiper] = code

    def _store(self) -> None:
        self.stores += 1


class _EmulatedBus:
    """Chips on one bus; pots are numbered as a bank of the same chips numbers them."""

    def __init__(self, label: str, placed: Sequence[PlacedChip], set_codes: SetCodes | None) -> None:
        self.label = label
        self.closed = False
        self.failures = 0
        """How many of the next transactions fail."""
        self.transactions = 0
        self.chips = tuple(PotChip(chip(one.chip), one.identifier) for one in placed)
        for one in placed:
            if one.channels is not None and not set(one.channels) <= set(range(chip(one.chip).wipers)):
                raise InputError(f"{one.chip} has not all the channels {', '.join(map(str, one.channels))}")
        self._wipers = [
            (emulated, channel)
            for emulated, one in zip(self.chips, placed, strict=True)
            for channel in (range(emulated.kind.wipers) if one.channels is None else one.channels)
        ]
        self._set_codes = set_codes
        self._told: list[int] | None = None
        self.tell()

    @property
    def codes(self) -> IntArray:
        """Codes the wipers hold, (P,)."""
        return np.array([emulated.codes[channel] for emulated, channel in self._wipers], dtype=np.int64)

    @property
    def stores(self) -> int:
        """How often a chip's memory was worn."""
        return sum(emulated.stores for emulated in self.chips)

    def tell(self) -> None:
        """Pass the codes on if they have changed."""
        held = [emulated.codes[channel] for emulated, channel in self._wipers]
        if self._set_codes is not None and held != self._told:
            self._set_codes(self.codes)
        self._told = held

    def close(self) -> None:
        """Let go of the bus."""
        self.closed = True

    def _begin(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.transactions += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class EmulatedSpiBus(_EmulatedBus):
    """An SpiBus; a chip spoken to in another mode than its own sees every bit late."""

    def __init__(
        self, placed: Sequence[PlacedChip], set_codes: SetCodes | None = None, *, label: str = "emulated SPI"
    ) -> None:
        super().__init__(label, placed, set_codes)
        self.modes: dict[int, int] = {}
        self.clocks: dict[int, float | None] = {}
        self._places = [one.place for one in placed]

    def prepare(self, select: int, mode: int, max_hz: float | None) -> None:
        """Set mode and greatest clock of a chip select."""
        self.modes[select], self.clocks[select] = mode, max_hz

    def exchange(self, select: int, payload: bytes) -> bytes:
        """Pass a window to the chips on a chip select; what none of them drives is high."""
        self._begin()
        selected = [one for one, place in zip(self.chips, self._places, strict=True) if place == select]
        if not selected:
            return b"\xff" * len(payload)
        out = 0
        for one in selected:
            in_step = self.modes.get(select, 0) == (one.kind.clock.spi_mode or 0)
            seen = payload if in_step else (int.from_bytes(payload) >> 1).to_bytes(len(payload))
            out |= int.from_bytes(one.window(seen))
        self.tell()
        return out.to_bytes(len(payload))


class EmulatedI2cBus(_EmulatedBus):
    """An I2cBus; an address nobody has is not acknowledged."""

    def __init__(
        self, placed: Sequence[PlacedChip], set_codes: SetCodes | None = None, *, label: str = "emulated I2C"
    ) -> None:
        super().__init__(label, placed, set_codes)
        self.by_address = dict(zip((one.place for one in placed), self.chips, strict=True))
        """The chips that answer; take one out and it is not acknowledged any more."""

    def exchange(self, address: int, payload: bytes, read: int = 0) -> bytes:
        """Pass a transaction to the chip at an address."""
        self._begin()
        answering = self.by_address.get(address)
        if answering is None:
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
        if payload:
            answering.take(payload)
        out = answering.give(read) if read else b""
        self.tell()
        return out


class EmulatedUpDownBus(_EmulatedBus):
    """An UpDownBus; ``levels_left`` makes it fail after so many levels, in the middle of what was to be played."""

    def __init__(
        self, placed: Sequence[PlacedChip], set_codes: SetCodes | None = None, *, label: str = "emulated lines"
    ) -> None:
        super().__init__(label, placed, set_codes)
        self.levels_left: int | None = None
        self._states = {one.place: Lines(True, True, True) for one in placed}
        self._by_line = dict(zip(self._states, self.chips, strict=True))

    def play(self, select: int, levels: Sequence[Lines]) -> None:
        """Set levels on the lines; direction and clock reach every chip, its chip select each one alone."""
        self._begin()
        try:
            for level in levels:
                if self.levels_left is not None:
                    if self.levels_left == 0:
                        self.levels_left = None
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                    self.levels_left -= 1
                for line in self._states:
                    self._set(line, level if line == select else replace(level, deselected=True))
        finally:
            self.tell()

    def _set(self, line: int, after: Lines) -> None:
        before, one = self._states[line], self._by_line[line]
        if not before.deselected and not after.deselected and before.clock and not after.clock:
            one.step(after.up)
        if not before.deselected and after.deselected and after.clock:
            one.deselect_with_clock_high()
        self._states[line] = after


# Linux.


@dataclass(frozen=True)
class IioDevice:
    """One device as its kernel driver shows it.

    ``name`` as the driver gives it ("mcp4631-103"), ``place`` on its bus ("1-002e"). ``indexed``: files carry channel
    numbers. ``available``: the driver tells its codes. ``readable``: it gives codes back. ``first_only``: it writes
    every channel to wiper 0, as the driver mcp4131 does.
    """

    name: str
    place: str
    positions: int
    channels: int = 1
    indexed: bool = True
    available: bool = False
    readable: bool = True
    first_only: bool = False
    label: str | None = None


class IioTree:
    """A tree of files in ``folder`` like that of sysfs, with ``root`` in place of /sys/bus/iio/devices.

    The files alone do for a look from outside. ``attributes`` also answers as the kernel does: it refuses codes that
    are none and reads of drivers that cannot read, and passes every change on to ``set_codes`` with the codes (P,) of
    all channels in order.

    Raises InputError for a device without channels.
    """

    def __init__(self, folder: Path, devices: Sequence[IioDevice], set_codes: SetCodes | None = None) -> None:
        self.root = folder / "bus" / "iio" / "devices"
        self.devices = tuple(devices)
        self.gone: set[str] = set()
        """Places whose devices do not answer any more."""
        self._set_codes = set_codes
        self._files: dict[Path, tuple[IioDevice, int]] = {}
        self.root.mkdir(parents=True)
        for number, device in enumerate(devices):
            if device.channels < 1 or (device.channels > 1 and not device.indexed):
                raise InputError(f"the emulated device {device.name} needs channels, and numbers for more than one")
            self._make(folder, f"iio:device{number}", device)
        self.attributes = KernelAttributes(self)
        self.tell()

    @property
    def codes(self) -> IntArray:
        """Codes the wipers hold, (P,)."""
        return np.array([int(path.read_text(encoding="ascii")) for path in self._files], dtype=np.int64)

    @property
    def files(self) -> Mapping[Path, tuple[IioDevice, int]]:
        """Device and channel of each wiper's file, in order."""
        return self._files

    def tell(self) -> None:
        """Pass the codes on."""
        if self._set_codes is not None:
            self._set_codes(self.codes)

    def _make(self, folder: Path, entry: str, device: IioDevice) -> None:
        home = folder / "devices" / device.place / entry
        home.mkdir(parents=True)
        (self.root / entry).symlink_to(home, target_is_directory=True)
        _say(home / "name", device.name)
        if device.label is not None:
            _say(home / "label", device.label)
        _say(home / "out_resistance_scale", "39.062500000")
        for channel in range(device.channels):
            wiper = home / f"out_resistance{channel if device.indexed else ''}_raw"
            _say(wiper, str(device.positions // 2))
            self._files[wiper] = (device, channel)
            if device.available:
                _say(wiper.with_name(f"{wiper.name}_available"), f"[0 1 {device.positions - 1}]")


class KernelAttributes(SysfsAttributes):
    """Reads and writes the files of an emulated tree as the kernel would let it."""

    def __init__(self, tree: IioTree) -> None:
        self._tree = tree

    def read(self, path: Path) -> str:
        """Return what a file says.

        Raises OSError as the kernel does.
        """
        wiper = self._tree.files.get(path.resolve())
        if wiper is not None:
            self._present(wiper[0])
            if not wiper[0].readable:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return super().read(path)

    def write(self, path: Path, text: str) -> None:
        """Write a code.

        Raises OSError as the kernel does.
        """
        home = path.resolve()
        wiper = self._tree.files.get(home)
        if wiper is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        device, channel = wiper
        self._present(device)
        if not 0 <= int(text) < device.positions:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        if device.first_only and channel:
            home = home.with_name("out_resistance0_raw")
        super().write(home, text)
        self._tree.tell()

    def _present(self, device: IioDevice) -> None:
        if device.place in self._tree.gone:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def _say(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="ascii")
