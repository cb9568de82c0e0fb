"""The adapters, over the packages they use, with the device below each package replaced by emulated chips."""

import errno
import importlib
import os
from collections.abc import Sequence
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from hilcl.drivers import buses
from hilcl.drivers.bus_pots import I2cPots, PlacedChip, SpiPots, UpDownPots, open_i2c, open_spi, open_updown
from hilcl.drivers.buses import (
    FtdiI2cBus,
    FtdiSpiBus,
    FtdiUpDown,
    GpiodUpDown,
    Smbus2Bus,
    SpidevBus,
    i2c_bus,
    spi_bus,
    updown_bus,
)
from hilcl.drivers.chips import Lines
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.pot_chips import EmulatedI2cBus, EmulatedSpiBus, EmulatedUpDownBus, PotChip

gpiod = importlib.import_module("gpiod")
smbus2 = importlib.import_module("smbus2")
spidev = importlib.import_module("spidev")

Ftdi: Any = importlib.import_module("pyftdi.ftdi").Ftdi

URL = "ftdi://ftdi:232h/1"

# spidev: an extension in C that opens the device itself. The calls are made to a class that has no others than it.


class FakeSpiDev:
    """One device of the SPI bus of ``chips``."""

    chips: EmulatedSpiBus
    speeds: dict[int, int]
    open_devices = 0

    def __init__(self) -> None:
        self.select, self._mode = -1, 0
        self.bits_per_word = 8

    def open(self, bus: int, device: int) -> None:
        if (bus, device) not in {(0, 0), (0, 1)}:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.select = device
        FakeSpiDev.open_devices += 1

    @property
    def mode(self) -> int:
        return self._mode

    @mode.setter
    def mode(self, mode: int) -> None:
        self._mode = mode
        self.chips.prepare(self.select, mode, None)

    @property
    def max_speed_hz(self) -> int:
        return self.speeds[self.select]

    @max_speed_hz.setter
    def max_speed_hz(self, hertz: int) -> None:
        self.speeds[self.select] = hertz

    def xfer2(self, values: list[int]) -> list[int]:
        return list(self.chips.exchange(self.select, bytes(values)))

    def close(self) -> None:
        FakeSpiDev.open_devices -= 1


SPI = [PlacedChip("MCP4251", 0), PlacedChip("AD5270", 1)]


@pytest.fixture
def spi_chips(monkeypatch: pytest.MonkeyPatch) -> EmulatedSpiBus:
    chips = EmulatedSpiBus(SPI)
    monkeypatch.setattr(FakeSpiDev, "chips", chips, raising=False)
    monkeypatch.setattr(FakeSpiDev, "speeds", {}, raising=False)
    monkeypatch.setattr(FakeSpiDev, "open_devices", 0)
    monkeypatch.setattr(spidev, "SpiDev", FakeSpiDev)
    return chips


def test_the_kernels_spi(spi_chips: EmulatedSpiBus) -> None:
    with open_spi("pots", "/dev/spidev0", SPI, speed=20e6) as bank:
        bank.write(np.array([1, 256, 1023]))
        assert bank.read().tolist() == [1, 256, 1023]
        assert FakeSpiDev.speeds == {0: 10_000_000, 1: 20_000_000}
        assert spi_chips.modes == {0: 0, 1: 1}
        assert FakeSpiDev.open_devices == 2
    assert spi_chips.codes.tolist() == [1, 256, 1023]
    assert FakeSpiDev.open_devices == 0


def test_a_chip_select_without_a_device(spi_chips: EmulatedSpiBus) -> None:
    with pytest.raises(InputError, match=r"/dev/spidev0\.7 cannot be opened \(No such file.*switch SPI on"):
        open_spi("pots", "spidev0", [SPI[0], PlacedChip("AD5206", 7)])
    assert FakeSpiDev.open_devices == 0


def test_the_package_spidev_has_what_is_called() -> None:
    device = spidev.SpiDev()
    for used in ("open", "close", "xfer2", "mode", "max_speed_hz", "bits_per_word"):
        assert hasattr(spidev.SpiDev, used)
    # Arguments are looked at before the device, which is not open.
    with pytest.raises(OSError, match="Bad file descriptor"):
        device.xfer2([1, 2, 3])
    with pytest.raises(OSError, match="No such file"):
        device.open(98, 0)
    device.close()
    with pytest.raises(InputError, match=r"/dev/spidev98\.0 cannot be opened \(No such file"):
        SpidevBus(98).prepare(0, 0, None)


