"""Bench files on the command line: refused files, instruments on the wire, and every way a run can end."""

import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hilcl.cli.main import main
from hilcl.events import Event
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.server import Delivery
from hilcl.store import StepWriter
from hilcl.training import Step
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, at_resources, prepared, replaced
from tests.command_line import (
    EXAMPLES,
    hilcl,
    listing,
    n_stored,
    running_hilcl,
    status_of,
    stored_steps,
    stored_summary,
    wait_until,
)

CLAMP = 'resource = "TCPIP::192.168.0.11::5025::SOCKET"\ncompliance = "10 mA"\n'
METERS = "meters = { pots = [0, 1, 2] }"
DRIVEN = "{ drive = { a = 0, b = 2 }, clamp = [1] }"

Change = tuple[str, str]


def clamp_with(line: str) -> Change:
    return CLAMP, f"{CLAMP}{line}\n"


REFUSED: dict[str, tuple[str, list[Change], str]] = {
    "unknown driver": (
        DIVIDER_BENCH,
        [('"keithley2450"', '"keithley2560"')],
        "bench.instruments.clamp: driver is 'keithley2560', but it must be one of 'keithley2400', 'keithley2450'",
    ),
    "no driver": (
        DIVIDER_BENCH,
        [('driver = "keithley2450"\n', "")],
        "line 35: bench.instruments.clamp needs a driver: keithley2400, keithley2450",
    ),
    "unknown key": (
        DIVIDER_BENCH,
        [clamp_with('limit_volt = "2 V"')],
        "line 39: bench.instruments.clamp.limit_volt is not a key hilcl knows: did you mean limit_volts?",
    ),
    "a key of another driver": (
        DIVIDER_BENCH,
        [clamp_with('watchdog = "2 s"')],
        "bench.instruments.clamp.watchdog is not a key hilcl knows: known here are amperes_range, autozero",
    ),
    "a float mode that is none": (
        DIVIDER_BENCH,
        [clamp_with('free_mode = "open"')],
        "line 39: bench.instruments.clamp.free_mode: input should be 'zero_amp', 'himp' or 'relay', got 'open'",
    ),
    "no compliance": (
        DIVIDER_BENCH,
        [(CLAMP, CLAMP.replace('compliance = "10 mA"\n', ""))],
        "bench.instruments.clamp.compliance is missing: add it",
    ),
    "two instruments at one resource": (
        DIVIDER_BENCH,
        [("192.168.0.11", "192.168.0.10")],
        "drive and clamp both at TCPIP::192.168.0.10::5025::SOCKET: give each instrument its own resource",
    ),
    "two wires on one channel": (
        GRID_BENCH,
        [('"101" = 1, "102:104"', '"102" = 1, "102:104"')],
        "bench.wiring.meters.scanner has two wires on channel 102: each channel takes one",
    ),
    "a range with too few nodes": (
        GRID_BENCH,
        [("[2, 3, 4]", "[2, 3]")],
        "bench.wiring.meters.scanner has 2 nodes for the 3 channels '102:104': give one node each",
    ),
    "a source that is a meter too": (
        GRID_BENCH,
        [('"102:104" = [2, 3, 4] }', '"103:104" = [3, 4] }, clamp = [2]')],
        "clamp channel 1 is wired twice, as a source and as a meter: each channel takes one wire",
    ),
    "two pots on one edge": (
        DIVIDER_BENCH,
        [('pots = "all"', "pots = [0, 0]")],
        "bench.wiring.pots wires two pots to edge 0: each edge takes one",
    ),
    "an edge without a pot": (
        DIVIDER_BENCH,
        [('pots = "all"', "pots = [0, -1]")],
        "edge 1 has no pot in bench.wiring.pots: wire one to it",
    ),
    "an edge that is none": (
        DIVIDER_BENCH,
        [('pots = "all"', "pots = [0, 1, 2]")],
        "bench.wiring.pots wires edge 2, but edges end at 1",
    ),
    "pots of an instrument without pots": (
        DIVIDER_BENCH,
        [('{ pots = "all" }', '{ clamp = "all" }')],
        "bench.wiring.pots names clamp, which has no pots: name a pot board",
    ),
    "a terminal without a source": (
        DIVIDER_BENCH,
        [("{ a = 0, b = 2 }", "{ a = 0 }")],
        "node 2 has no source in bench.wiring: wire a channel to it",
    ),
    "a source on a hidden node": (
        GRID_BENCH,
        [('"2" = 5', '"2" = 4')],
        "bench.wiring drives node 4, which is neither input nor output of board.network: correct one",
    ),
    "two sources on one node": (
        DIVIDER_BENCH,
        [("clamp = [1]", "clamp = [2]")],
        "node 2 has two sources, drive channel b and clamp channel 1: each node takes one of them",
    ),
    "two meters on one node": (
        DIVIDER_BENCH,
        [(METERS, "meters = { pots = [0, 1, 2, 1] }")],
        "node 1 has two meters, pots channel 1 and pots channel 3: each node takes one of them",
    ),
    "a hidden node without a meter": (
        GRID_BENCH,
        [('"102:104" = [2, 3, 4]', '"102:103" = [2, 3]')],
        "node 4 has no meter in bench.wiring, so the rule lacks the voltages of edges 2, 3, 5: wire a channel to it",
    ),
    "an output without a meter that floats by high impedance": (
        DIVIDER_BENCH,
        [clamp_with('free_mode = "himp"'), (METERS, "meters = { pots = [0, -1, 2] }")],
        "node 1 has no meter in bench.wiring, and clamp is cut off from it while it floats by himp, so the rule lacks",
    ),
    "an unknown channel": (
        DIVIDER_BENCH,
        [("b = 2", "c = 2")],
        "bench.wiring.sources.drive wires channel 'c', but a keithley2600b has channels a and b",
    ),
    "more nodes than channels": (
        DIVIDER_BENCH,
        [("clamp = [1]", "clamp = [1, 2]")],
        "bench.wiring.sources.clamp lists 2 nodes, but a keithley2450 has 1 channels at most",
    ),
    "a scanner that drives": (
        GRID_BENCH,
        [("clamp = [2] }", 'clamp = [2], scanner = { "110" = 2 } }')],
        "bench.wiring.sources.scanner: a 34970a is a meter and drives nothing",
    ),
    "a scanner without channel names": (
        GRID_BENCH,
        [('{ "101" = 1, "102:104" = [2, 3, 4] }', "[1, 2, 3, 4]")],
        "bench.wiring.meters.scanner must name the channels",
    ),
    "a node that is none": (
        DIVIDER_BENCH,
        [(METERS, "meters = { pots = [0, 1, 2, 3] }")],
        "bench.wiring.meters.pots wires channel 3 to node 3, but nodes end at 2",
    ),
    "wiring of an instrument that is none": (
        DIVIDER_BENCH,
        [("clamp = [1]", "clmp = [1]")],
        "bench.wiring.sources names 'clmp', which is none of the instruments: pots, drive, clamp",
    ),
    "an instrument wired to nothing": (
        DIVIDER_BENCH,
        [("[bench.wiring]", '[bench.instruments.spare]\ndriver = "daq6510"\nresource = "ASRL9"\n\n[bench.wiring]')],
        "spare is listed in bench.instruments but wired to nothing: wire it in bench.wiring or leave it out",
    ),
    "an instrument's limit above the bench's": (
        DIVIDER_BENCH,
        [clamp_with('limit_volts = "3 V"')],
        "bench.instruments.clamp.limit_volts = 3 V is above limits.volts = 2 V: lower it",
    ),
    "data above the limit": (
        DIVIDER_BENCH,
        [('volts = "2 V"', 'volts = "0.5 V"')],
        "the data drive 1 V, above limits.volts = 0.5 V: scale them down",
    ),
    "data above an instrument's limit": (
        DIVIDER_BENCH,
        [clamp_with('limit_volts = "0.1 V"')],
        "the data drive node 1 with 0.2 V, above bench.instruments.clamp.limit_volts = 0.1 V",
    ),
    "no limit": (
        DIVIDER_BENCH,
        [('[limits]\nvolts = "2 V"\n', "")],
        "[bench] needs limits.volts, the highest volts any terminal may see: add it to [limits]",
    ),
    "pots beyond the limit of current": (
        DIVIDER_BENCH,
        [('volts = "2 V"', 'volts = "2 V"\namperes_per_pot = "0.5 mA"')],
        "edge 0 between node 0 and node 1 could see 0.000784 A at 1 V, above limits.amperes_per_pot = 0.0005 A",
    ),
    "a driven node that is grounded": (
        DIVIDER_BENCH,
        [("sources = { drive = { a = 0, b = 2 }", "grounded = [0]\nsources = { drive = { b = 2 }")],
        "node 0 is grounded, but the data drive it with up to 1 V: wire a source to it",
    ),
    "a source on a grounded node": (
        DIVIDER_BENCH,
        [("sources =", "grounded = [2]\nsources =")],
        "node 2 is grounded and has a source: leave one out of bench.wiring",
    ),
    "an output that floats by a relay that is none": (
        DIVIDER_BENCH,
        [clamp_with('free_mode = "relay"')],
        "node 1 floats by a relay, but bench.wiring.switches has none for it: name it",
    ),
    "a switch at a source that needs none": (
        DIVIDER_BENCH,
        [("sources =", 'switches = { pots = { "0" = 1 } }\nsources =')],
        'has a switch at node 1, whose source does not float by free_mode = "relay": set that, or leave the switch out',
    ),
    "pots without codes": (
        re.sub(r"\[board.pots\].*?(?=\[task\])", "", DIVIDER_BENCH, flags=re.DOTALL),
        [("outputs = [1] }", 'outputs = [1] }\ng_min = "10 µS"\ng_max = "1 mS"')],
        "[bench] needs a [board.pots] section: what is written to a pot is a code",
    ),
}
"""What is wrong, the file, its changes, and what has to be said."""

