import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hilcl.board import Response
from hilcl.calibration.watch import Alarm, DriftWatch, WatchedBoard, WatchReference, WatchSettings
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError
from hilcl.learning import ContrastiveLearning
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend import Imperfections, MeterDefects, PotDefects, SimulatedBoard, SourceDefects
from hilcl.task import Task
from hilcl.training import Step, train

FloatArray = npt.NDArray[np.float64]

POT = Potentiometer(257, 10e3, wiper=75.0, series=1200.0)
COUNT = 5 / 2**16
ERROR = 3e-4
SMALL = Network.crossbar(4, 3)


class Bench(SimulatedBoard):
    """A board whose pots and meters can change, and whose range is a table with small errors."""

    def __init__(self, network: Network, seed: int, *, noise: float = COUNT) -> None:
        defects = Imperfections(
            PotDefects(tolerance=0.2, wiper_spread=0.3, series_spread=0.01),
            MeterDefects(noise=noise, resolution=COUNT, gain=2e-5, offset=2e-5),
            SourceDefects(series=2.0, offset=1e-3),
        )
        nominal = DeviceRange.of_pots(POT).for_edges(network.n_edges)
        exact = SimulatedBoard(network, 2e-4, nominal, defects, seed, pots=POT)._truth.table
        assert exact is not None
        fixed = 1 / exact.max(axis=1, keepdims=True)
        errors = 1 + ERROR * np.random.default_rng(seed).standard_normal((2, network.n_edges, 1))
        known = 1 / (fixed * errors[0] + (1 / exact - fixed) * errors[1])
        self.ammeters = True
        self.show: Callable[[FloatArray], FloatArray] = lambda volts: volts
        super().__init__(network, 2e-4, DeviceRange.from_table(known), defects, seed, pots=POT)

    @property
    def table(self) -> FloatArray:
        assert self._truth.table is not None
        return self._truth.table

    def reference(self) -> WatchReference:
        highest = np.nanmax(self.device_range.table, axis=1) if self.device_range.table is not None else 0.0
        return WatchReference.of(
            self.network, highest, ERROR, meter_noise=COUNT, meter_offset_u=2e-5, meter_gain_u=2e-5, current_noise=1e-7
        )

    def respond(self, drives: npt.ArrayLike) -> Response:
        response = super().respond(drives)
        currents = response.currents if self.ammeters else np.full_like(response.currents, np.nan)
        return replace(response, potentials=self.show(response.potentials), currents=currents)


def trained(
    bench: Bench,
    steps: int,
    event: Callable[[Bench, Step], None] = lambda bench, step: None,
    *,
    at: int = 30,
    samples: int = 12,
    rule: ContrastiveLearning | None = None,
    settings: WatchSettings | None = None,
) -> WatchedBoard:
    """Train a watched bench; ``event`` happens after epoch ``at``."""
    watched = WatchedBoard(bench, DriftWatch(bench.network, bench.reference(), settings))
    generator = np.random.default_rng(1)
    inputs = generator.uniform(0, 2, (samples, len(bench.network.inputs)))
    weights = generator.dirichlet(np.ones(inputs.shape[1]), len(bench.network.outputs))
    task = Task(inputs, inputs @ weights.T)
    for step in train(watched, task, rule or ContrastiveLearning("auto"), steps):
        if step.epoch == at:
            event(bench, step)
    return watched


def scaled(edge: int, resistance: float) -> Callable[[Bench, Step], None]:
    def change(bench: Bench, step: Step) -> None:
        bench.table[edge] /= resistance

    return change


@pytest.mark.parametrize("seed", range(4))
def test_a_two_per_cent_change_is_named_at_once(seed: int) -> None:
    network = Network.crossbar(8, 4)
    edge = (11 * seed + 3) % network.n_edges
    alarms = trained(Bench(network, seed), 80, scaled(edge, 1.02)).watch.alarms
    assert [alarm.edge for alarm in alarms] == [edge]
    assert alarms[0].step <= 32 + 50
    assert abs(alarms[0].since - 32) <= 4
    assert alarms[0].change == pytest.approx(-0.02, abs=0.003)
    assert alarms[0].change_u < 0.001
    assert f"edge {edge} between node {edge // 4} and node {8 + edge % 4}" in alarms[0].sentence


