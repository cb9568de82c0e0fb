"""A run that is killed, however often and wherever, ends bit for bit like one that was left alone."""

import shlex
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from hilcl.cli.main import main
from tests.command_line import (
    copy_example,
    hilcl,
    n_stored,
    running_hilcl,
    status_of,
    stored_steps,
    stored_summary,
    wait_until,
)

ENDLESS = "1000000000"
"""Epochs of a run that never ends by itself, however fast the machine is."""

TAIL = 60
"""Epochs that the last sitting still has to do."""

KINDS = {
    "noisy 12-bit meters": "",
    "mini-batches and stochastic rounding": 'batch_size = 16\nrounding = "stochastic"\n',
    "independent draws and a falling step": 'batch_size = 21\ndraw = "independent"\ndecay_updates = 500.0\n',
}


def experiment(folder: Path, more: str, epochs: str, name: str = "iris") -> Path:
    """Write the Iris example, on noisy 12-bit meters, with more keys in [learning]."""
    path = copy_example("iris", folder, epochs=epochs)
    text = path.read_text("utf-8").replace("nudge = 1.0\n", f"nudge = 1.0\n{more}")
    path.unlink()
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path


def kill_after_progress(folder: Path, *arguments: str | Path, beyond: int) -> int:
    """Start a run, kill it when it has stored more than ``beyond`` steps, and return how many it left behind."""
    store = folder / "hilcl.sqlite"
    with running_hilcl("run", *arguments, "--no-report", cwd=folder) as process:
        wait_until(lambda: n_stored(store, "killed") > beyond, process)
        process.kill()
        output, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (output, errors) == ("", "")
    assert status_of(store, "killed") == "running"
    return n_stored(store, "killed")


def assert_same_run(folder: Path, run: str, other: str) -> None:
    store = folder / "hilcl.sqlite"
    steps, expected = stored_steps(store, run), stored_steps(store, other)
    assert len(steps) == len(expected)
    for step, its_twin in zip(steps, expected, strict=True):
        assert step == its_twin
    assert stored_summary(store, run) == stored_summary(store, other)


def end_quietly(folder: Path, path: Path, *arguments: str) -> None:
    """Run to the end in this process, where no import is waited for."""
    assert main(["run", str(path), *arguments, "--no-report", "--store", str(folder / "hilcl.sqlite")]) == 0


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path, more: str) -> None:
    path = experiment(tmp_path, more, ENDLESS)
    # The first kill comes as soon as the run is entered, mostly before its first commit.
    n_steps = kill_after_progress(tmp_path, path, "--name", "killed", beyond=-1)
    for _ in range(2):
        n_steps = kill_after_progress(tmp_path, path, "--resume", "killed", beyond=n_steps)

    experiment(tmp_path, more, str(n_steps + TAIL))
    done = hilcl("run", path, "--resume", "killed", "--no-report", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    end_quietly(tmp_path, path, "--name", "undisturbed")
    assert n_stored(tmp_path / "hilcl.sqlite", "killed") == n_steps + TAIL
    assert_same_run(tmp_path, "killed", "undisturbed")


def test_a_kill_while_the_store_is_being_made_leaves_a_usable_folder(tmp_path: Path) -> None:
    path = experiment(tmp_path, "", ENDLESS)
    store = tmp_path / "hilcl.sqlite"
    with running_hilcl("run", path, "--name", "killed", "--no-report", cwd=tmp_path) as process:
        wait_until(store.exists, process)
    experiment(tmp_path, "", "5")
    end_quietly(tmp_path, path, "--name", "next")
    assert n_stored(store, "next") == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_run_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "Versuche für µS"
    folder.mkdir()
    path = experiment(folder, "", ENDLESS, name="my board")
    store = folder / "hilcl.sqlite"
    with running_hilcl("run", path.name, "--no-report", cwd=folder) as process:
        wait_until(lambda: n_stored(store, "my-board") > 0, process)
        seen = n_stored(store, "my-board")
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("hilcl: stopped; the steps so far are stored")
    assert status_of(store, "my-board") == "stopped"
    n_steps = n_stored(store, "my-board")
    assert n_steps >= seen

    # The command it names works as it stands, blanks and all.
    command = shlex.split(errors.split("go on with: ")[1])
    assert command[:2] == ["hilcl", "run"]
    experiment(folder, "", str(n_steps + 1), name="my board")
    done = hilcl(*command[1:], "--no-report", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert status_of(store, "my-board") == "finished"
    assert n_stored(store, "my-board") == n_steps + 1


def test_a_hang_up_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    """As under nohup: closing the terminal must not end the run."""
    path = experiment(tmp_path, "", ENDLESS)
    store = tmp_path / "hilcl.sqlite"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running_hilcl("run", path, "--name", "kept", "--no-report", cwd=tmp_path) as process:
            wait_until(lambda: n_stored(store, "kept") > 0, process)
            process.send_signal(signal.SIGHUP)
            # A run that stops would still finish a commit under way and make a last one, but no third.
            for _ in range(3):
                seen = n_stored(store, "kept")
                wait_until(lambda seen=seen: n_stored(store, "kept") > seen, process)  # type: ignore[misc]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_processes_on_one_run_do_not_mix_their_steps(tmp_path: Path) -> None:
    path = experiment(tmp_path, "", ENDLESS)
    store = tmp_path / "hilcl.sqlite"
    arguments = (path, "--no-report")
    with running_hilcl("run", *arguments, "--name", "killed", cwd=tmp_path) as first:
        wait_until(lambda: n_stored(store, "killed") > 0, first)
        with running_hilcl("run", *arguments, "--resume", "killed", cwd=tmp_path) as second:
            both = (first, second)
            wait_until(lambda: any(process.poll() is not None for process in both), None)
            output, errors = second.communicate()
            assert first.poll() is None
    assert second.returncode == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert "another process is writing the same run" in errors
    assert f"process {first.pid} is at work on 'killed'" in errors
    n_steps = n_stored(store, "killed")
    experiment(tmp_path, "", str(n_steps + TAIL))
    end_quietly(tmp_path, path, "--resume", "killed")
    end_quietly(tmp_path, path, "--name", "undisturbed")
    assert_same_run(tmp_path, "killed", "undisturbed")


def test_runs_that_start_together_share_a_new_store(tmp_path: Path) -> None:
    path = experiment(tmp_path, "", "3")
    with ExitStack() as stack:
        everyone = [stack.enter_context(running_hilcl("run", path, "--no-report", cwd=tmp_path)) for _ in range(4)]
        for process in everyone:
            output, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
            assert "Stored as run" in output
    names = ["iris", "iris-2", "iris-3", "iris-4"]
    assert [n_stored(tmp_path / "hilcl.sqlite", name) for name in names] == [3] * 4
