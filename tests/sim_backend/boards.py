"""Boards for the tests of the simulator: hostile ones by name, and random ones."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hilcl.network import Network

FloatArray = npt.NDArray[np.float64]

SMALL, LARGE = 1e-6, 2e-2
"""Conductances in siemens at the two ends of what boards mix."""


def mixed(n_edges: int, seed: int) -> FloatArray:
    """Return conductances (M,) of which a third are small, a third large and the others spread between."""
    generator = np.random.default_rng(seed)
    between = np.exp(generator.uniform(np.log(SMALL), np.log(LARGE), n_edges))
    return np.select([np.arange(n_edges) % 3 == 0, np.arange(n_edges) % 3 == 1], [SMALL, LARGE], between)[
        generator.permutation(n_edges)
    ]


def _grid() -> tuple[Network, FloatArray]:
    network = Network.grid(5, 5, inputs=[0, 24], outputs=[12, 7])
    return network, mixed(network.n_edges, 1)


def _torus() -> tuple[Network, FloatArray]:
    network = Network.torus(4, 4, inputs=[0, 5, 10], outputs=[3, 9])
    return network, mixed(network.n_edges, 2)


def _tree() -> tuple[Network, FloatArray]:
    """A chain between the inputs with branches that lead nowhere."""
    chain = [[0, 1], [1, 2], [2, 3], [3, 4]]
    branches = [[1, 5], [5, 6], [6, 7], [2, 8], [8, 9], [3, 10], [10, 11], [10, 12]]
    network = Network(13, chain + branches, [0, 4], [2])
    return network, np.array([SMALL, LARGE, 3e-4, SMALL, LARGE, SMALL, LARGE, SMALL, LARGE, 7e-5, LARGE, SMALL])


def _parallel() -> tuple[Network, FloatArray]:
    network = Network(5, [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [2, 3], [1, 3], [3, 4], [4, 3]], [0, 4], [2])
    return network, np.array([SMALL, 3 * SMALL, LARGE, SMALL, LARGE, LARGE, SMALL, SMALL, 1.1e-6])


def _balanced_bridge() -> tuple[Network, FloatArray]:
    """A Wheatstone bridge whose middle edge carries no current."""
    network = Network(4, [[0, 1], [1, 3], [0, 2], [2, 3], [1, 2]], [0, 3], [1])
    return network, np.array([SMALL, 3 * SMALL, LARGE, 3 * LARGE, LARGE])


def _weak_island() -> tuple[Network, FloatArray]:
    """Strongly joined nodes that hang on the inputs by weak edges: rounding the diagonal hurts most here."""
    island = [[a, b] for a in range(2, 8) for b in range(a + 1, 8)]
    network = Network(8, [[0, 2], [7, 1], *island], [1, 0], [4, 6])
    return network, np.concatenate([[SMALL, SMALL], np.linspace(0.7, 1.0, len(island)) * LARGE])


HOSTILE = {
    "grid": _grid(),
    "torus": _torus(),
    "tree": _tree(),
    "parallel": _parallel(),
    "balanced bridge": _balanced_bridge(),
    "weak island": _weak_island(),
}


@st.composite
def networks(
    draw: st.DrawFn, *, max_nodes: int = 7, max_inputs: int = 3, max_outputs: int = 2, min_terminals: int = 2
) -> Network:
    """Draw a connected graph, parallel edges and dangling branches included, with one input at least."""
    n_nodes = draw(st.integers(max(2, min_terminals), max_nodes))
    edges = [[draw(st.integers(0, node - 1)), node] for node in range(1, n_nodes)]
    for _ in range(draw(st.integers(0, 5))):
        first, second = draw(st.lists(st.integers(0, n_nodes - 1), min_size=2, max_size=2, unique=True))
        edges.append([first, second])
    order = draw(st.permutations(range(n_nodes)))
    n_inputs = draw(st.integers(1, min(max_inputs, n_nodes)))
    n_outputs = draw(st.integers(max(0, min_terminals - n_inputs), max(0, min(max_outputs, n_nodes - n_inputs))))
    return Network(n_nodes, edges, order[:n_inputs], order[n_inputs : n_inputs + n_outputs])


@st.composite
def conductances_of(draw: st.DrawFn, network: Network) -> FloatArray:
    """Draw conductances (M,) between the two ends, often the ends themselves."""
    one = st.sampled_from([SMALL, LARGE]) | st.floats(SMALL, LARGE)
    return np.array(draw(st.lists(one, min_size=network.n_edges, max_size=network.n_edges)))


VOLTS = st.floats(-5, 5, allow_subnormal=False).map(lambda volts: round(volts, 3))
