"""Calibrations of small boards, made by hand with known errors."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from hilcl.calibration.file import Calibration
from hilcl.calibration.parameters import (
    CalibrationResult,
    Finding,
    FitReport,
    MeterParameters,
    PotParameters,
    ResidualSummary,
    SourceParameters,
    Unidentifiable,
    Verification,
)
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer

FloatArray = npt.NDArray[np.float64]

POT = Potentiometer(129, 10e3, wiper=75.0, series=1200.0)
MADE = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
IDENTITIES = {"source a": "KEITHLEY,2450,04312345,1.7.12", "pots": "potboard 7, MCP4251"}


def network() -> Network:
    """Four inputs, three outputs, every pair joined."""
    return Network.crossbar(4, 3)


def pots(seed: int = 0, *, terms: int = 0, u: float = 1e-3, pot: Potentiometer = POT) -> PotParameters:
    """Pots of a crossbar, spread by seed, each parameter known to the relative ``u``, half of it statistical."""
    generator = np.random.default_rng(seed)
    edges = network().n_edges
    values = np.column_stack(
        [
            (pot.series + pot.wiper) * (1 + 0.02 * generator.standard_normal(edges)),
            pot.end_to_end * (1 + 0.1 * generator.uniform(-1, 1, edges)),
            *(10 * generator.standard_normal(edges) for _ in range(terms)),
        ]
    )
    own = np.einsum("mq,mr->mqr", values, values) * (u**2 * np.eye(2 + terms))
    statistical, instrument = np.zeros((values.size, values.size)), np.zeros((values.size, values.size))
    for edge in range(edges):
        at = slice(edge * (2 + terms), (edge + 1) * (2 + terms))
        statistical[at, at] = instrument[at, at] = own[edge] / 2
    # Neighbours share an error of their instrument.
    instrument += 0.2 * np.sqrt(np.outer(np.diagonal(instrument), np.diagonal(instrument)))
    names = ("R0", "RAB", *(f"INL{number + 1}" for number in range(terms)))
    return PotParameters((pot,) * edges, names, values, statistical, instrument)


def meters(seed: int = 0, *, unread: tuple[int, ...] = ()) -> MeterParameters:
    """Meters with gain and offset by seed, none at the nodes ``unread``."""
    generator = np.random.default_rng(seed + 100)
    nodes = network().n_nodes
    gain, offset = 1 + 1e-3 * generator.uniform(-1, 1, nodes), 1e-3 * generator.uniform(-1, 1, nodes)
    noise = np.full(nodes, 3e-5)
    variances = np.concatenate([np.full(nodes, 1e-5**2), np.full(nodes, 5e-6**2)])
    for node in unread:
        gain[node] = offset[node] = noise[node] = np.nan
        variances[[node, nodes + node]] = 0.0
    return MeterParameters(gain, offset, np.diag(variances) / 2, np.diag(variances) / 2, noise)


def sources() -> SourceParameters:
    """Sources with leads of half an ohm."""
    ones = np.ones(len(network().terminals))
    zeros = np.zeros((5 * len(ones), 5 * len(ones)))
    return SourceParameters(ones, 0 * ones, 0.5 * ones, ones, 0 * ones, zeros, zeros, 1e-8 * ones)


def result(seed: int = 0, **changes: Any) -> CalibrationResult:
    """A calibration's result; ``changes`` replace its parts."""
    normalised = np.random.default_rng(seed).standard_normal(400)
    report = FitReport(
        chi_square=381.5,
        dof=376,
        n_readings=400,
        n_outliers=2,
        iterations=5,
        converged=True,
        residuals=(ResidualSummary("node volts", "V", 300, 3e-5, 0.99, -1.1e-4, -3.5, "node 5"),),
        unidentifiable=(Unidentifiable("R0 of edge 3", "it carries no current", "drive node 1", (3,), (1,)),),
        findings=(Finding("stuck", "edge 2 is stuck: exchange its pot", (2,)),),
        normalised=normalised,
        reading_kinds=("V",) * 300 + ("A",) * 100,
        reading_places=tuple(range(7)) * 57 + (0,),
        reading_patterns=(0,) * 400,
    )
    parts: dict[str, Any] = {
        "network": network(),
        "pots": pots(seed),
        "meters": meters(seed),
        "sources": sources(),
        "report": report,
        "verification": Verification(5, 80, 1.02, 0.95, 4e-5, 1e-4, float("nan"), float("nan"), passed=True),
        "n_patterns": 40,
        "n_drives": 120,
        "seconds": 12.5,
    }
    return CalibrationResult(**(parts | changes))


def calibration(seed: int = 0, *, identities: dict[str, str] | None = None, **changes: Any) -> Calibration:
    """A calibration file of a small board."""
    known = {"created", "usable", "valid_days", "temperature_celsius", "comment"} & set(changes)
    options = {"created": MADE} | {key: changes.pop(key) for key in known}
    return Calibration.of(result(seed, **changes), identities=identities or IDENTITIES, **options)
