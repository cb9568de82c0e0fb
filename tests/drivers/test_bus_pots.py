"""Banks of chips on emulated buses: codes as asked, nothing stored, and one sentence when something fails."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.devices import RheostatBank
from hilcl.drivers.bus_pots import BusPots, I2cPots, PlacedChip, SpiPots, UpDownPots
from hilcl.drivers.chips import Chip, I2cFrame, SpiFrame, chip, chips
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.pot_chips import EmulatedI2cBus, EmulatedSpiBus, EmulatedUpDownBus

EmulatedBus = EmulatedSpiBus | EmulatedI2cBus | EmulatedUpDownBus


class Setup(NamedTuple):
    bank: BusPots
    bus: EmulatedBus


def setup(kind: str, placed: Sequence[PlacedChip], safe_codes: Sequence[int] | None = None, tries: int = 3) -> Setup:
    if kind == "spi":
        spi = EmulatedSpiBus(placed)
        return Setup(SpiPots("pots", spi, placed, safe_codes=safe_codes, tries=tries), spi)
    if kind == "i2c":
        i2c = EmulatedI2cBus(placed)
        return Setup(I2cPots("pots", i2c, placed, safe_codes=safe_codes, tries=tries), i2c)
    lines = EmulatedUpDownBus(placed)
    return Setup(UpDownPots("pots", lines, placed, safe_codes=safe_codes, tries=tries), lines)


def places(known: Chip, kind: str) -> list[PlacedChip]:
    """Return two of a chip, where it can be twice on a bus."""
    if kind == "i2c":
        assert known.address is not None
        return [PlacedChip(known.name, address) for address in sorted(set(known.address.all().values()))[:2]]
    if known.address is not None and known.buses == ("spi",):
        return [PlacedChip(known.name, 0, identifier=0x50), PlacedChip(known.name, 0, identifier=0x53)]
    return [PlacedChip(known.name, 2), PlacedChip(known.name, 4)]


EVERY = [pytest.param(known, kind, id=f"{known.name}-{kind}") for known in chips() for kind in known.buses]


@pytest.mark.parametrize(("known", "kind"), EVERY)
def test_every_chip_takes_its_codes_exactly_and_stores_nothing(known: Chip, kind: str) -> None:
    bank, bus = setup(kind, places(known, kind))
    assert isinstance(bank, RheostatBank)
    top = known.positions - 1
    pots = len(bank.pots)
    draws = np.random.default_rng(7).integers(0, known.positions, (6, pots))
    with bank:
        assert bank.code_counts.tolist() == [known.positions] * pots
        for codes in [np.zeros(pots, np.int64), np.full(pots, top), *draws, np.arange(pots) % known.positions]:
            bank.write(codes)
            assert bus.codes.tolist() == codes.tolist()
            expected = codes if known.readable else np.full(pots, -1)
            assert bank.read().tolist() == expected.tolist()
        assert bank.readable.tolist() == [known.readable] * pots
    assert bus.stores == 0
    assert bus.closed


@pytest.mark.parametrize(("known", "kind"), EVERY)
def test_no_code_a_chip_has_not_is_sent(known: Chip, kind: str) -> None:
    bank, bus = setup(kind, places(known, kind))
    with bank:
        bank.write(np.full(len(bank.pots), 1))
        before = bus.transactions
        for bad in (-1, known.positions):
            codes = np.full(len(bank.pots), 2)
            codes[-1] = bad
            with pytest.raises(InputError, match=rf"pot {len(bank.pots) - 1} \({known.name} .*codes 0 to .* not {bad}"):
                bank.write(codes)
        assert bus.transactions == before
        assert bus.codes.tolist() == [1] * len(bank.pots)


@pytest.mark.parametrize("codes", [[1], [1, 2, 3], [[1, 2]], [1.0, 2.0], [True, False]])
def test_codes_are_as_many_whole_numbers_as_pots(codes: list[int]) -> None:
    bank, _ = setup("spi", [PlacedChip("MCP4251", 0)])
    with bank, pytest.raises(InputError, match=r"2 pots|whole numbers"):
        bank.write(np.array(codes))


CHOICE = st.sampled_from([PlacedChip("AD5254", 0x2C), PlacedChip("DS1803", 0x28, (1, 0)), PlacedChip("AD5272", 0x2F)])


@given(st.lists(CHOICE, min_size=1, max_size=3, unique=True))
def test_pots_of_mixed_chips_are_numbered_as_they_are_listed(placed: list[PlacedChip]) -> None:
    bank, bus = setup("i2c", placed)
    codes = np.array([(37 * pot + 11) % 250 for pot in range(len(bank.pots))])
    with bank:
        bank.write(codes)
        assert bank.read().tolist() == codes.tolist() == bus.codes.tolist()


def test_channels_choose_and_order_the_pots() -> None:
    placed = [PlacedChip("AD5206", 1, (5, 0, 3))]
    bank, bus = setup("spi", placed)
    with bank:
        bank.write(np.array([10, 20, 30]))
    assert [bus.chips[0].codes[channel] for channel in (0, 1, 2, 3, 4, 5)] == [20, 128, 128, 30, 128, 10]


def test_the_identity_counts_chips() -> None:
    bank, _ = setup("spi", [PlacedChip("MCP4251", 0), PlacedChip("MCP4251", 1), PlacedChip("AD5206", 2)])
    assert bank.identity == "emulated SPI: 2 × MCP4251, 1 × AD5206"


# SPI.


def test_each_chip_select_gets_the_mode_and_clock_of_its_chip() -> None:
    bank, bus = setup("spi", [PlacedChip("MCP4251", 0), PlacedChip("AD5270", 1), PlacedChip("AD5144", 2)])
    with bank:
        pass
    assert isinstance(bus, EmulatedSpiBus)
    assert bus.modes == {0: 0, 1: 1, 2: 1}
    assert bus.clocks == {0: 10e6, 1: 50e6, 2: None}


def test_a_chip_in_another_mode_is_found_by_reading_it_back() -> None:
    placed = [PlacedChip("AD5270", 0)]
    bank, bus = setup("spi", placed)
    assert isinstance(bus, EmulatedSpiBus)
    with bank:
        bus.modes[0] = 0
        with pytest.raises(BoardError, match=r"pot 0 \(AD5270 on chip select 0, channel 0\) holds code"):
            bank.write(np.array([700]))


def test_a_chip_that_is_not_there_is_found_when_the_bank_is_opened() -> None:
    there = [PlacedChip("MCP4251", 0)]
    bank = SpiPots("pots", EmulatedSpiBus(there), [*there, PlacedChip("MCP4251", 1)])
    with pytest.raises(BoardError, match=r"pot 2 \(MCP4251 on chip select 1, channel 0\).*none of its codes"):
        bank.open()


def test_a_chip_whose_answer_is_not_wired_is_not_read() -> None:
    placed = [PlacedChip("MCP4251", 0, readback=False), PlacedChip("MCP4251", 1)]
    bank, bus = setup("spi", placed)
    with bank:
        bus.chips[0].deaf = True
        bank.write(np.array([1, 2, 3, 4]))
        assert bank.read().tolist() == [-1, -1, 3, 4]
        assert bank.readable.tolist() == [False, False, True, True]


def test_a_write_that_did_not_count_is_named() -> None:
    bank, bus = setup("spi", [PlacedChip("MCP4251", 0), PlacedChip("MCP4251", 5)])
    with bank:
        bus.chips[1].deaf = True
        with pytest.raises(
            BoardError, match=r"pots: pot 2 \(MCP4251 on chip select 5, channel 0\) holds code 128 after 9 was written"
        ):
            bank.write(np.array([9, 9, 9, 9]))


def test_chips_that_share_a_chip_select_need_identifiers() -> None:
    with pytest.raises(InputError, match="AD5206 and MCP4251 are both on chip select 0"):
        setup("spi", [PlacedChip("AD5206", 0), PlacedChip("MCP4251", 0)])
    with pytest.raises(InputError, match="are both on chip select 0"):
        setup("spi", [PlacedChip("X9250T", 0, identifier=0x51), PlacedChip("MCP4251", 0)])
    with pytest.raises(InputError, match="X9250T needs its address"):
        setup("spi", [PlacedChip("X9250T", 0)])
    with pytest.raises(InputError, match="AD5144 on chip select 0 with identifier 0x2F takes no identifier"):
        setup("spi", [PlacedChip("AD5144", 0, identifier=0x2F)])


def test_a_chip_select_that_cannot_be_prepared_is_named() -> None:
    class Bus(EmulatedSpiBus):
        def prepare(self, select: int, mode: int, max_hz: float | None) -> None:
            if mode == 1:
                raise OSError("mode 1 is not supported")
            super().prepare(select, mode, max_hz)

    placed = [PlacedChip("MCP4251", 0), PlacedChip("AD5270", 1)]
    with pytest.raises(
        BoardError, match=r"pot 2 \(AD5270 on chip select 1, channel 0\) could not be prepared .*mode 1"
    ):
        SpiPots("pots", Bus(placed), placed).open()


# I2C.


def test_a_chip_that_does_not_acknowledge_is_named() -> None:
    bank, bus = setup("i2c", [PlacedChip("AD5254", 0x2C), PlacedChip("AD5254", 0x2D)])
    assert isinstance(bus, EmulatedI2cBus)
    with bank:
        gone = bus.by_address.pop(0x2D)
        with pytest.raises(
            BoardError, match=r"pot 4 \(AD5254 at 0x2D, channel 0\) did not take code 7 on emulated I2C .*Remote I/O"
        ):
            bank.write(np.full(8, 7))
        bus.by_address[0x2D] = gone
        bank.write(np.full(8, 8))
    assert bus.codes.tolist() == [8] * 8


def test_nobody_at_an_address_is_found_when_the_bank_is_opened() -> None:
    bank = I2cPots("pots", EmulatedI2cBus([]), [PlacedChip("AD5245", 0x2C)])
    with pytest.raises(BoardError, match=r"pot 0 \(AD5245 at 0x2C, channel 0\) could not be read"):
        bank.open()


def test_a_passing_disturbance_is_tried_over() -> None:
    bank, bus = setup("i2c", [PlacedChip("AD5254", 0x2C)])
    with bank:
        bus.failures = 2
        bank.write(np.arange(4))
        assert bank.retries == 2
        bus.failures = 3
        with pytest.raises(BoardError, match="did not take code 9"):
            bank.write(np.full(4, 9))
        assert bus.codes.tolist() == [0, 1, 2, 3]


def test_addresses_a_chip_cannot_have_are_refused() -> None:
    with pytest.raises(InputError, match="AD5254 cannot be at address 0x50"):
        setup("i2c", [PlacedChip("AD5254", 0x50)])
    with pytest.raises(InputError, match="are both at 0x2C"):
        setup("i2c", [PlacedChip("AD5254", 0x2C), PlacedChip("AD5245", 0x2C)])


@pytest.mark.parametrize(
    ("placed", "problem"),
    [
        (PlacedChip("AD5206", 0x2C), "sits on spi, not on i2c"),
        (PlacedChip("AD5999", 0x2C), "no digital potentiometer"),
        (PlacedChip("AD5254", 0x2C, (4,)), "no channel 4"),
        (PlacedChip("AD5254", 0x2C, (1, 1)), "named once each"),
        (PlacedChip("AD5254", 0x2C, ()), "named once each"),
        (PlacedChip("AD5254", 0x2C, identifier=1), "takes no identifier"),
        (PlacedChip("AD5254", -1), "places count from 0"),
        (PlacedChip("AD5254", 0x2C, together=True), "cannot move its pots together"),
        (PlacedChip("AD5144A", 0x2F, (0, 1), together=True), "cannot move its pots together"),
    ],
)
def test_chips_that_cannot_be_are_refused(placed: PlacedChip, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        I2cPots("pots", EmulatedI2cBus([]), [placed])


def test_a_bank_has_chips_and_tries() -> None:
    with pytest.raises(InputError, match="lists no chips"):
        setup("i2c", [])
    with pytest.raises(InputError, match="at least one try"):
        setup("i2c", [PlacedChip("AD5245", 0x2C)], tries=0)


def test_a_locked_chip_is_unlocked_when_the_bank_is_opened() -> None:
    placed = [PlacedChip("AD5272", 0x2F)]
    bank, bus = setup("i2c", placed)
    with bank:
        bank.write(np.array([900]))
        bus.chips[0].power_on()
        with pytest.raises(BoardError, match="holds code 512 after 901 was written: check its supply"):
            bank.write(np.array([901]))
    assert bus.stores == 0


@pytest.mark.parametrize("name", ["ISL22316", "DS3502", "TPL0102", "CAT5140"])
def test_a_brown_out_does_not_make_writes_wear_the_memory(name: str) -> None:
    bank, bus = setup("i2c", places(chip(name), "i2c"))
    with bank:
        for one in bus.chips:
            one.power_on()
        bank.write(np.full(len(bank.pots), 3))
    assert bus.stores == 0
    assert bus.codes.tolist() == [3] * len(bank.pots)


@pytest.mark.parametrize(("name", "place"), [("AD5144A", 0x2F), ("AD5143", 0x2B), ("AD5142A", 0x20), ("AD5123", 0x28)])
def test_the_wipers_of_a_chip_move_together(name: str, place: int) -> None:
    placed = [PlacedChip(name, place, together=True)]
    heard: list[list[int]] = []
    bus = EmulatedI2cBus(placed, lambda codes: heard.append(codes.tolist()))
    codes = list(range(10, 10 + chip(name).wipers))
    with I2cPots("pots", bus, placed) as bank:
        heard.clear()
        bank.write(np.array(codes))
    assert heard == [codes]


def test_the_frames_that_move_wipers_together() -> None:
    sent: list[I2cFrame | SpiFrame] = []

    class Bus(EmulatedSpiBus):
        def exchange(self, select: int, payload: bytes) -> bytes:
            sent.append(SpiFrame(payload, 16))
            return super().exchange(select, payload)

    placed = [PlacedChip("AD5124", 0, (3, 0, 1, 2), together=True, readback=False)]
    with SpiPots("pots", Bus(placed), placed) as bank:
        bank.write(np.array([1, 2, 3, 127]))
    assert [frame.payload.hex() for frame in sent] == ["2302", "2004", "2106", "22fe", "6800"]


# Up/down lines.


@pytest.mark.parametrize("name", ["AD5220", "X9C103"])
@pytest.mark.parametrize("home", ["low", "high"])
def test_a_chip_that_counts_is_homed_and_then_moved_by_differences(name: str, home: str) -> None:
    placed = [PlacedChip(name, 4, home="low" if home == "low" else "high")]
    bus = EmulatedUpDownBus(placed)
    played: list[int] = []

    class Counting(UpDownPots):
        def _exchange(self, seat, frame):  # type: ignore[no-untyped-def]
            played.append(frame.pulses if frame.up else -frame.pulses)
            return super()._exchange(seat, frame)

    top = chip(name).positions - 1
    end = top if home == "high" else 0
    with Counting("pots", bus, placed) as bank:
        assert bus.codes.tolist() == [end]
        bank.write(np.array([30]))
        bank.write(np.array([30]))
        bank.write(np.array([47]))
    assert played == [top if home == "high" else -top, 30 - end, 17]
    assert bus.stores == 0


@pytest.mark.parametrize("name", ["AD5220", "X9C104"])
@pytest.mark.parametrize("broken_after", range(14))
def test_a_chip_whose_code_was_lost_is_homed_again(name: str, broken_after: int) -> None:
    placed = [PlacedChip(name, 4), PlacedChip(name, 5)]
    bank, bus = setup("updown", placed, tries=1)
    assert isinstance(bus, EmulatedUpDownBus)
    with bank:
        bank.write(np.array([50, 60]))
        bus.levels_left = broken_after
        with pytest.raises(BoardError, match=rf"pot 0 \({name} on line 4, channel 0\) could not be moved to code 40"):
            bank.write(np.array([40, 60]))
        bank.write(np.array([41, 61]))
    assert bus.codes.tolist() == [41, 61]
    assert bus.stores == 0


def test_a_lost_code_is_recovered_within_the_tries() -> None:
    bank, bus = setup("updown", [PlacedChip("X9C103", 4)])
    assert isinstance(bus, EmulatedUpDownBus)
    with bank:
        bus.levels_left = 9
        bank.write(np.array([20]))
        assert bank.retries == 1
    assert bus.codes.tolist() == [20]
    assert bus.stores == 0


def test_homing_at_any_time_corrects_what_nobody_can_read() -> None:
    bank, bus = setup("updown", [PlacedChip("AD5220", 4)])
    assert isinstance(bank, UpDownPots)
    with bank:
        bank.write(np.array([100]))
        bus.chips[0].power_on()
        bank.home()
        bank.write(np.array([100]))
    assert bus.codes.tolist() == [100]


# The ways out.


@pytest.mark.parametrize(
    ("kind", "placed"),
    [
        ("spi", PlacedChip("AD5206", 0)),
        ("i2c", PlacedChip("AD5254", 0x2C)),
        ("updown", PlacedChip("AD5220", 3)),
    ],
)
def test_pots_keep_their_codes_or_go_to_safe_ones(kind: str, placed: PlacedChip) -> None:
    count = chip(placed.chip).wipers
    kept, bus = setup(kind, [placed])
    with kept:
        kept.write(np.full(count, 5))
        kept.make_safe()
        kept.make_safe()
    assert bus.codes.tolist() == [5] * count
    assert bus.closed
    safe, bus = setup(kind, [placed], safe_codes=[100] * count)
    with safe:
        safe.write(np.full(count, 5))
    safe.close()
    assert bus.codes.tolist() == [100] * count
    assert bus.closed


def test_making_safe_tries_every_pot_before_it_tells() -> None:
    bank, bus = setup("i2c", [PlacedChip("AD5254", 0x2C), PlacedChip("AD5254", 0x2D)], safe_codes=[200] * 8)
    assert isinstance(bus, EmulatedI2cBus)
    bank.open()
    bank.write(np.full(8, 1))
    gone = bus.by_address.pop(0x2C)
    with pytest.raises(BoardError, match=r"pot 0 .*; .*pot 3 ") as caught:
        bank.close()
    assert "pot 4" not in str(caught.value)
    assert gone.codes == [1] * 4
    assert bus.chips[1].codes == [200] * 4
    assert bus.closed
    bank.close()


def test_safe_codes_are_codes() -> None:
    with pytest.raises(InputError, match="codes 0 to 255, not 256"):
        setup("i2c", [PlacedChip("AD5245", 0x2C)], safe_codes=[256])


def test_a_bank_is_used_while_it_is_open() -> None:
    bank, bus = setup("i2c", [PlacedChip("AD5245", 0x2C)])
    with pytest.raises(BoardError, match="has not been opened yet"):
        bank.write(np.array([1]))
    bank.open()
    bank.open()
    bank.close()
    assert bus.closed
    for use in (bank.read, bank.open):
        with pytest.raises(BoardError, match="has been closed"):
            use()
