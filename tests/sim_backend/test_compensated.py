"""Potentials to thirty digits against rational arithmetic, and certified states of large boards against those."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from hilcl import Network
from hilcl.errors import SolverError
from hilcl.sim_backend import compensated
from hilcl.sim_backend.basis import Accuracy, BasisSolver
from hilcl.sim_backend.compensated import Deviation, deviation, reference
from hilcl.sim_backend.solvers import SolverName
from hilcl.sim_backend.terminals import settle_ideal
from tests.sim_backend.boards import HOSTILE, mixed
from tests.sim_backend.exact_oracle import exact_state

FloatArray = npt.NDArray[np.float64]

NETWORK = Network.grid(100, 100, inputs=[0, 4242, 9999], outputs=[150, 5050, 9000])
CONDUCTANCES = mixed(NETWORK.n_edges, 11)
FREE = np.array([0.0, 1.0, 0.0, np.nan, np.nan, np.nan])
CLAMPED = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def found(accuracy: Accuracy, solver: SolverName, drives: FloatArray) -> Deviation:
    basis = BasisSolver(NETWORK, solver, accuracy).solve(CONDUCTANCES)
    state = settle_ideal(basis, drives[None, :3], drives[None, 3:], edge_voltages=True)
    assert state.edge_voltages is not None
    return deviation(NETWORK, CONDUCTANCES, drives, state.potentials[0], state.edge_voltages[0])


@pytest.mark.parametrize("board", HOSTILE)
def test_the_reference_has_thirty_digits(board: str) -> None:
    network, conductances = HOSTILE[board]
    drives = np.full(len(network.terminals), np.nan)
    drives[: len(network.inputs)] = np.linspace(-1 / 3, 0.7, len(network.inputs))
    high, low = reference(network, conductances, drives)
    exact = exact_state(network, conductances, drives.tolist()).potentials
    error = [abs(Fraction(h) + Fraction(l) - p) for h, l, p in zip(high.tolist(), low.tolist(), exact, strict=True)]
    assert float(max(error)) <= 1e-27


@pytest.mark.parametrize("solver", ["superlu", "multifrontal"])
@pytest.mark.parametrize("drives", [FREE, CLAMPED], ids=["free", "clamped"])
def test_certified_states_of_ten_thousand_nodes_are_exact(solver: SolverName, drives: FloatArray) -> None:
    errors = found("certified", solver, drives)
    assert errors.potentials <= 1e-14
    assert errors.edge_voltages <= 1e-15
    assert errors.kirchhoff <= 1e-14


def test_lesser_accuracy_is_told_from_certified() -> None:
    errors = found("standard", "multifrontal", FREE)
    assert 1e-14 < errors.potentials < 1e-9
    assert errors.edge_voltages > 1e-15
    assert errors.kirchhoff > 1e-14


def test_a_reference_that_does_not_settle_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensated, "MOST_ROUNDS", 1)
    with pytest.raises(SolverError, match="did not settle"):
        reference(NETWORK, CONDUCTANCES, FREE)
