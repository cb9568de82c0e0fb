"""What a plan lets happen, and when; what wires make of it is seen in tests/end_to_end/test_faults.py."""

from collections.abc import Sequence

import pytest

from hilcl.errors import ExperimentError
from hilcl.faults_section import KINDS
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.faults import (
    BOARD_FAULTS,
    METER_FAULTS,
    SMU_FAULTS,
    Fault,
    FaultPlan,
    FaultyLine,
    Happened,
)
from hilcl.sim_backend.emulation.scpi import ScpiError
from tests.bench_files import DIVIDER_BENCH, prepared


class Echo:
    """An instrument that answers every line."""

    identity = "KEITHLEY INSTRUMENTS,MODEL 2450,1,1"
    outputs_on = (False,)

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.errors = 0

    def handle(self, line: str) -> str | None:
        self.heard.append(line)
        return line

    def refuse(self, error: ScpiError) -> None:
        self.errors += 1


def replies(fault: Fault, lines: Sequence[str], reply: bytes = b"+1.5E+00,2\n") -> list[tuple[bytes, float] | None]:
    """Bytes and delay of the reply to each line, None where nothing comes."""
    wire = FaultyLine("smu", FaultPlan([fault]), Echo(), possible=SMU_FAULTS)
    found: list[tuple[bytes, float] | None] = []
    for line in lines:
        delivery = None if wire.received(line) is None else wire.replied(reply)
        found.append(None if delivery is None else (delivery.data, delivery.after))
    return found


def test_every_class_can_happen_to_something() -> None:
    assert {*SMU_FAULTS, *METER_FAULTS, *BOARD_FAULTS, "stuck_relay"} == set(KINDS)


def test_a_fault_happens_once_at_its_message() -> None:
    plan = FaultPlan([Fault("lost", "smu", message=2)])
    plan.knows("smu", SMU_FAULTS)
    plan.knows("dmm", METER_FAULTS)
    assert [bool(plan.due("dmm")) for _ in range(4)] == [False] * 4
    assert [bool(plan.due("smu")) for _ in range(5)] == [False, False, True, False, False]
    assert plan.happened == [Happened("lost", "smu", -1, 2)]


def test_a_fault_happens_in_its_step_at_its_message_there() -> None:
    plan = FaultPlan([Fault("lost", "smu", step=1, message=1)])
    plan.knows("smu", SMU_FAULTS)
    seen = []
    for _ in range(3):
        plan.next_step()
        seen.append([bool(plan.due("smu")) for _ in range(3)])
    assert seen == [[False] * 3, [False, True, False], [False] * 3]


def test_random_faults_are_those_of_their_seed_and_as_many_as_their_rate() -> None:
    def happened(seed: int) -> list[Happened]:
        plan = FaultPlan(rate=0.2, kinds=["lost", "half"], seed=seed)
        plan.knows("smu", SMU_FAULTS)
        plan.knows("dmm", METER_FAULTS)
        for _ in range(1000):
            plan.next_step()
            for _ in range(5):
                plan.due("smu")
                plan.due("dmm")
        return plan.happened

    first = happened(1)
    assert first == happened(1)
    assert first != happened(2)
    assert 150 < len(first) < 250
    assert {each.kind for each in first} == {"lost", "half"}
    assert {each.instrument for each in first} == {"smu", "dmm"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lost", None),
        ("dropped", None),
        ("delayed", (b"+1.5E+00,2\n", 0.3)),
        ("duplicated", (b"+1.5E+00,2\n" * 2, 0.0)),
        ("half", (b"+1.5E", 0.0)),
        ("garbled", (b"\x7f1.\x7fE+\x7f0,\x7f\n", 0.0)),
        ("reset", (b"", 0.0)),
        ("nan", (b"+9.910000E+37,2\n", 0.0)),
        ("overflow", (b"+9.900000E+37,2\n", 0.0)),
        ("glitch", (b"+1.800000000E+00,2\n", 0.0)),
    ],
)
def test_what_becomes_of_a_reply(kind: str, expected: tuple[bytes, float] | None) -> None:
    whole = (b"+1.5E+00,2\n", 0.0)
    fault = Fault(kind, "smu", message=1)  # type: ignore[arg-type]
    assert replies(fault, [":READ?"] * 3) == [whole, expected, whole]


def test_a_reading_fault_waits_for_a_reading() -> None:
    found = replies(Fault("nan", "smu"), [":OUTP?", ":READ?", ":READ?"])
    assert [each is not None and each[0].startswith(b"+9.91") for each in found] == [False, True, False]


def test_a_dead_instrument_hears_nothing_until_everything_works_again() -> None:
    plan, echo = FaultPlan([Fault("dead", "smu", seconds=1e6)]), Echo()
    wire = FaultyLine("smu", plan, echo, possible=SMU_FAULTS)
    assert [wire.received("*IDN?"), wire.received("*IDN?")] == [None, None]
    plan.clear()
    assert wire.received("*IDN?") == "*IDN?"


def test_a_power_cycle_loses_the_settings_and_an_overflow_fills_the_queue() -> None:
    plan, echo = FaultPlan([Fault("brown_out", "smu"), Fault("error_overflow", "smu", message=1)]), Echo()
    wire = FaultyLine("smu", plan, echo, possible=SMU_FAULTS)
    wire.received("a")
    assert echo.heard == ["*RST", "*CLS"]
    wire.received("b")
    assert echo.errors >= 100


def test_the_file_plans_faults() -> None:
    text = DIVIDER_BENCH + '[simulation.faults]\nrate = 0.5\nplanned = [{ kind = "glitch", instrument = "pots" }]\n'
    plan = EmulatedBench(prepared(text)).plan
    assert plan is not None
    assert EmulatedBench(prepared(DIVIDER_BENCH)).plan is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('planned = [{ kind = "lost", instrument = "smu9" }]', "the instrument 'smu9', but those with a wire are"),
        ('planned = [{ kind = "gremlins", instrument = "pots" }]', "'gremlins' is no fault: choose among delayed"),
        ('kinds = ["lost"]', "kinds needs a rate"),
        ("rate = 2.0", "rate"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(section: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        EmulatedBench(prepared(f"{DIVIDER_BENCH}[simulation.faults]\n{section}\n"))
