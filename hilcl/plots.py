"""Curves and scatter plots of a run, as matplotlib figures that do not know where they will be shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import InputError

_SIZE = (4.9, 3.1)
_FONT = 9.0
_INK = "#222222"
_BLUE = "#1f6fb2"
_ORANGE = "#c8641b"
_GREY = "#8a8a8a"
# More dots than these are one raster image: as single shapes they would be too heavy for a browser.
_VECTOR_DOTS = 2000
# A scale that spans less than this is read better without logarithms.
_LOG_FROM = 3.0

_CURVES = (_BLUE, _ORANGE, "#2b8a5a", "#8a4fa3", "#b8323c", "#7a6a1f", "#3a3a3a", "#5fa8c9")
MOST_YIELD_CURVES = len(_CURVES)

_LOOKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "markersize": 4.5, "color": _GREY, "markerfacecolor": "none", "markeredgewidth": 0.9},
    {"marker": "o", "markersize": 4.0, "color": _BLUE, "markeredgewidth": 0.0},
    {"marker": "D", "markersize": 3.8, "color": _ORANGE, "markeredgewidth": 0.0},
)


@dataclass(frozen=True)
class Outputs:
    """What one output node should have (S,) and what it was measured to have (S,), in volts."""

    targets: FloatArray
    measured: FloatArray


@dataclass(frozen=True)
class YieldCurve:
    """Losses (n,) in V² that n of ``boards`` boards came to; the others could not be trained."""

    label: str
    losses: FloatArray
    boards: int


def loss_figure(epochs: npt.ArrayLike, loss: npt.ArrayLike, *, kept_epoch: int | None = None) -> Figure:
    """Return the loss (E,) in V² over the epochs (E,), on a logarithmic scale; the kept epoch is marked."""
    figure, ax, x, y = _curve(epochs, loss, "Loss (V²)")
    kept = np.flatnonzero(x == kept_epoch)
    if kept.size:
        ax.plot(
            x[kept], y[kept], linestyle="", marker="o", markersize=7, markerfacecolor="none", markeredgewidth=1.4,
            color=_ORANGE, label=f"kept: epoch {kept_epoch}", zorder=3,
        )  # fmt: skip
        _add_legend(ax)
    return figure


def contrast_figure(epochs: npt.ArrayLike, contrast: npt.ArrayLike, lower_bound: npt.ArrayLike | None = None) -> Figure:
    """Return the contrast Q (E,) in watts over the epochs (E,), and the positive values of ``lower_bound`` (E,)."""
    bound = None if lower_bound is None else np.asarray(lower_bound, dtype=np.float64)
    if bound is not None and not (bound > 0).any():
        bound = None
    figure, ax, x, _ = _curve(epochs, contrast, "Contrast Q (W)", also=bound)
    if bound is not None:
        ax.plot(
            x, np.where(bound > 0, bound, np.nan), linestyle="--", linewidth=1.3, color=_ORANGE,
            marker="o" if len(x) == 1 else None, label="no conductances within the limits reach below", zorder=2,
        )  # fmt: skip
        ax.lines[0].set_label("Q")
        _add_legend(ax)
    return figure


def step_size_figure(epochs: npt.ArrayLike, step_size: npt.ArrayLike) -> Figure:
    """Return the step size γ (E,) in S/V² over the epochs (E,)."""
    return _curve(epochs, step_size, "Step size γ (S/V²)")[0]


def output_figure(parts: Sequence[Outputs], *, title: str | None = None) -> Figure:
    """Return measured against target volts of one output node, with the line where they are equal.

    Parts are drawn in their order: grey rings, blue dots, orange diamonds.

    Raises InputError when there is no part, more than three, or one has not a measured value for each target.
    """
    if not 1 <= len(parts) <= len(_LOOKS):
        raise InputError(f"an output plot shows one to {len(_LOOKS)} parts, got {len(parts)}")
    for part in parts:
        if part.targets.ndim != 1 or part.targets.shape != part.measured.shape:
            raise InputError(
                f"an output plot needs one value per target, got {part.measured.shape} for {part.targets.shape}"
            )
    figure = Figure(figsize=(2.9, 2.9), layout="constrained", facecolor="none")
    ax = figure.add_subplot()
    _dress(ax)
    everything = np.concatenate([values for part in parts for values in (part.targets, part.measured)])
    finite = everything[np.isfinite(everything)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.07 * (high - low) or 0.05 * abs(high) or 0.5
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color=_GREY, linewidth=0.9, zorder=1)
    for number, (part, look) in enumerate(zip(parts, _LOOKS, strict=False)):
        (dots,) = ax.plot(part.targets, part.measured, linestyle="", alpha=0.8, zorder=2 + number, **look)
        dots.set_rasterized(len(part.targets) > _VECTOR_DOTS)
    ax.set(xlim=ends, ylim=ends)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.set_xlabel("Target (V)", fontsize=_FONT)
    ax.set_ylabel("Output (V)", fontsize=_FONT)
    if title is not None:
        ax.set_title(title, fontsize=_FONT, color=_INK, parse_math=False)
    return figure


def yield_figure(curves: Sequence[YieldCurve], *, legend: str | None = None) -> Figure:
    """Return the share of boards at or below each loss, one staircase per curve; ``legend`` is its title.

    Raises InputError for no curve, more than ``MOST_YIELD_CURVES``, or more losses than boards.
    """
    if not 1 <= len(curves) <= MOST_YIELD_CURVES:
        raise InputError(f"a yield plot shows one to {MOST_YIELD_CURVES} curves, got {len(curves)}")
    if any(curve.boards < max(len(curve.losses), 1) for curve in curves):
        raise InputError("a yield plot needs as many boards as losses, and at least one")
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
    ax = figure.add_subplot()
    _dress(ax)
    everything = np.concatenate([curve.losses for curve in curves])
    positive = everything[everything > 0]
    logarithmic = positive.size == everything.size > 0
    low, high = (float(everything.min()), float(everything.max())) if everything.size else (0.0, 1.0)
    if logarithmic:
        reach = max(high / low, 1.5) ** 0.05
        ends = (low / reach, high * reach)
        ax.set_xscale("log" if high / low >= _LOG_FROM else "linear")
    else:
        margin = 0.05 * (high - low) or 0.05
        ends = (low - margin, high + margin)
    for number, curve in enumerate(curves):
        losses = np.sort(curve.losses)
        share = np.arange(1, len(losses) + 1) / curve.boards
        # Every board counts once: the staircase starts at nothing and ends with the last board that could be trained.
        x = np.concatenate([[ends[0]], losses, [ends[1]]])
        y = np.concatenate([[0.0], share, share[-1:] if len(share) else [0.0]])
        ax.step(
            x, 100 * y, where="post", linewidth=1.5, color=_CURVES[number], label=f"{curve.label} (n = {curve.boards})"
        )
    ax.set(xlim=ends, ylim=(-2.0, 102.0))
    ax.set_xlabel("Loss x (V²)", fontsize=_FONT)
    ax.set_ylabel("Boards that reach x (%)", fontsize=_FONT)
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=True)
        ax.xaxis.get_offset_text().set(size=_FONT, color=_INK)
    else:
        span = ends[1] / ends[0]
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 300 else (1.0,)))
        ax.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    texts = ax.legend(frameon=False, fontsize=_FONT - 1, labelcolor=_INK, title=legend, loc="best").get_texts()
    for text in texts:
        text.set_parse_math(False)
    return figure


def _curve(
    epochs: npt.ArrayLike, values: npt.ArrayLike, label: str, *, also: FloatArray | None = None
) -> tuple[Figure, Axes, IntArray, FloatArray]:
    """Return a figure with one curve over the epochs, and the curve; values that the scale cannot show are NaN."""
    x, y = np.asarray(epochs, dtype=np.int64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"a curve needs one value per epoch, got {x.shape} epochs and {y.shape} values")
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
    ax = figure.add_subplot()
    _dress(ax)
    seen = y if also is None else np.concatenate([y, also])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    # One negative reading (noise) is left out of the scale; if most are not positive there is no scale to speak of.
    logarithmic = seen.size > 0 and 2 * (y > 0).sum() >= len(y)
    if logarithmic:
        y = np.where(y > 0, y, np.nan)
        span = float(seen.max() / seen.min())
        if span >= _LOG_FROM:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 300 else (1.0,)))
            ax.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylim(0.0, 1.1 * float(seen.max()))
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
        ax.yaxis.get_offset_text().set(size=_FONT, color=_INK)
    ax.plot(x, y, color=_BLUE, linewidth=1.5, marker="o" if len(x) == 1 else None, markersize=5, zorder=2)
    ax.set_xlabel("Epoch", fontsize=_FONT)
    ax.set_ylabel(label, fontsize=_FONT)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(x) == 1:
        ax.set_xlim(float(x[0]) - 1.0, float(x[0]) + 1.0)
    elif len(x):
        ax.set_xlim(float(x[0]) - 0.02 * float(np.ptp(x)), float(x[-1]) + 0.02 * float(np.ptp(x)))
    return figure, ax, x, y


def _dress(ax: Axes) -> None:
    """Give axes the look of a report: no frame, a faint grid, nothing opaque behind them."""
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_GREY)
    ax.grid(color=_GREY, alpha=0.22, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", labelsize=_FONT, colors=_INK, color=_GREY)
    ax.xaxis.label.set_color(_INK)
    ax.yaxis.label.set_color(_INK)


def _add_legend(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=_FONT, labelcolor=_INK)
