"""The emulated chips against frames from data sheets, and what they make of frames that wear them."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilcl.drivers.bus_pots import PlacedChip
from hilcl.drivers.chips import Lines, chip, waveform
from hilcl.drivers.chips.frames import UpDownFrame
from hilcl.errors import InputError
from hilcl.sim_backend.emulation.pot_chips import (
    EmulatedI2cBus,
    EmulatedSpiBus,
    EmulatedUpDownBus,
    IioDevice,
    IioTree,
    PotChip,
)

GOLDEN = Path(__file__).parents[2] / "drivers" / "chips" / "golden.json"
ROWS: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def send(emulated: PotChip, frames: list[str]) -> bytes:
    """Give an emulated chip frames as the golden file writes them, and return the last reply."""
    reply = b""
    for text in frames:
        kind, *rest = text.split()
        if kind.startswith("spi"):
            reply = emulated.window(bytes.fromhex(rest[0]))
        elif kind == "i2c":
            written = bytes.fromhex("".join(part[1:] for part in rest[1:] if part[0] == "w"))
            count = sum(int(part[1:]) for part in rest[1:] if part[0] == "r")
            if written:
                emulated.take(written)
            reply = emulated.give(count) if count else b""
        else:
            for _ in range(int(rest[0])):
                emulated.step(kind == "up")
    return reply


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(name, row, entry, id=f"{name}-{entry}")
        for row in ROWS
        for name in row["chips"]
        for entry in row.get(kind, [])
    ]


def emulated(name: str, row: dict[str, Any]) -> PotChip:
    one = PotChip(chip(name), int(row.get("address", "0"), 16))
    send(one, row.get("unlock", []))
    return one


@pytest.mark.parametrize(("name", "row", "entry"), cases("writes"))
def test_a_chip_takes_the_frames_of_its_data_sheet(name: str, row: dict[str, Any], entry: list[Any]) -> None:
    channel, code, frames = entry
    one = emulated(name, row)
    one.codes = [3] * one.kind.wipers
    send(one, frames)
    assert one.codes == [code if wiper == channel else 3 for wiper in range(one.kind.wipers)]
    assert one.stores == 0


@pytest.mark.parametrize(("name", "row", "entry"), cases("reads"))
def test_a_chip_gives_the_answers_of_its_data_sheet(name: str, row: dict[str, Any], entry: list[Any]) -> None:
    channel, frames, answer, code = entry
    one = emulated(name, row)
    wanted = bytes.fromhex(answer)
    if one.kind.name == "DS1803":
        one.codes = list(wanted)
    one.codes[channel] = code
    reply = send(one, frames)
    if one.kind.layout.name == "command10":
        # The upper bits of the answer do not matter.
        assert (reply[0] & 0x03, reply[1]) == (wanted[0] & 0x03, wanted[1])
    else:
        assert reply == wanted


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("AD5254", "i2c 2C w2180"),
        ("AD5292", "spi16 0C00"),
        ("AD5292", "spi16 1803"),
        ("AD5272", "i2c 2F w0C00"),
        ("AD5272", "i2c 2F w1C03"),
        ("AD5110", "i2c 2F w0100"),
        ("AD5144A", "i2c 2F w7001"),
        ("AD5144A", "i2c 2F w8055"),
        ("MCP4261", "spi16 2055"),
        ("MCP4661", "i2c 28 w2055"),
        ("X9250T", "spi24 50C055"),
        ("X9250T", "spi24 50E000"),
        ("MAX5432", "i2c 28 w2108"),
        ("MAX5483", "spi24 100000"),
        ("MAX5487", "spi16 2100"),
    ],
)
def test_frames_that_wear_a_chip_are_counted(name: str, frame: str) -> None:
    one = PotChip(chip(name), 0x50)
    send(one, [frame])
    assert one.stores == 1


@pytest.mark.parametrize(
    ("name", "locked"), [("ISL22316", "0240"), ("DS3502", "0200"), ("TPL0102", "1040"), ("CAT5140", "0800")]
)
def test_writes_without_the_volatile_bit_wear_a_chip(name: str, locked: str) -> None:
    kind = chip(name)
    one = PotChip(kind)
    one.take(b"\x00\x05")
    assert (one.codes[0], one.stores) == (5, 1)
    one.take(kind.unlock[0])
    one.take(b"\x00\x06")
    assert (one.codes[0], one.stores) == (6, 1)
    one.take(bytes.fromhex(locked))
    one.take(b"\x00\x07")
    assert one.stores >= 2
    one.power_on()
    before = one.stores
    one.take(b"\x00\x08")
    assert one.stores == before + 1


@pytest.mark.parametrize("name", ["AD5270", "AD5292", "AD5293"])
def test_a_locked_chip_does_not_move(name: str) -> None:
    one = PotChip(chip(name))
    before = list(one.codes)
    one.window(bytes.fromhex("0400"))
    assert one.codes == before
    one.window(one.kind.unlock[0])
    one.window(bytes.fromhex("0400"))
    assert one.codes == [0]


def test_an_input_register_waits_for_its_command() -> None:
    one = PotChip(chip("AD5144A"))
    send(one, ["i2c 2F w2011", "i2c 2F w2122", "i2c 2F w2233", "i2c 2F w2344"])
    assert one.codes == [128] * 4
    send(one, ["i2c 2F w6200"])
    assert one.codes == [128, 128, 0x33, 128]
    send(one, ["i2c 2F w6800"])
    assert one.codes == [0x11, 0x22, 0x33, 0x44]


def test_a_microchip_chip_steps_by_commands_and_refuses_what_it_does_not_know() -> None:
    one = PotChip(chip("MCP4151"))
    assert one.codes == [128]
    for frame, code in [("0400", 129), ("0800", 128), ("01FF", 256), ("0400", 256)]:
        assert send(one, [f"spi16 {frame}"]) == bytes.fromhex("FFFF")
        assert one.codes == [code]
    assert send(one, ["spi16 1C00"]) == bytes.fromhex("FC00")


def test_deaf_chips_do_nothing() -> None:
    one = PotChip(chip("AD5245"))
    one.deaf = True
    one.take(b"\x00\x05")
    assert one.codes == [128]


def test_chips_on_one_chip_select_hear_their_own_words_only() -> None:
    placed = [PlacedChip("X9250T", 0, (1,), identifier=0x50), PlacedChip("X9250T", 0, (1,), identifier=0x52)]
    bus = EmulatedSpiBus(placed)
    bus.exchange(0, bytes.fromhex("52A107"))
    assert bus.codes.tolist() == [128, 7]
    assert bus.exchange(0, bytes.fromhex("529100")) == b"\x00\x00\x07"
    assert bus.exchange(1, bytes.fromhex("529100")) == b"\xff\xff\xff"


def test_codes_are_told_once_and_when_they_change() -> None:
    told: list[list[int]] = []
    bus = EmulatedI2cBus([PlacedChip("AD5245", 0x2C)], lambda codes: told.append(codes.tolist()))
    bus.exchange(0x2C, b"\x00\x05")
    bus.exchange(0x2C, b"\x00\x05")
    bus.exchange(0x2C, b"\x00", 1)
    bus.exchange(0x2C, b"\x00\x06")
    assert told == [[128], [5], [6]]


def test_failures_and_closed_buses() -> None:
    bus = EmulatedI2cBus([PlacedChip("AD5245", 0x2C)])
    with pytest.raises(OSError, match="Remote I/O error"):
        bus.exchange(0x2D, b"\x00\x05")
    bus.failures = 1
    with pytest.raises(OSError, match="Input/output error"):
        bus.exchange(0x2C, b"\x00\x05")
    bus.exchange(0x2C, b"\x00\x05")
    bus.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        bus.exchange(0x2C, b"\x00\x05")
    with pytest.raises(InputError, match="not all the channels 1"):
        EmulatedI2cBus([PlacedChip("AD5245", 0x2C, (1,))])


def test_counting_stops_at_the_ends() -> None:
    bus = EmulatedUpDownBus([PlacedChip("X9C103", 4), PlacedChip("AD5220", 5)])
    bus.play(4, waveform(UpDownFrame(up=True, pulses=60)))
    bus.play(5, waveform(UpDownFrame(up=False, pulses=100)))
    assert bus.codes.tolist() == [99, 0]


def test_deselecting_with_the_clock_high_stores_in_a_chip_with_a_memory() -> None:
    bus = EmulatedUpDownBus([PlacedChip("X9C103", 4), PlacedChip("AD5220", 5)])
    levels = [Lines(False, True, True), Lines(True, True, True)]
    bus.play(5, levels)
    assert bus.stores == 0
    bus.play(4, levels)
    assert bus.stores == 1
    assert bus.codes.tolist() == [50, 64]


def test_lines_break_off_where_they_are_told_to() -> None:
    bus = EmulatedUpDownBus([PlacedChip("AD5220", 5)])
    bus.levels_left = 3
    with pytest.raises(OSError, match="Input/output error"):
        bus.play(5, waveform(UpDownFrame(up=True, pulses=9)))
    assert bus.codes.tolist() == [65]


def test_a_tree_has_the_files_sysfs_has(tmp_path: Path) -> None:
    told: list[list[int]] = []
    devices = [
        IioDevice("mcp4631-103", "1-002e", 129, channels=2, available=True, label="left"),
        IioDevice("ad5272-020", "1-002f", 1024, indexed=False),
    ]
    tree = IioTree(tmp_path, devices, lambda codes: told.append(codes.tolist()))
    first, second = sorted(tree.root.iterdir())
    assert [first.name, second.name] == ["iio:device0", "iio:device1"]
    assert [first.resolve().parent.name, second.resolve().parent.name] == ["1-002e", "1-002f"]
    assert sorted(path.name for path in first.iterdir()) == [
        "label",
        "name",
        "out_resistance0_raw",
        "out_resistance0_raw_available",
        "out_resistance1_raw",
        "out_resistance1_raw_available",
        "out_resistance_scale",
    ]
    assert (first / "out_resistance1_raw_available").read_text() == "[0 1 128]\n"
    assert (second / "out_resistance_raw").read_text() == "512\n"
    assert not (second / "out_resistance_raw_available").exists()
    tree.attributes.write(first / "out_resistance1_raw", "7")
    assert told == [[64, 64, 512], [64, 7, 512]]
    assert np.array_equal(tree.codes, [64, 7, 512])


def test_a_tree_answers_as_the_kernel_does(tmp_path: Path) -> None:
    devices = [IioDevice("max5487", "spi0.0", 256, channels=2, readable=False)]
    tree = IioTree(tmp_path, devices)
    file = tree.root / "iio:device0" / "out_resistance0_raw"
    for text in ("256", "-1"):
        with pytest.raises(OSError, match="Invalid argument"):
            tree.attributes.write(file, text)
    with pytest.raises(OSError, match="Invalid argument"):
        tree.attributes.read(file)
    with pytest.raises(PermissionError):
        tree.attributes.write(file.with_name("name"), "1")
    tree.gone.add("spi0.0")
    with pytest.raises(OSError, match="No such device") as caught:
        tree.attributes.write(file, "1")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(InputError, match="needs channels"):
        IioTree(tmp_path / "other", [IioDevice("x", "1-0000", 4, channels=2, indexed=False)])
