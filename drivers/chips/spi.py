"""SPI chips: words in chip-select windows."""

from hilcl.drivers.chips.frames import SpiFrame
from hilcl.drivers.chips.layouts import X9250, Command10, Layout, Microchip, Register, Word

_NO_OPERATION = Word(0, 16)


def frame(word: Word, address: int = 0, *, reply: bool = False) -> SpiFrame:
    """Return a word in a window of its own, with the device's identifier, if it has one, in the first byte."""
    payload = bytearray(word.payload)
    payload[0] |= address
    return SpiFrame(bytes(payload), word.bits, reply)


def read(layout: Layout, channel: int, address: int = 0) -> tuple[SpiFrame, ...]:
    """Return the windows that ask for a code; the last one brings the reply.

    Bits that do not matter to a Microchip chip are high, because the single ones answer on the line they listen to.
    Raises TypeError for a layout that cannot be read over SPI.
    """
    match layout:
        case Command10():
            request = Word(2 << 10, 16)
            return frame(request), frame(_NO_OPERATION, reply=True)
        case Register(read="command"):
            request = Word(layout.read_registers[channel] << 8 | layout.read_argument, 16)
            return frame(request), frame(_NO_OPERATION, reply=True)
        case Microchip():
            return (frame(Word(layout.registers[channel] << 12 | 0x0FFF, 16), reply=True),)
        case X9250():
            return (frame(Word((0x90 | channel) << 8, 24), address, reply=True),)
        case _:
            raise TypeError(f"chips of the layout {layout.name} cannot be read over SPI")
