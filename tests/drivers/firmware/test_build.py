"""The firmware compiles without a warning, fits, and is clean to a static analysis."""

import shutil
import subprocess
from pathlib import Path

import pytest

from hilcl.drivers.firmware.build import SOURCES, build, copy_sources
from hilcl.drivers.firmware.header import render
from hilcl.errors import InputError
from tests.drivers.firmware.bench import MIXED, NANO, wiring
from tests.drivers.firmware.bench import built as built_once

ONLY_POTS: dict[str, object] = {"board": "uno", "pots": [{"chip": "AD5206", "select": ["D10"]}]}
ONLY_I2C: dict[str, object] = {"board": "uno", "pots": [{"chip": "AD5254", "address": ["gnd,vdd"]}]}
ONLY_COUNTERS: dict[str, object] = {
    "board": "nano",
    "pots": [{"chip": "X9C104", "select": ["D2"], "up_down": "D3", "clock": "D4"}],
}


@pytest.mark.parametrize("table", [NANO, MIXED, ONLY_POTS, ONLY_I2C, ONLY_COUNTERS])
def test_compiles_without_a_warning_and_fits(table: dict[str, object]) -> None:
    built = built_once(wiring(table))
    assert built.hex.read_text().endswith(":00000001FF\n")
    assert 8000 < built.flash < 0.85 * built.flash_size
    assert built.ram < 2048 - 256
    assert f"flash {built.flash} of" in str(built)


@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="cppcheck is not installed")
@pytest.mark.parametrize("table", [NANO, MIXED])
def test_static_analysis_finds_nothing(table: dict[str, object], tmp_path: Path) -> None:
    copy_sources(tmp_path)
    (tmp_path / "wiring.h").write_text(render(wiring(table)))
    done = subprocess.run(
        [
            "cppcheck",
            "--enable=warning,style,performance,portability",
            "--error-exitcode=1",
            "--inline-suppr",
            "--quiet",
            "--std=c11",
            "--platform=avr8",
            "-D__AVR__",
            "-D__AVR_ATmega328P__",
            "-DF_CPU=16000000UL",
            "--suppress=missingIncludeSystem",
            "--suppress=unusedStructMember",
            *SOURCES,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="avr-gcc is not installed: install it with"):
        build(wiring(NANO), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_into_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the firmware cannot be written to"):
        build(wiring(NANO), tmp_path / "file" / "folder")
