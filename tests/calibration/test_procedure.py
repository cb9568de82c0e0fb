from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hilcl.board import Response
from hilcl.calibration.design import DriveLimits
from hilcl.calibration.fit import InstrumentSpec
from hilcl.calibration.parameters import CalibrationResult
from hilcl.calibration.procedure import Progress, Settings, calibrate
from hilcl.errors import ComplianceError, InputError, MeasurementError
from hilcl.network import Network
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.imperfections import Imperfections, MeterDefects, PotDefects, SourceDefects
from tests.calibration.benches import SMALL_POT, SPEC, BenchLike, small_bench, small_board

NETWORK = small_board()
LIMITS = DriveLimits.between(NETWORK, 0.0, 4.0)
QUICK = Settings(patterns=16, candidates=15, verification=3)


def run(board: Any, settings: Settings = QUICK, *, limits: DriveLimits = LIMITS, **more: Any) -> list[Progress]:
    return list(calibrate(board, SMALL_POT, limits, settings=settings, **{"spec": SPEC, **more}))


def result_of(progress: list[Progress]) -> CalibrationResult:
    result = progress[-1].result
    assert result is not None
    return result


def test_the_conductances_are_found_within_their_uncertainty() -> None:
    inside, relative = [], []
    for seed in range(6):
        bench = small_bench(seed)
        result = result_of(run(bench, replace(QUICK, seed=seed)))
        inside.append(np.abs(result.pots.table - bench.truth) < 1.96 * result.pots.table_u)
        relative.append(result.pots.table / bench.truth - 1.0)
        assert result.verification is not None
        assert result.verification.passed
        assert not result.report.findings
        assert result.report.reduced_chi_square == pytest.approx(1.0, abs=0.1)
    assert np.sqrt(np.mean(np.square(relative))) < 1e-3
    assert np.abs(relative).max() < 5e-3
    # Errors within a board go together, so six boards are few: 93 to 97 % is for twenty.
    assert 0.85 < np.mean(inside) <= 1.0


def test_hidden_nodes_without_meters_are_no_hindrance() -> None:
    bench = small_bench(2, tapped=NETWORK.terminals.tolist())
    result = result_of(run(bench, replace(QUICK, patterns=40)))
    assert np.isnan(result.meters.gain[NETWORK.hidden]).all()
    assert not result.report.unidentifiable
    assert np.abs(result.pots.table / bench.truth - 1.0).max() < 5e-3


def test_the_forecast_is_kept() -> None:
    progress = run(small_bench(4))
    pots = result_of(progress).pots
    forecast = next(each.forecast for each in progress if each.forecast is not None)
    assert (pots.table_u / pots.table).max() == pytest.approx(forecast.worst, rel=0.3)


def test_progress_tells_stages_and_time() -> None:
    progress = run(small_bench())
    stages = list(dict.fromkeys(each.stage for each in progress))
    assert stages == ["meters", "design", "pots", "fit", "verification", "done"]
    designing = [each for each in progress if each.stage == "design" and each.forecast is None]
    assert [(each.done, each.total) for each in designing] == [(done, 16) for done in range(17)]
    measuring = [each for each in progress if each.stage == "pots"]
    assert [each.done for each in measuring] == list(range(1, 17))
    assert all(each.remaining >= 0 for each in measuring)
    elapsed = [each.elapsed for each in progress]
    assert elapsed == sorted(elapsed)
    result = result_of(progress)
    assert result.n_patterns == 16
    # Three levels and four loads, eight times each; the levels once more at the end; patterns; verification.
    assert result.n_drives == (3 + 4 + 3) * 8 + 16 * 4 + 3 * 4


def test_the_same_seed_measures_the_same() -> None:
    first, second = (result_of(run(small_bench(3))) for _ in range(2))
    np.testing.assert_array_equal(first.pots.values, second.pots.values)


def test_a_target_ends_the_patterns_early() -> None:
    few = result_of(run(small_bench(), replace(QUICK, target=3e-3)))
    assert few.n_patterns < 16
    assert (few.pots.table_u / few.pots.table).max() < 4e-3


def test_a_budget_without_time_for_a_pattern_is_refused() -> None:
    with pytest.raises(MeasurementError, match="not enough to measure a single pattern"):
        run(small_bench(), replace(QUICK, budget=1e-6))


