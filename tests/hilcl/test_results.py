from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hilcl.errors import StoreError
from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.results import load_run
from hilcl.session import Run, run_arrays
from hilcl.store import Store
from tests.command_line import DIVIDER, EXAMPLES, write_experiment


def iris(epochs: int) -> Preparation:
    text = (EXAMPLES / "iris.toml").read_text("utf-8").replace("epochs = 600", f"epochs = {epochs}")
    return prepare(Experiment.parse(text, EXAMPLES / "iris.toml"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "runs.sqlite") as opened:
        yield opened


def test_a_finished_run_comes_back_as_objects(store: Store) -> None:
    preparation = iris(30)
    with Run.start(preparation, store, "iris") as run:
        steps = list(run.steps())
        summary = run.finish()
    result = load_run(store, "iris")
    data = preparation.data
    assert result.network == preparation.network
    assert data.test is not None
    assert result.test is not None
    for found, expected in ((result.train, data.train), (result.test, data.test)):
        np.testing.assert_array_equal(found.inputs, expected.inputs)
        np.testing.assert_array_equal(found.targets, expected.targets)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.class_names == expected.class_names == ("setosa", "versicolor", "virginica")
    np.testing.assert_array_equal(result.device_range.g_min, preparation.device_range.g_min)
    np.testing.assert_array_equal(result.device_range.g_max, preparation.device_range.g_max)
    np.testing.assert_array_equal(result.initial, steps[0].conductances_before)
    np.testing.assert_array_equal(result.history.conductances[-1], steps[-1].conductances)
    assert result.summary == summary
    assert result.last_conductances.tolist() == summary["kept_conductances"]
    assert result.info.steps == len(result.history) == 30


def test_an_unfinished_run_comes_back_as_far_as_it_is(store: Store) -> None:
    with Run.start(iris(30), store, "iris") as run:
        result = load_run(store, "iris")
        assert (len(result.history), result.summary) == (0, None)
        np.testing.assert_array_equal(result.last_conductances, result.initial)
        taken = list(islice(run.steps(), 3))
    result = load_run(store, "iris")
    assert (len(result.history), result.summary, result.info.status) == (3, None, "running")
    np.testing.assert_array_equal(result.last_conductances, taken[-1].conductances)


@pytest.mark.parametrize("name", ["crossbar", "allostery", "regression"])
def test_boards_of_every_kind_come_back(store: Store, name: str) -> None:
    preparation = prepare(Experiment.load(EXAMPLES / f"{name}.toml"))
    with Run.start(preparation, store, "run") as run:
        list(islice(run.steps(), 2))
    result = load_run(store, "run")
    assert result.network == preparation.network
    assert (result.network.positions is None) == (preparation.network.positions is None)
    if preparation.network.positions is not None:
        np.testing.assert_array_equal(result.network.positions, preparation.network.positions)
    assert (result.test is None) == (preparation.data.test is None)
    assert (result.history.codes is None) == (preparation.pots is None)


@pytest.mark.parametrize("missing", ["n_nodes", "edges", "input_nodes", "inputs", "targets", "initial", "g_min"])
def test_an_entry_without_a_part_is_refused(store: Store, tmp_path: Path, missing: str) -> None:
    preparation = prepare(Experiment.load(write_experiment(tmp_path / "divider.toml", DIVIDER)))
    arrays = run_arrays(preparation, preparation.initial)
    del arrays[missing]
    store.create_run("run", backend="sim", experiment="", settings={}, versions={}, fingerprint="", arrays=arrays)
    with pytest.raises(StoreError, match=r"the run 'run' in .* is damaged"):
        load_run(store, "run")


def test_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="has no run 'x': it has none"):
        load_run(store, "x")
