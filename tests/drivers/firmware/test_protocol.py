"""The firmware's protocol, compiled for this computer, against the emulator in Python and against bytes of chance."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_framing import FrameDecoder
from tests.drivers.firmware.bench import (
    MIXED,
    NANO,
    HostFirmware,
    Sequences,
    compile_host,
    emulated,
    volts_of,
    wiring,
    without_window,
)


def homed(board: HostFirmware, twin_codes: list[int], counters: set[int]) -> list[tuple[int, int]]:
    """Return codes that differ; counters do where they were never written."""
    return [
        pair
        for pot, pair in enumerate(zip(board.codes, twin_codes, strict=True))
        if pair[0] != pair[1] and pot not in counters
    ]


@pytest.mark.parametrize("table", [NANO, MIXED], ids=["one kind of pot", "every bus"])
def test_agrees_with_the_emulator_on_five_thousand_sequences(table: dict[str, object], tmp_path: Path) -> None:
    board = wiring(table)
    volts = volts_of(board)
    firmware = HostFirmware(board, tmp_path, volts)
    twin, faults = emulated(board, volts)
    counters = {
        pot for group in board.groups if group.bus == "updown" for pot in range(group.first, group.first + group.count)
    }
    readable = [
        pot for group in board.groups if group.chip.readable for pot in range(group.first, group.first + group.count)
    ]
    sequences = Sequences(board, seed=1)
    now, answered = 0.0, 0
    for number in range(5000):
        if number:
            firmware.reset()
            twin.reset()
        faults.dead.clear()
        faults.stuck.clear()
        if number % 10 == 9:
            pot = sequences.chance.choice(readable)
            if number % 20 == 9:
                faults.dead.add(pot)
                firmware.fault(pot, None, dead=True)
            else:
                faults.stuck[pot] = 3
                firmware.fault(pot, 3, dead=False)
        for pause, piece in sequences.sequence():
            now += pause
            answer = without_window(firmware.feed(piece, now))
            assert answer == without_window(twin.feed(piece, now)), (number, piece)
            answered += bool(answer)
            if not faults.dead:
                assert not homed(firmware, twin.codes.tolist(), counters), (number, piece)
    assert answered > 10000


def test_bytes_of_chance_break_nothing(tmp_path: Path) -> None:
    """Under the address and undefined-behaviour sanitizers; frames with a right CRC reach behind the decoder."""
    fuzz = compile_host(
        wiring(MIXED),
        tmp_path,
        ["host.c", "fuzz.c"],
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        output="fuzz",
    )
    for seed in (1, 2):
        done = subprocess.run([str(fuzz), "20000", str(seed)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("20000 inputs")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> HostFirmware:
    board = wiring(NANO)
    return HostFirmware(board, tmp_path_factory.mktemp("host"), volts_of(board))


def test_no_corrupted_frame_writes(firmware: HostFirmware) -> None:
    """Every single bit of a frame flipped, and every byte left out: never another write than the one that was meant."""
    firmware.reset()
    firmware.feed(wire.request_frame(wire.Hello(), 0).encode(), 0.0)
    before = firmware.codes
    data = wire.request_frame(wire.Write(0, tuple(range(16))), 7).encode()
    now = 1.0
    for position in range(1, len(data) - 1):
        for bit in range(8):
            damaged = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
            now += 1.0
            firmware.feed(damaged, now)
            assert firmware.codes == before, (position, bit)
        now += 1.0
        firmware.feed(data[:position] + data[position + 1 :], now)
        assert firmware.codes == before, position
    firmware.feed(data, now + 1.0)
    assert firmware.codes == list(range(16))


@pytest.mark.parametrize("seed", range(20))
def test_recovers_after_a_kilobyte_of_garbage(firmware: HostFirmware, seed: int) -> None:
    firmware.reset()
    firmware.feed(wire.request_frame(wire.Hello(), 0).encode(), 0.0)
    garbage = np.random.default_rng(seed).bytes(1000)
    firmware.feed(garbage, 0.1)
    answer = firmware.feed(b"\0" + wire.request_frame(wire.Read(0, 16), 9).encode(), 0.101)
    last = FrameDecoder(1000).feed(answer)[-1]
    assert (last.kind, last.seq) == (wire.Opcode.READ | 0x80, 9)


def test_an_older_board_is_refused_by_the_host(tmp_path: Path) -> None:
    board = wiring(NANO)
    other = HostFirmware(board, tmp_path, volts_of(board), "-DPROTOCOL_MAJOR=2")
    answer = other.feed(wire.request_frame(wire.Hello(), 0).encode(), 0.0)
    (frame,) = FrameDecoder(1000).feed(answer)
    assert wire.decode_reply(frame) == wire.Refusal(wire.Status.VERSION, 2 << 8 | wire.MINOR)
