"""Open the instruments an experiment file names, and make a board of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from hilcl.bench_board import BenchBoard, Memory, Wiring
from hilcl.bench_ratings import bench_limits, check_ratings
from hilcl.bench_section import (
    AnyInstrument,
    BenchSection,
    PotBoardInstrument,
    PythonInstrument,
    ScannerInstrument,
    SmuInstrument,
)
from hilcl.bench_wiring import BenchWiring
from hilcl.devices import Device, RheostatBank, SourceBank, Voltmeter
from hilcl.drivers.instrument import VisaInstrument
from hilcl.drivers.pot_bank import PotBank
from hilcl.drivers.pot_bank_opening import open_bank
from hilcl.drivers.potboard import PotBoard, PotBoardSwitches
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.drivers.registry import open_source, open_voltmeter
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.smu import Smu, SmuSettings
from hilcl.drivers.smu_voltmeter import SmuVoltmeter
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import BoardError, ExperimentError, InputError
from hilcl.link_watcher import LinkWatcher
from hilcl.pot_bank_section import BankInstrument
from hilcl.preparation import Preparation
from hilcl.settling import measured_settling, settling_of

FLOAT_AVERAGES = 10
"""Readings that the offset current of a floating channel is the mean of."""


@dataclass(frozen=True)
class Surroundings:
    """What differs where the instruments are not those of the file's resources.

    ``resources`` replace the file's by instrument, ``devices`` are handed over open, ``watchers`` are told of the
    messages of instruments, ``settle`` waits some seconds, ``patience`` seconds are waited on top of every time-out,
    ``calibrate`` False leaves floating channels uncorrected and takes readings as they come, to find out what is wrong
    with a bench, and ``on_close`` is called last.
    """

    resources: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    watchers: Mapping[str, LinkWatcher] = field(default_factory=dict)
    settle: Callable[[float], None] = time.sleep
    patience: float = 0.0
    calibrate: bool = True
    plausible: bool = True
    accept: Callable[[Mapping[str, str]], None] | None = None
    memory: Memory | None = None
    on_close: Sequence[Callable[[], None]] = ()


def open_bench(preparation: Preparation, surroundings: Surroundings | None = None) -> BenchBoard:
    """Return the board made of the instruments a file names, its pots at the start and its outputs floating or at 0 V.

    Raises InputError or BoardError naming the instrument; nothing stays open then, and every output that was turned
    on is off.
    """
    there = surroundings or Surroundings()
    experiment, wiring = preparation.experiment, preparation.wiring
    with ExitStack() as failed:
        for call in there.on_close:
            failed.callback(call)
        if experiment.bench is None or wiring is None:
            raise ExperimentError(
                f"{experiment.source} has no [bench] section: add one that names instruments and wiring, or use "
                "--backend sim"
            )
        check_ratings(preparation)
        settling = settling_of(experiment.bench.settle, preparation.network)
        devices = _Devices(preparation, experiment.bench, wiring, there, failed)
        identities = {name: device.identity for name, device in devices.opened.items()}
        if there.accept is not None:
            there.accept(identities)
        board = BenchBoard(
            preparation.network,
            preparation.device_range,
            devices.wired(),
            preparation.initial,
            settle=there.settle,
            settling=settling,
            averages=experiment.bench.averages,
            retries=experiment.bench.retries,
            limits=bench_limits(preparation),
            plausible=there.plausible,
            identities=identities,
            notes=devices.notes(),
            memory=there.memory,
            on_close=there.on_close,
        )
        failed.callback(board.close)
        if there.calibrate:
            calibrate_floating(board, devices.floating())
            if experiment.bench.settle.measured:
                measure_settling(board, preparation)
        failed.pop_all()
    return board


def calibrate_floating(board: BenchBoard, smus: Sequence[tuple[Smu, Sequence[int]]]) -> None:
    """Correct the current of every channel that floats by sourcing 0 A, the board's inputs at 0 V.

    ``smus``: each with the node of its channels, −1 for one that only reads.
    """
    network = board.network
    if not smus:
        return
    inputs = set(network.inputs.tolist())
    board.respond(np.concatenate([np.zeros(len(inputs)), np.full(len(network.outputs), np.nan)])[None, :])
    for smu, nodes in smus:
        smu.calibrate_float(FLOAT_AVERAGES, np.array([0.0 if node in inputs else np.nan for node in nodes]))


def measure_settling(board: BenchBoard, preparation: Preparation) -> None:
    """Watch the board settle at its least conductances, and wait as long from now on, whatever is learnt.

    Time constants fall where conductances rise. The inputs step from 0 V to those of the sample with the largest, the
    outputs float; the board is left with the conductances it had.
    """
    bench = preparation.experiment.bench
    if bench is None:
        return
    inputs = preparation.data.train.inputs
    largest = inputs[int(np.abs(inputs).max(axis=1).argmax())]
    floating = np.full(len(board.network.outputs), np.nan)
    before, after = np.concatenate([0.0 * largest, floating]), np.concatenate([largest, floating])
    start = board.conductances
    board.program(board.device_range.g_min)
    seconds = measured_settling(lambda wait: board.step_response(before, after, wait), bench.settle.accuracy)
    board.program(start)
    board.settle_for(bench.settle.sources + seconds)
    board.notes = (*board.notes, f"the board settles in {seconds * 1e3:.3g} ms, measured at its least conductances")


class _Devices:
    """The devices of one bench while it is being opened; what is open is closed again where anything fails."""

    def __init__(
        self,
        preparation: Preparation,
        bench: BenchSection,
        wiring: BenchWiring,
        there: Surroundings,
        failed: ExitStack,
    ) -> None:
        self._preparation, self._bench, self._wires, self._there = preparation, bench, wiring, there
        self.opened: dict[str, Device] = {}
        # What is not there is found before anything is opened; then pot boards, whose switches let others float.
        order = (PythonInstrument, PotBoardInstrument)
        for name, instrument in sorted(
            bench.instruments.items(), key=lambda item: [not isinstance(item[1], kind) for kind in order]
        ):
            device = self._open(name, instrument)
            failed.callback(device.close)
            self.opened[name] = device

    def _open(self, name: str, instrument: AnyInstrument) -> Device:
        if name in self._there.devices:
            device = self._there.devices[name]
            if isinstance(device, PotBank):
                self._check_bank(name, device)
            return device
        if isinstance(instrument, PythonInstrument):
            raise InputError(
                f'{name} has driver = "python": it must be handed over by a program (docs/instruments.md), the '
                "command line cannot open it"
            )
        if isinstance(instrument, BankInstrument):
            bank = open_bank(name, instrument)
            try:
                self._check_bank(name, bank)
            except BaseException:
                bank.close()
                raise
            return bank
        resource = self._there.resources.get(name, instrument.resource)
        if isinstance(instrument, PotBoardInstrument):
            return self._pot_board(name, instrument, resource)
        link = LinkOptions(
            backend="@py" if name in self._there.resources else self._bench.visa,
            timeout=instrument.timeout,
            open_timeout=instrument.timeout,
            slack=self._there.patience,
            baud_rate=instrument.baud,
            watcher=self._there.watchers.get(name),
        )
        if isinstance(instrument, ScannerInstrument):
            settings = ScannerSettings(instrument.range, instrument.nplc, instrument.delay, instrument.autozero)
            return open_voltmeter(
                instrument.driver,
                name,
                resource,
                list(self._wires.meters[name]),
                settings,
                link=link,
                model=instrument.model,
                serial=instrument.serial,
            )
        return open_source(
            instrument.driver,
            name,
            resource,
            self._smu_settings(instrument),
            link=link,
            model=instrument.model,
            serial=instrument.serial,
            relay=self._relay(name) if instrument.free_mode == "relay" else None,
            channels=self._smu_channels(name),
        )

    def _pot_board(self, name: str, instrument: PotBoardInstrument, resource: str) -> PotBoard:
        options = PotBoardOptions(
            baud=instrument.baud,
            fast_baud=instrument.fast_baud,
            turnaround=instrument.turnaround,
            slack=self._there.patience,
            boot_time=instrument.boot_time,
            watchdog=instrument.watchdog,
            watcher=self._there.watchers.get(name),
        )
        board = PotBoard(name, resource, options)
        try:
            board.open()
            self._check_pot_board(board, instrument)
        except BaseException:
            board.abandon()
            raise
        return board

    def _check_pot_board(self, board: PotBoard, instrument: PotBoardInstrument) -> None:
        pots = self._preparation.experiment.board.pots
        serial = board.identity.split(",")[2:3]
        if instrument.serial is not None and serial != [instrument.serial]:
            raise InputError(
                f"{board.label} is {board.identity}, but serial number {instrument.serial} is expected: correct the "
                "port or the serial number in the file"
            )
        edges = self._wires.pots.get(board.name, ())
        if len(edges) != len(board.code_counts) and edges:
            raise InputError(
                f"{board.label} has {len(board.code_counts)} pots, but bench.wiring.pots.{board.name} wires "
                f"{len(edges)}: list the edge of each, -1 for a pot that is not used"
            )
        first = 0
        for group in board.pots:
            wired = [edge for edge in edges[first : first + group.count] if edge >= 0]
            if pots is not None and wired and group.highest + 1 != pots.positions:
                raise InputError(
                    f"{board.label}: pot {first} is a {group.chip} with {group.highest + 1} codes, but "
                    f"board.pots.positions is {pots.positions}: correct one of them"
                )
            if pots is not None and pots.chip is not None and wired and group.chip.upper() != pots.chip.upper():
                raise InputError(
                    f"{board.label}: pot {first} is a {group.chip}, but board.pots.chip is {pots.chip}: correct one"
                )
            first += group.count

    def _check_bank(self, name: str, bank: PotBank) -> None:
        pots, edges = self._preparation.experiment.board.pots, self._wires.pots.get(name, ())
        if len(edges) != len(bank.pots):
            raise InputError(
                f"{name} has {len(bank.pots)} pots, but bench.wiring.pots.{name} wires {len(edges)}: list the edge of "
                "each, -1 for a pot that is not used"
            )
        for number, (pot, edge) in enumerate(zip(bank.pots, edges, strict=True)):
            if edge < 0 or pots is None:
                continue
            if pot.positions != pots.positions:
                raise InputError(
                    f"{name}: pot {number} has {pot.positions} codes, but board.pots.positions is {pots.positions}: "
                    "correct one of them"
                )
            # Kernel drivers add the end-to-end resistance: mcp4631-103.
            if pots.chip is not None and not pot.chip.upper().startswith(pots.chip.upper()):
                raise InputError(
                    f"{name}: pot {number} is a {pot.chip}, but board.pots.chip is {pots.chip}: correct one"
                )

    def _smu_settings(self, instrument: SmuInstrument) -> SmuSettings:
        limit = instrument.limit_volts or self._preparation.experiment.limits.volts or np.nan
        return SmuSettings(
            limit_volts=limit,
            limit_amperes=instrument.compliance,
            float_volts=instrument.float_volts,
            free_mode=instrument.free_mode,
            nplc=instrument.nplc,
            four_wire=instrument.four_wire,
            volts_range=instrument.volts_range,
            amperes_range=instrument.amperes_range,
            float_range=instrument.float_range,
            autozero=instrument.autozero,
        )

    def _smu_channels(self, name: str) -> list[str]:
        return [*self._wires.sources.get(name, {}), *self._wires.meters.get(name, {})]

    def _relay(self, name: str) -> "BoardRelay":
        sources = self._wires.sources.get(name, {})
        found: dict[str, PotBoardSwitches] = {}
        for board_name, switches in self._wires.switches.items():
            board = self.opened[board_name]
            for switch, node in switches.items():
                for channel, at in sources.items():
                    if at == node and isinstance(board, PotBoard):
                        found[channel] = board.switches([switch])
        return BoardRelay(name, found)

    def wired(self) -> Wiring:
        """Return the devices with the edges and nodes they are wired to."""
        wires = self._wires
        pots: list[tuple[RheostatBank, Sequence[int]]] = []
        sources: list[tuple[SourceBank, Sequence[int]]] = []
        meters: list[tuple[Voltmeter, Sequence[int]]] = []
        for name, device in self.opened.items():
            if name in wires.pots:
                if not isinstance(device, RheostatBank):
                    raise _no_kind(name, "pots", "RheostatBank")
                pots.append((device, wires.pots[name]))
            driven, read = wires.sources.get(name, {}), wires.meters.get(name, {})
            if isinstance(device, Smu):
                # A channel that only reads floats at 0 A, so it is driven with NaN.
                sources.append((device, [driven.get(channel, -1) for channel in device.channels]))
                if read:
                    meters.append((SmuVoltmeter(device, list(read)), list(read.values())))
                continue
            if isinstance(device, PotBoard):
                if driven:
                    sources.append((device.sources(list(driven)), list(driven.values())))
                if read:
                    meters.append((device.meter(list(read)), list(read.values())))
                continue
            if driven:
                if not isinstance(device, SourceBank):
                    raise _no_kind(name, "sources", "SourceBank")
                sources.append((device, _nodes(name, device.channels, driven)))
            if read:
                if not isinstance(device, Voltmeter):
                    raise _no_kind(name, "meters", "Voltmeter")
                meters.append((device, _nodes(name, device.channels, read)))
        return Wiring(pots=pots, sources=sources, meters=meters, grounded=wires.grounded)

    def notes(self) -> list[str]:
        """Return what was found that the person at the bench should know."""
        found = []
        for name, device in self.opened.items():
            if isinstance(device, Smu) and device.powered_at_open:
                channels = ", ".join(device.powered_at_open)
                found.append(f"{name}: the output of channel {channels} was on already; something else left it so")
            if isinstance(device, VisaInstrument) and device.found_errors:
                found.append(f"{name}: its error queue held {'; '.join(device.found_errors[:3])} from before")
        return found

    def floating(self) -> list[tuple[Smu, list[int]]]:
        """Return the SMUs whose floating current is to be calibrated, with the nodes of their channels."""
        outputs = set(self._preparation.network.outputs.tolist())
        found = []
        for name, device in self.opened.items():
            instrument = self._bench.instruments[name]
            if not (isinstance(device, Smu) and isinstance(instrument, SmuInstrument)):
                continue
            nodes = [self._wires.sources.get(name, {}).get(channel, -1) for channel in device.channels]
            floats = any(node in outputs or node < 0 for node in nodes)
            if instrument.calibrate_float and instrument.free_mode == "zero_amp" and floats:
                found.append((device, nodes))
        return found


class BoardRelay:
    """Clamp switches of pot boards as the relay of an SMU; a channel without one is always connected."""

    def __init__(self, name: str, switches: Mapping[str, PotBoardSwitches]) -> None:
        self._name, self._switches = name, dict(switches)

    def switch(self, channel: str, closed: bool) -> None:
        """Close or open the switch of a channel and return when it has settled."""
        if channel in self._switches:
            self._switches[channel].set(np.array([closed]))
        elif not closed:
            raise BoardError(f"{self._name} channel {channel} has no switch and cannot float: wire one")


def _no_kind(name: str, wired: str, kind: str) -> InputError:
    return InputError(f"{name} is wired in bench.wiring.{wired}, but what was handed over is no {kind}")


def _nodes(name: str, channels: Sequence[str], wired: Mapping[str, int]) -> list[int]:
    """Return the node of every channel of a device, −1 for those not wired."""
    unknown = sorted(set(wired) - set(channels))
    if unknown:
        raise InputError(
            f"{name} has the channels {', '.join(channels)}, but bench.wiring wires {unknown[0]}: correct the wiring"
        )
    return [wired.get(channel, -1) for channel in channels]
