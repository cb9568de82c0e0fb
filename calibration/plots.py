"""Calibrations as matplotlib figures, in the look of a run's report."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from hilcl.calibration.apply import relative_uncertainty
from hilcl.calibration.compare import Comparison
from hilcl.calibration.file import Calibration

_SIZE = (4.9, 3.1)
_FONT = 9.0
_INK, _BLUE, _ORANGE, _GREY = "#222222", "#1f6fb2", "#c8641b", "#8a8a8a"
_VECTOR_DOTS = 2000
_COVERAGE = 2.0


def conductance_figure(calibration: Calibration, edges: list[int] | None = None) -> Figure:
    """Return the conductance of every code in siemens, edge by edge, with the nominal law dashed."""
    figure, ax = _axes("Code", "Conductance (S)")
    shown = range(len(calibration.tables)) if edges is None else edges
    table = calibration.table
    codes = np.arange(table.shape[1])
    for edge in shown:
        ax.plot(codes, table[edge], color=_BLUE, linewidth=0.8, alpha=0.7)
    for pot in dict.fromkeys(calibration.potentiometers[edge] for edge in shown):
        ax.plot(pot.conductances(), color=_ORANGE, linewidth=1.3, linestyle="--")
    ax.set_yscale("log")
    _name_curves(ax, (("calibrated", _BLUE, "-"), ("nominal", _ORANGE, "--")))
    return figure


def uncertainty_figure(calibration: Calibration) -> Figure:
    """Return the relative standard uncertainty of every code, median and worst over the edges, both parts together."""
    figure, ax = _axes("Code", "Uncertainty of the conductance (%)")
    relative = 100 * relative_uncertainty(calibration)
    codes = np.flatnonzero(~np.isnan(relative).all(axis=0))
    relative = relative[:, codes]
    ax.fill_between(
        codes, np.nanmin(relative, axis=0), np.nanmax(relative, axis=0), color=_BLUE, alpha=0.18, linewidth=0
    )
    ax.plot(codes, np.nanmedian(relative, axis=0), color=_BLUE, linewidth=1.5)
    ax.plot(codes, np.nanmax(relative, axis=0), color=_ORANGE, linewidth=1.0)
    ax.set_ylim(0.0, None)
    _name_curves(ax, (("median edge", _BLUE, "-"), ("worst edge", _ORANGE, "-")))
    return figure


def residual_figure(calibration: Calibration) -> Figure:
    """Return the residuals of the fit in standard deviations, in the order in which they were read."""
    figure, ax = _axes("Reading", "Residual (σ)")
    record = calibration.fit.residuals
    values, kinds = np.array(record.normalised), np.array(list(record.kinds))
    for kind, name, colour in (("V", "volts", _BLUE), ("A", "amperes", _ORANGE)):
        chosen = np.flatnonzero(kinds == kind)
        if chosen.size:
            (dots,) = ax.plot(
                chosen, values[chosen], linestyle="", marker="o", markersize=2.2, markeredgewidth=0.0, color=colour,
                alpha=0.6, label=name,
            )  # fmt: skip
            dots.set_rasterized(chosen.size > _VECTOR_DOTS)
    for level in (-_COVERAGE, _COVERAGE):
        ax.axhline(level, color=_GREY, linewidth=0.9, linestyle="--")
    if ax.get_legend_handles_labels()[0]:
        _legend(ax)
    return figure


def residual_histogram(calibration: Calibration) -> Figure:
    """Return the distribution of the residuals in standard deviations beside the normal one."""
    figure, ax = _axes("Residual (σ)", "Density")
    values = np.array(calibration.fit.residuals.normalised)
    if values.size:
        edge = max(4.0, min(8.0, float(np.abs(values).max())))
        ax.hist(values, bins=np.linspace(-edge, edge, 41).tolist(), density=True, color=_BLUE, alpha=0.5)
        places = np.linspace(-edge, edge, 201)
        ax.plot(places, norm.pdf(places), color=_ORANGE, linewidth=1.3)
    return figure


def comparison_figure(comparison: Comparison) -> Figure:
    """Return the largest change of each edge's conductance between two calibrations; edges that moved are orange."""
    figure, ax = _axes("Edge", "Largest change of the conductance (%)")
    edges = np.array([each.edge for each in comparison.edges])
    change = np.array([100 * each.relative for each in comparison.edges])
    moved = np.array([each.moved for each in comparison.edges], dtype=np.bool_)
    u = np.array([abs(100 * each.relative) / each.sigmas if each.sigmas > 0 else 0.0 for each in comparison.edges])
    for chosen, colour, name in ((~moved, _BLUE, "within uncertainty"), (moved, _ORANGE, "moved")):
        if chosen.any():
            ax.errorbar(
                edges[chosen], change[chosen], _COVERAGE * u[chosen], linestyle="", marker="o", markersize=4.0,
                color=colour, elinewidth=0.9, label=name,
            )  # fmt: skip
    ax.axhline(0.0, color=_GREY, linewidth=0.9)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _legend(ax)
    return figure


def twin_figure(measured: np.typing.NDArray[np.float64], twin: np.typing.NDArray[np.float64]) -> Figure:
    """Return the loss (E,) in V² of a run as measured, and of the same codes replayed on the twin."""
    figure, ax = _axes("Epoch", "Loss (V²)")
    ax.plot(np.arange(len(measured)), measured, color=_BLUE, linewidth=1.5)
    ax.plot(np.arange(len(twin)), twin, color=_ORANGE, linewidth=1.3, linestyle="--")
    if (measured > 0).all() and (twin > 0).all():
        ax.set_yscale("log")
    _name_curves(ax, (("measured", _BLUE, "-"), ("twin", _ORANGE, "--")))
    return figure


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
    ax = figure.add_subplot()
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_GREY)
    ax.grid(color=_GREY, alpha=0.22, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", labelsize=_FONT, colors=_INK, color=_GREY)
    ax.set_xlabel(x, fontsize=_FONT, color=_INK)
    ax.set_ylabel(y, fontsize=_FONT, color=_INK)
    return figure, ax


def _name_curves(ax: Axes, curves: tuple[tuple[str, str, str], ...]) -> None:
    for name, colour, style in curves:
        ax.plot([], [], color=colour, linestyle=style, label=name)
    _legend(ax)


def _legend(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=_FONT, labelcolor=_INK)
