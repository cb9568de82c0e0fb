import dataclasses
from datetime import timedelta
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hilcl.calibration.compare import compare
from hilcl.calibration.parameters import FitReport
from hilcl.calibration.plots import (
    comparison_figure,
    conductance_figure,
    residual_figure,
    residual_histogram,
    twin_figure,
    uncertainty_figure,
)
from tests.calibration.samples import MADE, POT, calibration, pots, result


def only_axes(figure: Figure) -> Axes:
    figure.savefig(BytesIO(), format="svg")
    (ax,) = figure.axes
    return ax


def legend(ax: Axes) -> list[str]:
    drawn = ax.get_legend()
    return [] if drawn is None else [text.get_text() for text in drawn.get_texts()]


def test_every_edge_and_the_nominal_law_are_drawn() -> None:
    ax = only_axes(conductance_figure(calibration()))
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines]
    np.testing.assert_allclose(drawn[3], pots().table[3])
    np.testing.assert_allclose(drawn[12], POT.conductances())
    assert legend(ax) == ["calibrated", "nominal"]
    assert ax.get_yscale() == "log"
    assert len(only_axes(conductance_figure(calibration(), [5])).lines) == 1 + 1 + 2


def test_the_uncertainty_is_that_of_both_parts() -> None:
    usable = np.ones((12, POT.positions), dtype=np.bool_)
    usable[:, :20] = False
    ax = only_axes(uncertainty_figure(calibration(usable=usable)))
    worst = 100 * (pots().table_u / pots().table).max(axis=0)
    np.testing.assert_array_equal(np.asarray(ax.lines[1].get_xdata()), np.arange(20, POT.positions))
    np.testing.assert_allclose(np.asarray(ax.lines[1].get_ydata(), dtype=np.float64), worst[20:], rtol=1e-3)


def test_residuals_are_drawn_by_kind() -> None:
    ax = only_axes(residual_figure(calibration()))
    assert legend(ax) == ["volts", "amperes"]
    np.testing.assert_allclose(
        np.asarray(ax.lines[0].get_ydata(), dtype=np.float64), result().report.normalised[:300], atol=6e-4
    )


def test_a_fit_without_residuals_has_empty_plots() -> None:
    empty = calibration(report=FitReport(1.0, 1, 0, 0, 1, converged=True, residuals=()))
    assert legend(only_axes(residual_figure(empty))) == []
    assert not only_axes(residual_histogram(empty)).patches


def test_the_histogram_is_a_density() -> None:
    ax = only_axes(residual_histogram(calibration()))
    area = sum(patch.get_width() * patch.get_height() for patch in ax.patches)  # type: ignore[attr-defined]
    assert area == pytest.approx(1.0)


def test_edges_that_moved_are_marked() -> None:
    values = pots().values.copy()
    values[4, 0] *= 1.02
    changed = calibration(pots=dataclasses.replace(pots(), values=values), created=MADE + timedelta(days=3))
    ax = only_axes(comparison_figure(compare(calibration(), changed)))
    assert legend(ax) == ["within uncertainty", "moved"]
    assert legend(only_axes(comparison_figure(compare(calibration(), calibration())))) == ["within uncertainty"]


def test_measurement_and_twin_share_a_scale() -> None:
    ax = only_axes(twin_figure(np.array([1e-2, 1e-3]), np.array([1.1e-2, 0.9e-3])))
    assert ax.get_yscale() == "log"
    assert legend(ax) == ["measured", "twin"]
    assert only_axes(twin_figure(np.array([0.0, 1e-3]), np.array([1.0, 1.0]))).get_yscale() == "linear"
