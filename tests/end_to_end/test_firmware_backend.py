"""``--backend emulated`` with ``pot_board = "firmware"``: the compiled firmware under the command line."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.command_line import EXAMPLES, hilcl

pytestmark = pytest.mark.skipif(shutil.which("avr-gcc") is None, reason="avr-gcc is not installed")


def codes(store: Path, run: str) -> list[bytes]:
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute(
            "SELECT codes FROM steps WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch", (run,)
        )
        return [row[0] for row in rows]


def test_the_firmware_takes_the_simulators_codes(tmp_path: Path) -> None:
    """Pots off by up to 20 %, the AVR's own 10-bit ADC at every node, two SMUs beside it: 60 epochs, code for code."""
    text = (EXAMPLES / "bench16.toml").read_text(encoding="utf-8")
    text = re.sub(r"^meters = \{ bits.*$", 'meters = { bits = 10, range = "5 V" }', text, flags=re.MULTILINE)
    file = tmp_path / "bench16.toml"
    text = text.replace("baud = 1000000\n", "baud = 115200\nfast_baud = 1000000\n")
    file.write_text(text.replace("seed = 4\n", 'seed = 4\npot_board = "firmware"\n'), encoding="utf-8")
    for backend in ("sim", "emulated"):
        done = hilcl("run", file, "--backend", backend, "--name", backend, "--store", "s.sqlite", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    expected = codes(tmp_path / "s.sqlite", "sim")
    assert len(set(expected)) > 10
    assert codes(tmp_path / "s.sqlite", "emulated") == expected


def test_firmware_without_a_chip_is_one_sentence(tmp_path: Path) -> None:
    text = (EXAMPLES / "bench16.toml").read_text(encoding="utf-8").replace('chip = "MCP4251"\n', "")
    file = tmp_path / "bench16.toml"
    file.write_text(text.replace("seed = 4\n", 'seed = 4\npot_board = "firmware"\n'), encoding="utf-8")
    done = hilcl("run", file, "--backend", "emulated", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == "hilcl: the firmware in the loop needs board.pots.chip, or a [firmware] table"
    assert not list(tmp_path.glob("*.sqlite"))
