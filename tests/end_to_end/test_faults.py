"""Every class of faults on an emulated bench: the undisturbed codes, or stopped safe, named, and resumed to them."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hilcl.faults_section import FaultKind
from hilcl.preparation import Preparation
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.faults import BOARD_FAULTS, SMU_FAULTS, Fault, FaultPlan, Happened
from hilcl.sim_backend.fault_trials import Trial, opened, steps_on, trial, undisturbed
from hilcl.training import Checkpoint, Step
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

STOPS: tuple[FaultKind, ...] = ("slow", "brown_out", "wrong_serial", "error_overflow", "stuck_pot")
"""What is not put right by doing things again; a pot board tells that it has restarted."""

RELAYS = replaced(
    DIVIDER_BENCH,
    ('driver = "keithley2450"', 'driver = "keithley2450"\nfree_mode = "relay"'),
    ("meters = { pots = [0, 1, 2] }", "meters = { pots = [0, 1, 2] }\nswitches = { pots = { 0 = 1 } }"),
)


BENCH16 = "\n".join(
    line
    for line in (EXAMPLES / "bench16.toml").read_text("utf-8").splitlines()
    if not line.startswith("meters = { bits")
)
ONE_METER = replaced(DIVIDER_BENCH, ("meters = { pots = [0, 1, 2] }", "meters = { pots = [1] }"))
HIGH_IMPEDANCE = replaced(DIVIDER_BENCH, ('driver = "keithley2450"', 'driver = "keithley2450"\nfree_mode = "himp"'))


def quick(text: str) -> str:
    """The same bench with short time-outs, five epochs and three readings each."""
    lines = []
    for line in text.splitlines():
        if line == 'driver = "potboard"':
            lines += ['turnaround = "0.1 s"', 'boot_time = "2 s"']
        elif line.startswith("compliance =") or line == 'driver = "34970a"':
            lines.append('timeout = "0.4 s"')
        key = line.split(" = ")[0]
        lines.append({"averages": "averages = 3", "epochs": "epochs = 5"}.get(key, line))
    return "\n".join(lines) + "\n"


@cache
def bench(text: str) -> tuple[Preparation, list[list[int]], dict[str, int]]:
    preparation = prepared(quick(text))
    return preparation, *undisturbed(preparation)


def tried(text: str, kind: FaultKind, instrument: str, part: float = 0.7, seconds: float = 0.3) -> Trial:
    """What a fault does that comes when that part of the run's messages is over."""
    preparation, codes, messages = bench(text)
    assert len({tuple(each) for each in codes}) > 1
    fault = Fault(kind, instrument, message=round(part * messages[instrument]), seconds=seconds)
    return trial(preparation, fault, codes)


def check(done: Trial) -> None:
    """A fault ends one of two ways, and is recorded or named."""
    assert done.passed, done
    assert done.outputs_on == ()
    stops = done.fault.kind in STOPS and (done.fault.kind, done.fault.instrument) != ("brown_out", "pots")
    assert done.verdict == ("stopped" if stops else "unharmed"), done.sentence
    quiet = done.fault.kind in {"clock_jump", "delayed", "duplicated", "pots_reset", "noise"}
    assert quiet or done.sentence or done.events
    assert done.sentence.count("\n") == 0


@pytest.mark.parametrize("kind", [kind for kind in SMU_FAULTS if kind not in {"slow", "output_open", "output_closed"}])
def test_faults_of_a_source(kind: FaultKind) -> None:
    done = tried(DIVIDER_BENCH, kind, "clamp" if kind != "brown_out" else "drive", seconds=0.2)
    check(done)
    if done.sentence:
        assert done.fault.instrument in done.sentence


@pytest.mark.parametrize("kind", [kind for kind in BOARD_FAULTS if kind != "slow"])
def test_faults_of_a_pot_board(kind: FaultKind) -> None:
    done = tried(DIVIDER_BENCH, kind, "pots", seconds=0.2)
    check(done)
    if done.sentence:
        assert "pots" in done.sentence


@pytest.mark.parametrize("kind", ["glitch", "nan", "overflow", "reset", "error_overflow"])
def test_faults_of_a_scanner(kind: FaultKind) -> None:
    check(tried(GRID_BENCH, kind, "scanner"))


@pytest.mark.parametrize("kind", ["nan", "overflow", "compliance"])
@pytest.mark.parametrize("instrument", ["left", "right"])
def test_spoilt_readings_of_two_channels_at_once_are_taken_again(kind: FaultKind, instrument: str) -> None:
    done = tried(BENCH16, kind, instrument)
    check(done)
    assert len(done.events) == 1


@pytest.mark.parametrize("instrument", ["drive", "clamp"])
def test_a_b2900_and_a_2400_that_lose_their_settings_are_noticed(instrument: str) -> None:
    done = tried(GRID_BENCH, "brown_out", instrument)
    check(done)
    assert instrument in done.sentence


