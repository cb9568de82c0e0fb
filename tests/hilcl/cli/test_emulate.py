"""``hilcl emulate``: what it prints is where any client finds the instruments."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hilcl.cli.main import main
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, clients
from tests.command_line import listing, running_hilcl


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def written(folder: Path, text: str = DIVIDER_BENCH) -> Path:
    path = folder / "bench.toml"
    path.write_text(text, "utf-8")
    return path


@contextmanager
def emulating(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str], list[str]]]:
    """Start the command and wait for its last line; yields the process, resources by name, and the lines."""
    with running_hilcl("emulate", path, *options, cwd=path.parent) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while line := process.stdout.readline().rstrip("\n"):
            lines.append(line)
            if line == "Serving until Ctrl-C.":
                break
        yield process, {line.split()[0]: line.split()[1] for line in lines[:-1]}, lines


def ended(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    path = written(tmp_path)
    with emulating(path) as (process, resources, lines):
        assert list(resources) == ["pots", "drive", "clamp"]
        assert lines[0].endswith("hilcl,emulated pot board,0,1.0")
        assert "2602B" in lines[1]
        assert "2450" in lines[2]
        assert lines[-1] == "Serving until Ctrl-C."
        port = int(resources["clamp"].split("::")[2])
        assert Path(resources["pots"]).exists()
        ended(process, number)
    # The port is free again.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert listing(tmp_path) == {"bench.toml"}


def test_any_client_reaches_all_instruments_on_one_circuit(tmp_path: Path) -> None:
    with emulating(written(tmp_path)) as (process, resources, _):
        with (
            clients(resources["drive"], resources["clamp"]) as (drive, clamp),
            PotBoard("pots", resources["pots"], PotBoardOptions(turnaround=5.0)) as pots,
        ):
            assert "2602B" in drive.query("*IDN?")
            assert "2450" in clamp.query("*IDN?")
            # 1 V across two pots, the middle floating: their codes set its potential.
            drive.write("smua.source.func = smua.OUTPUT_DCVOLTS smub.source.func = smub.OUTPUT_DCVOLTS")
            drive.write("smua.source.levelv = 1 smub.source.levelv = 0")
            drive.write("smua.source.output = 1 smub.source.output = 1 print(1)")
            assert float(drive.read()) == 1.0
            clamp.write(":SOUR:FUNC CURR;:SOUR:CURR:VLIM 2;:SENS:FUNC 'VOLT';:OUTP ON")
            ohms = {0: 75.0 + 1200.0, 256: 75.0 + 1200.0 + 100e3}
            for codes in ([256, 0], [0, 256], [256, 256]):
                pots.write(np.array(codes))
                expected = ohms[codes[1]] / (ohms[codes[0]] + ohms[codes[1]])
                assert float(clamp.query(":READ?")) == pytest.approx(expected, abs=1e-5)
                assert pots.meter().read().volts[1] == pytest.approx(expected, abs=1e-5)
        ended(process, signal.SIGINT)


def test_ports_can_be_chosen(tmp_path: Path) -> None:
    port, other = unused_port(), unused_port()
    with emulating(written(tmp_path), "--port", f"clamp={port}", "--port", f"pots={other}") as (process, resources, _):
        assert resources["clamp"] == f"TCPIP::127.0.0.1::{port}::SOCKET"
        assert resources["pots"] == f"socket://127.0.0.1:{other}"
        with clients(resources["clamp"]) as (clamp,):
            assert "2450" in clamp.query("*IDN?")
        ended(process, signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--port", "lamp=5025"],
            "--port lamp=5025: there is no instrument 'lamp' in the file, only drive, clamp, pots",
        ),
        (["--port", "clamp"], "--port clamp: a port is a number from 0 to 65535, as in clamp=5025"),
        (["--port", "clamp=70000"], "--port clamp=70000: a port is a number from 0 to 65535"),
        (["--port", "clamp=-1"], "a port is a number"),
        (["--port", "clamp=usb"], "a port is a number"),
        (["--time-scale", "11"], "Invalid value for '--time-scale'"),
        (["--time-scale", "-1"], "Invalid value for '--time-scale'"),
    ],
)
def test_wrong_options_are_explained(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulate", str(written(tmp_path)), *options]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert said in errors
    assert "Traceback" not in errors


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["emulate", str(written(tmp_path)), "--port", f"clamp={port}"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert str(port) in errors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")], "has no [bench] section: there is nothing to emulate"),
        (DIVIDER_BENCH.replace("MCP4251", "MCP42S1"), "there is no digital potentiometer"),
        (GRID_BENCH.replace('"101" = 1', '"151" = 1'), "a 34970A has no channel 151"),
        (GRID_BENCH + "[simulation]\nmiswired = { sources = [[0, 9]] }\n", "simulation.miswired.sources names 9"),
    ],
)
def test_a_bench_that_cannot_be_emulated_is_refused(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulate", str(written(tmp_path, text))]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert said in errors
