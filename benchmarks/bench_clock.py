"""Emulated time of a training step against the critical path of its bench (docs/bench.md, "How long a step takes").

The benches integrate one power line cycle at 50 Hz; a round trip on the network takes 1 ms, the pot board's line has
1 Mbaud, and the board settles in 2 ms. Seconds are those of the emulated clock, so they are the same on every computer.

    python benchmarks/bench_clock.py [--steps N]
"""

import argparse
import re
from itertools import pairwise
from pathlib import Path

from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare
from hilcl.session import open_emulated
from hilcl.sim_backend.critical_path import critical_path
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.training import train

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STEPS = 3

SMUS_AND_SCANNER = """
[board]
network = { kind = "grid", rows = 3, cols = 4, inputs = [0, 11], outputs = [3, 8] }

[board.pots]
positions = 256
end_to_end = "10 kΩ"
wiper = "50 Ω"
series = "1 kΩ"

[task]
inputs_volts = [[1.0, 0.0], [0.2, 0.9], [0.6, 0.1]]
targets_volts = [[0.6, 0.4], [0.5, 0.5], [0.4, 0.3]]

[learning]
step_size = "200e-6 S/V²"
epochs = 20

[limits]
volts = "2 V"

[bench.instruments.pots]
driver = "potboard"
resource = "/dev/ttyACM0"

[bench.instruments.first]
driver = "keithley2450"
resource = "TCPIP::192.168.0.10::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.second]
driver = "keithley2450"
resource = "TCPIP::192.168.0.11::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.clamps]
driver = "keithley2600b"
resource = "TCPIP::192.168.0.12::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.mixed]
driver = "keysight-b2900"
resource = "TCPIP::192.168.0.13::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.scanner]
driver = "34970a"
resource = "TCPIP::192.168.0.14::5025::SOCKET"

[bench.wiring]
pots = { pots = "all" }
sources = { first = [0], second = [11], clamps = { a = 3, b = 8 } }
meters = { mixed = { "1" = 1, "2" = 2 }, scanner = { "101:106" = [4, 5, 6, 7, 9, 10] } }
"""
"""Two 2450 at the inputs, a 2602B at the outputs, a B2912A that only reads, and a 34970A on the other hidden nodes."""


def realistic(text: str) -> Preparation:
    """Return an experiment with the times that real instruments and links take."""
    text = re.sub(r"^(settle|baud|watchdog) = .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("[bench.instruments.", '[bench.settle]\nseconds = "2 ms"\n\n[bench.instruments.', 1)
    text = text.replace('driver = "potboard"\n', 'driver = "potboard"\nbaud = 1000000\n')
    for driver in ("keithley2450", "keithley2600b", "daq6510", "34970a"):
        text = text.replace(f'driver = "{driver}"\n', f'driver = "{driver}"\nautozero = false\n')
    if "[simulation]\n" not in text:
        text += "\n[simulation]\n"
    text = text.replace("[simulation]\n", '[simulation]\nround_trip = "1 ms"\nline_frequency = 50\n')
    return prepare(Experiment.parse(text, Path("bench.toml")))


def step_seconds(preparation: Preparation, steps: int) -> list[float]:
    """Return the emulated seconds of each step, those of the first left out: it finds the outputs floating already."""
    bench = EmulatedBench(preparation).start()
    with open_emulated(preparation, bench) as board:
        steps_taken = train(board, preparation.data.train, preparation.rule, steps + 1)
        ends = [bench.clock.now() for _ in steps_taken]
    return [end - begin for begin, end in pairwise(ends)]


def tables(steps: int = STEPS) -> str:
    """Return the table, Markdown."""
    lines = [
        "| bench | samples | a step, ms | critical path, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    benches = {
        "`examples/bench16.toml`: two two-channel SMUs, ADC": (EXAMPLES / "bench16.toml").read_text(encoding="utf-8"),
        "`examples/bench32.toml`: 2602B, 2450, 16 scanned nodes": (EXAMPLES / "bench32.toml").read_text(
            encoding="utf-8"
        ),
        "four SMUs, one only reading, 6 scanned nodes": SMUS_AND_SCANNER,
    }
    for name, text in benches.items():
        preparation = realistic(text)
        path, worst = critical_path(preparation), max(step_seconds(preparation, steps))
        samples = preparation.data.train.n_samples
        lines.append(f"| {name} | {samples} | {worst * 1e3:.2f} | {path * 1e3:.2f} | {worst / path:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    print(tables(parser.parse_args().steps))


if __name__ == "__main__":
    main()