NOT_THIS_BENCH: dict[str, tuple[str, list[Change], str]] = {
    "no [bench] section": (DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")], [], "bench.toml has no [bench] section: "),
    "an unknown chip": (
        DIVIDER_BENCH,
        [("MCP4251", "MCP42S1")],
        'there is no digital potentiometer "MCP42S1" in the catalogue: did you mean MCP4',
    ),
    "other positions than the chip's": (
        DIVIDER_BENCH,
        [("positions = 257", "positions = 256")],
        "[board.pots]: positions is 256, but a MCP4251 has 257 codes",
    ),
    "another denominator than the chip's": (
        DIVIDER_BENCH,
        [("denominator = 256\n", "")],
        "[board.pots]: the denominator is 257, but that of a MCP4251 is 256: set it",
    ),
    "an end-to-end resistance the chip is not made with": (
        DIVIDER_BENCH,
        [('"100 kΩ"', '"20 kΩ"')],
        "MCP4251 is not made with 20000 Ω: choose 5000 Ω, 10000 Ω, 50000 Ω or 100000 Ω",
    ),
    "a wiper current beyond the chip's rating": (
        DIVIDER_BENCH,
        [('"1.2 kΩ"', '"100 Ω"')],
        "a wiper of the MCP4251 could carry 5.71 mA at 1 V, above its rating of 2.5 mA: set lowest_code to 1, add a",
    ),
}
"""What stands in the way of a bench only."""

COMMANDS = {
    "check": ["check"],
    "run emulated": ["run", "--backend", "emulated"],
    "run bench": ["run", "--backend", "bench"],
}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], folder: Path) -> str:
    """Return the one sentence with which a command refuses a file, having written nothing."""
    before = listing(folder)
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert errors.startswith("hilcl: ")
    assert listing(folder) == before
    return errors


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_wrong_bench_file_is_refused_by_every_command(
    case: tuple[str, list[Change], str],
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text, changes, sentence = case
    Path("bench.toml").write_text(replaced(text, *changes), "utf-8")
    said = refused(capsys, [command[0], "bench.toml", *command[1:]], tmp_path)
    assert "bench.toml" in said
    assert sentence in said


@pytest.mark.parametrize("backend", ["emulated", "bench"])
@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("case", NOT_THIS_BENCH.values(), ids=NOT_THIS_BENCH)
def test_what_no_bench_could_do_is_refused_before_an_instrument_is_opened(
    case: tuple[str, list[Change], str],
    command: str,
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text, changes, sentence = case
    Path("bench.toml").write_text(replaced(text, *changes), "utf-8")
    said = refused(capsys, [command, "bench.toml", "--backend", backend], tmp_path)
    assert "bench.toml" in said
    assert sentence in said


def test_a_device_of_a_program_cannot_be_opened_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bench.toml").write_text(replaced(DIVIDER_BENCH, (f'keithley2450"\n{CLAMP}', 'python"\n')), "utf-8")
    for backend in ("bench", "emulated"):
        said = refused(capsys, ["run", "bench.toml", "--backend", backend], tmp_path)
        assert 'clamp has driver = "python"' in said


# Against instruments on the wire.

ENDLESS = "1000000000"
"""Epochs of a run that never ends by itself."""


@contextmanager
def served(folder: Path, text: str = DIVIDER_BENCH) -> Iterator[tuple[EmulatedBench, Path]]:
    """Serve the emulated bench of a file, and write the file that finds it there."""
    with EmulatedBench(prepared(text)) as bench:
        path = folder / "bench.toml"
        path.write_text(at_resources(text, bench.resources), "utf-8")
        yield bench, path
        assert outputs_off(bench)


def outputs_off(bench: EmulatedBench) -> bool:
    return not any(on for each in bench.outputs_on.values() for on in each)


def change(path: Path, *changes: Change) -> None:
    path.write_text(replaced(path.read_text("utf-8"), *changes), "utf-8")


def on_bench(path: Path, *more: str) -> list[str]:
    store = str(path.parent / "hilcl.sqlite")
    return ["run", str(path), "--backend", "bench", "--no-report", "--store", store, *more]


def codes_of(store: Path, run: str) -> list[bytes]:
    return [step["codes"] for step in stored_steps(store, run)]


def test_a_bench_on_the_wire_is_trained_and_left_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (bench, path):
        assert main(on_bench(path, "--name", "wire")) == 0
        assert outputs_off(bench)
        assert main(on_bench(path, "--name", "again")) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "wire: 25 epochs" in output
    store = tmp_path / "hilcl.sqlite"
    assert main(["run", str(path), "--no-report", "--store", str(store), "--name", "sim"]) == 0
    assert len(set(codes_of(store, "sim"))) > 3
    assert codes_of(store, "wire") == codes_of(store, "again") == codes_of(store, "sim")


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def failed(capsys: pytest.CaptureFixture[str], path: Path, code: int) -> str:
    """Return the one sentence with which a run fails that leaves no store behind."""
    before = listing(path.parent)
    assert main(on_bench(path)) == code
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert "Traceback" not in errors
    assert listing(path.parent) == before
    return errors


def test_the_wrong_instrument_at_an_address_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (bench, path):
        drive, clamp = bench.resources["drive"], bench.resources["clamp"]
        change(path, (drive, "DRIVE"), (clamp, drive), ("DRIVE", clamp))
        said = failed(capsys, path, 2)
        assert said.startswith("hilcl: drive: KEITHLEY")
        assert f"answers at {clamp}, but a Keithley Series 2600B is expected there" in said
        assert "correct the resource or the driver in the file" in said


def test_another_model_than_the_files_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (_, path):
        change(path, ('driver = "keithley2600b"', 'driver = "keithley2600b"\nmodel = "2636B"'))
        said = failed(capsys, path, 2)
        assert said.startswith("hilcl: drive: ")
        assert "2602B" in said
        assert "a 2636B is expected there" in said


@pytest.mark.parametrize(("name", "driver"), [("clamp", "keithley2450"), ("pots", "potboard")])
def test_a_wrong_serial_number_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, driver: str
) -> None:
    with served(tmp_path) as (_, path):
        change(path, (f'driver = "{driver}"', f'driver = "{driver}"\nserial = "77"'))
        said = failed(capsys, path, 2)
        assert said.startswith(f"hilcl: {name}")
        assert re.search("serial number .*77 is expected", said)
        assert "correct the" in said


def test_an_unknown_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (_, path):
        change(path, ('driver = "keithley2450"', 'driver = "keithley2450"\nmodel = "2636B"'))
        said = failed(capsys, path, 2)
        assert said.startswith("hilcl: clamp: the Keithley 2450 series driver knows no model '2636B', only 2450")


def test_an_address_where_nobody_listens_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (bench, path):
        nowhere = f"TCPIP::127.0.0.1::{unused_port()}::SOCKET"
        change(path, (bench.resources["clamp"], nowhere))
        said = failed(capsys, path, 2)
        assert said.startswith("hilcl: clamp")
        assert nowhere in said
        assert "check" in said


def test_a_serial_port_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (bench, path):
        change(path, (bench.resources["pots"], "/dev/ttyNOWHERE7"))
        said = failed(capsys, path, 2)
        assert "pots (/dev/ttyNOWHERE7) cannot be opened (No such file or directory): check the port's name" in said


class Garbage:
    """A wire on which every reply arrives as noise."""

    def received(self, line: str) -> str | None:
        return line

    def replied(self, reply: bytes) -> "Delivery":
        return Delivery(b"\xff\x00@!" * 3 + b"\n")


def test_garbage_on_the_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EmulatedBench(prepared(DIVIDER_BENCH), faults={"clamp": Garbage()}) as bench:
        path = tmp_path / "bench.toml"
        path.write_text(at_resources(DIVIDER_BENCH, bench.resources), "utf-8")
        said = failed(capsys, path, 1)
        assert said.startswith("hilcl: clamp")
        assert bench.resources["clamp"] in said
        assert "check the resource" in said
        assert outputs_off(bench)


def test_a_socket_that_is_no_instrument_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the connection and never answers."""
    with served(tmp_path) as (bench, path), socket.create_server(("127.0.0.1", 0)) as silent:
        change(
            path,
            (bench.resources["clamp"], f"TCPIP::127.0.0.1::{silent.getsockname()[1]}::SOCKET"),
        )
        text = path.read_text("utf-8")
        path.write_text(text.replace('timeout = "10 s"', 'timeout = "0.2 s"'), "utf-8")
        said = failed(capsys, path, 1)
        assert said.startswith("hilcl: clamp")


# Every way out.


def step_written(monkeypatch: pytest.MonkeyPatch, bench: EmulatedBench, error: BaseException) -> list[bool]:
    """Let storing the third step fail, and note whether an output was on then."""
    seen: list[bool] = []
    write = StepWriter.write

    def failing(self: StepWriter, step: Step, events: Sequence[Event] = ()) -> None:
        if step.epoch == 2:
            seen.append(not outputs_off(bench))
            raise error
        write(self, step, events)

    monkeypatch.setattr(StepWriter, "write", failing)
    return seen


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("the lights go out"), "internal error"), (KeyboardInterrupt(), "stopped; the steps so far")],
    ids=["an error", "Ctrl-C"],
)
def test_an_exception_in_the_loop_leaves_the_outputs_off(
    error: BaseException, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path) as (bench, path):
        seen = step_written(monkeypatch, bench, error)
        assert main(on_bench(path)) == 1
        assert seen == [True]
        assert outputs_off(bench)
    assert said in capsys.readouterr().err


def test_a_source_in_compliance_ends_the_run_with_the_outputs_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path) as (bench, path):
        text = path.read_text("utf-8")
        path.write_text(text.replace('compliance = "10 mA"\n\n[bench.wiring]', 'compliance = "2 uA"\n\n[bench.wiring]'))
        assert main(on_bench(path)) == 1
        assert outputs_off(bench)
    said = capsys.readouterr().err
    assert "node 1" in said
    assert "compliance" in said


class CutAfter:
    """A wire that carries some lines and then nothing more."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def received(self, line: str) -> str | None:
        self.left -= 1
        return line if self.left >= 0 else None

    def replied(self, reply: bytes) -> Delivery | None:
        return Delivery(reply)


def test_an_instrument_that_falls_silent_ends_the_run_with_the_others_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its own output may stay as it was, and the message says so."""
    wire = CutAfter(80)
    with EmulatedBench(prepared(DIVIDER_BENCH), faults={"clamp": wire}) as bench:
        path = tmp_path / "bench.toml"
        text = at_resources(DIVIDER_BENCH, bench.resources)
        path.write_text(text.replace('timeout = "10 s"', 'timeout = "0.3 s"'), "utf-8")
        assert main(on_bench(path, "--name", "cut")) == 1
        assert wire.left < 0
        assert not any(bench.outputs_on["drive"])
        assert not any(bench.outputs_on["pots"])
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "clamp" in said
    assert "could not be verified to be off: switch its output off at its front panel" in said
    assert 0 < n_stored(tmp_path / "hilcl.sqlite", "cut") < 25
    assert status_of(tmp_path / "hilcl.sqlite", "cut") == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_outputs_off_and_the_run_can_go_on(tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "hilcl.sqlite"
    with served(tmp_path) as (bench, path):
        change(path, ("epochs = 25", f"epochs = {ENDLESS}"), ('"20e-6 S/V²"', '"2e-6 S/V²"'))
        with running_hilcl(*on_bench(path, "--name", "stopped"), cwd=tmp_path) as process:
            wait_until(lambda: n_stored(store, "stopped") > 3 and not outputs_off(bench), process)
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert output == ""
        assert len(errors.splitlines()) == 1
        assert errors.startswith("hilcl: stopped; the steps so far are stored")
        assert outputs_off(bench)
        assert status_of(store, "stopped") == "stopped"

        n_steps = n_stored(store, "stopped")
        change(path, (f"epochs = {ENDLESS}", f"epochs = {n_steps + 10}"))
        assert main(["run", str(path), "--resume", "stopped", "--no-report", "--store", str(store)]) == 0
        assert outputs_off(bench)
        assert main(on_bench(path, "--name", "undisturbed")) == 0
    assert n_stored(store, "stopped") == n_steps + 10
    assert stored_steps(store, "stopped") == stored_steps(store, "undisturbed")
    assert stored_summary(store, "stopped") == stored_summary(store, "undisturbed")


class Held:
    """A wire that holds one message back until it is let go."""

    def __init__(self, message: int) -> None:
        self.left, self.holds, self.go = message, threading.Event(), threading.Event()

    def received(self, line: str) -> str:
        self.left -= 1
        if self.left == 0:
            self.holds.set()
            self.go.wait()
        return line

    def replied(self, reply: bytes) -> Delivery:
        return Delivery(reply)


@pytest.mark.parametrize(("message", "number"), [(12, signal.SIGTERM), (22, signal.SIGINT)])
def test_signals_again_and_again_while_a_bench_is_opened_end_in_one_sentence(
    tmp_path: Path, message: int, number: signal.Signals
) -> None:
    wire, path = Held(message), tmp_path / "bench.toml"
    with EmulatedBench(prepared(DIVIDER_BENCH), faults={"drive": wire, "clamp": wire}) as bench:
        path.write_text(at_resources(DIVIDER_BENCH, bench.resources), "utf-8")
        with running_hilcl(*on_bench(path), cwd=tmp_path) as process:
            wait_until(wire.holds.is_set, process)
            process.send_signal(number)
            wire.go.set()

            def again() -> bool:
                process.send_signal(number)
                return process.poll() is not None

            wait_until(again, None)
            output, errors = process.communicate()
        assert outputs_off(bench)
    assert (process.returncode, output) == (1, "")
    said = [line for line in errors.splitlines() if line and not line.endswith(", please wait")]
    assert said == ["hilcl: stopped by the keyboard or a signal"]
    assert list(tmp_path.glob("*.sqlite")) == []


def test_a_bench_that_is_gone_leaves_the_stored_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "hilcl.sqlite"
    with served(tmp_path) as (_, path):
        assert main(on_bench(path, "--name", "first")) == 0
    change(path, ("epochs = 25", "epochs = 30"))
    capsys.readouterr()
    assert main(["run", str(path), "--resume", "first", "--no-report", "--store", str(store)]) == 2
    assert capsys.readouterr().err.startswith("hilcl: ")
    assert status_of(store, "first") == "finished"
    assert n_stored(store, "first") == 25


def test_a_stored_run_goes_on_with_its_own_back_end_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(DIVIDER_BENCH, "utf-8")
    store = str(tmp_path / "hilcl.sqlite")
    assert main(["run", str(path), "--backend", "emulated", "--no-report", "--store", store]) == 0
    change(path, ("epochs = 25", "epochs = 30"))
    capsys.readouterr()
    assert main(["run", str(path), "--resume", "bench", "--backend", "sim", "--store", store]) == 2
    assert "was made with --backend emulated, not sim: go on with that one" in capsys.readouterr().err
    assert main(["run", str(path), "--resume", "bench", "--no-report", "--store", store]) == 0


# The simulator and the emulated bench.


def without_imperfections(text: str) -> str:
    return text[: text.index("[simulation]")] if "[simulation]" in text else text


@pytest.mark.parametrize("name", ["divider", "fast divider", "grid", "bench16", "bench32"])
def test_the_emulated_bench_takes_the_simulators_codes(name: str, tmp_path: Path) -> None:
    faster = replaced(DIVIDER_BENCH, ('driver = "potboard"', 'driver = "potboard"\nfast_baud = 1000000'))
    texts = {"divider": DIVIDER_BENCH, "fast divider": faster, "grid": GRID_BENCH}
    text = texts.get(name) or (EXAMPLES / f"{name}.toml").read_text("utf-8")
    path, store = tmp_path / "bench.toml", tmp_path / "hilcl.sqlite"
    path.write_text(without_imperfections(text), "utf-8")
    for backend in ("sim", "emulated"):
        arguments = ["run", path, "--backend", backend, "--name", backend, "--no-report", "--store", store]
        assert main([str(word) for word in arguments]) == 0
    expected = codes_of(store, "sim")
    assert len(set(expected)) > len(expected) // 4
    assert codes_of(store, "emulated") == expected


@pytest.mark.parametrize("name", ["bench16", "bench32"])
def test_with_imperfections_both_reach_about_the_same(name: str, tmp_path: Path) -> None:
    path, store = tmp_path / "bench.toml", tmp_path / "hilcl.sqlite"
    shutil.copy(EXAMPLES / f"{name}.toml", path)
    reached = {}
    for backend in ("sim", "emulated"):
        arguments = ["run", path, "--backend", backend, "--name", backend, "--no-report", "--store", store]
        assert main([str(word) for word in arguments]) == 0
        evaluation = stored_summary(store, backend)["evaluation"]
        reached[backend] = evaluation["train"]["loss"]
        assert reached[backend] < 0.2 * evaluation["untrained"]["loss"]
    assert reached["emulated"] == pytest.approx(reached["sim"], abs=1e-4)
    assert codes_of(store, "emulated") != codes_of(store, "sim")


def test_an_interrupted_emulated_run_goes_on_with_the_noise_it_had(tmp_path: Path) -> None:
    text = DIVIDER_BENCH + '\n[simulation]\nseed = 3\nmeters = { noise = "3 mV" }\n'
    path, store = tmp_path / "bench.toml", tmp_path / "hilcl.sqlite"
    path.write_text(text, "utf-8")
    common = ["--backend", "emulated", "--no-report"]
    assert main(["run", str(path), *common, "--store", str(store), "--name", "undisturbed"]) == 0
    change(path, ("epochs = 25", "epochs = 9"))
    assert main(["run", str(path), *common, "--store", str(store), "--name", "halted"]) == 0
    change(path, ("epochs = 9", "epochs = 25"))
    done = hilcl("run", path, *common, "--store", store, "--resume", "halted", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored_steps(store, "halted") == stored_steps(store, "undisturbed")


# What the guides show.


def shown(document: str, language: str, containing: str) -> str:
    text = (EXAMPLES.parent / "docs" / document).read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if containing in block]
    return str(block)


def test_the_miswiring_of_the_guide_is_found_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.toml"
    example = (EXAMPLES / "bench16.toml").read_text("utf-8")
    path.write_text(example + shown("bench.md", "toml", "simulation.miswired"), "utf-8")
    assert main(["check", str(path), "--backend", "emulated"]) == 1
    output, errors = capsys.readouterr()
    assert output.count("FAULT: ") == 3
    assert "exchange their two wires" in output
    assert "3 faults to correct first" in errors


def test_the_program_of_the_guide_trains_with_a_labs_own_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyMeasure's Keithley 2400 in the place of a driver, against the emulated instrument it is made for."""
    with_2400 = replaced(DIVIDER_BENCH, ("keithley2450", "keithley2400"))
    section = shown("instruments.md", "toml", "[bench.wiring]")
    with EmulatedBench(prepared(with_2400)) as bench:
        text = replaced(
            at_resources(DIVIDER_BENCH, bench.resources),
            (
                f'keithley2450"\nresource = "{bench.resources["clamp"]}"\ntimeout = "10 s"\ncompliance = "10 mA"',
                'python"',
            ),
            ("sources = { drive = { a = 0, b = 2 }, clamp = [1] }", section.split("[bench.wiring]\n")[1]),
        )
        assert section.split("\n\n")[0] in text
        (tmp_path / "my-board.toml").write_text(text, "utf-8")
        program = replaced(
            shown("instruments.md", "text", "pymeasure_keithley2400"),
            ("from pymeasure", "from tests.bench_files import SOCKET\nfrom pymeasure"),
            ('Keithley2400("GPIB::24")', f'Keithley2400("{bench.resources["clamp"]}", **SOCKET)'),
            ("rule, 100)", "rule, 30)"),
        )
        monkeypatch.chdir(tmp_path)
        exec(compile(program, "instruments.md", "exec"), {})
        assert outputs_off(bench)
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 30
    assert losses[-1] < 0.01 * losses[0]
