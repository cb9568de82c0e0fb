"""Calibration on the command line: made on the simulator, on emulated instruments and over the wire, and then used."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilcl.arrays import FloatArray, IntArray
from hilcl.calibration import procedure
from hilcl.calibration.apply import largest_conductances
from hilcl.calibration.file import Calibration
from hilcl.calibration.json_text import checksum, written
from hilcl.calibration.parameters import Verification
from hilcl.calibration.watch import WatchedBoard
from hilcl.calibration_session import calibrated, prepare_calibrated
from hilcl.cli.main import main
from hilcl.evaluation import evaluate
from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.results import load_run
from hilcl.session import open_board, open_simulated
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.store import Store
from hilcl.training import train
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, at_resources, prepared, replaced
from tests.command_line import EXAMPLES, contents, hilcl, listing, stored_steps, stored_summary

Change = tuple[str, str]

SHORT = """
[calibration]
patterns = 8
verification = 2
"""
"""A calibration that is over in a second."""

USED = f'{SHORT}file = "bench.calibration.json"\n'

SPREAD = 'pots = { tolerance = "20 %", wiper_spread = "30 %", series_spread = "1 %" }\n'

METERS = 'meters = { gain = "0.5 %", offset = "1 mV", noise = "20 µV" }\n'

TRUTH = f"\n[simulation]\nseed = 11\n{SPREAD}{METERS}"
"""Devices that all differ from what they should be, read by meters with noise."""

MADE = DIVIDER_BENCH + TRUTH + SHORT
TRAINED = DIVIDER_BENCH + TRUTH + USED

LARGE = (EXAMPLES / "bench16.toml").read_text("utf-8")
LARGE_SHORT = SHORT.replace("= 8", "= 10") + 'instruments = { source_offset = "50 µV" }\n'


def file(folder: Path, text: str, name: str = "bench") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path


def read(path: Path) -> Calibration:
    return Calibration.load(path)


def fault_free(text: str) -> str:
    """Return a file without the errors of its meters: the devices are drawn from streams of their own."""
    return re.sub(r"^meters = \{ (?=gain|bits).*\n", "", text, flags=re.MULTILINE)


def truth(text: str) -> SimulatedBoard:
    """Return the board of a file as it really is, read by ideal meters."""
    return open_simulated(prepared(fault_free(text)))


def nominal_table(preparation: Preparation) -> FloatArray:
    table = preparation.device_range.table
    assert table is not None
    return np.array(np.broadcast_to(table, (preparation.network.n_edges, table.shape[-1])))


def true_table(text: str) -> FloatArray:
    """Return what every code of a file's simulated pots is really worth, (M, K) in siemens."""
    board, nominal = truth(text), nominal_table(prepared(text))
    true = np.empty_like(nominal)
    for code, column in enumerate(nominal.T):
        board.program(column)
        true[:, code] = board.true_conductances
    return true


def loss_on_truth(text: str, codes: IntArray) -> float:
    """Return the training loss of codes on the board as it is, measured by ideal meters."""
    preparation, board = prepared(text), truth(text)
    board.program(nominal_table(preparation)[np.arange(len(codes)), codes])
    return evaluate(board, preparation.data.train).loss


def kept_codes(preparation: Preparation, store: Path, run: str) -> IntArray:
    codes = preparation.device_range.project(np.array(stored_summary(store, run)["kept_conductances"])).codes
    assert codes is not None
    return codes


def outputs_off(bench: EmulatedBench) -> bool:
    return not any(on for each in bench.outputs_on.values() for on in each)


def calibrate(path: Path, *more: str) -> int:
    return main(["calibrate", str(path), "--no-plots", *more])


def run(path: Path, name: str, *more: str) -> int:
    return main(["run", str(path), "--no-report", "--store", str(path.parent / "hilcl.sqlite"), "--name", name, *more])


@dataclass(frozen=True)
class Made:
    """A calibration that was made once for the tests that use it."""

    text: str
    path: Path

    def beside(self, folder: Path) -> Path:
        """Put a copy where a file in a folder finds it."""
        return Path(shutil.copy(self.path, folder / "bench.calibration.json"))


