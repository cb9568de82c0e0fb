"""The guard: a process that outlives its controller and makes the bench safe, against instruments served from here."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from hilcl.bench_lock import BenchLock, users_of
from hilcl.bench_safety import make_bench_safe
from hilcl.bench_section import BenchSection
from hilcl.bench_targets import Target, bench_targets
from hilcl.errors import BoardError, StoreError, UnsafeBoardError
from hilcl.experiment import Experiment
from hilcl.guard import Guard, guard_log, guarded
from hilcl.guard_process import BEAT, END, UNSURE, Orders, watch
from hilcl.session import first_difference
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.server import Line, NoFaults
from tests.command_line import environment, running_hilcl, wait_until
from tests.hilcl.bench_elsewhere import anything_on, served

SILENCE = 2.0

CONTROLLER = """
import sys
from pathlib import Path
import numpy as np
from hilcl.errors import BoardError
from hilcl.experiment import Experiment
from hilcl.guard import guarded
from hilcl.preparation import prepare
from hilcl.session import open_board

preparation = prepare(Experiment.load(Path("bench.toml")))
try:
    with guarded(preparation.experiment, "bench", Path("hilcl.guard.log"), "the controller") as guard:
        board = open_board(preparation, "bench", calibrate=False)
        board.respond([[1.0, 0.5, np.nan, np.nan]])
        print(guard.pid, flush=True)
        {then}
        guard.check()
        board.close()
except BoardError as error:
    print(error, flush=True)
    sys.exit(1)
"""
"""A program that drives the bench and then waits to be told to go on."""

WAIT = "sys.stdin.readline()"


@contextmanager
def controller(folder: Path, then: str = WAIT) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start a program that drives the bench of bench.toml, and return it with its guard's process number."""
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER.replace("{then}", then)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        guard = 0
        try:
            assert process.stdout is not None
            guard = int(process.stdout.readline())
            yield process, guard
        finally:
            process.kill()
            # It has to have done its work before the bench is served no more, or it would look for it for a while.
            wait_until(lambda: gone(guard), None)


