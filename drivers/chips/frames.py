"""What goes over a chip's wires: one value per bus transaction, with no bus behind it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpiFrame:
    """One chip-select window.

    ``payload`` is sent as it stands, most significant bit first. Its last ``bits`` bits are the word the chip keeps;
    zeros before them fill the first byte and fall out of the chip's shift register. ``reply``: the bytes that come back
    on the same clocks, as many as are sent, are wanted.

    Raises ValueError when the word does not fit the payload.
    """

    payload: bytes
    bits: int
    reply: bool = False

    def __post_init__(self) -> None:
        word = int.from_bytes(self.payload)
        if self.bits < 1 or len(self.payload) != (self.bits + 7) // 8 or word >> self.bits:
            raise ValueError(f"{self.payload.hex()} is not a word of {self.bits} bits in whole bytes")

    @property
    def reply_bytes(self) -> int:
        """Return how many bytes of answer this frame brings."""
        return len(self.payload) if self.reply else 0


@dataclass(frozen=True)
class I2cFrame:
    """One transaction with the chip at a 7-bit ``address``, from start to stop.

    ``payload`` is written (nothing is written when it is empty); then, after a repeated start, ``read`` bytes are read.
    """

    address: int
    payload: bytes = b""
    read: int = 0

    @property
    def reply_bytes(self) -> int:
        """Return how many bytes of answer this frame brings."""
        return self.read


@dataclass(frozen=True)
class UpDownFrame:
    """Count ``pulses`` steps ``up`` or down; a chip at the end of its scale stays there."""

    up: bool
    pulses: int

    @property
    def reply_bytes(self) -> int:
        """Return 0: these chips say nothing."""
        return 0


Frame = SpiFrame | I2cFrame | UpDownFrame
