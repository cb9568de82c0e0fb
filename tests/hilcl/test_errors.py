import inspect

import pytest

from hilcl import errors
from hilcl.errors import BoardError, HilclError, InputError, SweepError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
NAMES = {kind.__name__ for kind in ALL}


def test_every_exception_is_ours() -> None:
    assert {"NetworkError", "DeviceRangeError", "TaskError", "RuleError", "ExperimentError", "StoreError"} <= NAMES
    assert {"ComplianceError", "MeasurementError", "SolverError"} <= NAMES
    for kind in ALL:
        assert issubclass(kind, HilclError)
        assert kind in {HilclError, SweepError} or issubclass(kind, InputError) != issubclass(kind, BoardError)


@pytest.mark.parametrize("kind", ALL)
def test_exit_codes(kind: type[HilclError]) -> None:
    """2 for what the user gave, 1 for what went wrong on the way."""
    assert kind.exit_code == (2 if issubclass(kind, InputError) else 1)


@pytest.mark.parametrize("kind", ALL)
def test_what_the_user_gave_is_a_value_error_too(kind: type[HilclError]) -> None:
    assert issubclass(kind, ValueError) == issubclass(kind, InputError)


@pytest.mark.parametrize("kind", ALL)
def test_the_sentence_is_kept(kind: type[HilclError]) -> None:
    assert str(kind("node 3 has no meter: give it one")) == "node 3 has no meter: give it one"
    assert kind.__doc__
