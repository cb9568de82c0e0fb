"""Settings for all tests."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Nothing here may depend on how fast the machine is.
settings.register_profile("hilcl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hilcl")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that ends in this process ignores signals from then on, and so would every process started later."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
