"""These tests need a cross-compiler and an emulator; where they must be there, a missing one is an error."""

import os
import shutil

import pytest

from hilcl.errors import InputError
from hilcl.sim_backend.emulation.firmware import find_avr8js


def _missing() -> str | None:
    for tool in ("avr-gcc", "avr-objcopy", "gcc", "node"):
        if shutil.which(tool) is None:
            return tool
    try:
        find_avr8js()
    except InputError:
        return "avr8js"
    return None


@pytest.fixture(autouse=True, scope="session")
def _tools() -> None:
    missing = _missing()
    if missing is not None and "CI" not in os.environ:
        pytest.skip(f"{missing} is not installed, see docs/firmware.md")
