"""Values of a store's rows: steps and arrays as SQLite keeps them, and digests that tell whether they still are."""

import hashlib
import io
import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hilcl.training import Step


def step_row(step: Step) -> tuple[Any, ...]:
    """Return a step in the order of ``STEP_COLUMNS``."""
    checkpoint = step.checkpoint
    random = {"loop": dict(checkpoint.generator), "board": dict(checkpoint.board)}
    return (
        step.epoch,
        step.loss,
        step.contrast,
        step.step_size,
        step.residual,
        step.lower_bound,
        None if np.isnan(step.power) else step.power,
        step.clamp_error,
        step.timings.measure,
        step.timings.update,
        step.timings.program,
        checkpoint.updates,
        step.outputs.astype("<f8").tobytes(),
        step.conductances.astype("<f8").tobytes(),
        None if np.array_equal(step.state, step.conductances) else step.state.astype("<f8").tobytes(),
        None if step.codes is None else step.codes.astype("<i4").tobytes(),
        step.pinned.astype("<i4").tobytes(),
        json.dumps(random) if random["loop"] or random["board"] else None,
    )


def digest_of(values: tuple[Any, ...]) -> bytes:
    """Return what tells whether stored values are as they were written: SQLite itself notices torn pages only."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        if isinstance(value, bytes):
            kind, part = b"b", value
        elif isinstance(value, str):
            kind, part = b"t", value.encode("utf-8", "surrogatepass")
        elif value is None:
            kind, part = b"n", b""
        else:  # SQLite may give a number back as another type, and zero without its sign
            kind, part = b"r", struct.pack("<d", value + 0.0)
        digest.update(b"%s%d:%s" % (kind, len(part), part))
    return digest.digest()


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays by name as one archive."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpacked(blob: bytes) -> dict[str, Any]:
    """Return the arrays of an archive; no pickle is ever loaded."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def now() -> str:
    """Return the time of day as the store keeps it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
