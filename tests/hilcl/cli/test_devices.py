"""``hilcl devices`` against scripted instruments on TCP; what VISA itself would list is stood in for."""

import pytest

from hilcl.cli.main import main
from hilcl.drivers import discovery
from tests.drivers.support.wire import Hear, Wire

IDENTITY = "KEITHLEY INSTRUMENTS,MODEL 2450,04312345,1.7.12b"


@pytest.fixture(autouse=True)
def nothing_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real listing would look around on the network."""
    monkeypatch.setattr(discovery, "_listed", lambda backend: ())
    monkeypatch.setattr(discovery, "_serial_ports", dict)


def test_an_instrument_is_named_with_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with Wire([Hear("*IDN?", IDENTITY)]) as wire:
        assert main(["devices", "--also", wire.resource]) == 0
    assert capsys.readouterr().out == f"{wire.resource}: {IDENTITY}\n"


def test_nothing_found_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    assert "--also TCPIP::ADDRESS::PORT::SOCKET" in capsys.readouterr().out


def test_a_port_that_is_not_asked_is_still_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(discovery, "_serial_ports", lambda: {"ASRL/dev/ttyNONE::INSTR": "USB serial"})
    assert main(["devices", "--no-ask-serial"]) == 0
    assert capsys.readouterr().out == "ASRL/dev/ttyNONE::INSTR [USB serial]: not asked\n"


def test_a_missing_back_end_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    assert main(["devices", "--visa", "@nosuch", "--no-ask-serial"]) == 2
    assert "'@nosuch' cannot be used" in capsys.readouterr().err
