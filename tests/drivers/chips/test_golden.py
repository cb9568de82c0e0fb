"""Every chip's frames, byte for byte, against literals from data sheets, or from drivers where only those exist."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hilcl.drivers.chips import (
    Frame,
    I2cFrame,
    SpiFrame,
    UpDownFrame,
    chip,
    chips,
    decode_reply,
    read_frames,
    unlock_frames,
    write_frames,
)

ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


class Case(NamedTuple):
    name: str
    address: int | None
    kind: str
    given: list[Any]


def cases(kind: str) -> list[Any]:
    """Return one case for each chip and each entry of a kind, marked with its source."""
    return [
        pytest.param(
            Case(name, int(row["address"], 16) if "address" in row else None, kind, entry), id=f"{name}-{entry}"
        )
        for row in ROWS
        for name in row["chips"]
        for entry in ([row[kind]] if kind == "unlock" and kind in row else row.get(kind, []))
    ]


def frame(text: str) -> Frame:
    """Return the frame written as "spi16 1180", "spi16 0000 reply", "i2c 2C w80 r1" or "up 5"."""
    kind, *rest = text.split()
    if kind.startswith("spi"):
        return SpiFrame(bytes.fromhex(rest[0]), int(kind[3:]), reply=rest[1:] == ["reply"])
    if kind == "i2c":
        written = "".join(part[1:] for part in rest[1:] if part[0] == "w")
        read = sum(int(part[1:]) for part in rest[1:] if part[0] == "r")
        return I2cFrame(int(rest[0], 16), bytes.fromhex(written), read)
    return UpDownFrame(up=kind == "up", pulses=int(rest[0]))


@pytest.mark.parametrize("case", cases("writes"))
def test_writes(case: Case) -> None:
    channel, code, expected = case.given
    assert write_frames(chip(case.name), channel, code, address=case.address) == tuple(map(frame, expected))


@pytest.mark.parametrize("case", cases("steps"))
def test_steps_from_a_known_code(case: Case) -> None:
    current, code, expected = case.given
    assert write_frames(chip(case.name), 0, code, current=current) == tuple(map(frame, expected))


@pytest.mark.parametrize("case", cases("reads"))
def test_reads(case: Case) -> None:
    channel, expected, reply, code = case.given
    known = chip(case.name)
    assert read_frames(known, channel, address=case.address) == tuple(map(frame, expected))
    assert decode_reply(known, channel, bytes.fromhex(reply), address=case.address) == code


@pytest.mark.parametrize("case", cases("unlock"))
def test_unlocking(case: Case) -> None:
    assert unlock_frames(chip(case.name), address=case.address) == tuple(map(frame, case.given))


def test_every_chip_has_two_golden_writes_and_a_read_and_an_unlocking_if_it_can() -> None:
    def count(kind: str) -> dict[str, int]:
        names = [name for row in ROWS for name in row["chips"] for _ in row.get(kind, [])]
        return {name: names.count(name) for name in names}

    writes, reads, unlocks = count("writes"), count("reads"), count("unlock")
    for known in chips():
        assert writes.get(known.name, 0) >= 2, known.name
        assert (known.name in reads) == known.readable, known.name
        assert (known.name in unlocks) == bool(known.unlock), known.name


def test_every_golden_frame_names_its_source() -> None:
    assert all(row["source"] for row in ROWS)
