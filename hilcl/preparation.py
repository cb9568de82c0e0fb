"""From an experiment file to what the loop needs: network, devices, data, rule, start, and the check of the limits."""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray, per_edge
from hilcl.bench_section import SmuInstrument
from hilcl.bench_wiring import BenchWiring, bench_wiring
from hilcl.dataset import read_csv
from hilcl.device_range import DeviceRange
from hilcl.errors import DeviceRangeError, ExperimentError, InputError
from hilcl.experiment import BoardSection, EdgesSection, Experiment, GridSection
from hilcl.learning import ContrastiveLearning, RobbinsMonro
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.task import Task
from hilcl.task_file import LoadedTask, load_task
from hilcl.training import Stopping

START_STREAM = 1
"""Seeds the random start apart from the draws that training makes with the same seed."""


@dataclass(frozen=True)
class Preparation:
    """Everything an experiment file says, in the objects the loop takes.

    ``initial`` (M,) in siemens. ``centres`` (C, O) in volts are the target volts of each class; None without classes,
    or where classes are decoded by their mean outputs measured on the trained board. ``wiring`` is that of the [bench]
    section, None without one. ``calibration`` is what the conductances are known by, and ``nominal`` the preparation
    without it.
    """

    experiment: Experiment
    network: Network
    device_range: DeviceRange
    pots: Potentiometer | None
    initial: FloatArray
    data: LoadedTask
    rule: ContrastiveLearning
    stopping: Stopping
    wiring: BenchWiring | None = None
    calibration: object | None = None
    nominal: "Preparation | None" = None

    @property
    def centres(self) -> FloatArray | None:
        """Target volts that decide the class, see above."""
        section = self.experiment.task.encoding
        if section is None or self.data.encoding is None or section.decode == "centroid":
            return None
        return self.data.encoding.levels


def prepare(experiment: Experiment) -> Preparation:
    """Build and check everything an experiment file describes; nothing is driven and nothing is written.

    Raises InputError (of the kind that fits) naming the file and what is wrong in it.
    """
    try:
        network = _network(experiment)
        pots = _potentiometer(experiment.board)
        device_range = _device_range(experiment.board, pots).for_edges(network.n_edges)
        rule = _rule(experiment)
        data = load_task(experiment)
        tasks = [data.train] if data.test is None else [data.train, data.test]
        for task, rows in zip(tasks, (data.train_rows, data.test_rows), strict=False):
            task.check_on(network, rows)
        if rule.batch_size is not None and rule.batch_size > len(data.train):
            raise ExperimentError(f"learning.batch_size is {rule.batch_size}, with only {len(data.train)} samples")
        check_limits(experiment, device_range, tasks, network)
        wiring = _wiring(experiment, network, tasks)
        _check_decoding(experiment, data)
        initial = _initial(experiment, device_range, pots, network)
    except MemoryError as error:
        raise ExperimentError(f"{experiment.source}: the board is too large for this computer's memory") from error
    except InputError as error:
        if str(experiment.source) in str(error):
            raise
        raise type(error)(f"{experiment.source}: {error}") from error
    stopping = Stopping(**experiment.learning.stop.model_dump())
    return Preparation(experiment, network, device_range, pots, initial, data, rule, stopping, wiring)


def check_limits(experiment: Experiment, device_range: DeviceRange, tasks: list[Task], network: Network) -> None:
    """Raise ExperimentError where a drive, a pot's current or its power could exceed [limits].

    No edge can see more than the span of the driven volts (maximum principle), so g_max times that span bounds its
    current, and times its square its power, whatever is learnt.
    """
    limits = experiment.limits
    highest = max(float(np.abs(values).max()) for task in tasks for values in (task.inputs, task.targets))
    if limits.volts is not None and highest > limits.volts:
        raise ExperimentError(f"the data drive {highest:g} V, above limits.volts = {limits.volts:g} V: scale them down")
    span = max(float(np.ptp(np.hstack([task.inputs, task.targets]), axis=1).max()) for task in tasks)
    edge = int(device_range.g_max.argmax())
    ends = " and ".join(network.name(int(node)) for node in network.edges[edge])
    for quantity, largest, limit, unit in (
        ("amperes_per_pot", span * device_range.g_max[edge], limits.amperes_per_pot, "A"),
        ("watts_per_pot", span**2 * device_range.g_max[edge], limits.watts_per_pot, "W"),
    ):
        if limit is not None and largest > limit:
            raise ExperimentError(
                f"edge {edge} between {ends} could see {largest:.3g} {unit} at {span:g} V, above limits.{quantity} = "
                f"{limit:g} {unit}: raise board.pots.lowest_code or the series resistor, or lower the volts"
            )


