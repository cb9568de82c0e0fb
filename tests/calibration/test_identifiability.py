import numpy as np
import pytest

from hilcl.calibration.design import DriveLimits
from hilcl.calibration.parameters import CalibrationResult
from hilcl.calibration.procedure import Settings, calibrate
from hilcl.network import Network
from tests.calibration.benches import SMALL_POT, SPEC, small_bench

QUICK = Settings(patterns=16, candidates=15, verification=0)


def result_of(network: Network, tapped: list[int] | None) -> CalibrationResult:
    bench = small_bench(network=network, tapped=tapped)
    *_, last = calibrate(bench, SMALL_POT, DriveLimits.between(network, 0.0, 4.0), spec=SPEC, settings=QUICK)
    assert last.result is not None
    return last.result


def named(result: CalibrationResult) -> set[str]:
    return {each.name for each in result.report.unidentifiable}


SERIES = Network(5, [[0, 1], [1, 2], [2, 3], [0, 3], [3, 4], [2, 4]], [0, 2], [3])


def test_two_pots_in_series_share_their_fixed_resistance() -> None:
    result = result_of(SERIES, [0, 2, 3])
    assert named(result) == {f"R0 of edge {edge}" for edge in (0, 1, 4, 5)}
    first = result.report.unidentifiable[0]
    assert first.edges == (0,)
    assert first.nodes == (1,)
    assert "in series with edge 1 through node 1, which has no meter" in first.reason
    assert first.remedy == "give node 1 a meter channel"


def test_what_is_named_keeps_an_honest_uncertainty() -> None:
    pots = result_of(SERIES, [0, 2, 3]).pots
    # Only the sum of both is known: each alone is as uncertain as it was, the sum is not.
    assert pots.standard_uncertainties[0, 0] > 0.5 * SMALL_POT.resistances()[0]
    sum_of_both = pots.covariance[0, 0] + pots.covariance[2, 2] + 2 * pots.covariance[0, 2]
    assert np.sqrt(sum_of_both) < 0.01 * SMALL_POT.resistances()[0]


def test_the_remedy_works() -> None:
    assert not named(result_of(SERIES, [0, 1, 2, 3, 4]))


def test_a_dead_end_carries_no_current() -> None:
    network = Network(5, [[0, 1], [1, 2], [0, 2], [2, 3], [3, 4]], [0, 2], [1])
    result = result_of(network, None)
    assert named(result) == {f"{term} of edge {edge}" for term in ("R0", "RAB") for edge in (3, 4)}
    for each in result.report.unidentifiable:
        assert "no drive sends a current" in each.reason
        assert each.remedy.startswith(f"make node {each.edges[0]} a terminal" if each.edges == (4,) else "make node")


@pytest.mark.parametrize("tapped", [None, [0, 1, 2, 3]])
def test_a_star_is_known_from_its_terminals(tapped: list[int] | None) -> None:
    star = Network(5, [[0, 4], [1, 4], [2, 4], [3, 4], [0, 1]], [0, 1], [2, 3])
    assert not named(result_of(star, tapped))
