import csv
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hilcl.cli.main import main
from hilcl.sweep import Sweep
from hilcl.sweep_file import SweepFile
from hilcl.sweep_point import compute_point
from tests.command_line import listing, running_hilcl, wait_until
from tests.sweep_files import SWEEP, n_points, stored_points, told, write_sweep

LONG = {"epochs": "500"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_sweep_says_what_it_found_and_does_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path)
    assert main(["sweep", str(path), "--workers", "2"]) == 0
    output, errors = capsys.readouterr()
    assert output.startswith("sweep: 9 points, 9 computed in ")
    assert [line.split()[0] for line in output.splitlines() if " mV" in line or "0 V " in line][:3] == ["0", "1", "2"]
    assert "ETA 0 s" in errors
    with Path("reports/sweep-points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["simulation.meters.offset"] for row in rows[::3]] == ["0 V", "1 mV", "2 mV"]
    assert all(float(row["loss"]) < float(row["untrained_loss"]) for row in rows)
    assert Path("reports/sweep-yield.svg").read_bytes().startswith(b"<svg")
    assert Path("reports/sweep-yield.png").read_bytes().startswith(b"\x89PNG")
    before = stored_points(Path("hilcl.sqlite"))
    assert main(["sweep", str(path), "--workers", "1", "--no-report"]) == 0
    assert capsys.readouterr().out.startswith("sweep: 9 points, 0 computed in ")
    # More draws: only those are computed.
    write_sweep(tmp_path, SWEEP.replace("draws = 3", "draws = 4"))
    assert main(["sweep", str(path), "--workers", "1", "--no-report"]) == 0
    assert capsys.readouterr().out.startswith("sweep: 12 points, 3 computed in ")
    assert set(map(repr, before)) < set(map(repr, stored_points(Path("hilcl.sqlite"))))
    # Another experiment: nothing of the old one counts.
    write_sweep(tmp_path, epochs="5")
    assert main(["sweep", str(path), "--workers", "1", "--no-report"]) == 0
    output, errors = capsys.readouterr()
    assert output.startswith("sweep: 9 points, 9 computed in ")
    assert "another experiment file or other data; they stay apart" in errors


def workers_of(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [int(child) for child in children]


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_ended_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    path = write_sweep(tmp_path, SWEEP.replace("draws = 3", "draws = 5"), **LONG)
    store = tmp_path / "ended.sqlite"
    with running_hilcl(
        "sweep", path, "--workers", "2", "--store", store, cwd=tmp_path, start_new_session=True
    ) as process:
        wait_until(lambda: n_points(store) >= 2, process)
        children = workers_of(process.pid)
        # As a terminal does: to all of them.
        send = os.killpg if number == signal.SIGINT else os.kill
        send(process.pid, number)
        _, errors = process.communicate(timeout=60)
    wait_until(lambda: all(gone(child) for child in children), None)
    assert 2 <= n_points(store) < 15
    if number == signal.SIGINT:
        assert process.returncode == 1
        [line] = [line for line in errors.splitlines() if line.startswith("hilcl: ")]
        assert line.startswith(f"hilcl: stopped; {n_points(store)} of 15 points are stored, go on with: hilcl sweep ")
        assert "Traceback" not in errors
    assert main(["sweep", str(path), "--workers", "1", "--store", str(store), "--no-report"]) == 0
    sweep = Sweep(SweepFile.load(path), "sweep")
    whole = told([compute_point(sweep.base, point) for point in sweep.points])
    assert [(row[0], row[1], row[4]) for row in stored_points(store)] == [(row[0], row[2], row[4]) for row in whole]


@pytest.mark.parametrize(
    ("arguments", "text", "sentence"),
    [
        (["none.toml"], SWEEP, "none.toml cannot be read"),
        (["sweep.toml"], SWEEP.replace("meters", "meter"), "simulation.meter is not a key hilcl knows"),
        (["sweep.toml"], "experiment = 'divider.toml'", "varies nothing"),
        (["sweep.toml"], SWEEP.replace('"1 mV"', "1"), "simulation.meters.offset has no unit"),
        (["sweep.toml"], SWEEP.replace('"5 mS"', '"50 S"').replace('"0.2 mS"', '"40 S"'), "board.initial is 4"),
        (["sweep.toml", "--workers", "0"], SWEEP, "Invalid value for '--workers'"),
        (["sweep.toml", "--workers", "2", "--scheduler", "x"], SWEEP, "give one of them"),
        (["sweep.toml", "--store", "sweep.toml"], SWEEP, "is damaged or no store at all"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str, sentence: str
) -> None:
    write_sweep(tmp_path, text)
    before = listing(tmp_path)
    assert main(["sweep", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert listing(tmp_path) == before


def test_a_damaged_point_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path)
    assert main(["sweep", str(path), "--workers", "1", "--no-report"]) == 0
    with closing(sqlite3.connect("hilcl.sqlite")) as db, db:
        db.execute("UPDATE points SET figures = replace(figures, '\"epochs\": 20', '\"epochs\": 21')")
    capsys.readouterr()
    assert main(["sweep", str(path), "--workers", "1", "--no-report"]) == 2
    assert "the sweep 'sweep' in hilcl.sqlite is damaged" in capsys.readouterr().err
