"""Buses that digital potentiometers sit on, as protocols, and thin adapters to packages that drive real ones.

The packages are optional: each is imported when its bus is opened. Every failure on a bus is an OSError, as the kernel
and the packages themselves raise it; who uses the bus knows which chip it was about.
"""

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from hilcl.drivers.chips import Lines
from hilcl.errors import InputError

SPI_HZ = 1e6
I2C_HZ = 1e5
LEVEL_HZ = 1e5
"""Levels a second on up/down lines; an X9C wants its clock low and high for 1 µs each (Renesas FN8222)."""


class SpiBus(Protocol):
    """Clock and data lines shared by chips that each have a chip select."""

    @property
    def label(self) -> str:
        """What a sentence calls the bus: ``"/dev/spidev0"``."""
        ...

    def prepare(self, select: int, mode: int, max_hz: float | None) -> None:
        """Set SPI mode and greatest clock of the chip on a chip select, before anything is exchanged with it."""
        ...

    def exchange(self, select: int, payload: bytes) -> bytes:
        """Send bytes in one chip-select window and return the bytes that came back, as many.

        Raises OSError when the bus fails.
        """
        ...

    def close(self) -> None:
        """Let go of the bus; may be called twice."""
        ...


class I2cBus(Protocol):
    """Two lines shared by chips that each have a 7-bit address."""

    @property
    def label(self) -> str:
        """What a sentence calls the bus: ``"/dev/i2c-1"``."""
        ...

    def exchange(self, address: int, payload: bytes, read: int = 0) -> bytes:
        """Write bytes, then read ``read`` bytes after a repeated start, in one transaction; either may be none.

        Raises OSError when the chip does not acknowledge or the bus fails.
        """
        ...

    def close(self) -> None:
        """Let go of the bus; may be called twice."""
        ...


class UpDownBus(Protocol):
    """A direction and a clock line shared by chips that each have a chip select.

    Opening it leaves every chip select high and the clock high, on a way that stores nothing in an X9C: chip selects
    rise while the clock is low.
    """

    @property
    def label(self) -> str:
        """What a sentence calls the bus: ``"/dev/gpiochip0"``."""
        ...

    def play(self, select: int, levels: Sequence[Lines]) -> None:
        """Set levels one after the other on a chip's three lines, with the other chips deselected.

        Returns when the last one is out. Raises OSError when the bus fails.
        """
        ...

    def close(self) -> None:
        """Let go of the lines; may be called twice."""
        ...


class SpidevBus:
    """SPI of the Linux kernel, /dev/spidevB.S for bus B and chip select S, through the package spidev.

    Clocked with ``speed`` hertz, or the chip's greatest clock if that is less. Raises InputError if the package is
    missing or a device cannot be opened.
    """

    def __init__(self, bus: int, speed: float = SPI_HZ) -> None:
        self.label = f"/dev/spidev{bus}"
        self._bus, self._speed = bus, speed
        self._package = _package("spidev", self.label)
        self._devices: dict[int, Any] = {}

    def prepare(self, select: int, mode: int, max_hz: float | None) -> None:
        """Open the device of a chip select."""
        device = self._devices.get(select)
        try:
            if device is None:
                device = self._package.SpiDev()
                device.open(self._bus, select)
                self._devices[select] = device
            device.mode = mode
            device.max_speed_hz = int(_slower(self._speed, max_hz))
            device.bits_per_word = 8
        except OSError as cause:
            raise _not_opened(
                f"{self.label}.{select}", cause, "switch SPI on (on a Raspberry Pi dtparam=spi=on)", "spi"
            ) from cause

    def exchange(self, select: int, payload: bytes) -> bytes:
        """Send bytes in one chip-select window and return the bytes that came back."""
        return bytes(self._devices[select].xfer2(list(payload)))

    def close(self) -> None:
        """Close every device."""
        while self._devices:
            self._devices.popitem()[1].close()


