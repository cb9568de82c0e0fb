"""A board made of instruments: pots, sources and meters behind the same protocol the simulator answers."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hilcl.arrays import BoolArray, FloatArray, IntArray, frozen, per_edge, samples_by
from hilcl.board import BoardSnapshot, Contrast, Response, SafeExit, contrast_from_responses
from hilcl.clamp_watch import ClampWatch
from hilcl.device_range import DeviceRange
from hilcl.devices import Device, JointVoltmeter, RheostatBank, SourceBank, SourceReadings, Voltmeter, VoltReadings
from hilcl.errors import BoardError, HilclError, InputError, MeasurementError, UnsafeBoardError
from hilcl.events import Event, EventLog, events_of
from hilcl.network import Network
from hilcl.plausibility import Plausibility
from hilcl.settling import Settling
from hilcl.strand import forked, own_strand
from hilcl.uninterrupted import uninterrupted


@dataclass(frozen=True)
class Wiring:
    """What is connected to what.

    ``pots``: banks with the edge of each pot; ``sources``, ``meters``: banks with the node of each channel; −1 leaves a
    pot or channel unused. ``grounded``: terminals wired to 0 V for good.
    """

    pots: Sequence[tuple[RheostatBank, Sequence[int]]]
    sources: Sequence[tuple[SourceBank, Sequence[int]]]
    meters: Sequence[tuple[Voltmeter, Sequence[int]]]
    grounded: Sequence[int] = ()


@dataclass(frozen=True)
class BenchLimits:
    """What is refused before it is driven (``volts``) and checked after each reading (``*_per_pot``)."""

    volts: float = np.inf
    amperes_per_pot: float = np.inf
    watts_per_pot: float = np.inf


class Memory(Protocol):
    """What decides the next readings besides codes and drives; a bench of real instruments has none."""

    def snapshot(self) -> BoardSnapshot:
        """Return the state as JSON values."""
        ...

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what ``snapshot`` returned."""
        ...


