import math
import threading
import time

import pytest

from hilcl.errors import InputError
from hilcl.sim_backend.emulation.bench_clock import BenchClock


def in_thread(clock: BenchClock, *durations: float) -> None:
    def work() -> None:
        for seconds in durations:
            clock.spend(seconds)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_time_passes_only_where_somebody_waits() -> None:
    clock = BenchClock()
    assert clock.now() == 0.0
    clock.spend(3.0)
    clock.spend(0.5)
    assert clock.now() == 3.5


def test_instruments_wait_in_parallel() -> None:
    clock = BenchClock()
    in_thread(clock, 2.0, 1.0)
    in_thread(clock, 1.0)
    assert clock.now() == 3.0


def test_time_never_goes_back() -> None:
    clock = BenchClock()
    in_thread(clock, 5.0)
    clock.spend(1.0)
    first = clock.now()
    assert first >= 5.0
    clock.spend(10.0)
    assert clock.now() >= first


def test_unscaled_time_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", pytest.fail)
    BenchClock().spend(1e9)


def test_scaled_time_blocks_by_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = [100.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        real[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: real[0])
    monkeypatch.setattr(time, "sleep", sleep)
    clock = BenchClock(0.25)
    assert clock.now() == 0.0
    clock.spend(2.0)
    assert slept == [0.5]
    assert clock.now() == 2.0
    real[0] += 1.0
    assert clock.now() == 6.0


@pytest.mark.parametrize("scale", [-0.1, math.inf, math.nan])
def test_a_scale_that_cannot_be_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="time scale of an emulated bench must be 0 or more"):
        BenchClock(scale)
