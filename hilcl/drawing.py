"""Pictures of a board: where its nodes lie, what its edges conduct, which potentials its nodes have."""

import re
from dataclasses import dataclass
from io import StringIO
from math import ceil
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import eigsh
from scipy.spatial import KDTree

from hilcl.arrays import BoolArray, FloatArray, IntArray, per_edge
from hilcl.errors import InputError
from hilcl.network import Network

# Above these sizes a node's name is not readable, a file of single shapes is too heavy for a browser, and looking
# for nodes under each edge takes too long.
_NAMED_NODES = 64
_VECTOR_SHAPES = 5000
_CHECKED_PAIRS = 2_000_000

_GREY = "#7d7d7d"
_INK = "#222222"
_DASHES = (0.0, (2.6, 1.4))
_BAR: dict[str, Any] = {"fraction": 0.06, "pad": 0.03, "aspect": 28, "shrink": 0.9}
# The light end of the edge map stops where a thin line would fade into white paper.
_EDGE_MAP = ListedColormap(colormaps["magma_r"](np.linspace(0.2, 0.86, 256)), name="conductance")
_NODE_MAP = colormaps["viridis"].with_extremes(bad="#e4e4e4")


@dataclass(frozen=True)
class _Role:
    """How the nodes of one role are drawn; ``size`` makes the shapes look equally large."""

    name: str
    marker: str
    colour: str
    size: float


_INPUTS = _Role("inputs", "s", "#79b4f0", 0.95)
_OUTPUTS = _Role("outputs", "D", "#f5b35c", 0.85)
_HIDDEN = _Role("hidden", "o", "#ffffff", 1.0)


@dataclass(frozen=True)
class _Lines:
    """The edges as polylines (K, 2), in the edges' order; ``wrapped`` (M,) marks those cut into two stubs by a NaN."""

    strokes: list[FloatArray]
    wrapped: BoolArray


def draw_board(
    network: Network,
    conductances: npt.ArrayLike | None = None,
    potentials: npt.ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    pinned: npt.ArrayLike = (),
) -> Axes:
    """Return axes with a picture of the board; a figure is made unless ``ax`` is given.

    ``conductances`` (M,) in siemens colour and widen the edges, on a logarithmic scale where it spans more than a
    factor 10; ``limits`` (g_min, g_max) in siemens fix the scale, so that pictures compare. ``potentials`` (N,) in
    volts colour the nodes, NaN where none was measured; without them the colour is the role's. The marker's shape
    is always the role's. ``pinned`` edge numbers are dashed. Nodes without positions are laid out, always the same
    way. Parallel edges bend apart; edges to the opposite side of a torus are cut into two stubs at the border.

    Raises InputError when an array does not fit the board, a conductance is not positive, the limits are not a
    range, or a pinned edge does not exist.
    """
    fixed = None if limits is None else _checked_limits(limits)
    g = None if conductances is None else _conductance_array(conductances, network)
    p = None if potentials is None else _potential_array(potentials, network)
    scale = None if g is None else fixed or _found_limits(g)
    dashed = _pinned_mask(pinned, network.n_edges)
    places = _places(network)
    width = _marker_width(places)
    lines = _lines(network, places, width)
    low, high = _extent(places, lines.strokes, width)
    n_bars = (g is not None) + (p is not None)
    if ax is None:
        ax = Figure(figsize=_figure_size(high - low, n_bars), layout="constrained").add_subplot()
    diameter = float(np.clip(width * _points_per_unit(ax, high - low), 0.8, 17.0))

    ax.set_axis_off()
    ax.set_aspect("equal", adjustable="datalim")
    # Limits that are set, not found, would make every equal aspect a warning.
    ax.update_datalim([tuple(low), tuple(high)])
    ax.margins(0.0)
    if title is not None:
        ax.set_title(title, parse_math=False)
    edges = _draw_edges(ax, lines.strokes, g, scale, dashed, diameter)
    voltage_scale = _draw_nodes(ax, network, places, p, diameter)
    if network.n_nodes <= _NAMED_NODES:
        _write_names(ax, network, places, lines.strokes, p, voltage_scale, diameter)
    if g is not None and scale is not None:
        _add_conductance_bar(ax, edges, g, scale)
    if voltage_scale is not None:
        _add_potential_bar(ax, voltage_scale)
    signs = [_role_sign(role, p is None) for role, nodes in _roles(network) if len(nodes)]
    if p is not None and np.isnan(p).any():
        signs.append(_sign("not measured", marker="o", markerfacecolor=_NODE_MAP.get_bad(), linestyle=""))
    if dashed.any():
        signs.append(_sign("pinned", color=_GREY, linestyle=_DASHES))
    if lines.wrapped.any():
        signs.append(_sign("stub: wraps around", color=_GREY))
    inches = ax.get_window_extent().width / _figure(ax).dpi - 0.8 * n_bars
    n_rows = ceil(len(signs) / max(2, round(inches)))
    ax.legend(
        handles=signs,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=ceil(len(signs) / n_rows),
        frameon=False,
        fontsize=9,
        columnspacing=1.5,
        handletextpad=0.5,
    )
    return ax


