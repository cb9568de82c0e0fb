"""Real drivers over TCP against emulated instruments on one circuit: the codes of the simulator, step for step."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import pytest

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, Task, train
from hilcl.arrays import IntArray
from hilcl.bench_board import BenchBoard, Wiring
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.drivers.registry import open_source, open_voltmeter
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.smu import SmuSettings
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.daq6510 import Daq6510
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.potboard import AdcModel, EmulatedPotBoard, PotModel
from hilcl.sim_backend.emulation.potboard_wire import PotBoardServer
from hilcl.sim_backend.emulation.server import serve
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_b2900 import SmuB2900
from tests.sim_backend.emulation.bench import ManualClock

POT = Potentiometer(positions=128, end_to_end=100e3, wiper=40.0, series=2.2e3)
SETTINGS = SmuSettings(limit_volts=2.0, limit_amperes=1e-3)
DIVIDER = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
TORUS = Network.torus(4, 4, inputs=[0, 10], outputs=[3, 8])


class PotsInMemory:
    """The pots of the bench, written without a wire of their own."""

    identity = "pots in memory"

    def __init__(self, circuit: EmulatedCircuit, n_pots: int) -> None:
        self._circuit, self._codes = circuit, np.full(n_pots, 64)

    @property
    def code_counts(self) -> IntArray:
        return np.full(len(self._codes), POT.positions)

    def write(self, codes: IntArray) -> None:
        self._codes = codes.copy()
        self._circuit.set_conductances(POT.conductances()[codes])

    def read(self) -> IntArray:
        return self._codes

    def make_safe(self) -> None:
        """Pots in memory harm nothing."""

    def close(self) -> None:
        """Nothing is held."""


def codes_of(board: SimulatedBoard | BenchBoard, task: Task, rule: ContrastiveLearning, epochs: int) -> list[list[int]]:
    return [step.codes.tolist() for step in train(board, task, rule, epochs) if step.codes is not None]


@contextmanager
def wired(
    network: Network, sources: Sequence[str], *, scanner: bool
) -> Iterator[tuple[BenchBoard, list[EmulatedInstrument]]]:
    """A bench of the named SMU drivers on the terminals in order, with or without a DAQ6510 on the floating nodes."""
    circuit, clock = EmulatedCircuit(network, np.full(network.n_edges, POT.conductances()[64])), ManualClock()

    def made(driver: str, nodes: list[int]) -> EmulatedInstrument:
        ports = [circuit.port(node) for node in nodes]
        match driver:
            case "keithley2400":
                return Smu2400(ports[0], clock)
            case "keithley2450":
                return Smu2450(ports[0], clock)
            case "keithley2600b":
                return Smu2600B((ports[0], ports[1]), clock)
            case _:
                return SmuB2900((ports[0], ports[1]), clock)

    free = network.terminals.tolist()
    wires: dict[str, list[int]] = {}
    instruments: dict[str, EmulatedInstrument] = {}
    for index, driver in enumerate(sources):
        width = 2 if driver in {"keithley2600b", "keysight-b2900"} else 1
        name, nodes = f"smu{index}", free[:width]
        free = free[width:]
        instruments[name], wires[name] = made(driver, nodes), nodes
    floating = network.floating.tolist()
    if scanner:
        instruments["dmm"] = Daq6510({101 + i: circuit.port(node) for i, node in enumerate(floating)}, clock)
    with ExitStack() as stack:
        running = stack.enter_context(serve(instruments))
        smus = [
            open_source(driver, f"smu{index}", running.resources[f"smu{index}"], SETTINGS)
            for index, driver in enumerate(sources)
        ]
        meters = []
        if scanner:
            channels = [str(101 + index) for index in range(len(floating))]
            meter = open_voltmeter(
                "daq6510", "dmm", running.resources["dmm"], channels, ScannerSettings(volts_range=10)
            )
            meters.append((meter, floating))
        wiring = Wiring(
            pots=[(PotsInMemory(circuit, network.n_edges), list(range(network.n_edges)))],
            sources=[(smu, wires[f"smu{index}"]) for index, smu in enumerate(smus)],
            meters=meters,
        )
        start = POT.conductances()[64]
        board = BenchBoard(network, DeviceRange.of_pots(POT), wiring, start, settle=lambda _: None)
        with board:
            yield board, [instruments[f"smu{index}"] for index in range(len(sources))]


@pytest.mark.parametrize("driver", ["keithley2400", "keithley2450"])
def test_a_divider_on_three_smus_takes_the_simulators_codes(driver: str) -> None:
    """No meter at all: every node is a terminal, and each SMU reads its own."""
    task, rule = Task([[1.0, 0.0]], [[0.2]]), ContrastiveLearning(20e-6)
    expected = codes_of(SimulatedBoard(DIVIDER, POT.conductances()[64], pots=POT), task, rule, 25)
    assert any(earlier != later for earlier, later in pairwise(expected))
    with wired(DIVIDER, [driver] * 3, scanner=False) as (board, instruments):
        assert codes_of(board, task, rule, 25) == expected
    assert not any(on for each in instruments for on in each.outputs_on)


@pytest.mark.parametrize(
    "sources",
    [["keithley2600b", "keithley2450", "keithley2400"], ["keysight-b2900", "keithley2600b"]],
    ids=["2602B, 2450 and 2400", "B2912A and 2602B"],
)
def test_a_torus_with_a_scanner_takes_the_simulators_codes(sources: list[str]) -> None:
    task = Task([[1.0, 0.0], [0.4, 0.9]], [[0.7, 0.3], [0.5, 0.6]])
    rule = ContrastiveLearning(60e-6)
    expected = codes_of(SimulatedBoard(TORUS, POT.conductances()[64], pots=POT), task, rule, 20)
    assert any(earlier != later for earlier, later in pairwise(expected))
    with wired(TORUS, sources, scanner=True) as (board, instruments):
        assert codes_of(board, task, rule, 20) == expected
    assert not any(on for each in instruments for on in each.outputs_on)


def test_an_exception_leaves_the_outputs_off() -> None:
    with wired(DIVIDER, ["keithley2450"] * 3, scanner=False) as (board, instruments):
        board.respond([[1.0, 0.0, np.nan]])
        assert any(on for each in instruments for on in each.outputs_on)
        with pytest.raises(RuntimeError, match="the lights go out"), board:
            raise RuntimeError("the lights go out")
        assert not any(on for each in instruments for on in each.outputs_on)


def test_a_pot_board_on_a_serial_port_takes_the_simulators_codes() -> None:
    """Pots and ADC behind one pseudo-terminal, sources over TCP: 32 pots, two links, one circuit."""
    task = Task([[1.0, 0.0], [0.4, 0.9]], [[0.7, 0.3], [0.5, 0.6]])
    rule = ContrastiveLearning(60e-6)
    expected = codes_of(SimulatedBoard(TORUS, POT.conductances()[64], pots=POT), task, rule, 20)
    circuit, clock = EmulatedCircuit(TORUS, np.full(32, POT.conductances()[64])), ManualClock()
    nodes = TORUS.floating.tolist()
    emulated = EmulatedPotBoard(
        [PotModel("AD5220", 32, highest=127, power_on=64, safe=127)],
        lambda codes: circuit.set_conductances(POT.conductances()[codes]),
        adcs=[AdcModel(len(nodes), bits=32, zero=1 << 31, span=10.0)],
        read_nodes=lambda: circuit.potentials()[nodes],
        clock=clock,
    )
    smus: dict[str, EmulatedInstrument] = {
        "smu0": Smu2600B((circuit.port(0), circuit.port(10)), clock),
        "smu1": SmuB2900((circuit.port(3), circuit.port(8)), clock),
    }
    options = PotBoardOptions(turnaround=5.0)
    with PotBoardServer(emulated) as server, serve(smus) as running, PotBoard("board", server.port, options) as pots:
        sources = [
            (open_source("keithley2600b", "smu0", running.resources["smu0"], SETTINGS), [0, 10]),
            (open_source("keysight-b2900", "smu1", running.resources["smu1"], SETTINGS), [3, 8]),
        ]
        wiring = Wiring(pots=[(pots, list(range(32)))], sources=sources, meters=[(pots.meter(), nodes)])
        start = POT.conductances()[64]
        with BenchBoard(TORUS, DeviceRange.of_pots(POT), wiring, start, settle=lambda _: None) as board:
            assert codes_of(board, task, rule, 20) == expected
            np.testing.assert_array_equal(pots.read(), expected[-1])
            np.testing.assert_array_equal(emulated.codes, expected[-1])
    assert not any(on for each in smus.values() for on in each.outputs_on)
