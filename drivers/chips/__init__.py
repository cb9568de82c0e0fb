"""Digital potentiometers as data, and their write frames as pure functions."""

from hilcl.drivers.chips.builders import (
    address_of,
    decode_reply,
    read_frames,
    refuse_stores,
    unlock_frames,
    write_frames,
)
from hilcl.drivers.chips.catalogue import chip, chips
from hilcl.drivers.chips.frames import Frame, I2cFrame, SpiFrame, UpDownFrame
from hilcl.drivers.chips.model import Chip, Source
from hilcl.drivers.chips.updown import Lines, waveform

__all__ = [
    "Chip",
    "Frame",
    "I2cFrame",
    "Lines",
    "Source",
    "SpiFrame",
    "UpDownFrame",
    "address_of",
    "chip",
    "chips",
    "decode_reply",
    "read_frames",
    "refuse_stores",
    "unlock_frames",
    "waveform",
    "write_frames",
]
