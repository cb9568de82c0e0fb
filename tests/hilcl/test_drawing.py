import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hilcl.drawing import draw_board, figure_svg, save_board
from hilcl.errors import InputError
from hilcl.network import Network

SQUARE = Network.grid(2, 2, inputs=[0], outputs=[3])


def edge_lines(ax: Axes) -> LineCollection:
    (lines,) = [item for item in ax.collections if isinstance(item, LineCollection)]
    return lines


def strokes(ax: Axes) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(path.vertices) for path in edge_lines(ax).get_paths()]


def node_dots(ax: Axes) -> dict[str, PathCollection]:
    return {str(item.get_gid()): item for item in ax.collections if isinstance(item, PathCollection)}


def legend_texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def bar_labels(ax: Axes) -> list[str]:
    return [other.get_ylabel() for other in figure_of(ax).axes if other is not ax]


def bar_ticks(ax: Axes) -> list[str]:
    """Return the ticks that are seen on the only bar."""
    figure_of(ax).draw_without_rendering()
    (bar,) = [other for other in figure_of(ax).axes if other is not ax]
    low, high = bar.get_ylim()
    texts = [text.get_text() for text in bar.get_yticklabels()]
    inside = [low * (1 - 1e-9) <= where <= high * (1 + 1e-9) for where in bar.get_yticks()]
    return [text for text, seen in zip(texts, inside, strict=True) if seen]


def test_every_edge_is_one_line_between_its_nodes() -> None:
    network = Network.crossbar(8, 4)
    assert network.positions is not None
    drawn = strokes(draw_board(network))
    assert len(drawn) == 32
    for line, (tail, head) in zip(drawn, network.edges, strict=True):
        np.testing.assert_allclose(line[[0, -1]], network.positions[[tail, head]])


def test_nodes_are_drawn_at_their_positions_by_role() -> None:
    network = Network.grid(3, 3, inputs=[0, 8], outputs=[2])
    assert network.positions is not None
    dots = node_dots(draw_board(network))
    assert set(dots) == {"inputs", "outputs", "hidden"}
    for role, nodes in (("inputs", network.inputs), ("outputs", network.outputs), ("hidden", network.hidden)):
        np.testing.assert_allclose(np.asarray(dots[role].get_offsets()), network.positions[nodes])
    shapes = [np.asarray(dots[role].get_paths()[0].vertices) for role in dots]
    assert not any(np.array_equal(a, b) for i, a in enumerate(shapes) for b in shapes[:i])


def test_the_legend_names_what_is_there() -> None:
    assert legend_texts(draw_board(Network.crossbar(2, 3))) == ["inputs", "outputs"]
    assert legend_texts(draw_board(Network.grid(2, 3))) == ["inputs", "hidden"]
    unmeasured = [0.0, np.nan, 0.5, 1.0]
    assert legend_texts(draw_board(SQUARE, 1e-4, unmeasured, pinned=[2])) == [
        "inputs", "outputs", "hidden", "not measured", "pinned",
    ]  # fmt: skip
    assert legend_texts(draw_board(Network.torus(4, 4)))[-1] == "stub: wraps around"


def test_a_narrow_range_is_linear_and_a_wide_one_logarithmic() -> None:
    narrow = edge_lines(draw_board(SQUARE, [1e-4, 2e-4, 3e-4, 9e-4])).norm
    assert not isinstance(narrow, LogNorm)
    assert (narrow.vmin, narrow.vmax) == (1e-4, 9e-4)
    wide = edge_lines(draw_board(SQUARE, [1e-5, 2e-4, 3e-4, 1e-3])).norm
    assert isinstance(wide, LogNorm)
    assert (wide.vmin, wide.vmax) == (1e-5, 1e-3)


