"""``hilcl firmware`` and the driver in front of the running binary: what a user sees."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hilcl.cli.firmware import firmware as command
from hilcl.drivers.firmware.boards import BOARDS
from hilcl.drivers.firmware.compare import check_board
from hilcl.drivers.firmware.flash import avrdude_command, flash
from hilcl.drivers.firmware.wiring import Wiring
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.errors import BoardError, HilclError, InputError
from hilcl.sim_backend.emulation.firmware import FirmwareBoard, FirmwareServer
from hilcl.sim_backend.emulation.potboard_wire import NoWireFaults, PotBoardServer
from tests.drivers.firmware.bench import NANO, HostFirmware, Terminal, built, volts_of, wiring

PATIENT = PotBoardOptions(turnaround=20.0, boot_time=0.0, watchdog=30.0, heartbeat=False)

FILE = """
[firmware]
board = "nano"
switches = ["D7", "D8", "D9"]
pots = [{ chip = "MCP4351", select = ["D2", "D3", "D4", "D5"], safe = 200 }]
sources = [{ select = "D6", switches = [0, 1] }]
[firmware.adc]
channels = ["A0", "A1", "A2", "A3", "A4", "A5", "A6", "A7"]
"""


def board_of(board: Wiring) -> FirmwareBoard:
    ports = [Terminal() for _ in board.sources]
    return FirmwareBoard(board, lambda codes: None, read_nodes=lambda: volts_of(board), ports=ports, built=built(board))


@pytest.fixture(scope="module")
def firmware() -> Iterator[FirmwareBoard]:
    board = board_of(wiring(NANO))
    yield board
    board.close()


class Served(FirmwareServer):
    """Leaves the board to the next test."""

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def server(firmware: FirmwareBoard) -> Iterator[FirmwareServer]:
    """A board that has just been switched on."""
    firmware.reset()
    with Served(firmware) as served:
        yield served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text(FILE)
    return path


def test_the_driver_works_a_board(server: FirmwareServer) -> None:
    with PotBoard("board", server.port, PATIENT) as board:
        board.write(np.arange(16) * 16)
        assert board.read().tolist() == (np.arange(16) * 16).tolist()
        board.sources().drive(np.array([2.5, np.nan]))
        assert server.board.outputs_on == (True, False)
        np.testing.assert_allclose(board.meter().read(averages=4).volts, volts_of(server.board.wiring), atol=5 / 1024)
        assert board.step(np.full(16, 9)).volts.shape == (8,)
        assert board.text("SYST:ERR?") == '0,"No error"'
    assert server.board.outputs_on == (False, False)
    assert server.board.reports == ()


def test_over_tcp() -> None:
    board = wiring(NANO)
    with FirmwareServer(board_of(board), tcp=0) as served, PotBoard("board", served.port, PATIENT) as pots:
        assert pots.identity == "hilcl,pot board nano,0,1.0"


class DeafAtSpeed(NoWireFaults):
    """A cable, or an adapter, that carries nothing at a megabaud."""

    def __init__(self, board: FirmwareBoard, *, only_replies: bool) -> None:
        object.__setattr__(self, "board", board)
        object.__setattr__(self, "only_replies", only_replies)

    board: FirmwareBoard
    only_replies: bool

    def received(self, data: bytes) -> bytes:
        return data if self.only_replies or self.board.baud < 1_000_000 else b"\x55" * len(data)

    def replied(self, data: bytes) -> bytes:
        return data if self.board.baud < 1_000_000 else b"\x55" * len(data)


class TestFastBaud:
    """The host asks for a megabaud; pseudo-terminal and emulator garble bytes where the two rates differ."""

    # Where silence is part of the test, it is waited for, but not for long.
    OPTIONS = PotBoardOptions(turnaround=1.0, tries=2, watchdog=30.0, heartbeat=False, fast_baud=1_000_000)

    def test_board_and_host_go_over_together_and_come_back(self, server: FirmwareServer) -> None:
        with PotBoard("board", server.port, replace(PATIENT, fast_baud=1_000_000)) as board:
            assert board.text("SYST:BAUD?") == "1000000"
            board.write(np.arange(16))
            assert server.board.codes.tolist() == list(range(16))
            assert board.take_events() == []
        assert server.board.baud == pytest.approx(115_200, rel=0.03)
        with PotBoard("board", server.port, PATIENT) as board:
            assert board.text("SYST:BAUD?") == "115200"

    def test_a_board_left_at_the_fast_rate_is_found(self, server: FirmwareServer) -> None:
        board = PotBoard("board", server.port, self.OPTIONS).open()
        board.abandon()
        assert server.board.baud == 1_000_000
        with PotBoard("board", server.port, self.OPTIONS) as board:
            assert board.text("SYST:BAUD?") == "1000000"

    def test_after_a_reset_both_are_fast_again_and_all_is_written_again(self, server: FirmwareServer) -> None:
        with PotBoard("board", server.port, self.OPTIONS) as board:
            board.write(np.arange(16))
            server.board.reset()
            assert board.read().tolist() == list(range(16))
            assert board.restarts == 1
            assert server.board.baud == 1_000_000

    @pytest.mark.parametrize("only_replies", [False, True])
    def test_what_cannot_be_fast_stays_slow(self, only_replies: bool) -> None:
        firmware = board_of(wiring(NANO))
        faults = DeafAtSpeed(firmware, only_replies=only_replies)
        with FirmwareServer(firmware, faults=faults) as served, PotBoard("board", served.port, self.OPTIONS) as board:
            board.write(np.arange(16))
            assert board.text("SYST:BAUD?") == "115200"
            assert [event.what for event in board.take_events()] == ["it cannot be reached at 1000000 baud"]

    def test_a_rate_the_board_cannot_make(self, server: FirmwareServer) -> None:
        with PotBoard("board", server.port, replace(self.OPTIONS, fast_baud=900_000)) as board:
            assert board.text("SYST:BAUD?") == "115200"
            assert board.text("SYST:ERR?") == '0,"No error"'


def test_unplugging_is_one_sentence() -> None:
    server = FirmwareServer(board_of(wiring(NANO)))
    board = PotBoard("board", server.port, PotBoardOptions(turnaround=0.5, watchdog=None)).open()
    server.close()
    # The number of a closed pseudo-terminal may be somebody else's a moment later: then another board answers.
    with pytest.raises(BoardError, match=r"board .* broke|did not answer|plug the right board in") as raised:
        board.read()
    assert "\n" not in str(raised.value)
    board.abandon()


def test_a_board_of_another_version_is_one_sentence(tmp_path: Path) -> None:
    board = wiring(NANO)
    other = HostFirmware(board, tmp_path, volts_of(board), "-DPROTOCOL_MAJOR=2")
    with PotBoardServer(other) as served:  # type: ignore[arg-type]
        with pytest.raises(HilclError, match="another version of the protocol: update") as raised:
            PotBoard("board", served.port, PATIENT).open()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"pots": [{"chip": "MCP4351", "select": ["D2", "D3"], "safe": 200}]},
            "16 of MCP4351 on the board and 8 of MCP4351",
        ),
        (
            {"pots": [{"chip": "AD5144", "select": ["D2", "D3", "D4", "D5"]}]},
            "16 of MCP4351 on the board and 16 of AD5144",
        ),
        (
            {"pots": [{"chip": "MCP4351", "select": ["D2", "D3", "D4", "D5"], "safe": 9}]},
            "go to code 200 when safe and to 9",
        ),
        ({"adc": {"channels": ["A0"]}}, "it has 8 ADC channels and the file wires 1"),
        ({"switches": ["D7", "D8"]}, "it has 3 switches and the file wires 2"),
    ],
)
def test_another_wiring_is_one_sentence(server: FirmwareServer, change: dict[str, object], sentence: str) -> None:
    with PotBoard("board", server.port, PATIENT) as board:
        check_board(wiring(NANO), board)
        with pytest.raises(InputError, match=f"built for another wiring, .*{sentence}.*flash the board again"):
            check_board(wiring(NANO, **change), board)


def test_build_prints_what_it_takes(file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["build", str(file), "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert "Arduino Nano, 16 pots, 115200 baud: flash " in done.output
    assert (tmp_path / "out" / "potboard.hex").is_file()
    assert (tmp_path / "out" / "wiring.h").is_file()


def test_build_refuses_an_unknown_chip(file: Path, tmp_path: Path) -> None:
    file.write_text(FILE.replace("MCP4351", "MCP4359"))
    with pytest.raises(InputError, match='no digital potentiometer "MCP4359"'):
        CliRunner().invoke(command, ["build", str(file), "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_info_says_what_a_board_is(server: FirmwareServer, file: Path) -> None:
    done = CliRunner().invoke(command, ["info", server.port, "--check", str(file)], catch_exceptions=False)
    assert re.search(r"hilcl,pot board nano,0,1\.0, protocol 1\.1, start \d+\.", done.output)
    assert "Pots 0 to 15: MCP4351, codes 0 to 256, 200 when safe, read back." in done.output
    assert "ADC channels 0 to 7: 10 bits over 5 V, 104 µs each." in done.output
    assert "Switches: 3." in done.output
    assert f"It is wired as {file} says." in done.output


def test_flashing_touches_the_flash_only(tmp_path: Path) -> None:
    words = avrdude_command(BOARDS["nano"], tmp_path / "potboard.hex", "/dev/ttyUSB0")
    assert words[:9] == ["avrdude", "-p", "atmega328p", "-c", "arduino", "-P", "/dev/ttyUSB0", "-b", "57600"]
    assert words[9:] == ["-D", "-U", f"flash:w:{tmp_path}/potboard.hex:i"]


def test_flashing_a_port_where_nobody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "avrdude"
    program.write_text('#!/bin/sh\necho "avrdude: ser_open(): can\'t open device" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BoardError, match=r"Arduino Uno on /dev/none was not flashed \(avrdude: ser_open"):
        flash(BOARDS["uno"], tmp_path / "potboard.hex", "/dev/none")


def test_flashing_without_avrdude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="avrdude is not installed"):
        flash(BOARDS["uno"], tmp_path / "potboard.hex", "/dev/none")


def test_an_emulator_that_ends_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    firmware = board_of(wiring(NANO))
    firmware.tick(0.0)
    firmware.machine.close()
    firmware.tick(1.0)
    firmware.tick(2.0)
    assert [record.message[:41] for record in caplog.records] == ["the emulated microcontroller has ended: c"]
    firmware.close()
