"""A whole bench, emulated: every instrument an experiment file names, wired to one exact circuit and one clock."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_ratings import check_ratings
from hilcl.bench_section import (
    PotBoardInstrument,
    PythonInstrument,
    ScannerInstrument,
    SmuInstrument,
)
from hilcl.bench_wiring import SMU_CHANNELS
from hilcl.board import BoardSnapshot
from hilcl.drivers.chips import chip as catalogued
from hilcl.drivers.firmware import VERSION
from hilcl.drivers.firmware.wiring import automatic_wiring, read_wiring
from hilcl.drivers.pot_bank import PotBank
from hilcl.drivers.registry import source_driver, voltmeter_driver
from hilcl.errors import BoardError, ExperimentError, InputError
from hilcl.network import Network
from hilcl.pot_bank_section import BankInstrument
from hilcl.preparation import Preparation
from hilcl.sim_backend.described import imperfections_of
from hilcl.sim_backend.emulation.bench_clock import BenchClock
from hilcl.sim_backend.emulation.bench_port import BenchPort, MeterError
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.daq6510 import Daq6510
from hilcl.sim_backend.emulation.dmm_34970a import Dmm34970A
from hilcl.sim_backend.emulation.faults import BenchFaults, FaultPlan, SourceFaults, lay
from hilcl.sim_backend.emulation.firmware import FirmwareBoard, FirmwareServer
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.output_relay import OutputRelay
from hilcl.sim_backend.emulation.port import Applied, Port
from hilcl.sim_backend.emulation.pot_banks import emulated_bank
from hilcl.sim_backend.emulation.potboard import AdcModel, EmulatedPotBoard, PotModel, SourceModel, SwitchedPort
from hilcl.sim_backend.emulation.potboard_wire import BreakingFaults, NoWireFaults, PotBoardServer, WireFaults
from hilcl.sim_backend.emulation.server import Faults, NoFaults, RunningServer, serve
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_2600b_channel import MODELS as SERIES_2600B
from hilcl.sim_backend.emulation.smu_b2900 import SmuB2900
from hilcl.sim_backend.emulation.timed_link import BITS_PER_BYTE, TimedBreakableWire, TimedLine, TimedLink, TimedWire
from hilcl.sim_backend.emulation.transient import Transient
from hilcl.sim_backend.truth import MeterTruth, PotTruth, source_offsets, streams, with_ground

ADC_BITS = 32
"""Resolution of a pot board's ADC where the file names none: far finer than any real one."""

DEFAULT_MODELS = {
    "keithley2400": "2400",
    "keithley2450": "2450",
    "keithley2600b": "2602B",
    "keysight-b2900": "B2912A",
    "daq6510": "DAQ6510",
    "34970a": "34970A",
}
"""What is emulated where the file names no model."""


FAULTS = "faults"
"""Key of the faults in a snapshot; that of a wire's noise has several words."""


