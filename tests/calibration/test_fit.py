from dataclasses import replace

import numpy as np
import pytest

from hilcl.arrays import FloatArray
from hilcl.calibration.fit import (
    InstrumentSpec,
    Prior,
    Solution,
    fit,
    fit_report,
    kirchhoff_start,
    make_prior,
    meter_parameters,
    pot_parameters,
    rescaled,
    source_parameters,
    with_covariance_factor,
)
from hilcl.calibration.model import BoardModel
from hilcl.calibration.parameters import OPEN_OHMS
from hilcl.calibration.readings import Noise, PatternReadings
from hilcl.errors import MeasurementError
from tests.calibration.benches import SMALL_POT, small_board

NETWORK = small_board()
EVERY_NODE, EVERY_TERMINAL = np.ones(9, dtype=np.bool_), np.ones(5, dtype=np.bool_)
NOISE = Noise(np.full(9, 1e-4), np.full(5, 1e-7))
EXACT = InstrumentSpec(0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.01, 0.0)


def model_and_prior(spec: InstrumentSpec = EXACT, terms: int = 0) -> tuple[BoardModel, Prior]:
    model = BoardModel(NETWORK, [SMALL_POT] * 12, terms, leaky=EVERY_NODE)
    return model, make_prior(model, spec, EVERY_NODE, EVERY_TERMINAL)


def true_theta(model: BoardModel, generator: np.random.Generator) -> FloatArray:
    theta = model.nominal()
    layout = model.layout
    theta[layout.pots] *= generator.uniform(0.8, 1.2, layout.edges * layout.terms)
    theta[layout.of_node(0)] += 1e-3 * generator.standard_normal(9)
    theta[layout.of_node(1)] += 1e-3 * generator.standard_normal(9)
    return theta


def readings_of(
    model: BoardModel, theta: FloatArray, generator: np.random.Generator, *, patterns: int = 16, noise: float = 1.0
) -> list[PatternReadings]:
    """Return readings of random patterns, with ``noise`` times NOISE on them."""
    records = []
    for _ in range(patterns):
        codes, drives = generator.integers(0, SMALL_POT.positions, 12), generator.choice([0.0, 3.0], (4, 5))
        # A row of uniform volts shows the meters.
        drives[0] = generator.uniform(0.0, 3.0)
        answer = model.predict(theta, codes, drives, EVERY_NODE, EVERY_TERMINAL, jacobian=False)
        potentials, currents = np.full((4, 9), np.nan), np.full((4, 5), np.nan)
        values = answer.values + noise * NOISE.at(answer.is_volts, answer.place) * generator.standard_normal(
            len(answer.values)
        )
        volts = answer.is_volts
        potentials[answer.sample[volts], answer.place[volts]] = values[volts]
        currents[answer.sample[~volts], answer.place[~volts]] = values[~volts]
        records.append(PatternReadings(codes, drives, potentials, currents))
    return records


def fitted(seed: int, *, noise: float = 1.0, spec: InstrumentSpec = EXACT) -> tuple[Solution, FloatArray]:
    generator = np.random.default_rng(seed)
    model, prior = model_and_prior(spec)
    theta = true_theta(model, generator)
    return fit(model, readings_of(model, theta, generator, noise=noise), NOISE, prior), theta


def test_readings_without_noise_give_the_truth() -> None:
    solution, theta = fitted(0, noise=0.0)
    assert solution.converged
    np.testing.assert_allclose(solution.theta, theta, rtol=1e-6, atol=1e-7)
    assert solution.chi_square < 1e-6


def test_the_estimate_scatters_as_its_covariance_says() -> None:
    distances, reduced = [], []
    for seed in range(12):
        solution, theta = fitted(seed)
        free = solution.prior.free
        error = (solution.theta - theta)[free]
        scale = np.sqrt(np.diagonal(solution.covariance)[free])
        whitened = solution.covariance[np.ix_(free, free)] / np.outer(scale, scale)
        distances.append((error / scale) @ np.linalg.solve(whitened, error / scale) / len(free))
        reduced.append(solution.reduced())
    # 12 x 42 parameters: the mean has the standard deviation √(2/504) = 0.06.
    assert np.mean(distances) == pytest.approx(1.0, abs=0.25)
    assert np.mean(reduced) == pytest.approx(1.0, abs=0.04)


def test_both_parts_of_the_covariance_add_up_to_the_posterior() -> None:
    solution, _ = fitted(1, spec=InstrumentSpec())
    prior, free = solution.prior, solution.prior.free
    precision = solution.information + np.diag(prior.deviation[free] ** -2.0)
    scale = 1.0 / np.sqrt(np.diagonal(precision))
    expected = np.linalg.inv(precision * np.outer(scale, scale)) * np.outer(scale, scale)
    np.testing.assert_allclose(np.diagonal(solution.covariance)[free], np.diagonal(expected), rtol=1e-6)
    for part in (solution.statistical, solution.instrument):
        assert (np.diagonal(part)[free] >= 0).all()


def test_a_common_error_of_all_ammeters_is_an_instrument_part() -> None:
    spec = replace(EXACT, ammeter_gain=1e-3)
    pots = pot_parameters(fitted(2, spec=spec)[0])
    # Five ammeters, each known to 0.1 %: no number of readings takes their mean below 0.1 %/√5.
    np.testing.assert_allclose(pots.table_instrument / pots.table, 1e-3 / np.sqrt(5.0), rtol=1e-2)


