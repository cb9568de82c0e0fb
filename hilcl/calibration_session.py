"""Assembling with a calibration: making one of a board, and preparing, opening and watching a board through one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hilcl.arrays import BoolArray, FloatArray
from hilcl.bench_board import BenchBoard
from hilcl.bench_ratings import bench_limits
from hilcl.bench_section import SmuInstrument
from hilcl.board import Board
from hilcl.calibration.apply import (
    CalibratedBoard,
    calibrated_range,
    largest_conductances,
    step_size_margin,
    twin_of,
    watch_reference,
)
from hilcl.calibration.design import DriveLimits
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration, file_summary
from hilcl.calibration.fit import InstrumentSpec
from hilcl.calibration.procedure import Progress, Settings
from hilcl.calibration.procedure import calibrate as calibrate_board
from hilcl.calibration.replay import Replay, replay
from hilcl.calibration.watch import DriftWatch, WatchedBoard, WatchSettings
from hilcl.certificate import lipschitz_constant, safe_step_size
from hilcl.device_range import DeviceRange
from hilcl.errors import ExperimentError, InputError
from hilcl.experiment import Experiment
from hilcl.learning import RobbinsMonro
from hilcl.preparation import Preparation, check_limits, prepare
from hilcl.results import RunResult
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard, SourceDefects

DEFAULT_SUFFIX = ".calibration.json"


def prepare_calibrated(experiment: Experiment) -> Preparation:
    """Build and check what an experiment file describes, with the calibration it names, if any.

    Conductances, limits and the automatic step size are then those of the calibration, with its uncertainty on the
    safe side. Raises InputError as ``prepare`` does, and CalibrationError for a calibration that cannot be used.
    """
    nominal = prepare(experiment)
    name = experiment.calibration.file
    if name is None:
        return nominal
    if nominal.pots is None:
        raise ExperimentError(
            f"{experiment.source}: calibration.file needs [board.pots]: a calibration says what codes are worth"
        )
    calibration = Calibration.load(experiment.path_of(name))
    calibration.check_applies(
        nominal.network,
        nominal.pots,
        calibration.board.identities,
        accept_expired=experiment.calibration.accept_expired,
        path=experiment.path_of(name),
    )
    return calibrated(nominal, calibration)


def calibrated(nominal: Preparation, calibration: Calibration) -> Preparation:
    """Return a preparation with the conductances of a calibration in place of the nominal ones."""
    experiment, network = nominal.experiment, nominal.network
    device_range = calibrated_range(nominal.device_range, calibration.table)
    train, test = nominal.data.train, nominal.data.test
    upper = DeviceRange(device_range.g_min, np.maximum(largest_conductances(calibration), device_range.g_max))
    check_limits(experiment, upper, [train] if test is None else [train, test], network)
    rule = nominal.rule
    schedule = rule.step_size if isinstance(rule.step_size, RobbinsMonro) else None
    if (schedule.initial if schedule else rule.step_size) == "auto":
        # An edge that does not follow its code cannot be moved, so how small it is bounds no step.
        moving = np.nanmax(calibration.table, axis=1) > np.nanmin(calibration.table, axis=1)
        least = DeviceRange(device_range.g_min[moving].min() if moving.any() else device_range.g_min.min(), np.inf)
        lipschitz = lipschitz_constant(network, least, train, rule.batch_size)
        gamma = safe_step_size(rule, least, lipschitz) * step_size_margin(calibration)
        rule = replace(rule, step_size=replace(schedule, initial=gamma) if schedule else gamma)
    codes = nominal.device_range.project(nominal.initial).codes
    initial = nominal.initial if codes is None else calibration.table[np.arange(network.n_edges), codes]
    return replace(
        nominal, device_range=device_range, rule=rule, initial=initial, calibration=calibration, nominal=nominal
    )


def twin_board(preparation: Preparation) -> SimulatedBoard:
    """Return the digital twin of a calibrated board: its conductances, noise, lead and input resistance."""
    calibration = calibration_of(preparation)
    twin = twin_of(calibration)
    noise = twin.meter_noise[twin.meter_noise > 0]
    experiment, leak = preparation.experiment, calibration.meter_parameters.leak
    section = experiment.simulation
    # Where no data sheet says that the meters load the board, what was fitted is only what is not known of it.
    loaded = experiment.calibration.instruments.meter_resistance is not None and leak > 0
    return SimulatedBoard(
        preparation.network,
        preparation.initial,
        preparation.device_range,
        Imperfections(
            meters=MeterDefects(
                noise=float(np.sqrt((noise**2).mean())) if noise.size else 0.0,
                input_resistance=1.0 / leak if loaded else np.inf,
            ),
            sources=SourceDefects(series=max(0.0, float(np.median(twin.source_series)))),
        ),
        section.seed,
        solver=section.solver,
        accuracy=section.accuracy,
    )


def check_instruments(preparation: Preparation, identities: Mapping[str, str]) -> None:
    """Raise CalibrationError where the calibration is not one of these instruments, by name and identity."""
    calibration, section = calibration_of(preparation), preparation.experiment.calibration
    if preparation.pots is None:
        raise ExperimentError(f"{preparation.experiment.source}: a calibration needs [board.pots]")
    path = None if section.file is None else preparation.experiment.path_of(section.file)
    calibration.check_applies(
        preparation.network, preparation.pots, identities, accept_expired=section.accept_expired, path=path
    )


def through_calibration(board: BenchBoard, preparation: Preparation) -> Board:
    """Return a bench's board programmed and read through its calibration, and watched unless that is switched off.

    Raises CalibrationError where the calibration is not one of these instruments.
    """
    calibration = calibration_of(preparation)
    check_instruments(preparation, board.identities)
    known = CalibratedBoard(board, calibration)
    watch = preparation.experiment.calibration.watch
    if not watch.enabled:
        return known
    settings = WatchSettings(
        false_alarms=watch.false_alarms, smallest_change=watch.smallest_change, update=watch.update
    )
    return WatchedBoard(known, DriftWatch(preparation.network, watch_reference(calibration), settings))


def calibration_mark(preparation: Preparation) -> str | None:
    """Return what tells a calibration from others, for the records of a run; None without one."""
    if preparation.calibration is None:
        return None
    calibration = calibration_of(preparation)
    return f"of {calibration.created:%Y-%m-%d %H:%M} UTC, {file_summary(calibration)['checksum'][:16]}"


def calibration_of(preparation: Preparation) -> Calibration:
    """Return the calibration of a preparation that has one."""
    if not isinstance(preparation.calibration, Calibration):
        raise ExperimentError(f"{preparation.experiment.source} names no calibration: set calibration.file")
    return preparation.calibration


def default_path(experiment: Experiment) -> Path:
    """Return where the calibration of an experiment goes: the file it names, or one beside the experiment file."""
    name = experiment.calibration.file
    return experiment.path_of(experiment.source.stem + DEFAULT_SUFFIX if name is None else name)


def calibration_steps(preparation: Preparation, board: Board) -> Iterator[Progress]:
    """Calibrate an open board as the experiment file says; the last progress carries the result."""
    experiment = preparation.experiment
    section, pots = experiment.calibration, preparation.pots
    if pots is None:
        raise ExperimentError(f"{experiment.source}: a calibration needs [board.pots]: it says what codes are worth")
    spec = section.instruments.model_dump()
    resistance = spec.pop("meter_resistance")
    if resistance is not None:
        spec |= {"meter_resistance": resistance}
    settings = Settings(
        patterns=section.patterns,
        drives=section.drives,
        verification=section.verification,
        budget=section.budget,
        target=section.target,
        inl=section.inl,
        seed=section.seed,
    )
    return calibrate_board(board, pots, drive_limits(preparation), spec=InstrumentSpec(**spec), settings=settings)


def usable_codes(preparation: Preparation) -> BoolArray | None:
    """Return which codes (M, K) may be written, None without codes."""
    table, n_edges = preparation.device_range.table, preparation.network.n_edges
    if table is None:
        return None
    usable: BoolArray = ~np.isnan(np.broadcast_to(table, (n_edges, table.shape[-1])))
    return usable


def drive_limits(preparation: Preparation) -> DriveLimits:
    """Return what a calibration may drive: the range of the data's volts, within [limits] and the compliance."""
    train, test = preparation.data.train, preparation.data.test
    tasks = [train] if test is None else [train, test]
    columns = np.vstack([np.hstack([task.inputs, task.targets]) for task in tasks])
    count = columns.shape[1]
    low, high = np.full(count, columns.min()), np.full(count, columns.max())
    wiring, bench = preparation.wiring, preparation.experiment.bench
    compliance = np.inf
    if wiring is not None and bench is not None:
        for terminal, node in enumerate(preparation.network.terminals.tolist()):
            if node in wiring.grounded:
                low[terminal] = high[terminal] = 0.0
        compliance = min(
            [each.compliance for each in bench.instruments.values() if isinstance(each, SmuInstrument)], default=np.inf
        )
    return DriveLimits(
        low,
        high,
        amperes_per_pot=bench_limits(preparation).amperes_per_pot,
        amperes_per_source=0.9 * compliance,
    )


