from hilcl.events import MOST_EVENTS, Event, EventLog, events_of


class Talkative:
    def __init__(self) -> None:
        self.log = EventLog("smu1")

    def take_events(self) -> list[Event]:
        return self.log.take()


def test_events_are_taken_once_and_in_order() -> None:
    device = Talkative()
    device.log.note("no answer", "asked again")
    device.log.note("in compliance", "read again")
    assert events_of([object(), device]) == [
        Event("smu1", "no answer", "asked again"),
        Event("smu1", "in compliance", "read again"),
    ]
    assert events_of([device]) == []


def test_a_log_that_nobody_reads_stays_bounded() -> None:
    log = EventLog()
    for number in range(MOST_EVENTS + 5):
        log.note(str(number), "")
    taken = log.take()
    assert len(taken) == MOST_EVENTS
    assert taken[0].what == "5"


def test_an_event_reads_as_one_line() -> None:
    assert str(Event("smu1", "no answer", "asked again", 3)) == "smu1: no answer; asked again"
    assert str(Event("", "a reading did not repeat", "read again")) == "a reading did not repeat; read again"