@pytest.mark.parametrize("seed", range(3))
def test_a_quiet_run_gives_no_alarm(seed: int) -> None:
    watched = trained(Bench(SMALL, seed), 300)
    assert watched.watch.alarms == []
    assert watched.watch.ended is False
    seen = [step.chi_square / step.freedom for step in watched.steps]
    # The ammeters here are ideal, so their share of the degrees of freedom stays empty.
    assert 0.3 < np.mean(seen[20:]) < 0.5


def test_hidden_nodes_may_be_tapped() -> None:
    network = Network.grid(4, 5, inputs=[0, 4, 15, 19], outputs=[7, 12])
    alarms = trained(Bench(network, 3), 60, scaled(17, 0.98)).watch.alarms
    assert [alarm.edge for alarm in alarms] == [17]
    assert alarms[0].change == pytest.approx(0.02, abs=0.003)


def test_nodes_without_a_meter_are_watched_through_the_others() -> None:
    network = Network.grid(3, 3, inputs=[0, 2, 6, 8], outputs=[1, 4])
    bench = Bench(network, 5)
    watch = DriftWatch(network, bench.reference())
    generator = np.random.default_rng(0)
    free = generator.uniform(0, 2, (12, 6))
    free[::2, 4:] = np.nan
    bench.show = lambda volts: np.where(np.isin(np.arange(9), network.hidden), np.nan, volts)
    for step in range(60):
        if step == 30:
            bench.table[4] *= 1.03
        bench.program(np.exp(generator.uniform(np.log(1e-4), np.log(5e-4), network.n_edges)))
        watch.observe(bench.conductances, free, bench.respond(free))
        watch.advance()
    assert [alarm.edge for alarm in watch.alarms] == [4]


@pytest.mark.parametrize(
    "rule", [ContrastiveLearning("auto", nudge=0.1), ContrastiveLearning("auto", batch_size=4)], ids=["nudge", "batch"]
)
def test_every_form_of_the_rule_is_watched(rule: ContrastiveLearning) -> None:
    alarms = trained(Bench(SMALL, 2), 60, scaled(5, 1.02), rule=rule).watch.alarms
    assert [alarm.edge for alarm in alarms] == [5]


def test_a_bench_without_ammeters_is_watched_by_its_voltages() -> None:
    bench = Bench(SMALL, 2)
    bench.ammeters = False
    alarms = trained(bench, 80, scaled(5, 1.02)).watch.alarms
    assert [alarm.edge for alarm in alarms] == [5]
    quiet = Bench(SMALL, 2)
    quiet.ammeters = False
    assert trained(quiet, 150).watch.alarms == []


def test_one_sample_is_enough() -> None:
    alarms = trained(Bench(SMALL, 2), 80, scaled(5, 1.02), samples=1).watch.alarms
    assert [alarm.edge for alarm in alarms] == [5]


def test_an_open_pot_is_named_and_then_left_alone() -> None:
    def opened(bench: Bench, step: Step) -> None:
        bench.table[7] = 1e-9

    alarms = trained(Bench(SMALL, 4), 120, opened).watch.alarms
    assert [alarm.edge for alarm in alarms] == [7]
    assert alarms[0].change < -0.2
    assert "by about -" in alarms[0].sentence


def test_a_stuck_pot_is_named_when_its_code_moves() -> None:
    def stuck(bench: Bench, step: Step) -> None:
        assert step.codes is not None
        bench.table[:] = np.where(np.arange(12)[:, None] == edge, bench.table[edge, step.codes[edge]], bench.table)

    bench, edge = Bench(SMALL, 0), 6
    alarms = trained(bench, 400, stuck, at=15).watch.alarms
    assert alarms
    assert {alarm.edge for alarm in alarms} == {edge}
    assert len(alarms) <= 3


def test_slow_warming_adds_up_to_one_alarm() -> None:
    bench = Bench(SMALL, 1)
    watched = WatchedBoard(bench, DriftWatch(SMALL, bench.reference()))
    inputs = np.random.default_rng(1).uniform(0, 2, (12, 4))
    for step in train(watched, Task(inputs, inputs @ np.full((4, 3), 0.25)), ContrastiveLearning("auto"), 240):
        if 40 <= step.epoch < 200:
            bench.table[:] /= 1 + 5e-5
    (alarm,) = watched.watch.alarms
    assert alarm.kind == "temperature"
    assert alarm.change == pytest.approx(-0.005, abs=0.002)
    assert alarm.since < alarm.step - 40
    drift = watched.watch.drift()[0]
    truth = bench.true_conductances / bench.conductances - 1
    assert np.abs(drift - truth).max() < 1e-3


