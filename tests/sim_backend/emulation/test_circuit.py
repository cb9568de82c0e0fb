"""The circuit under the emulated instruments, against direct solves."""

import numpy as np
import pytest

from hilcl import Network
from hilcl.errors import InputError
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.port import OPEN, Applied

DIVIDER = Network(3, [[0, 1], [1, 2]], [0, 2], [1])


def test_a_board_that_nothing_drives_lies_at_ground() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    np.testing.assert_array_equal(circuit.potentials(), np.zeros(3))
    assert circuit.port(1).see().amperes == 0.0


def test_voltage_sources_and_open_ends_are_those_of_the_simulated_board() -> None:
    network = Network.torus(4, 4, inputs=[0, 10], outputs=[3, 8])
    g = np.random.default_rng(0).uniform(1e-5, 1e-3, network.n_edges)
    circuit = EmulatedCircuit(network, g)
    for node, volts in ((0, 1.0), (10, -0.3), (3, 0.4)):
        circuit.port(node).apply(Applied("voltage", volts))
    exact = SimulatedBoard(network, g).respond([1.0, -0.3, 0.4, np.nan])
    np.testing.assert_allclose(circuit.potentials(), exact.potentials[0], rtol=0, atol=1e-14)
    seen = [circuit.port(node).see().amperes for node in network.terminals.tolist()]
    np.testing.assert_allclose(seen, exact.currents[0], rtol=0, atol=1e-16)


def test_a_current_source_lifts_its_node_by_the_resistance_it_sees() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 3e-3]))
    circuit.port(0).apply(Applied("voltage", 1.0))
    circuit.port(2).apply(Applied("voltage", 0.0))
    open_volts = circuit.port(1).see().volts
    assert open_volts == pytest.approx(0.25)
    circuit.port(1).apply(Applied("current", 1e-4, limit=10.0))
    assert circuit.port(1).see().volts == pytest.approx(0.25 + 1e-4 / 4e-3)
    assert not circuit.port(1).see().limited
    circuit.port(1).apply(OPEN)
    assert circuit.port(1).see().volts == open_volts


def test_a_current_source_stops_at_its_voltage_limit() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    circuit.port(0).apply(Applied("voltage", 0.0))
    circuit.port(2).apply(Applied("voltage", 0.0))
    circuit.port(1).apply(Applied("current", 1e-2, limit=2.0))
    seen = circuit.port(1).see()
    assert seen.limited
    assert seen.volts == pytest.approx(2.0)
    assert seen.amperes == pytest.approx(4e-3)
    circuit.port(1).apply(Applied("current", -1e-2, limit=2.0))
    assert circuit.port(1).see().volts == pytest.approx(-2.0)


def test_a_current_source_on_a_board_without_return_goes_to_its_voltage_limit() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    circuit.port(1).apply(Applied("current", 1e-6, limit=5.0))
    seen = circuit.port(1).see()
    assert seen.limited
    np.testing.assert_allclose(circuit.potentials(), np.full(3, 5.0))
    assert seen.amperes == pytest.approx(0.0, abs=1e-12)


def test_series_resistance_and_current_limit_of_a_voltage_source() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    circuit.port(0).apply(Applied("voltage", 1.0, series=500.0))
    circuit.port(2).apply(Applied("voltage", 0.0))
    assert circuit.port(0).see().volts == pytest.approx(0.8)
    circuit.port(0).apply(Applied("voltage", 1.0, limit=1e-4))
    seen = circuit.port(0).see()
    assert seen.limited
    assert seen.amperes == pytest.approx(1e-4)
    assert seen.volts == pytest.approx(0.2)


def test_an_output_switched_to_zero_volts_drags_the_node() -> None:
    """A 2400 switched off in its normal state: 0 V with 0.5 % of a 100 mA range as compliance."""
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    circuit.port(0).apply(Applied("voltage", 5.0))
    circuit.port(2).apply(Applied("voltage", 0.0))
    assert circuit.port(1).see().volts == pytest.approx(2.5)
    circuit.port(1).apply(Applied("voltage", 0.0, limit=0.5e-3))
    assert circuit.port(1).see().volts == pytest.approx(2.25)


def test_codes_change_the_circuit_at_once() -> None:
    circuit = EmulatedCircuit(DIVIDER, np.array([1e-3, 1e-3]))
    circuit.port(0).apply(Applied("voltage", 1.0))
    circuit.port(2).apply(Applied("voltage", 0.0))
    circuit.set_conductances(np.array([3e-3, 1e-3]))
    assert circuit.port(1).see().volts == pytest.approx(0.75)


def test_only_terminals_can_be_driven() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0], [2])
    circuit = EmulatedCircuit(network, np.ones(2))
    circuit.port(1).apply(OPEN)
    with pytest.raises(InputError, match="node 1 is neither input nor output"):
        circuit.port(1).apply(Applied("voltage", 1.0))
    with pytest.raises(InputError, match="node 7 cannot be wired"):
        circuit.port(7)