def test_limits_make_pictures_comparable() -> None:
    before = edge_lines(draw_board(SQUARE, [1e-4, 2e-4, 3e-4, 4e-4], limits=(1e-5, 1e-3)))
    after = edge_lines(draw_board(SQUARE, [2e-4, 2e-5, 9e-4, 5e-4], limits=(1e-5, 1e-3)))
    assert before.get_clim() == after.get_clim() == (1e-5, 1e-3)
    before.update_scalarmappable()
    after.update_scalarmappable()
    # The second edge of one and the first of the other conduct the same.
    np.testing.assert_array_equal(before.get_edgecolor()[1], after.get_edgecolor()[0])
    assert before.get_linewidth()[1] == after.get_linewidth()[0]  # type: ignore[index]


def test_more_conductance_is_wider_and_darker() -> None:
    lines = edge_lines(draw_board(SQUARE, [1e-4, 2e-4, 3e-4, 4e-4]))
    lines.update_scalarmappable()
    assert (np.diff(np.asarray(lines.get_linewidth())) > 0).all()
    assert (np.diff(np.asarray(lines.get_edgecolor())[:, :3] @ [0.299, 0.587, 0.114]) < 0).all()


def test_conductances_beyond_the_limits_are_marked_on_the_bar() -> None:
    def extend(*g: float) -> str:
        bar = edge_lines(draw_board(SQUARE, g, limits=(1e-4, 1e-3))).colorbar
        assert bar is not None
        return bar.extend

    assert extend(1e-4, 2e-4, 3e-4, 1e-3) == "neither"
    assert extend(1e-5, 2e-4, 3e-4, 1e-3) == "min"
    assert extend(1e-4, 2e-4, 3e-4, 2e-3) == "max"
    assert extend(1e-5, 2e-4, 3e-4, 2e-3) == "both"


def test_equal_conductances_and_potentials_have_a_scale() -> None:
    ax = draw_board(SQUARE, 2e-4, np.full(4, 0.3))
    low, high = edge_lines(ax).get_clim()
    assert low is not None
    assert high is not None
    assert low < 2e-4 < high
    assert len(figure_svg(figure_of(ax))) > 1000


@pytest.mark.parametrize(("g", "unit"), [([1e-5, 2e-5, 3e-5, 9e-5], " µS"), ([1e-3, 2e-3, 3e-3, 9e-3], " mS")])
def test_the_conductance_bar_is_in_engineering_notation(g: list[float], unit: str) -> None:
    ax = draw_board(SQUARE, g)
    assert bar_labels(ax) == ["Conductance"]
    ticks = bar_ticks(ax)
    assert len(ticks) >= 3
    assert all(text.endswith(unit) for text in ticks)


def test_a_wide_scale_has_ticks_inside_a_decade() -> None:
    shown = bar_ticks(draw_board(SQUARE, [1e-5, 2e-5, 3e-5, 2e-4]))
    assert shown == ["10 µS", "20 µS", "50 µS", "100 µS", "200 µS"]


def test_potentials_colour_the_nodes_and_have_a_bar_in_volts() -> None:
    ax = draw_board(SQUARE, potentials=[0.0, 0.25, np.nan, 1.0])
    assert bar_labels(ax) == ["Potential (V)"]
    dots = node_dots(ax)
    colours = [tuple(np.asarray(dots[role].get_facecolor())[0, :3]) for role in ("inputs", "hidden", "outputs")]
    assert len(set(colours)) == 3
    # Node 2 was not measured: its colour is a grey, which no potential has.
    red, green, blue = np.asarray(dots["hidden"].get_facecolor())[1, :3]
    assert red == green == blue


def test_nothing_measured_needs_no_bar() -> None:
    ax = draw_board(SQUARE, potentials=np.full(4, np.nan))
    assert bar_labels(ax) == []
    assert "not measured" in legend_texts(ax)


def test_without_potentials_each_role_has_a_colour() -> None:
    dots = node_dots(draw_board(SQUARE))
    assert len({tuple(np.asarray(dot.get_facecolor())[0]) for dot in dots.values()}) == 3