# smbus2: Python above ioctl, which is replaced.


class I2cDevice:
    """What the kernel does with the ioctl calls of smbus2."""

    def __init__(self, chips: EmulatedI2cBus) -> None:
        self.chips = chips
        self.messages: list[list[tuple[int, int, bytes]]] = []

    def ioctl(self, file: int, request: int, argument: Any) -> int:
        module = smbus2.smbus2
        if request == module.I2C_FUNCS:
            argument.value = 0x1
            return 0
        assert request == module.I2C_RDWR
        messages = [argument.msgs[index] for index in range(argument.nmsgs)]
        self.messages.append([(one.addr, one.flags, bytes(one) if not one.flags else b"") for one in messages])
        written = b"".join(bytes(one) for one in messages if not one.flags)
        wanted = sum(one.len for one in messages if one.flags)
        answer = self.chips.exchange(messages[0].addr, written, wanted)
        for one in messages:
            if one.flags:
                for index, byte in enumerate(answer):
                    one.buf[index] = byte
        return 0


I2C = [PlacedChip("AD5254", 0x2C), PlacedChip("DS1803", 0x28), PlacedChip("AD5272", 0x2F)]


@pytest.fixture
def i2c_device(monkeypatch: pytest.MonkeyPatch) -> I2cDevice:
    device = I2cDevice(EmulatedI2cBus(I2C))
    monkeypatch.setattr(smbus2.smbus2, "ioctl", device.ioctl)
    return device


def test_the_kernels_i2c(i2c_device: I2cDevice) -> None:
    codes = [0, 1, 128, 255, 7, 77, 1023]
    with I2cPots("pots", Smbus2Bus("/dev/null"), I2C) as bank:
        i2c_device.messages.clear()
        bank.write(np.array(codes))
        assert i2c_device.messages[0] == [(0x2C, 0, b"\x00\x00")]
        # Register and repeated start, plain read, request and answer in two transactions.
        assert i2c_device.messages[7] == [(0x2C, 0, b"\x00"), (0x2C, 1, b"")]
        assert i2c_device.messages[11] == [(0x28, 1, b"")]
        assert i2c_device.messages[13:] == [[(0x2F, 0, b"\x08\x00")], [(0x2F, 1, b"")]]
        assert bank.read().tolist() == codes
        del i2c_device.chips.by_address[0x28]
        with pytest.raises(
            BoardError, match=r"pot 4 \(DS1803 at 0x28, channel 0\) did not take code .*Remote I/O error"
        ):
            bank.write(np.array(codes))
    assert i2c_device.chips.codes.tolist() == codes


def test_an_i2c_bus_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"/dev/i2c-98 cannot be opened \(No such file.*load i2c-dev"):
        open_i2c("pots", "/dev/i2c-98", I2C)
    with pytest.raises(InputError, match="Inappropriate ioctl"):
        Smbus2Bus("/dev/null")


def test_a_bus_that_may_not_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(smbus2.smbus2.os, "open", refuse)
    with pytest.raises(InputError, match=r"Permission denied\): add this user to the group i2c"):
        Smbus2Bus(1)


# pyftdi: Python above USB. The device below is an FT232H as far as its commands are used.


