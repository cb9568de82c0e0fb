"""How chips lay out a code in the word they take and in the answer they give, as data and pure functions.

A layout knows volatile registers only. Which bus carries a word is the chip's affair: the same sixteen bits go to an
AD5144 over SPI and over I2C.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Word(NamedTuple):
    """A number of so many bits, as the chip's data sheet counts them."""

    value: int
    bits: int

    @property
    def payload(self) -> bytes:
        """Return the word in as many whole bytes as it needs, most significant bit first, zeros in front."""
        return self.value.to_bytes((self.bits + 7) // 8)


class _Layout(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AddressData(_Layout):
    """``address_bits`` of channel, then ``data_bits`` of code: AD5204/AD5206 data sheet Rev. D, serial data word."""

    name: Literal["address_data"]
    address_bits: int
    data_bits: int


class Byte(_Layout):
    """The code alone in one byte: AD5246 data sheet Rev. C, I2C interface."""

    name: Literal["byte"]


class Register(_Layout):
    """One register or instruction byte per channel, then a byte with the code shifted left by ``shift``.

    ``read``: "register" names the byte of ``registers`` and reads one byte after a repeated start; "plain" reads one
    byte per channel at once; "command" sends the byte of ``read_registers`` with ``read_argument``, and the chip
    answers in the next transaction; None for a chip that says nothing.
    """

    name: Literal["register"]
    registers: tuple[Annotated[int, Field(ge=0, le=0xFF)], ...]
    shift: int = 0
    read: Literal["register", "plain", "command"] | None = None
    read_registers: tuple[Annotated[int, Field(ge=0, le=0xFF)], ...] = ()
    read_argument: Annotated[int, Field(ge=0, le=0xFF)] = 0

    @model_validator(mode="after")
    def _one_read_register_each(self) -> "Register":
        if len(self.read_registers) != (len(self.registers) if self.read == "command" else 0):
            raise ValueError("read_registers go with read = command, one for each register")
        return self


class Command10(_Layout):
    """Two zeros, four command bits, ten data bits, codes left-justified: AD5270/AD5271 data sheet Rev. F, table 11."""

    name: Literal["command10"]
    shift: int = 0


class Microchip(_Layout):
    """Four address bits, two command bits, ten data bits: MCP413X/415X/423X/425X data sheet DS22060B, table 7-2.

    ``registers`` are volatile wipers: 00h, 01h, 06h, 07h. ``error_bit``: the SPI chips put one before their data, low
    after a request they do not know.
    """

    name: Literal["microchip"]
    registers: tuple[Literal[0, 1, 6, 7], ...]
    error_bit: bool


class X9250(_Layout):
    """Identifier and device address, instruction and wiper, code: Intersil X9250 data sheet FN8165, instruction set.

    The first byte is left zero here: it is the chip's address.
    """

    name: Literal["x9250"]


class Max5481(_Layout):
    """Two zeros, two command bits, four zeros, ten data bits left-justified: MAX5481–MAX5484 data sheet, table 2."""

    name: Literal["max5481"]


class Counter(_Layout):
    """A counter behind an up/down interface: it takes steps, not words."""

    name: Literal["counter"]


Layout = AddressData | Byte | Register | Command10 | Microchip | X9250 | Max5481 | Counter
AnyLayout = Annotated[Layout, Field(discriminator="name")]


def room(layout: Layout) -> tuple[int, int]:
    """Return how many wipers and how many codes a layout can tell apart."""
    match layout:
        case AddressData():
            return 1 << layout.address_bits, 1 << layout.data_bits
        case Byte():
            return 1, 256
        case Register():
            return len(layout.registers), 256 >> layout.shift
        case Command10():
            return 1, 1024 >> layout.shift
        case Microchip():
            return len(layout.registers), 257
        case X9250():
            return 4, 256
        case Max5481():
            return 1, 1024
        case Counter():
            return 1, 1 << 10


def readable(layout: Layout) -> bool:
    """Return whether chips of this layout give their code back."""
    match layout:
        case Register():
            return layout.read is not None
        case Byte() | Command10() | Microchip() | X9250():
            return True
        case _:
            return False


def word(layout: Layout, channel: int, code: int) -> Word:
    """Return the word that moves a wiper; channel and code have been checked.

    Raises TypeError for a counter, which takes no words.
    """
    match layout:
        case AddressData():
            return Word(channel << layout.data_bits | code, layout.address_bits + layout.data_bits)
        case Byte():
            return Word(code, 8)
        case Register():
            return Word(layout.registers[channel] << 8 | code << layout.shift, 16)
        case Command10():
            return Word(1 << 10 | code << layout.shift, 16)
        case Microchip():
            return Word(layout.registers[channel] << 12 | code, 16)
        case X9250():
            return Word((0xA0 | channel) << 8 | code, 24)
        case Max5481():
            return Word(code << 6, 24)
        case Counter():
            raise TypeError("an up/down chip takes steps, not words")


def decode(layout: Layout, channel: int, reply: bytes) -> int | None:
    """Return the code in a reply of the right length, or None when the chip says that it did not know the request.

    Raises TypeError for a chip that cannot be read.
    """
    match layout:
        case Byte() | X9250():
            return reply[-1]
        case Register():
            return reply[channel if layout.read == "plain" else -1] >> layout.shift
        case Command10():
            return (int.from_bytes(reply) & 0x3FF) >> layout.shift
        case Microchip():
            return int.from_bytes(reply) & 0x1FF if reply[0] & 0x02 or not layout.error_bit else None
        case _:
            raise TypeError(f"chips of the layout {layout.name} cannot be read")
