"""Instruments that another program left on: switched off without having been opened."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from hilcl.drivers.keithley2400 import Keithley2400
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.drivers.potboard_protocol import Reason
from hilcl.drivers.potboard_safety import latch_safe
from hilcl.drivers.registry import open_source, source_driver
from hilcl.drivers.smu import SmuSettings
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.port import OPEN, Applied, Seen
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard, PotFaults, PotModel, SourceModel, SwitchedPort
from hilcl.sim_backend.emulation.potboard_wire import PotBoardServer
from hilcl.sim_backend.emulation.server import serve
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_b2900 import SmuB2900
from tests.drivers.support.scripts import IDN, greeting, scpi
from tests.drivers.support.wire import Hear, Wire
from tests.sim_backend.emulation.bench import ManualClock, Node

SETTINGS = SmuSettings(limit_volts=2.0, limit_amperes=1e-3)
MADE: dict[str, tuple[Callable[[list[Node]], EmulatedInstrument], tuple[str, ...]]] = {
    "keithley2400": (lambda nodes: Smu2400(nodes[0], ManualClock()), ("1",)),
    "keithley2450": (lambda nodes: Smu2450(nodes[0], ManualClock()), ("1",)),
    "keithley2600b": (lambda nodes: Smu2600B((nodes[0], nodes[1]), ManualClock()), ("a", "b")),
    "keysight-b2900": (lambda nodes: SmuB2900((nodes[0], nodes[1]), ManualClock()), ("1", "2")),
}


def distinct(applied: list[Applied]) -> list[float]:
    """Volts that were at a node, repetitions left out."""
    volts = [each.level for each in applied if each.kind == "voltage"]
    return [now for before, now in zip([math.nan, *volts], volts, strict=False) if now != before]


@pytest.mark.parametrize("ramp", [False, True], ids=["at once", "ramped"])
@pytest.mark.parametrize("driver", MADE)
def test_every_family_is_switched_off(driver: str, ramp: bool) -> None:
    make, channels = MADE[driver]
    nodes = [Node(), Node()]
    instrument = make(nodes)
    with serve({"smu": instrument}) as running:
        left = open_source(driver, "smu", running.resources["smu"], SETTINGS, channels=channels)
        # The last channel floats where there are two.
        left.drive(np.array([1.0, math.nan])[: len(channels)])
        left.abandon()
        assert instrument.outputs_on == (True,) * len(channels)
        before = len(nodes[0].applied)
        smu = source_driver(driver)("smu", running.resources["smu"], SETTINGS, channels=channels)
        smu.force_off(ramp=ramp)
        smu.abandon()
        assert instrument.outputs_on == (False,) * len(channels)
        assert "," in smu.identity
    assert nodes[0].applied[-1] == OPEN
    passed = [volts for volts in distinct(nodes[0].applied[before:]) if 0 < volts < 1]
    assert passed == ([0.75, 0.5, 0.25] if ramp else [])


def test_off_comes_before_any_question() -> None:
    with Wire(
        [
            scpi([":OUTP OFF"], (":OUTP?", "0")),
            Hear("*IDN?", IDN["keithley2400"]),
            Hear(":SYST:ERR?", '0,"No error"'),
            scpi([":OUTP:SMOD HIMP"]),
        ]
    ) as wire:
        smu = Keithley2400("smu1", wire.resource, SETTINGS, channels=["1"])
        smu.force_off()
        smu.abandon()


def test_what_hinders_the_ramp_does_not_hinder_switching_off() -> None:
    with Wire(
        [*greeting("keithley2400"), Hear(":OUTP?;:SOUR:FUNC?;:SOUR:VOLT?;:SYST:ERR?", "1;VO", then="mid-line")],
        [
            scpi([":OUTP OFF"], (":OUTP?", "0")),
            Hear("*IDN?", IDN["keithley2400"]),
            Hear(":SYST:ERR?", '0,"No error"'),
            scpi([":OUTP:SMOD HIMP"]),
        ],
    ) as wire:
        smu = Keithley2400("smu1", wire.resource, SETTINGS, channels=["1"])
        smu.force_off(ramp=True)
        smu.abandon()


def test_another_instrument_is_off_but_not_taken_for_the_one_of_the_file() -> None:
    node = Node()
    instrument = Smu2450(node, ManualClock(), serial="1")
    with serve({"smu": instrument}) as running:
        left = open_source("keithley2450", "smu", running.resources["smu"], SETTINGS)
        left.drive(np.array([1.0]))
        left.abandon()
        smu = source_driver("keithley2450")(
            "smu", running.resources["smu"], SETTINGS, serial="2", channels=["1"], link=LinkOptions(retries=0)
        )
        with pytest.raises(BoardError, match="has serial number 1, but 2 is expected"):
            smu.force_off()
        smu.abandon()
    assert instrument.outputs_on == (False,)


class Terminal:
    def __init__(self) -> None:
        self.applied = OPEN

    def apply(self, applied: Applied) -> None:
        self.applied = applied

    def see(self) -> Seen:
        return Seen(0.0, 0.0, limited=False)


def board_on(terminal: Terminal, clamped: Terminal, faults: PotFaults | None = None) -> EmulatedPotBoard:
    return EmulatedPotBoard(
        [PotModel("AD5144", 3, 255, 128, 20), PotModel("AD5220", 200, 127, 64, 127, readback=False)],
        lambda codes: None,
        sources=[SourceModel(-5.0, 5.0, switch=0)],
        ports=[terminal],
        switches={1: SwitchedPort(clamped)},
        identity="lab,emulated pot board,7,1.0",
        faults=faults or PotFaults(),
    )


PATIENT = PotBoardOptions(turnaround=20.0, boot_time=0.0, watchdog=None)


def test_a_pot_board_is_latched_safe_and_can_be_opened_again() -> None:
    terminal, clamped = Terminal(), Terminal()
    emulated = board_on(terminal, clamped)
    with PotBoardServer(emulated) as server:
        left = PotBoard("pots", server.port, PATIENT).open()
        left.write(np.full(203, 100))
        left.sources().drive(np.array([1.0]))
        left.switches().set(np.array([True]))
        assert emulated.outputs_on == (True, True)
        # It goes without a word, as a killed program does.
        left.abandon()
        assert latch_safe("pots", server.port, PATIENT, "7") == "lab,emulated pot board,7,1.0"
        assert emulated.outputs_on == (False, False)
        assert emulated.codes.tolist() == [20] * 3 + [127] * 200
        with PotBoard("pots", server.port, PATIENT) as again:
            assert emulated.latched == Reason.NONE
            again.write(np.full(203, 100))


def test_another_pot_board_is_safe_but_not_taken_for_the_one_of_the_file() -> None:
    emulated = board_on(Terminal(), Terminal())
    with PotBoardServer(emulated) as server:
        with pytest.raises(BoardError, match="serial number 8 is expected"):
            latch_safe("pots", server.port, PATIENT, "8")
        assert emulated.codes[:3].tolist() == [20] * 3


def test_a_pot_that_does_not_go_to_its_safe_code_is_named() -> None:
    faults = PotFaults()
    emulated = board_on(Terminal(), Terminal(), faults)
    faults.stuck[1] = 7
    with (
        PotBoardServer(emulated) as server,
        pytest.raises(BoardError, match="pot 1 holds code 7 and not its safe"),
    ):
        latch_safe("pots", server.port, PATIENT)


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"/dev/nowhere\) cannot be opened"):
        latch_safe("pots", "/dev/nowhere", PATIENT)
