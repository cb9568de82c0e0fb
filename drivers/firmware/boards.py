"""The microcontroller boards the firmware runs on: their pins by the names printed on them."""

from dataclasses import dataclass
from itertools import chain


def _ports(*runs: str) -> list[str]:
    """Return pins written as port and bits: ``_ports("D01", "B0")`` is ["D0", "D1", "B0"]."""
    return [f"{run[0]}{bit}" for run in runs for bit in run[1:]]


def _named(letter: str, pins: list[str]) -> dict[str, str]:
    return {f"{letter}{index}": pin for index, pin in enumerate(pins)}


@dataclass(frozen=True)
class McuBoard:
    """A board: ``pins`` by name as port letter and bit, ``analog`` names with their ADC channel; bytes of memory."""

    name: str
    title: str
    mcu: str
    programmer: str
    programmer_baud: int
    pins: dict[str, str]
    analog: dict[str, int]
    spi: dict[str, str]
    i2c: tuple[str, str]
    flash: int
    ram: int
    clock: int = 16_000_000

    @property
    def reserved(self) -> set[str]:
        """Names of the pins of the serial port."""
        return {"D0", "D1"}


_UNO = _named("D", _ports("D01234567", "B012345")) | _named("A", _ports("C012345"))
_MEGA = _named(
    "D",
    _ports(
        "E0145",
        "G5",
        "E3",
        "H3456",
        "B4567",
        "J10",
        "H10",
        "D3210",
        "A01234567",
        "C76543210",
        "D7",
        "G210",
        "L76543210",
        "B3210",
    ),
) | _named("A", _ports("F01234567", "K01234567"))
_UNO_SPI = {"ss": "D10", "mosi": "D11", "miso": "D12", "sck": "D13"}
_MEGA_SPI = {"ss": "D53", "mosi": "D51", "miso": "D50", "sck": "D52"}


def _small(name: str, title: str, baud: int, channels: int) -> McuBoard:
    return McuBoard(
        name,
        title,
        "atmega328p",
        "arduino",
        baud,
        _UNO,
        {f"A{index}": index for index in range(channels)},
        _UNO_SPI,
        ("A4", "A5"),
        flash=32768 - 2048,
        ram=2048,
    )


BOARDS = {
    board.name: board
    for board in (
        _small("uno", "Arduino Uno", 115_200, 6),
        _small("nano", "Arduino Nano", 57_600, 8),
        McuBoard(
            "mega",
            "Arduino Mega 2560",
            "atmega2560",
            "wiring",
            115_200,
            _MEGA,
            {f"A{index}": index for index in range(16)},
            _MEGA_SPI,
            ("D20", "D21"),
            flash=262144 - 8192,
            ram=8192,
        ),
    )
}
"""The boards by name. The Nano's baud rate is that of its old bootloader; new ones take 115 200."""

PORT_LETTERS = sorted(set(chain.from_iterable(pin[0] for board in BOARDS.values() for pin in board.pins.values())))