def test_a_few_outliers_are_left_out() -> None:
    generator = np.random.default_rng(3)
    model, prior = model_and_prior()
    theta = true_theta(model, generator)
    records = readings_of(model, theta, generator)
    clean = fit(model, records, NOISE, prior)
    for record in records[::4]:
        record.potentials[1, 4] += 0.05
    spoilt = fit(model, records, NOISE, prior)
    pots = model.layout.pots
    shift = np.abs(spoilt.theta - clean.theta)[pots] / np.sqrt(np.diagonal(clean.covariance)[pots])
    assert shift.max() < 1.0
    assert fit_report(spoilt).n_outliers == 4
    assert spoilt.reduced() == pytest.approx(clean.reduced(), abs=0.02)


def test_many_outliers_are_no_outliers() -> None:
    generator = np.random.default_rng(3)
    model, prior = model_and_prior()
    records = readings_of(model, true_theta(model, generator), generator)
    for record in records:
        record.potentials[1, 4] += 0.05
    spoilt = fit(model, records, NOISE, prior)
    assert spoilt.n_outliers == 0
    assert spoilt.reduced() > 10.0
    assert fit_report(spoilt).residuals[0].worst_at == "node 4"


def test_kirchhoffs_law_starts_near_the_truth() -> None:
    generator = np.random.default_rng(4)
    model, prior = model_and_prior()
    theta = true_theta(model, generator)
    theta[model.layout.pots] *= 2.0
    records = readings_of(model, theta, generator)
    start = kirchhoff_start(model, records, prior)
    assert start is not None
    values, expected = start[model.layout.pots], theta[model.layout.pots]
    np.testing.assert_allclose(values.reshape(12, 2).sum(axis=1), expected.reshape(12, 2).sum(axis=1), rtol=0.05)
    begun = fit(model, records, NOISE, prior, start)
    assert begun.iterations < fit(model, records, NOISE, prior).iterations


def test_kirchhoffs_law_needs_every_node() -> None:
    generator = np.random.default_rng(4)
    model, prior = model_and_prior()
    records = readings_of(model, true_theta(model, generator), generator)
    records[3].potentials[:, 4] = np.nan
    assert kirchhoff_start(model, records, prior) is None


def test_too_few_readings_are_refused() -> None:
    generator = np.random.default_rng(5)
    model, prior = model_and_prior()
    (record,) = readings_of(model, true_theta(model, generator), generator, patterns=1)
    few = PatternReadings(record.codes, record.drives[:2], record.potentials[:2], record.currents[:2])
    with pytest.raises(MeasurementError, match="28 readings cannot determine 42 parameters"):
        fit(model, [few], NOISE, prior)


def test_bows_are_found() -> None:
    generator = np.random.default_rng(6)
    model, prior = model_and_prior(terms=2)
    theta = true_theta(model, generator)
    values = theta[model.layout.pots].reshape(12, 4)
    values[:, 2:] = generator.uniform(-80.0, 80.0, (12, 2))
    solution = fit(model, readings_of(model, theta, generator, patterns=40), NOISE, prior)
    pots = pot_parameters(solution)
    assert pots.names == ("R0", "RAB", "INL1", "INL2")
    assert (np.abs(pots.values - values) < 5.0 * pots.standard_uncertainties).all()
    assert pots.standard_uncertainties[:, 2:].max() < 10.0


def test_an_edge_that_ignores_its_code_becomes_a_resistance() -> None:
    generator = np.random.default_rng(7)
    constant = np.isin(np.arange(12), (3, 6))
    model = BoardModel(NETWORK, [SMALL_POT] * 12, leaky=EVERY_NODE, constant=constant)
    theta = true_theta(model, generator)
    theta[6], theta[12] = 1.0 / 3333.0, 0.0
    prior = make_prior(model, EXACT, EVERY_NODE, EVERY_TERMINAL)
    solution = fit(model, readings_of(model, theta, generator), NOISE, prior)
    pots = pot_parameters(solution)
    assert pots.values[3, 0] == pytest.approx(3333.0, rel=2e-3)
    assert pots.values[3, 1] == 0.0
    assert abs(pots.values[3, 0] - 3333.0) < 5.0 * pots.standard_uncertainties[3, 0]
    # The conductance of the open edge is zero within its uncertainty.
    assert pots.values[6, 0] > 1e6
    assert pots.values[6, 0] <= OPEN_OHMS
    assert np.isfinite(pots.table_u).all()


def test_meters_and_sources_come_with_their_noise() -> None:
    solution, theta = fitted(8, spec=InstrumentSpec())
    meters = meter_parameters(solution, NOISE, EVERY_NODE)
    layout = solution.model.layout
    np.testing.assert_allclose(meters.gain, theta[layout.of_node(0)], atol=5e-4)
    np.testing.assert_array_equal(meters.noise, NOISE.volts)
    sources = source_parameters(solution, NOISE)
    np.testing.assert_array_equal(sources.gain, solution.theta[layout.of_terminal(0)])
    assert sources.covariance.shape == (25, 25)


def test_residuals_correct_what_repeats_said_about_the_noise() -> None:
    generator = np.random.default_rng(9)
    model, prior = model_and_prior()
    records = readings_of(model, true_theta(model, generator), generator)
    assumed = NOISE.scaled(0.9, 1.1)
    corrected = rescaled(fit(model, records, assumed, prior), assumed, 0.7, 1.5)
    np.testing.assert_allclose(corrected.volts, NOISE.volts, rtol=0.06)
    np.testing.assert_allclose(corrected.amperes, NOISE.amperes, rtol=0.1)


def test_enlarging_touches_the_statistical_part_only() -> None:
    solution, _ = fitted(10, spec=InstrumentSpec())
    larger = with_covariance_factor(solution, 4.0)
    np.testing.assert_allclose(larger.statistical, 4.0 * solution.statistical)
    np.testing.assert_allclose(larger.instrument, solution.instrument)