class FakeFtdi(Ftdi):  # type: ignore[misc]
    """Carries out MPSSE commands and bit-bang samples on emulated chips (FTDI application note AN 108)."""

    spi: EmulatedSpiBus | None = None
    i2c: EmulatedI2cBus | None = None
    lines: EmulatedUpDownBus | None = None
    connected = 0
    refused = 0

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.pins, self.direction = 0xFF, 0
        self.open_now = self.bitbang = False
        self.clock_bits: list[int] = []
        self.chip: PotChip | None = None
        self.written, self.answer = bytearray(), b""
        self.at_start = self.acknowledged = False

    def open_mpsse_from_url(
        self, url: str, direction: int = 0, initial: int = 0, frequency: float = 6e6, **options: Any
    ) -> float:
        assert (url, options) == (URL, {})
        self.open_now, self.direction, self.pins = True, direction, initial
        FakeFtdi.connected += 1
        return frequency

    def open_bitbang_from_url(
        self, url: str, direction: int = 0, latency: int = 16, baudrate: int = 1000000, sync: bool = False
    ) -> float:
        assert (url, sync) == (URL, True)
        self.open_now = self.bitbang = True
        self.direction, self.pins = direction, 0
        FakeFtdi.connected += 1
        return float(baudrate)

    def close(self, freeze: bool = False) -> None:
        assert freeze == self.bitbang
        self.open_now = False
        FakeFtdi.connected -= 1

    is_connected = property(lambda self: self.open_now)
    has_wide_port = property(lambda self: False)
    is_H_series = property(lambda self: True)  # noqa: N815 - pyftdi's name
    frequency_max = property(lambda self: 30e6)
    mpsse_bit_delay = property(lambda self: 0.5e-6)
    fifo_sizes = property(lambda self: (1024, 1024))

    def set_frequency(self, frequency: float) -> float:
        return frequency

    def enable_adaptive_clock(self, enable: bool = True) -> None:
        assert not enable

    def enable_3phase_clock(self, enable: bool = True) -> None:
        """Emulated chips do not mind."""

    def enable_drivezero_mode(self, lines: int) -> None:
        """Emulated lines are open-drain anyway."""

    def purge_buffers(self) -> None:
        self.out.clear()

    def read_data_bytes(self, size: int, attempt: int = 1, request_gen: Any = None) -> bytearray:
        out, self.out = self.out[:size], self.out[size:]
        return out

    def write_data(self, data: bytes | bytearray) -> int:
        if self.bitbang:
            self._sample(data)
            return len(data)
        rest = bytearray(data)
        while rest:
            code = rest.pop(0)
            if code == self.SET_BITS_LOW:
                self._set_pins(rest.pop(0))
                rest.pop(0)
            elif code == self.SEND_IMMEDIATE:
                pass
            elif code in {self.RW_BYTES_PVE_NVE_MSB, self.WRITE_BYTES_NVE_MSB}:
                count = int.from_bytes(rest[:2], "little") + 1
                payload, rest = bytes(rest[2 : 2 + count]), rest[2 + count :]
                if self.spi is not None:
                    self.out += self.spi.exchange(self._selected(), payload)
                else:
                    self._i2c_byte(payload[0])
            elif code == self.READ_BITS_PVE_MSB:
                assert rest.pop(0) == 0
                self.out.append(0 if self.acknowledged else 1)
            elif code == self.READ_BYTES_PVE_MSB:
                rest = rest[2:]
                self.out.append(self.answer[0])
                self.answer = self.answer[1:]
            elif code == self.WRITE_BITS_NVE_MSB:
                rest = rest[2:]
            else:
                raise AssertionError(f"no such MPSSE command in use: {code:02x}")
        return len(data)

    def _selected(self) -> int:
        low = [select for select in range(5) if self.direction >> 3 + select & 1 and not self.pins >> 3 + select & 1]
        assert len(low) == 1
        return low[0]

    def _set_pins(self, pins: int) -> None:
        before, self.pins = self.pins, pins
        if self.i2c is None or not pins & before & 0x01:
            return
        if before & 0x02 and not pins & 0x02:
            self._end_write()
            self.at_start = True
        elif pins & 0x02 and not before & 0x02:
            self._end_write()
            self.chip = None

    def _end_write(self) -> None:
        if self.chip is not None and self.written:
            self.chip.take(bytes(self.written))
        self.written.clear()

    def _i2c_byte(self, byte: int) -> None:
        assert self.i2c is not None
        if self.at_start:
            self.at_start = False
            self.chip = self.i2c.by_address.get(byte >> 1)
            if byte & 1 and self.chip is not None:
                self.answer = self.chip.give(8)
        else:
            self.written.append(byte)
        self.acknowledged = self.chip is not None
        FakeFtdi.refused += not self.acknowledged

    def _sample(self, data: bytes | bytearray) -> None:
        assert len(data) <= 128, "more samples at once than the smallest chip keeps"
        assert self.lines is not None
        for pins in data:
            self.out.append(self.pins)
            self.pins = pins
            level = {line: Lines(bool(pins >> line & 1), bool(pins & 0x01), bool(pins & 0x02)) for line in (2, 3)}
            for line, levels in level.items():
                self.lines._set(line, levels)