def save_board(
    path: str | Path,
    network: Network,
    conductances: npt.ArrayLike | None = None,
    potentials: npt.ArrayLike | None = None,
    *,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    pinned: npt.ArrayLike = (),
    dpi: float = 200.0,
) -> None:
    """Write the picture of ``draw_board`` to a .png, .svg or .pdf file; equal pictures give equal files.

    Raises InputError as ``draw_board`` does, for another suffix, and where the file cannot be written.
    """
    target = Path(path)
    kind = target.suffix.lower().removeprefix(".")
    undated: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    if kind not in undated:
        raise InputError(f"{target.name} has no suffix that names a picture: use .png, .svg or .pdf")
    axes = draw_board(network, conductances, potentials, title=title, limits=limits, pinned=pinned)
    try:
        with rc_context({"svg.hashsalt": "board", "svg.fonttype": "path"}):
            _figure(axes).savefig(target, format=kind, dpi=dpi, metadata=undated[kind])
    except OSError as cause:
        raise InputError(f"the picture {target} cannot be written: {cause.strerror or cause}") from cause


def figure_svg(fig: Figure, prefix: str = "board") -> str:
    """Return the figure as an <svg> element to put into an HTML page: no prolog, nothing external, letters as paths.

    Equal figures give equal text. Every id starts with ``prefix``; figures in one page need different ones.

    Raises InputError when the prefix is not a letter followed by letters, digits, hyphens or underscores.
    """
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix) is None:
        raise InputError(f"an id prefix starts with a letter and has only letters, digits, - and _, got {prefix!r}")
    # The salt keeps ids equal from call to call; it does not reach those of groups and letters, so all get the prefix.
    settings: dict[Any, Any] = {
        "svg.hashsalt": prefix,
        "svg.fonttype": "path",
        "svg.image_inline": True,
        "svg.id": "root",
    }
    buffer = StringIO()
    with rc_context(settings):
        fig.savefig(buffer, format="svg", dpi=200.0, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = re.sub(r"<!--.*?-->\s*", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    # A style sheet inside an inlined SVG applies to the whole page.
    return text.replace("*{stroke-linejoin", f"#{prefix}-root *{{stroke-linejoin").strip()


def _conductance_array(values: npt.ArrayLike, network: Network) -> FloatArray:
    g = per_edge("conductances", values, network.n_edges, InputError)
    wrong = np.flatnonzero(~(np.isfinite(g) & (g > 0)))
    if wrong.size:
        edge = int(wrong[0])
        raise InputError(f"edge {edge} has the conductance {g[edge]:g} S: a conductance is positive and finite")
    return g


def _potential_array(values: npt.ArrayLike, network: Network) -> FloatArray:
    try:
        p = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise InputError("potentials must be one number per node") from cause
    if p.shape != (network.n_nodes,):
        raise InputError(
            f"potentials have shape {p.shape}, but the board has {network.n_nodes} nodes: give one per node"
        )
    infinite = np.flatnonzero(np.isinf(p))
    if infinite.size:
        raise InputError(f"{network.name(int(infinite[0]))} has an infinite potential: use NaN for unmeasured")
    return p


def _checked_limits(limits: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in limits)
    except (TypeError, ValueError) as cause:
        raise InputError("limits must be two conductances in siemens, the lower one first") from cause
    if not 0 < low < high < np.inf:
        raise InputError(f"limits must be positive and rising conductances in siemens, got {low:g} and {high:g}")
    return low, high


def _found_limits(g: FloatArray) -> tuple[float, float]:
    low, high = float(g.min()), float(g.max())
    return (low, high) if high - low > 1e-9 * high else (0.9 * low, 1.1 * high)


def _pinned_mask(pinned: npt.ArrayLike, n_edges: int) -> BoolArray:
    numbers = np.asarray(pinned)
    mask = np.zeros(n_edges, dtype=np.bool_)
    if numbers.size == 0:
        return mask
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError("pinned must be a list of edge numbers")
    outside = numbers[(numbers < 0) | (numbers >= n_edges)]
    if outside.size:
        raise InputError(f"pinned names edge {outside[0]}, but edges are numbered 0 to {n_edges - 1}")
    mask[numbers] = True
    return mask


def _places(network: Network) -> FloatArray:
    if network.positions is None:
        return _layout(network)
    stray = np.flatnonzero(~np.isfinite(network.positions).all(axis=1))
    if stray.size:
        raise InputError(f"the position of {network.name(int(stray[0]))} is not finite: correct it, or give none")
    return network.positions


def _layout(network: Network) -> FloatArray:
    """Return positions (N, 2) that depend on the wiring alone, turned so that outputs lie to the right of inputs."""
    pairs = np.unique(np.sort(network.edges, axis=1), axis=0)
    if network.n_nodes <= 700:
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(network.n_nodes))
        graph.add_edges_from(pairs.tolist())
        if network.n_nodes <= 200:
            found = nx.kamada_kawai_layout(graph)
        else:
            start = dict(enumerate(_spectral_layout(pairs, network.n_nodes)))
            found = nx.spring_layout(graph, pos=start, seed=0, method="force")
        places = np.array([found[node] for node in range(network.n_nodes)], dtype=np.float64)
    else:
        places = _spectral_layout(pairs, network.n_nodes)
    if not len(network.outputs):
        return places
    across = places[network.outputs].mean(axis=0) - places[network.inputs].mean(axis=0)
    length = float(np.hypot(*across))
    if length < 1e-9 * float(np.ptp(places)):
        return places
    cosine, sine = across / length
    turned: FloatArray = places @ np.array([[cosine, -sine], [sine, cosine]])
    return turned


def _spectral_layout(pairs: IntArray, n_nodes: int) -> FloatArray:
    """Return the two slowest modes (N, 2) of a random walk on the board.

    The start vector is fixed: networkx.spectral_layout has a random one and mirrors the picture from call to call.
    """
    halves = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_nodes, n_nodes)).tocsr()
    adjacency = halves + halves.T
    degrees = np.asarray(adjacency.sum(axis=1), dtype=np.float64)
    laplacian = (diags_array(degrees) - adjacency).tocsc()
    start = np.random.default_rng(0).random(n_nodes)
    _, modes = eigsh(laplacian, k=3, M=diags_array(degrees).tocsc(), sigma=-1e-3, v0=start)
    return np.array(modes[:, 1:3] / np.ptp(modes[:, 1:3], axis=0), dtype=np.float64)


