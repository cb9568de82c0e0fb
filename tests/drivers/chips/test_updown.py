from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.drivers.chips import UpDownFrame, waveform
from hilcl.drivers.chips.frames import SpiFrame
from hilcl.drivers.chips.updown import Lines, steps, stores

FRAMES = st.builds(UpDownFrame, up=st.booleans(), pulses=st.integers(0, 130))


def test_two_steps_down() -> None:
    high, low = Lines(False, False, True), Lines(False, False, False)
    rest = Lines(True, False, True)
    assert waveform(UpDownFrame(up=False, pulses=2)) == (rest, high, low, high, low, Lines(True, False, False), rest)


@given(FRAMES)
def test_a_waveform_steps_as_often_as_asked(frame: UpDownFrame) -> None:
    assert steps(waveform(frame)) == (frame.pulses if frame.up else -frame.pulses)


@given(FRAMES)
def test_a_waveform_never_stores(frame: UpDownFrame) -> None:
    assert not stores(waveform(frame))


@given(st.lists(FRAMES))
def test_nor_do_waveforms_in_a_row(frames: list[UpDownFrame]) -> None:
    levels = tuple(level for frame in frames for level in waveform(frame))
    assert not stores(levels)
    assert steps(levels) == sum(steps(waveform(frame)) for frame in frames)


def test_deselecting_with_the_clock_high_would_store() -> None:
    assert stores((Lines(False, True, True), Lines(True, True, True)))
    assert not stores((Lines(False, True, False), Lines(True, True, False), Lines(True, True, True)))


@given(FRAMES)
def test_a_waveform_moves_one_line_at_a_time_and_sets_the_direction_before_it_selects(frame: UpDownFrame) -> None:
    levels = waveform(frame)
    assert all(level.up == frame.up for level in levels)
    for before, after in pairwise(levels):
        assert (before.deselected != after.deselected) + (before.clock != after.clock) == 1


@pytest.mark.parametrize(("payload", "bits"), [("0800", 11), ("00", 9), ("0000", 8), ("", 0), ("0000", 17)])
def test_a_word_fits_its_bytes(payload: str, bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        SpiFrame(bytes.fromhex(payload), bits)
