"""The fuzzer itself: its inputs repeat, and what fails is seen, told apart and made short."""

from itertools import islice
from random import Random

import pytest

from tests.fuzz import running
from tests.fuzz.mutation import inputs
from tests.fuzz.running import shortened, tried, watched


def some(seed: int, kept: list[bytes]) -> list[bytes]:
    return list(islice(inputs(kept, [b"word"], Random(seed), 50), 200))


@pytest.mark.parametrize("kept", [[], [b""], [b"one", b"another " * 9]])
def test_inputs_repeat_and_are_no_longer_than_allowed(kept: list[bytes]) -> None:
    assert some(1, kept) == some(1, kept)
    assert some(1, kept) != some(2, kept)
    assert some(1, kept)[: len(kept)] == [each[:50] for each in kept]
    assert max(map(len, some(1, kept))) <= 50


def picky(data: bytes) -> None:
    if b"b" in data and b"d" in data:
        raise ValueError
    if b"x" in data:
        raise KeyError


def test_failures_are_told_apart_and_made_short() -> None:
    with watched():
        assert tried(picky, b"harmless") is None
        failure, other = tried(picky, b"a b c d e x"), tried(picky, b"x")
        assert failure is not None
        assert other is not None
        assert failure.key == "ValueError at test_running.py:picky"
        assert other.key == "KeyError at test_running.py:picky"
        assert "raise ValueError" in failure.report
        assert shortened(picky, b"a b c d e x", failure) == b"bd"


def test_what_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS", 0.05)

    def endless(data: bytes) -> None:
        while True:
            try:
                picky(data)
            except Exception:  # noqa: BLE001 - as a parser might
                continue

    with watched():
        failure = tried(endless, b"")
    assert failure is not None
    assert failure.key == "TooSlowError"
