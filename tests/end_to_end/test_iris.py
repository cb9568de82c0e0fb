"""Iris on a board as a lab would build it: classified well whatever the split and whatever the devices."""

from pathlib import Path

import numpy as np
import pytest

from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.session import Run, open_board
from hilcl.sim_backend import SimulatedBoard
from hilcl.store import Store
from tests.command_line import EXAMPLES

N_SEEDS = 20
SOURCE = EXAMPLES / "iris.toml"
TEXT = SOURCE.read_text("utf-8")


def prepared(seed: int) -> Preparation:
    """Return the example with this seed for the split, the devices and the readings."""
    text = TEXT.replace("split_seed = 0", f"split_seed = {seed}").replace("\nseed = 0", f"\nseed = {seed}")
    preparation = prepare(Experiment.parse(text, SOURCE))
    assert preparation.experiment.task.split_seed == preparation.experiment.simulation.seed == seed
    return preparation


def test_the_board_is_one_that_a_lab_could_build() -> None:
    preparation = prepared(0)
    experiment = preparation.experiment
    assert preparation.network.n_edges == 32
    assert (len(preparation.network.inputs), len(preparation.network.outputs)) == (8, 4)
    assert experiment.board.pots is not None
    assert (experiment.board.pots.positions, experiment.board.pots.end_to_end) == (128, 100e3)
    assert experiment.simulation.pots.tolerance == pytest.approx(0.2)
    assert experiment.simulation.meters.bits == 12
    assert experiment.simulation.meters.noise > 0
    assert preparation.centres is not None
    assert (len(preparation.data.train), len(preparation.data.test or ())) == (105, 45)


def test_the_devices_differ_as_much_as_the_file_says() -> None:
    ratios = []
    for seed in range(N_SEEDS):
        board = open_board(prepared(seed))
        assert isinstance(board, SimulatedBoard)
        ratios.append(board.conductances / board.true_conductances)
    # In the middle of its travel a pot's end-to-end resistance is nearly all of its resistance.
    assert 0.79 < np.min(ratios) < 0.85
    assert 1.15 < np.max(ratios) < 1.21


def test_accuracy_over_splits_and_devices(tmp_path: Path) -> None:
    test, train, untrained = [], [], []
    with Store(tmp_path / "runs.sqlite") as store:
        for seed in range(N_SEEDS):
            with Run.start(prepared(seed), store, f"seed-{seed}") as run:
                assert sum(1 for _ in run.steps()) == 600
                parts = run.finish()["evaluation"]
            test.append(parts["test"]["accuracy"])
            train.append(parts["train"]["accuracy"])
            untrained.append(parts["untrained"]["accuracy"])
    assert np.mean(test) >= 0.95
    assert np.mean(train) >= 0.95
    assert min(test) >= 0.85
    assert 0.2 < np.mean(untrained) < 0.45
