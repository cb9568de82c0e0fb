"""What can be wrong with a calibration."""

from hilcl.errors import InputError


class CalibrationError(InputError):
    """A calibration file that cannot be used, or not on this board."""
