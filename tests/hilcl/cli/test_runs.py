import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from scipy.io import netcdf_file

from hilcl.cli.main import main
from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.results import RunResult, load_run
from hilcl.session import Run
from hilcl.store import Store
from tests.command_line import EXAMPLES, contents, copy_example, hilcl, listing, write_experiment


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A store with a finished Iris run of a few epochs."""
    path = copy_example("iris", tmp_path, epochs="25")
    assert main(["run", str(path), "--no-report"]) == 0
    capsys.readouterr()
    return tmp_path / "hilcl.sqlite"


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A store with a run that was left after four epochs, and one that never took a step."""
    preparation = prepare(Experiment.load(EXAMPLES / "crossbar.toml"))
    with Store(tmp_path / "hilcl.sqlite") as store:
        with Run.start(preparation, store, "left") as run:
            assert len(list(islice(run.steps(), 4))) == 4
        Run.start(preparation, store, "new")
    return tmp_path / "hilcl.sqlite"


def loaded(store: Path, run: str) -> RunResult:
    with Store(store, writable=False) as opened:
        return load_run(opened, run)


def test_runs_lists_what_a_store_holds(finished: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished == unfinished
    before = finished.read_bytes()
    assert main(["runs"]) == 0
    output, errors = capsys.readouterr()
    rows = {words[0]: words for line in output.splitlines() if (words := line.split())}
    info = loaded(finished, "iris").info
    assert rows["iris"][-1] == "finished"
    assert rows["iris"][3:5] == ["sim", "25"]
    assert f"{info.last_loss:.4g}" in rows["iris"]
    assert f"{info.best_loss:.4g}" in rows["iris"]
    assert (rows["left"][4], rows["left"][-1]) == ("4", "running")
    assert rows["new"][4:] == ["0", "–", "–", "running"]
    assert list(rows)[-3:] == ["iris", "left", "new"]
    assert errors == ""
    assert finished.read_bytes() == before


def test_runs_of_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path / "empty.sqlite").close()
    assert main(["runs", "--store", "empty.sqlite"]) == 0
    assert capsys.readouterr().out == "empty.sqlite holds no runs yet.\n"


def test_long_names_are_not_cut_in_a_pipe(tmp_path: Path) -> None:
    write_experiment(tmp_path / "x.toml", epochs="1")
    name = "n" * 100
    assert main(["run", "x.toml", "--no-report", "--name", name]) == 0
    done = hilcl("runs", cwd=tmp_path)
    assert done.returncode == 0
    assert name in done.stdout
    assert "finished" in done.stdout


def test_show_tells_about_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "iris"]) == 0
    output = capsys.readouterr().out
    summary = loaded(finished, "iris").summary
    assert summary is not None
    assert "Run iris: finished, 25 epochs." in output
    assert "Network(12 nodes, 32 edges, 8 inputs, 4 outputs, 0 hidden)" in output
    assert f"test {summary['evaluation']['test']['accuracy']:.1%}" in output
    assert "Guarantee: none." in output
    assert "numpy" in output


def test_show_tells_about_unfinished_runs(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "left"]) == 0
    output = capsys.readouterr().out
    assert "Run left: running, 4 epochs." in output
    info = loaded(unfinished, "left").info
    assert f"Loss {info.last_loss:.4g} V² at the last stored epoch, {info.best_loss:.4g} V² at the best." in output
    assert main(["show", "new"]) == 0
    assert "Run new: running, 0 epochs." in capsys.readouterr().out


