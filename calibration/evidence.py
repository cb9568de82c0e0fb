"""Sequential tests of many directions of change at once, with a false-alarm probability kept for a whole run."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from hilcl.arrays import FloatArray

NEWEST_SNAPSHOTS = 8
"""Starting points kept one by one; older ones are thinned so that their ages grow geometrically."""


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
        self._directions, self._expected = directions, expected
        self._log_alpha, self._keep = math.log(alpha), math.exp(-1.0 / memory)
        self._step, self._moments = 0, 0
        self._precision = _inverse(prior)
        self._information, self._score = np.zeros_like(prior), np.zeros(len(prior))
        self._snapshots: list[_Snapshot] = []

    @property
    def step(self) -> int:
        """Number of steps seen."""
        return self._step

    def add(self, information: FloatArray, score: FloatArray) -> None:
        """Take the information (P, P) and the score (P,) of one step's readings."""
        self._take_snapshot()
        self._step += 1
        for snapshot in self._snapshots:
            snapshot.information *= self._keep
            snapshot.score *= self._keep
        self._information = self._keep * self._information + information
        self._score = self._keep * self._score + score

    def estimate(self) -> tuple[FloatArray, FloatArray]:
        """Return the state (P,) that the prior and all readings speak for, and its covariance (P, P)."""
        covariance = cho_solve(cho_factor(self._precision + self._information), np.eye(len(self._score)))
        return covariance @ self._score, covariance

    def changes(self) -> list[Change]:
        """Return for every direction the moment that most speaks for a change, strongest first."""
        total, eta = self._precision + self._information, self._score
        factor = cho_factor(total)
        best: dict[int, Change] = {}
        share = -math.log(len(self._expected))
        for snapshot in self._snapshots:
            since, b = self._information - snapshot.information, self._score - snapshot.score
            before = total - since
            moved = since @ self._directions
            s = self._directions.T @ (b - since @ cho_solve(factor, eta))
            # BΛ⁻¹A instead of B − BΛ⁻¹B, which cancels where the prior is weak.
            j = np.maximum((moved * cho_solve(factor, before @ self._directions)).sum(axis=0), 0.0)
            spread = self._expected**2
            weights = 0.5 * s**2 * spread / (1 + spread * j) - 0.5 * np.log1p(spread * j)
            weights += snapshot.log_share + share + self._log_alpha
            for direction in range(len(weights)):
                known = best.get(direction)
                if j[direction] > 0 and (known is None or weights[direction] > known.weight):
                    size, size_u = s[direction] / j[direction], 1 / math.sqrt(j[direction])
                    best[direction] = Change(direction, snapshot.step, float(size), size_u, float(weights[direction]))
        return sorted(best.values(), key=lambda change: -change.weight)

    def restart(self, prior: FloatArray) -> None:
        """Forget all readings and go on with another prior covariance; the false-alarm account goes on, too."""
        self._precision = _inverse(prior)
        self._information, self._score = np.zeros_like(prior), np.zeros(len(prior))
        self._snapshots = []

    def _take_snapshot(self) -> None:
        # Shares 1/((n+1)(n+2)) of α for n = 0, 1, 2, … add up to 1.
        log_share = -math.log((self._moments + 1) * (self._moments + 2))
        self._moments += 1
        self._snapshots.append(_Snapshot(self._step, self._information.copy(), self._score.copy(), log_share))
        # The first one, before any reading, asks whether the board is still the calibrated one.
        old, newest = self._snapshots[1:-NEWEST_SNAPSHOTS], self._snapshots[-NEWEST_SNAPSHOTS:]
        kept: list[_Snapshot] = []
        for snapshot in reversed(old):
            if not kept or self._step - snapshot.step >= 1.5 * (self._step - kept[-1].step):
                kept.append(snapshot)
        first = self._snapshots[:1] if len(self._snapshots) > NEWEST_SNAPSHOTS else []
        self._snapshots = [*first, *reversed(kept), *newest]


def _inverse(covariance: FloatArray) -> FloatArray:
    """Return the inverse of a covariance whose quantities may have very different units."""
    scale = np.sqrt(np.diagonal(covariance))
    units = np.outer(scale, scale)
    inverse: FloatArray = cho_solve(cho_factor(covariance / units), np.eye(len(covariance))) / units
    return inverse
