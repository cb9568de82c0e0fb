"""Pots on buses and behind kernel drivers, named in an experiment file: the simulator's codes, step for step."""

from pathlib import Path

import pytest

from hilcl.errors import InputError
from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.session import open_board
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.training import train

FILE = """
[board]
network = {{ kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }}
[board.pots]
chip = "{chip}"
positions = {positions}
denominator = {denominator}
end_to_end = "{ohms} Ω"
wiper = "50 Ω"
series = "1 kΩ"
[task]
inputs_volts = [[1.0, 0.0]]
targets_volts = [[0.4]]
[learning]
step_size = "{step} S/V²"
epochs = 30
[limits]
volts = "1.5 V"
[bench.instruments.pots]
{bank}
[bench.instruments.drive]
driver = "keithley2600b"
resource = "TCPIP::drive::5025::SOCKET"
compliance = "10 mA"
[bench.instruments.clamp]
driver = "keithley2400"
resource = "TCPIP::clamp::5025::SOCKET"
compliance = "10 mA"
[bench.wiring]
pots = {{ pots = {edges} }}
sources = {{ drive = [0, 2], clamp = [1] }}
"""
BANKS = {
    "spi": (
        'driver = "spi"\nresource = "/dev/spidev0"\nchips = [{ chip = "MCP4251", select = 0 }]',
        ("MCP4251", 257, 256, 10e3),
        "[0, 1]",
    ),
    "spi without an answer": (
        (
            'driver = "spi"\nresource = "/dev/spidev0"\n'
            'chips = [{ chip = "AD5206", select = 1, channels = [4, 0, 2], readback = false }]'
        ),
        ("AD5206", 256, 256, 10e3),
        "[1, -1, 0]",
    ),
    "i2c": (
        (
            'driver = "i2c"\nresource = "/dev/i2c-1"\n'
            'chips = [{ chip = "AD5272", address = 0x2C }, { chip = "AD5272", address = 0x2E }]'
        ),
        ("AD5272", 1024, 1024, 20e3),
        '"all"',
    ),
    "up/down": (
        (
            'driver = "updown"\nresource = "/dev/gpiochip0"\nup = 17\nclock = 27\n'
            'chips = [{ chip = "AD5220", line = 22 }, { chip = "AD5220", line = 23 }]'
        ),
        ("AD5220", 128, 128, 10e3),
        '"all"',
    ),
    "kernel driver": (
        'driver = "iio"\nchips = [{ device = "1-002c" }]',
        ("MCP4651", 257, 256, 10e3),
        '"all"',
    ),
}


def prepared(kind: str, **changes: object) -> Preparation:
    bank, (chip, positions, denominator, ohms), edges = BANKS[kind]
    values = {"bank": bank, "chip": chip, "positions": positions, "denominator": denominator, "ohms": ohms}
    values |= {"edges": edges, "step": 500e-6} | changes
    return prepare(Experiment.parse(FILE.format(**values), Path("pots.toml")))


@pytest.mark.parametrize("kind", BANKS)
def test_every_way_to_a_pot_takes_the_simulators_codes(kind: str) -> None:
    preparation = prepared(kind)
    codes = {}
    for backend in ("sim", "emulated"):
        with open_board(preparation, "sim" if backend == "sim" else "emulated") as board:
            steps = list(train(board, preparation.data.train, preparation.rule, 30))
        codes[backend] = [step.codes.tolist() for step in steps if step.codes is not None]
    assert codes["sim"][0] != codes["sim"][-1]
    assert codes["emulated"] == codes["sim"]


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("spi", {"edges": "[0, 1, -1]"}, "pots has 2 pots, but bench.wiring.pots.pots wires 3"),
        ("up/down", {"chip": "AD5206", "positions": 256, "denominator": 256}, "pot 0 has 128 codes, but"),
    ],
)
def test_a_bank_that_is_not_the_files_is_refused(kind: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_board(prepared(kind, **changes), "emulated")


def test_a_device_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    bank = BANKS["i2c"][0].replace("/dev/i2c-1", str(tmp_path / "i2c-9"))
    with pytest.raises(InputError, match="i2c-9"):
        open_board(prepared("i2c", bank=bank), "bench")


def test_a_tree_of_kernel_devices_that_is_not_there_is_named(tmp_path: Path) -> None:
    bank = BANKS["kernel driver"][0] + f'\nresource = "{tmp_path}"'
    with pytest.raises(InputError, match="1-002c"):
        open_board(prepared("kernel driver", bank=bank), "bench")


def test_the_folder_of_the_emulated_kernel_ends_with_the_bench() -> None:
    bench = EmulatedBench(prepared("kernel driver"))
    root = Path(getattr(bench.devices["pots"], "root"))  # noqa: B009  # other banks have none
    assert root.is_dir()
    bench.close()
    assert not root.exists()
