"""Iris trained through the pot board's driver on a pseudo-terminal: 105 samples, two phases each, every epoch."""

from pathlib import Path

import numpy as np
import pytest

from hilcl.cli.main import main
from hilcl.results import RunResult, load_run
from hilcl.store import Store
from tests.command_line import EXAMPLES, copy_example

BENCH = """
[bench]
settle = "0 s"

[bench.instruments.board]
driver = "potboard"
resource = "/dev/ttyACM0"
baud = 1000000

[bench.wiring]
pots = { board = "all" }
sources = { board = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] }
meters = { board = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] }
"""
SMUS = "".join(
    f"""
[bench.instruments.smu{index}]
driver = "{driver}"
resource = "TCPIP::smu{index}::5025::SOCKET"
compliance = "30 mA"
"""
    for index, driver in enumerate(["keithley2600b", "keysight-b2900"] * 3)
)


def trained(folder: Path, file: str, backend: str) -> RunResult:
    store_path = folder / "hilcl.sqlite"
    words = ["run", str(folder / file), "--backend", backend, "--name", backend, "--no-report", "--store", store_path]
    assert main([str(word) for word in words]) == 0
    with Store(store_path, writable=False) as store:
        return load_run(store, backend)


def written(folder: Path, epochs: int, bench: str, *, ideal: bool) -> str:
    """Write Iris with a bench into a folder and return the file's name."""
    copy_example("iris", folder)
    text = (EXAMPLES / "iris.toml").read_text(encoding="utf-8").replace("epochs = 600", f"epochs = {epochs}")
    section = text.index("[simulation]")
    text = (text[:section] if ideal else text) + bench
    (folder / "wired.toml").write_text(text, encoding="utf-8")
    return "wired.toml"


@pytest.mark.timeout(900)
def test_200_epochs_take_the_simulators_codes(tmp_path: Path) -> None:
    file = written(tmp_path, 200, BENCH, ideal=True)
    simulated, wired = (trained(tmp_path, file, backend).history.conductances for backend in ("sim", "emulated"))
    assert simulated.shape == (200, 32)
    assert (simulated[1:] != simulated[:-1]).any(axis=1).sum() > 50
    np.testing.assert_array_equal(wired, simulated)


@pytest.mark.timeout(900)
def test_a_bench_with_imperfections_learns_as_well_as_the_simulator_on_the_same_devices(tmp_path: Path) -> None:
    """Of all 150 flowers, since one of the 45 held out is more than 2 % already."""
    file = written(tmp_path, 100, BENCH, ideal=False)
    right = []
    for backend in ("sim", "emulated"):
        summary = trained(tmp_path, file, backend).summary
        assert summary is not None
        parts = summary["evaluation"]
        right.append((105 * parts["train"]["accuracy"] + 45 * parts["test"]["accuracy"]) / 150)
        assert parts["untrained"]["accuracy"] < 0.5
    assert min(right) > 0.9
    assert abs(right[0] - right[1]) <= 0.02


@pytest.mark.timeout(900)
def test_six_smus_take_the_simulators_codes_too(tmp_path: Path) -> None:
    """Twelve channels on six links, each its own meter."""
    pots_only = BENCH[: BENCH.index("[bench.wiring]")]
    wiring = '[bench.wiring]\npots = { board = "all" }\n[bench.wiring.sources]\n'
    wiring += "".join(f"smu{index} = [{2 * index}, {2 * index + 1}]\n" for index in range(6))
    file = written(tmp_path, 3, pots_only + SMUS + wiring, ideal=True)
    simulated, wired = (trained(tmp_path, file, backend).history.conductances for backend in ("sim", "emulated"))
    assert (simulated[0] != simulated[-1]).any()
    np.testing.assert_array_equal(wired, simulated)
