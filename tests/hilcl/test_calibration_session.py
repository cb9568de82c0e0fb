"""Preparing, opening and replaying with a calibration, from Python."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilcl.bench_board import BenchBoard
from hilcl.board import Board
from hilcl.calibration.apply import CalibratedBoard, step_size_margin
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.watch import WatchedBoard
from hilcl.calibration_session import (
    calibrated,
    calibration_of,
    calibration_steps,
    default_path,
    drive_limits,
    prepare_calibrated,
    replay_run,
    usable_codes,
)
from hilcl.cli.main import main
from hilcl.errors import ExperimentError, InputError
from hilcl.experiment import Experiment
from hilcl.learning import RobbinsMonro
from hilcl.results import RunResult, load_run
from hilcl.session import device_identities, innermost, open_board
from hilcl.store import Store
from tests.bench_files import DIVIDER_BENCH, IMPERFECT, prepared, replaced

SHORT = """
[calibration]
patterns = 4
verification = 1
"""

AUTO = ('step_size = "20e-6 S/V²"', 'step_size = "auto"')


def made(text: str = DIVIDER_BENCH + IMPERFECT + SHORT) -> Calibration:
    """Return a calibration of the simulated board of a file."""
    preparation = prepared(text)
    with open_board(preparation) as board:
        *_, last = calibration_steps(preparation, board)
        identities = device_identities(board, preparation)
    assert last.result is not None
    return Calibration.of(last.result, identities=identities, usable=usable_codes(preparation))


@pytest.fixture(scope="module")
def divider() -> Calibration:
    return made()


def loaded(folder: Path, text: str) -> Experiment:
    (folder / "bench.toml").write_text(text, "utf-8")
    return Experiment.load(folder / "bench.toml")


def division(board: Board) -> float:
    """Return which part of the volts that really are across both pots is across the second one."""
    first, between, last = board.respond(np.array([[1.0, 0.0, np.nan]])).potentials[0]
    return float((between - last) / (first - last))


def test_without_a_calibration_nothing_changes(tmp_path: Path) -> None:
    preparation = prepare_calibrated(loaded(tmp_path, DIVIDER_BENCH))
    assert preparation.calibration is None
    with pytest.raises(ExperimentError, match=r"bench.toml names no calibration: set calibration.file"):
        calibration_of(preparation)


def test_conductances_limits_and_start_are_those_of_the_calibration(divider: Calibration) -> None:
    nominal = prepared(DIVIDER_BENCH)
    known = calibrated(nominal, divider)
    assert known.nominal is nominal
    assert known.device_range.table is not None
    assert (known.device_range.table == divider.table).all()
    assert (known.initial == divider.table[:, 128]).all()
    assert not np.allclose(known.initial, nominal.initial, rtol=1e-2)


def test_codes_that_the_file_excludes_stay_excluded(divider: Calibration) -> None:
    nominal = prepared(replaced(DIVIDER_BENCH, ('wiper = "75 Ω"', 'wiper = "75 Ω"\nlowest_code = 9')))
    table = calibrated(nominal, divider).device_range.table
    assert table is not None
    assert np.isnan(table[:, :9]).all()
    assert (table[:, 9:] == divider.table[:, 9:]).all()


@pytest.mark.parametrize("decay", ["", "\ndecay_updates = 50"], ids=["constant", "falling"])
def test_the_automatic_step_size_goes_by_the_smallest_calibrated_conductance(divider: Calibration, decay: str) -> None:
    nominal = prepared(replaced(DIVIDER_BENCH, (AUTO[0], AUTO[1] + decay)))
    rule = calibrated(nominal, divider).rule
    step = rule.step_size.initial if isinstance(rule.step_size, RobbinsMonro) else rule.step_size
    # 0.9 · 2/L with L = 2/g_min · U², and U = 1 V.
    assert step == pytest.approx(0.9 * divider.table.min() * step_size_margin(divider), rel=1e-12)
    assert step_size_margin(divider) < 1


def test_a_given_step_size_stays(divider: Calibration) -> None:
    nominal = prepared(DIVIDER_BENCH)
    assert calibrated(nominal, divider).rule == nominal.rule


def test_the_twin_has_the_calibrated_conductances(divider: Calibration) -> None:
    preparation = calibrated(prepared(DIVIDER_BENCH), divider)
    with open_board(preparation, "sim") as twin:
        for code in (0, 128, 256):
            twin.program(divider.table[:, code])
            upper, lower = divider.table[:, code]
            assert division(twin) == pytest.approx(upper / (upper + lower), abs=1e-6)


def test_a_bench_is_read_through_its_calibration_and_watched(divider: Calibration) -> None:
    text = DIVIDER_BENCH + IMPERFECT
    with open_board(prepared(text), "emulated") as board:
        assert isinstance(board, BenchBoard)
        identities = board.identities
    record = divider.board.model_copy(update={"identities": identities})
    own = divider.model_copy(update={"board": record})
    with open_board(calibrated(prepared(text), own), "emulated") as board:
        assert isinstance(board, WatchedBoard)
        assert isinstance(board.board, CalibratedBoard)
        assert isinstance(innermost(board), BenchBoard)
        board.program(own.table[:, 200])
        upper, lower = own.table[:, 200]
        # The meters load the board.
        assert division(board) == pytest.approx(upper / (upper + lower), abs=3e-3)
    assert abs(upper / (upper + lower) - 0.5) > 0.03, "nominally both pots are alike"


def test_a_bench_of_other_instruments_is_refused_and_closed(divider: Calibration) -> None:
    with pytest.raises(CalibrationError, match="the bench has "):
        open_board(calibrated(prepared(DIVIDER_BENCH), divider), "emulated")


def test_what_may_be_driven_is_the_range_of_the_data() -> None:
    limits = drive_limits(prepared(DIVIDER_BENCH))
    assert limits.low.tolist() == [0.0] * 3
    assert limits.high.tolist() == [1.0] * 3
    assert limits.amperes_per_source == pytest.approx(9e-3)


def test_a_grounded_terminal_stays_at_zero() -> None:
    text = replaced(
        DIVIDER_BENCH, ("sources = { drive = { a = 0, b = 2 }", "grounded = [2]\nsources = { drive = { a = 0 }")
    )
    limits = drive_limits(prepared(text))
    assert limits.low.tolist() == [0.0, 0.0, 0.0]
    assert limits.high.tolist() == [1.0, 0.0, 1.0]


def test_the_calibration_goes_where_the_file_says(tmp_path: Path) -> None:
    assert default_path(loaded(tmp_path, DIVIDER_BENCH)) == tmp_path / "bench.calibration.json"
    named = loaded(tmp_path, DIVIDER_BENCH + '[calibration]\nfile = "kept/may.json"\n')
    assert default_path(named) == tmp_path / "kept" / "may.json"


def test_boards_without_codes_have_no_usable_ones() -> None:
    pots = re.search(r"\[board\.pots\].*?(?=\[task\])", DIVIDER_BENCH, flags=re.DOTALL)
    assert pots is not None
    text = DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")].replace(pots[0], "")
    bare = prepared(replaced(text, ("outputs = [1] }", 'outputs = [1] }\ng_min = "10 µS"\ng_max = "1 mS"')))
    assert usable_codes(bare) is None
    with open_board(bare) as board, pytest.raises(ExperimentError, match=r"needs \[board.pots\]"):
        calibration_steps(bare, board)
    usable = usable_codes(prepared(replaced(DIVIDER_BENCH, ('wiper = "75 Ω"', 'wiper = "75 Ω"\nlowest_code = 9'))))
    assert usable is not None
    assert usable.shape == (2, 257)
    assert not usable[:, :9].any()
    assert usable[:, 9:].all()


# Replaying.


@pytest.fixture(scope="module")
def trained(divider: Calibration, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """Return a run that used no calibration, and a calibration of its board."""
    folder = tmp_path_factory.mktemp("trained")
    experiment = loaded(folder, DIVIDER_BENCH + IMPERFECT)
    store = folder / "hilcl.sqlite"
    assert main(["run", str(experiment.source), "--no-report", "--store", str(store), "--name", "x"]) == 0
    divider.save(folder / "board.json")
    with Store(store, writable=False) as opened:
        return load_run(opened, "x"), folder / "board.json"


def test_a_run_without_a_calibration_is_corrected_for_its_meters(trained: tuple[RunResult, Path]) -> None:
    result, path = trained
    found = replay_run(result, path)
    # The simulated sources and meters load the board a little, which no twin of it has.
    assert np.abs(found.differences).max() < 2e-3
    meters = Calibration.load(path).meter_parameters
    said = result.history.outputs[1:, :, 0]
    assert np.allclose(found.measured[:, :, 0], (said - meters.offset[1]) / meters.gain[1], rtol=0, atol=1e-12)


def test_a_run_that_cannot_be_replayed_says_why(trained: tuple[RunResult, Path]) -> None:
    result, path = trained
    with pytest.raises(InputError, match="the run 'x' used no calibration: name that of its board with --calibration"):
        replay_run(result, None)
    settings = result.info.settings | {"calibration": {"file": "elsewhere.json"}}
    moved = replace(result, info=replace(result.info, settings=settings))
    with pytest.raises(InputError, match=r"elsewhere\.json, which is not here: name it with --calibration"):
        replay_run(moved, None)
    assert replay_run(moved, path).epochs.size == 24
    with pytest.raises(CalibrationError, match="there is no calibration file"):
        replay_run(result, path.with_name("other.json"))