@pytest.mark.parametrize(
    ("imperfections", "spec"),
    [
        (Imperfections(PotDefects(0.2, 0.3, 0.01)), InstrumentSpec()),
        (
            Imperfections(PotDefects(0.2, 0.3, 0.01), MeterDefects(1e-3, 1e-3, 1e-4, 1e-4), SourceDefects(5.0, 1e-3)),
            InstrumentSpec(),
        ),
        (Imperfections(PotDefects(0.2), MeterDefects(1e-3, 1e-3, 0.0, 1e-4)), InstrumentSpec()),
        (Imperfections(PotDefects(0.2), MeterDefects(noise=1e-4, input_resistance=1e7)), InstrumentSpec()),
    ],
    ids=["ideal instruments", "real sources", "coarse meters without noise", "meters of 10 MΩ"],
)
def test_a_simulated_board_is_found_whatever_its_instruments(
    imperfections: Imperfections, spec: InstrumentSpec
) -> None:
    board = SimulatedBoard(NETWORK, 2e-4, imperfections=imperfections, seed=5, pots=SMALL_POT)
    result = result_of(run(board, spec=spec))
    truth = board._truth.table
    assert truth is not None
    assert (np.abs(result.pots.table - truth) < 3.0 * result.pots.table_u).all()
    assert (result.pots.table_u < 1e-3 * result.pots.table).all()
    assert not result.report.findings
    if imperfections.sources.series:
        np.testing.assert_allclose(result.sources.series, 5.0, atol=0.05)
    if imperfections.meters.input_resistance < np.inf:
        assert result.meters.leak == pytest.approx(1e-7, rel=0.02)


def test_bent_pots_get_terms_for_their_bow() -> None:
    bench = small_bench(6, imperfections=Imperfections(PotDefects(0.2, inl=1.5), MeterDefects(1e-3, 1e-3, 1e-4, 1e-4)))
    result = result_of(run(bench, replace(QUICK, patterns=40)))
    assert result.pots.names == ("R0", "RAB", "INL1", "INL2")
    assert not result.report.findings
    assert np.sqrt(np.mean((result.pots.table / bench.truth - 1.0) ** 2)) < 1e-3


def test_a_grounded_terminal_stays_at_ground() -> None:
    class Grounded(BenchLike):
        def respond(self, drives: npt.ArrayLike) -> Response:
            assert (np.asarray(drives)[:, 1] == 0.0).all()
            return super().respond(drives)

    limits = DriveLimits(np.zeros(5), np.array([4.0, 0.0, 4.0, 4.0, 4.0]))
    bench = Grounded(NETWORK, 1, pots=SMALL_POT)
    result = result_of(run(bench, limits=limits))
    assert np.abs(result.pots.table / bench.truth - 1.0).max() < 5e-3
    assert not result.report.unidentifiable


class Spoilt(BenchLike):
    """Readings go wrong from the 100th drive on."""

    what: str = ""

    def respond(self, drives: npt.ArrayLike) -> Response:
        response = super().respond(drives)
        if self.n_drives < 100:
            return response
        if self.what == "compliance":
            return replace(response, in_compliance=~response.in_compliance)
        potentials = response.potentials.copy()
        potentials[0, 4] = {"nan": np.nan, "overflow": 9.9e37}[self.what]
        return replace(response, potentials=potentials)


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("compliance", ComplianceError, "reached its current limit"),
        ("nan", MeasurementError, "the meter at node 4 returned no number"),
        ("overflow", MeasurementError, "the meter at node 4 returned 9.9e"),
    ],
)
def test_bad_readings_end_the_calibration_safely(what: str, error: type[Exception], sentence: str) -> None:
    safe = []

    class Board(Spoilt):
        def make_safe(self) -> None:
            safe.append(True)

    bench = Board(NETWORK, 1, pots=SMALL_POT)
    bench.what = what
    # All nodes are said to have a meter; what is silent from the start on would otherwise count as none.
    with pytest.raises(error, match=sentence):
        run(bench, metered=np.ones(9, dtype=np.bool_))
    assert safe


def test_a_board_wired_otherwise_is_refused() -> None:
    edges = NETWORK.edges.copy()
    edges[3], edges[7] = [0, 8], [2, 4]

    class Rewired(BenchLike):
        @property
        def network(self) -> Network:
            return Network(9, edges, NETWORK.inputs, NETWORK.outputs)

    with pytest.raises(MeasurementError, match="do not fit the wiring and the pots described"):
        run(Rewired(NETWORK, 1, pots=SMALL_POT), replace(QUICK, patterns=8))


def test_a_board_without_ammeters_is_refused() -> None:
    class Blind(BenchLike):
        def respond(self, drives: npt.ArrayLike) -> Response:
            response = super().respond(drives)
            return replace(response, currents=np.full_like(response.currents, np.nan))

    with pytest.raises(InputError, match="give one source an ammeter"):
        run(Blind(NETWORK, 1, pots=SMALL_POT))


def test_arguments_must_fit_the_board() -> None:
    bench = small_bench()
    with pytest.raises(InputError, match="2 potentiometers were given for 12 edges"):
        list(calibrate(bench, [SMALL_POT] * 2, LIMITS))
    with pytest.raises(InputError, match="volts were given for 3 terminals"):
        list(calibrate(bench, SMALL_POT, DriveLimits(np.zeros(3), np.ones(3))))
    with pytest.raises(InputError, match="devices have codes"):
        list(calibrate(SimulatedBoard(NETWORK, 1e-3), SMALL_POT, LIMITS))


@pytest.mark.parametrize(
    "figures", [{"patterns": 0}, {"repeats": 1}, {"budget": 0.0}, {"target": -1.0}, {"inl": -1}, {"drives": 0}]
)
def test_settings_that_measure_nothing_are_refused(figures: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"calibration: {next(iter(figures))}"):
        Settings(**figures)