class Smbus2Bus:
    """I2C of the Linux kernel, ``/dev/i2c-N`` by number or path, through the package smbus2.

    Transactions are raw messages with repeated starts, not SMBus commands, so that any chip can be spoken to; the
    speed is the kernel's affair. Raises InputError if the package is missing or the bus cannot be opened.
    """

    def __init__(self, bus: int | str) -> None:
        self.label = f"/dev/i2c-{bus}" if isinstance(bus, int) else bus
        self._package = _package("smbus2", self.label)
        try:
            self._smbus = self._package.SMBus(bus)
        except OSError as cause:
            raise _not_opened(
                self.label, cause, "switch I2C on (on a Raspberry Pi dtparam=i2c_arm=on) and load i2c-dev", "i2c"
            ) from cause

    def exchange(self, address: int, payload: bytes, read: int = 0) -> bytes:
        """Write, then read, in one transaction."""
        message = self._package.i2c_msg
        answer = message.read(address, read) if read else None
        messages = ([message.write(address, list(payload))] if payload else []) + ([answer] if answer else [])
        self._smbus.i2c_rdwr(*messages)
        return bytes(answer) if answer else b""

    def close(self) -> None:
        """Close the bus."""
        self._smbus.close()


class FtdiSpiBus:
    """SPI of an FTDI chip with MPSSE (FT232H, FT2232H, FT4232H), through the package pyftdi.

    Clock on AD0, data out on AD1, data in on AD2, chip selects 0 to 4 on AD3 to AD7; ``selects`` are those in use.
    Raises InputError if the package or its USB back end is missing, or the URL matches no device.
    """

    def __init__(self, url: str, selects: Iterable[int], speed: float = SPI_HZ) -> None:
        self.label = url
        self._speed = speed
        count = max(selects, default=0) + 1
        if count > 5:
            raise InputError(f"{url} has the chip selects 0 to 4, not {count - 1}: use fewer chips on it")
        self._controller = _package("pyftdi.spi", url).SpiController()
        _open_ftdi(url, self._controller, cs_count=count, frequency=speed)
        self._ports: dict[int, Any] = {}

    def prepare(self, select: int, mode: int, max_hz: float | None) -> None:
        """Set up the port of a chip select."""
        port = self._ports.setdefault(select, self._controller.get_port(cs=select))
        port.set_frequency(_slower(self._speed, max_hz))
        port.set_mode(mode)

    def exchange(self, select: int, payload: bytes) -> bytes:
        """Send bytes in one chip-select window and return the bytes that came back."""
        return bytes(self._ports[select].exchange(payload, duplex=True))

    def close(self) -> None:
        """Close the USB device."""
        self._controller.close()


class FtdiI2cBus:
    """I2C of an FTDI chip with MPSSE, through the package pyftdi: clock on AD0, data on AD1 and AD2 together.

    Raises InputError if the package or its USB back end is missing, or the URL matches no device.
    """

    def __init__(self, url: str, speed: float = I2C_HZ) -> None:
        self.label = url
        self._controller = _package("pyftdi.i2c", url).I2cController()
        _open_ftdi(url, self._controller, frequency=speed)
        # Whoever uses the bus tries again, and counts it.
        self._controller.set_retry_count(1)

    def exchange(self, address: int, payload: bytes, read: int = 0) -> bytes:
        """Write, then read, in one transaction."""
        port = self._controller.get_port(address)
        if not read:
            port.write(payload)
            return b""
        return bytes(port.exchange(payload, read) if payload else port.read(read))

    def close(self) -> None:
        """Close the USB device."""
        self._controller.close()


