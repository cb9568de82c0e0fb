"""Whatever is sent, an instrument answers or queues an error; it never fails."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.daq6510 import Daq6510
from hilcl.sim_backend.emulation.dmm_34970a import Dmm34970A
from hilcl.sim_backend.emulation.scpi import forms, pattern_keywords
from hilcl.sim_backend.emulation.scpi_instrument import ScpiInstrument
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_b2900 import SmuB2900
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, divider

MAKERS: dict[str, Callable[[], ScpiInstrument]] = {
    "2400": lambda: Smu2400(divider(), ManualClock()),
    "2450": lambda: Smu2450(divider(), ManualClock()),
    "B2912A": lambda: SmuB2900((Node(), divider()), ManualClock()),
    "DAQ6510": lambda: Daq6510({101: divider()}, ManualClock()),
    "34970A": lambda: Dmm34970A({101: divider()}, ManualClock()),
}

ARGUMENTS = st.lists(
    st.sampled_from(
        [
            *("0", "1", "2", "3", "-1", "1E-3", "0.5", "100", "1E9", "-1E300", "#HFF", "10 V", "5 mA", "3 S", "7 FOO"),
            *("ON", "OFF", "MIN", "MAX", "DEF", "AUTO", "ASC", "REAL", "LIST", "SWE", "BUS", "TIM", "HIMP", "GUAR"),
            *("VOLT", "CURR", "'VOLT'", '"CURR:DC"', "'RES'", "'defbuffer1'", "'none'", "READ", "SOUR", "CHAN"),
            *("(@101)", "(@1,2)", "(@101:120)", "(@)", "(@999)", "'", ",", ""),
        ]
    ),
    max_size=4,
)


def lines_for(commands: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Messages out of the instrument's own headers with arguments that may or may not fit."""

    @st.composite
    def message(draw: st.DrawFn) -> str:
        units = []
        for _ in range(draw(st.integers(1, 4))):
            header = ""
            for keyword in pattern_keywords(draw(st.sampled_from(commands))):
                header += ":" + draw(st.sampled_from(forms(keyword.mnemonic)))
                header += str(draw(st.integers(0, 3))) if keyword.suffix else ""
            header = header.removeprefix(":") if header.startswith(":*") else header
            units.append(header + draw(st.sampled_from(["?", "", " "])) + " " + ",".join(draw(ARGUMENTS)))
        return ";".join(units)

    return message()


@pytest.mark.parametrize("name", MAKERS)
def test_own_commands_with_any_arguments(name: str) -> None:
    commands = MAKERS[name]().commands

    @given(st.lists(lines_for(commands), max_size=12))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def run(lines: list[str]) -> None:
        instrument = MAKERS[name]()
        for line in lines:
            instrument.handle(line)
        assert instrument.handle("*CLS") is None
        assert ask(instrument, "*ESR?;*OPC?") == "0;1"
        assert ask(instrument, "*IDN?") == instrument.identity

    run()


@pytest.mark.parametrize("name", MAKERS)
@given(lines=st.lists(st.text(max_size=60), max_size=10))
def test_any_text(name: str, lines: list[str]) -> None:
    instrument = MAKERS[name]()
    for line in lines:
        instrument.handle(line)
    assert ask(instrument, "*IDN?") == instrument.identity


WORDS = st.sampled_from(
    [
        *("smua", "smub", ".source", ".measure", ".levelv", ".limiti", ".output", ".iv()", ".v(smua.nvbuffer1)", " = "),
        *("print(", ")", "1", "0", "nil", "{}", "'x'", ".trigger", ".initiate()", ".source.listv({1,2})", "\n", " "),
        *("reset()", "delay(1)", "errorqueue.next()", "for i=1,3 do ", " end", "makebuffer(", "printbuffer(1,2,"),
        *("smua.nvbuffer1", "status.operation.sweeping.condition", "*trg", "loadscript a", "endscript", "format.data"),
    ]
)


@given(st.lists(st.lists(WORDS, max_size=8).map("".join), max_size=10))
@settings(max_examples=100, deadline=None)
def test_any_tsp(lines: list[str]) -> None:
    instrument = Smu2600B((Node(), divider()), ManualClock(), instruction_limit=300_000)
    for line in lines:
        instrument.handle(line)
    instrument.handle("endscript")
    assert ask(instrument, "*IDN?") == instrument.identity
