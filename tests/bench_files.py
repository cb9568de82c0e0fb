"""Experiment files of small benches, and their emulated instruments served to a command line of its own process."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyvisa
from pyvisa.resources import MessageBasedResource

from hilcl.experiment import Experiment
from hilcl.preparation import Preparation, prepare

DIVIDER_BENCH = """\
[board]
network = { kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }

[board.pots]
chip = "MCP4251"
positions = 257
denominator = 256
end_to_end = "100 kΩ"
wiper = "75 Ω"
series = "1.2 kΩ"

[task]
inputs_volts = [[1.0, 0.0]]
targets_volts = [[0.2]]

[learning]
step_size = "20e-6 S/V²"
epochs = 25

[limits]
volts = "2 V"

[bench]
averages = 1

[bench.instruments.pots]
driver = "potboard"
resource = "/dev/ttyACM0"

[bench.instruments.drive]
driver = "keithley2600b"
resource = "TCPIP::192.168.0.10::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.clamp]
driver = "keithley2450"
resource = "TCPIP::192.168.0.11::5025::SOCKET"
compliance = "10 mA"

[bench.wiring]
pots = { pots = "all" }
sources = { drive = { a = 0, b = 2 }, clamp = [1] }
meters = { pots = [0, 1, 2] }
"""
"""Two pots, a 2602B at their ends, a 2450 at the output between them, and the pot board's ADC on all three nodes."""

GRID_BENCH = """\
[board]
network = { kind = "grid", rows = 2, cols = 3, inputs = [0, 5], outputs = [2] }

[board.pots]
positions = 128
end_to_end = "100 kΩ"
wiper = "40 Ω"
series = "2.2 kΩ"

[task]
inputs_volts = [[1.0, 0.0], [0.2, 0.9]]
targets_volts = [[0.35], [0.5]]

[learning]
step_size = "100e-6 S/V²"
epochs = 12

[limits]
volts = "2 V"

[bench]
averages = 2

[bench.instruments.pots]
driver = "potboard"
resource = "/dev/ttyACM0"

[bench.instruments.drive]
driver = "keysight-b2900"
resource = "TCPIP::192.168.0.10::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.clamp]
driver = "keithley2400"
resource = "TCPIP::192.168.0.11::5025::SOCKET"
compliance = "10 mA"

[bench.instruments.scanner]
driver = "34970a"
resource = "TCPIP::192.168.0.12::5025::SOCKET"

[bench.wiring]
pots = { pots = "all" }
sources = { drive = { "1" = 0, "2" = 5 }, clamp = [2] }
meters = { scanner = { "101" = 1, "102:104" = [2, 3, 4] } }
"""
"""Seven pots without a chip's name, three hidden nodes; the inputs are read by their SMU, the others by a 34970A."""

IMPERFECT = """
[simulation]
seed = 11
pots = { tolerance = "20 %", wiper_spread = "30 %", series_spread = "1 %" }
meters = { gain = "0.5 %", offset = "1 mV", input_resistance = "10 Mohm" }
sources = { series = "20 ohm", offset = "2 mV" }
"""
"""A [simulation] section whose devices all differ from what they should be, without noise."""

SOCKET = {"visa_library": "@py", "read_termination": "\n", "write_termination": "\n", "timeout": 30_000}
"""What a PyMeasure instrument needs on a raw socket."""


def prepared(text: str, folder: Path = Path()) -> Preparation:
    """Return what an experiment file describes."""
    return prepare(Experiment.parse(text, folder / "bench.toml"))


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Return a text with each first piece replaced by the second; an error where it is not there exactly once."""
    for old, new in changes:
        if text.count(old) != 1:
            raise AssertionError(f"{old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    return text


def at_resources(text: str, resources: Mapping[str, str]) -> str:
    """Return an experiment file whose instruments are at other resources, and whose pot board never waits to boot."""
    lines, name = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            name = line.strip("[]").removeprefix("bench.instruments.")
        if line.startswith("resource =") and name in resources:
            line = f'resource = "{resources[name]}"'  # noqa: PLW2901
        if line == 'driver = "potboard"':
            lines.append('turnaround = "5 s"')
        elif line.startswith("compliance =") or line == 'driver = "34970a"':
            lines.append('timeout = "10 s"')
        lines.append(line)
    return "\n".join(lines) + "\n"


@contextmanager
def clients(*resources: str) -> Iterator[list[MessageBasedResource]]:
    """Open resources as any PyVISA program does."""
    with ExitStack() as stack:
        manager = pyvisa.ResourceManager("@py")
        stack.callback(manager.close)
        found = []
        for name in resources:
            client = stack.enter_context(
                manager.open_resource(name, read_termination="\n", write_termination="\n", timeout=30_000)
            )
            if not isinstance(client, MessageBasedResource):
                raise AssertionError(f"{name} is a {type(client).__name__}")
            found.append(client)
        yield found