class _UpDownLines:
    """Levels of many lines out of those of one chip's three; bit n of a number is line n of ``lines``."""

    def __init__(self, label: str, up: int, clock: int, selects: Iterable[int]) -> None:
        self.label = label
        lines = [up, clock, *selects]
        if len(set(lines)) != len(lines) or min(lines) < 0:
            raise InputError(
                f"{label}: direction, clock and chip selects are different lines from 0 on, not "
                f"{', '.join(map(str, lines))}"
            )
        self._up, self._clock, self._selects = 1 << up, 1 << clock, {select: 1 << select for select in lines[2:]}
        self.lines = tuple(lines)
        self._deselected = sum(self._selects.values())

    def play(self, select: int, levels: Sequence[Lines]) -> None:
        """Set levels one after the other on a chip's three lines, with the other chips deselected."""
        if select not in self._selects:
            raise InputError(f"{self.label} was opened without a chip select on line {select}: name it in selects")
        others = self._deselected & ~self._selects[select]
        self._put(
            [
                others
                | (self._selects[select] if level.deselected else 0)
                | (self._up if level.up else 0)
                | (self._clock if level.clock else 0)
                for level in levels
            ]
        )

    def _rest(self) -> None:
        """Deselect every chip, wherever the lines are: clock down, chip selects up, clock up."""
        self._put([0, self._deselected, self._deselected | self._clock])

    def _put(self, states: Sequence[int]) -> None:
        raise NotImplementedError


class FtdiUpDown(_UpDownLines):
    """Up/down lines on the pins D0 to D7 of an FTDI chip, through the package pyftdi.

    ``up``: pin of the direction line, ``clock`` of CLK or INC, ``selects`` of the chip selects. Synchronous bit-bang:
    the levels are clocked out evenly, and each brings a sample back, so that it is known when they are out.
    Raises InputError if the package or its USB back end is missing, or the URL matches no device.
    """

    # The smallest receive buffer of these chips is 128 bytes: more samples at once would stall the output.
    _AT_ONCE = 64

    def __init__(self, url: str, up: int, clock: int, selects: Iterable[int], rate: float = LEVEL_HZ) -> None:
        super().__init__(url, up, clock, selects)
        if not all(0 <= line <= 7 for line in self.lines):
            raise InputError(f"{url} has the pins 0 to 7, not {', '.join(map(str, self.lines))}")
        self._controller = _package("pyftdi.gpio", url).GpioSyncController()
        direction = sum(1 << line for line in self.lines)
        _open_ftdi(url, self._controller, direction=direction, frequency=rate)
        self._rest()

    def close(self) -> None:
        """Close the USB device; the pins keep their levels."""
        self._controller.close(freeze=True)

    def _put(self, states: Sequence[int]) -> None:
        for start in range(0, len(states), self._AT_ONCE):
            part = bytes(states[start : start + self._AT_ONCE])
            samples = self._controller.exchange(part)
            if len(samples) != len(part):
                raise OSError(f"only {len(samples)} of {len(part)} levels went out")


class GpiodUpDown(_UpDownLines):
    """Up/down lines on a Linux GPIO chip (``/dev/gpiochip0``), through the package gpiod (libgpiod 2).

    ``up``, ``clock`` and ``selects`` are line offsets. Raises InputError if the package is missing or the lines cannot
    be had.
    """

    def __init__(self, path: str, up: int, clock: int, selects: Iterable[int]) -> None:
        super().__init__(path, up, clock, selects)
        gpiod, line = _package("gpiod", path), _package("gpiod.line", path, pip_name="gpiod")
        self._high, self._low = line.Value.ACTIVE, line.Value.INACTIVE
        settings = gpiod.LineSettings(direction=line.Direction.OUTPUT, output_value=self._low)
        try:
            self._request = gpiod.request_lines(path, consumer="hilcl", config={self.lines: settings})
        except (OSError, ValueError) as cause:
            raise _not_opened(
                path, cause, "name a GPIO chip and lines that are free (gpioinfo lists them)", "gpio"
            ) from (cause)
        self._open = True
        self._rest()

    def close(self) -> None:
        """Release the lines."""
        if self._open:
            self._open = False
            self._request.release()

    def _put(self, states: Sequence[int]) -> None:
        for state in states:
            self._request.set_values(
                {number: self._high if state >> number & 1 else self._low for number in self.lines}
            )


