"""What a run comes to: kept state, evaluation, certificate and remarks, as JSON values for the store."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.certificate import Certificate
from hilcl.device_range import DeviceRange
from hilcl.evaluation import Evaluation
from hilcl.store import History

STALL_SHARE = 0.2
"""Part of a run, at its end, over which an error that no longer falls counts as stalled."""

STALL_GAIN = 0.01
"""Relative fall of the loss over that part below which it has stalled."""


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON values."""
    return {
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "confusion": None if evaluation.confusion is None else evaluation.confusion.tolist(),
        "predicted": None if evaluation.predicted is None else evaluation.predicted.tolist(),
        "outputs": evaluation.outputs.tolist(),
    }


def run_summary(
    history: History,
    *,
    stopped_by: str,
    kept_epoch: int | None,
    kept_conductances: FloatArray,
    centres: FloatArray | None,
    evaluations: Mapping[str, Evaluation],
    certificate: Certificate,
    device_range: DeviceRange,
) -> dict[str, Any]:
    """Return the summary of a run; ``kept_epoch`` is the epoch whose state was kept, None for the last state."""
    return {
        "epochs": len(history),
        "stopped_by": stopped_by,
        "kept_epoch": kept_epoch,
        "kept_conductances": kept_conductances.tolist(),
        "pinned": held_at_limits(kept_conductances, device_range),
        "centres": None if centres is None else centres.tolist(),
        "evaluation": {part: evaluation_json(each) for part, each in evaluations.items()},
        "coverage": certificate.coverage,
        "certificate": certificate.sentences(),
        "largest_clamp_error": float(history.scalars["clamp_error"].max(initial=0.0)),
        "remarks": _about_kept(history, kept_conductances, device_range) + remarks(history, device_range, certificate),
        "loop_seconds": float(sum(history.scalars[key].sum() for key in ("measure_s", "update_s", "program_s"))),
    }


def held_at_limits(conductances: FloatArray, device_range: DeviceRange) -> list[int]:
    """Return the numbers of the edges whose conductance is at its lower or upper limit."""
    return np.flatnonzero((conductances <= device_range.g_min) | (conductances >= device_range.g_max)).tolist()


def _about_kept(history: History, kept: FloatArray, device_range: DeviceRange) -> list[str]:
    if not len(history) or len(history.pinned[-1]) <= len(held_at_limits(kept, device_range)):
        return []
    count = len(history.pinned[-1])
    return [f"After the last epoch {count} edges were held at a limit, more than on the board that was kept."]


def remarks(history: History, device_range: DeviceRange, certificate: Certificate) -> list[str]:
    """Return what a user should know about how the run went, in plain sentences."""
    said: list[str] = []
    loss = history.scalars["loss"]
    tail = max(2, round(STALL_SHARE * len(loss)))
    pinned = history.pinned[-1] if len(history) else np.zeros(0, dtype=np.int64)
    if len(loss) > 2 * tail and certificate.realisable is not False:
        early, late = float(np.median(loss[-2 * tail : -tail])), float(np.median(loss[-tail:]))
        at_low = int((history.conductances[-1][pinned] <= device_range.g_min[pinned]).sum())
        if late > (1 - STALL_GAIN) * early and late > 0 and at_low:
            said.append(
                f"The error has stalled at {late:.3g} V² with {len(pinned)} edges held at a limit, {at_low} of them at "
                "the lowest conductance: that is how targets look that no conductances within the limits can all meet."
            )
    if history.codes is not None and len(history) > tail:
        still = float((np.diff(history.codes[-tail:], axis=0) == 0).all(axis=0).mean())
        if still == 1.0 and loss[-1] > 0:
            said.append(f"No code has changed in the last {tail} epochs: a longer run brings little.")
    return said
