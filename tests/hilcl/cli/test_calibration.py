"""``hilcl calibration`` and ``hilcl twin``: what they say, and what they refuse."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hilcl.cli.main import main
from tests.bench_files import DIVIDER_BENCH, IMPERFECT, replaced
from tests.command_line import listing

FILE = DIVIDER_BENCH + IMPERFECT + "\n[calibration]\npatterns = 4\nverification = 1\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with calibrations of two boards: may.json, and june.json of other pots."""
    folder = tmp_path_factory.mktemp("calibrations")
    for name, changes in (("may", []), ("june", [("seed = 11", "seed = 12")])):
        path = folder / f"{name}.toml"
        path.write_text(replaced(FILE, *changes), "utf-8")
        assert main(["calibrate", str(path), "--no-plots", "-o", str(folder / f"{name}.json")]) == 0
        path.unlink()
    return folder


def test_show_says_what_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibration", "show", str(folder / "may.json")]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Calibration of Network(3 nodes, 2 edges")
    assert f"{datetime.now(UTC):%Y-}" in output
    assert re.search(r"^0 +0 – 1 +\d+\.\d+ ± ", output, flags=re.MULTILINE)
    assert re.search(r"^node 2 +[+-]\d", output, flags=re.MULTILINE)


def test_compare_names_what_moved_and_plots_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "moved.svg"
    arguments = ["calibration", "compare", str(folder / "may.json"), str(folder / "june.json"), "-o", str(plot)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "Exchanged: board: simulated, seed 11, now simulated, seed 12." in output
    assert "No edge moved" not in output
    assert output.endswith(f"Plot: {plot}\n")
    assert "<svg" in plot.read_text("utf-8")
    assert main(arguments) == 2
    assert "moved.svg exists: choose another place with --output, or add --force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "none.json"], "there is no calibration file none.json"),
        (["plot", "none.json"], "there is no calibration file none.json"),
        (["compare", "may.json", "none.json"], "there is no calibration file none.json"),
        (["plot", "may.json", "-o", "nowhere"], "nowhere is not a folder: make it, or choose another one"),
        (["compare", "may.json", "june.json", "-o", "moved.xyz"], "the plot cannot be written to moved.xyz"),
        (["compare", "may.json", "june.json", "-o", "no/moved.svg"], "the plot cannot be written to no/moved.svg"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = listing(folder)
    assert main(["calibration", *arguments]) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert said in errors
    assert listing(folder) == before


def test_twin_needs_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["twin", "x"]) == 2
    assert "there is no store hilcl.sqlite" in capsys.readouterr().err
    assert listing(tmp_path) == set()