def gone(pid: int) -> bool:
    """Return whether a process has ended; an orphan may stay as a zombie where nobody collects it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def log_of(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return (folder / "hilcl.guard.log").read_text()
    return ""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EmulatedBench]:
    with served(tmp_path / "bench.toml", guard=f'"{SILENCE:g} s"') as bench:
        yield bench


def test_a_run_that_is_killed_leaves_the_bench_safe(bench: EmulatedBench, tmp_path: Path) -> None:
    section = Experiment.load(tmp_path / "bench.toml").bench
    assert section is not None
    with running_hilcl("run", "bench.toml", "--backend", "bench", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: anything_on(bench), process)
        assert {owner.pid for _, owner in users_of(section) if owner} == {process.pid}
        process.kill()
        wait_until(lambda: not anything_on(bench), None)
    wait_until(lambda: log_of(tmp_path).count("\n") == 4, None)
    board, left, why, right = sorted(log_of(tmp_path).splitlines(), key=lambda line: line.split(" ", 1)[1])
    assert f"process {process.pid} (hilcl run bench.toml --backend bench --no-report) died" in why
    assert "board: safe, verified" in board
    assert "left: off, verified (Keithley Instruments Inc.,Model 2602B" in left
    assert "right: off, verified (Keysight Technologies,B2912A" in right
    assert (bench.codes == 256).all()
    # The guard held the bench until it was safe, and nobody holds it now.
    BenchLock(section, "the next one").release()


def test_signals_to_everybody_leave_the_guard_at_its_post(bench: EmulatedBench, tmp_path: Path) -> None:
    """Its own group does not even get what a terminal sends; a session that is cleared away sends to each process."""
    with controller(tmp_path) as (process, guard):
        assert os.getsid(guard) == guard
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            os.kill(guard, number)
        assert anything_on(bench)
        os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not anything_on(bench), None)
    wait_until(lambda: gone(guard), None)


def test_the_guard_holds_neither_terminal_nor_store(bench: EmulatedBench, tmp_path: Path) -> None:
    with controller(tmp_path) as (_, guard):
        held = {str(entry.readlink()) for entry in Path(f"/proc/{guard}/fd").iterdir()}
        others = {
            name for name in held if not name.startswith(("pipe:", "anon_inode:", "socket:")) and name != os.devnull
        }
        assert {Path(name).suffix for name in others} == {".lock"}
        arguments = Path(f"/proc/{guard}/cmdline").read_bytes()
        assert b"SOCKET" not in arguments
        assert b"/dev/" not in arguments


def test_a_run_that_ends_in_order_takes_its_guard_along(bench: EmulatedBench, tmp_path: Path) -> None:
    with controller(tmp_path) as (process, guard):
        process.communicate("go on\n")
        assert process.returncode == 0
    assert gone(guard)
    assert log_of(tmp_path) == ""
    assert not anything_on(bench)


def test_a_silent_controller_is_stopped_safe_and_told_so(bench: EmulatedBench, tmp_path: Path) -> None:
    """The bench's SMUs take a second client; the pot board's port does not, and its holder is ended for it."""
    with controller(tmp_path) as (process, guard):
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: gone(guard), None)
        assert not anything_on(bench)
        assert process.wait() == -signal.SIGKILL
    assert "gave no sign of life for 2 s" in log_of(tmp_path)
    assert f"ended process {process.pid}, which held what could not be reached" in log_of(tmp_path)
    assert "board: safe, verified" in log_of(tmp_path)


def test_a_controller_that_is_silent_but_in_nobodys_way_lives_and_stops(bench: EmulatedBench, tmp_path: Path) -> None:
    release_port = "board._wiring.pots[0][0].abandon(); print('let go', flush=True); guard._process.wait()"
    with controller(tmp_path, release_port) as (process, guard):
        assert process.stdout is not None
        assert process.stdout.readline() == "let go\n"
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: gone(guard), None)
        assert not anything_on(bench)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate()
    assert process.returncode == 1
    assert f"the guard has made the bench safe, as {tmp_path / 'hilcl.guard.log'} tells" in output


def test_a_run_does_not_go_on_without_its_guard(bench: EmulatedBench, tmp_path: Path) -> None:
    with running_hilcl("run", "bench.toml", "--backend", "bench", "--no-report", cwd=tmp_path) as process:
        wait_until(lambda: anything_on(bench), process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "the guard of the bench was ended by somebody else" in errors
    assert "go on with: hilcl run bench.toml --resume bench" in errors
    assert not anything_on(bench)


def test_an_emulated_bench_is_left_alone_when_it_died_with_its_program(tmp_path: Path) -> None:
    """Its ports may be another program's by then."""
    target = Target(name="smu", kind="smu", driver="keithley2400", resource="TCPIP::127.0.0.1::1::SOCKET")
    log = tmp_path / "x.guard.log"
    guard = Guard([target], silence=SILENCE, log=log, with_us=True)
    guard.abandon()
    assert gone(guard.pid)
    [line] = log.read_text().splitlines()
    assert "its instruments were emulated by it and are off with it" in line


def test_what_cannot_be_made_safe_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard([Target(name="lab", kind="python", driver="python")], silence=SILENCE, log=tmp_path / "log")
    guard.abandon()
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert "lab: NOT verified to be safe: only the program that opens it can make it safe" in last


def test_a_log_that_cannot_be_written_stops_no_guard(bench: EmulatedBench, tmp_path: Path) -> None:
    section = Experiment.load(tmp_path / "bench.toml").bench
    assert section is not None
    with Guard(bench_targets(section), silence=SILENCE, log=tmp_path / "nowhere" / "log") as guard:
        guard.abandon()
        assert gone(guard.pid)
    assert (bench.codes == 256).all()