@pytest.fixture
def fake_ftdi(monkeypatch: pytest.MonkeyPatch) -> type[FakeFtdi]:
    for module in ("spi", "i2c", "gpio"):
        monkeypatch.setattr(importlib.import_module(f"pyftdi.{module}"), "Ftdi", FakeFtdi)
    for name in ("spi", "i2c", "lines"):
        monkeypatch.setattr(FakeFtdi, name, None)
    monkeypatch.setattr(FakeFtdi, "connected", 0)
    monkeypatch.setattr(FakeFtdi, "refused", 0)
    return FakeFtdi


def test_spi_over_an_ftdi_chip(fake_ftdi: type[FakeFtdi]) -> None:
    placed = [PlacedChip("MCP4251", 0), PlacedChip("AD5206", 3), PlacedChip("AD5270", 4)]
    fake_ftdi.spi = EmulatedSpiBus(placed)
    fake_ftdi.spi.prepare(4, 1, None)
    codes = [0, 256, 1, 2, 3, 4, 5, 255, 1023]
    with open_spi("pots", URL, placed) as bank:
        bank.write(np.array(codes))
        assert bank.read().tolist() == [0, 256, -1, -1, -1, -1, -1, -1, 1023]
        assert fake_ftdi.connected == 1
    assert fake_ftdi.spi.codes.tolist() == codes
    assert fake_ftdi.connected == 0


def test_i2c_over_an_ftdi_chip(fake_ftdi: type[FakeFtdi]) -> None:
    fake_ftdi.i2c = EmulatedI2cBus(I2C)
    codes = [0, 1, 128, 255, 7, 77, 1023]
    with open_i2c("pots", URL, I2C, speed=400e3) as bank:
        bank.write(np.array(codes))
        assert bank.read().tolist() == codes
        del fake_ftdi.i2c.by_address[0x28]
        with pytest.raises(BoardError, match=r"pot 4 \(DS1803 at 0x28, channel 0\) did not take code 9 .*NACK"):
            bank.write(np.array([9] * 7))
        assert fake_ftdi.refused == bank.tries
    assert fake_ftdi.i2c.codes.tolist() == [9, 9, 9, 9, 7, 77, 1023]
    assert fake_ftdi.connected == 0


UPDOWN = [PlacedChip("X9C103", 2), PlacedChip("AD5220", 3)]


def test_up_and_down_over_an_ftdi_chip(fake_ftdi: type[FakeFtdi]) -> None:
    fake_ftdi.lines = EmulatedUpDownBus(UPDOWN)
    with open_updown("pots", URL, UPDOWN, up=0, clock=1) as bank:
        assert fake_ftdi.lines.codes.tolist() == [99, 127]
        for codes in ([0, 0], [99, 127], [50, 3], [50, 4]):
            bank.write(np.array(codes))
            assert fake_ftdi.lines.codes.tolist() == codes
    assert fake_ftdi.lines.stores == 0
    assert fake_ftdi.connected == 0


def test_a_chip_select_that_was_not_named(fake_ftdi: type[FakeFtdi]) -> None:
    fake_ftdi.lines = EmulatedUpDownBus(UPDOWN)
    bus = FtdiUpDown(URL, 0, 1, [2])
    with pytest.raises(InputError, match="without a chip select on line 3"):
        bus.play(3, [Lines(True, True, True)])


