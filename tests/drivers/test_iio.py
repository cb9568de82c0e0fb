"""Pots with kernel drivers, in a tree of files like sysfs, with the kernel's answers."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from hilcl.devices import RheostatBank
from hilcl.drivers.iio import IioChip, IioPots, SysfsAttributes, open_iio
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.pot_chips import IioDevice, IioTree

MCP4631 = IioDevice("mcp4631-103", "1-002e", 129, channels=2, available=True)
AD5272 = IioDevice("ad5272-020", "1-002f", 1024, indexed=False)
MCP41010 = IioDevice("mcp41010", "spi0.0", 256)
MAX5487 = IioDevice("MAX5487", "spi0.1", 256, channels=2, readable=False)


@pytest.fixture
def tree(tmp_path: Path) -> IioTree:
    return IioTree(tmp_path, [MCP4631, AD5272, MCP41010, MAX5487])


def bank(tree: IioTree, *devices: IioChip, safe_codes: list[int] | None = None) -> IioPots:
    return IioPots("pots", devices, root=tree.root, safe_codes=safe_codes, attributes=tree.attributes)


def test_every_pot_is_written_and_read_back(tree: IioTree) -> None:
    pots = bank(tree, *(IioChip(device.place) for device in tree.devices))
    assert isinstance(pots, RheostatBank)
    with pots:
        assert pots.code_counts.tolist() == [129, 129, 1024, 256, 256, 256]
        for codes in ([128, 0, 1023, 255, 1, 2], [0, 128, 5, 0, 255, 0], [7, 77, 777, 77, 7, 70]):
            pots.write(np.array(codes))
            assert tree.codes.tolist() == codes
            # The drivers of the last three keep what was written or say nothing: neither is what the chip holds.
            assert pots.read().tolist() == [*codes[:3], -1, -1, -1]
    assert pots.readable.tolist() == [True, True, True, False, False, False]
    assert pots.identity == (
        f"{tree.root}: MCP4631 iio:device0, AD5272 iio:device1, MCP41010 iio:device2, MAX5487 iio:device3"
    )


def test_the_files_themselves_are_written_once_each(tree: IioTree, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def record(file: int, data: bytes) -> int:
        written.append(data)
        return write(file, data)

    monkeypatch.setattr(os, "write", record)
    with open_iio("pots", [IioChip("1-002e"), IioChip("1-002f")], root=tree.root) as pots:
        pots.write(np.array([100, 9, 1000]))
        pots.write(np.array([8, 99, 1]))
        assert pots.read().tolist() == [8, 99, 1]
    assert written == [b"100\n", b"9\n", b"1000\n", b"8\n", b"99\n", b"1\n"]


@pytest.mark.parametrize("device", ["iio:device0", "1-002e", "mcp4631-103", "left pots"])
def test_a_device_is_found_by_entry_place_name_or_label(tmp_path: Path, device: str) -> None:
    tree = IioTree(tmp_path, [IioDevice("mcp4631-103", "1-002e", 129, channels=2, label="left pots"), AD5272])
    assert [path.parent.name for path in bank(tree, IioChip(device)).files] == ["iio:device0"] * 2


def test_a_device_is_found_by_path(tree: IioTree) -> None:
    pots = bank(tree, IioChip(str(tree.root / "iio:device1"), chip="AD5272"))
    assert [path.name for path in pots.files] == ["out_resistance_raw"]


def test_channels_choose_and_order_the_pots(tree: IioTree) -> None:
    with bank(tree, IioChip("1-002e", channels=(1, 0)), IioChip("spi0.1", channels=(1,))) as pots:
        pots.write(np.array([11, 22, 33]))
    assert tree.codes.tolist() == [22, 11, 512, 128, 128, 33]


@pytest.mark.parametrize(
    ("chip", "problem"),
    [
        (IioChip("1-0030"), r'no IIO device "1-0030" in .*iio:device1 \(ad5272-020\)'),
        (IioChip(""), "without a name"),
        (IioChip("/nowhere/iio:device0"), "no device folder /nowhere/iio:device0"),
        (IioChip("1-002e", chip="MCP4641"), r'1-002e is "mcp4631-103", not MCP4641'),
        (IioChip("1-002e", chip="AD5272"), "not AD5272"),
        (IioChip("1-002e", channels=(2,)), "has no channel 2, only 0, 1"),
        (IioChip("1-002e", channels=(0, 0)), "twice"),
    ],
)
def test_what_cannot_be_is_refused(tree: IioTree, chip: IioChip, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        bank(tree, chip)


@pytest.mark.parametrize(
    ("device", "chip", "problem"),
    [
        (IioDevice("tpl0102-104", "1-0050", 256, channels=2, available=True), None, "stores every write in its EEPROM"),
        (IioDevice("ds3502", "1-0028", 128), None, "EEPROM"),
        (IioDevice("ad5555", "1-0028", 128), None, "neither its driver nor the catalogue"),
        (IioDevice("ad5245-10", "1-002c", 128, available=True), None, "offers 128 codes, but AD5245 has 256"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(
    tmp_path: Path, device: IioDevice, chip: str | None, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        bank(IioTree(tmp_path, [device]), IioChip(device.place, chip=chip))


def test_a_device_nobody_knows_is_used_with_the_codes_its_driver_tells(tmp_path: Path) -> None:
    tree = IioTree(tmp_path, [IioDevice("ad5555", "1-0028", 33, available=True)])
    with bank(tree, IioChip("ad5555")) as pots:
        pots.write(np.array([32]))
        assert pots.read().tolist() == [32]


@pytest.mark.parametrize(("name", "chip"), [("x9250t", "X9250T"), ("tpl0401-103", "TPL0401A"), ("AD5110-10", "AD5110")])
def test_the_names_drivers_give(tmp_path: Path, name: str, chip: str) -> None:
    tree = IioTree(tmp_path, [IioDevice(name, "1-002f", 128 if name != "x9250t" else 256)])
    assert bank(tree, IioChip(name)).pots[0].chip == chip


def test_codes_the_driver_offers_otherwise_are_refused(tree: IioTree) -> None:
    (tree.root / "iio:device0" / "out_resistance0_raw_available").write_text("[0 2 128]\n")
    with pytest.raises(InputError, match=r"offers the codes \[0 2 128\]"):
        bank(tree, IioChip("1-002e"))


def test_the_codes_all_channels_share(tree: IioTree) -> None:
    home = tree.root / "iio:device0"
    for channel in (0, 1):
        (home / f"out_resistance{channel}_raw_available").unlink()
    (home / "out_resistance_raw_available").write_text("[0 1 255]\n")
    with pytest.raises(InputError, match="offers 256 codes, but MCP4631 has 129"):
        bank(tree, IioChip("1-002e"))


def test_devices_of_one_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    tree = IioTree(tmp_path, [MCP4631, IioDevice("mcp4631-103", "1-002d", 129, channels=2)])
    with pytest.raises(InputError, match=r"several devices .*iio:device0 \(1-002e\), iio:device1 \(1-002d\)"):
        bank(tree, IioChip("mcp4631-103"))


def test_no_tree_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no IIO devices in .*load the kernel driver"):
        IioPots("pots", [IioChip("1-002e")], root=tmp_path / "sys")
    with pytest.raises(InputError, match="lists no pots"):
        IioPots("pots", [], root=tmp_path)


def test_a_device_without_wipers(tree: IioTree) -> None:
    (tree.root / "iio:device1" / "out_resistance_raw").unlink()
    with pytest.raises(InputError, match="it is no potentiometer"):
        bank(tree, IioChip("1-002f"))


@pytest.mark.parametrize("codes", [[0, 129, 0], [-1, 0, 0], [0, 0, 1024]])
def test_no_code_a_chip_has_not_is_written(tree: IioTree, codes: list[int]) -> None:
    with bank(tree, IioChip("1-002e"), IioChip("1-002f")) as pots:
        with pytest.raises(InputError, match="has the codes 0 to"):
            pots.write(np.array(codes))
        assert tree.codes.tolist()[:3] == [64, 64, 512]


def test_a_device_that_vanishes_is_one_sentence(tree: IioTree) -> None:
    pots = bank(tree, IioChip("1-002e"), IioChip("1-002f")).open()
    tree.gone.add("1-002f")
    with pytest.raises(BoardError) as caught:
        pots.write(np.array([1, 2, 3]))
    assert str(caught.value) == (
        f"pots: pot 2 (AD5272 iio:device1, channel 0) did not take code 3 through {pots.files[2]} "
        "(No such device): the device has gone or does not answer: check its supply and wiring, then load its driver "
        "again"
    )
    with pytest.raises(BoardError, match=r"pot 2 .*could not be read"):
        pots.read()
    tree.gone.clear()
    pots.write(np.array([1, 2, 3]))
    pots.close()


def test_a_file_that_has_gone_is_not_made_anew(tree: IioTree) -> None:
    with open_iio("pots", [IioChip("1-002f")], root=tree.root) as pots:
        pots.files[0].unlink()
        with pytest.raises(BoardError, match=r"No such file or directory\): the device has gone"):
            pots.write(np.array([3]))
        assert not pots.files[0].exists()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "does not answer"),
        (errno.ENOENT, "has gone"),
        (errno.EACCES, "give this user the right"),
        (errno.EINVAL, "kernel log"),
    ],
)
def test_what_the_kernel_says_leads_to_a_remedy(
    tree: IioTree, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def fail(self: SysfsAttributes, path: Path, text: str) -> None:
        raise OSError(number, os.strerror(number))

    with bank(tree, IioChip("1-002f")) as pots:
        monkeypatch.setattr(type(tree.attributes), "write", fail)
        with pytest.raises(BoardError, match=rf"did not take code 3.*{os.strerror(number)}.*{remedy}"):
            pots.write(np.array([3]))


def test_a_driver_that_moves_another_wiper_is_found_out(tmp_path: Path) -> None:
    tree = IioTree(tmp_path, [IioDevice("mcp4251-103", "spi0.0", 257, channels=2, first_only=True)])
    with (
        bank(tree, IioChip("spi0.0")) as pots,
        pytest.raises(BoardError, match=r"pot 0 \(MCP4251 .*holds code 20 after 10 was written"),
    ):
        pots.write(np.array([10, 20]))


def test_an_answer_that_is_no_number(tree: IioTree) -> None:
    with bank(tree, IioChip("1-002f")) as pots:
        pots.files[0].write_text("<not counted>\n")
        with pytest.raises(BoardError, match=r"reads '<not counted>' .*which is no code"):
            pots.read()


def test_pots_keep_their_codes_or_go_to_safe_ones(tree: IioTree) -> None:
    with bank(tree, IioChip("1-002e")) as pots:
        pots.write(np.array([1, 2]))
    assert tree.codes.tolist()[:2] == [1, 2]
    with bank(tree, IioChip("1-002e"), safe_codes=[128, 127]) as pots:
        pots.write(np.array([3, 4]))
    assert tree.codes.tolist()[:2] == [128, 127]
