from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from hilcl.drivers.owner_thread import OwnerThread
from hilcl.strand import Strand, forked, own_strand, present_strand

CLOCK = object()


def spend(seconds: float) -> None:
    own_strand().reached[CLOCK] += seconds


def on_new_strand(seconds: float = 0.0) -> Strand:
    strand = own_strand()
    strand.reached[CLOCK] = seconds
    return strand


def test_a_strand_ends_where_the_latest_of_those_it_waited_for_is() -> None:
    strand = on_new_strand(1.0)
    parts = [forked(lambda seconds=seconds: spend(seconds)) for seconds in (2.0, 5.0, 3.0)]  # type: ignore[misc]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: part[1](), parts))
    assert strand.reached[CLOCK] == 1.0
    for part, _ in parts:
        strand.join(part)
    assert strand.reached[CLOCK] == 6.0


def test_a_strand_that_follows_no_clock_gets_none_but_by_waiting() -> None:
    other, strand = Strand({CLOCK: 3.0}), Strand()
    strand.join(other)
    assert strand.reached == {CLOCK: 3.0}


def test_a_thread_begins_on_no_strand() -> None:
    own_strand()
    found: list[Strand | None] = []
    thread = Thread(target=lambda: found.append(present_strand()))
    thread.start()
    thread.join()
    assert found == [None]


def test_waiting_for_an_owner_thread_takes_its_time_over() -> None:
    strand = on_new_strand()
    owner = OwnerThread("link")
    try:
        owner.run(lambda: spend(2.0))
        assert strand.reached[CLOCK] == 2.0
        # What is only started is not waited for, and runs in an order of its own.
        owner.submit(lambda: spend(7.0)).result()
        assert strand.reached[CLOCK] == 2.0

        def fails() -> None:
            spend(1.0)
            raise LookupError

        with pytest.raises(LookupError):
            owner.run(fails)
        assert strand.reached[CLOCK] == 3.0
    finally:
        owner.close()