def test_a_guard_that_cannot_start_is_said_and_nothing_is_driven(
    bench: EmulatedBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Experiment.load(tmp_path / "bench.toml")
    for wrong in ("/bin/false", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", wrong)
        with pytest.raises(BoardError, match="could not be started"), guarded(loaded, "bench", tmp_path / "log"):
            raise AssertionError("there is no guard")
    # The bench is free again.
    assert loaded.bench is not None
    BenchLock(loaded.bench, "the next one").release()


def test_a_controller_that_died_before_it_drove_anything_leaves_nothing_to_do(tmp_path: Path) -> None:
    """The guard of a controller that is not there to hear that it may begin ends without touching anything."""
    orders = Orders(
        targets=[Target(name="lab", kind="python", driver="python").model_dump(mode="json")],
        silence=SILENCE,
        log=str(tmp_path / "log"),
        command="x",
        pid=os.getpid(),
        folder=str(tmp_path),
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", "from hilcl.guard_process import main; main()"],
        input=orders.model_dump_json().encode() + b"\n",
        stdout=writing,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert not (tmp_path / "log").exists()


def test_no_bench_no_guard(tmp_path: Path) -> None:
    with served(tmp_path / "bench.toml", guard='"off"'):
        loaded = Experiment.load(tmp_path / "bench.toml")
        for backend in ("sim", "emulated", "bench"):
            with guarded(loaded, backend, tmp_path / "log") as guard:
                assert guard is None
        # Without a guard the bench is locked all the same.
        with (
            guarded(loaded, "bench", tmp_path / "log"),
            pytest.raises(BoardError, match="is in use by"),
            guarded(loaded, "bench", tmp_path / "log"),
        ):
            raise AssertionError("two programs have one bench")


def test_the_log_is_beside_the_store() -> None:
    assert guard_log(Path("data/week.sqlite")) == Path("data/week.guard.log")


@pytest.mark.parametrize(
    ("said", "closed", "ending"),
    [
        (BEAT * 3 + END, False, "end"),
        (END, True, "end"),
        (BEAT + UNSURE, True, "unsure"),
        (BEAT * 3, True, "death"),
        (b"", True, "death"),
        (BEAT, False, "silence"),
    ],
)
def test_how_a_watch_ends(said: bytes, closed: bool, ending: str) -> None:
    reading, writing = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, reading)
        os.write(writing, said)
        if closed:
            os.close(writing)
        else:
            stack.callback(os.close, writing)
        assert watch(reading, 0.01) == ending


class Breaking(NoFaults):
    """A wire that, while it is broken, loses each line and breaks the connection, or lets everything time out."""

    def __init__(self, *, resets: bool) -> None:
        self.broken = False
        self._resets = resets
        self._line: Line | None = None

    def attach(self, line: Line) -> None:
        self._line = line

    def received(self, line: str) -> str | None:
        if not self.broken:
            return line
        if self._resets and self._line is not None:
            self._line.refuse(0.05)
        return None


@pytest.mark.parametrize("resets", [True, False])
def test_what_a_run_cannot_switch_off_its_guard_does(tmp_path: Path, resets: bool) -> None:
    wire = Breaking(resets=resets)
    path = tmp_path / "bench.toml"
    with served(path, faults={"left": wire}, guard=f'"{SILENCE:g} s"') as bench:
        driver = 'driver = "keithley2600b"'
        path.write_text(path.read_text("utf-8").replace(driver, f'{driver}\ntimeout = "0.1 s"'), "utf-8")
        with running_hilcl("run", "bench.toml", "--backend", "bench", "--no-report", cwd=tmp_path) as process:
            wait_until(lambda: any(bench.outputs_on["left"]), process)
            wire.broken = True
            wait_until(lambda: "could not make the bench safe" in log_of(tmp_path), process)
            assert any(bench.outputs_on["left"])
            assert not any(bench.outputs_on["right"])
            wire.broken = False
            _, errors = process.communicate()
        assert not anything_on(bench)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert f"the guard has made the bench safe, as {tmp_path / 'hilcl.guard.log'} tells; before that, left " in last
    assert "left: off, verified" in log_of(tmp_path)


def test_what_neither_a_run_nor_its_guard_can_make_safe_is_named(tmp_path: Path) -> None:
    lab, meter = Target(name="lab", kind="python", driver="python"), Target(name="dmm", kind="meter", driver="34970a")
    said = f"the guard could not verify that lab is safe, as {tmp_path / 'log'} tells: switch it off by hand"

    def leave(error: Exception) -> None:
        with Guard([lab, meter], silence=SILENCE, log=tmp_path / "log"):
            try:
                raise UnsafeBoardError("lab does not answer")
            finally:
                raise error

    for error, what in ((StoreError("disk full"), "disk full"), (KeyError("x"), "lab does not answer")):
        with pytest.raises(BoardError) as caught:
            leave(error)
        assert str(caught.value) == f"{said}; before that, {what}"


def test_a_bench_that_is_safe_is_left_alone_whatever_ended_the_run(tmp_path: Path) -> None:
    target = Target(name="lab", kind="python", driver="python")
    with pytest.raises(BoardError, match=r"^no$"), Guard([target], silence=SILENCE, log=tmp_path / "log"):
        raise BoardError("no")
    assert not (tmp_path / "log").exists()


def test_an_instrument_that_is_still_held_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def held(target: Target, *, ramp: bool, retries: int) -> str:
        attempts.append(retries)
        if len(attempts) < 3:
            raise BoardError("smu: the port is in use")
        return "off, verified"

    monkeypatch.setattr("hilcl.bench_safety.make_safe", held)
    target = Target(name="smu", kind="smu", driver="keithley2400")
    [outcome] = make_bench_safe([target], patience=60.0)
    assert (outcome.safe, outcome.sentence, attempts) == (True, "off, verified", [0, 0, 0])


def test_an_instrument_that_stays_held_is_given_up_and_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other_done = threading.Event()

    def held(target: Target, *, ramp: bool, retries: int) -> str:
        if target.name == "other":
            other_done.set()
            return "off, verified"
        assert other_done.wait(20.0)
        raise BoardError("smu: the port is in use")

    monkeypatch.setattr("hilcl.bench_safety.make_safe", held)
    targets = [Target(name=name, kind="smu", driver="keithley2400") for name in ("smu", "other")]
    told: list[str] = []
    first, second = make_bench_safe(targets, told=lambda outcome: told.append(outcome.name))
    assert (first.safe, first.sentence) == (False, "the port is in use")
    assert second.safe
    assert told == ["other", "smu"]


def test_pots_without_safe_codes_are_not_touched() -> None:
    """Opening an up/down bank would move its pots; this bus is not even there."""
    bench = BenchSection.model_validate(
        {
            "instruments": {
                "pots": {
                    "driver": "updown",
                    "resource": "/dev/nowhere",
                    "up": 1,
                    "clock": 2,
                    "chips": [{"chip": "AD5220", "line": 3}],
                }
            },
            "wiring": {"pots": {"pots": "all"}},
        }
    )
    [outcome] = make_bench_safe(bench_targets(bench))
    assert (outcome.safe, outcome.sentence) == (True, "pots keep their codes, as the file names no safe_codes")


def test_pots_with_safe_codes_are_moved_to_them(tmp_path: Path) -> None:
    device = tmp_path / "iio:device0"
    device.mkdir()
    (device / "name").write_text("mcp4651-103\n")
    for channel in range(2):
        (device / f"out_resistance{channel}_raw").write_text("128\n")
    text = {"driver": "iio", "resource": str(tmp_path), "chips": [{"device": "iio:device0"}], "safe_codes": [256, 200]}
    bench = BenchSection.model_validate({"instruments": {"pots": text}, "wiring": {"pots": {"pots": "all"}}})
    [outcome] = make_bench_safe(bench_targets(bench))
    assert outcome.safe
    assert outcome.sentence.startswith("pots at their safe codes, verified")
    held = [int((device / f"out_resistance{channel}_raw").read_text()) for channel in range(2)]
    assert np.array_equal(held, [256, 200])


def test_a_resumed_run_may_have_another_guard() -> None:
    before = {"bench": {"guard": 30.0, "retries": 2}}
    assert first_difference(before, {"bench": {"guard": None, "retries": 2}}) is None
    assert first_difference(before, {"bench": {"guard": 30.0, "retries": 3}}) == "bench.retries"