def replay_run(result: RunResult, file: Path | None, *, every: int = 1) -> Replay:
    """Replay a stored run on the twin of its board, which ``file`` or the run's own calibration describes.

    Raises CalibrationError or InputError where the run has no codes, no calibration, or is of another board.
    """
    name = result.info.name
    own = (result.info.settings.get("calibration") or {}).get("file")
    named = own if file is None else file
    if named is None:
        raise InputError(f"the run {name!r} used no calibration: name that of its board with --calibration")
    if file is None and not Path(named).exists():
        # The store does not know the experiment file's folder, which the name is relative to.
        raise InputError(
            f"the run {name!r} used the calibration {named}, which is not here: name it with --calibration"
        )
    calibration = Calibration.load(Path(named))
    codes, outputs = result.history.codes, result.history.outputs
    if codes is None or len(codes) < 2:
        raise InputError(f"the run {name!r} has fewer than two epochs with codes: there is nothing to replay")
    if calibration.network != result.network:
        raise CalibrationError(f"the run {name!r} is one of another board than the calibration: name that of its board")
    device_range = twin_of(calibration).device_range
    twin = SimulatedBoard(result.network, device_range.g_min, device_range)
    measured = outputs[1:]
    if own is None:
        measured = _corrected_outputs(calibration, measured)
    # An epoch's outputs are read before its update, on the codes of the epoch before.
    return replay(calibration, twin, result.train.inputs, result.train.targets, codes[:-1], measured, every=every)


def _corrected_outputs(calibration: Calibration, outputs: FloatArray) -> FloatArray:
    """Return outputs (E, S, O) in volts without gain and offset of their meters."""
    network = calibration.network
    readings = np.full((outputs.shape[0] * outputs.shape[1], network.n_nodes), np.nan)
    readings[:, network.outputs] = outputs.reshape(-1, outputs.shape[2])
    corrected: FloatArray = calibration.meter_parameters.correct(readings)[:, network.outputs].reshape(outputs.shape)
    return corrected