class BenchBoard(SafeExit):
    """Implements ``hilcl.board.Board`` with rheostat banks, source banks and voltmeters.

    ``device_range`` needs a table: codes are what is written. ``settle`` is called after every change of the drives
    with the seconds that ``settling`` gives for the conductances, and returns when they are over. Independent links
    work in parallel. A reading that is none (in compliance, no number, scattered, or unless ``plausible`` is off
    impossible for resistors) is discarded, and the sample driven, settled and read again up to ``retries`` times; what
    still is in compliance is marked in the response and never used, anything else raises MeasurementError. Pots that
    can be read are read back with every response. What was done again is told by ``take_events``. ``identities`` name
    the instruments for the records, ``notes`` are for the person at the bench; ``on_close`` are called last, whatever
    happened before.

    Raises InputError where a node or edge is wired twice or a terminal or edge not at all.
    """

    def __init__(
        self,
        network: Network,
        device_range: DeviceRange,
        wiring: Wiring,
        conductances: npt.ArrayLike,
        *,
        settle: Callable[[float], None],
        settling: Settling = lambda _: 0.0,
        averages: int = 1,
        retries: int = 2,
        limits: BenchLimits | None = None,
        plausible: bool = True,
        identities: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        memory: Memory | None = None,
        on_close: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._network = network
        self._device_range = device_range.for_edges(network.n_edges)
        if not self._device_range.is_discrete:
            raise InputError("a bench needs a device range with a table: what is written to a pot is a code")
        self._wiring, self._averages, self._retries = wiring, averages, retries
        self._settle, self._settling, self._settling_seconds = settle, settling, 0.0
        self._limits = limits or BenchLimits()
        self.identities, self.notes = dict(identities or {}), tuple(notes)
        self._memory, self._on_close = memory, tuple(on_close)
        self._doubts = Plausibility(network, self._limits.volts if plausible else np.inf)
        self._clamps = ClampWatch(network, self._limits.volts if plausible else np.inf)
        self._events = EventLog()
        self._told: set[str] = set()
        self._written: list[IntArray] = []
        _check_wiring(network, wiring)
        self._links = ThreadPoolExecutor(max_workers=max(1, len(self._devices())), thread_name_prefix="hilcl-link")
        self._closed = False
        self._conductances = frozen(np.zeros(network.n_edges))
        self.found_codes = frozen(self.read_codes())
        """Codes (M,) that the pots held before anything was written, −1 where a chip cannot be read."""
        self.program(per_edge("conductances", conductances, network.n_edges, InputError))

    @property
    def network(self) -> Network:
        """The wiring of the board itself."""
        return self._network

    @property
    def device_range(self) -> DeviceRange:
        """Limits and codes of every edge, as best known."""
        return self._device_range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens, as best known."""
        return self._conductances

    @property
    def exact(self) -> bool:
        """Readings of a bench always carry errors."""
        return False

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        """Write the codes nearest to (M,) siemens to every bank and return their conductances (M,)."""
        wished = per_edge("conductances", conductances, self._network.n_edges, InputError)
        projection = self._device_range.project(wished)
        codes = projection.codes
        if codes is None:
            raise InputError("a bench needs a device range with a table: what is written to a pot is a code")

        self._written = []
        for bank, edges in self._wiring.pots:
            wired = np.asarray(edges)
            self._written.append(np.where(wired >= 0, codes[wired], bank.code_counts // 2))
        self._write_codes()
        self._conductances = frozen(projection.conductances)
        self._settling_seconds = self._settling(self._conductances)
        return self._conductances

    def read_codes(self) -> IntArray:
        """Return the codes (M,) that the pots hold, −1 where a chip cannot be read."""
        held = np.full(self._network.n_edges, -1)
        found = self._at_once([bank.read for bank, _ in self._wiring.pots])
        for codes, (_, edges) in zip(found, self._wiring.pots, strict=True):
            wired = np.asarray(edges)
            held[wired[wired >= 0]] = codes[wired >= 0]
        return held

    def take_events(self) -> list[Event]:
        """Return what was done again since the last call, by the board and by its devices."""
        self._gather_events()
        return self._events.take()

    def _gather_events(self) -> bool:
        """Take the events of the devices over, and return whether there were any."""
        found = events_of(self._devices())
        self._events.add(found)
        return bool(found)

    def respond(self, drives: npt.ArrayLike) -> Response:
        """Drive the terminals with each row of (S, T) volts, NaN floating, and read what is wired to a meter.

        Raises MeasurementError where a reading stays none, and BoardError where pots do not keep their codes.
        """
        wanted = samples_by("drives", drives, len(self._network.terminals), InputError)
        self._check_drives(wanted)
        lost: str | None = None
        for _ in range(1 + self._retries):
            response: Response | MeasurementError
            try:
                response = self._respond(wanted)
            except MeasurementError as error:
                response = error
            # Also where the readings are refused: pots with other codes may be why.
            lost = self._lost_code()
            if lost is None:
                if isinstance(response, MeasurementError):
                    raise response
                return response
            self._events.note(lost, "wrote all codes and measured again")
            self._write_codes()
        raise BoardError(f"{lost}, again and again: check the supply of the pots")

    def step_response(self, before: npt.ArrayLike, after: npt.ArrayLike, seconds: float) -> FloatArray:
        """Settle at drives (T,) ``before``, then return the potentials (N,) ``seconds`` later than drives ``after``.

        With negative ``seconds``, those before. Readings are not compared with what resistors can give. Raises what
        ``respond`` raises.
        """
        rest, step = samples_by("drives", np.array([before, after]), len(self._network.terminals), InputError)
        self._check_drives(np.array([rest, step]))
        self._drive(rest)
        self._settle(self._settling_seconds)
        if seconds >= 0:
            self._drive(step)
            self._settle(seconds)
        potentials, potentials_u = np.full((2, 1, self._network.n_nodes), np.nan)
        currents = np.full((1, len(step)), np.nan)
        limited, _ = self._read(0, step if seconds >= 0 else rest, potentials, potentials_u, currents)
        if limited.any():
            node = self._network.terminals[np.flatnonzero(limited)[0]]
            raise MeasurementError(f"the source at {self._network.name(int(node))} reported its limit")
        return np.asarray(potentials[0], dtype=np.float64)

    @property
    def settling_seconds(self) -> float:
        """Seconds that are waited after every change of the drives, at the present conductances."""
        return self._settling_seconds

    def settle_for(self, seconds: float) -> None:
        """Wait so long from now on, whatever the conductances."""
        self._settling = lambda _: seconds
        self._settling_seconds = seconds

    def _respond(self, wanted: FloatArray) -> Response:
        shape = (len(wanted), self._network.n_nodes)
        potentials, potentials_u = np.full(shape, np.nan), np.full(shape, np.nan)
        currents = np.full(wanted.shape, np.nan)
        compliance = np.zeros(wanted.shape, dtype=np.bool_)
        for sample, drive in enumerate(wanted):
            for attempt in range(1 + self._retries):
                self._drive(drive)
                self._settle(self._settling_seconds)
                self._gather_events()
                doubt: str | None = None
                try:
                    compliance[sample], doubt = self._read(sample, drive, potentials, potentials_u, currents)
                except MeasurementError as error:
                    if attempt == self._retries:
                        raise
                    doubt = str(error)
                if self._gather_events() and doubt is None:
                    # One that was away had its output off while the others were read.
                    doubt = "an instrument was not in order while the others were read"
                if doubt is None and compliance[sample].any():
                    node = self._network.terminals[np.flatnonzero(compliance[sample])[0]]
                    doubt = f"the source at {self._network.name(int(node))} reported its limit or read no number"
                    if attempt == self._retries:
                        break
                if doubt is None:
                    break
                if attempt == self._retries:
                    raise MeasurementError(f"sample {sample}: {doubt}")
                self._events.note(doubt.split(": check")[0], f"discarded sample {sample} and measured it again")
            self._check_pots(potentials[sample])
        return Response(potentials, currents, potentials_u, np.where(np.isnan(currents), np.nan, 0.0), compliance)

    def contrast(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, nudge: float) -> Contrast:
        """Measure both phases of every sample."""
        volts = samples_by("inputs", inputs, len(self._network.inputs), InputError)
        wanted = samples_by("targets", targets, len(self._network.outputs), InputError)
        return contrast_from_responses(self, volts, wanted, nudge, judge=self._clamps.check)

    def snapshot(self) -> BoardSnapshot:
        """Return what an emulated bench remembers; real instruments have nothing that could be stored."""
        return {} if self._memory is None else self._memory.snapshot()

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what an emulated bench remembered."""
        if self._memory is not None:
            self._memory.restore(snapshot)

    @uninterrupted("making the bench safe")
    def make_safe(self) -> None:
        """Switch every source off first, then make meters and pots safe; raises UnsafeBoardError when all was tried.

        All sources at once, so that none waits for one that does not answer.
        """
        failures: list[str] = []
        for group in (self._wiring.sources, self._wiring.meters, self._wiring.pots):
            devices = [device for device, _ in group]
            if devices:
                with ThreadPoolExecutor(max_workers=len(devices), thread_name_prefix="hilcl-safe") as pool:
                    failures += [said for said in pool.map(_made_safe, devices) if said is not None]
        if failures:
            # A device on several wires says so for each.
            self._told.update(failures)
            raise UnsafeBoardError("; ".join(dict.fromkeys(failures)))

    @uninterrupted("making the bench safe")
    def close(self) -> None:
        """Make the bench safe and let go of every device.

        Raises UnsafeBoardError when all was tried, and only for what ``make_safe`` has not said before.
        """
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last:
            for call in self._on_close:
                last.callback(call)
            last.callback(self._links.shutdown)
            before = set(self._told)
            failures = []
            with suppress(BoardError):
                # What it says is in ``_told``; a device says it again when it is closed.
                self.make_safe()
            for device in self._devices():
                try:
                    device.close()
                except BoardError as error:
                    failures.append(str(error))
            new = [said for said in dict.fromkeys([*self._told, *failures]) if said not in before]
            if new and not before:
                raise UnsafeBoardError("; ".join(new))

    def _devices(self) -> list[Device]:
        groups = (self._wiring.sources, self._wiring.meters, self._wiring.pots)
        return [device for group in groups for device, _ in group]

    def _write_codes(self) -> None:
        banks = [bank for bank, _ in self._wiring.pots]
        self._at_once([partial(bank.write, codes) for bank, codes in zip(banks, self._written, strict=True)])

    def _lost_code(self) -> str | None:
        """Return which pot holds another code than was written, None where none does or none can be read."""
        held = self._at_once([bank.read for bank, _ in self._wiring.pots])
        for (bank, edges), codes, written in zip(self._wiring.pots, held, self._written, strict=True):
            wrong = np.flatnonzero((codes >= 0) & (codes != written) & (np.asarray(edges) >= 0))
            if wrong.size:
                pot = int(wrong[0])
                name = getattr(bank, "name", bank.identity)
                return f"{name}: pot {pot} (edge {edges[pot]}) holds code {codes[pot]} where {written[pot]} was written"
        return None

    def _at_once(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run jobs of independent links in parallel; the first error is raised after all have ended."""
        if len(jobs) < 2:
            return [job() for job in jobs]
        strands = [forked(job) for job in jobs]
        pending = [self._links.submit(work) for _, work in strands]
        failures = [failure for failure in (each.exception() for each in pending) if failure is not None]
        for strand, _ in strands:
            own_strand().join(strand)
        if failures:
            raise failures[0]
        return [each.result() for each in pending]

    def _check_drives(self, wanted: FloatArray) -> None:
        """Raise InputError for drives (S, T) that must not be driven."""
        if np.isinf(wanted).any() or np.nanmax(np.abs(wanted), initial=0.0) > self._limits.volts:
            raise InputError(f"a drive is beyond the limit of {self._limits.volts:g} V: nothing was driven")
        for drive in wanted:
            self._refuse_driven_ground(drive)

    def _refuse_driven_ground(self, drive: FloatArray) -> None:
        for node in self._wiring.grounded:
            terminal = self._network.terminals.tolist().index(node)
            if drive[terminal] != 0.0:
                raise InputError(
                    f"{self._network.name(node)} is wired to 0 V, but the data drive it with {drive[terminal]:g} V"
                )

    def _drive(self, drive: FloatArray) -> None:
        terminals = self._network.terminals.tolist()

        def volts(nodes: Sequence[int]) -> FloatArray:
            return np.array([drive[terminals.index(node)] if node >= 0 else np.nan for node in nodes])

        self._at_once([partial(bank.drive, volts(nodes)) for bank, nodes in self._wiring.sources])

    def _measure(self) -> tuple[list[SourceReadings], list[VoltReadings]]:
        """Read all sources and all meters, all links at once and no channel twice."""
        sources, meters = self._wiring.sources, self._wiring.meters
        of_sources: dict[int, SourceReadings] = {}
        of_meters: dict[int, VoltReadings] = {}
        banks = {id(bank): index for index, (bank, _) in enumerate(sources)}

        def source(index: int) -> None:
            of_sources[index] = sources[index][0].read()

        def meter(index: int) -> None:
            of_meters[index] = meters[index][0].read(self._averages)

        def both(index: int, joint: JointVoltmeter) -> None:
            of_sources[banks[id(joint.bank)]], of_meters[index] = joint.read_both(self._averages)

        jobs: list[Callable[[], None]] = []
        told: set[int] = set()
        for index, (device, _) in enumerate(meters):
            if isinstance(device, JointVoltmeter) and (bank := banks.get(id(device.bank))) is not None:
                told.add(bank)
                jobs.append(partial(both, index, device))
            else:
                jobs.append(partial(meter, index))
        # A source that watches its relay is read after the meters: what it sees then held while they read.
        late = [index for index, (bank, _) in enumerate(sources) if getattr(bank, "read_last", False)]
        early = [index for index in range(len(sources)) if index not in late and index not in told]
        self._at_once([*(partial(source, index) for index in early), *jobs])
        self._at_once([partial(source, index) for index in late])
        return [of_sources[index] for index in range(len(sources))], [of_meters[index] for index in range(len(meters))]

    def _read(
        self,
        sample: int,
        drive: FloatArray,
        potentials: FloatArray,
        potentials_u: FloatArray,
        currents: FloatArray,
    ) -> tuple[BoolArray, str | None]:
        """Read all devices into row ``sample``.

        Return which terminals are in compliance (T,), and what makes these readings none, None where nothing does.
        """
        of_sources, of_meters = self._measure()
        terminals = self._network.terminals.tolist()
        limited = np.zeros(len(terminals), dtype=np.bool_)
        sourced = np.full(self._network.n_nodes, np.nan)
        doubt: str | None = None
        for node in self._wiring.grounded:
            potentials[sample, node], potentials_u[sample, node] = 0.0, 0.0
        # A source's own reading stands in where its node has no meter; a meter's reading takes its place.
        for (_, nodes), readings in zip(self._wiring.sources, of_sources, strict=True):
            for channel, node in enumerate(nodes):
                if node >= 0:
                    terminal = terminals.index(node)
                    currents[sample, terminal] = readings.amperes[channel]
                    limited[terminal] = readings.in_compliance[channel]
                    potentials[sample, node] = sourced[node] = readings.volts[channel]
        for (_, nodes), volts in zip(self._wiring.meters, of_meters, strict=True):
            doubt = doubt or self._doubts.scattered(nodes, volts.volts_u)
            for channel, node in enumerate(nodes):
                if node >= 0:
                    potentials[sample, node] = volts.volts[channel]
                    potentials_u[sample, node] = volts.volts_u[channel]
        currents[sample, np.isnan(drive)] = 0.0
        if not limited.any():
            read = potentials[sample], sourced, self._conductances, currents[sample]
            doubt = doubt or self._doubts.doubt(drive, *read)
        return limited, doubt

    def _check_pots(self, potentials: FloatArray) -> None:
        """Raise BoardError where a pot carries or takes more than its limit, by the measured voltages."""
        volts = np.abs(self._network.edge_voltages(potentials))
        amperes = volts * self._conductances
        for values, limit, unit, does in (
            (amperes, self._limits.amperes_per_pot, "A", "carries"),
            (amperes * volts, self._limits.watts_per_pot, "W", "heats with"),
        ):
            beyond = np.flatnonzero(values > limit)
            if beyond.size:
                edge = int(beyond[0])
                raise BoardError(
                    f"edge {edge} {does} {values[edge]:.3g} {unit}, above its limit of {limit:g} {unit}: lower the "
                    "volts or exclude its lowest codes"
                )


def _made_safe(device: Device) -> str | None:
    """Make a device safe and return why it could not be, None where it is."""
    try:
        device.make_safe()
    except HilclError as error:
        return str(error)
    return None


def _check_wiring(network: Network, wiring: Wiring) -> None:
    edges = [edge for _, each in wiring.pots for edge in each if edge >= 0]
    _refuse_twice(edges, "edge", "pots")
    missing = sorted(set(range(network.n_edges)) - set(edges))
    if missing:
        raise InputError(f"edge {missing[0]} has no pot: wire one to it")
    driven = [node for _, each in wiring.sources for node in each if node >= 0]
    _refuse_twice([*driven, *wiring.grounded], "node", "sources")
    _refuse_twice([node for _, each in wiring.meters for node in each if node >= 0], "node", "meters")
    terminals = set(network.terminals.tolist())
    for node in (*driven, *wiring.grounded):
        if node not in terminals:
            raise InputError(f"a source is wired to node {node}, which is neither input nor output")
    for node in network.terminals.tolist():
        if node not in {*driven, *wiring.grounded}:
            raise InputError(f"{network.name(node)} has no source: wire a channel to it")
    for counts, bank, nodes in (
        *((len(bank.code_counts), bank, each) for bank, each in wiring.pots),
        *((len(bank.channels), bank, each) for bank, each in wiring.sources),
        *((len(bank.channels), bank, each) for bank, each in wiring.meters),
    ):
        if counts != len(nodes):
            raise InputError(
                f"{bank.identity} has {counts} channels, but {len(nodes)} are wired: use -1 for unused ones"
            )


def _refuse_twice(numbers: list[int], what: str, devices: str) -> None:
    for number in numbers:
        if numbers.count(number) > 1:
            raise InputError(f"two {devices} are wired to {what} {number}: each {what} takes one")
