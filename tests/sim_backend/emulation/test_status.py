from hypothesis import given
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.scpi import ScpiError
from hilcl.sim_backend.emulation.status import ErrorQueue, QueuedError, RegisterSet, Status


@given(st.lists(st.integers(-999, 999).filter(bool), max_size=30), st.integers(1, 10))
def test_queue_is_first_in_first_out_and_its_last_entry_tells_of_the_overflow(codes: list[int], capacity: int) -> None:
    queue = ErrorQueue(capacity)
    for code in codes:
        queue.push(code, str(code))
    assert len(queue) == min(len(codes), capacity)
    taken = [queue.pop().code for _ in range(len(queue))]
    if len(codes) <= capacity:
        assert taken == codes
    else:
        assert taken == [*codes[: capacity - 1], -350]
    assert queue.pop() == QueuedError(0, "No error")


def test_errors_set_their_class_in_the_event_register() -> None:
    for code, bit in ((-113, 32), (-222, 16), (-310, 8), (-420, 4), (803, 16), (500, 8)):
        status = Status(event=0)
        status.add_error(ScpiError(code))
        assert status.event == bit
        assert status.status_byte() == 4
        assert status.read_event() == bit
        assert status.read_event() == 0


def test_summaries_reach_the_status_byte_only_when_enabled() -> None:
    register = RegisterSet()
    status = Status(event=0, registers={"MEASurement": (register, 1)})
    register.raise_event(512)
    assert status.status_byte() == 0
    register.enable = 512
    assert status.status_byte() == 1
    status.service_enable = 1
    assert status.status_byte() == 65
    assert register.read_event() == 512
    assert status.status_byte() == 0


def test_conditions_are_latched_when_they_rise() -> None:
    register = RegisterSet()
    register.set_condition(8)
    register.set_condition(0)
    assert (register.condition, register.read_event(), register.read_event()) == (0, 8, 0)


def test_clear_keeps_what_is_enabled() -> None:
    register = RegisterSet(event=3, enable=7)
    status = Status(event=255, event_enable=17, service_enable=9, registers={"OPERation": (register, 128)})
    status.add_error(ScpiError(-113))
    status.clear()
    assert (len(status.errors), status.event, register.event) == (0, 0, 0)
    assert (status.event_enable, status.service_enable, register.enable) == (17, 9, 7)
    status.preset()
    assert register.enable == 0
