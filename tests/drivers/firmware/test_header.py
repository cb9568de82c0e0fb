"""The firmware's tables against the chips' own frames, for every chip, wiper and code of the catalogue."""

from collections.abc import Iterable

import pytest

from hilcl.drivers.chips import Chip, I2cFrame, SpiFrame, chips, decode_reply, read_frames, write_frames
from hilcl.drivers.chips.layouts import Counter
from hilcl.drivers.firmware.header import reading, writing

WORDS = [chip for chip in chips() if not isinstance(chip.layout, Counter)]


def addresses(chip: Chip) -> list[int | None]:
    if chip.address is None:
        return [None]
    known: list[int | None] = [*sorted(set(chip.address.all().values()))]
    return [None, *known] if chip.buses == ("spi", "i2c") else known


def codes(chip: Chip, *, all_of_them: bool) -> Iterable[int]:
    """Return every code, or those that between them move each bit: an address has nothing to do with codes."""
    highest = chip.positions - 1
    few = {0, highest, *(1 << bit for bit in range(highest.bit_length()))}
    return range(chip.positions) if all_of_them else sorted(few)


@pytest.mark.parametrize("chip", WORDS, ids=lambda chip: chip.name)
def test_words_are_those_of_the_chips_module(chip: Chip) -> None:
    for index, address in enumerate(addresses(chip)):
        for wiper in range(chip.wipers):
            table = writing(chip, wiper, address)
            base = int.from_bytes(table.base)
            for code in codes(chip, all_of_them=index == 0):
                frame = write_frames(chip, wiper, code, address=address)[-1]
                assert isinstance(frame, SpiFrame | I2cFrame)
                assert (base | code << table.shift).to_bytes(len(table.base)) == frame.payload


@pytest.mark.parametrize("chip", [chip for chip in WORDS if chip.readable], ids=lambda chip: chip.name)
def test_replies_are_read_as_the_chips_module_does(chip: Chip) -> None:
    for index, address in enumerate(addresses(chip)):
        for wiper in range(chip.wipers):
            table = reading(chip, wiper, address)
            assert table.reply == read_frames(chip, wiper, address=address)[-1].reply_bytes
            for code in codes(chip, all_of_them=index == 0):
                error_bit = 0x200 if table.error_bit else 0
                reply = (code << table.shift | error_bit).to_bytes(table.reply)
                assert decode_reply(chip, wiper, reply, address=address) == code
                assert (int.from_bytes(reply[-2:]) >> table.shift) & table.mask == code
