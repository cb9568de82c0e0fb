import struct

import pytest

from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_2600b_channel import MODELS
from hilcl.sim_backend.emulation.source_measure import Analogue
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, divider, tell


def smu(digits: int | None = None) -> tuple[Smu2600B, Node, Node]:
    a, b = Node(1000.0), divider()
    return Smu2600B((a, b), ManualClock(), analogue=Analogue(digits=digits), instruction_limit=300_000), a, b


def values(reply: str) -> list[float]:
    return [float(field) for field in reply.replace(",", "\t").split("\t")]


def error(instrument: Smu2600B) -> int:
    return int(values(ask(instrument, "print((errorqueue.next()))"))[0])


def test_identity() -> None:
    instrument, _, _ = smu()
    assert ask(instrument, "*IDN?") == "Keithley Instruments Inc., Model 2602B, 4200001, 3.3.5"
    assert ask(instrument, "print(localnode.model, localnode.serialno)") == "2602B\t4200001"


def test_power_on_is_off_and_normal() -> None:
    instrument, _, b = smu()
    assert instrument.outputs_on == (False, False)
    assert instrument.applied == (Applied("voltage", 0.0, 1e-3), Applied("voltage", 0.0, 1e-3))
    assert b.see().volts == 2.0


@pytest.mark.parametrize(
    ("commands", "applied", "volts"),
    [
        ("smub.source.offlimiti = 1e-4", Applied("voltage", 0.0, 1e-4), 2.45),
        ("smub.source.offfunc = smub.OUTPUT_DCAMPS", Applied("current", 0.0, 40.0), 2.5),
        ("smub.source.offmode = smub.OUTPUT_HIGH_Z", OPEN, 2.5),
        ("smub.source.output = smub.OUTPUT_HIGH_Z", OPEN, 2.5),
        ("smub.source.limiti = 0.01 smub.source.offmode = smub.OUTPUT_ZERO", Applied("voltage", 0.0, 0.01), 0.0),
    ],
)
def test_output_off_states(commands: str, applied: Applied, volts: float) -> None:
    instrument, _, b = smu()
    tell(instrument, [commands])
    assert instrument.applied[1] == applied
    assert b.see().volts == pytest.approx(volts)


def test_source_and_measure() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.levelv = 1.5", "smua.source.output = smua.OUTPUT_ON"])
    assert values(ask(instrument, "print(smua.measure.iv())")) == [1.5e-3, 1.5]
    assert values(ask(instrument, "print(smua.measure.r(), smua.measure.p())")) == pytest.approx([1000.0, 2.25e-3])


def test_compliance_reaches_the_status_register() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.limiti = 1e-4 smua.source.levelv = 1 smua.source.output = 1"])
    register = "status.measurement.instrument.smua.condition"
    assert values(ask(instrument, f"print(smua.measure.v(), {register})")) == [pytest.approx(0.1), 2]
    assert ask(instrument, "print(smua.source.compliance, smub.source.compliance)") == "true\tfalse"
    tell(instrument, ["smub.source.func = 0 smub.source.limitv = 1 smub.source.output = 1"])
    assert values(ask(instrument, "print(smub.measure.v(), status.measurement.instrument.smub.condition)")) == [1.0, 1]


def test_no_current_sourced_lets_the_node_float_and_the_function_changes_with_the_output_on() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smub.source.output = 1", "smub.source.func = smub.OUTPUT_DCAMPS smub.source.leveli = 0"])
    assert instrument.outputs_on == (False, True)
    assert values(ask(instrument, "print(smub.measure.v())")) == [2.5]


def test_what_is_refused_leaves_the_old_value() -> None:
    instrument, _, _ = smu()
    for command, code in (
        ("smua.source.levelv = 41", 1102),
        ("smua.source.limiti = 1e-12", 1101),
        ("smua.source.limiti = 'x'", -104),
        ("smua.measure.nplc = 30", 1102),
        ("smua.source.rangev = 1 smua.source.levelv = 5", 5007),
        ("smua.source.levelx = 5", -286),
        ("smua.source.levelv = = 5", -285),
        ("smua.measure.v(3)", -104),
        ("*FOO", -113),
    ):
        tell(instrument, [command])
        assert error(instrument) == code, command
        assert error(instrument) == 0
    assert values(ask(instrument, "print(smua.source.levelv, smua.source.limiti)")) == [0.0, 0.1]


