import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hilcl.cli.main import main
from hilcl.cli.run import summary_lines
from hilcl.session import Run
from tests.command_line import (
    DIVIDER,
    contents,
    copy_example,
    environment,
    hilcl,
    listing,
    n_stored,
    status_of,
    stored_steps,
    stored_summary,
    write_experiment,
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_says_what_it_did(tmp_path: Path) -> None:
    write_experiment(tmp_path / "divider.toml")
    done = hilcl("run", "divider.toml", "--no-report", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"divider: 20 epochs in [\d.e-]+ s, all epochs are done\.", lines[0])
    assert re.fullmatch(r"Loss 0\.09 V² → [\d.e-]+ V² \(kept: the state of epoch 19, measured again\)\.", lines[1])
    assert lines[2].startswith("Guarantee: convex.")
    assert lines[-1] == "Stored as run 'divider' in hilcl.sqlite."
    assert listing(tmp_path) == {"divider.toml", "hilcl.sqlite"}


def test_a_run_writes_its_report_beside_the_store(tmp_path: Path) -> None:
    write_experiment(tmp_path / "divider.toml")
    (tmp_path / "lab").mkdir()
    done = hilcl("run", "divider.toml", "--store", "lab/runs.sqlite", "--name", "first", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Report: lab/reports/runs-first.html"
    report = tmp_path / "lab" / "reports" / "runs-first.html"
    assert "first" in report.read_text("utf-8")
    assert listing(tmp_path) == {
        "divider.toml", "lab", "lab/runs.sqlite", "lab/reports", "lab/reports/runs-first.html"
    }  # fmt: skip


def test_a_report_that_has_no_place_is_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path / "divider.toml")
    (tmp_path / "reports").touch()
    assert main(["run", "divider.toml"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == "hilcl: reports cannot go to reports: make it a folder you may write to, or add --no-report\n"
    assert listing(tmp_path) == {"divider.toml", "reports"}
    assert main(["run", "divider.toml", "--no-report"]) == 0


def test_names_number_themselves_or_are_chosen(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "my first (try).toml")
    for _ in range(2):
        assert main(["run", str(path), "--no-report"]) == 0
    assert main(["run", str(path), "--no-report", "--name", "chosen_1.b"]) == 0
    named = write_experiment(tmp_path / "named.toml", DIVIDER + '[store]\nfile = "other.sqlite"\nrun = "fixed"\n')
    assert main(["run", str(named), "--no-report"]) == 0
    assert main(["run", str(named), "--no-report", "--store", "third.sqlite", "--name", "free"]) == 0
    for store, name in (
        ("hilcl.sqlite", "my-first-try"),
        ("hilcl.sqlite", "my-first-try-2"),
        ("hilcl.sqlite", "chosen_1.b"),
        ("other.sqlite", "fixed"),
        ("third.sqlite", "free"),
    ):
        assert n_stored(tmp_path / store, name) == 20


def test_odd_folders_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "Prüfstand 100 % #1? µS & 抵抗"
    folder.mkdir()
    path = copy_example("regression", folder, epochs="3")
    path = path.rename(folder / "Ω board's.toml")
    done = hilcl("run", path.name, "--store", "läufe.sqlite", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Stored as run 'board-s' in läufe.sqlite." in done.stdout
    assert (folder / "reports" / "läufe-board-s.html").is_file()
    assert n_stored(folder / "läufe.sqlite", "board-s") == 3


def test_whoever_waits_for_the_compiler_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(tmp_path / "divider.toml", DIVIDER + '\n[simulation]\nsolver = "fused"\n')
    said = []
    for compiled in (False, True):
        monkeypatch.setattr("hilcl.sim_backend.board.is_compiled", lambda compiled=compiled: compiled)
        assert main(["run", "divider.toml", "--no-report"]) == 0
        said.append(capsys.readouterr().err)
    assert said[0].startswith("Note: the fast kernels are being compiled, once on this computer")
    assert said[1] == ""


def test_an_early_stop_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path / "x.toml", DIVIDER.replace("epochs = 20", 'epochs = 500\nstop.loss = "1e-6 V²"'))
    assert main(["run", "x.toml", "--no-report"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert re.search(r"x: \d+ epochs in .* s, the loss reached .* V², at or below the 1e-06 V² asked for\.", first)


def test_resuming_with_more_epochs_equals_a_longer_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy_example("iris", tmp_path, epochs="30")
    assert main(["run", str(path), "--no-report", "--name", "extended"]) == 0
    path = copy_example("iris", tmp_path, epochs="45")
    capsys.readouterr()
    assert main(["run", str(path), "--no-report", "--resume", "extended"]) == 0
    assert "extended: 15 epochs in" in capsys.readouterr().out
    assert main(["run", str(path), "--no-report", "--name", "long"]) == 0
    store = tmp_path / "hilcl.sqlite"
    assert stored_steps(store, "extended") == stored_steps(store, "long")
    assert stored_summary(store, "extended") == stored_summary(store, "long")


BAD_FILES = {
    "unknown key": ("epochs = 20", "epoch = 20", "learning.epoch is not a key hilcl knows: did you mean epochs"),
    "unknown section": ("[learning]", "[training]", "training"),
    "missing key": ("epochs = 20", "", "learning.epochs is missing: add it"),
    "wrong unit": ('"0.1 mS"', '"0.1 kg"', "board.g_min"),
    "no unit": ('"0.1 mS"', '"small"', "board.g_min"),
    "not TOML": ("[board]", "[board", "is not valid TOML"),
    "a word for a number": ("epochs = 20", 'epochs = "many"', "learning.epochs"),
    "an endless number": ("epochs = 20", f"epochs = {'9' * 5000}", "x.toml"),
    "no epochs": ("epochs = 20", "epochs = 0", "learning.epochs"),
    "disconnected board": ("[[0, 1], [1, 2]]", "[[0, 1], [1, 2], [3, 4]]", "x.toml"),
    "output with no path": ("[[0, 1], [1, 2]]", "[[0, 2], [1, 3]]", "x.toml"),
    "overlapping roles": ("outputs = [1]", "outputs = [0]", "x.toml"),
    "an edge to itself": ("[[0, 1], [1, 2]]", "[[0, 1], [1, 1], [1, 2]]", "x.toml"),
    "no edges": ("[[0, 1], [1, 2]]", "[]", "x.toml"),
    "target above every input": ("[[0.2]]", "[[1.2]]", "x.toml"),
    "target below every input": ("[[0.2]]", "[[-0.1]]", "x.toml"),
    "NaN input": ("[[1.0, 0.0]]", "[[nan, 0.0]]", "task.inputs_volts"),
    "infinite target": ("[[0.2]]", "[[inf]]", "task.targets_volts"),
    "empty data": ("[[1.0, 0.0]]", "[]", "the data are empty"),
    "too few columns": ("[[1.0, 0.0]]", "[[1.0]]", "x.toml"),
    "missing data file": (
        "inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[0.2]]",
        'file = "gone.csv"\ninputs = ["a", "b"]\ntargets = ["y"]',
        "gone.csv cannot be read",
    ),
    "NaN in a data file": (
        "inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[0.2]]",
        'file = "nan.csv"\ninputs = ["a", "b"]\ntargets = ["y"]',
        "nan.csv, line 2: a is nan, not a finite number",
    ),
    "a data file without rows": (
        "inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[0.2]]",
        'file = "empty.csv"\ninputs = ["a", "b"]\ntargets = ["y"]',
        "the data are empty",
    ),
    "g_min of nothing": ('"0.1 mS"', '"0 mS"', "x.toml"),
    "negative g_min": ('"0.1 mS"', '"-1 mS"', "x.toml"),
    "g_min above g_max": ('"0.1 mS"', '"100 mS"', "x.toml"),
    "step size of nothing": ('"auto"', '"0 S/V²"', "x.toml"),
    "negative step size": ('"auto"', '"-1e-5 S/V²"', "x.toml"),
    "nudge of nothing": ("epochs = 20", "epochs = 20\nnudge = 0", "x.toml"),
    "batch larger than the data": ("epochs = 20", "epochs = 20\nbatch_size = 2", "learning.batch_size is 2"),
    "start beyond a word": ('"1 mS"', '"middling"', "board.initial"),
    "volts above the limit": ("[learning]", '[limits]\nvolts = "0.5 V"\n[learning]', "limits.volts"),
    "pot current above the limit": ("[learning]", '[limits]\namperes_per_pot = "1 mA"\n[learning]', "limits.amperes"),
    "a stuck code without codes": ("[learning]", "[simulation]\npots.stuck = { 0 = 3 }\n[learning]", "x.toml"),
    "a broken edge that is not there": ("[learning]", "[simulation]\npots.opened = [9]\n[learning]", "x.toml"),
    "tolerance without pots": ("[learning]", '[simulation]\npots.tolerance = "20 %"\n[learning]', "x.toml"),
    "a store that is no name": ("[learning]", '[store]\nfile = "a\\u0000b"\n[learning]', "a"),
    "a store in no folder": ("[learning]", '[store]\nfile = "nowhere/x.sqlite"\n[learning]', "nowhere/x.sqlite"),
    "a run name that is a path": ("[learning]", '[store]\nrun = "../up"\n[learning]', "'../up' will not do"),
}  # fmt: skip


def assert_refused(code: int, capsys: pytest.CaptureFixture[str], message: str) -> None:
    output, errors = capsys.readouterr()
    assert code == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("hilcl: ")
    assert message in errors
    assert "internal error" not in errors


@pytest.mark.parametrize(("old", "new", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_input_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert DIVIDER.count(old) == 1
    (tmp_path / "x.toml").write_text(DIVIDER.replace(old, new), "utf-8")
    (tmp_path / "nan.csv").write_text("a,b,y\nnan,0,0.2\n", "utf-8")
    (tmp_path / "empty.csv").write_text("a,b,y\n", "utf-8")
    before = listing(tmp_path)
    assert_refused(main(["run", "x.toml"]), capsys, message)
    assert listing(tmp_path) == before
    if "store" not in new:
        assert_refused(main(["check", "x.toml"]), capsys, message)
        assert listing(tmp_path) == before


@pytest.mark.parametrize("case", ["unknown key", "output with no path", "a stuck code without codes"])
def test_bad_input_leaves_an_existing_store_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    path = write_experiment(tmp_path / "x.toml")
    assert main(["run", str(path), "--no-report"]) == 0
    old, new, message = BAD_FILES[case]
    path.write_text(DIVIDER.replace(old, new), "utf-8")
    before, store = listing(tmp_path), contents(tmp_path / "hilcl.sqlite")
    capsys.readouterr()
    for arguments in ([], ["--resume", "x"], ["--name", "fresh"]):
        assert_refused(main(["run", str(path), *arguments]), capsys, message)
    assert listing(tmp_path) == before
    assert contents(tmp_path / "hilcl.sqlite") == store


@pytest.mark.parametrize("file", ["gone.toml", ".", "binary.toml"])
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for command in ("run", "check"):
        assert_refused(main([command, file]), capsys, file)
    assert listing(tmp_path) == {"binary.toml"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "plain.txt/x.sqlite"], "plain.txt/x.sqlite cannot be used"),
        (["--store", "nowhere/x.sqlite"], "check that its folder exists and that you may write there"),
        (["--store", "/proc/x.sqlite"], "/proc/x.sqlite cannot be used"),
        (["--store", "."], "cannot be used"),
        (["--store", "plain.txt"], "damaged or no store at all"),
        (["--store", "foreign.sqlite"], "foreign.sqlite is not a hilcl store"),
        (["--store", "torn.sqlite"], "damaged or no store at all"),
        (["--store", "torn.sqlite", "--resume", "x"], "damaged or no store at all"),
        (["--store", "gone.sqlite", "--resume", "x"], "there is no store gone.sqlite"),
        (["--name", "x"], "already has a run 'x'"),
        (["--name", "a/b"], "the run name 'a/b' will not do: use letters"),
        (["--name", "../x"], "will not do"),
        (["--name", ""], "will not do"),
        (["--name", ".x"], "will not do"),
        (["--name", "a" * 101], "will not do"),
        (["--name", "x\ny"], "will not do"),
        (["--name", "x\n"], "will not do"),
        (["--resume", "nobody"], "has no run 'nobody': it has x"),
        (["--resume", "x"], "'x' is complete, 20 epochs"),
    ],
)
def test_a_store_or_name_that_will_not_do_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = write_experiment(tmp_path / "x.toml")
    assert main(["run", str(path), "--no-report"]) == 0
    whole = (tmp_path / "hilcl.sqlite").read_bytes()
    (tmp_path / "torn.sqlite").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "plain.txt").write_text("no store\n" * 100, "utf-8")
    with closing(sqlite3.connect(tmp_path / "foreign.sqlite")) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    before = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    capsys.readouterr()
    assert_refused(main(["run", str(path), "--no-report", *arguments]), capsys, message)
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": '"1e-5 S/V²"'}, "learning.step_size differs from what the run 'x' was started with"),
        ({"targets_volts": "[[0.3]]"}, "task.targets_volts differs"),
        ({"g_max": '"20 mS"'}, "board.g_max differs"),
    ],
)
def test_resuming_another_experiment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    path = write_experiment(tmp_path / "x.toml")
    assert main(["run", str(path), "--no-report"]) == 0
    before = contents(tmp_path / "hilcl.sqlite")
    write_experiment(path, **({"epochs": "30"} | change))
    capsys.readouterr()
    assert_refused(main(["run", str(path), "--no-report", "--resume", "x"]), capsys, message)
    assert contents(tmp_path / "hilcl.sqlite") == before


def test_a_bench_that_fails_at_once_stops_with_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that cannot drive what is asked for: the sentence says so, and promises no resumption."""
    limited = DIVIDER + '[simulation]\nsources = { series = "1 Ω", compliance = "1 nA" }\n'
    path = write_experiment(tmp_path / "x.toml", limited)
    assert main(["run", str(path), "--no-report"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert "reached its current limit" in errors
    assert "(no step was made, so a corrected file needs a new run)" in errors
    assert status_of(tmp_path / "hilcl.sqlite", "x") == "failed"


def test_an_interrupt_at_the_very_end_can_be_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after the last step, while the trained board is measured."""

    def interrupted(_: Run) -> None:
        raise KeyboardInterrupt

    path = write_experiment(tmp_path / "x.toml")
    assert main(["run", str(path), "--no-report", "--name", "undisturbed"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", interrupted)
        assert main(["run", str(path), "--no-report", "--name", "late"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert "go on with: hilcl run" in errors
    store = tmp_path / "hilcl.sqlite"
    assert status_of(store, "late") == "stopped"
    assert main(["run", str(path), "--no-report", "--resume", "late"]) == 0
    assert stored_steps(store, "late") == stored_steps(store, "undisturbed")
    assert stored_summary(store, "late") == stored_summary(store, "undisturbed")


def test_progress_is_silent_where_nobody_watches(tmp_path: Path) -> None:
    path = copy_example("iris", tmp_path, epochs="300")
    done = hilcl("run", path, "--no-report", cwd=tmp_path, TERM="xterm-256color")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


def test_progress_on_a_terminal_shows_epochs_loss_and_time_left(tmp_path: Path) -> None:
    path = copy_example("iris", tmp_path, epochs="700")
    terminal, other_end = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "hilcl", "run", path, "--no-report"],
            cwd=tmp_path, env=environment(TERM="xterm-256color", COLUMNS="120"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=other_end,
        )  # fmt: skip
        os.close(other_end)
        shown = b""
        while piece := read_terminal(terminal):
            shown += piece
        output, _ = process.communicate()
    finally:
        os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8"))
    assert process.returncode == 0
    assert re.search(r"iris .*\d+/700 loss 0\.\d+ V² \S+ epochs/s ETA \d:\d\d:\d\d", text)
    assert b"\x1b" not in output
    assert b"Stored as run 'iris'" in output


def read_terminal(descriptor: int) -> bytes:
    """Return what is there to read, nothing once the other end is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so with an error
        return b""


def test_summary_lines_say_all_that_matters() -> None:
    summary = {
        "stopped_by": "all epochs are done",
        "kept_epoch": None,
        "kept_conductances": [1.0, 2.0, 3.0],
        "pinned": [0, 2],
        "certificate": ["Guarantee: none."],
        "remarks": ["No code has changed."],
        "evaluation": {
            "untrained": {"loss": 0.5, "accuracy": 0.25},
            "train": {"loss": 0.01, "accuracy": 0.987},
            "test": {"loss": 0.02, "accuracy": 1.0},
        },
    }
    assert summary_lines("x", summary, 7, 1.23456) == [
        "x: 7 epochs in 1.23 s, all epochs are done.",
        "Loss 0.5 V² → 0.01 V², test 0.02 V².",
        "Accuracy: untrained 25.0%, train 98.7%, test 100.0%.",
        "2 of 3 edges are held at a limit.",
        "Guarantee: none.",
        "No code has changed.",
    ]
