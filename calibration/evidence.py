"""Sequential tests of many directions of change at once, with a false-alarm probability kept for a whole run."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from hilcl.arrays import FloatArray

MOMENTS_PER_OCTAVE = 4
"""Possible moments of change that are looked at among those between n and 2n steps ago."""


@dataclass(frozen=True)
class Change:
    """How much speaks for a change along one direction.

    ``direction`` is its number, ``since`` the step after which it began, ``size`` its estimate in the direction's unit
    with the standard uncertainty ``size_u``; ``weight`` is the logarithm of the evidence over what an alarm needs:
    zero and more are an alarm.
    """

    direction: int
    since: int
    size: float
    size_u: float
    weight: float


@dataclass
class _Snapshot:
    """Information collected up to a possible moment of change, and the logarithm of that moment's share of α."""

    step: int
    information: FloatArray
    score: FloatArray
    squares: float
    freedom: float
    log_share: float


class ChangeEvidence:
    """Evidence for a jump of a state x (P,) along one of C directions, at a moment nobody knows.

    Without a change x is constant with the prior covariance ``prior`` (P, P) and mean zero, and each step adds
    readings y = H x + noise through their information HᵀR⁻¹H and score HᵀR⁻¹y. ``directions`` (P, C) are the jumps
    looked for, ``expected`` (C,) the standard deviation expected of their sizes. ``memory`` is the number of steps
    after which a reading counts 1/e. Every step is a possible moment of change; older moments are thinned out.

    For each moment and direction the evidence is the likelihood ratio averaged over the sizes, exp(½ s²κ²/(1 + κ²J)) /
    √(1 + κ²J), where s = dᵀ(b − BΛ⁻¹η) and J = dᵀ(B − BΛ⁻¹B)d, B and b being what came after the moment and Λ, η all
    there is. Without a change it is a martingale that starts at 1, so by Ville's inequality the average over all
    moments and directions, with shares that add up to 1, ever exceeds 1/α with a probability of at most α, however long
    the run. (Howard et al., Annals of Statistics 49, 2021; Shin, Ramdas and Rinaldo, NEJSDS 2, 2024.)
    """

    def __init__(
        self, prior: FloatArray, directions: FloatArray, expected: FloatArray, *, alpha: float, memory: float
    ) -> None:
        self._rows, self._expected = sparse.csr_array(directions.T), expected
        self._log_alpha, self._keep = math.log(alpha), math.exp(-1.0 / memory)
        self._step, self._start, self._moments = 0, 0, 0
        self._precision = _inverse(prior)
        self._information, self._score = np.zeros_like(prior), np.zeros(len(prior))
        self._squares, self._freedom = 0.0, 0.0
        self._snapshots: list[_Snapshot] = []

    @property
    def step(self) -> int:
        """Number of steps seen."""
        return self._step

    def add(self, information: FloatArray, score: FloatArray, squares: float = 0.0, freedom: float = 0.0) -> None:
        """Take the information (P, P) and the score (P,) of one step's readings.

        ``squares`` is their yᵀR⁻¹y and ``freedom`` their number; only ``misfit`` needs them.
        """
        self._take_snapshot()
        self._step += 1
        for snapshot in self._snapshots:
            snapshot.information *= self._keep
            snapshot.score *= self._keep
            snapshot.squares *= self._keep
            snapshot.freedom *= self._keep
        self._information = self._keep * self._information + information
        self._score = self._keep * self._score + score
        self._squares = self._keep * self._squares + squares
        self._freedom = self._keep * self._freedom + freedom

    def estimate(self) -> tuple[FloatArray, FloatArray]:
        """Return the state (P,) that the prior and all readings speak for, and its covariance (P, P)."""
        covariance = _inverse(self._precision + self._information)
        return covariance @ self._score, covariance

    def changes(self) -> list[Change]:
        """Return for every direction the moment that most speaks for a change, strongest first."""
        total, eta = self._precision + self._information, self._score
        inverse = _inverse(total)
        state = inverse @ eta
        count = len(self._expected)
        variance, share = self._expected**2, self._log_alpha - math.log(count)
        weight, size, size_u = np.full(count, -np.inf), np.zeros(count), np.zeros(count)
        since = np.zeros(count, dtype=np.int64)
        for snapshot in self._snapshots:
            after, b = self._information - snapshot.information, self._score - snapshot.score
            # BΛ⁻¹A instead of B − BΛ⁻¹B, which cancels where the prior is weak.
            a = np.asarray(self._rows @ (total - after))
            j = np.maximum((np.asarray(self._rows @ after) * (a @ inverse)).sum(axis=1), 0.0)
            s = np.asarray(self._rows @ (b - after @ state))
            found = 0.5 * s**2 * variance / (1 + variance * j) - 0.5 * np.log1p(variance * j)
            found += snapshot.log_share + share
            better = (found > weight) & (j > 0)
            weight[better], since[better] = found[better], snapshot.step
            size[better], size_u[better] = s[better] / j[better], 1 / np.sqrt(j[better])
        order = np.argsort(-weight, kind="stable")
        return [
            Change(
                direction,
                int(since[direction]),
                float(size[direction]),
                float(size_u[direction]),
                float(weight[direction]),
            )
            for direction in order[np.isfinite(weight[order])].tolist()
        ]

    def misfit(self, change: Change) -> tuple[float, float]:
        """Return chi-square of the readings since a change that is taken for given, and their degrees of freedom."""
        snapshot = next(each for each in self._snapshots if each.step == change.since)
        after, b = self._information - snapshot.information, self._score - snapshot.score
        jump = change.size * self._rows[[change.direction]].toarray()[0]
        state = _inverse(self._precision + self._information) @ (self._score - after @ jump) + jump
        squares = self._squares - snapshot.squares - 2 * state @ b + state @ after @ state
        return float(squares), self._freedom - snapshot.freedom

    def restart(self, prior: FloatArray) -> None:
        """Forget all readings and go on with another prior covariance; the false-alarm account goes on, too."""
        self._precision = _inverse(prior)
        self._information, self._score = np.zeros_like(prior), np.zeros(len(prior))
        self._squares, self._freedom = 0.0, 0.0
        self._snapshots, self._start = [], self._step

    def _take_snapshot(self) -> None:
        # Shares 1/((n+1)(n+2)) of α for n = 0, 1, 2, … add up to 1.
        log_share = -math.log((self._moments + 1) * (self._moments + 2))
        self._moments += 1
        information, score = self._information.copy(), self._score.copy()
        self._snapshots.append(_Snapshot(self._step, information, score, self._squares, self._freedom, log_share))
        # The first one, before any reading, asks whether the board is still the calibrated one.
        self._snapshots = [each for each in self._snapshots if each.step == self._start or self._is_kept(each.step)]

    def _is_kept(self, moment: int) -> bool:
        """Return whether a moment is still looked at: as they grow older, only multiples of 2, 4, 8, … are."""
        octave = (self._step - moment) // MOMENTS_PER_OCTAVE
        return moment % (1 << max(octave.bit_length() - 1, 0)) == 0


def _inverse(covariance: FloatArray) -> FloatArray:
    """Return the inverse of a covariance or precision whose quantities may have very different units."""
    scale = np.sqrt(np.diagonal(covariance))
    units = np.outer(scale, scale)
    inverse: FloatArray = cho_solve(cho_factor(covariance / units), np.eye(len(covariance))) / units
    return inverse
