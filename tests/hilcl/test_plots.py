from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hilcl.arrays import FloatArray
from hilcl.drawing import figure_svg
from hilcl.errors import InputError
from hilcl.plots import Outputs, YieldCurve, contrast_figure, loss_figure, output_figure, step_size_figure, yield_figure

EPOCHS = np.arange(20)
FALLING = 10.0 ** -np.linspace(1.0, 6.0, 20)


def only_axes(figure: Figure) -> Axes:
    (ax,) = figure.axes
    return ax


def curve(ax: Axes, number: int = 0) -> tuple[list[float], list[float]]:
    x, y = ax.lines[number].get_data(orig=True)
    return np.asarray(x, dtype=np.float64).tolist(), np.asarray(y, dtype=np.float64).tolist()


def seen_ticks(ax: Axes) -> list[str]:
    ax.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    low, high = ax.get_ylim()
    ticks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    return [text.get_text() for where, text in ticks if low <= where <= high and text.get_text()]


def test_the_loss_is_drawn_as_it_is_over_a_logarithmic_scale() -> None:
    ax = only_axes(loss_figure(EPOCHS, FALLING))
    assert curve(ax) == (EPOCHS.tolist(), FALLING.tolist())
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Loss (V²)")
    assert ax.get_legend() is None


def test_the_kept_epoch_is_marked_where_it_was() -> None:
    ax = only_axes(loss_figure(EPOCHS, FALLING, kept_epoch=7))
    assert curve(ax, 1) == ([7.0], [FALLING[7]])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["kept: epoch 7"]


@pytest.mark.parametrize("span", [4.0, 30.0, 1e3, 1e8, 1e30])
def test_a_logarithmic_scale_has_a_few_ticks_whatever_it_spans(span: float) -> None:
    ticks = seen_ticks(only_axes(loss_figure(EPOCHS, 1e-2 * span ** -np.linspace(0.0, 1.0, 20))))
    assert 2 <= len(ticks) <= 10
    assert len(set(ticks)) == len(ticks)


def test_a_loss_that_hardly_moves_is_drawn_from_zero() -> None:
    ax = only_axes(loss_figure(EPOCHS, np.linspace(2.0e-3, 1.8e-3, 20)))
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0.0
    assert len(seen_ticks(ax)) >= 3


def test_readings_at_or_below_zero_are_left_out_of_a_logarithmic_scale() -> None:
    noisy = FALLING.copy()
    noisy[[18, 19]] = 0.0, -1e-7
    ax = only_axes(contrast_figure(EPOCHS, noisy))
    assert ax.get_yscale() == "log"
    drawn = np.array(curve(ax)[1])
    assert np.isnan(drawn[18:]).all()
    assert drawn[:18].tolist() == FALLING[:18].tolist()


def test_values_that_are_never_positive_have_a_linear_scale() -> None:
    ax = only_axes(loss_figure(EPOCHS, np.zeros(20)))
    assert ax.get_yscale() == "linear"
    assert curve(ax)[1] == [0.0] * 20


def test_one_epoch_is_a_dot() -> None:
    ax = only_axes(loss_figure([0], [0.3]))
    assert ax.lines[0].get_marker() == "o"
    low, high = ax.get_xlim()
    assert low < 0 < high


def test_the_lower_bound_is_drawn_where_it_says_something() -> None:
    bound = np.where(EPOCHS < 5, 0.0, 1e-7)
    ax = only_axes(contrast_figure(EPOCHS, FALLING, bound))
    assert np.isnan(curve(ax, 1)[1][:5]).all()
    assert curve(ax, 1)[1][5:] == [1e-7] * 15
    assert ax.get_ylim()[0] < 1e-7
    assert len(only_axes(contrast_figure(EPOCHS, FALLING, np.zeros(20))).lines) == 1
    assert len(only_axes(contrast_figure(EPOCHS, FALLING)).lines) == 1


