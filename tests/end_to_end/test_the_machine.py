"""What computers do to a run on an emulated bench: killed, suspended, without terminal, disk or patience."""

import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hilcl.cli.main import main
from tests.command_line import (
    EXAMPLES,
    PATIENCE,
    environment,
    n_stored,
    running_hilcl,
    status_of,
    stored_steps,
    stored_summary,
    wait_until,
    write_experiment,
)
from tests.kill_campaign import kill_campaign

ENDLESS = "1000000000"


def bench(folder: Path, epochs: str) -> Path:
    """Write the bench of 16 edges, with noisy meters and stochastic rounding."""
    text = (EXAMPLES / "bench16.toml").read_text("utf-8").replace("epochs = 60", 'epochs = 60\nrounding = "stochastic"')
    return write_experiment(folder / "bench.toml", text, epochs=epochs)


def ends_as_undisturbed(folder: Path, name: str, *, more: int = 3) -> None:
    """Resume a run for a few epochs more and compare it with one that was left alone."""
    store = folder / "hilcl.sqlite"
    path = bench(folder, str(n_stored(store, name) + more))
    common = [str(path), "--no-report", "--store", str(store)]
    assert main(["run", *common, "--resume", name]) == 0
    assert main(["run", *common, "--backend", "emulated", "--name", "undisturbed"]) == 0
    assert stored_steps(store, name) == stored_steps(store, "undisturbed")
    assert stored_summary(store, name) == stored_summary(store, "undisturbed")


def test_runs_killed_at_random_moments_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    result = kill_campaign(bench(tmp_path, "12"), tmp_path, 3)
    assert (result.kills, result.steps) == (3, 12)
    assert result.passed, result


def test_a_killed_run_is_shown_as_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, store = bench(tmp_path, ENDLESS), tmp_path / "hilcl.sqlite"
    with running_hilcl("run", path, "--backend", "emulated", "--name", "x", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: n_stored(store, "x") > 1, process)
        assert main(["show", "x", "--store", str(store)]) == 0
        assert "Not finished: it still runs." in capsys.readouterr().out
        process.kill()
        process.communicate()
    assert main(["show", "x", "--store", str(store)]) == 0
    output = capsys.readouterr().out
    assert "Run x: interrupted, " in output
    assert "Not finished: go on with `hilcl run EXPERIMENT.toml --resume x`." in output
    assert main(["runs", "--store", str(store)]) == 0
    assert "interrupted" in capsys.readouterr().out


def test_a_suspended_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, store = bench(tmp_path, ENDLESS), tmp_path / "hilcl.sqlite"
    with running_hilcl("run", path, "--backend", "emulated", "--name", "x", "--no-report", cwd=tmp_path) as process:
        for _ in range(5):
            seen = n_stored(store, "x")
            wait_until(lambda seen=seen: n_stored(store, "x") > max(seen, 0), process)  # type: ignore[misc]
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            process.send_signal(signal.SIGCONT)
        seen = n_stored(store, "x")
        wait_until(lambda: n_stored(store, "x") > seen + 1, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "stopped; the steps so far are stored" in errors
    ends_as_undisturbed(tmp_path, "x")
    capsys.readouterr()
    assert main(["show", "x", "--events", "--store", str(store)]) == 0
    assert "stopped by the keyboard or a signal; stopped." in capsys.readouterr().out


def test_ctrl_c_again_and_again_does_not_break_making_safe(tmp_path: Path) -> None:
    path, store = bench(tmp_path, ENDLESS), tmp_path / "hilcl.sqlite"
    with running_hilcl("run", path, "--backend", "emulated", "--name", "x", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: n_stored(store, "x") > 1, process)

        def again() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        wait_until(again, None)
        output, errors = process.communicate()
    assert (process.returncode, output) == (1, "")
    lines = errors.splitlines()
    assert [line for line in lines if "stopped; the steps so far are stored" in line] == lines[-1:]
    assert {re.sub(", please wait", "", line) for line in lines[:-1]} <= {
        "hilcl: making the bench safe",
        "hilcl: making the board safe",
        "hilcl: making the board safe and storing what is known",
        "hilcl: stopping already",
    }
    assert status_of(store, "x") == "stopped"
    ends_as_undisturbed(tmp_path, "x")


def test_a_terminal_that_goes_away_stops_the_run_in_order(tmp_path: Path) -> None:
    """The whole session is hung up, as when the window is closed."""
    path, store = bench(tmp_path, ENDLESS), tmp_path / "hilcl.sqlite"
    terminal, other_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hilcl", "run", path, "--backend", "emulated", "--name", "x", "--no-report"],
        cwd=tmp_path, env=environment(TERM="xterm-256color"), stdin=other_end, stdout=other_end, stderr=other_end,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(other_end)
        wait_until(lambda: n_stored(store, "x") > 1, process)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE) == 1
    assert status_of(store, "x") == "stopped"
    ends_as_undisturbed(tmp_path, "x")


def test_a_run_under_nohup_survives_its_terminal(tmp_path: Path) -> None:
    path, store = bench(tmp_path, "15"), tmp_path / "hilcl.sqlite"
    terminal, other_end = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "hilcl", "run", path, "--backend", "emulated", "--name", "x"],
            cwd=tmp_path, env=environment(TERM="xterm-256color"), stdin=other_end, stdout=other_end, stderr=other_end,
        ) as process:  # fmt: skip
            os.close(other_end)
            wait_until(lambda: n_stored(store, "x") > 1, process)
            os.close(terminal)
            process.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status_of(store, "x") == "finished"
    assert n_stored(store, "x") == 15
    assert (tmp_path / "reports" / "x.html").exists()


def test_a_store_locked_by_another_process_stops_the_run_safe(tmp_path: Path) -> None:
    path, store = bench(tmp_path, ENDLESS), tmp_path / "hilcl.sqlite"
    with running_hilcl("run", path, "--backend", "emulated", "--name", "x", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: n_stored(store, "x") > 1, process)
        with closing(sqlite3.connect(store, isolation_level=None, timeout=PATIENCE)) as other:
            other.execute("BEGIN IMMEDIATE")
            output, errors = process.communicate(timeout=PATIENCE)
            other.execute("ROLLBACK")
    assert (process.returncode, output) == (1, "")
    assert len(errors.splitlines()) == 1
    assert "another process is writing to it" in errors
    assert "go on with: hilcl run" in errors
    ends_as_undisturbed(tmp_path, "x")


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    trial = [unshare, "-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs leave to mount a small disk")
def test_a_full_disk_stops_the_run_safe(tmp_path: Path) -> None:
    path, disk = bench(tmp_path, ENDLESS), tmp_path / "disk"
    disk.mkdir()
    run = [sys.executable, "-m", "hilcl", "run", str(path), "--backend", "emulated", "--name", "x", "--no-report"]
    script = """
        mount -t tmpfs -o size=400k none "$0" && cd "$0" || exit 9
        "$@" --store full.sqlite
        code=$?
        cp full.sqlite* ..
        exit $code
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, disk, *run],
        env=environment(), capture_output=True, encoding="utf-8", timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "the disk is full: free space, then resume the run" in done.stderr
    assert "go on with: hilcl run" in done.stderr
    for file in tmp_path.glob("full.sqlite*"):
        file.rename(tmp_path / file.name.replace("full", "hilcl"))
    assert n_stored(tmp_path / "hilcl.sqlite", "x") > 1
    ends_as_undisturbed(tmp_path, "x")
