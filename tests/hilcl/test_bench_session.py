"""Opening the instruments a file names, against its emulated instruments: what is checked, and what is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from hilcl.arrays import FloatArray
from hilcl.bench_session import BoardRelay, Surroundings, open_bench
from hilcl.devices import SourceReadings, VoltReadings
from hilcl.errors import BoardError, ExperimentError, InputError
from hilcl.sim_backend.emulated_bench import EmulatedBench
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

CLAMP = 'driver = "keithley2450"\nresource = "TCPIP::192.168.0.11::5025::SOCKET"\ncompliance = "10 mA"'
WITH_PYTHON = replaced(DIVIDER_BENCH, (CLAMP, 'driver = "python"'), ("clamp = [1]", "clamp = { x = 1 }"))
PATIENCE = 10.0


@contextmanager
def served(text: str) -> Iterator[tuple[EmulatedBench, Surroundings]]:
    with EmulatedBench(prepared(text)) as bench:
        yield bench, Surroundings(resources=bench.resources, settle=bench.settle, patience=PATIENCE)


def outputs_off(bench: EmulatedBench) -> bool:
    return not any(on for each in bench.outputs_on.values() for on in each)


class Recorder:
    """A device of a program that notes how it ends."""

    identity = "a lab's own,recorder,1,0"

    def __init__(self) -> None:
        self.ended: list[str] = []

    def make_safe(self) -> None:
        self.ended.append("safe")

    def close(self) -> None:
        self.ended.append("closed")


class Source(Recorder):
    """One channel that drives nothing really."""

    channels = ("x",)

    def __init__(self) -> None:
        super().__init__()
        self.driven: list[float] = []

    def drive(self, volts: FloatArray) -> None:
        self.driven.append(float(volts[0]))

    def read(self) -> SourceReadings:
        return SourceReadings(np.full(1, np.nan), np.zeros(1), np.array([False]))


class Meter(Recorder):
    """One channel that reads the number of averages it was asked for."""

    channels = ("x",)

    def read(self, averages: int = 1) -> VoltReadings:
        return VoltReadings(np.full(1, float(averages)), np.full(1, 0.25))


def test_the_board_is_made_of_what_the_file_names() -> None:
    with served(DIVIDER_BENCH) as (bench, there):
        with open_bench(prepared(DIVIDER_BENCH), there) as board:
            assert set(board.identities) == {"pots", "drive", "clamp"}
            assert "2602B" in board.identities["drive"]
            np.testing.assert_array_equal(board.conductances, prepared(DIVIDER_BENCH).initial)
            np.testing.assert_array_equal(bench.codes, [128, 128])
            found = board.respond([[1.0, 0.0, 0.2]])
            np.testing.assert_allclose(found.potentials, [[1.0, 0.2, 0.0]], atol=1e-8)
        assert outputs_off(bench)


def test_a_file_without_a_bench_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"bench.toml has no \[bench\] section: add one .*--backend sim"):
        open_bench(prepared(DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")]))


def test_ratings_are_checked_before_anything_is_opened() -> None:
    with pytest.raises(ExperimentError, match=r"above its rating of 2\.5 mA"):
        open_bench(prepared(replaced(DIVIDER_BENCH, ('"1.2 kΩ"', '"100 Ω"'))))


@pytest.mark.parametrize(
    ("served_text", "changes", "said"),
    [
        (
            replaced(DIVIDER_BENCH, ('pots = "all"', "pots = [0, 1, -1]")),
            [],
            r"pots \(.*\) has 3 pots, but bench\.wiring\.pots\.pots wires 2: list the edge of each, -1 for",
        ),
        (
            replaced(DIVIDER_BENCH, ('"MCP4251"', '"MCP4231"'), ("positions = 257", "positions = 129"), ("256", "128")),
            [],
            r"pot 0 is a MCP4231 with 129 codes, but board\.pots\.positions is 257: correct one of them",
        ),
        (
            replaced(DIVIDER_BENCH, ('"MCP4251"', '"MCP4651"')),
            [],
            r"pot 0 is a MCP4651, but board\.pots\.chip is MCP4251: correct one",
        ),
        (
            DIVIDER_BENCH,
            [('driver = "potboard"', 'driver = "potboard"\nserial = "A7"')],
            r"pots \(.*\) is hilcl,emulated pot board,0,1\.0, but serial number A7 is expected: correct the",
        ),
        (
            DIVIDER_BENCH,
            [('driver = "keithley2450"', 'driver = "keithley2450"\nserial = "A7"')],
            "clamp: .* has serial number .*, but A7 is expected: correct the",
        ),
        (
            DIVIDER_BENCH,
            [('driver = "keithley2600b"', 'driver = "keithley2600b"\nmodel = "2636B"')],
            "drive: .*2602B.* but a 2636B is expected there: correct the resource or the driver in the file",
        ),
    ],
    ids=["more pots", "other positions", "another chip", "serial of the board", "serial of an SMU", "another model"],
)
def test_what_answers_must_be_what_the_file_says(served_text: str, changes: list[tuple[str, str]], said: str) -> None:
    with served(served_text) as (bench, there):
        with pytest.raises(InputError, match=said):
            open_bench(prepared(replaced(DIVIDER_BENCH, *changes)), there)
        assert outputs_off(bench)
        # Everything was let go: whoever comes next finds all instruments free.
        with open_bench(prepared(served_text), there) as board:
            assert board.respond([[1.0, 0.0, np.nan]]).potentials.shape == (1, 3)


def test_an_adc_channel_that_the_board_has_not_is_named() -> None:
    text = replaced(GRID_BENCH, ('"101" = 1, "102:104" = [2, 3, 4] }', '"102:104" = [2, 3, 4] }, pots = [-1, 1]'))
    wrong = replaced(text, ("pots = [-1, 1]", "pots = [-1, -1, -1, 1]"))
    with served(text) as (bench, there):
        with pytest.raises(InputError, match=r"pots .*3") as caught:
            open_bench(prepared(wrong), there)
        assert "channel" in str(caught.value)
        assert outputs_off(bench)


def test_a_second_channel_that_the_model_has_not_is_named() -> None:
    text = replaced(DIVIDER_BENCH, ('driver = "keithley2600b"', 'driver = "keithley2600b"\nmodel = "2601B"'))
    with served(text) as (bench, there):
        with pytest.raises(InputError, match=r"drive.*channel"):
            open_bench(prepared(text), there)
        assert outputs_off(bench)


def test_a_float_limit_below_the_drive_is_refused() -> None:
    text = replaced(DIVIDER_BENCH, (CLAMP, f'{CLAMP}\nfloat_volts = "1 V"'))
    with served(text) as (bench, there):
        with pytest.raises(InputError, match="float_volts"):
            open_bench(prepared(text), there)
        assert outputs_off(bench)


def test_an_output_switched_on_by_a_failing_start_is_off_again() -> None:
    """Calibrating what floats fails after the inputs were driven."""
    with served(DIVIDER_BENCH) as (bench, there):
        seen: list[bool] = []

        def settle(_: float) -> None:
            seen.append(not outputs_off(bench))
            raise BoardError("the lights go out")

        with pytest.raises(BoardError, match="the lights go out"):
            open_bench(prepared(DIVIDER_BENCH), replace(there, settle=settle))
        assert seen == [True]
        assert outputs_off(bench)


@pytest.mark.parametrize("wrong", [False, True])
def test_what_has_to_end_with_the_board_ends_once(wrong: bool) -> None:
    ended: list[str] = []
    calls: tuple[Callable[[], None], ...] = (lambda: ended.append("end"),)
    text = replaced(DIVIDER_BENCH, ('driver = "potboard"', 'driver = "potboard"\nserial = "A7"'))
    with served(DIVIDER_BENCH) as (_, there):
        if wrong:
            with pytest.raises(InputError):
                open_bench(prepared(text), replace(there, on_close=calls))
        else:
            board = open_bench(prepared(DIVIDER_BENCH), replace(there, on_close=calls))
            assert ended == []
            board.close()
            board.close()
    assert ended == ["end"]


def test_a_device_of_a_program_is_driven_and_closed() -> None:
    mine = Source()
    with (
        served(DIVIDER_BENCH) as (bench, there),
        open_bench(prepared(WITH_PYTHON), replace(there, devices={"clamp": mine})) as board,
    ):
        found = board.respond([[1.0, 0.0, np.nan], [1.0, 0.0, 0.2]])
        assert board.identities["clamp"] == mine.identity
        assert mine.driven[-1] == 0.2
        assert np.isnan(mine.driven[-2])
        # It drives nothing really, so the middle stays where the rest of the bench puts it.
        np.testing.assert_allclose(found.potentials[:, 1], bench.circuit.potentials()[1], atol=1e-8)
    assert mine.ended[0] == "safe"
    assert mine.ended[-1] == "closed"


def test_a_meter_of_a_program_is_read() -> None:
    text = replaced(
        GRID_BENCH,
        ('driver = "34970a"\nresource = "TCPIP::192.168.0.12::5025::SOCKET"', 'driver = "python"'),
        ('scanner = { "101" = 1, "102:104" = [2, 3, 4] }', 'scanner = { "x" = 1 }, pots = [2, 3, 4]'),
    )
    with_scanner = replaced(GRID_BENCH, ('"101" = 1, "102:104" = [2, 3, 4] }', '"101" = 1 }, pots = [2, 3, 4]'))
    with (
        served(with_scanner) as (_, there),
        open_bench(prepared(text), replace(there, devices={"scanner": Meter()}, plausible=False)) as board,
    ):
        found = board.respond([[1.0, 0.0, np.nan]])
        assert (found.potentials[0, 1], found.potentials_u[0, 1]) == (2.0, 0.25)


def test_a_missing_device_of_a_program_is_named_before_anything_is_opened() -> None:
    """Nothing is at the other resources either, but that is not what the reader has to hear first."""
    with pytest.raises(InputError, match=r'clamp has driver = "python": it must be handed over by a program'):
        open_bench(prepared(WITH_PYTHON))


def test_a_device_of_the_wrong_kind_is_refused() -> None:
    with served(DIVIDER_BENCH) as (bench, there):
        with pytest.raises(InputError, match=r"clamp is wired in bench\.wiring\.sources, but .* is no SourceBank"):
            open_bench(prepared(WITH_PYTHON), replace(there, devices={"clamp": Meter()}))
        assert outputs_off(bench)


def test_a_channel_that_a_programs_device_has_not_is_named() -> None:
    wrong = replaced(WITH_PYTHON, ("clamp = { x = 1 }", "clamp = [1]"))
    with served(DIVIDER_BENCH) as (bench, there):
        with pytest.raises(
            InputError, match=r"clamp has the channels x, but bench\.wiring wires 0: correct the wiring"
        ):
            open_bench(prepared(wrong), replace(there, devices={"clamp": Source()}))
        assert outputs_off(bench)


def test_a_relay_without_a_switch_cannot_open() -> None:
    relay = BoardRelay("clamp", {})
    relay.switch("1", True)
    with pytest.raises(BoardError, match="clamp channel 1 has no switch and cannot float: wire one"):
        relay.switch("1", False)