def _wiring(experiment: Experiment, network: Network, tasks: list[Task]) -> BenchWiring | None:
    """Return the wiring of the bench, checked against the network, the limits and the data."""
    bench = experiment.bench
    if bench is None:
        return None
    if experiment.board.pots is None:
        raise ExperimentError("[bench] needs a [board.pots] section: what is written to a pot is a code")
    if experiment.limits.volts is None:
        raise ExperimentError("[bench] needs limits.volts, the highest volts any terminal may see: add it to [limits]")
    wiring = bench_wiring(bench, network)
    columns = np.vstack([np.hstack([task.inputs, task.targets]) for task in tasks])
    for terminal, node in enumerate(network.terminals.tolist()):
        highest = float(np.abs(columns[:, terminal]).max())
        if node in wiring.grounded and highest:
            raise ExperimentError(
                f"{network.name(node)} is grounded, but the data drive it with up to {highest:g} V: wire a source to it"
            )
        place = wiring.source_at(node)
        instrument = None if place is None else bench.instruments[place[0]]
        if not isinstance(instrument, SmuInstrument) or place is None:
            continue
        limit = experiment.limits.volts if instrument.limit_volts is None else instrument.limit_volts
        key = f"bench.instruments.{place[0]}.limit_volts = {limit:g} V"
        if limit > experiment.limits.volts:
            raise ExperimentError(f"{key} is above limits.volts = {experiment.limits.volts:g} V: lower it")
        if highest > limit:
            raise ExperimentError(f"the data drive {network.name(node)} with {highest:g} V, above {key}")
    return wiring


def _check_decoding(experiment: Experiment, data: LoadedTask) -> None:
    """Refuse, before hours of training, a class whose mean output could not be measured at the end."""
    section, labels = experiment.task.encoding, data.train.labels
    if section is None or labels is None or section.decode != "centroid":
        return
    unseen = np.setdiff1d(np.arange(len(data.train.class_names)), labels)
    if unseen.size:
        raise ExperimentError(
            f'class {data.train.class_names[unseen[0]]!r} has no training sample, which decode = "centroid" needs: '
            "leave the class out, or hold out fewer samples"
        )


def _network(experiment: Experiment) -> Network:
    section = experiment.board.network
    if isinstance(section, GridSection):
        return Network.grid(
            section.rows,
            section.cols,
            inputs=section.inputs,
            outputs=section.outputs,
            periodic=section.kind == "torus",
        )
    if isinstance(section, EdgesSection):
        if section.file is None:
            return Network.from_edges(section.edges or [], section.inputs, section.outputs)
        pairs = read_csv(experiment.path_of(section.file)).numbers(["first", "second"])
        return Network.from_edges(pairs, section.inputs, section.outputs)
    return Network.crossbar(section.inputs, section.outputs)


def _potentiometer(board: BoardSection) -> Potentiometer | None:
    if board.pots is None:
        return None
    return Potentiometer(**board.pots.model_dump(exclude={"lowest_code", "chip"}))


def _device_range(board: BoardSection, pots: Potentiometer | None) -> DeviceRange:
    low = np.nextafter(0.0, 1.0) if board.g_min is None else board.g_min
    high = np.inf if board.g_max is None else board.g_max
    if pots is None or board.pots is None:
        return DeviceRange(low, high)
    table = pots.conductances()
    table[: board.pots.lowest_code] = np.nan
    return DeviceRange(low, high, table)


def _initial(
    experiment: Experiment, device_range: DeviceRange, pots: Potentiometer | None, network: Network
) -> FloatArray:
    """Return the start (M,) in siemens: the middle of each pot's travel or of the limits' logarithms, or as asked."""
    board, n_edges = experiment.board, network.n_edges
    code = board.initial_code
    if code is None and board.initial == "middle" and pots is not None:
        code = pots.positions // 2
    low, high = device_range.g_min, device_range.g_max
    if code is not None and pots is not None:
        start = np.full(n_edges, pots.conductances()[code])
        if board.initial_code is None:
            return device_range.clip(start)
        if (device_range.clip(start) != start).any():
            raise DeviceRangeError(f"board.initial_code is {code}, which the limits or lowest_code exclude")
        return start
    if board.initial == "middle":
        return np.sqrt(low * high)
    if board.initial == "random":
        generator = np.random.default_rng([experiment.learning.seed, START_STREAM])
        drawn: FloatArray = np.exp(generator.uniform(np.log(low), np.log(high)))
        return drawn
    start = per_edge("board.initial", board.initial, n_edges, DeviceRangeError)
    if not (np.isfinite(start) & (start > 0)).all():
        raise DeviceRangeError("board.initial must be positive on every edge")
    outside = np.flatnonzero(device_range.clip(start) != start)
    if outside.size:
        edge = int(outside[0])
        raise DeviceRangeError(
            f"board.initial is {start[edge]:g} S on edge {edge}, outside {low[edge]:g} to {high[edge]:g} S"
        )
    return start


def _rule(experiment: Experiment) -> ContrastiveLearning:
    learning = experiment.learning
    step = learning.step_size
    schedule = None
    if learning.decay_updates is not None:
        schedule = RobbinsMonro(step, learning.decay_updates, learning.decay_power)
    return ContrastiveLearning(schedule or step, learning.nudge, learning.batch_size, learning.draw)
