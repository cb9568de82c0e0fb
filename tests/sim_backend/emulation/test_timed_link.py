"""Messages carry the time of the bench's clock: what is done in turn adds up, what threads do at once counts once."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from hilcl.sim_backend.emulation.bench_clock import BenchClock
from hilcl.sim_backend.emulation.server import Delivery, NoFaults
from hilcl.sim_backend.emulation.timed_link import TimedLine, TimedLink
from hilcl.strand import forked, own_strand

ROUND_TRIP = 0.5


class Instrument:
    """An instrument in a thread of its own, which works for some seconds on every message."""

    def __init__(self, clock: BenchClock, per_byte: float = 0.0) -> None:
        self.clock, self.link = clock, TimedLink(clock, delay=ROUND_TRIP / 2, per_byte=per_byte)
        self.line = TimedLine(self.link, NoFaults())
        self.thread = ThreadPoolExecutor(max_workers=1)

    def ask(self, seconds: float, size: int = 0, *, times: int = 1) -> None:
        def work() -> Delivery | None:
            self.work(seconds)
            return self.line.replied(b"")

        for _ in range(times):
            self.link.sent(size)
            self.thread.submit(work).result()
            self.link.received(size)

    def work(self, seconds: float) -> None:
        self.line.received("measure")
        self.clock.spend(seconds)


@contextmanager
def instruments(count: int, per_byte: float = 0.0, scale: float = 0.0) -> Iterator[tuple[BenchClock, list[Instrument]]]:
    clock = BenchClock(scale)
    found = [Instrument(clock, per_byte) for _ in range(count)]
    try:
        yield clock, found
    finally:
        for each in found:
            each.thread.shutdown()


def at_once(jobs: Sequence[Callable[[], None]]) -> None:
    strands = [forked(job) for job in jobs]
    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        list(pool.map(lambda strand: strand[1](), strands))
    for strand, _ in strands:
        own_strand().join(strand)


def test_messages_in_turn_add_up() -> None:
    with instruments(2) as (clock, (one, other)):
        clock.follow()
        one.ask(1.0)
        assert clock.now() == 1.5
        other.ask(2.0)
        assert clock.now() == 4.0
        clock.spend(0.25)
        one.ask(0.0)
        assert clock.now() == 4.75


def test_messages_at_once_count_once_and_those_on_one_link_in_turn() -> None:
    with instruments(3) as (clock, (one, other, third)):
        clock.follow()
        for _ in range(20):
            begun = clock.now()
            at_once([lambda: one.ask(1.0), lambda: other.ask(0.5, times=2), lambda: third.ask(0.1)])
            assert clock.now() - begun == pytest.approx(2.0, rel=0, abs=1e-9)


def test_bytes_take_their_time_both_ways() -> None:
    with instruments(1, per_byte=0.01) as (clock, (one,)):
        clock.follow()
        one.ask(1.0, size=10)
        assert clock.now() == pytest.approx(1.7, rel=0, abs=1e-12)


def test_an_instrument_that_is_still_busy_begins_later() -> None:
    with instruments(1) as (clock, (one,)):
        clock.follow()
        one.link.sent(0)
        one.thread.submit(one.work, 3.0).result()
        one.ask(1.0)
        assert clock.now() == 0.25 + 3.0 + 1.0 + 0.25


def test_who_does_not_follow_the_clock_takes_no_time_and_disturbs_nobody() -> None:
    with instruments(1) as (clock, (one,)):
        clock.follow()
        one.ask(1.0)
        heartbeat = ThreadPoolExecutor(max_workers=1)
        heartbeat.submit(one.ask, 0.0, times=5).result()
        heartbeat.shutdown()
        one.ask(1.0)
        assert clock.now() == 3.0


def test_an_instrument_has_its_own_time() -> None:
    with instruments(1) as (clock, (one,)):
        clock.follow()
        clock.spend(10.0)
        one.ask(1.0)
        assert one.thread.submit(clock.now).result() == 11.25
        assert clock.now() == 11.5


def test_what_is_done_aside_passes_when_it_is_waited_for() -> None:
    with instruments(1) as (clock, (one,)):
        clock.follow()

        def work() -> None:
            one.line.received("measure")
            taken = [clock.aside(lambda seconds=seconds: clock.spend(seconds))[1] for seconds in (2.0, 3.0)]  # type: ignore[misc]
            assert (taken, clock.now()) == ([2.0, 3.0], 0.25)
            clock.spend(max(taken))
            one.line.replied(b"")

        one.link.sent(0)
        one.thread.submit(work).result()
        one.link.received(0)
        assert clock.now() == 3.5


def test_a_scaled_clock_waits_for_messages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with instruments(1, per_byte=0.01, scale=0.5) as (_, (one,)):
        one.ask(1.0, size=10)
    assert slept == pytest.approx([0.175, 0.5, 0.175])