def test_an_instrument_that_stays_slow_is_stopped_and_switched_off() -> None:
    done = tried(DIVIDER_BENCH, "slow", "drive", seconds=0.6)
    assert done.verdict == "stopped", done
    assert "drive" in done.sentence
    assert done.outputs_on == ()


def test_an_instrument_that_stays_dead_is_named_and_the_others_are_off() -> None:
    done = tried(DIVIDER_BENCH, "dead", "clamp", seconds=1e6)
    assert done.verdict == "stopped", done
    assert done.outputs_on == ("clamp",)
    assert "clamp" in done.sentence
    assert "could not be verified to be off: switch its output off at its front panel" in done.sentence


@pytest.mark.parametrize("kind", ["lost", "dropped", "half", "dead"])
@pytest.mark.parametrize("instrument", ["clamp", "pots"])
def test_a_time_out_passes_on_the_clock_of_the_bench_alone(kind: FaultKind, instrument: str) -> None:
    hours = replaced(
        DIVIDER_BENCH,
        ('driver = "potboard"', 'driver = "potboard"\nturnaround = "60 s"\nwatchdog = "off"'),
        ('driver = "keithley2450"', 'driver = "keithley2450"\ntimeout = "60 s"'),
        ("epochs = 25", "epochs = 3"),
    )
    preparation = prepared(hours)
    plan = FaultPlan([Fault(kind, instrument, step=1, message=1, seconds=50.0)])
    with EmulatedBench(preparation, plan=plan) as bench, opened(preparation, bench) as board:
        before = bench.clock.now()
        assert len(list(steps_on(board, preparation))) == 3
        assert [each.kind for each in plan.happened] == [kind]
        assert bench.clock.now() - before > 60


def test_a_run_taken_up_on_another_bench_sees_the_faults_it_would_have_seen() -> None:
    noisy = "\n[simulation]\nseed = 5\nmeters = { noise = '1 mV' }\n"
    faults = (
        "[simulation.faults]\nseed = 3\nrate = 0.6\n"
        'kinds = ["lost", "half", "garbled", "nan", "overflow", "compliance", "glitch", "lost_bytes"]\n'
    )
    preparation = prepared(quick(DIVIDER_BENCH).replace("epochs = 5", "epochs = 12") + noisy + faults)

    def sitting(resume: Checkpoint | None = None) -> tuple[list[Step], dict[int, set[Happened]]]:
        with EmulatedBench(preparation) as bench, opened(preparation, bench) as board:
            steps = list(steps_on(board, preparation, resume))
            assert bench.plan is not None
            happened = bench.plan.happened
        return steps, {step: {each for each in happened if each.step == step} for step in range(20)}

    steps, faults_seen = sitting()
    assert sum(map(len, faults_seen.values())) > 4
    for cut in (2, 7):
        # As the store gives it back.
        stored = replace(steps[cut].checkpoint, board=json.loads(json.dumps(steps[cut].checkpoint.board)))
        begins = stored.board["faults"]["plan"]["step"] + 1
        again, seen = sitting(stored)
        assert [each.conductances.tolist() for each in again] == [
            each.conductances.tolist() for each in steps[cut + 1 :]
        ]
        assert [each.loss for each in again] == [each.loss for each in steps[cut + 1 :]]
        assert {step: seen[step] for step in range(begins, 20)} == {
            step: faults_seen[step] for step in range(begins, 20)
        }


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_relay_that_sticks_is_named(part: float) -> None:
    done = tried(RELAYS, "stuck_relay", "pots", part)
    assert done.verdict == "stopped", done
    assert done.outputs_on == ()
    assert "relay" in done.sentence


@pytest.mark.parametrize(
    ("text", "kind", "instrument"),
    [
        (DIVIDER_BENCH, "output_open", "drive"),
        (DIVIDER_BENCH, "output_open", "clamp"),
        (ONE_METER, "output_open", "drive"),
        (RELAYS, "output_open", "clamp"),
        (HIGH_IMPEDANCE, "output_closed", "clamp"),
    ],
)
def test_an_output_relay_that_sticks_is_named(text: str, kind: FaultKind, instrument: str) -> None:
    done = tried(text, kind, instrument)
    assert done.verdict == "stopped", done
    assert done.outputs_on == ()
    assert "check the" in done.sentence
    assert "relay" in done.sentence


@pytest.mark.parametrize("text", [DIVIDER_BENCH, RELAYS])
def test_an_output_relay_that_need_not_open_may_stick_closed(text: str) -> None:
    done = tried(text, "output_closed", "clamp")
    assert (done.verdict, done.outputs_on) == ("unharmed", ()), done