@pytest.mark.parametrize("run", ["iris", "left"])
def test_export_in_every_format(finished: Path, unfinished: Path, tmp_path: Path, run: str) -> None:
    result = loaded(finished, run)
    assert unfinished == finished
    for kind, suffix in (("csv", "csv"), ("npz", "npz"), ("netcdf", "nc"), ("parquet", "parquet")):
        done = hilcl("export", run, "--to", kind, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"Wrote {run}.{suffix}: {len(result.history)} epochs of run '{run}'.\n"
    loss, edge = result.history.scalars["loss"], result.history.conductances[:, 3]
    with (tmp_path / f"{run}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["loss"]) for row in rows], loss)
    np.testing.assert_array_equal([float(row["conductance_3"]) for row in rows], edge)
    with np.load(tmp_path / f"{run}.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["conductances"], result.history.conductances)
        np.testing.assert_array_equal(archive["outputs"], result.history.outputs)
        assert archive["experiment"] == result.info.experiment
    with netcdf_file(tmp_path / f"{run}.nc", "r", mmap=False) as file:
        np.testing.assert_array_equal(file.variables["conductances"][:], result.history.conductances)
        np.testing.assert_array_equal(file.variables["loss"][:], loss)
    table = parquet.read_table(tmp_path / f"{run}.parquet")
    np.testing.assert_array_equal(table["loss"].to_numpy(), loss)
    np.testing.assert_array_equal(table["conductance_3"].to_numpy(), edge)


def test_export_to_a_place_of_choice(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = finished.rename(tmp_path / "my runs.sqlite")
    assert main(["export", "iris", "--to", "csv", "-o", "out data.txt", "--store", str(moved)]) == 0
    assert "Wrote out data.txt: 25 epochs" in capsys.readouterr().out
    assert (tmp_path / "out data.txt").read_text("utf-8").count("\n") == 26


def assert_refused(code: int, capsys: pytest.CaptureFixture[str], message: str) -> None:
    output, errors = capsys.readouterr()
    assert code == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert "internal error" not in errors


@pytest.mark.usefixtures("finished")
def test_nothing_is_overwritten_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, place in (("export iris --to csv", "iris.csv"), ("report iris -o page.html", "page.html")):
        (tmp_path / place).write_text("mine", "utf-8")
        words = command.split()
        assert_refused(main(words), capsys, f"{place} exists: choose another place with --output, or add --force")
        assert (tmp_path / place).read_text("utf-8") == "mine"
        assert main([*words, "--force"]) == 0
        assert (tmp_path / place).read_text("utf-8") != "mine"
        capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export new --to csv", "the run 'new' has no steps yet, so there is nothing to export"),
        ("export nobody --to csv", "has no run 'nobody': it has left, new"),
        ("show nobody", "has no run 'nobody'"),
        ("report nobody", "has no run 'nobody'"),
        ("export left --to csv -o nowhere/x.csv", "cannot write nowhere/x.csv"),
        ("report left -o nowhere/x.html", "nowhere/x.html"),
        ("export left --to csv -o . --force", "cannot write ."),
        ("runs --store gone.sqlite", "there is no store gone.sqlite: name one with --store, or make a run first"),
        ("show left --store gone.sqlite", "there is no store gone.sqlite"),
        ("export left --to csv --store gone.sqlite", "there is no store gone.sqlite"),
        ("report left --store gone.sqlite", "there is no store gone.sqlite"),
        ("runs --store torn.sqlite", "damaged or no store at all"),
        ("show left --store torn.sqlite", "damaged or no store at all"),
        ("export left --to npz --store torn.sqlite", "damaged or no store at all"),
        ("report left --store torn.sqlite", "damaged or no store at all"),
        ("runs --store .", "there is no store ."),
    ],
)
def test_what_cannot_be_done_writes_nothing(
    unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    whole = unfinished.read_bytes()
    (tmp_path / "torn.sqlite").write_bytes(whole[: len(whole) // 2])
    before, store = listing(tmp_path), contents(unfinished)
    assert_refused(main(command.split()), capsys, message)
    assert listing(tmp_path) == before
    assert contents(unfinished) == store


@pytest.mark.parametrize("run", ["iris", "left", "new"])
def test_a_report_of_any_run(
    finished: Path, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    assert finished == unfinished
    assert main(["report", run]) == 0
    assert capsys.readouterr().out == f"Report: reports/{run}.html\n"
    page = (tmp_path / "reports" / f"{run}.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert run in page
    # A report in its usual place is made anew; elsewhere a file is only replaced by force.
    assert main(["report", run]) == 0


def test_looking_leaves_no_trace(finished: Path, tmp_path: Path) -> None:
    before, content = listing(tmp_path), finished.read_bytes()
    for command in ("runs", "show iris"):
        assert main(command.split()) == 0
    assert listing(tmp_path) == before
    assert finished.read_bytes() == content


def test_a_run_can_be_watched_from_outside_while_it_is_written(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(unfinished) as store:
        preparation = prepare(Experiment.load(EXAMPLES / "crossbar.toml"))
        with Run.resume(preparation, store, "left") as run:
            for _ in islice(run.steps(), 1):
                assert main(["show", "left"]) == 0
                assert "Run left: running" in capsys.readouterr().out
                assert main(["export", "left", "--to", "csv"]) == 0


def test_the_edges_of_the_trained_board_can_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "divider.toml")
    assert main(["run", "divider.toml", "--no-report"]) == 0
    capsys.readouterr()
    assert main(["show", "divider", "--edges"]) == 0
    table = capsys.readouterr().out.splitlines()[-3:]
    assert table[0] == "edge,first,second,siemens,ohms"
    edge, first, second, siemens, ohms = table[1].split(",")
    assert (edge, first, second) == ("0", "0", "1")
    assert float(siemens) * float(ohms) == pytest.approx(1.0)
