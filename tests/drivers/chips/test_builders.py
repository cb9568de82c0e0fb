from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hilcl.drivers.chips import (
    Chip,
    I2cFrame,
    SpiFrame,
    UpDownFrame,
    address_of,
    chip,
    chips,
    decode_reply,
    read_frames,
    refuse_stores,
    unlock_frames,
    write_frames,
)
from hilcl.drivers.chips.model import End
from hilcl.errors import BoardError, InputError

CHIPS = st.sampled_from(chips())
WORDS = [known for known in chips() if "updown" not in known.buses]
COUNTERS = [known for known in chips() if "updown" in known.buses]


def places(known: Chip) -> list[int | None]:
    """Return every address a chip can be given, None standing for none."""
    addresses = set() if known.address is None else set(known.address.all().values())
    without = [None] if not addresses or known.buses == ("spi", "i2c") else []
    return [*without, *sorted(addresses)]


def any_place(known: Chip) -> int | None:
    return places(known)[-1]


def outside(count: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(max_value=-1), st.integers(min_value=count))


@given(CHIPS, st.data())
def test_no_frame_for_a_code_the_chip_does_not_have(known: Chip, data: st.DataObject) -> None:
    code = data.draw(outside(known.positions))
    with pytest.raises(InputError, match=f"no code {code}"):
        write_frames(known, 0, code, address=any_place(known))


@given(CHIPS, st.data())
def test_no_frame_for_a_channel_the_chip_does_not_have(known: Chip, data: st.DataObject) -> None:
    channel = data.draw(outside(known.wipers))
    with pytest.raises(InputError, match=f"no channel {channel}"):
        write_frames(known, channel, 0, address=any_place(known))
    with pytest.raises(InputError, match=f"no channel {channel}"):
        read_frames(known, channel, address=any_place(known))


@pytest.mark.parametrize("known", chips(), ids=lambda known: known.name)
def test_the_first_codes_and_channels_beyond_are_refused_and_the_last_ones_taken(known: Chip) -> None:
    address = any_place(known)
    assert write_frames(known, known.wipers - 1, known.positions - 1, address=address)
    for channel, code in ((0, -1), (0, known.positions), (-1, 0), (known.wipers, 0)):
        with pytest.raises(InputError, match=f"{known.name} has no"):
            write_frames(known, channel, code, address=address)


@given(CHIPS, st.integers())
def test_no_frame_for_an_address_the_chip_cannot_be_at(known: Chip, address: int) -> None:
    assume(address not in places(known))
    with pytest.raises(InputError, match=known.name):
        write_frames(known, 0, 0, address=address)


@pytest.mark.parametrize("code", [1.0, "1", None, 1.5])
def test_codes_are_whole_numbers(code: object) -> None:
    with pytest.raises(InputError, match="whole number"):
        write_frames(chip("AD5206"), 0, code)  # type: ignore[arg-type]


def test_numpy_integers_are_whole_numbers() -> None:
    assert write_frames(chip("AD5206"), np.int64(1), np.uint8(7)) == write_frames(chip("AD5206"), 1, 7)  # type: ignore[arg-type]


@pytest.mark.parametrize("known", WORDS, ids=lambda known: known.name)
def test_all_words_of_a_chip_differ_and_none_stores(known: Chip) -> None:
    address = any_place(known)
    seen = set()
    for channel, code in product(range(known.wipers), range(known.positions)):
        frames = write_frames(known, channel, code, address=address)
        for frame in frames:
            assert isinstance(frame, SpiFrame | I2cFrame)
            refuse_stores(known, frame.payload)
        seen.add(frames[-1])
        assert frames[:-1] == (unlock_frames(known, address=address) if known.guard else ())
    assert len(seen) == known.wipers * known.positions


@pytest.mark.parametrize("known", WORDS, ids=lambda known: known.name)
def test_every_address_is_the_one_on_the_wire(known: Chip) -> None:
    for address in places(known):
        for frame in (*unlock_frames(known, address=address), *write_frames(known, 0, 1, address=address)):
            if isinstance(frame, I2cFrame):
                assert frame.address == address or len(places(known)) == 2
                assert 0x08 <= frame.address <= 0x77
            else:
                assert isinstance(frame, SpiFrame)
                assert frame.payload[0] == (address or frame.payload[0])


# Words that wear or burn, by the makers' command tables, and one of each chip's own wiper writes beside them.
STORES = {
    "AD5252": ["2180", "3980", "C000"],
    "AD5272": ["0C00", "1C01", "1C03", "1C07"],
    "AD5274": ["0C00", "1C03"],
    "AD5292": ["0C00", "1803", "1801"],
    "AD5110": ["0100"],
    "AD5144": ["7001", "7301", "8080", "8380"],
    "MCP4142": ["2040", "3040", "6040", "7040", "8040", "9040", "F040"],
    "MCP4261": ["2100", "3100", "6100", "F1FF"],
    "MCP4361": ["2100", "3100", "8100", "9100", "B100", "C100", "F100"],
    "MCP4462": ["2100", "9100", "D100"],
    "X9250T": ["50C080", "53E000", "508000"],
    "MAX5432": ["21F8", "51F8"],
    "MAX5483": ["108000", "20", "200000"],
    "MAX5487": ["1180", "1280", "21", "22", "23", "2300"],
    "TPL0102": ["1040", "1000"],
    "DS3502": ["0200", "0240"],
    "ISL22316": ["0240"],
    "CAT5140": ["0800"],
}


@pytest.mark.parametrize(
    ("name", "payload"), [(name, payload) for name, payloads in STORES.items() for payload in payloads]
)
def test_words_that_wear_or_burn_are_refused(name: str, payload: str) -> None:
    with pytest.raises(InputError, match=f"never sent to {name}"):
        refuse_stores(chip(name), bytes.fromhex(payload))