def _marker_width(places: FloatArray) -> float:
    """Return the width of a node, in units of the positions: neighbours stay apart, and no node fills the picture.

    A low percentile stands for the closest neighbours, for a few coinciding nodes must not rule.
    """
    size = float(np.ptp(places, axis=0).max())
    distance = np.asarray(KDTree(places).query(places, k=2)[0])[:, 1]
    apart = distance[distance > 1e-9 * size]
    if not apart.size:
        return 1.0
    return float(min(0.5 * np.median(apart), 0.85 * np.percentile(apart, 5), 0.07 * size))


def _lines(network: Network, places: FloatArray, width: float) -> _Lines:
    # From the lower to the higher node, so that parallel edges given in either direction bend apart.
    pairs = np.sort(network.edges, axis=1)
    tails, heads = places[pairs[:, 0]], places[pairs[:, 1]]
    vectors = heads - tails
    normals = np.stack([-vectors[:, 1], vectors[:, 0]], axis=1)
    fan = _fan(pairs)
    # A layout found by _layout has no sides that an edge could join.
    steps = np.zeros_like(vectors) if network.positions is None else _wrap_steps(pairs, places, width)
    wrapped: BoolArray = np.any(steps, axis=1)
    bend = np.where(wrapped, 0.0, fan)
    if network.n_nodes * network.n_edges <= _CHECKED_PAIRS:
        for edge in _obstructed(pairs, places, 0.65 * width, ~wrapped):
            bend[edge] += _free_bend(pairs[edge], places, normals[edge], width)

    strokes: list[FloatArray] = list(np.stack([tails, heads], axis=1))
    for edge in np.flatnonzero(bend):
        strokes[edge] = _curve(tails[edge], heads[edge], normals[edge] * bend[edge])
    for edge in np.flatnonzero(wrapped):
        step = steps[edge]
        aside = 1.4 * fan[edge] * np.array([-step[1], step[0]])
        gap = np.full(2, np.nan)
        strokes[edge] = np.array(
            [tails[edge], tails[edge] - step + aside, gap, heads[edge] + step + aside, heads[edge]]
        )
    return _Lines(strokes, wrapped)


