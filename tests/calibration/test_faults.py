import re
from typing import Any

import numpy as np
import pytest

from hilcl.calibration.design import DriveLimits
from hilcl.calibration.faults import classify_constant
from hilcl.calibration.parameters import Finding
from hilcl.calibration.procedure import Settings, calibrate
from hilcl.network import Network
from tests.calibration.benches import POT, SPEC, BenchLike, Faults, board_32, defects

NETWORK = board_32()
QUICK = Settings(patterns=14, candidates=12, verification=2)


def findings_on(seed: int = 3, *, tapped: list[int] | None = None, **more: Any) -> tuple[Finding, ...]:
    bench = BenchLike(NETWORK, seed, tapped=tapped, **more)
    *_, last = calibrate(bench, POT, DriveLimits.between(NETWORK, 0.0, 4.0), spec=SPEC, settings=QUICK)
    assert last.result is not None
    assert last.result.verification is not None
    drifted = any(finding.kind == "drifted reference" for finding in last.result.report.findings)
    assert last.result.verification.passed or drifted
    return last.result.report.findings


def summary(findings: tuple[Finding, ...]) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [(finding.kind, finding.edges, finding.nodes) for finding in findings]


TERMINALS = NETWORK.terminals.tolist()


@pytest.mark.parametrize("tapped", [None, TERMINALS], ids=["all nodes", "terminals"])
def test_a_healthy_board_has_no_fault(tapped: list[int] | None) -> None:
    assert not findings_on(tapped=tapped)


@pytest.mark.parametrize("tapped", [None, TERMINALS], ids=["all nodes", "terminals"])
def test_a_stuck_pot_is_named(tapped: list[int] | None) -> None:
    (found,) = findings_on(tapped=tapped, imperfections=defects(stuck={17: 140}))
    assert (found.kind, found.edges) == ("stuck", (17,))
    assert "edge 17 is stuck at" in found.sentence


def test_two_stuck_pots_are_named() -> None:
    found = findings_on(imperfections=defects(stuck={2: 200, 21: 30}))
    assert summary(found) == [("stuck", (2,), ()), ("stuck", (21,), ())]


@pytest.mark.parametrize("tapped", [None, TERMINALS], ids=["all nodes", "terminals"])
def test_an_open_pot_is_named(tapped: list[int] | None) -> None:
    assert summary(findings_on(tapped=tapped, imperfections=defects(opened=(9,)))) == [("open", (9,), ())]


def test_a_shorted_pot_is_named() -> None:
    assert summary(findings_on(faults=Faults(shorted=(28,)))) == [("shorted", (28,), ())]


@pytest.mark.parametrize("tapped", [None, TERMINALS], ids=["all nodes", "terminals"])
def test_swapped_pots_are_named(tapped: list[int] | None) -> None:
    found = findings_on(tapped=tapped, faults=Faults(swapped_pots=(4, 19)))
    assert summary(found) == [("swapped pots", (4, 19), ())]


def test_swapped_channels_are_named() -> None:
    found = findings_on(faults=Faults(swapped_channels=(5, 10)))
    assert summary(found) == [("swapped channels", (), (5, 10))]


@pytest.mark.parametrize("volts", [0.0, 1.7])
def test_a_dead_channel_is_named_and_left_out(volts: float) -> None:
    assert summary(findings_on(faults=Faults(dead={7: volts}))) == [("dead channel", (), (7,))]


def test_a_drifted_reference_is_named() -> None:
    found = findings_on(faults=Faults(drift=1e-3, drift_after=100))
    assert [finding.kind for finding in found] == ["drifted reference"]
    size = re.search(r"moved by ([\d.e+]+) µV", found[0].sentence)
    assert size is not None
    assert float(size.group(1)) == pytest.approx(1000.0, rel=0.02)


def test_constant_edges_are_told_apart_by_their_resistance() -> None:
    nominal = POT.resistances()
    assert classify_constant(POT, 0, 1e8).kind == "open"
    assert classify_constant(POT, 0, np.inf).kind == "open"
    assert classify_constant(POT, 0, -5.0).kind == "open"
    assert classify_constant(POT, 0, nominal.min()).kind == "shorted"
    assert classify_constant(POT, 0, 0.5).kind == "shorted"
    stuck = classify_constant(POT, 3, float(nominal[77]))
    assert stuck.kind == "stuck"
    assert "about code 77" in stuck.sentence


def test_a_pair_of_swapped_parallel_pots_makes_no_difference() -> None:
    network = Network(3, [[0, 1], [0, 1], [1, 2], [0, 2]], [0, 2], [1])
    bench = BenchLike(network, 1, faults=Faults(swapped_pots=(0, 1)))
    *_, last = calibrate(bench, POT, DriveLimits.between(network, 0.0, 4.0), spec=SPEC, settings=QUICK)
    assert last.result is not None
    assert not last.result.report.findings
    # What code 0 writes to moves with it: each table is that of the pot that answers.
    table, u = last.result.pots.table, last.result.pots.table_u
    assert (np.abs(table[[0, 1]] - bench.truth[[1, 0]]) < 6.0 * u[[0, 1]]).all()