def test_the_step_size_is_drawn_in_its_unit() -> None:
    ax = only_axes(step_size_figure(EPOCHS, FALLING))
    assert ax.get_ylabel() == "Step size γ (S/V²)"
    assert curve(ax)[1] == FALLING.tolist()


def test_a_curve_needs_a_value_for_each_epoch() -> None:
    with pytest.raises(InputError, match="one value per epoch"):
        loss_figure([0, 1, 2], [0.1, 0.2])


def test_outputs_are_drawn_against_their_targets_beside_the_line_of_equality() -> None:
    targets, measured = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.5, 0.7])
    trained = Outputs(targets, targets)
    ax = only_axes(output_figure([Outputs(targets, measured), trained, trained], title="$x_1$ < y"))
    line_x, line_y = curve(ax)
    assert line_x == line_y
    assert line_x[0] < 0.1
    assert line_x[1] > 0.9
    assert curve(ax, 1) == (targets.tolist(), measured.tolist())
    assert curve(ax, 2) == (targets.tolist(), targets.tolist())
    assert ax.get_xlim() == ax.get_ylim()
    # Told apart by shape, not by colour alone.
    shapes = [(dots.get_marker(), dots.get_markerfacecolor() == "none") for dots in ax.lines[1:]]
    assert len(set(shapes)) == 3
    assert ax.get_title() == "$x_1$ < y"


@pytest.mark.parametrize("value", [0.0, 0.4, -2.0])
def test_one_sample_that_is_met_exactly_still_has_a_scale(value: float) -> None:
    ax = only_axes(output_figure([Outputs(np.array([value]), np.array([value]))]))
    low, high = ax.get_xlim()
    assert low < value < high


def test_outputs_that_do_not_fit_are_refused() -> None:
    three = Outputs(np.zeros(3), np.zeros(3))
    with pytest.raises(InputError, match="one value per target"):
        output_figure([Outputs(np.zeros(3), np.zeros(2))])
    for parts in ([], [three] * 4):
        with pytest.raises(InputError, match="one to 3 parts"):
            output_figure(parts)


def test_many_samples_become_one_image() -> None:
    many = np.linspace(0.0, 1.0, 5000)
    svg = figure_svg(output_figure([Outputs(many, many)]), "many")
    assert svg.count("<image") == 1
    assert len(svg) < 200_000


def test_equal_numbers_give_equal_pictures() -> None:
    texts = [figure_svg(contrast_figure(EPOCHS, FALLING, FALLING / 2), "q") for _ in range(3)]
    assert all(one == other for one, other in pairwise(texts))


def test_a_yield_is_a_staircase_that_failed_boards_never_climb() -> None:
    losses = np.array([3e-3, 1e-3, 1e-1])
    ax = only_axes(yield_figure([YieldCurve("a_b$", losses, 4), YieldCurve("none", np.zeros(0), 2)]))
    x, y = curve(ax)
    assert x[1:-1] == [1e-3, 3e-3, 1e-1]
    assert y == pytest.approx([0.0, 25.0, 50.0, 75.0, 75.0])
    assert curve(ax, 1)[1] == [0.0, 0.0]
    assert ax.get_xscale() == "log"
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a_b$ (n = 4)", "none (n = 2)"]


@pytest.mark.parametrize("losses", [np.zeros(2), np.array([1e-3]), np.array([2e-3, 2.1e-3]), np.zeros(0)])
def test_a_yield_of_any_losses_can_be_drawn(losses: FloatArray) -> None:
    ax = only_axes(yield_figure([YieldCurve("", losses, 2)]))
    low, high = ax.get_xlim()
    assert low < high
    assert all(low < loss < high for loss in losses)


def test_a_yield_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="one to 8 curves, got 0"):
        yield_figure([])
    with pytest.raises(InputError, match="as many boards as losses"):
        yield_figure([YieldCurve("", np.ones(3), 2)])
