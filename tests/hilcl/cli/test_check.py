from pathlib import Path

import pytest

from hilcl.cli.main import main
from tests.command_line import EXAMPLES, listing, write_experiment


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_in_order_and_nothing_is_written(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(EXAMPLES)
    assert main(["check", str(example)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.splitlines()[-1] == "The file is in order."
    assert listing(tmp_path) == set()
    assert listing(EXAMPLES) == before


def test_what_a_file_means_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The divider: 1 V across at most 10 mS is 10 mA and 10 mW; L = 2/g_min·1 V², so 2/L = 0.1 mS/V²."""
    write_experiment(tmp_path / "divider.toml")
    assert main(["check", "divider.toml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Board: Network(3 nodes, 2 edges, 2 inputs, 1 outputs, 0 hidden)."
    assert lines[1] == "Edges: 100 to 1e+04 µS."
    assert lines[2] == "Data: Task(1 samples, 2 inputs, 1 outputs)."
    assert lines[3] == "Drives: 0 to 1 V, at most 1 V across an edge."
    assert lines[4] == "Worst pot: 10 mA and 10 mW."
    assert lines[5].startswith("Guarantee: convex. No hidden nodes, full clamp and a step size below 2/L")
    assert lines[6] == "Step size γ = 9e-05 S/V², 0.9 times 2/L = 0.0001 S/V²: on the safe side."
    assert listing(tmp_path) == {"divider.toml"}


def test_pots_are_told_with_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Iris: R(0) = 2.2 kΩ + 40 Ω, R(127) = 2.24 kΩ + 100 kΩ · 127/128; 4 V across 446.4 µS is 1.79 mA and 7.14 mW."""
    assert main(["check", str(EXAMPLES / "iris.toml")]) == 0
    output = capsys.readouterr().out
    assert "Edges: 9.856 to 446.4 µS in 128 codes." in output
    assert "105 samples" in output
    assert "test: Task(45 samples" in output
    assert "Worst pot: 1.79 mA and 7.14 mW." in output
    assert "Guarantee: none. Readings or conductances carry errors" in output


def test_a_step_beyond_the_safe_side_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path / "x.toml", step_size='"3e-4 S/V²"')
    assert main(["check", "x.toml"]) == 0
    output = capsys.readouterr().out
    assert "Guarantee: none. The step size is 3 times 2/L" in output
    assert "beyond the safe side" in output


def test_check_and_run_promise_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path / "x.toml")
    assert main(["check", "x.toml"]) == 0
    promised = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("Guarantee", "Step size"))]
    assert len(promised) == 2
    assert main(["run", "x.toml", "--no-report"]) == 0
    assert set(promised) <= set(capsys.readouterr().out.splitlines())
