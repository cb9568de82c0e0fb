from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hilcl.cli.main import main
from hilcl.drivers.registry import open_source
from hilcl.drivers.smu import SmuSettings
from hilcl.sim_backend.emulated_bench import EmulatedBench
from tests.command_line import listing, running_hilcl, wait_until, write_experiment
from tests.hilcl.bench_elsewhere import anything_on, served


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EmulatedBench]:
    with served(tmp_path / "bench.toml") as bench:
        settings = SmuSettings(limit_volts=2.0, limit_amperes=1e-2)
        for name, driver in (("left", "keithley2600b"), ("right", "keysight-b2900")):
            left = open_source(driver, name, bench.resources[name], settings)
            left.drive(np.array([1.0, 0.5]))
            left.abandon()
        assert anything_on(bench)
        yield bench


def test_a_bench_left_on_is_switched_off_line_by_line(
    bench: EmulatedBench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["safe", "bench.toml"]) == 0
    assert not anything_on(bench)
    assert (bench.codes == 256).all()
    output, errors = capsys.readouterr()
    *instruments, last = output.splitlines()
    assert errors == ""
    assert last == "The bench is safe."
    assert sorted(line.split(" (")[0] for line in instruments) == [
        "board: safe, verified: sources off, switches open, pots at their safe codes",
        "left: off, verified",
        "right: off, verified",
    ]
    assert listing(tmp_path) == {"bench.toml"}
    assert main(["safe", "bench.toml", "--backend", "bench"]) == 0


def test_one_that_cannot_be_verified_is_named_and_the_others_are_off(
    bench: EmulatedBench, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("bench.toml")
    text = path.read_text()
    path.write_text(text.replace('model = "2602B"', 'model = "2602B"\nserial = "123"'))
    assert main(["safe", "bench.toml"]) == 1
    # It is off too, but nobody knows what the file's instrument does.
    assert not anything_on(bench)
    output, errors = capsys.readouterr()
    assert "left: NOT SAFE: " in output
    assert "123 is expected" in output
    assert "right: off, verified" in output
    assert errors.startswith("hilcl: left could not be verified to be safe")


def test_it_works_without_data_and_beside_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path / "bench.toml") as bench:
        with running_hilcl("run", "bench.toml", "--backend", "bench", "--no-report", cwd=tmp_path) as process:
            wait_until(lambda: anything_on(bench), process)
            # The run holds the pot board's port, which takes one program only; the run then stops by itself.
            assert main(["safe", "bench.toml"]) == 1
            _, told = process.communicate()
        assert process.returncode == 1
        assert told.startswith("hilcl: ")
        assert not anything_on(bench)
    output, errors = capsys.readouterr()
    assert "left: off, verified" in output
    assert "board: NOT SAFE: " in output
    assert f"'hilcl run bench.toml --backend bench --no-report' (process {process.pid})" in errors


def test_a_bench_in_use_is_refused(bench: EmulatedBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_hilcl("run", "bench.toml", "--backend", "bench", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: Path("hilcl.sqlite").exists(), process)
        for command in (["run", "bench.toml", "--no-report", "--store", "x.sqlite"], ["check", "bench.toml"]):
            assert main([*command, "--backend", "bench"]) == 1
            error = capsys.readouterr().err
            assert f"is in use by 'hilcl run bench.toml --backend bench --no-report' (process {process.pid}," in error
        assert not Path("x.sqlite").exists()
        assert process.poll() is None


def test_a_file_without_a_bench_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_experiment(tmp_path / "x.toml")
    assert main(["safe", "x.toml"]) == 2
    assert "has no [bench] section" in capsys.readouterr().err
