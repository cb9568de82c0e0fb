from itertools import pairwise

import numpy as np
import pytest

from hilcl.calibration.criterion import NORM
from hilcl.calibration.design import MARGIN, Designer, DriveLimits, Plan, TimeModel
from hilcl.calibration.fit import make_prior
from hilcl.calibration.linear import inverse
from hilcl.calibration.model import BoardModel
from hilcl.calibration.readings import Noise
from hilcl.errors import InputError
from hilcl.network import Network
from tests.calibration.benches import SMALL_POT, SPEC, small_board


def designer(
    seed: int = 0, *, network: Network | None = None, limits: DriveLimits | None = None, first_code: int = 0
) -> Designer:
    network = network or small_board()
    model = BoardModel(network, [SMALL_POT] * network.n_edges)
    metered, ammeters = np.ones(network.n_nodes, dtype=np.bool_), np.ones(len(network.terminals), dtype=np.bool_)
    allowed = np.ones((network.n_edges, SMALL_POT.positions), dtype=np.bool_)
    allowed[:, :first_code] = False
    return Designer(
        model,
        model.nominal(),
        make_prior(model, SPEC, metered, ammeters),
        Noise(np.full(network.n_nodes, 1e-4), np.full(len(network.terminals), 2e-7)),
        limits or DriveLimits.between(network, 0.0, 3.0),
        allowed,
        metered,
        ammeters,
        TimeModel(0.5, 0.25),
        np.random.default_rng(seed),
    )


def reference() -> list[Plan]:
    return [Plan(np.full(12, 64), np.repeat(np.repeat([[0.0], [1.5], [3.0]], 5, axis=1), 8, axis=0))]


@pytest.mark.parametrize("seed", range(3))
def test_designed_patterns_need_at_most_half_the_readings(seed: int) -> None:
    plans = designer(seed)
    designed = plans.designed(reference(), 8, 3, candidates=30).forecasts[-1].worst
    at_random = plans.at_random(reference(), 16, 3).forecasts
    assert designed < at_random[-1].worst


def exhaustive(plans: Designer, done: list[Plan], n_patterns: int, n_drives: int, candidates: int) -> list[Plan]:
    """Return what a greedy search chooses that computes what every candidate would leave, as its covariance tells."""

    def left(chosen: list[Plan]) -> float:
        rows = np.vstack([plans.whitened(plan) for plan in chosen])
        covariance = inverse(np.eye(rows.shape[1]) + rows.T @ rows)
        directions = plans._code_directions()
        return float((np.diagonal(directions @ covariance @ directions.T) ** NORM).sum())

    pool = [plans.candidate(n_drives) for _ in range(candidates)]
    for _ in range(n_patterns):
        best = int(np.argmin([left([*done, plan]) for plan in pool]))
        done = [*done, pool[best]]
        pool[best] = plans.candidate(n_drives)
    return done


@pytest.mark.parametrize(
    ("network", "before"),
    [(small_board(), reference()), (small_board(), []), (Network.crossbar(4, 2), [])],
    ids=["grid", "grid without reference", "crossbar"],
)
def test_designs_are_those_of_an_exhaustive_search(network: Network, before: list[Plan]) -> None:
    design = designer(3, network=network).designed(before, 8, 3, candidates=12)
    chosen = exhaustive(designer(3, network=network), before, 8, 3, 12)[len(before) :]
    for plan, expected in zip(design.plans, chosen, strict=True):
        np.testing.assert_array_equal(plan.codes, expected.codes)
        np.testing.assert_array_equal(plan.drives, expected.drives)


def test_a_design_grows_pattern_by_pattern() -> None:
    grown = list(designer().designing(reference(), 4, 3, candidates=10, target=0.0))
    assert [len(each.plans) for each in grown] == [1, 2, 3, 4]
    for shorter, longer in pairwise(grown):
        assert longer.plans[:-1] == shorter.plans
        assert longer.forecasts[:-1] == shorter.forecasts


def test_forecasts_are_those_of_the_whole_plan() -> None:
    plans = designer()
    design = plans.designed(reference(), 5, 3, candidates=10)
    whole = plans.forecast([*reference(), *design.plans])
    assert design.forecasts[-1].worst == pytest.approx(whole.worst, rel=1e-6)
    assert whole.n_patterns == 6
    assert whole.n_drives == 24 + 15
    assert whole.seconds == pytest.approx(6 * 0.5 + 39 * 0.25)
    worst = [each.worst for each in design.forecasts]
    assert worst == sorted(worst, reverse=True)


def test_a_design_stops_at_its_target() -> None:
    plans = designer()
    target = plans.designed(reference(), 4, 3, candidates=10).forecasts[2].worst
    stopped = designer().designed(reference(), 50, 3, candidates=10, target=1.05 * target)
    assert len(stopped.plans) < 50
    assert stopped.forecasts[-1].worst <= 1.05 * target
    assert stopped.forecasts[-2].worst > 1.05 * target


def test_forbidden_codes_and_volts_are_not_used() -> None:
    low, high = np.array([0.0, 0.0, -1.0, 0.0, 0.0]), np.array([3.0, 0.0, 2.0, 3.0, 3.0])
    plans = designer(limits=DriveLimits(low, high), first_code=7)
    design = plans.designed([], 4, 3, candidates=8)
    for plan in (*design.plans, plans.random_plan(5), plans.random_plan(5, ends=True)):
        assert plan.codes.min() >= 7
        assert (plan.drives >= low).all()
        assert (plan.drives <= high).all()
        assert (plan.drives[:, 1] == 0.0).all()


def test_predicted_currents_stay_below_their_limits() -> None:
    network = small_board()
    limits = DriveLimits.between(network, 0.0, 3.0, amperes_per_pot=3e-4, amperes_per_source=8e-4)
    plans = designer(limits=limits)
    model = BoardModel(network, [SMALL_POT] * 12)
    reached = 0.0
    for plan in (*[plans.candidate(4) for _ in range(20)], plans.random_plan(4)):
        conductances = model.conductances(model.nominal(), plan.codes)[0]
        for _, _, _, state in model.states(model.nominal(), conductances, plan.drives):
            through = np.abs(network.edge_voltages(state[:, :9])) * conductances
            reached = max(reached, through.max() / 3e-4, np.abs(state[:, 9:]).max() / 8e-4)
    assert reached <= MARGIN * (1 + 1e-9)
    assert reached > 0.9 * MARGIN


def test_what_cannot_be_known_does_not_hide_the_rest() -> None:
    network = Network(5, [[0, 1], [1, 2], [0, 2], [2, 3], [1, 3], [3, 4]], [0, 2], [1])
    design = designer(network=network).designed([], 10, 3, candidates=10)
    assert design.forecasts[-1].worst < 0.01


def test_a_calibration_without_a_range_of_volts_is_refused() -> None:
    with pytest.raises(InputError, match="held at one voltage"):
        DriveLimits(np.zeros(3), np.zeros(3))
    with pytest.raises(InputError, match="low below high"):
        DriveLimits(np.zeros(3), np.array([1.0, -1.0, 1.0]))