def test_ranges() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.levelv = 5"])
    assert values(ask(instrument, "print(smua.source.rangev, smua.source.autorangev)")) == [6.0, 1]
    tell(instrument, ["smua.measure.rangei = 2e-4"])
    assert values(ask(instrument, "print(smua.measure.rangei, smua.measure.autorangei)")) == [1e-3, 0]
    tell(instrument, ["smua.source.output = 1"])
    assert values(ask(instrument, "print(smua.measure.i(), status.measurement.instrument.smua.condition)")) == [
        9.91e37,
        128,
    ]


def test_buffers() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.levelv = 1 smua.source.output = 1 smua.measure.count = 3"])
    tell(instrument, ["smua.measure.iv(smua.nvbuffer1, smua.nvbuffer2)"])
    assert values(ask(instrument, "printbuffer(1, 3, smua.nvbuffer1, smua.nvbuffer2)")) == [1e-3, 1] * 3
    stamps = values(ask(instrument, "printbuffer(1, smua.nvbuffer1.n, smua.nvbuffer1.timestamps)"))
    assert stamps == pytest.approx([1 / 60, 2 / 60, 3 / 60])
    assert values(ask(instrument, "print(smua.nvbuffer1[2], smua.nvbuffer2.readings[3])")) == [1e-3, 1]
    tell(instrument, ["smua.measure.count = 1 smua.measure.i(smua.nvbuffer1)"])
    assert values(ask(instrument, "print(smua.nvbuffer1.n)")) == [1]
    tell(instrument, ["smua.nvbuffer1.appendmode = 1 smua.measure.i(smua.nvbuffer1)"])
    assert values(ask(instrument, "print(smua.nvbuffer1.n)")) == [2]
    tell(instrument, ["b = smua.makebuffer(1) b.appendmode = 1 smua.measure.i(b) smua.measure.i(b)"])
    assert error(instrument) == 1114


def test_binary_buffers() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.levelv = 1 smua.source.output = 1 smua.measure.count = 2"])
    tell(instrument, ["smua.measure.v(smua.nvbuffer1) format.data = format.REAL32"])
    reply = ask(instrument, "printbuffer(1, 2, smua.nvbuffer1.readings)")
    assert reply == "#0" + struct.pack("<2f", 1, 1).decode("latin-1")
    tell(instrument, ["format.data = format.REAL64 format.byteorder = format.BIGENDIAN"])
    assert ask(instrument, "printnumber(2.5)") == "#0" + struct.pack(">d", 2.5).decode("latin-1")


def test_scripts_are_loaded_line_by_line() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["loadscript twice", "function twice(x)", "return 2 * x", "end"])
    assert instrument.handle("endscript") is None
    assert ask(instrument, "twice.run() print(twice(21))") == "4.2000000000000000e+01"
    tell(instrument, ["loadandrunscript", "for index = 1, 2 do", "  print(index)", "end"])
    assert values(ask(instrument, "endscript").replace("\n", "\t")) == [1, 2]
    tell(instrument, ["loadandrunscript", "x = = 2", "endscript"])
    assert error(instrument) == -285


def test_factory_sweep() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["SweepVLinMeasureI(smua, 0, 1, 0.01, 5)"])
    assert values(ask(instrument, "printbuffer(1, 5, smua.nvbuffer1)")) == pytest.approx(
        [0, 2.5e-4, 5e-4, 7.5e-4, 1e-3]
    )
    assert instrument.outputs_on == (False, False)


def test_trigger_model_sweep_is_seen_running_and_holds_or_idles() -> None:
    instrument, a, _ = smu()
    tell(
        instrument,
        [
            "smua.trigger.source.listv({1, 2, 3}) smua.trigger.source.action = smua.ENABLE",
            "smua.trigger.measure.iv(smua.nvbuffer1, smua.nvbuffer2) smua.trigger.measure.action = smua.ENABLE",
            "smua.trigger.count = 3 smua.trigger.arm.stimulus = trigger.EVENT_ID",
            "smua.trigger.endpulse.action = smua.SOURCE_HOLD smua.source.output = 1",
            "smua.trigger.initiate()",
        ],
    )
    condition = "print(status.operation.sweeping.condition)"
    assert values(ask(instrument, condition)) == [0]
    tell(instrument, ["*trg"])
    assert values(ask(instrument, condition)) == [2]
    assert values(ask(instrument, condition)) == [0]
    assert values(ask(instrument, "printbuffer(1, 3, smua.nvbuffer2, smua.nvbuffer1)")) == [1, 1e-3, 2, 2e-3, 3, 3e-3]
    # The sweep has ended with SOURCE_IDLE, so the output is back at its programmed level.
    assert a.see().volts == 0.0
    tell(instrument, ["smua.trigger.endsweep.action = 1 smua.trigger.initiate()", "*TRG"])
    assert ask(instrument, "*OPC?") == "1"
    assert a.see().volts == 3.0


