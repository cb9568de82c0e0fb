"""The wiring of a file: what it becomes, and one clear sentence for what cannot be."""

from pathlib import Path

import pytest

from hilcl.drivers.firmware.header import render
from hilcl.drivers.firmware.wiring import automatic_wiring, load_wiring, read_wiring
from hilcl.errors import InputError
from tests.drivers.firmware.bench import MIXED, NANO, wiring


def test_pots_are_numbered_chip_after_chip() -> None:
    board = wiring(MIXED)
    assert [(group.chip.name, group.first, group.count) for group in board.groups] == [
        ("AD5206", 0, 6),
        ("AD5272", 6, 1),
        ("AD5220", 7, 2),
        ("AD5144", 9, 4),
        ("X9C103", 13, 1),
        ("DS1803", 14, 2),
        ("ISL22316", 16, 1),
        ("MCP4551", 17, 1),
    ]
    assert board.identity == "hilcl,pot board mega,7,1.0"


def test_chips_that_recall_their_code_start_at_the_safe_one() -> None:
    board = wiring(MIXED)
    assert {group.chip.name: group.power_on for group in board.groups}["ISL22316"] == 127
    assert {group.chip.name: group.power_on for group in board.groups}["AD5206"] == 128


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pots": []}, "a pot board needs pots"),
        ({"pots": [{"chip": "AD5207", "select": ["D2"]}]}, 'no digital potentiometer "AD5207".*did you mean AD5206'),
        (
            {"pots": [{"chip": "AD5206", "select": ["D99"]}]},
            r"firmware.pots\[0\].select: Arduino Nano has no digital pin",
        ),
        ({"pots": [{"chip": "AD5206", "select": ["D2", "D2"]}]}, "pin D2 is already used for firmware.pots"),
        ({"pots": [{"chip": "AD5206", "select": ["D1"]}]}, "pin D1 is already used for the serial port"),
        ({"pots": [{"chip": "AD5206", "select": ["D11"]}]}, "pin D11 is already used"),
        ({"pots": [{"chip": "AD5206", "select": ["A6"]}]}, "no digital pin A6"),
        ({"pots": [{"chip": "AD5206", "address": [44]}]}, "AD5206 is on spi, not on i2c"),
        ({"pots": [{"chip": "AD5206"}]}, "give select .* or address"),
        ({"pots": [{"chip": "AD5220", "select": ["D2"]}]}, "AD5220 counts"),
        ({"pots": [{"chip": "AD5206", "select": ["D2"], "safe": 256}]}, "AD5206 has codes 0 to 255, not 256"),
        ({"pots": [{"chip": "AD5272", "address": [0x50]}]}, "AD5272 cannot be at 0x50"),
        ({"pots": [{"chip": "AD5272", "address": ["gnd,gnd"]}]}, "address pins ADDR|address pins"),
        ({"pots": [{"chip": "AD5272", "address": ["gnd", "gnd"]}]}, "0x2F is already that of a AD5272"),
        ({"pots": [{"chip": "AD5206", "select": ["D2"], "clocks": 1}]}, r"firmware.pots.0.clocks: extra inputs"),
        ({"board": "due"}, "firmware.board"),
        ({"adc": {"channels": ["A9"]}}, "no analog pin A9"),
        ({"switches": ["D2"]}, "pin D2 is already used"),
        ({"sources": [{"select": "D6", "switches": [0]}]}, "give a switch or -1 for each"),
        ({"sources": [{"select": "D6", "switches": [0, 5]}]}, "there is no switch 5"),
        ({"sources": [{"select": "D6", "switches": [1, 1]}]}, "switch 1 belongs to two sources"),
        (
            {"pots": [{"chip": "AD5206", "select": [f"A{i}" for i in range(6)] + [f"D{i}" for i in range(2, 11)] * 2}]},
            "D2",
        ),
        ({"maker": 'a"\n'}, "firmware.maker"),
    ],
)
def test_what_cannot_be_is_one_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        wiring(NANO, **change)
    assert "\n" not in str(raised.value)


def test_too_many_pots_for_the_memory() -> None:
    pins = [f"D{index}" for index in range(2, 10)] + [f"A{index}" for index in range(4)]
    pots = [{"chip": "AD5206", "select": pins}, {"chip": "DS1803", "address": list(range(0x28, 0x30))}]
    more = [{"chip": "AD5206", "select": ["D10"]}, {"chip": "AD5254", "address": [0x2C]}]
    assert wiring({"board": "uno", "pots": pots}).pots == 88
    with pytest.raises(InputError, match="0x2C is already that of a DS1803"):
        wiring({"board": "uno", "pots": [*pots, *more]})
    with pytest.raises(InputError, match=r"memory for 96 pots, not for 9[78]"):
        wiring({"board": "uno", "pots": [*pots, more[0], {"chip": "AD5144A", "address": [0x20]}]})


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text('[firmware]\nboard = "uno"\n[[firmware.pots]]\nchip = "AD5206"\nselect = ["D9"]\n')
    assert load_wiring(file, "1.0").pots == 6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("[firmware", "is not TOML"), ("[board]\n", r"has no table \[firmware\]"), (None, "cannot be read")],
)
def test_a_file_without_a_wiring(tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "bench.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=sentence):
        load_wiring(file, "1.0")


def test_the_header_names_pins_and_registers() -> None:
    text = render(wiring(NANO))
    assert "{PIN(D, 2), 0, {0x00, 0x00}, 0, {0x0F, 0xFF}, 0}" in text
    assert "{PIN(D, 2), 0, {0x70, 0x00}, 0, {0x7F, 0xFF}, 0}" in text
    assert '#define IDENTITY "hilcl,pot board nano,0,1.0"' in text
    assert "static const struct pin switch_pins[] PROGMEM" in text


@pytest.mark.parametrize("name", ["AD5206", "MCP4351", "AD5220", "AD5254", "AD5144"])
def test_a_wiring_for_an_emulated_board(name: str) -> None:
    board = read_wiring(automatic_wiring(name, 12, adcs=16, sources=3, switches=4, serial="9"), "1.0")
    assert board.pots == 12
    assert len(board.switches) == 4
    assert [source.switch for source in board.sources] == [0, 1, 2]
    assert board.identity == "hilcl,pot board mega,9,1.0"


@pytest.mark.parametrize(
    ("name", "pots", "sentence"),
    [
        ("MCP4351", 30, "no whole number of MCP4351"),
        ("AD5254", 40, "has 4 addresses"),
        ("AD5220", 60, "not pins enough"),
    ],
)
def test_a_wiring_that_is_too_large(name: str, pots: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        automatic_wiring(name, pots)
