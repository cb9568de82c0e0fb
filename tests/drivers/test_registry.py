"""Drivers by name, and what is connected."""

import warnings

import pytest
import pyvisa

from hilcl.drivers import discovery
from hilcl.drivers.daq6510 import Daq6510
from hilcl.drivers.discovery import Found, find_resources, identify
from hilcl.drivers.keithley2400 import Keithley2400
from hilcl.drivers.registry import open_source, open_voltmeter, source_driver, voltmeter_driver
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.smu import SmuSettings
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import InputError
from hilcl.sim_backend.emulation.potboard import EmulatedPotBoard, PotModel
from hilcl.sim_backend.emulation.potboard_wire import PotBoardServer
from tests.drivers.support.scripts import ALL_OFF, IDN, daq6510_open, k2400_open
from tests.drivers.support.wire import Hear, Wire
from tests.drivers.test_visa_session import nobody


def test_drivers_are_opened_by_the_names_of_the_experiment_file() -> None:
    with (
        Wire([*k2400_open(), *ALL_OFF["keithley2400"]]) as wire,
        open_source("keithley2400", "smu1", wire.resource, SmuSettings(5.0, 0.01), serial="1234567") as smu,
    ):
        assert isinstance(smu, Keithley2400)
        assert smu.identity == IDN["keithley2400"]
    with (
        Wire(daq6510_open()) as wire,
        open_voltmeter("DAQ6510", "dmm", wire.resource, ["101", "102"], ScannerSettings(delay=0.01)) as meter,
    ):
        assert isinstance(meter, Daq6510)


def test_what_cannot_be_opened_leaves_nothing_open() -> None:
    with pytest.raises(InputError, match="nothing answers"):
        open_source("keithley2400", "smu1", nobody(), SmuSettings(5.0, 0.01))


def test_an_unknown_driver_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no source driver 'keithley2401', only .*did you mean 'keithley24"):
        source_driver("keithley2401")
    with pytest.raises(InputError, match=r"no voltmeter driver 'xyz', only 'daq6510', '34970a'$"):
        voltmeter_driver("xyz")


def test_resources_are_listed_with_their_answers_and_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_serial_ports", lambda: {"ASRL/dev/ttyNONE::INSTR": "a port"})
    monkeypatch.setattr(discovery, "_listed", lambda backend: ("ASRL/dev/ttyNONE::INSTR",))
    closed = nobody()
    with Wire([Hear("*IDN?", IDN["daq6510"])]) as speaking, Wire([Hear("*IDN?")]) as silent:
        found = find_resources(also=[speaking.resource, silent.resource, closed], timeout=0.3)
    by_name = {item.resource: item for item in found}
    assert [item.resource for item in found] == sorted(by_name)
    assert by_name[speaking.resource].identity == IDN["daq6510"]
    assert by_name[speaking.resource].problem is None
    assert "gave no answer in time" in str(by_name[silent.resource].problem)
    assert "nothing answers" in str(by_name[closed].problem)
    assert by_name["ASRL/dev/ttyNONE::INSTR"].note == "a port"
    assert by_name["ASRL/dev/ttyNONE::INSTR"].identity is None


def test_serial_ports_can_be_listed_without_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_serial_ports", lambda: {"ASRL/dev/ttyNONE::INSTR": "a port"})
    monkeypatch.setattr(discovery, "_listed", lambda backend: ())
    (found,) = find_resources(ask_serial=False)
    assert found.problem == "not asked"


def test_what_the_library_lists_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def __init__(self, backend: str) -> None:
            assert backend == "@py"

        def list_resources(self, query: str) -> tuple[str, ...]:
            # As pyvisa-py does, which would look around on the network here.
            warnings.warn("install something to look further", UserWarning, stacklevel=2)
            assert query == "?*::INSTR"
            return ("ASRL/dev/ttyNONE::INSTR", "nonsense::INSTR")

    monkeypatch.setattr(pyvisa, "ResourceManager", Manager)
    monkeypatch.setattr(discovery, "_serial_ports", dict)
    monkeypatch.setattr(
        discovery, "identify", lambda resource, options: Found(resource, f"asked for {options.timeout} s")
    )
    assert find_resources(timeout=0.1) == [
        Found("ASRL/dev/ttyNONE::INSTR", "asked for 0.1 s"),
        Found("nonsense::INSTR", "asked for 0.1 s"),
    ]


def test_a_missing_back_end_is_named() -> None:
    with pytest.raises(InputError, match="back end '@nosuch' cannot be used"):
        find_resources("@nosuch")


def test_what_is_no_resource_is_told_not_raised() -> None:
    found = identify("nonsense", LinkOptions())
    assert found.identity is None
    assert "nonsense" in str(found.problem)


def test_a_pot_board_on_a_serial_port_says_who_it_is() -> None:
    board = EmulatedPotBoard([PotModel("AD5206", 6, highest=255, power_on=128, safe=255)], lambda codes: None)
    with PotBoardServer(board) as server:
        found = identify(f"ASRL{server.port}::INSTR", LinkOptions(timeout=5))
    assert found.identity == board.identity
    assert found.problem is None
