import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from hilcl.calibration.compare import compare
from hilcl.calibration.parameters import FitReport
from hilcl.calibration.tables import (
    calibration_lines,
    comparison_lines,
    duration,
    edge_table,
    meter_table,
    quantity,
    text_table,
    verification_lines,
    with_uncertainty,
)
from tests.calibration.samples import IDENTITIES, MADE, calibration, meters, pots

SOON = MADE + timedelta(days=1)


def test_columns_are_aligned() -> None:
    assert text_table(["name", "value"], [["a", "1"], ["bcdefg", "22"]]) == [
        "name    value",
        "──────  ─────",
        "a           1",
        "bcdefg     22",
    ]


def test_everything_there_is_to_know_is_said() -> None:
    known = calibration(temperature_celsius=23.5, comment="after the move")
    text = "\n".join(calibration_lines(known, now=SOON))
    for part in (
        "12 edges",
        "made on 2026-05-01 12:00 UTC",
        "after the move",
        "valid until 2026-07-30",
        "23.5 °C",
        *IDENTITIES.values(),
        "40 patterns of codes, 120 drives, 400 readings in 12.5 s, 2 of them outliers.",
        "chi-square 381.5 for 376 degrees of freedom (1.015 each)",
        "node volts: rms 30 µV (0.99 σ), worst -110 µV at node 5 (-3.5 σ)",
        "Verification on 5 fresh patterns passed: 40 µV rms, 100 µV worst; 95 % within their 95 % intervals.",
        "FAULT: edge 2 is stuck: exchange its pot",
        "Not determined: R0 of edge 3, it carries no current: drive node 1",
        "meter at",
    ):
        assert part in text, part
    assert all(line == line.rstrip() for line in text.splitlines())


def test_what_is_wrong_is_said_aloud() -> None:
    bad = FitReport(1.0, 0, 0, 0, 50, converged=False, residuals=())
    known = calibration(report=bad, verification=None, valid_days=None)
    text = "\n".join(calibration_lines(known, now=SOON))
    assert "NOT converged" in text
    assert "Not verified" in text
    assert "does not expire" in text
    assert "It expired on 2026-07-30" in "\n".join(calibration_lines(calibration(), now=MADE + timedelta(days=99)))


def test_a_failed_verification_is_said_aloud() -> None:
    seen = calibration().verification
    assert seen is not None
    failed = calibration().model_copy(update={"verification": seen.model_copy(update={"passed": False})})
    assert verification_lines(failed)[0].startswith("Verification on 5 fresh patterns FAILED")


def test_the_least_certain_edges_come_first_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = np.ones(24)
    scale[2 * 7 : 2 * 7 + 2] = 5.0
    uneven = dataclasses.replace(pots(), statistical=pots().statistical * np.outer(scale, scale))
    monkeypatch.setattr("hilcl.calibration.tables.MOST_ROWS", 3)
    lines = edge_table(calibration(pots=uneven))
    assert lines[2].startswith("7     2 – 5")
    assert lines[-1] == "… and 9 better known edges"
    assert len(lines) == 6
    everything = edge_table(calibration(pots=uneven), every_edge=True)
    assert [line.split()[0] for line in everything[2:]] == [str(edge) for edge in range(12)]


def test_non_linearity_has_columns_of_its_own() -> None:
    lines = edge_table(calibration(pots=pots(terms=2)))
    assert "INL1 (codes)" in lines[0]
    assert "INL2 (codes)" in lines[0]


def test_nodes_without_a_meter_are_listed_apart() -> None:
    lines = meter_table(calibration(meters=meters(unread=(1, 3))))
    assert lines[-1] == "Without a meter: node 1, node 3."
    assert len(lines) == 2 + 5 + 1


def test_a_comparison_names_what_moved() -> None:
    values = pots().values.copy()
    values[4, 0] *= 1.02
    changed = calibration(
        pots=dataclasses.replace(pots(), values=values), created=MADE + timedelta(days=30), temperature_celsius=25.0,
        identities=IDENTITIES | {"source a": "another"}, meters=meters(1),
    )  # fmt: skip
    lines = comparison_lines(compare(calibration(temperature_celsius=21.0), changed))
    text = "\n".join(lines)
    assert "2026-05-01 12:00 to 2026-05-31 12:00 UTC, 30 days." in text
    assert "Exchanged: source a: KEITHLEY,2450,04312345,1.7.12, now another." in text
    assert "Temperature 21.0 °C, then 25.0 °C." in text
    assert "1 of 12 edges moved beyond their uncertainty." in text
    (row,) = (line for line in lines if line.endswith("moved"))
    assert row.split()[:4] == ["4", "1", "–", "5"]
    assert "The meter at node 0 moved: gain" in text


def test_a_comparison_of_equals_says_so() -> None:
    lines = comparison_lines(compare(calibration(), calibration(created=SOON)), every_edge=True)
    assert "No edge moved beyond its uncertainty." in lines
    assert sum(line.endswith("σ") for line in lines) == 12


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123456, "V", "12.35 mV"),
        (1e-4, "S", "100 µS"),
        (-3.2e-9, "A", "-3.2 nA"),
        (12.0, "V", "12 V"),
        (0.99999, "V", "1 V"),
        (0.0, "V", "0 V"),
        (float("nan"), "V", "–"),
        (1e-15, "A", "1e-15 A"),
    ],
)
def test_quantities_read_well(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "u", "text"),
    [
        (1204.3123, 0.42, "1204.31 ± 0.42"),
        (10345.6, 12.0, "10346 ± 12"),
        (5.0, 0.0, "5"),
        (5.0, 0.00991, "5.0000 ± 0.0099"),
    ],
)
def test_values_have_the_digits_their_uncertainty_allows(value: float, u: float, text: str) -> None:
    assert with_uncertainty(value, u) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5, "1.5 s"), (130.0, "2.17 min"), (9000.0, "2.5 h"), (864000.0, "10 days")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