class EmulatedBench:
    """The bench of an experiment file: ``start`` serves it, ``close`` ends it.

    The devices are those of ``[simulation]``, drawn by the same seed as the simulator's. ``faults`` lays a faulty wire
    in front of instruments by name, ``plan`` says what goes wrong instead of the file. It has a memory (the meters'
    noise and the faults to come), so that a stored run can be taken up again.

    Raises ExperimentError for a bench that cannot be emulated.
    """

    def __init__(
        self,
        preparation: Preparation,
        *,
        time_scale: float | None = None,
        faults: Mapping[str, Faults] | None = None,
        plan: FaultPlan | None = None,
    ) -> None:
        experiment = preparation.experiment
        if experiment.bench is None or preparation.wiring is None:
            raise ExperimentError(f"{experiment.source} has no [bench] section: there is nothing to emulate")
        check_ratings(preparation)
        self._preparation, self._bench, self._wiring = preparation, experiment.bench, preparation.wiring
        self._section, self._faults = experiment.simulation, dict(faults or {})
        self._network = preparation.network
        self._check_miswiring()
        self.clock = BenchClock(self._section.time_scale if time_scale is None else time_scale)
        self._defects = imperfections_of(self._section)
        of_pots, of_meters, of_sources, noise = streams(self._section.seed)
        try:
            self._pots = PotTruth(
                self._network.n_edges, preparation.device_range, preparation.pots, self._defects.pots, of_pots
            )
        except InputError as error:
            raise ExperimentError(f"{experiment.source}, [simulation]: {error}") from error
        self._meters = MeterTruth(self._network.n_nodes, self._defects.meters, of_meters, noise)
        self._source_offset = source_offsets(len(self._network.terminals), self._defects.sources, of_sources)
        self._generators: dict[str, np.random.Generator] = {}
        table = preparation.device_range.full_table
        if table is None:
            raise ExperimentError(f"{experiment.source}: an emulated bench needs pots with codes")
        self._table = np.broadcast_to(table, (self._network.n_edges, table.shape[-1]))
        self._codes = np.full(self._network.n_edges, table.shape[-1] // 2)
        self._writing = threading.Lock()
        self._shunt = 1.0 / self._defects.meters.input_resistance
        self._switched: dict[str, dict[int, SwitchedPort]] = {}
        wired = self._circuit_network()
        transient = None
        if self._section.capacitance:
            transient = Transient(wired, np.full(wired.n_nodes, self._section.capacitance), self.clock.now)
        self.circuit = EmulatedCircuit(wired, self._circuit_conductances(), transient)
        for node in self._wiring.grounded:
            self.circuit.apply(node, Applied("voltage", 0.0))
        if self._shunt:
            self.circuit.apply(self._network.n_nodes, Applied("voltage", 0.0))
        self.instruments: dict[str, EmulatedInstrument] = {}
        self.boards: dict[str, EmulatedPotBoard | FirmwareBoard] = {}
        self.devices: dict[str, PotBank] = {}
        """Drivers that are in this process together with the chips they write, since no wire leads to them."""
        self._source_ports: dict[str, list[BenchPort]] = {}
        self._output_relays: dict[str, list[OutputRelay]] = {}
        self._folder = ExitStack()
        with ExitStack() as failed:
            failed.callback(self._folder.close)
            self._build()
            failed.pop_all()
        self.links = self._timed_links()
        """What watches the messages of each instrument with a wire, for the program that uses the bench."""
        self._laid = self._lay_faults(plan)
        self._running: RunningServer | None = None
        self._board_servers: dict[str, PotBoardServer | FirmwareServer] = {}

    def _timed_links(self) -> dict[str, TimedLink]:
        each_way = self._section.round_trip / 2
        links = {name: TimedLink(self.clock, delay=each_way) for name in self.instruments}
        for name in self.boards:
            instrument = self._bench.instruments[name]
            if isinstance(instrument, PotBoardInstrument):
                links[name] = TimedLink(self.clock, per_byte=BITS_PER_BYTE / instrument.line_baud)
        return links

    def _lay_faults(self, plan: FaultPlan | None) -> BenchFaults | None:
        section = self._section.faults
        if plan is None and not (section.rate or section.planned):
            return None
        boards = {name: board for name, board in self.boards.items() if isinstance(board, EmulatedPotBoard)}
        names = [*self.instruments, *boards]
        for fault in section.planned:
            if fault.instrument not in names:
                raise ExperimentError(
                    f"simulation.faults names the instrument {fault.instrument!r}, but those with a wire are "
                    f"{', '.join(names)}"
                )
        nows = {name: link.now for name, link in self.links.items()}
        sources = SourceFaults(self._source_ports, self._output_relays)
        return lay(plan or FaultPlan.of(section), self.instruments, boards, sources, nows, self.clock.jump)

    @property
    def plan(self) -> FaultPlan | None:
        """What goes wrong on this bench, None where nothing does."""
        return None if self._laid is None else self._laid.plan

    # Serving.

    def start(self, ports: Mapping[str, int] | None = None) -> Self:
        """Serve every instrument on loopback TCP, and every pot board on a pseudo-terminal.

        ``ports`` fixes TCP ports by instrument; a pot board named there is served on TCP too. Raises BoardError where
        a port cannot be had.
        """
        wanted = dict(ports or {})
        try:
            for name, board in self.boards.items():
                tcp = wanted.get(name)
                faults: WireFaults = NoWireFaults()
                if self._laid is not None and name in self._laid.boards:
                    faults = self._laid.boards[name]
                kind = TimedBreakableWire if isinstance(faults, BreakingFaults) else TimedWire
                wire = kind(self.links[name], faults)
                if isinstance(board, FirmwareBoard):
                    self._board_servers[name] = FirmwareServer(board, tcp=tcp, faults=wire)
                else:
                    self._board_servers[name] = PotBoardServer(
                        board, tcp=tcp, faults=wire, at_rest=self.links[name].at_rest
                    )
            lines: dict[str, Faults] = {} if self._laid is None else dict(self._laid.lines)
            lines |= self._faults
            timed = {name: TimedLine(self.links[name], lines.get(name, NoFaults())) for name in self.instruments}
            rests = {name: self.links[name].at_rest for name in self.instruments}
            self._running = serve(self.instruments, wanted, timed, rests)
        except BoardError:
            self.close()
            raise
        return self

    @property
    def resources(self) -> dict[str, str]:
        """Where each instrument answers: VISA resources, and serial ports of pot boards."""
        served = {} if self._running is None else self._running.resources
        found = served | {name: server.port for name, server in self._board_servers.items()}
        return {name: found[name] for name in self._bench.instruments if name in found}

    def close(self) -> None:
        """End all servers; may be called twice."""
        if self._running is not None:
            self._running.close()
        for server in self._board_servers.values():
            server.close()
        for board in self.boards.values():
            if isinstance(board, FirmwareBoard):
                board.close()
        self._running, self._board_servers = None, {}
        self._folder.close()

    def __enter__(self) -> Self:
        return self.start() if self._running is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What tests and records ask.

    @property
    def outputs_on(self) -> dict[str, tuple[bool, ...]]:
        """Which outputs are on, by instrument."""
        devices: dict[str, EmulatedInstrument | EmulatedPotBoard | FirmwareBoard] = {**self.instruments, **self.boards}
        return {name: device.outputs_on for name, device in devices.items()}

    @property
    def codes(self) -> IntArray:
        """The codes (M,) the chips on the edges hold."""
        return self._codes.copy()

    @property
    def true_conductances(self) -> FloatArray:
        """What the edges really have, (M,) in siemens."""
        return self._pots.conductances(self._table[np.arange(len(self._codes)), self._codes], self._codes)

    def settle(self, seconds: float) -> None:
        """Let the time pass that the board has to settle."""
        self.clock.spend(seconds)

    def snapshot(self) -> BoardSnapshot:
        """Return the state of the noise of every wire, and of its faults, as JSON values; ``{}`` without either."""
        noisy = self._defects.meters.noise
        taken = {name: each.bit_generator.state for name, each in self._generators.items()} if noisy else {}
        return taken if self._laid is None else {**taken, FAULTS: self._laid.snapshot()}

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what ``snapshot`` returned."""
        for name, state in snapshot.items():
            if name in self._generators:
                self._generators[name].bit_generator.state = state
        if self._laid is not None and FAULTS in snapshot:
            self._laid.restore(snapshot[FAULTS])

    # Building.

    def _check_miswiring(self) -> None:
        miswired, network = self._section.miswired, self._network
        for key, count in (("sources", network.n_nodes), ("meters", network.n_nodes), ("pots", network.n_edges)):
            listed = [number for pair in getattr(miswired, key) for number in pair]
            for number in listed:
                if number >= count or listed.count(number) > 1:
                    raise ExperimentError(
                        f"{self._preparation.experiment.source}: simulation.miswired.{key} names {number}, which the "
                        "board has not or which is swapped twice"
                    )

    def _circuit_network(self) -> Network:
        """Return the network with every node that anything may drive as a terminal, and ground for meter inputs."""
        network = self._network
        extra = sorted(set(self._driven_nodes()) - set(network.terminals.tolist()))
        driven = Network(network.n_nodes, network.edges, network.inputs, [*network.outputs.tolist(), *extra])
        return with_ground(driven) if self._shunt else driven

    def _driven_nodes(self) -> list[int]:
        """Return the nodes that anything may drive, an SMU that only reads among them: it sources 0 A."""
        sources = [node for nodes in self._wiring.sources.values() for node in nodes.values()]
        reading = [
            node
            for name, nodes in self._wiring.meters.items()
            if isinstance(self._bench.instruments[name], SmuInstrument)
            for node in nodes.values()
        ]
        return [*sources, *reading, *(node for pair in self._section.miswired.sources for node in pair)]

    def _circuit_conductances(self) -> FloatArray:
        if not self._shunt:
            return self.true_conductances
        return np.concatenate([self.true_conductances, np.full(self._network.n_nodes, self._shunt)])

    def _build(self) -> None:
        # Switches are on the boards, but the ports of other instruments go through them.
        for name, switches in self._wiring.switches.items():
            self._switched[name] = {}
            for number, node in switches.items():
                place = self._wiring.source_at(node)
                if place is not None:
                    self._switched[name][int(number)] = SwitchedPort(self._source_port(*place, node))
        for index, (name, instrument) in enumerate(self._bench.instruments.items()):
            if isinstance(instrument, PythonInstrument):
                raise ExperimentError(
                    f'{self._preparation.experiment.source}: {name} has driver = "python": the emulated bench has no '
                    "such device"
                )
            if isinstance(instrument, BankInstrument):
                self.devices[name] = self._bank(name, instrument)
            elif isinstance(instrument, PotBoardInstrument):
                self.boards[name] = self._pot_board(name, instrument)
            elif isinstance(instrument, ScannerInstrument):
                self.instruments[name] = self._scanner(name, instrument, index)
            else:
                self.instruments[name] = self._smu(name, instrument, index)

    def _generator(self, *wire: str) -> np.random.Generator:
        """Return the noise of one wire: its own, so that parallel readings cannot change one another's."""
        name = " ".join(wire)
        entropy = [self._section.seed, *name.encode()]
        return self._generators.setdefault(name, np.random.default_rng(entropy))

    def _nowhere(self) -> Port:
        return SwitchedPort(self.circuit.port(0))

    def _meter_error(self, node: int, *, rounded: bool = True, noisy: bool = True) -> MeterError:
        meters = self._defects.meters
        return MeterError(
            gain=float(self._meters.gain[node]),
            offset=float(self._meters.offset[node]),
            noise=meters.noise if noisy else 0.0,
            resolution=meters.resolution if rounded else 0.0,
        )

    def _source_port(self, name: str, channel: str, node: int) -> Port:
        """Return the port of a source; it also reads its node where no meter does."""
        miswired = self._section.miswired
        if node in miswired.cut_sources:
            return self._nowhere()
        at = _swapped(node, miswired.sources)
        terminals = self._network.terminals.tolist()
        meter = self._meter_error(node) if self._wiring.meter_at(node) is None else None
        port = BenchPort(
            self.circuit.port(at),
            self._generator(name, "source", channel),
            source=self._defects.sources,
            source_offset=float(self._source_offset[terminals.index(node)]),
            meter=meter,
        )
        self._source_ports.setdefault(name, []).append(port)
        return port

    def _meter_port(self, name: str, channel: str, node: int, *, rounded: bool = True, noisy: bool = True) -> Port:
        miswired = self._section.miswired
        if node in miswired.cut_meters:
            return self._nowhere()
        at = _swapped(node, miswired.meters)
        error = self._meter_error(node, rounded=rounded, noisy=noisy)
        return BenchPort(self.circuit.port(at), self._generator(name, "meter", channel), meter=error)

    def _smu(self, name: str, instrument: SmuInstrument, index: int) -> EmulatedInstrument:
        model = _model(name, instrument)
        driven, read = self._wiring.sources.get(name, {}), self._wiring.meters.get(name, {})
        switched = {
            node: self._switched[board][int(number)]
            for board, switches in self._wiring.switches.items()
            for number, node in switches.items()
        }
        ports: list[Port] = []
        for channel in SMU_CHANNELS[instrument.driver]:
            if channel in driven:
                node = driven[channel]
                relay = OutputRelay(switched[node] if node in switched else self._source_port(name, channel, node))
                self._output_relays.setdefault(name, []).append(relay)
                ports.append(relay)
            elif channel in read:
                ports.append(self._meter_port(name, channel, read[channel]))
            else:
                ports.append(self._nowhere())
        serial = instrument.serial or str(4_000_001 + index)
        settings: dict[str, Any] = {
            "model": model,
            "serial": serial,
            "seed": self._section.seed,
            "line_frequency": self._section.line_frequency,
        }
        match instrument.driver:
            case "keithley2400":
                return Smu2400(ports[0], self.clock, **settings)
            case "keithley2450":
                return Smu2450(ports[0], self.clock, **settings)
            case "keithley2600b":
                count = 1 if model[2:4] in {"01", "11", "35"} else 2
                return Smu2600B(tuple(ports[:count]), self.clock, **settings)
            case _:
                count = 1 if model[3:5] in {"01", "11"} else 2
                return SmuB2900(tuple(ports[:count]), self.clock, **settings)

    def _scanner(self, name: str, instrument: ScannerInstrument, index: int) -> EmulatedInstrument:
        model = _model(name, instrument)
        serial = instrument.serial or str(4_510_001 + index)
        ports = {
            int(channel): self._meter_port(name, channel, node) for channel, node in self._wiring.meters[name].items()
        }
        seed, mains = self._section.seed, self._section.line_frequency
        try:
            if instrument.driver == "daq6510":
                return Daq6510(ports, self.clock, serial=serial, line_frequency=mains, seed=seed)
            return Dmm34970A(ports, self.clock, model=model, serial=serial, line_frequency=mains, seed=seed)
        except ValueError as error:
            raise ExperimentError(f"bench.wiring.meters.{name}: {error}: wire another one") from error

    def _bank(self, name: str, instrument: BankInstrument) -> PotBank:
        edges = self._wiring.pots[name]
        pots = self._preparation.experiment.board.pots
        folder = Path(self._folder.enter_context(TemporaryDirectory(prefix="hilcl-")))

        def set_codes(codes: IntArray) -> None:
            if len(codes) == len(edges):
                self._set_codes(edges, codes)

        return emulated_bank(name, instrument, None if pots is None else pots.chip, folder, set_codes)

    def _pot_board(self, name: str, instrument: PotBoardInstrument) -> EmulatedPotBoard | FirmwareBoard:
        wiring, read, driven = self._wiring, self._wiring.meters.get(name, {}), self._wiring.sources.get(name, {})
        edges = wiring.pots.get(name, ())
        adc_nodes = _by_number(read)
        compiled = self._section.pot_board == "firmware"
        # An emulated board's ADC rounds, and adds noise to each of the conversions that it averages.
        adc_ports = [
            self._nowhere()
            if node is None
            else self._meter_port(name, str(number), node, rounded=False, noisy=compiled)
            for number, node in enumerate(adc_nodes)
        ]
        source_nodes = _by_number(driven)
        source_ports = [
            self._nowhere() if node is None else self._source_port(name, str(number), node)
            for number, node in enumerate(source_nodes)
        ]
        if compiled:
            return self._firmware(name, instrument, adc_ports, source_ports)
        limit = float(self._preparation.experiment.limits.volts or 0.0)
        switches = dict(self._switched.get(name, {}))
        owned = [number for number in range(len(switches) + len(source_nodes)) if number not in switches]
        sources = [SourceModel(-limit, limit, switch=owned[number]) for number in range(len(source_nodes))]
        for number in range(max([*switches, *owned[: len(sources)]], default=-1)):
            if number not in switches and number not in owned[: len(sources)]:
                switches[number] = SwitchedPort(self.circuit.port(0))
        return EmulatedPotBoard(
            [self._pot_model(len(edges))] if edges else [],
            lambda codes: self._set_codes(edges, codes),
            adcs=[self._adc_model(len(adc_nodes))] if adc_nodes else [],
            read_nodes=lambda: np.array([port.see().volts for port in adc_ports]),
            sources=sources,
            ports=source_ports,
            switches=switches,
            clock=self.clock,
            identity=f"hilcl,emulated pot board,{instrument.serial or 0},1.0",
            seed=self._generator(name, "adc"),
        )

    def _firmware(
        self, name: str, instrument: PotBoardInstrument, adc_ports: list[Port], source_ports: list[Port]
    ) -> FirmwareBoard:
        """Return the compiled firmware, wired as [firmware] says or, without that table, all by itself."""
        experiment, edges = self._preparation.experiment, self._wiring.pots.get(name, ())
        switches = dict(self._switched.get(name, {}))
        table = experiment.firmware
        if table is None:
            pots = experiment.board.pots
            if pots is None or pots.chip is None:
                raise ExperimentError("the firmware in the loop needs board.pots.chip, or a [firmware] table")
            table = automatic_wiring(
                pots.chip,
                len(edges),
                adcs=len(adc_ports),
                volts=float(self._section.meters.range or 5.0),
                sources=len(source_ports),
                switches=max([len(source_ports) - 1, *switches]) + 1,
                serial=instrument.serial or "0",
                baud=instrument.baud,
            )
        wiring = read_wiring(table, VERSION)
        if wiring.pots != len(edges):
            raise ExperimentError(
                f"[firmware] has {wiring.pots} pots, but bench.wiring.pots.{name} wires {len(edges)}: correct one"
            )
        ports = source_ports + [self._nowhere() for _ in range(len(wiring.sources) - len(source_ports))]
        return FirmwareBoard(
            wiring,
            lambda codes: self._set_codes(edges, codes),
            read_nodes=lambda: np.array([port.see().volts for port in adc_ports]),
            ports=ports,
            switches=switches,
            clock=self.clock,
            seed=self._section.seed,
        )

    def _pot_model(self, count: int) -> PotModel:
        pots = self._preparation.experiment.board.pots
        if pots is None:
            raise ExperimentError("an emulated pot board needs a [board.pots] section")
        highest = pots.positions - 1
        # The safe code is the end with the smallest conductance.
        safe, middle = (0 if pots.inverted else highest), pots.positions // 2
        if pots.chip is None:
            return PotModel("POT", count, highest=highest, power_on=middle, safe=safe)
        chip = catalogued(pots.chip)
        return PotModel(
            chip.name,
            count,
            highest=highest,
            power_on=middle if chip.power_on == "memory" else chip.power_on,
            safe=safe,
            readback=chip.readable,
            nonvolatile=chip.memory is not None,
            counter=chip.buses == ("updown",),
        )

    def _adc_model(self, count: int) -> AdcModel:
        meters = self._section.meters
        if meters.bits is not None and meters.range is not None:
            # One bit more, for the sign: the steps are those of the file.
            bits, span = min(meters.bits + 1, 32), 2 * meters.range
            noise = meters.noise * 2.0**bits / span
            return AdcModel(count, bits=bits, zero=1 << (bits - 1), span=span, noise=noise)
        bits = ADC_BITS
        limit = float(self._preparation.experiment.limits.volts or 1.0)
        span = 2.0 ** np.ceil(np.log2(4 * limit))
        if meters.volts_per_count:
            bits = int(np.clip(np.ceil(np.log2(span / meters.volts_per_count)), 2, 32))
            span = meters.volts_per_count * 2.0**bits
        noise = float(meters.noise * 2.0**bits / span)
        return AdcModel(count, bits=bits, zero=1 << (bits - 1), span=float(span), noise=noise)

    def _set_codes(self, edges: tuple[int, ...], codes: IntArray) -> None:
        pairs: Any = self._section.miswired.pots
        # Boards are served by a thread each: the circuit must not be given what one of them has just changed.
        with self._writing:
            for edge, code in zip(edges, codes.tolist(), strict=True):
                if edge >= 0:
                    self._codes[_swapped(edge, pairs)] = code
            self.circuit.set_conductances(self._circuit_conductances())


def _model(name: str, instrument: SmuInstrument | ScannerInstrument) -> str:
    """Return what an instrument is emulated as."""
    match instrument.driver:
        case "keithley2600b":
            known: Mapping[str, object] = SERIES_2600B
        case "daq6510" | "34970a":
            known = voltmeter_driver(instrument.driver).models
        case _:
            known = source_driver(instrument.driver).models
    model = (instrument.model or DEFAULT_MODELS[instrument.driver]).upper()
    if model not in known:
        raise ExperimentError(
            f"bench.instruments.{name}.model is {model}, which cannot be emulated: leave it out for a "
            f"{DEFAULT_MODELS[instrument.driver]}, or choose one of {', '.join(known)}"
        )
    return model


def _swapped(number: int, pairs: list[tuple[int, int]]) -> int:
    """Return where a wire really goes."""
    for one, other in pairs:
        if number in (one, other):
            return other if number == one else one
    return number


def _by_number(nodes: Mapping[str, int]) -> list[int | None]:
    """Return nodes in the order of their numbered channels, None for those not wired."""
    if not nodes:
        return []
    listed: list[int | None] = [None] * (max(map(int, nodes)) + 1)
    for channel, node in nodes.items():
        listed[int(channel)] = node
    return listed
