"""Signals that come again, while a command is ending and after it has ended."""

import signal
from contextlib import ExitStack

import pytest

from hilcl.cli.signals import handlers_kept, signals_interrupt


def interrupted_twice(done: list[str]) -> None:
    with signals_interrupt(), ExitStack() as ending:
        ending.callback(done.append, "ending")
        ending.callback(signal.raise_signal, signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)


def test_more_signals_do_not_break_off_what_the_first_one_began(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    with handlers_kept():
        with pytest.raises(KeyboardInterrupt):
            interrupted_twice(done)
        assert capfd.readouterr().err == "hilcl: stopping already, please wait\n"
        # Nothing is being handled any more, as when the last sentence has been said.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        assert capfd.readouterr().err == ""
    assert done == ["ending"]
    with pytest.raises(KeyboardInterrupt), handlers_kept(), signals_interrupt():
        signal.raise_signal(signal.SIGTERM)
