"""BenchBoard over devices in memory, all wired to one exact circuit: the loop must not notice the difference."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, Task, train
from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_board import BenchBoard, BenchLimits, Wiring
from hilcl.board import Board
from hilcl.devices import RheostatBank, SourceBank, SourceReadings, Voltmeter, VoltReadings
from hilcl.errors import BoardError, ComplianceError, InputError, MeasurementError
from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.port import OPEN, Applied

POT = Potentiometer(positions=128, end_to_end=100e3, wiper=40.0, series=2.2e3)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Pots:
    """Pots in memory; several banks share the codes of one circuit."""

    identity = "pots in memory"

    def __init__(self, circuit: EmulatedCircuit, codes: IntArray, edges: Sequence[int], log: list[str]) -> None:
        self.circuit, self.codes, self.edges, self.log = circuit, codes, list(edges), log

    @property
    def code_counts(self) -> IntArray:
        return np.full(len(self.edges), POT.positions)

    def write(self, codes: IntArray) -> None:
        self.codes[self.edges] = codes
        self.circuit.set_conductances(POT.conductances()[self.codes])

    def read(self) -> IntArray:
        return self.codes[self.edges]

    def make_safe(self) -> None:
        self.log.append("pots safe")

    def close(self) -> None:
        self.log.append("pots closed")


class Source:
    """Ideal source channels."""

    identity = "source in memory"

    def __init__(self, circuit: EmulatedCircuit, nodes: Sequence[int], log: list[str], limit: float = 1.0) -> None:
        self.ports, self.log, self.limit = [circuit.port(node) for node in nodes], log, limit

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self.ports)))

    def drive(self, volts: FloatArray) -> None:
        for port, level in zip(self.ports, volts.tolist(), strict=True):
            port.apply(OPEN if np.isnan(level) else Applied("voltage", level, self.limit))

    def read(self) -> SourceReadings:
        seen = [port.see() for port in self.ports]
        return SourceReadings(
            np.array([each.volts for each in seen]),
            np.array([each.amperes for each in seen]),
            np.array([each.limited for each in seen]),
        )

    def make_safe(self) -> None:
        self.log.append("source safe")
        for port in self.ports:
            port.apply(OPEN)

    def close(self) -> None:
        self.log.append("source closed")


class Meter:
    """An ideal meter at some nodes."""

    identity = "meter in memory"

    def __init__(self, circuit: EmulatedCircuit, nodes: Sequence[int], log: list[str]) -> None:
        self.ports, self.log, self.averages = [circuit.port(node) for node in nodes], log, 0

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self.ports)))

    def read(self, averages: int = 1) -> VoltReadings:
        self.averages = averages
        volts = np.array([port.see().volts for port in self.ports])
        return VoltReadings(volts, np.zeros(len(volts)))

    def make_safe(self) -> None:
        self.log.append("meter safe")

    def close(self) -> None:
        self.log.append("meter closed")


def bench_of(network: Network, log: list[str] | None = None, *, limit: float = 1.0, **options: object) -> BenchBoard:
    """Two banks of pots, a source per terminal, one meter for the floating nodes."""
    log = [] if log is None else log
    codes = np.full(network.n_edges, 64)
    circuit = EmulatedCircuit(network, POT.conductances()[codes])
    half = network.n_edges // 2
    parts = [list(range(half)), list(range(half, network.n_edges))]
    wiring = Wiring(
        pots=[(Pots(circuit, codes, edges, log), edges) for edges in parts if edges],
        sources=[(Source(circuit, [node], log, limit), [node]) for node in network.terminals.tolist()],
        meters=[(Meter(circuit, network.floating.tolist(), log), network.floating.tolist())],
    )
    start = POT.conductances()[64]
    return BenchBoard(network, DeviceRange.of_pots(POT), wiring, start, settle=lambda _: None, **options)  # type: ignore[arg-type]


def codes_of(board: Board, task: Task, rule: ContrastiveLearning, epochs: int) -> list[list[int]]:
    steps = list(train(board, task, rule, epochs))
    assert all(step.codes is not None for step in steps)
    return [step.codes.tolist() for step in steps if step.codes is not None]


def test_the_devices_in_memory_are_devices() -> None:
    circuit = EmulatedCircuit(Network.crossbar(1, 1), np.ones(1))
    assert isinstance(Pots(circuit, np.zeros(1, dtype=np.int64), [0], []), RheostatBank)
    assert isinstance(Source(circuit, [0], []), SourceBank)
    assert isinstance(Meter(circuit, [1], []), Voltmeter)
    assert isinstance(bench_of(Network.crossbar(1, 1)), Board)


@pytest.mark.parametrize(
    ("network", "task"),
    [
        (Network(3, [[0, 1], [1, 2]], [0, 2], [1]), Task([[1.0, 0.0]], [[0.2]])),
        (Network.torus(4, 4, inputs=[0, 10], outputs=[3, 8]), Task([[1.0, 0.0], [0.4, 0.9]], [[0.7, 0.3], [0.5, 0.6]])),
    ],
    ids=["divider", "torus"],
)
@pytest.mark.parametrize("nudge", [1.0, 0.3])
def test_a_bench_takes_the_codes_of_the_simulator_step_for_step(network: Network, task: Task, nudge: float) -> None:
    rule = ContrastiveLearning(5e-6, nudge=nudge)
    simulated = SimulatedBoard(network, POT.conductances()[64], pots=POT)
    expected = codes_of(simulated, task, rule, 60)
    assert any(earlier != later for earlier, later in pairwise(expected))
    with bench_of(network) as bench:
        assert codes_of(bench, task, rule, 60) == expected


def test_iris_takes_the_same_codes_on_ideal_devices() -> None:
    preparation = prepare(Experiment.load(EXAMPLES / "iris.toml"))
    simulated = SimulatedBoard(preparation.network, preparation.initial, pots=POT)
    expected = codes_of(simulated, preparation.data.train, preparation.rule, 8)
    with bench_of(preparation.network) as bench:
        assert codes_of(bench, preparation.data.train, preparation.rule, 8) == expected


def test_a_response_reads_what_the_circuit_is() -> None:
    network = Network.grid(3, 3, inputs=[0, 8], outputs=[4])
    drives = np.array([[1.0, 0.0, np.nan], [1.0, 0.0, 0.7]])
    exact = SimulatedBoard(network, POT.conductances()[64], pots=POT).respond(drives)
    with bench_of(network, averages=3) as bench:
        response = bench.respond(drives)
    np.testing.assert_allclose(response.potentials, exact.potentials, rtol=0, atol=1e-14)
    np.testing.assert_allclose(response.currents, exact.currents, rtol=0, atol=1e-16)
    assert not response.in_compliance.any()


def test_everything_is_made_safe_sources_first_and_closed_once() -> None:
    log: list[str] = []
    with bench_of(Network.crossbar(2, 1), log):
        pass
    assert log.index("source safe") < log.index("meter safe") < log.index("pots safe") < log.index("source closed")
    assert log.count("meter closed") == 1


def test_a_device_that_cannot_be_made_safe_does_not_keep_the_others_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    bench = bench_of(Network.crossbar(2, 1), log)

    def fail(self: Source) -> None:
        raise BoardError("smu1 does not answer")

    monkeypatch.setattr(Source, "make_safe", fail)
    with pytest.raises(BoardError, match="smu1 does not answer"):
        bench.make_safe()
    assert log == ["meter safe", "pots safe", "pots safe"]
    # It has been said; closing does not hide behind it what ended a run.
    bench.close()
    assert "pots closed" in log


def test_a_device_that_cannot_be_made_safe_at_the_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Source) -> None:
        raise BoardError("smu1 does not answer")

    monkeypatch.setattr(Source, "make_safe", fail)
    with pytest.raises(BoardError, match=r"^smu1 does not answer$"), bench_of(Network.crossbar(2, 1)):
        pass


def test_a_source_in_compliance_ends_the_run() -> None:
    with bench_of(Network.crossbar(2, 1), limit=1e-7) as bench, pytest.raises(ComplianceError, match="current limit"):
        next(train(bench, Task([[1.0, 0.0]], [[0.5]]), ContrastiveLearning(1e-6), 1))


def test_volts_beyond_the_limit_are_never_driven() -> None:
    with bench_of(Network.crossbar(2, 1), limits=BenchLimits(volts=0.5)) as bench:
        before = bench.respond([[0.5, 0.0, np.nan]]).potentials
        with pytest.raises(InputError, match=r"beyond the limit of 0.5 V"):
            bench.respond([[1.0, 0.0, np.nan]])
        np.testing.assert_array_equal(bench.respond([[0.5, 0.0, np.nan]]).potentials, before)


def test_a_pot_above_its_current_is_named() -> None:
    with (
        bench_of(Network.crossbar(2, 1), limits=BenchLimits(amperes_per_pot=1e-6)) as bench,
        pytest.raises(BoardError, match=r"edge 0 carries .* above its limit of 1e-06 A"),
    ):
        bench.respond([[1.0, 0.0, np.nan]])


def test_a_hidden_node_without_a_meter_is_named_when_training() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0], [2])
    codes = np.full(2, 64)
    circuit = EmulatedCircuit(network, POT.conductances()[codes])
    log: list[str] = []
    wiring = Wiring(
        pots=[(Pots(circuit, codes, [0, 1], log), [0, 1])],
        sources=[(Source(circuit, [0, 2], log), [0, 2])],
        meters=[(Meter(circuit, [2], log), [2])],
    )
    bench = BenchBoard(network, DeviceRange.of_pots(POT), wiring, 1e-5, settle=lambda _: None)
    with bench, pytest.raises(MeasurementError, match=r"node 1 has no meter, so edges \[0, 1\] cannot be trained"):
        next(train(bench, Task([[1.0]], [[1.0]]), ContrastiveLearning(1e-6), 1))


def test_a_grounded_terminal_must_be_driven_with_zero() -> None:
    network = Network.crossbar(2, 1)
    codes = np.full(2, 64)
    circuit = EmulatedCircuit(network, POT.conductances()[codes])
    circuit.port(1).apply(Applied("voltage", 0.0))
    log: list[str] = []
    wiring = Wiring(
        pots=[(Pots(circuit, codes, [0, 1], log), [0, 1])],
        sources=[(Source(circuit, [0, 2], log), [0, 2])],
        meters=[(Meter(circuit, [2], log), [2])],
        grounded=[1],
    )
    with BenchBoard(network, DeviceRange.of_pots(POT), wiring, 1e-5, settle=lambda _: None) as bench:
        assert bench.respond([[1.0, 0.0, np.nan]]).potentials[0, 2] == pytest.approx(0.5)
        with pytest.raises(InputError, match=r"node 1 is wired to 0 V, but the data drive it with 0\.5 V"):
            bench.respond([[1.0, 0.5, np.nan]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pots": [0, 0]}, "two pots are wired to edge 0"),
        ({"pots": [0, -1]}, "edge 1 has no pot"),
        ({"sources": [0, 1, 1]}, "two sources are wired to node 1"),
        ({"sources": [0, 1, -1]}, "node 2 has no source"),
        ({"sources": [0, 1]}, "has 3 channels, but 2 are wired"),
        ({"meters": [2, 2]}, "two meters are wired to node 2"),
    ],
)
def test_wrong_wiring_is_refused(change: dict[str, list[int]], message: str) -> None:
    network = Network.crossbar(2, 1)
    codes = np.full(2, 64)
    circuit = EmulatedCircuit(network, POT.conductances()[codes])
    log: list[str] = []
    wired = {"pots": [0, 1], "sources": [0, 1, 2], "meters": [2]} | change
    if change.get("sources") == [0, 1]:
        wired |= {"sources": [0, 1]}
        network = Network(3, network.edges, [0, 1], [])
        circuit = EmulatedCircuit(Network.crossbar(2, 1), POT.conductances()[codes])
    wiring = Wiring(
        pots=[(Pots(circuit, codes, [0, 1], log), wired["pots"])],
        sources=[(Source(circuit, [0, 1, 2], log), wired["sources"])],
        meters=[(Meter(circuit, [2] * len(wired["meters"]), log), wired["meters"])],
    )
    with pytest.raises(InputError, match=message):
        BenchBoard(network, DeviceRange.of_pots(POT), wiring, 1e-5, settle=lambda _: None)


def test_continuous_devices_cannot_be_written() -> None:
    with pytest.raises(InputError, match="needs a device range with a table"):
        BenchBoard(Network.crossbar(1, 1), DeviceRange(1e-6, 1e-3), Wiring([], [], []), 1e-5, settle=lambda _: None)


class SourceMeter(Source):
    """Source channels of which some only read their node."""

    def __init__(self, circuit: EmulatedCircuit, nodes: Sequence[int], log: list[str]) -> None:
        super().__init__(circuit, nodes, log)
        self.reads = 0

    def read(self) -> SourceReadings:
        self.reads += 1
        return super().read()


class PartOfSource(Meter):
    """The reading channels of a SourceMeter as a voltmeter of their own."""

    def __init__(self, bank: SourceMeter, channels: Sequence[int], log: list[str]) -> None:
        self.bank, self.indices, self.log = bank, list(channels), log
        self.ports = [bank.ports[index] for index in channels]

    def read_both(self, averages: int = 1) -> tuple[SourceReadings, VoltReadings]:
        readings = self.bank.read()
        return readings, VoltReadings(readings.volts[self.indices], np.zeros(len(self.indices)))


def test_channels_that_source_and_channels_that_read_are_measured_once() -> None:
    network, log = Network(3, [[0, 1], [1, 2]], [0, 2], []), list[str]()
    codes = np.full(2, 64)
    circuit = EmulatedCircuit(Network(3, network.edges, [0, 2], [1]), POT.conductances()[codes])
    both = SourceMeter(circuit, [0, 1], log)
    wiring = Wiring(
        pots=[(Pots(circuit, codes, [0, 1], log), [0, 1])],
        sources=[(both, [0, -1]), (Source(circuit, [2], log), [2])],
        meters=[(PartOfSource(both, [1], log), [1])],
    )
    with BenchBoard(network, DeviceRange.of_pots(POT), wiring, 1e-5, settle=lambda _: None) as bench:
        response = bench.respond([[1.0, 0.0], [0.5, 0.25]])
        np.testing.assert_allclose(response.potentials, [[1.0, 0.5, 0.0], [0.5, 0.375, 0.25]], atol=1e-12)
        np.testing.assert_allclose(response.currents.sum(axis=1), 0.0, atol=1e-15)
    assert both.reads == 2


def test_the_wait_follows_the_conductances() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    codes, log = np.full(2, 64), list[str]()
    circuit = EmulatedCircuit(network, POT.conductances()[codes])
    wiring = Wiring(
        pots=[(Pots(circuit, codes, [0, 1], log), [0, 1])],
        sources=[(Source(circuit, [node], log), [node]) for node in (0, 2, 1)],
        meters=[(Meter(circuit, [1], log), [1])],
    )
    waited: list[float] = []
    with BenchBoard(
        network,
        DeviceRange.of_pots(POT),
        wiring,
        POT.conductances()[10],
        settle=waited.append,
        settling=lambda conductances: 1e-10 / float(conductances.sum()),
    ) as bench:
        bench.respond([[1.0, 0.0, np.nan]])
        bench.program(np.full(2, POT.conductances()[100]))
        bench.respond([[1.0, 0.0, np.nan], [1.0, 0.0, 0.5]])
    tenth, hundredth = (0.5e-10 / float(POT.conductances()[code]) for code in (10, 100))
    assert waited == pytest.approx([tenth, hundredth, hundredth], rel=1e-12)
