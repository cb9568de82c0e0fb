"""The exceptions hilcl raises: one sentence with what, where and the remedy."""


class HilclError(Exception):
    """Base of every error hilcl raises on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, sentence: str = "") -> None:
        # Names taken from files may hold line breaks and control characters; a message is one line.
        super().__init__("".join(letter if letter.isprintable() else " " for letter in sentence))


class InputError(HilclError, ValueError):
    """Something the user gave is wrong: nothing was done and nothing was written."""

    exit_code = 2


class NetworkError(InputError):
    """A network that no board can have, or roles that contradict each other."""


class DeviceRangeError(InputError):
    """A conductance range or a table of conductances that no device can have."""


class TaskError(InputError):
    """Data that cannot be put on a board, or targets no board can reach."""


class RuleError(InputError):
    """A learning rule with parameters that make no sense."""


class ExperimentError(InputError):
    """An experiment file that cannot be used."""


class StoreError(InputError):
    """A store that cannot be opened, read or written, or a run that is not in it."""


class BoardError(HilclError):
    """A board that did not do what it was asked; the experiment stops safe."""


class UnsafeBoardError(BoardError):
    """A board that could not be verified to be safe after all was tried: outputs may be on."""


class ComplianceError(BoardError):
    """A source reached its current limit, so its readings are not readings."""


class MeasurementError(BoardError):
    """A reading that is missing or not a finite number where the rule needs one."""


class SolverError(BoardError):
    """A circuit that could not be solved to the accuracy asked for."""


class SweepError(HilclError):
    """A sweep that cannot go on; the points that are done are stored."""
