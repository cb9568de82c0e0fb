"""The firmware compiled for a board, with avr-gcc and avr-libc alone."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from hilcl.drivers.firmware.header import render
from hilcl.drivers.firmware.wiring import Wiring
from hilcl.errors import InputError

SOURCES = ("protocol.c", "text.c", "pots.c", "bus.c", "avr.c")
HEADERS = ("platform.h", "crc.h", "potboard.h", "wires.h", "bus.h")
STACK = 256
"""Bytes kept free for the stack; the deepest path needs fewer."""

WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow")


@dataclass(frozen=True)
class Built:
    """The compiled firmware: its files, and the bytes it takes of the board's memories."""

    elf: Path
    hex: Path
    flash: int
    flash_size: int
    ram: int
    ram_size: int

    def __str__(self) -> str:
        return (
            f"flash {self.flash} of {self.flash_size} bytes ({self.flash / self.flash_size:.0%}), "
            f"RAM {self.ram} of {self.ram_size} bytes ({self.ram / self.ram_size:.0%})"
        )


def copy_sources(folder: Path) -> None:
    """Put the firmware's C files into a folder."""
    with as_file(files("hilcl.drivers.firmware") / "src") as source:
        for name in (*SOURCES, *HEADERS):
            shutil.copyfile(source / name, folder / name)


def build(wiring: Wiring, folder: Path) -> Built:
    """Write wiring.h and the sources into ``folder``, and compile them there.

    Raises InputError where the compiler is missing, the folder cannot be written, or the firmware is too large.
    """
    compiler, sizer, copier = (_tool(name) for name in ("avr-gcc", "avr-size", "avr-objcopy"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy_sources(folder)
        (folder / "wiring.h").write_text(render(wiring), encoding="ascii")
    except OSError as cause:
        raise InputError(
            f"the firmware cannot be written to {folder} ({cause.strerror}): choose another folder"
        ) from cause
    elf, image = folder / "potboard.elf", folder / "potboard.hex"
    board = wiring.board
    options = [f"-mmcu={board.mcu}", f"-DF_CPU={board.clock}UL", "-O2", "-flto", *WARNINGS]
    _run([compiler, *options, "-o", elf.name, *SOURCES], folder, "compiled")
    _run([copier, "-O", "ihex", "-R", ".eeprom", elf.name, image.name], folder, "converted")
    text = _run([sizer, elf.name], folder, "measured").splitlines()[1].split()
    code, data, zeros = (int(field) for field in text[:3])
    built = Built(elf, image, code + data, board.flash, data + zeros, board.ram)
    if built.flash > built.flash_size or built.ram > built.ram_size - STACK:
        raise InputError(f"the firmware does not fit {board.title} ({built}): wire fewer pots, or take a larger board")
    return built


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise InputError(f"{name} is not installed: install it with `apt-get install gcc-avr avr-libc binutils-avr`")
    return found


def _run(command: list[str], folder: Path, what: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = re.sub(r"\s+", " ", done.stderr).strip()[:400]
        raise InputError(f"the firmware could not be {what}: {told or 'the compiler said nothing'}")
    return done.stdout
