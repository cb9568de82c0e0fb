"""I2C chips: bytes to and from an address."""

from hilcl.drivers.chips.frames import I2cFrame
from hilcl.drivers.chips.layouts import Byte, Command10, Layout, Microchip, Register, Word


def frame(word: Word, address: int) -> I2cFrame:
    """Return the transaction that writes a word."""
    return I2cFrame(address, word.payload)


def read(layout: Layout, channel: int, address: int) -> tuple[I2cFrame, ...]:
    """Return the transactions that ask for a code; the last one brings the reply.

    Raises TypeError for a layout that cannot be read over I2C.
    """
    match layout:
        case Byte():
            return (I2cFrame(address, read=1),)
        case Register(read="plain"):
            return (I2cFrame(address, read=len(layout.registers)),)
        case Register(read="register"):
            return (I2cFrame(address, bytes([layout.registers[channel]]), read=1),)
        case Register(read="command"):
            request = bytes([layout.read_registers[channel], layout.read_argument])
            return I2cFrame(address, request), I2cFrame(address, read=1)
        case Command10():
            return I2cFrame(address, Word(2 << 10, 16).payload), I2cFrame(address, read=2)
        case Microchip():
            return (I2cFrame(address, bytes([layout.registers[channel] << 4 | 0x0C]), read=2),)
        case _:
            raise TypeError(f"chips of the layout {layout.name} cannot be read over I2C")
