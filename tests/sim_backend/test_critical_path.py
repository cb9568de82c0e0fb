"""The time a training step takes on the emulated clock, against the least that its instruments and links allow."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from hilcl.drivers.keithley2600b import Keithley2600B
from hilcl.drivers.smu import SmuChannel, SmuReading
from hilcl.errors import ExperimentError
from hilcl.preparation import Preparation
from hilcl.session import open_emulated
from hilcl.sim_backend.critical_path import critical_path, wire_bytes
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.training import train
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIMES = '[simulation]\nround_trip = "1 ms"\nline_frequency = 50\n'
ALLOWED = 1.15

BENCH16 = replaced(
    (EXAMPLES / "bench16.toml").read_text(encoding="utf-8"), ('"1 ms"', '"2 ms"'), ("[simulation]\n", TIMES)
)
BENCH32 = replaced(
    (EXAMPLES / "bench32.toml").read_text(encoding="utf-8"),
    ('"1 ms"', '"2 ms"'),
    ("baud = 115200", "baud = 1000000"),
    ("[simulation]\n", TIMES),
)
FAR = """\
[bench.instruments.far]
driver = "keithley2450"
resource = "TCPIP::192.168.0.9::5025::SOCKET"
compliance = "10 mA"
"""
ALL_KINDS = (
    replaced(
        GRID_BENCH,
        ("averages = 2", 'settle = "2 ms"\naverages = 2'),
        ('driver = "potboard"\n', 'driver = "potboard"\nbaud = 1000000\n'),
        ("[bench.instruments.clamp]", f"{FAR}\n[bench.instruments.clamp]"),
        ('drive = { "1" = 0, "2" = 5 }', 'drive = { "1" = 0 }, far = [5]'),
        ('"101" = 1, "102:104" = [2, 3, 4] }', '"103:104" = [3, 4] }, drive = { "2" = 1 }'),
    )
    + TIMES
)
"""A B2912A that sources at one node and reads another, a 2450, a 2400 and a 34970A with two channels."""

RELAY = (
    replaced(
        DIVIDER_BENCH,
        ("averages = 1", 'settle = "2 ms"'),
        ('driver = "potboard"\n', 'driver = "potboard"\nbaud = 1000000\n'),
        ('compliance = "10 mA"\n\n[bench.wiring]', 'compliance = "10 mA"\nfree_mode = "relay"\n\n[bench.wiring]'),
        ("sources =", 'switches = { pots = { "0" = 1 } }\nsources ='),
    )
    + TIMES
)
"""The output is cut off from its SMU by a clamp switch of the pot board while it floats."""


def step_seconds(preparation: Preparation, steps: int = 3) -> list[float]:
    """Return the emulated seconds of the steps after the first, which finds its outputs floating already."""
    bench = EmulatedBench(preparation).start()
    with open_emulated(preparation, bench) as board:
        ends = [bench.clock.now() for _ in train(board, preparation.data.train, preparation.rule, steps)]
    return [end - begin for begin, end in pairwise(ends)]


@pytest.mark.parametrize("text", [BENCH16, BENCH32, ALL_KINDS, RELAY], ids=["bench16", "bench32", "all kinds", "relay"])
def test_a_step_stays_near_the_critical_path(text: str) -> None:
    preparation = prepared(text)
    path, seconds = critical_path(preparation), step_seconds(preparation)
    assert all(path < each <= ALLOWED * path for each in seconds)
    # However the threads of this computer were run.
    assert step_seconds(preparation) == seconds


def test_the_critical_path_of_bench16_adds_up_by_hand() -> None:
    """Sixteen pots in one frame; two samples, free and clamped; the SMUs integrate for longer than the ADC converts."""
    assert critical_path(prepared(BENCH16)) == pytest.approx(
        wire_bytes(16) * 10e-6 + 4 * (1e-3 + 2e-3 + 20e-3 + 1e-3), rel=1e-12
    )
    assert 16 < wire_bytes(16) < 60
    assert wire_bytes(17) == wire_bytes(16) + 1


def test_the_line_counts_at_the_rate_it_is_used_at() -> None:
    slow = replaced(BENCH32, ("baud = 1000000", "baud = 115200"))
    fast = replaced(BENCH32, ("baud = 1000000", "baud = 115200\nfast_baud = 1000000"))
    assert critical_path(prepared(fast)) == critical_path(prepared(BENCH32)) < critical_path(prepared(slow))


def test_more_pots_than_one_frame_takes_are_staged() -> None:
    assert wire_bytes(200) < 250
    assert wire_bytes(260) > wire_bytes(200) + 100


def test_the_clock_sees_channels_that_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SMU driver that does not overlap its two channels is far from the critical path."""
    measure = Keithley2600B._measure

    def in_turn(self: Keithley2600B, channels: list[SmuChannel]) -> list[SmuReading]:
        return [measure(self, [channel])[0] for channel in channels]

    monkeypatch.setattr(Keithley2600B, "_measure", in_turn)
    preparation = prepared(BENCH16)
    assert min(step_seconds(preparation)) > 1.7 * critical_path(preparation)


def test_a_file_without_a_bench_has_no_path() -> None:
    preparation = prepared(BENCH16)
    without = preparation.experiment.model_copy(update={"bench": None})
    with pytest.raises(ExperimentError, match=r"no \[bench\] section"):
        critical_path(replace(preparation, experiment=without))