def spi_bus(resource: str, selects: Iterable[int], speed: float = SPI_HZ) -> SpiBus:
    """Return the bus called ``"/dev/spidev0"`` (chip selects are given apart) or ``"ftdi://ftdi:232h/1"``.

    Raises InputError for other names, and as the buses do.
    """
    if _is_ftdi(resource):
        return FtdiSpiBus(resource, selects, speed)
    match = re.fullmatch(r"(?:/dev/)?spidev(\d+)", resource)
    if match is None:
        raise InputError(
            f'"{resource}" is no SPI bus: write "/dev/spidev0" for bus 0, without the chip select, or a URL like '
            '"ftdi://ftdi:232h/1"'
        )
    return SpidevBus(int(match[1]), speed)


def i2c_bus(resource: str, speed: float = I2C_HZ) -> I2cBus:
    """Return the bus called ``"/dev/i2c-1"`` or ``"ftdi://ftdi:232h/1"``; ``speed`` is for the latter.

    Raises InputError for other names, and as the buses do.
    """
    if _is_ftdi(resource):
        return FtdiI2cBus(resource, speed)
    match = re.fullmatch(r"(?:/dev/)?i2c-(\d+)", resource)
    if match is None:
        raise InputError(f'"{resource}" is no I2C bus: write "/dev/i2c-1", or a URL like "ftdi://ftdi:232h/1"')
    return Smbus2Bus(int(match[1]))


def updown_bus(resource: str, up: int, clock: int, selects: Iterable[int], rate: float = LEVEL_HZ) -> UpDownBus:
    """Return the lines of ``"/dev/gpiochip0"`` or ``"ftdi://ftdi:232h/1"``; ``rate`` is for the latter.

    Raises InputError for other names, and as the buses do.
    """
    if _is_ftdi(resource):
        return FtdiUpDown(resource, up, clock, selects, rate)
    match = re.fullmatch(r"(?:/dev/)?(gpiochip\d+)", resource)
    if match is None:
        raise InputError(f'"{resource}" has no lines: write "/dev/gpiochip0", or a URL like "ftdi://ftdi:232h/1"')
    return GpiodUpDown(f"/dev/{match[1]}", up, clock, selects)


def _package(module: str, bus: str, pip_name: str = "") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        name = pip_name or module.split(".", maxsplit=1)[0]
        raise InputError(
            f"{bus} needs the Python package {name}, which is not installed: pip install {name}"
        ) from cause


def _is_ftdi(resource: str) -> bool:
    if not resource.lower().startswith("ftdi:"):
        return False
    if resource.endswith("?"):
        raise InputError(f'"{resource}" asks for a list of devices: run ftdi_urls.py of pyftdi, and name one of them')
    return True


def _open_ftdi(url: str, controller: Any, **options: object) -> None:
    """Configure a pyftdi controller; it tells what went wrong in many ways."""
    problem = importlib.import_module("pyftdi.usbtools").UsbToolsError
    try:
        controller.configure(url, **options)
    except (OSError, ValueError, NotImplementedError, problem) as cause:
        raise InputError(
            f"{url} cannot be opened ({str(cause).rstrip('.')}): check that the adapter is plugged in, that libusb 1.0 "
            "is installed and that this user may use the adapter (pyftdi's installation guide has the udev rule)"
        ) from cause


def _slower(speed: float, max_hz: float | None) -> float:
    return speed if max_hz is None else min(speed, max_hz)


def _not_opened(path: str, cause: Exception, remedy: str, group: str) -> InputError:
    if isinstance(cause, PermissionError):
        remedy = f"add this user to the group {group}, or write a udev rule"
    number = getattr(cause, "errno", None)
    return InputError(f"{path} cannot be opened ({os.strerror(number) if number else cause}): {remedy}")