def test_an_endless_script_ends_with_an_error() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["while true do smua.measure.v() end"])
    assert error(instrument) == -286


def test_a_script_that_fills_the_memory_restarts_the_interpreter() -> None:
    instrument = Smu2600B((Node(), Node()), ManualClock(), instruction_limit=100_000_000)
    tell(instrument, ["t = {} while true do t[#t + 1] = string.rep('y', 1e5) .. #t end"])
    assert error(instrument) == -286
    assert ask(instrument, "print(t, type(smua.measure.v))") == "nil\tfunction"


def test_reset_and_clear() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["smua.source.levelv = 1 smua.source.output = 1", "smua.source.levelv = 99", "reset()"])
    assert instrument.outputs_on == (False, False)
    assert values(ask(instrument, "print(errorqueue.count)")) == [1]
    tell(instrument, ["*CLS"])
    assert values(ask(instrument, "print(errorqueue.count)")) == [0]
    tell(instrument, ["smua.source.output = 1", "*RST"])
    assert instrument.outputs_on == (False, False)


def test_printed_digits() -> None:
    instrument, _, _ = smu(digits=6)
    assert ask(instrument, "print(1/3)") == "3.33333e-01"
    tell(instrument, ["format.asciiprecision = 10"])
    assert ask(instrument, "print(1/3)") == "3.333333333e-01"
    exact, _, _ = smu()
    assert float(ask(exact, "print(1/3)")) == 1 / 3


def test_what_scripts_touch_besides() -> None:
    instrument, _, _ = smu()
    tell(
        instrument,
        [
            "display.clear() display.setcursor(1, 1) display.settext('hello') display.screen = display.SMUA",
            "display.smua.measure.func = display.MEASURE_DCAMPS beeper.beep(0.1, 2400) beeper.enable = 0",
            "timer.reset() delay(0.5) waitcomplete() smua.savebuffer(smua.nvbuffer1) opc() errorqueue.clear()",
        ],
    )
    assert values(ask(instrument, "print(timer.measure.t(), errorqueue.count)")) == [0.5, 0]
    assert ask(instrument, "*OPC?") == "1"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_starts(name: str) -> None:
    model = MODELS[name]
    instrument = Smu2600B(tuple(Node() for _ in range(model.channels)), ManualClock(), model=name)
    assert ask(instrument, "print(localnode.model, smub ~= nil)") == f"{name}\t{str(model.channels == 2).lower()}"
    with pytest.raises(ValueError, match="channels"):
        Smu2600B((), ManualClock(), model=name)


@pytest.mark.parametrize("line", ["nothing()", "a()"])
def test_a_loaded_script_that_fails_is_an_error_of_the_queue(line: str) -> None:
    instrument, _, _ = smu()
    tell(instrument, ["loadscript a", line, "endscript", "a()"])
    assert error(instrument) == -286
    assert error(instrument) == 0
    assert values(ask(instrument, "print(1)")) == [1.0]


def test_overlapped_measurements_run_at_the_same_time() -> None:
    clock = ManualClock()
    instrument = Smu2600B((divider(), divider()), clock, line_frequency=50)
    tell(instrument, ["smua.measure.nplc = 1 smub.measure.nplc = 2 smua.source.output = 1 smub.source.output = 1"])
    begun = clock.now()
    tell(instrument, ["smua.measure.overlappediv(smua.nvbuffer1, smua.nvbuffer2)"])
    tell(instrument, ["smub.measure.overlappediv(smub.nvbuffer1, smub.nvbuffer2)"])
    assert clock.now() == begun
    tell(instrument, ["waitcomplete()"])
    assert clock.now() - begun == pytest.approx(0.04)
    tell(instrument, ["waitcomplete()"])
    assert clock.now() - begun == pytest.approx(0.04)
    assert values(ask(instrument, "print(smua.nvbuffer2.readings[1], smub.nvbuffer1.n)"))[1] == 1


def test_an_overlapped_measurement_needs_its_buffers() -> None:
    instrument = Smu2600B((divider(), divider()), ManualClock())
    instrument.handle("smua.measure.overlappediv(smua.nvbuffer1)")
    assert error(instrument) == -109
