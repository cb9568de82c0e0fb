"""The compiled firmware into a board, with avrdude."""

import shutil
import subprocess
from pathlib import Path

from hilcl.drivers.firmware.boards import McuBoard
from hilcl.errors import BoardError, InputError

PATIENCE = 120.0
"""Seconds avrdude may take."""


def avrdude_command(board: McuBoard, image: Path, port: str, baud: int | None = None) -> list[str]:
    """Return what is called: the board's bootloader writes the flash and nothing else; no fuse is touched."""
    rate = board.programmer_baud if baud is None else baud
    target = ["-p", board.mcu, "-c", board.programmer, "-P", port, "-b", str(rate)]
    return ["avrdude", *target, "-D", "-U", f"flash:w:{image}:i"]


def flash(board: McuBoard, image: Path, port: str, baud: int | None = None) -> None:
    """Write a hex file into a board on a serial port.

    Raises InputError where avrdude is not installed, BoardError with its last words where it fails.
    """
    if shutil.which("avrdude") is None:
        raise InputError("avrdude is not installed: install it with `apt-get install avrdude`")
    try:
        done = subprocess.run(
            avrdude_command(board, image, port, baud), capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as cause:
        raise BoardError(
            f"{board.title} on {port} did not take the firmware in {PATIENCE:g} s: check the cable"
        ) from cause
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and "done" not in line]
        told = lines[0] if lines else "avrdude said nothing"
        raise BoardError(
            f"{board.title} on {port} was not flashed ({told}): check port and board, and try --baud 57600 or 115200, "
            "the rates of the bootloaders"
        )