def test_every_chip_with_a_memory_behind_words_has_forbidden_words() -> None:
    assert all(known.forbidden for known in WORDS if known.memory is not None)


def test_unlocking_of_one_time_chips_leaves_the_fuses_alone() -> None:
    fused = [known for known in chips() if known.memory is not None and known.memory.kind == "fuse"]
    assert {known.family for known in fused} == {"AD527x", "AD529x"}
    for known in fused:
        (frame,) = unlock_frames(known, address=any_place(known))
        assert isinstance(frame, SpiFrame | I2cFrame)
        assert frame.payload[-1] & 0x03 == 0x02


def answer(known: Chip, channel: int, code: int, length: int) -> bytes:
    """Return what a chip holding ``code`` sends: its data sheet's words, wider ones than needed filled with ones."""
    layout = known.layout
    match layout.name:
        case "register" if layout.read == "plain" and known.wipers > 1:
            return bytes(code if index == channel else 0x55 for index in range(known.wipers))
        case "register":
            return (code << layout.shift).to_bytes(length)
        case "command10":
            return (0xFC00 | code << layout.shift).to_bytes(2)
        case "microchip":
            return (0xFE00 | code).to_bytes(2)
        case _:
            return code.to_bytes(length)


@given(st.sampled_from([known for known in WORDS if known.readable]), st.data())
def test_the_code_a_chip_holds_is_the_code_decoded(known: Chip, data: st.DataObject) -> None:
    channel = data.draw(st.integers(0, known.wipers - 1))
    code = data.draw(st.integers(0, known.positions - 1))
    address = data.draw(st.sampled_from(places(known)))
    frames = read_frames(known, channel, address=address)
    assert all(frame.reply_bytes == 0 for frame in frames[:-1])
    reply = answer(known, channel, code, frames[-1].reply_bytes)
    assert decode_reply(known, channel, reply, address=address) == code


@pytest.mark.parametrize("known", [known for known in chips() if not known.readable], ids=lambda known: known.name)
def test_chips_without_a_voice_say_so(known: Chip) -> None:
    with pytest.raises(InputError, match="cannot be read back"):
        read_frames(known, 0, address=any_place(known))


@pytest.mark.parametrize(
    ("name", "address", "reply"),
    [
        ("AD5246", None, ""),
        ("AD5246", None, "80"),  # a code its seven bits cannot hold
        ("AD5272", 0x2F, "01"),
        ("MCP4151", None, "FC7F"),  # CMDERR low
        ("MCP4151", None, "0000"),
        ("MCP4131", None, "FE81"),
        ("DS1803", 0x28, "808080"),
    ],
)
def test_replies_no_chip_gives_are_faults_of_the_board(name: str, address: int | None, reply: str) -> None:
    with pytest.raises(BoardError, match=name):
        decode_reply(chip(name), 0, bytes.fromhex(reply), address=address)


def test_addresses_by_pins() -> None:
    assert address_of(chip("AD5242"), {"AD1": "gnd", "AD0": "vdd"}) == 0x2D
    assert address_of(chip("TPL0102"), {"A2": "vdd", "A1": "vdd", "A0": "gnd"}) == 0x56
    assert address_of(chip("AD5272"), {"ADDR": "gnd"}) == 0x2F
    assert address_of(chip("AD5144"), {"ADDR0": "open", "ADDR1": "open"}) == 0x2A
    assert address_of(chip("AD5246"), {}) == 0x2E


@pytest.mark.parametrize(
    ("name", "pins", "message"),
    [
        ("AD5242", {"AD0": "gnd"}, "AD1, AD0"),
        ("AD5242", {"AD1": "gnd", "AD0": "open"}, "no address for gnd,open"),
        ("AD5246", {"AD0": "gnd"}, "are none"),
        ("AD5206", {}, "no address"),
    ],
)
def test_pins_that_choose_no_address(name: str, pins: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        address_of(chip(name), pins)


def test_a_chip_with_several_addresses_needs_one() -> None:
    with pytest.raises(InputError, match="needs its address: one of 0x2C, 0x2E, 0x2F"):
        write_frames(chip("AD5272"), 0, 1)
    assert write_frames(chip("AD5246"), 0, 1) == write_frames(chip("AD5246"), 0, 1, address=0x2E)


@pytest.mark.parametrize("known", COUNTERS, ids=lambda known: known.name)
@given(data=st.data())
def test_a_counter_arrives_from_wherever_it_is(known: Chip, data: st.DataObject) -> None:
    codes = st.integers(0, known.positions - 1)
    held, wanted = data.draw(codes), data.draw(codes)
    ends: list[End] = ["low", "high"]
    home = data.draw(st.sampled_from(ends))
    stated = data.draw(st.sampled_from([None, held]))
    for frame in write_frames(known, 0, wanted, current=stated, home=home):
        assert isinstance(frame, UpDownFrame)
        assert frame.pulses > 0
        held = min(max(held + (frame.pulses if frame.up else -frame.pulses), 0), known.positions - 1)
    assert held == wanted


def test_a_counter_homes_to_the_great_resistance_unless_told_otherwise() -> None:
    first, *_ = write_frames(chip("AD5220"), 0, 5)
    assert first == UpDownFrame(up=True, pulses=127)
    assert write_frames(chip("AD5220"), 0, 5, home="low") == (UpDownFrame(False, 127), UpDownFrame(True, 5))


def test_a_counter_refuses_a_current_code_it_cannot_hold() -> None:
    with pytest.raises(InputError, match="no code 128"):
        write_frames(chip("AD5220"), 0, 5, current=128)