@pytest.fixture(scope="module")
def divider(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("divider")
    assert calibrate(file(folder, MADE), "--backend", "emulated") == 0
    return Made(MADE, folder / "bench.calibration.json")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("large")
    text = LARGE + LARGE_SHORT
    assert calibrate(file(folder, text), "--backend", "emulated") == 0
    return Made(text, folder / "bench.calibration.json")


# Making one.


@pytest.mark.parametrize("backend", ["sim", "emulated"])
@pytest.mark.parametrize("text", [DIVIDER_BENCH, GRID_BENCH], ids=["divider", "grid"])
def test_every_code_is_known_within_its_uncertainty(
    text: str, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The SMUs of the grid read the inputs, so they have the meters' errors too.
    described = text + TRUTH + SHORT
    path = file(tmp_path, described)
    assert calibrate(path, "--backend", backend) == 0
    output, errors = capsys.readouterr()
    assert "Verification on 2 fresh patterns passed" in output
    assert output.count("expecting ") == 1
    assert "FAULT" not in output
    assert [line.split(":")[0] for line in errors.splitlines()] == ["meters", "design", "pots", "fit", "verification"]
    assert listing(tmp_path) == {"bench.toml", "bench.calibration.json"}

    found = read(tmp_path / "bench.calibration.json")
    u = np.hypot(*found.table_u)
    true = true_table(described)
    assert (np.abs(found.table - true) < 4 * u).all()
    assert (u < 2e-3 * true).all()
    nominal = nominal_table(prepared(described))
    assert np.abs(nominal / true - 1).max() > 0.05, "a board that is what it should be shows nothing"


@pytest.mark.parametrize("backend", ["sim", "emulated"])
def test_gain_and_offset_of_the_meters_are_found(backend: str, tmp_path: Path) -> None:
    described = DIVIDER_BENCH + TRUTH.replace(', noise = "20 µV"', "") + SHORT
    assert calibrate(file(tmp_path, described), "--backend", backend) == 0
    meters = read(tmp_path / "bench.calibration.json").meter_parameters
    # All terminals at the same volts, so every node is there.
    volts = np.array([0.0, 1.0])
    readings = open_simulated(prepared(described)).respond(np.repeat(volts[:, None], 3, axis=1)).potentials
    offset, gain = readings[0], readings[1] - readings[0]
    assert np.abs(gain - 1).max() > 1e-4
    assert np.allclose(meters.gain, gain, atol=1e-6)
    assert np.allclose(meters.offset, offset, atol=1e-6)


def test_who_was_calibrated_and_how_is_in_the_file(divider: Made) -> None:
    found = read(divider.path)
    assert set(found.board.identities) == {"pots", "drive", "clamp"}
    assert "2602B" in found.board.identities["drive"]
    assert found.valid_until is not None
    assert (found.valid_until - found.created).days == 90
    assert found.effort.patterns == 8
    assert found.verification is not None
    assert found.verification.passed


def test_remark_temperature_place_and_validity_are_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, replaced(MADE, ("patterns = 8", "patterns = 2\nvalid_days = 3")))
    (tmp_path / "kept").mkdir()
    target = tmp_path / "kept" / "may.json"
    assert calibrate(path, "-o", str(target), "--comment", "before the move", "--temperature", "23.5") == 0
    output = capsys.readouterr().out
    assert "before the move\n" in output
    assert "Temperature 23.5 °C." in output
    assert f"Calibration: {target}\n" in output
    assert 'file = "kept/may.json"' in output
    assert listing(tmp_path) == {"bench.toml", "kept", "kept/may.json"}
    found = read(target)
    assert (found.comment, found.temperature_celsius) == ("before the move", 23.5)
    assert found.valid_until is not None
    assert (found.valid_until - found.created).days == 3
    # What the command says leads to the file.
    path.write_text(MADE + re.findall(r'file = ".*"', output)[0] + "\n", "utf-8")
    assert prepare_calibrated(Experiment.load(path)).calibration == found


def test_plots_are_written_beside_the_file_and_again_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(file(tmp_path, MADE))]) == 0
    names = {f"bench.{name}.svg" for name in ("conductances", "uncertainty", "residuals", "residual-histogram")}
    assert listing(tmp_path) == {"bench.toml", "bench.calibration.json", *names}
    said = capsys.readouterr().out
    assert all(f"Plot: {tmp_path / name}" in said for name in names)
    (tmp_path / "plots").mkdir()
    file_path = str(tmp_path / "bench.calibration.json")
    assert main(["calibration", "plot", file_path, "-o", str(tmp_path / "plots")]) == 0
    assert listing(tmp_path / "plots") == names
    assert all("<svg" in (tmp_path / "plots" / name).read_text("utf-8") for name in names)


