import math

import numpy as np
import numpy.typing as npt
import pytest

from hilcl.calibration.evidence import ChangeEvidence

FloatArray = npt.NDArray[np.float64]


class Stream:
    """Readings y = H x + noise of a constant state that may jump."""

    def __init__(self, seed: int, *, states: int = 4, rows: int = 6) -> None:
        self.generator = np.random.default_rng(seed)
        self.states, self.rows = states, rows
        root = self.generator.standard_normal((states, states))
        self.prior = 1e-4 * (root @ root.T + np.eye(states))
        self.state = self.generator.multivariate_normal(np.zeros(states), self.prior)

    def evidence(self, *, alpha: float = 1e-2, memory: float = 1e9) -> ChangeEvidence:
        return ChangeEvidence(self.prior, np.eye(self.states), np.full(self.states, 0.05), alpha=alpha, memory=memory)

    def readings(self, noise: float = 0.1) -> tuple[FloatArray, FloatArray]:
        h = self.generator.standard_normal((self.rows, self.states))
        y = h @ self.state + noise * self.generator.standard_normal(self.rows)
        return h.T @ h / noise**2, h.T @ y / noise**2


def test_the_estimate_is_the_posterior() -> None:
    stream = Stream(0)
    evidence = stream.evidence()
    information, score = np.zeros((4, 4)), np.zeros(4)
    for _ in range(30):
        added = stream.readings()
        evidence.add(*added)
        information, score = information + added[0], score + added[1]
    covariance = np.linalg.inv(np.linalg.inv(stream.prior) + information)
    state, found = evidence.estimate()
    np.testing.assert_allclose(found, covariance, rtol=1e-6)
    np.testing.assert_allclose(state, covariance @ score, rtol=1e-6)


def log_density(y: FloatArray, covariance: FloatArray) -> float:
    return float(-0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1]))


def test_the_evidence_is_the_likelihood_ratio_of_the_two_models() -> None:
    generator = np.random.default_rng(3)
    prior, direction, kappa, noise = np.diag([0.3, 0.1]) ** 2, np.array([1.0, 0.0]), 0.5, 0.2
    hs = generator.standard_normal((7, 2, 2))
    ys = generator.standard_normal((7, 2))
    evidence = ChangeEvidence(prior, direction[:, None], np.array([kappa]), alpha=0.5, memory=1e12)
    for h, y in zip(hs, ys, strict=True):
        evidence.add(h.T @ h / noise**2, h.T @ y / noise**2)
    flat, y = hs.reshape(14, 2), ys.ravel()
    quiet = flat @ prior @ flat.T + noise**2 * np.eye(14)
    ratios = []
    for moment in range(7):
        jump = (flat @ direction) * (np.arange(14) >= 2 * moment)
        changed = quiet + kappa**2 * np.outer(jump, jump)
        share = 1 / ((moment + 1) * (moment + 2))
        ratios.append(log_density(y, changed) - log_density(y, quiet) + math.log(0.5 * share))
    (best,) = evidence.changes()
    assert best.since == int(np.argmax(ratios))
    assert best.weight == pytest.approx(max(ratios), rel=1e-6)


def test_a_jump_is_found_with_its_moment_direction_and_size() -> None:
    for seed in range(10):
        stream = Stream(seed)
        evidence = stream.evidence()
        for step in range(120):
            if step == 80:
                stream.state[seed % 4] += 0.3
            evidence.add(*stream.readings())
        best = evidence.changes()[0]
        assert best.weight > 0
        assert best.direction == seed % 4
        assert abs(best.since - 80) <= 8
        assert best.size == pytest.approx(0.3, rel=0.35)


def test_false_alarms_stay_within_their_probability() -> None:
    # α = 0.2 over 150 runs: at most 30 expected; the bound is loose, so that many more would be an error.
    alarmed = 0
    for seed in range(150):
        stream = Stream(seed)
        evidence = stream.evidence(alpha=0.2)
        for _ in range(40):
            evidence.add(*stream.readings())
            if evidence.changes()[0].weight >= 0:
                alarmed += 1
                break
    assert alarmed <= 30


def test_the_state_that_was_expected_anyway_is_no_change() -> None:
    stream = Stream(1)
    stream.state = 10 * np.sqrt(np.diagonal(stream.prior))
    evidence = stream.evidence()
    for _ in range(60):
        evidence.add(*stream.readings())
    best = evidence.changes()[0]
    assert best.weight > 0
    assert best.since == 0


def test_a_short_memory_keeps_few_readings() -> None:
    stream = Stream(2)
    short, long = stream.evidence(memory=10.0), stream.evidence()
    for _ in range(200):
        added = stream.readings()
        short.add(*added)
        long.add(*added)
    ratio = np.diagonal(short.estimate()[1]) / np.diagonal(long.estimate()[1])
    assert (ratio > 5).all()


def test_old_moments_are_thinned_out_and_the_first_one_stays() -> None:
    stream = Stream(4)
    evidence = stream.evidence()
    counts = []
    for _ in range(600):
        evidence.add(*stream.readings())
        counts.append(len(evidence._snapshots))
    assert max(counts) <= 40
    assert evidence._snapshots[0].step == 0
    ages = np.array([600 - snapshot.step for snapshot in evidence._snapshots])
    assert ages[-1] == 1
    assert (ages[:-1] / ages[1:] <= 2).all()
    assert ages[-8:].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


def test_after_a_restart_only_what_comes_counts() -> None:
    stream = Stream(5)
    evidence = stream.evidence()
    for _ in range(20):
        evidence.add(*stream.readings())
    evidence.restart(4 * stream.prior)
    state, covariance = evidence.estimate()
    assert (state == 0).all()
    np.testing.assert_allclose(covariance, 4 * stream.prior, rtol=1e-8)
    assert evidence.changes() == []
    assert evidence.step == 20
