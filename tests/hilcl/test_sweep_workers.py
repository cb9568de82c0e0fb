import multiprocessing
import os
from contextlib import closing
from pathlib import Path

import pytest

from hilcl import sweep_workers
from hilcl.errors import SweepError
from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.session import Run
from hilcl.store import Store
from hilcl.sweep import Sweep
from hilcl.sweep_file import Point, SweepFile
from hilcl.sweep_point import compute_point, figures_of
from hilcl.sweep_workers import TRIES, local_results
from tests.command_line import copy_example
from tests.sweep_files import SWEEP, told, write_sweep


class Deadly:
    """Ends the process that receives it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)


def test_a_point_comes_to_what_a_run_of_the_same_file_comes_to(tmp_path: Path) -> None:
    preparation = prepare(Experiment.load(copy_example("iris", tmp_path, epochs="15")))
    figures, versions = figures_of(preparation)
    with Store(tmp_path / "runs.sqlite") as store:
        with Run.start(preparation, store, "iris") as run:
            assert len(list(run.steps())) == figures.epochs
            summary = run.finish()
        assert store.run("iris").versions == versions
    parts = summary["evaluation"]
    assert (figures.loss, figures.accuracy) == (parts["train"]["loss"], parts["train"]["accuracy"])
    assert (figures.test_loss, figures.test_accuracy) == (parts["test"]["loss"], parts["test"]["accuracy"])
    assert figures.untrained_loss == parts["untrained"]["loss"]
    assert (figures.kept_epoch, figures.stopped_by) == (summary["kept_epoch"], summary["stopped_by"])


def test_results_do_not_depend_on_the_number_of_workers_nor_on_their_deaths(tmp_path: Path) -> None:
    sweep = Sweep(SweepFile.load(write_sweep(tmp_path, epochs="200")), "sweep")
    expected = told([compute_point(sweep.base, point) for point in sweep.points])
    assert {row[2] for row in expected} == {"done"}
    results = []
    with closing(local_results(sweep.base, sweep.points, 2)) as computed:
        for number, result in enumerate(computed):
            results.append(result)
            if number == 1:
                workers = multiprocessing.active_children()
                assert 1 <= len(workers) <= 2
                for worker in workers:
                    worker.kill()
    assert told(results) == expected
    assert not multiprocessing.active_children()


def test_a_point_that_kills_its_worker_is_given_up_and_the_others_are_done(tmp_path: Path) -> None:
    sweep = Sweep(SweepFile.load(write_sweep(tmp_path)), "sweep")
    deadly = Point("deadly", {"learning.seed": Deadly()})
    results = list(local_results(sweep.base, [deadly, *sweep.points[:2]], 1))
    assert {result.point.id: result.status for result in results} == {
        "deadly": "lost",
        sweep.points[0].id: "done",
        sweep.points[1].id: "done",
    }
    [reason] = [result.reason for result in results if result.status == "lost"]
    assert reason == f"its worker process died {TRIES} times (exit code 3)"


def test_workers_that_cannot_begin_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(SweepFile.load(write_sweep(tmp_path)), "sweep")
    monkeypatch.setattr(sweep_workers, "_serve", os._exit)
    with pytest.raises(SweepError, match=r"die before they have begun \(exit code 1\)"):
        list(local_results(sweep.base, sweep.points, 1))


def test_a_point_that_no_board_can_have_says_why(tmp_path: Path) -> None:
    text = SWEEP.replace('["0.2 mS", "5 mS"]', '["0.2 mS", "0.3 mS"]')
    sweep = Sweep(SweepFile.load(write_sweep(tmp_path, text)), "sweep")
    result = compute_point(sweep.base, Point.of({"board.initial": "20 mS"}))
    assert (result.status, result.figures) == ("failed", None)
    assert "board.initial is 0.02 S on edge 0, outside" in result.reason