def test_small_changes_are_followed_until_they_add_up() -> None:
    bench = Bench(SMALL, 3)
    watched = WatchedBoard(bench, DriftWatch(SMALL, bench.reference()))
    inputs = np.random.default_rng(1).uniform(0, 2, (12, 4))
    for step in train(watched, Task(inputs, inputs @ np.full((4, 3), 0.25)), ContrastiveLearning("auto"), 160):
        if step.epoch in (40, 90):
            bench.table[8] /= 1.0035
        if step.epoch == 85:
            assert watched.watch.alarms == []
            assert watched.watch.drift()[0][8] == pytest.approx(-0.0035, abs=5e-4)
    (alarm,) = watched.watch.alarms
    assert alarm.edge == 8
    assert alarm.change == pytest.approx(-0.007, abs=1e-3)


def test_warming_is_told_from_single_pots() -> None:
    def warmed(bench: Bench, step: Step) -> None:
        bench.table[:] /= 1.01

    (alarm,) = trained(Bench(SMALL, 1), 60, warmed).watch.alarms
    assert (alarm.kind, alarm.edge, alarm.node) == ("temperature", None, None)
    assert alarm.change == pytest.approx(-0.01, abs=0.002)


@pytest.mark.parametrize(
    ("shown", "kind", "words"),
    [
        (lambda volts: volts + 2e-3 * (np.arange(7) == 5), "V", "changed its offset by +0.00199 ± "),
        (lambda volts: volts * np.where(np.arange(7) == 5, 1.02, 1.0), "", "changed its gain by +1.99 ± "),
        (lambda volts: np.where(np.arange(7) == 5, 0.0, volts), "", "no longer follows what it should read"),
    ],
)
def test_a_meter_is_told_from_a_pot(shown: Callable[[FloatArray], FloatArray], kind: str, words: str) -> None:
    def changed(bench: Bench, step: Step) -> None:
        bench.show = shown

    (alarm,) = trained(Bench(SMALL, 1), 60, changed).watch.alarms
    assert (alarm.kind, alarm.node, alarm.edge, alarm.unit) == ("meter", 5, None, kind)
    assert f"the meter at node 5 {words}" in alarm.sentence


def test_several_changes_at_once_end_the_watch_with_one_alarm() -> None:
    def swapped(bench: Bench, step: Step) -> None:
        bench.show = lambda volts: volts[:, [0, 1, 2, 3, 5, 4, 6]]

    watched = trained(Bench(SMALL, 1), 120, swapped)
    (alarm,) = watched.watch.alarms
    assert alarm.kind == "wiring"
    assert "more than one place" in alarm.sentence
    assert watched.watch.ended
    values = json.loads(json.dumps(alarm.as_json(), allow_nan=False))
    assert (values["kind"], values["change"], values["step"]) == ("wiring", None, alarm.step)


def test_a_second_change_is_found_after_the_first() -> None:
    def both(bench: Bench, step: Step) -> None:
        if step.epoch in (30, 60):
            bench.table[{30: 2, 60: 9}[step.epoch]] /= 1.02

    bench = Bench(SMALL, 3)
    watched = WatchedBoard(bench, DriftWatch(SMALL, bench.reference()))
    inputs = np.random.default_rng(1).uniform(0, 2, (12, 4))
    for step in train(watched, Task(inputs, inputs[:, :3]), ContrastiveLearning("auto"), 100):
        both(bench, step)
    assert [alarm.edge for alarm in watched.watch.alarms] == [2, 9]


def test_the_table_follows_where_that_is_asked_for() -> None:
    bench = Bench(SMALL, 2)
    before = bench.device_range.table
    watched = trained(bench, 60, scaled(5, 1.02), settings=WatchSettings(update=True))
    after = watched.device_range.table
    assert before is not None
    assert after is not None
    changed = np.abs(after / before - 1).max(axis=1) > 1e-12
    assert np.flatnonzero(changed).tolist() == [5]
    assert np.abs(after[5] / bench.table[5] - 1).max() < 2e-3
    codes = bench.device_range.project(bench.conductances).codes
    assert codes is not None
    wished = after[np.arange(12), 100]
    np.testing.assert_array_equal(watched.program(wished), wished)
    np.testing.assert_array_equal(bench.true_conductances, bench.table[:, 100])