def test_pinned_edges_alone_are_dashed() -> None:
    styles: Any = edge_lines(draw_board(SQUARE, 1e-4, pinned=[1, 3])).get_linestyle()
    assert [dashes is not None for _, dashes in styles] == [False, True, False, True]


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(st.sampled_from([(0, 1), (1, 0), (1, 2), (2, 0), (2, 3), (3, 2)]), max_size=8),
    placed=st.booleans(),
)
def test_parallel_edges_are_apart_in_the_middle(pairs: list[tuple[int, int]], placed: bool) -> None:
    positions = [(0.0, 0.0), (1.0, 0.0), (0.4, 0.9), (1.3, 1.0)] if placed else None
    network = Network.from_edges([(0, 1), (1, 2), (2, 3), *pairs], [0], [3], positions=positions)
    drawn = strokes(draw_board(network))
    nodes = np.sort(network.edges, axis=1)
    for i, first in enumerate(drawn):
        for j, second in enumerate(drawn[:i]):
            if (nodes[i] == nodes[j]).all():
                length = np.hypot(*(first[-1] - first[0]))
                # The middle of a straight line is not one of its points.
                middles = [line[len(line) // 2] if len(line) > 2 else line.mean(axis=0) for line in (first, second)]
                assert np.hypot(*(middles[0] - middles[1])) > 0.05 * length


def test_an_edge_does_not_run_over_a_node_in_its_way() -> None:
    network = Network.from_edges([(0, 1), (1, 2), (2, 3), (3, 0)], [0], [2], positions=[(0, 0), (1, 0), (2, 0), (3, 0)])
    drawn = strokes(draw_board(network))
    assert [len(line) for line in drawn[:3]] == [2, 2, 2]
    for node in ((1.0, 0.0), (2.0, 0.0)):
        assert np.hypot(*(drawn[3] - node).T).min() > 0.15


def test_edges_around_a_torus_are_stubs() -> None:
    rows, cols = 4, 5
    network = Network.torus(rows, cols)
    assert network.positions is not None
    drawn = strokes(draw_board(network))
    assert len(drawn) == network.n_edges == 2 * rows * cols
    spans = np.hypot(*network.edge_voltages(network.positions.T))
    cut = np.array([bool(np.isnan(line).any()) for line in drawn])
    np.testing.assert_array_equal(cut, spans > 1)
    assert cut.sum() == rows + cols
    for edge in np.flatnonzero(cut):
        line = drawn[edge]
        ends = network.positions[np.sort(network.edges[edge])]
        np.testing.assert_allclose(line[[0, -1]], ends)
        # Both stubs leave the board, away from each other.
        assert np.hypot(*(line[1] - line[-2])) == pytest.approx(spans[edge] + 1.1)


def test_parallel_stubs_are_apart() -> None:
    torus = Network.torus(3, 3)
    doubled = Network(9, np.concatenate([torus.edges, torus.edges]), [0], [8], positions=torus.positions)
    drawn = strokes(draw_board(doubled))
    cut = [edge for edge, line in enumerate(drawn) if np.isnan(line).any()]
    assert len(cut) == 12
    for edge in cut[:6]:
        for end in (1, -2):
            assert np.hypot(*(drawn[edge][end] - drawn[edge + 18][end])) > 0.1


def test_a_grid_and_a_crossbar_have_no_stubs() -> None:
    for network in (Network.grid(4, 4), Network.crossbar(5, 3)):
        assert all(line.shape == (2, 2) for line in strokes(draw_board(network)))


def test_names_are_written_on_small_boards_only() -> None:
    assert [text.get_text() for text in draw_board(Network.grid(8, 8)).texts].count("63") == 1
    assert len(draw_board(Network.grid(8, 8)).texts) == 64
    assert len(draw_board(Network.grid(9, 9)).texts) == 0


def test_labels_are_written_as_they_are() -> None:
    labels = ["in", "a$b", "$c$", "<out & \\x>"]
    network = Network.from_edges([(0, 1), (1, 2), (2, 3)], [0], [3], labels=labels)
    ax = draw_board(network, title="$x & y$ -->")
    assert sorted(text.get_text() for text in ax.texts) == sorted(labels)
    assert ax.get_title() == "$x & y$ -->"
    ElementTree.fromstring(figure_svg(figure_of(ax)))


@pytest.mark.parametrize("n_nodes", [30, 300, 900])
def test_a_layout_is_the_same_each_time_and_spreads_the_nodes(n_nodes: int) -> None:
    graph = nx.connected_watts_strogatz_graph(n_nodes, 4, 0.2, seed=1)
    network = Network.from_networkx(graph, [0, 1], [n_nodes // 2])
    first, second = draw_board(network), draw_board(network)
    for a, b in zip(strokes(first), strokes(second), strict=True):
        np.testing.assert_array_equal(a, b)
    places = np.concatenate([np.asarray(dots.get_offsets()) for dots in node_dots(first).values()])
    assert np.isfinite(places).all()
    assert len(np.unique(places.round(9), axis=0)) == n_nodes
    # Outputs lie to the right of the inputs.
    dots = node_dots(first)
    across = np.asarray(dots["outputs"].get_offsets()).mean(0) - np.asarray(dots["inputs"].get_offsets()).mean(0)
    assert across[0] > 0
    assert abs(across[1]) < 1e-9


def test_the_order_of_the_edges_does_not_move_the_nodes() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3), (3, 4)]
    turned = [(head, tail) for tail, head in reversed(edges)]
    a, b = (draw_board(Network.from_edges(given_edges, [0], [4])) for given_edges in (edges, turned))
    for role, dots in node_dots(a).items():
        np.testing.assert_array_equal(dots.get_offsets(), node_dots(b)[role].get_offsets())


def test_ten_thousand_nodes_are_drawn_without_names_and_as_an_image() -> None:
    network = Network.grid(100, 100, outputs=[99])
    g = np.geomspace(1e-5, 1e-3, network.n_edges)
    ax = draw_board(network, g, np.linspace(0.0, 1.0, 10_000))
    assert len(edge_lines(ax).get_paths()) == network.n_edges == 19_800
    assert len(ax.texts) == 0
    svg = figure_svg(figure_of(ax))
    assert "data:image/png;base64" in svg
    assert len(svg) < 3_000_000


def test_ten_thousand_nodes_without_positions_are_laid_out() -> None:
    grid = Network.grid(100, 100)
    network = Network(10_000, grid.edges, [0], [9999])
    drawn = strokes(draw_board(network))
    assert len(drawn) == 19_800
    # Neighbours lie close together: a layout that ignores the wiring would have edges across the picture.
    points = np.concatenate(drawn)
    lengths = [np.hypot(*(line[-1] - line[0])) for line in drawn]
    assert np.median(lengths) < 0.05 * np.ptp(points, axis=0).max()


def test_given_axes_are_used() -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert draw_board(SQUARE, 1e-4, ax=left, title="Before") is left
    assert draw_board(SQUARE, 2e-4, ax=right, title="After") is right
    assert (left.get_title(), right.get_title()) == ("Before", "After")
    assert len(figure.axes) == 4


def test_nothing_is_clipped() -> None:
    network = Network.torus(4, 4)
    figure = figure_of(draw_board(network, 1e-4, np.linspace(0, 1, 16), title="A board", pinned=[0]))
    figure.draw_without_rendering()
    tight = figure.get_tightbbox()
    assert tight.x0 >= 0
    assert tight.y0 >= 0
    assert tight.x1 <= figure.get_figwidth()
    assert tight.y1 <= figure.get_figheight()


def svg_ids(svg: str) -> set[str]:
    ids = [element.attrib["id"] for element in ElementTree.fromstring(svg).iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    return set(ids)


def test_an_svg_is_one_element_with_nothing_external() -> None:
    network = Network.torus(3, 4, outputs=[5])
    svg = figure_svg(figure_of(draw_board(network, 1e-4, np.linspace(0, 1, 12), title="T", pinned=[1])), "first")
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {"text", "script", "metadata"}
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert links
    assert all(link.startswith(("#first-", "data:image/png;base64,")) for link in links)
    ids = svg_ids(svg)
    used = {link[1:] for link in links if link.startswith("#")} | set(re.findall(r"url\(#([^)]*)\)", svg))
    assert used <= ids
    # A rule for all elements would reach the page around the picture.
    styles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}style")]
    assert all(text is not None and text.startswith("#first-root ") for text in styles)
    assert "first-root" in ids


def test_two_svgs_in_one_page_share_no_id() -> None:
    figure = figure_of(draw_board(SQUARE, 1e-4))
    one, two = svg_ids(figure_svg(figure, "one")), svg_ids(figure_svg(figure, "two"))
    assert one
    assert not one & two


def test_equal_figures_give_equal_svgs() -> None:
    def svg() -> str:
        return figure_svg(figure_of(draw_board(SQUARE, [1e-4, 2e-4, 3e-4, 4e-4], [0.0, 0.2, 0.4, 1.0])), "b")

    settings_before = dict(rcParams)
    first = svg()
    assert first == svg()
    assert dict(rcParams) == settings_before


@pytest.mark.parametrize("prefix", ["", "1a", "a b", 'a"b', "a#b", "é"])
def test_a_prefix_is_an_identifier(prefix: str) -> None:
    with pytest.raises(InputError, match="prefix"):
        figure_svg(Figure(), prefix)


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_a_board_is_saved_by_suffix_and_always_the_same(tmp_path: Path, suffix: str, start: bytes) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("a", "b")]
    for file in files:
        save_board(file, SQUARE, 1e-4, [0.0, 0.2, 0.4, 1.0], title="Board", pinned=[0], limits=(1e-5, 1e-3))
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_board_is_not_saved_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"board\.bmp .*\.png, \.svg or \.pdf"):
        save_board(tmp_path / "board.bmp", SQUARE)
    with pytest.raises(InputError, match=r"cannot be written: No such file"):
        save_board(tmp_path / "none" / "board.png", SQUARE)
    with pytest.raises(InputError, match="4 edges"):
        save_board(tmp_path / "board.png", SQUARE, [1e-4, 1e-4])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        ({"conductances": [1e-4] * 3}, r"conductances has shape \(3,\).*4 edges"),
        ({"conductances": "much"}, "conductances must be"),
        ({"conductances": [1e-4, 0.0, 1e-4, 1e-4]}, "edge 1 has the conductance 0 S"),
        ({"conductances": [1e-4, 1e-4, np.nan, 1e-4]}, "edge 2 has the conductance nan S"),
        ({"conductances": [1e-4, 1e-4, 1e-4, np.inf]}, "edge 3 has the conductance inf S"),
        ({"potentials": [0.0] * 5}, r"potentials have shape \(5,\).*4 nodes"),
        ({"potentials": [[0.0] * 4]}, r"potentials have shape \(1, 4\).*4 nodes"),
        ({"potentials": ["a", "b", "c", "d"]}, "potentials must be"),
        ({"potentials": [0.0, np.inf, 0.0, 0.0]}, "node 1 has an infinite potential"),
        ({"conductances": 1e-4, "limits": (1e-3, 1e-4)}, "limits must be positive and rising"),
        ({"conductances": 1e-4, "limits": (0.0, 1e-4)}, "limits must be positive and rising"),
        ({"limits": (1e-4, np.nan)}, "limits must be positive and rising"),
        ({"limits": (1e-4,)}, "limits must be two conductances"),
        ({"pinned": [4]}, "pinned names edge 4.*0 to 3"),
        ({"pinned": [-1]}, "pinned names edge -1"),
        ({"pinned": [0.5]}, "pinned must be a list of edge numbers"),
        ({"pinned": [True, False, False, True]}, "pinned must be a list of edge numbers"),
    ],
)
def test_what_does_not_fit_is_named(given_arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_board(SQUARE, **given_arguments)


def test_a_position_that_is_not_finite_is_named() -> None:
    network = Network.from_edges([(0, 1), (1, 2)], [0], [2], positions=[(0, 0), (1, np.nan), (2, 0)])
    with pytest.raises(InputError, match="position of node 1 "):
        draw_board(network)


def test_coinciding_nodes_are_drawn() -> None:
    network = Network.from_edges([(0, 1), (1, 2)], [0], [2], positions=np.zeros((3, 2)))
    ax = draw_board(network, 1e-4)
    assert len(strokes(ax)) == 2
    assert len(figure_svg(figure_of(ax))) > 1000
