"""``hilcl check --backend emulated``: each wrong wire and pot of a bench is named, and a sound bench is not accused."""

from pathlib import Path

import pytest

from hilcl.cli.main import main
from hilcl.sim_backend.emulated_bench import EmulatedBench
from tests.bench_files import replaced
from tests.command_line import EXAMPLES, hilcl, listing

SEEDS = range(20)

FAULTS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "bench16.toml": {
        "two inputs swapped": (
            "sources = [[0, 8]]",
            ("left channel a is seen at input node 8", "left channel b is seen at input node 0", "swapped"),
        ),
        "an input and an output swapped": (
            "sources = [[0, 6]]",
            ("left channel a is seen at output node 6", "right channel 2 is seen at input node 0", "swapped"),
        ),
        "a cut input": ("cut_sources = [8]", ("Nothing arrives at input node 8 from left channel b",)),
        "a cut output": ("cut_sources = [2]", ("Nothing arrives at output node 2 from right channel 1",)),
        "two hidden meters swapped": (
            "meters = [[1, 4]]",
            ("board channel 1 reads hidden node 4", "board channel 4 reads hidden node 1", "swapped"),
        ),
        "an input's and an output's meter swapped": (
            "meters = [[0, 6]]",
            ("board channel 0 reads output node 6", "board channel 6 reads input node 0", "swapped"),
        ),
        "a cut meter": ("cut_meters = [4]", ("Board channel 4 does not follow hidden node 4",)),
        "two pots swapped": ("pots = [[3, 9]]", ("board pot 3 (edge 3) and board pot 9 (edge 9) are swapped",)),
        "a stuck pot": ("stuck = { 5 = 17 }", ("board pot 5 (edge 5) does not move",)),
        "an open pot": ("opened = [11]", ("board pot 11 (edge 11) is open",)),
    },
    "bench32.toml": {
        "two inputs swapped": (
            "sources = [[0, 10]]",
            ("drive channel a is seen at input node 10", "drive channel b is seen at input node 0", "swapped"),
        ),
        "an input and the output swapped": (
            "sources = [[0, 7]]",
            ("drive channel a is seen at output node 7", "clamp channel 1 is seen at input node 0", "swapped"),
        ),
        "a cut input": ("cut_sources = [10]", ("Nothing arrives at input node 10 from drive channel b",)),
        "the cut output": ("cut_sources = [7]", ("Nothing arrives at output node 7 from clamp channel 1",)),
        "two meters swapped": (
            "meters = [[2, 13]]",
            ("scanner channel 103 reads hidden node 13", "scanner channel 114 reads hidden node 2", "swapped"),
        ),
        "a cut meter": ("cut_meters = [5]", ("Scanner channel 106 does not follow hidden node 5",)),
        "two pots swapped": ("pots = [[4, 21]]", ("pots pot 4 (edge 4) and pots pot 21 (edge 21) are swapped",)),
        "a stuck pot": ("stuck = { 9 = 200 }", ("pots pot 9 (edge 9) does not move",)),
        "an open pot": ("opened = [18]", ("pots pot 18 (edge 18) is open",)),
    },
}


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> list[EmulatedBench]:
    """Every bench that is served from now on."""
    served: list[EmulatedBench] = []
    start = EmulatedBench.start

    def watched(bench: EmulatedBench) -> EmulatedBench:
        served.append(bench)
        return start(bench)

    monkeypatch.setattr(EmulatedBench, "start", watched)
    return served


def outputs_off(bench: EmulatedBench) -> bool:
    return not any(on for each in bench.outputs_on.values() for on in each)


def wrong(text: str, fault: str) -> str:
    """Return an experiment file with a line of [simulation.miswired], or of [simulation] pots."""
    if fault.startswith(("stuck", "opened")):
        return replaced(text, ("pots = { tolerance", f"pots = {{ {fault}, tolerance"))
    return f"{text}\n[simulation.miswired]\n{fault}\n"


def faults_in(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("FAULT: ")]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in FAULTS.items() for kind in kinds])
def test_each_wrong_wire_and_pot_is_named(
    name: str,
    kind: str,
    tmp_path: Path,
    benches: list[EmulatedBench],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault, parts = FAULTS[name][kind]
    path = tmp_path / name
    path.write_text(wrong((EXAMPLES / name).read_text("utf-8"), fault), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["check", name, "--backend", "emulated"]) == 1
    said = capsys.readouterr()
    (found,) = faults_in(said.out)
    for part in parts:
        assert part.lower() in found.lower(), found
    assert said.err.splitlines() == [
        f"hilcl: the bench is not wired as {name} says: 1 fault to correct first",
    ]
    assert max(map(len, said.out.splitlines()[-6:])) <= 200
    assert "The bench is in order." not in said.out
    (bench,) = benches
    assert outputs_off(bench)
    assert listing(tmp_path) == {name}


@pytest.mark.parametrize("name", FAULTS)
def test_a_sound_bench_is_not_accused(
    name: str, tmp_path: Path, benches: list[EmulatedBench], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    seed = next(line for line in text.splitlines() if line.startswith("seed = "))
    path = tmp_path / name
    for each in SEEDS:
        path.write_text(replaced(text, (seed, f"seed = {each}")), "utf-8")
        assert main(["check", str(path), "--backend", "emulated"]) == 0, each
        said = capsys.readouterr().out
        assert faults_in(said) == []
        assert said.splitlines()[-1] == "The bench is in order."
    assert len(benches) == len(SEEDS)
    assert all(map(outputs_off, benches))
    assert listing(tmp_path) == {name}


def test_as_a_command_of_its_own_it_ends_with_one_and_writes_nothing(tmp_path: Path) -> None:
    text = (EXAMPLES / "bench16.toml").read_text("utf-8")
    (tmp_path / "bench.toml").write_text(wrong(text, "meters = [[1, 4]]"), "utf-8")
    done = hilcl("check", "bench.toml", "--backend", "emulated", cwd=tmp_path)
    assert done.returncode == 1
    (found,) = faults_in(done.stdout)
    assert "board channel 1 reads hidden node 4" in found
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == {"bench.toml"}


@pytest.mark.parametrize(
    ("settle", "said"),
    [
        ('"3 ms"', "Settling: 3 ms after each change of the drives, as the file says."),
        ('{ capacitance = "20 nF", accuracy = 1e-3 }', "after each change of the drives, computed for the start."),
        ("{ measured = true, accuracy = 1e-3 }", "after each change of the drives, measured."),
    ],
)
def test_a_check_says_how_long_the_board_is_given_to_settle(
    settle: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = replaced(
        (EXAMPLES / "bench16.toml").read_text(encoding="utf-8"),
        ('settle = "1 ms"', f"settle = {settle}"),
        ("[simulation]\n", '[simulation]\ncapacitance = "20 nF"\n'),
    )
    (tmp_path / "bench.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "bench.toml", "--backend", "emulated"]) == 0
    assert said in capsys.readouterr().out
