import signal
import threading

import pytest

from hilcl.uninterrupted import uninterrupted


@uninterrupted("making the bench safe")
def work(done: list[str]) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    done.append("inner")


def test_a_signal_waits_until_the_work_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work(done)
    assert done == ["inner"]
    assert capfd.readouterr().err == "hilcl: making the bench safe, please wait\n" * 2


def test_where_an_error_is_on_its_way_the_signal_changes_nothing() -> None:
    done: list[str] = []

    def fail() -> None:
        try:
            raise ValueError("the first error")
        except ValueError:
            work(done)
            raise

    with pytest.raises(ValueError, match="the first error"):
        fail()
    assert done == ["inner"]


def test_an_error_of_the_work_itself_is_told() -> None:
    @uninterrupted("tidying up")
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()


def test_blocks_may_lie_within_each_other() -> None:
    done: list[str] = []

    @uninterrupted("outer")
    def outer() -> None:
        work(done)
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner", "outer"]


def test_afterwards_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    @uninterrupted("working")
    def work() -> int:
        return 7

    assert (work(), work()) == (7, 7)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with uninterrupted("working"):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_may_use_it() -> None:
    done: list[str] = []

    def work() -> None:
        with uninterrupted("working"):
            done.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["done"]