def _fan(pairs: IntArray) -> FloatArray:
    """Return how far (M,) edges that join the same nodes bend apart, as a share of their length: 0 for a single one."""
    _, group, sizes = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(pairs))
    rank[order] = np.arange(len(pairs)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    last = sizes[group] - 1
    # Many share a fan that is not much wider than that of a few.
    return (rank - last / 2) * np.minimum(0.22, 0.9 / np.maximum(last, 1))


def _wrap_steps(pairs: IntArray, places: FloatArray, width: float) -> FloatArray:
    """Return how far (M, 2) an edge sticks out of the board at both ends if it joins opposite sides, else 0.

    Such an edge spans a whole row or column of at least three nodes, and several rows or columns have one; a
    single one is better seen as an arc.
    """
    steps = np.zeros((len(pairs), 2))
    for axis in (0, 1):
        along = places[:, axis]
        level = np.unique(np.round(places[:, 1 - axis] / (0.01 * width)), return_inverse=True)[1].reshape(-1)
        count = np.bincount(level)
        first, last = np.full(len(count), np.inf), np.full(len(count), -np.inf)
        np.minimum.at(first, level, along)
        np.maximum.at(last, level, along)
        line = level[pairs[:, 0]]
        span = along[pairs[:, 1]] - along[pairs[:, 0]]
        whole = np.isclose(np.abs(span), (last - first)[line], rtol=1e-6, atol=0.0)
        wraps = whole & (line == level[pairs[:, 1]]) & (count[line] >= 3)
        if len(np.unique(line[wraps])) >= 2:
            steps[wraps, axis] = 0.55 * (span / (count[line] - 1))[wraps]
    return steps


def _obstructed(pairs: IntArray, places: FloatArray, clearance: float, asked: BoolArray) -> IntArray:
    """Return the edges whose straight line would run over a node that is not theirs."""
    edges = np.flatnonzero(asked)
    tails = places[pairs[edges, 0]][:, None, :]
    vectors = places[pairs[edges, 1]][:, None, :] - tails
    to_node = places[None, :, :] - tails
    lengths = np.maximum((vectors**2).sum(axis=2), np.finfo(np.float64).tiny)
    share = np.clip((to_node * vectors).sum(axis=2) / lengths, 0.0, 1.0)
    distance = np.hypot(*np.moveaxis(to_node - share[:, :, None] * vectors, 2, 0))
    rows = np.arange(len(edges))
    distance[rows, pairs[edges, 0]] = np.inf
    distance[rows, pairs[edges, 1]] = np.inf
    obstructed: IntArray = edges[distance.min(axis=1) < clearance]
    return obstructed


def _free_bend(pair: IntArray, places: FloatArray, normal: FloatArray, width: float) -> float:
    """Return the smallest bend that passes other nodes well, or the best one there is."""
    others = np.delete(places, pair, axis=0)
    best, best_distance = 0.0, -1.0
    for bend in (0.08, -0.08, 0.15, -0.15, 0.25, -0.25, 0.4, -0.4):
        curve = _curve(places[pair[0]], places[pair[1]], normal * bend)
        distance = float(np.hypot(*np.moveaxis(curve[:, None, :] - others, 2, 0)).min())
        if distance >= width:
            return bend
        if distance > best_distance:
            best, best_distance = bend, distance
    return best


def _curve(tail: FloatArray, head: FloatArray, height: FloatArray) -> FloatArray:
    """Return a parabola as a polyline (25, 2) that stands ``height`` off the middle of the straight line."""
    t = np.linspace(0.0, 1.0, 25)[:, None]
    return tail + t * (head - tail) + 4 * t * (1 - t) * height


def _extent(places: FloatArray, strokes: list[FloatArray], width: float) -> tuple[FloatArray, FloatArray]:
    points = np.concatenate([places, *strokes])
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    margin = max(width, 0.035 * float((high - low).max()))
    return low - margin, high + margin


def _figure_size(span: FloatArray, n_bars: int) -> tuple[float, float]:
    """Return width and height in inches for a board of this extent, room for bars and legend included."""
    return 5.2 + 0.95 * n_bars, float(np.clip(5.2 * span[1] / span[0], 1.7, 6.2)) + 0.6


def _points_per_unit(ax: Axes, span: FloatArray) -> float:
    box = ax.get_window_extent()
    return float(min(box.width / span[0], box.height / span[1]) * 72.0 / _figure(ax).dpi)


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("the axes belong to no figure: take them from one")
    return figure


def _draw_edges(
    ax: Axes,
    strokes: list[FloatArray],
    g: FloatArray | None,
    scale: tuple[float, float] | None,
    dashed: BoolArray,
    diameter: float,
) -> LineCollection:
    thin, thick = max(0.06 * diameter, 0.35), max(0.22 * diameter, 0.9)
    styles: list[Any] = [_DASHES if pinned else "-" for pinned in dashed] if dashed.any() else ["-"]
    lines = LineCollection(strokes, linestyles=styles, zorder=1.0, gid="edges")
    lines.set_rasterized(len(strokes) > _VECTOR_SHAPES)
    if g is None or scale is None:
        lines.set(color=_GREY, linewidth=0.5 * (thin + thick))
    else:
        low, high = scale
        norm = LogNorm(low, high) if high > 10 * low else Normalize(low, high)
        lines.set(array=g, cmap=_EDGE_MAP, norm=norm)
        lines.set_linewidth((thin + (thick - thin) * np.clip(norm(g), 0.0, 1.0)).tolist())
    ax.add_collection(lines, autolim=False)
    return lines


def _roles(network: Network) -> tuple[tuple[_Role, IntArray], ...]:
    return (_INPUTS, network.inputs), (_OUTPUTS, network.outputs), (_HIDDEN, network.hidden)


def _draw_nodes(
    ax: Axes, network: Network, places: FloatArray, p: FloatArray | None, diameter: float
) -> Normalize | None:
    """Draw the nodes and return the scale of their potentials, if any was measured."""
    norm: Normalize | None = None
    if p is not None and not np.isnan(p).all():
        low, high = float(np.nanmin(p)), float(np.nanmax(p))
        # Potentials that differ by rounding alone are one colour.
        even = high - low <= 1e-12 * max(abs(low), abs(high))
        norm = Normalize(low - 0.5, high + 0.5) if even else Normalize(low, high)
    for role, nodes in _roles(network):
        if not len(nodes):
            continue
        # Terminals stay visible where thousands of nodes leave each a dot only.
        width = role.size * (diameter if role is _HIDDEN else max(diameter, 5.0))
        if role is _HIDDEN and p is None and diameter < 3:
            width *= 0.5  # a dot that says nothing leaves the room to the edges
        drawn = ax.scatter(
            places[nodes, 0],
            places[nodes, 1],
            s=width**2,
            marker=role.marker,
            edgecolors=_INK,
            linewidths=0.9 if width > 6 else 0.4 if width > 3 else 0.0,
            zorder=2.0 if role is _HIDDEN else 3.0,
            gid=role.name,
        )
        drawn.set_facecolor(_node_colours(role, nodes, p, norm, width).tolist())
        drawn.set_rasterized(len(nodes) > _VECTOR_SHAPES)
    return norm


def _node_colours(
    role: _Role, nodes: IntArray, p: FloatArray | None, norm: Normalize | None, width: float
) -> FloatArray:
    """Return the face colours (K, 3) of nodes of one role."""
    if p is None:
        # A white dot without an outline would not be seen.
        return np.tile(to_rgb(role.colour if width > 3 else _GREY), (len(nodes), 1))
    if norm is None:
        return np.tile(_NODE_MAP.get_bad()[:3], (len(nodes), 1))
    return np.asarray(_NODE_MAP(norm(np.ma.masked_invalid(p[nodes]))))[:, :3]


def _write_names(
    ax: Axes,
    network: Network,
    places: FloatArray,
    strokes: list[FloatArray],
    p: FloatArray | None,
    norm: Normalize | None,
    diameter: float,
) -> None:
    """Write each node's name into its marker where it fits, else beside it, in the widest gap between its edges."""
    names = network.labels or tuple(str(node) for node in range(network.n_nodes))
    size = float(np.clip(0.5 * diameter, 5.5, 8.0))
    fits = 0.64 * size * max(len(name) for name in names) <= 0.72 * diameter
    halo = [withStroke(linewidth=2.0, foreground="white")]
    leaving = _leaving_angles(network, strokes)
    for role, nodes in _roles(network):
        colours = _node_colours(role, nodes, p, norm, diameter)
        for node, colour in zip(nodes.tolist(), colours, strict=True):
            where = (float(places[node, 0]), float(places[node, 1]))
            if fits:
                dark = float(colour @ (0.299, 0.587, 0.114)) < 0.42
                ax.annotate(
                    names[node], where, ha="center", va="center_baseline", fontsize=size,
                    color="white" if dark else _INK, zorder=4.0, parse_math=False,
                )  # fmt: skip
                continue
            x, y = _widest_gap(leaving[node])
            reach = 0.5 * diameter + 2.5
            ax.annotate(
                names[node], where, (reach * x, reach * y), textcoords="offset points", fontsize=size,
                ha="left" if x > 0.4 else "right" if x < -0.4 else "center",
                va="bottom" if y > 0.4 else "top" if y < -0.4 else "center",
                color=_INK, zorder=4.0, path_effects=halo, parse_math=False,
            )  # fmt: skip


def _leaving_angles(network: Network, strokes: list[FloatArray]) -> list[list[float]]:
    """Return for each node the directions in which its lines leave it, in radians."""
    angles: list[list[float]] = [[] for _ in range(network.n_nodes)]
    for (tail, head), stroke in zip(np.sort(network.edges, axis=1).tolist(), strokes, strict=True):
        for node, (x, y) in ((tail, stroke[1] - stroke[0]), (head, stroke[-2] - stroke[-1])):
            angles[node].append(float(np.arctan2(y, x)))
    return angles


def _widest_gap(angles: list[float]) -> tuple[float, float]:
    """Return the unit vector into the middle of the widest gap between the angles."""
    around = np.sort(angles)
    gaps = np.diff(around, append=around[0] + 2 * np.pi)
    # Of equal gaps the first one wins, in spite of rounding.
    widest = int(np.argmax(np.round(gaps, 6)))
    middle = around[widest] + gaps[widest] / 2
    return float(np.cos(middle)), float(np.sin(middle))


def _add_conductance_bar(ax: Axes, edges: LineCollection, g: FloatArray, scale: tuple[float, float]) -> None:
    low, high = scale
    below, above = bool(g.min() < low * (1 - 1e-9)), bool(g.max() > high * (1 + 1e-9))
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = _figure(ax).colorbar(edges, ax=ax, label="Conductance", extend=extend, **_BAR)
    if isinstance(edges.norm, LogNorm):
        bar.locator = LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,))
    else:
        bar.locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    bar.formatter = EngFormatter(unit="S")
    bar.minorlocator = NullLocator()
    bar.update_ticks()


def _add_potential_bar(ax: Axes, norm: Normalize) -> None:
    bar = _figure(ax).colorbar(ScalarMappable(norm, _NODE_MAP), ax=ax, label="Potential (V)", **_BAR)
    bar.locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    bar.formatter = ScalarFormatter(useOffset=False)
    bar.update_ticks()


def _role_sign(role: _Role, coloured: bool) -> Line2D:
    face = role.colour if coloured else "#ffffff"
    return _sign(role.name, marker=role.marker, markersize=8 * role.size, markerfacecolor=face, linestyle="")


def _sign(label: str, **style: Any) -> Line2D:
    """Return an entry of the legend."""
    return Line2D([], [], label=label, **{"markeredgecolor": _INK, "markersize": 7, **style})