def test_the_table_stays_where_nothing_is_asked_for() -> None:
    bench = Bench(SMALL, 2)
    watched = trained(bench, 60, scaled(5, 1.02))
    assert watched.device_range is bench.device_range
    np.testing.assert_array_equal(watched.conductances, bench.conductances)


def test_training_is_the_same_whether_watched_or_not() -> None:
    inputs = np.random.default_rng(1).uniform(0, 2, (12, 4))
    task, rule = Task(inputs, inputs[:, :3]), ContrastiveLearning("auto")
    bench = Bench(SMALL, 2)
    watched = WatchedBoard(Bench(SMALL, 2), DriftWatch(SMALL, bench.reference()))
    for alone, seen in zip(train(bench, task, rule, 20), train(watched, task, rule, 20), strict=True):
        np.testing.assert_array_equal(alone.conductances, seen.conductances)
        assert alone.loss == seen.loss
    assert len(watched.steps) == 20


def test_the_drift_is_estimated_with_its_uncertainty() -> None:
    bench = Bench(SMALL, 6)
    watched = trained(bench, 150)
    drift, u = watched.watch.drift()
    truth = bench.true_conductances / bench.conductances - 1
    assert (u < 0.5 * ERROR).all()
    assert np.abs((drift - truth) / u).max() < 5


def test_readings_that_are_none_are_left_out() -> None:
    bench = Bench(SMALL, 0)
    watch = DriftWatch(SMALL, bench.reference())
    drives = np.random.default_rng(0).uniform(0, 2, (6, 7))
    drives[:, 4:] = np.nan
    for _ in range(40):
        response = bench.respond(drives)
        potentials, currents = response.potentials.copy(), response.currents.copy()
        potentials[0, 5], potentials[1, 2], currents[2, 0], currents[3, 1] = 9.9e37, np.nan, -9.9e37, np.nan
        limited = response.in_compliance.copy()
        potentials[4], limited[4, 1] = 17.0, True
        watch.observe(bench.conductances, drives, Response(potentials, currents, potentials, currents, limited))
        step = watch.advance()
        assert step.freedom > 0
        assert 0 <= step.chi_square < 20 * step.freedom
    assert watch.alarms == []


def test_a_step_without_any_usable_reading_teaches_nothing() -> None:
    bench = Bench(SMALL, 0)
    watch = DriftWatch(SMALL, bench.reference())
    drives = np.random.default_rng(0).uniform(0, 2, (3, 7))
    response = bench.respond(drives)
    before = watch.drift()
    for _ in range(20):
        watch.observe(bench.conductances, drives, replace(response, in_compliance=~response.in_compliance))
        assert watch.advance().freedom == 0
    assert watch.alarms == []
    assert (watch.drift()[0] == before[0]).all()


def test_noise_larger_than_stated_is_learnt() -> None:
    assert trained(Bench(SMALL, 1, noise=6 * COUNT), 150).watch.alarms == []


def test_a_board_that_is_not_the_calibrated_one_is_noticed() -> None:
    alarms: list[Alarm] = trained(Bench(SMALL, 2), 40, scaled(5, 1.05), at=0).watch.alarms
    assert alarms[0].edge == 5
    assert alarms[0].since <= 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"false_alarms": 0.0}, "false_alarms is a probability"),
        ({"smallest_change": -1.0}, "smallest_change must be positive"),
        ({"memory": float("inf")}, "memory must be positive"),
        ({"settle": 1}, "at least 2 steps"),
        ({"every": 0}, "at most once a step"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        WatchSettings(**wrong)


def test_a_covariance_of_another_board_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3, 3\), but 12 edges need \(24, 24\)"):
        WatchReference.of(SMALL, 1e-3, np.eye(3), meter_noise=1e-4)


def test_a_range_without_a_table_cannot_be_updated() -> None:
    watch = DriftWatch(SMALL, WatchReference.of(SMALL, 1e-3, 1e-3, meter_noise=1e-4))
    with pytest.raises(InputError, match="only a table"):
        watch.updated_range(DeviceRange(1e-5, 1e-3))