def test_a_second_calibration_keeps_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, target = file(tmp_path, MADE), tmp_path / "bench.calibration.json"
    assert calibrate(path, "--comment", "first") == 0
    first = target.read_bytes()
    assert calibrate(path, "--comment", "second") == 0
    [archive] = [each for each in tmp_path.glob("bench.calibration.*.json") if each != target]
    assert f"The calibration before this one is kept as {archive}." in capsys.readouterr().out
    assert archive.read_bytes() == first
    assert read(target).comment == "second"
    assert main(["calibration", "compare", str(archive), str(target)]) == 0
    assert "No edge moved beyond its uncertainty." in capsys.readouterr().out


def test_the_calibration_a_file_names_is_the_one_that_is_replaced(divider: Made, tmp_path: Path) -> None:
    """A board is calibrated as it is: that the old one has expired or is of other pots plays no part."""
    target = divider.beside(tmp_path)
    path = file(tmp_path, replaced(TRAINED, ('end_to_end = "100 kΩ"', 'end_to_end = "50 kΩ"')))
    assert calibrate(path) == 0
    assert read(target).potentiometers[0].end_to_end == 50e3


# Faults.


@pytest.mark.parametrize(
    ("defect", "edge", "said"),
    [("stuck = { 1 = 40 }", 1, "edge 1 is stuck at "), ("opened = [2]", 2, "edge 2 is open")],
    ids=["stuck", "opened"],
)
def test_a_pot_that_is_broken_is_named_and_the_others_are_calibrated(
    defect: str, edge: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = replaced(GRID_BENCH + TRUTH + SHORT, ('spread = "1 %" }', f'spread = "1 %", {defect} }}'))
    assert calibrate(file(tmp_path, described), "--backend", "emulated") == 0
    assert f"FAULT: {said}" in capsys.readouterr().out
    found = read(tmp_path / "bench.calibration.json")
    assert [(finding.edges) for finding in found.fit.findings] == [[edge]]
    assert np.ptp(found.table[edge]) == 0
    others = np.arange(7) != edge
    true = true_table(described)[others]
    assert (np.abs(found.table[others] - true) < 4 * np.hypot(*found.table_u)[others]).all()


MISWIRED = {
    "meters": ("meters = [[0, 1]]", "the meter channels of node 0 and node 1 are swapped"),
    "pots": ("pots = [[0, 1]]", "the pots of edges 0 and 1 are swapped"),
    "sources": ("sources = [[0, 1]]", "the readings do not fit the wiring"),
    "a missing source": ("cut_sources = [0]", "no source carries a current, whatever is driven"),
}


@contextmanager
def served(folder: Path, text: str) -> Iterator[tuple[EmulatedBench, Path]]:
    """Serve the emulated bench of a file, and write the file that finds it there."""
    with EmulatedBench(prepared(text)) as bench:
        yield bench, file(folder, at_resources(text, bench.resources))
        assert outputs_off(bench)


@pytest.mark.parametrize("case", MISWIRED.values(), ids=MISWIRED)
def test_a_miswired_board_leaves_the_old_calibration_as_it_was(
    case: tuple[str, str], divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wires, said = case
    old = divider.beside(tmp_path).read_bytes()
    text = replaced(MADE, ("patterns = 8", "patterns = 3"))
    with served(tmp_path, f"{text}[simulation.miswired]\n{wires}\n") as (bench, path):
        assert main(["calibrate", str(path), "--backend", "bench"]) == 1
        assert outputs_off(bench)
    errors = capsys.readouterr().err
    assert said in errors.splitlines()[-1]
    assert not any("Warning" in line for line in errors.splitlines())
    assert (tmp_path / "bench.calibration.json").read_bytes() == old
    assert listing(tmp_path) == {"bench.toml", "bench.calibration.json"}


def test_what_is_found_wrong_is_written_when_forced(tmp_path: Path) -> None:
    text = replaced(MADE, ("patterns = 8", "patterns = 3"))
    path = file(tmp_path, f"{text}[simulation.miswired]\npots = [[0, 1]]\n")
    assert calibrate(path, "--backend", "emulated", "--force") == 0
    assert [each.kind for each in read(tmp_path / "bench.calibration.json").fit.findings] == ["swapped pots"]


def test_a_failed_verification_leaves_the_old_calibration_as_it_was(
    tmp_path: Path, divider: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = procedure.verify

    def failing(*arguments: Any) -> Verification:
        return replace(verify(*arguments), passed=False)

    monkeypatch.setattr(procedure, "verify", failing)
    old = divider.beside(tmp_path).read_bytes()
    path = file(tmp_path, MADE)
    assert calibrate(path) == 1
    output, errors = capsys.readouterr()
    assert "Verification on 2 fresh patterns FAILED" in output
    assert errors.splitlines()[-1] == (
        f"hilcl: no calibration was written to {tmp_path / 'bench.calibration.json'}: fresh codes and drives do not "
        "agree with it; put that right, or add --force to keep it anyway"
    )
    assert (tmp_path / "bench.calibration.json").read_bytes() == old
    assert listing(tmp_path) == {"bench.toml", "bench.calibration.json"}
    assert calibrate(path, "--force") == 0
    kept = read(tmp_path / "bench.calibration.json").verification
    assert kept is not None
    assert not kept.passed


def test_a_source_in_compliance_leaves_the_old_calibration_as_it_was(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulated source gives less than the limit the file states for its instrument."""
    old = divider.beside(tmp_path).read_bytes()
    path = file(tmp_path, MADE.replace("[simulation]\n", '[simulation]\nsources = { compliance = "20 µA" }\n'))
    assert calibrate(path) == 1
    assert "reached its current limit at" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "bench.calibration.json").read_bytes() == old


# Using it.


def test_codes_trained_on_the_calibrated_twin_serve_the_board_itself(large: Made, tmp_path: Path) -> None:
    """At least five times better than codes trained on nominal conductances; here it is far more."""
    large.beside(tmp_path)
    store = tmp_path / "hilcl.sqlite"
    twin = file(tmp_path, large.text + 'file = "bench.calibration.json"\n', "twin")
    assert run(twin, "twin") == 0
    nominal = file(tmp_path, LARGE[: LARGE.index("[simulation]")], "nominal")
    assert run(nominal, "nominal") == 0
    of_twin = kept_codes(prepare_calibrated(Experiment.load(twin)), store, "twin")
    of_nominal = kept_codes(prepare(Experiment.load(nominal)), store, "nominal")
    losses = [loss_on_truth(LARGE, codes) for codes in (of_twin, of_nominal)]
    assert stored_summary(store, "nominal")["evaluation"]["train"]["loss"] < 1e-5
    assert losses[0] < losses[1] / 5
    assert losses[0] < 1e-6


def test_a_run_of_the_calibrated_board_agrees_with_its_twin(
    large: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large.beside(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = file(tmp_path, large.text + 'file = "bench.calibration.json"\n')
    assert run(path, "board", "--backend", "emulated") == 0
    assert run(path, "watched", "--backend", "sim") == 0
    capsys.readouterr()
    for name in ("board", "watched"):
        assert main(["twin", name]) == 0
        assert capsys.readouterr().out.endswith("Measurement and twin agree within their uncertainty.\n")
    assert main(["twin", "board", "--every", "7", "-o", "twin.svg"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Replayed 10 epochs of 2 samples on the twin")
    assert "<svg" in Path("twin.svg").read_text("utf-8")
    assert main(["twin", "board", "-o", "twin.svg"]) == 2
    assert "twin.svg exists" in capsys.readouterr().err


CHANGED = {
    "another board": ("seed = 4", "seed = 5"),
    "a pot that sticks": ('spread = "1 %" }', 'spread = "1 %", stuck = { 7 = 30 } }'),
}


@pytest.mark.parametrize("case", CHANGED.values(), ids=CHANGED)
def test_a_board_that_is_not_what_was_calibrated_is_found_by_the_twin(
    case: Change, large: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large.beside(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = file(tmp_path, replaced(large.text, case) + 'file = "bench.calibration.json"\n')
    assert run(path, "board", "--backend", "emulated") == 0
    capsys.readouterr()
    assert main(["twin", "board"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"They part in epoch \d+: node [26] in sample [01] is ", last)
    assert last.endswith("the board is no longer what it was calibrated as.")


def watched(path: Path, epochs: int) -> WatchedBoard:
    """Train a calibrated emulated board and return it, closed."""
    preparation = prepare_calibrated(Experiment.load(path))
    with open_board(preparation, "emulated") as board:
        assert isinstance(board, WatchedBoard)
        for _ in train(board, preparation.data.train, preparation.rule, epochs):
            pass
    return board


def test_the_watch_names_the_pot_that_sticks_and_is_quiet_otherwise(large: Made, tmp_path: Path) -> None:
    large.beside(tmp_path)
    text = large.text + 'file = "bench.calibration.json"\n'
    assert watched(file(tmp_path, text), 60).watch.alarms == []
    stuck = watched(file(tmp_path, replaced(text, CHANGED["a pot that sticks"])), 60)
    first = stuck.watch.alarms[0]
    assert first.edge == 7
    assert "edge 7 between node 1 and node 4" in first.sentence


def test_the_watch_can_be_switched_off(divider: Made, tmp_path: Path) -> None:
    divider.beside(tmp_path)
    path = file(tmp_path, TRAINED + "watch = { enabled = false }\n")
    with open_board(prepare_calibrated(Experiment.load(path)), "emulated") as board:
        assert not isinstance(board, WatchedBoard)


def test_the_automatic_step_size_is_smaller_by_what_is_not_known(divider: Made, tmp_path: Path) -> None:
    divider.beside(tmp_path)
    auto = replaced(TRAINED, ('step_size = "20e-6 S/V²"', 'step_size = "auto"'))
    preparation = prepare_calibrated(Experiment.load(file(tmp_path, auto)))
    calibration = read(tmp_path / "bench.calibration.json")
    vague = calibration.model_copy(
        update={
            "tables": [
                row.model_copy(update={"u_instrument": [0.05 * (g or 0.0) for g in row.siemens]})
                for row in calibration.tables
            ]
        }
    )
    assert preparation.nominal is not None
    lowered = calibrated(preparation.nominal, vague).rule.step_size
    assert isinstance(lowered, float)
    assert isinstance(preparation.rule.step_size, float)
    ratio = lowered / preparation.rule.step_size
    assert ratio == pytest.approx(0.85, rel=2e-3)


def test_a_run_with_an_automatic_step_size_says_what_holds(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    divider.beside(tmp_path)
    path = file(tmp_path, replaced(TRAINED, ('step_size = "20e-6 S/V²"', 'step_size = "auto"')))
    for backend in ("sim", "emulated"):
        assert run(path, backend, "--backend", backend) == 0
        output = capsys.readouterr().out
        assert "Guarantee: none. Readings or conductances carry errors" in output
        assert re.search(r"Step size γ = \S+ S/V², 0\.9 times 2/L = \S+ S/V², which for an exact", output)


def test_limits_are_checked_with_the_largest_conductance_a_pot_may_have(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nominally a pot carries 0.784 mA at a volt; the calibration found one that may carry more."""
    most = largest_conductances(read(divider.path)).max()
    assert most > 786e-6
    divider.beside(tmp_path)
    limited = replaced(TRAINED, ('volts = "2 V"\n', 'volts = "2 V"\namperes_per_pot = "0.786 mA"\n'))
    path = file(tmp_path, limited)
    before = listing(tmp_path)
    assert run(path, "x") == 2
    assert f"could see {most:.3g} A at 1 V, above limits.amperes_per_pot = 0.000786 A" in capsys.readouterr().err
    assert listing(tmp_path) == before
    file(tmp_path, limited.replace('file = "bench.calibration.json"\n', ""))
    assert run(path, "nominal") == 0


def test_a_resumed_calibrated_run_is_the_one_that_never_stopped(divider: Made, tmp_path: Path) -> None:
    divider.beside(tmp_path)
    store = tmp_path / "hilcl.sqlite"
    path = file(tmp_path, TRAINED)
    assert run(path, "whole") == 0
    file(tmp_path, replaced(TRAINED, ("epochs = 25", "epochs = 11")))
    assert run(path, "parts") == 0
    file(tmp_path, TRAINED)
    assert main(["run", str(path), "--no-report", "--store", str(store), "--resume", "parts"]) == 0
    assert len(stored_steps(store, "whole")) == 25
    assert stored_steps(store, "parts") == stored_steps(store, "whole")
    assert stored_summary(store, "parts") == stored_summary(store, "whole")


def test_a_run_is_not_resumed_with_another_calibration(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = divider.beside(tmp_path)
    store = tmp_path / "hilcl.sqlite"
    path = file(tmp_path, replaced(TRAINED, ("epochs = 25", "epochs = 5")))
    assert run(path, "first") == 0
    assert calibrate(file(tmp_path, replaced(MADE, ("seed = 11", "seed = 12")), "other"), "-o", str(target)) == 0
    capsys.readouterr()
    file(tmp_path, TRAINED)
    before = contents(store)
    assert main(["run", str(path), "--no-report", "--store", str(store), "--resume", "first"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "the run 'first' was started with" in said
    assert contents(store) == before


# Refused.


def edited(change: Callable[[dict[str, Any]], None], *, signed: bool = True) -> Callable[[Path], None]:
    """Return what changes values of a calibration file, with a checksum that fits again."""

    def edit(path: Path) -> None:
        document = json.loads(path.read_text("utf-8"))
        change(document)
        if signed:
            document["checksum"] = checksum(document)
        path.write_text(written(document), "utf-8")

    return edit


def truncated(path: Path) -> None:
    text = path.read_text("utf-8")
    path.write_text(text[: len(text) // 2], "utf-8")


def no_calibration(path: Path) -> None:
    path.write_text("{}", "utf-8")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def expire(document: dict[str, Any]) -> None:
    document["created"], document["valid_until"] = "2020-01-01T00:00:00Z", "2020-03-31T00:00:00Z"


def by_hand(document: dict[str, Any]) -> None:
    document["tables"][1]["siemens"][7] *= 1.01


REFUSED: dict[str, tuple[list[Change], Callable[[Path], None], str]] = {
    "other wiring": (
        [("edges = [[0, 1], [1, 2]]", "edges = [[0, 1], [2, 1]]")],
        lambda _: None,
        "is that of another board, its edge 1 joins nodes [1, 2], the board's [2, 1]: calibrate this board",
    ),
    "other pots": (
        [('wiper = "75 Ω"', 'wiper = "125 Ω"')],
        lambda _: None,
        "edge 0 has a pot with wiper = 125, but the calibration",
    ),
    "expired": ([], edited(expire), "expired on 2020-03-31: calibrate again, or"),
    "truncated": ([], truncated, "is not a whole JSON file"),
    "edited by hand": ([], edited(by_hand, signed=False), "was changed after it was written, its checksum is another"),
    "edited, with a new checksum": ([], edited(by_hand), "the tables are not those of the fitted law"),
    "not a calibration": ([], no_calibration, "is not a calibration file"),
    "missing": ([], lambda path: path.unlink(), "there is no calibration file"),
    "a folder": ([], a_folder, "cannot be read: Is a directory"),
    "unknown key": ([("patterns = 8", "pattern = 8")], lambda _: None, "calibration.pattern is not a key hilcl knows"),
    "unknown key of the watch": (
        [("patterns = 8", "watch = { alarms = 1 }")],
        lambda _: None,
        "calibration.watch.alarms is not a key hilcl knows",
    ),
    "no INL terms": ([("patterns = 8", "inl = 9")], lambda _: None, 'is "auto" or a number of terms from 0 to 8'),
}
"""What is wrong, changes of the experiment file and of the calibration, and what has to be said."""


@pytest.mark.parametrize("backend", ["sim", "emulated", "bench"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_calibration_that_does_not_apply_is_refused_before_a_board_is_opened(
    case: tuple[list[Change], Callable[[Path], None], str],
    backend: str,
    divider: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The addresses in the file lead nowhere: an attempt to open them would say so."""
    changes, change, said = case
    change(divider.beside(tmp_path))
    path = file(tmp_path, replaced(TRAINED, *changes))
    before = listing(tmp_path)
    assert run(path, "x", "--backend", backend) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert said in errors
    assert listing(tmp_path) == before


def test_an_expired_calibration_is_used_when_the_file_says_so(divider: Made, tmp_path: Path) -> None:
    edited(expire)(divider.beside(tmp_path))
    path = file(tmp_path, TRAINED + "accept_expired = true\n")
    for backend in ("sim", "emulated"):
        assert run(path, backend, "--backend", backend) == 0


def test_a_board_without_codes_cannot_be_calibrated(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    divider.beside(tmp_path)
    pots = re.search(r"\[board\.pots\].*?(?=\[task\])", TRAINED, flags=re.DOTALL)
    assert pots is not None
    text = TRAINED[: TRAINED.index("[bench]")].replace(pots[0], "")
    text = replaced(text, ("outputs = [1] }", 'outputs = [1] }\ng_min = "10 µS"\ng_max = "1 mS"'))
    path = file(tmp_path, text + USED)
    before = listing(tmp_path)
    assert run(path, "x") == 2
    assert "calibration.file needs [board.pots]" in capsys.readouterr().err
    assert calibrate(path) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "a calibration needs [board.pots]: it says what codes are worth" in said
    assert listing(tmp_path) == before


def test_an_instrument_that_was_exchanged_is_named(
    divider: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def exchange(document: dict[str, Any]) -> None:
        parts = document["board"]["identities"]["clamp"].split(",")
        document["board"]["identities"]["clamp"] = ",".join([*parts[:2], "1234567", parts[3]])

    edited(exchange)(divider.beside(tmp_path))
    with served(tmp_path, TRAINED) as (bench, path):
        before = listing(tmp_path)
        assert run(path, "x", "--backend", "bench") == 2
        assert outputs_off(bench)
    output, errors = capsys.readouterr()
    assert output == ""
    [said] = errors.splitlines()
    assert said.startswith("hilcl: clamp is 'KEITHLEY INSTRUMENTS,MODEL 2450,4000003")
    assert "1234567" in said
    assert said.endswith("connect that one, or calibrate this bench")
    assert listing(tmp_path) == before


def test_a_file_that_is_no_calibration_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found before anything is measured."""
    path = file(tmp_path, MADE)
    (tmp_path / "bench.calibration.json").write_text("notes of mine", "utf-8")
    before = listing(tmp_path)
    for more in ([], ["--force"]):
        assert calibrate(path, *more) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert len(errors.splitlines()) == 1
    assert calibrate(path, "-o", str(tmp_path / "nowhere" / "x.json")) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert listing(tmp_path) == before
    assert (tmp_path / "bench.calibration.json").read_text("utf-8") == "notes of mine"


# As a user meets it.


def test_the_commands_of_a_day_in_processes_of_their_own(tmp_path: Path) -> None:
    file(tmp_path, TRAINED)
    done = hilcl("calibrate", "bench.toml", "--backend", "emulated", "--no-plots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Calibration: bench.calibration.json\n")
    shown = hilcl("calibration", "show", "bench.calibration.json", cwd=tmp_path)
    assert shown.stdout in done.stdout
    trained = hilcl("run", "bench.toml", "--backend", "emulated", "--no-report", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    twin = hilcl("twin", "bench", cwd=tmp_path)
    assert twin.returncode == 0, twin.stderr
    assert "agree within their uncertainty" in twin.stdout


def test_the_history_of_a_calibrated_run_can_be_loaded(divider: Made, tmp_path: Path) -> None:
    divider.beside(tmp_path)
    assert run(file(tmp_path, TRAINED), "x") == 0
    with Store(tmp_path / "hilcl.sqlite", writable=False) as store:
        result = load_run(store, "x")
    codes = result.history.codes
    assert codes is not None
    table = read(divider.path).table
    assert (table[np.arange(2), codes[-1]] == result.history.conductances[-1]).all()
