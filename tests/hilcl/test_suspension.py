import signal

import pytest

from hilcl.suspension import Suspensions


def test_being_continued_counts_within_the_block_only() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGCONT, lambda number, _: heard.append(number))
    try:
        suspensions = Suspensions()
        with suspensions:
            assert suspensions.count == 0
            signal.raise_signal(signal.SIGCONT)
            signal.raise_signal(signal.SIGCONT)
            assert suspensions.count == 2
        signal.raise_signal(signal.SIGCONT)
        assert suspensions.count == 2
        assert heard == [signal.SIGCONT] * 3
    finally:
        signal.signal(signal.SIGCONT, before)


def test_the_sleep_of_the_computer_counts_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = 100.0
    monkeypatch.setattr("hilcl.suspension._asleep", lambda: asleep)
    suspensions = Suspensions()
    assert suspensions.count == 0
    asleep = 100.1
    assert suspensions.count == 0
    asleep = 3700.1
    assert [suspensions.count, suspensions.count] == [1, 1]
    asleep = 3800.0
    assert suspensions.count == 2
