"""What the pot board's firmware does on its emulated microcontroller: `python benchmarks/firmware.py [--quick]`.

Memory, frames at 1 Mbaud, steps against their wire time, recovery, the watchdog, and ten thousand sequences of chance
beside the emulator in Python. Times are the microcontroller's own unless they say otherwise.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.firmware.build import build
from hilcl.drivers.firmware.wiring import Wiring
from hilcl.drivers.potboard_framing import FrameDecoder

sys.path.insert(0, str(Path(__file__).parent.parent))

from hilcl.sim_backend.emulation.firmware import FirmwareBoard
from tests.drivers.firmware.bench import MIXED, NANO, Sequences, Terminal, emulated, volts_of, wiring, without_window

CLOCK = 16e6
FAST = 1_000_000
SIXTY: dict[str, object] = {
    "board": "mega",
    "baud": FAST,
    "pots": [{"chip": "MCP4351", "select": [f"D{22 + index}" for index in range(15)]}],
}


def run(board: Wiring) -> FirmwareBoard:
    return FirmwareBoard(
        board, lambda codes: None, read_nodes=lambda: volts_of(board), ports=[Terminal() for _ in board.sources]
    )


def greeted(board: Wiring) -> FirmwareBoard:
    firmware = run(board)
    firmware.machine.feed(wire.request_frame(wire.Hello(), 0).encode())
    return firmware


def memory() -> None:
    for name, table in (
        ("Nano, 16 SPI pots", NANO),
        ("Mega, 18 pots on every bus", MIXED),
        ("Mega, 60 SPI pots", SIXTY),
    ):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: {build(wiring(table), Path(folder))}")


def frames(count: int) -> None:
    firmware = greeted(wiring(SIXTY))
    codes = np.random.default_rng(1).integers(0, 257, (count, 60)).tolist()
    began, cycles, lost = time.perf_counter(), firmware.machine.feed(b"").cycles, 0
    for number, row in enumerate(codes):
        data = wire.request_frame(wire.Write(0, tuple(row)), number % 255 + 1).encode()
        answers = FrameDecoder(999).feed(firmware.machine.feed(data).sent)
        good = wire.Written(60, wire.Verdict.VERIFIED, wire.stage_crc(enumerate(row)))
        lost += [wire.decode_reply(each) for each in answers] != [good]
    ran = firmware.machine.feed(b"")
    seconds = (ran.cycles - cycles) / CLOCK
    print(
        f"60 pots at 1 Mbaud: {lost} of {count} frames lost, {count / seconds:.0f} frames/s, "
        f"{count / (time.perf_counter() - began):.0f}/s of real time, {len(firmware.reports)} data-sheet reports"
    )
    firmware.close()


def steps() -> None:
    """Sixteen pots written, and read back as far as they can be where it is asked for, and sixteen channels."""
    codes = [600 + 7 * channel for channel in range(16)]
    volts = (np.array(codes) + 0.25) * 5.0 / 1024
    for prescaler in (128, 64, 32, 16):
        board = wiring(
            {
                "board": "mega",
                "pots": [{"chip": "MCP4351", "select": ["D22", "D23", "D24", "D25"]}],
                "adc": {"channels": [f"A{index}" for index in range(16)], "prescaler": prescaler},
            }
        )
        firmware = FirmwareBoard(board, lambda codes: None, read_nodes=lambda: volts)
        machine = firmware.machine
        for baud, verify in ((115_200, True), (250_000, True), (500_000, True), (FAST, True), (FAST, False)):
            machine.feed(wire.request_frame(wire.Hello(), 0).encode())
            machine.feed(wire.request_frame(wire.Text(f"SYST:BAUD {baud}"), 1).encode())
            machine.host_baud(baud)
            write = wire.Write(0, tuple(range(100, 116)), verify)
            step = wire.Step(write, (), wire.Scan(0, 16, width=wire.SEVENS))
            request = wire.request_frame(step, 2).encode()
            began = machine.feed(b"").cycles
            ran = machine.feed(request)
            took, on_wire = (ran.last_sent - began) / CLOCK, 10 * (len(request) + len(ran.sent)) / baud
            print(
                f"STEP of 16 pots and 16 channels, {baud} baud, {'' if verify else 'not '}verified, "
                f"ADC clock /{prescaler}: {took * 1e3:.2f} ms, "
                f"{took / on_wire:.2f} of its {on_wire * 1e3:.2f} ms on the wire; conversions "
                f"{16 * board.adc_conversion * 1e3:.2f} ms"
            )
        firmware.close()


def recovery() -> None:
    worst = 0.0
    firmware = greeted(wiring(NANO, baud=FAST))
    for seed in range(50):
        ended = firmware.machine.feed(np.random.default_rng(seed).bytes(1000)).arrived
        ran = firmware.machine.feed(b"\0" + wire.request_frame(wire.Read(0, 16), seed + 1).encode())
        if not isinstance(wire.decode_reply(FrameDecoder(9999).feed(ran.sent)[-1]), wire.Codes):
            sys.exit("no answer after garbage")
        worst = max(worst, (ran.last_sent - ended) / CLOCK)
    print(f"answer after 1 kB of garbage, 50 times: within {worst * 1e3:.2f} ms")
    firmware.machine.feed(wire.request_frame(wire.Watchdog(500), 200).encode())
    heard = firmware.machine.feed(b"").cycles
    for late in range(490, 520):
        firmware.machine.feed(b"", heard + round(late / 1000 * CLOCK))
        if (firmware.codes == 200).all():
            print(f"safe state {late} ms after the host fell silent, watchdog 500 ms")
            break
    firmware.close()


def sequences(count: int) -> None:
    for name, table in (("one kind of pot", NANO), ("every bus", MIXED)):
        board = wiring(table, baud=FAST)
        firmware, (twin, _) = run(board), emulated(board, volts_of(board))
        chance = Sequences(board, seed=1)
        now, pieces, differ = 0.0, 0, 0
        for number in range(count // 2):
            if number:
                firmware.reset()
                twin.reset()
            now += 1.0
            for pause, piece in chance.sequence():
                now += pause
                pieces += 1
                differ += without_window(firmware.feed(piece, now)) != without_window(twin.feed(piece, now))
        print(f"{count // 2} sequences, {pieces} messages, {name}: {differ} answers differ")
        firmware.close()


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    memory()
    frames(300 if quick else 10_000)
    steps()
    recovery()
    sequences(40 if quick else 10_000)
