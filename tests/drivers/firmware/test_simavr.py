"""A second opinion: the same binary in simavr says the same on its port, and its pins carry the chips' frames."""

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.chips import Lines, SpiFrame, UpDownFrame, chip, waveform, write_frames
from hilcl.drivers.chips.updown import stores
from hilcl.drivers.firmware.wiring import Wiring
from hilcl.sim_backend.emulation.firmware import FirmwareBoard
from tests.drivers.firmware.bench import built as built_once
from tests.drivers.firmware.bench import wiring

RUNNER = Path(__file__).parent / "simavr" / "runner.c"
CODES = (0, 255, 128, 1, 254, 77)
WRITES: dict[str, object] = {"board": "nano", "pots": [{"chip": "AD5206", "select": ["D9"]}]}
COUNTS: dict[str, object] = {
    "board": "nano",
    "pots": [{"chip": "X9C103", "select": ["D2"], "up_down": "D3", "clock": "D4"}],
}

pytestmark = pytest.mark.skipif(
    not Path("/usr/include/simavr/sim_avr.h").exists() or shutil.which("gcc") is None,
    reason="libsimavr-dev is not installed",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("simavr") / "runner"
    subprocess.run(["gcc", "-O1", "-o", str(program), str(RUNNER), "-lsimavr", "-lelf"], check=True)
    return program


def in_simavr(board: Wiring, data: bytes, runner: Path, seconds: float) -> list[list[str]]:
    """Return the events of a run as words."""
    built = built_once(board)
    ports = "".join(sorted({pin[0] for pin in board.board.pins.values()}))
    words = [str(runner), str(built.elf), board.board.mcu, str(board.board.clock), str(board.baud), ports, str(seconds)]
    done = subprocess.run(words, input=data, capture_output=True, check=True)
    events = [line.split() for line in done.stdout.decode().splitlines()]
    assert events[-1] == ["end"]
    return events


def conversation(*requests: wire.Request) -> bytes:
    frames = [wire.request_frame(wire.Hello(), 0)]
    frames += [wire.request_frame(request, seq) for seq, request in enumerate(requests, 1)]
    return b"*IDN?\nSYST:CAP?\n" + b"".join(frame.encode() for frame in frames)


def answer(events: list[list[str]]) -> bytes:
    return bytes(int(words[1], 16) for words in events if words[0] == "out")


def test_spi_windows_and_answers(runner: Path) -> None:
    board = wiring(WRITES)
    data = conversation(wire.Write(0, CODES), wire.Read(0, 6, shadow=True), wire.ReadCounters())
    events = in_simavr(board, data, runner, 0.3)
    windows: list[bytes] = []
    selected = False
    for words in events:
        if words[:3] == ["pin", "B", "1"]:
            selected = words[3] == "0"
            if selected:
                windows.append(b"")
        elif words[0] == "spi":
            assert selected
            windows[-1] += bytes([int(words[1], 16)])
    known = chip("AD5206")
    expected = [
        frame.payload
        for codes in ((128,) * 6, CODES)
        for wiper, code in enumerate(codes)
        for frame in write_frames(known, wiper, code)
        if isinstance(frame, SpiFrame)
    ]
    assert windows[-12:] == expected
    other = FirmwareBoard(board, lambda codes: None, built=built_once(board))
    try:
        assert answer(events) == other.feed(data, 0.0)
    finally:
        other.close()


def test_counts_and_never_stores(runner: Path) -> None:
    events = in_simavr(wiring(COUNTS), conversation(wire.Write(0, (37,)), wire.Write(0, (40,))), runner, 0.3)
    names = {"2": "deselected", "3": "up", "4": "clock"}
    levels = {"deselected": True, "up": True, "clock": True}
    seen: list[Lines] = []
    for words in events:
        if words[:2] == ["pin", "D"] and words[2] in names:
            levels[names[words[2]]] = words[3] == "1"
            seen.append(Lines(**levels))
    assert not stores(tuple(seen))
    expected = [*waveform(UpDownFrame(True, 99)), *waveform(UpDownFrame(False, 62)), *waveform(UpDownFrame(True, 3))]
    falls = [(before.up, before.deselected) for before, after in pairwise(seen) if before.clock and not after.clock]
    wanted = [
        (before.up, before.deselected) for before, after in pairwise(expected) if before.clock and not after.clock
    ]
    assert falls[-len(wanted) :] == wanted