def test_levels_that_do_not_come_out_are_told(fake_ftdi: type[FakeFtdi], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ftdi.lines = EmulatedUpDownBus(UPDOWN)
    with open_updown("pots", URL, UPDOWN, up=0, clock=1) as bank:
        monkeypatch.setattr(fake_ftdi, "read_data_bytes", lambda self, size, attempt=1: bytearray())
        with pytest.raises(BoardError, match=r"pot 0 \(X9C103 on line 2, channel 0\).*only 0 of \d+ levels went out"):
            bank.write(np.array([1, 1]))


@pytest.mark.parametrize(
    "opener", [FtdiI2cBus, lambda url: FtdiSpiBus(url, [0]), lambda url: FtdiUpDown(url, 0, 1, [2])]
)
def test_an_adapter_that_is_not_there(opener: Any) -> None:
    # No libusb, or no such device: the package tells either in its own way.
    with pytest.raises(InputError, match=r"ftdi://ftdi:232h:nobody/1 cannot be opened \(.*libusb"):
        opener("ftdi://ftdi:232h:nobody/1")


def test_what_an_ftdi_chip_has_not() -> None:
    with pytest.raises(InputError, match="chip selects 0 to 4, not 5"):
        open_spi("pots", URL, [PlacedChip("AD5206", 5)])
    with pytest.raises(InputError, match="pins 0 to 7, not 0, 1, 9"):
        open_updown("pots", URL, [PlacedChip("AD5220", 9)], up=0, clock=1)
    with pytest.raises(InputError, match="asks for a list"):
        i2c_bus("ftdi:///?")


# gpiod: its own functions, with the signatures they have, above no device.


def test_up_and_down_over_the_kernels_gpio(monkeypatch: pytest.MonkeyPatch) -> None:
    chips = EmulatedUpDownBus([PlacedChip("X9C103", 22), PlacedChip("AD5220", 23)])
    value = gpiod.line.Value
    request = create_autospec(gpiod.LineRequest, instance=True)

    def set_values(values: dict[int, Any]) -> None:
        high = {line: level is value.ACTIVE for line, level in values.items()}
        assert set(high) == {17, 27, 22, 23}
        for line in (22, 23):
            chips._set(line, Lines(high[line], high[17], high[27]))

    request.set_values.side_effect = set_values
    opened = create_autospec(gpiod.request_lines, return_value=request)
    monkeypatch.setattr(gpiod, "request_lines", opened)
    placed = [PlacedChip("X9C103", 22), PlacedChip("AD5220", 23)]
    with open_updown("pots", "/dev/gpiochip0", placed, up=17, clock=27) as bank:
        bank.write(np.array([33, 44]))
        bank.write(np.array([32, 45]))
    assert chips.codes.tolist() == [32, 45]
    assert chips.stores == 0
    ((path,), options) = opened.call_args
    assert path == "/dev/gpiochip0"
    ((lines, settings),) = options["config"].items()
    assert lines == (17, 27, 22, 23)
    assert settings.direction is gpiod.line.Direction.OUTPUT
    bank.close()
    request.release.assert_called_once_with()


def test_a_gpio_chip_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"/dev/gpiochip98 cannot be opened \(No such file.*lines that are free"):
        GpiodUpDown("/dev/gpiochip98", 1, 2, [3])


# Names and packages.


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: spi_bus("/dev/spidev0.1", [0]), "is no SPI bus: write .* without the chip select"),
        (lambda: spi_bus("COM3", [0]), "is no SPI bus"),
        (lambda: i2c_bus("/dev/ttyUSB0"), "is no I2C bus"),
        (lambda: updown_bus("/dev/i2c-1", 1, 2, [3]), "has no lines"),
        (lambda: updown_bus("/dev/gpiochip0", 1, 2, [2]), "different lines from 0 on, not 1, 2, 2"),
        (lambda: updown_bus(URL, 1, -2, [3]), "different lines from 0 on"),
    ],
)
def test_names_that_mean_nothing(build: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        build()


@pytest.mark.parametrize(
    ("missing", "build"),
    [
        ("spidev", lambda: spi_bus("/dev/spidev0", [0])),
        ("smbus2", lambda: i2c_bus("/dev/i2c-1")),
        ("pyftdi", lambda: i2c_bus(URL)),
        ("pyftdi", lambda: spi_bus(URL, [0])),
        ("pyftdi", lambda: updown_bus(URL, 0, 1, [2])),
        ("gpiod", lambda: updown_bus("/dev/gpiochip0", 0, 1, [2])),
    ],
)
def test_a_package_that_is_missing_is_named(missing: str, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(InputError, match=f"needs the Python package {missing}, .*: pip install {missing}$"):
        build()


def test_the_emulated_buses_are_buses() -> None:
    spi: buses.SpiBus = EmulatedSpiBus(SPI)
    i2c: buses.I2cBus = EmulatedI2cBus(I2C)
    lines: buses.UpDownBus = EmulatedUpDownBus(UPDOWN)
    banks: Sequence[SpiPots | I2cPots | UpDownPots] = [
        SpiPots("a", spi, SPI),
        I2cPots("b", i2c, I2C),
        UpDownPots("c", lines, UPDOWN),
    ]
    assert [bank.identity for bank in banks] == [
        "emulated SPI: 1 × MCP4251, 1 × AD5270",
        "emulated I2C: 1 × AD5254, 1 × DS1803, 1 × AD5272",
        "emulated lines: 1 × X9C103, 1 × AD5220",
    ]
