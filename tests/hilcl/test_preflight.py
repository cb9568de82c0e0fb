"""Preflight against boards with one thing wrong: the right names in the sentence, and silence on a sound board."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hilcl import DeviceRange, Network, Potentiometer
from hilcl.arrays import FloatArray
from hilcl.board import Board, BoardSnapshot, Contrast, Response, SafeExit, contrast_from_responses
from hilcl.errors import BoardError, InputError
from hilcl.experiment import Experiment
from hilcl.preflight import Names, Preflight, Remark
from hilcl.preflight_model import BoardModel, Fit, Wires
from hilcl.preflight_wording import ROOM, Wording, either
from hilcl.preparation import prepare
from hilcl.sim_backend import Imperfections, MeterDefects, PotDefects, SimulatedBoard, SourceDefects
from hilcl.sim_backend.imperfections import true_tables

POT = Potentiometer(positions=128, end_to_end=100e3, wiper=40.0, series=2.2e3)
VOLTS = 0.2
BITS12 = 2.0 / 4096
REAL = Imperfections(
    meters=MeterDefects(gain=0.005, offset=2e-3, noise=1e-4, resolution=BITS12),
    sources=SourceDefects(series=0.5, offset=2e-4),
)
HARD = Imperfections(
    meters=MeterDefects(gain=0.005, offset=2e-3, noise=1e-4, resolution=BITS12, input_resistance=1e6),
    sources=SourceDefects(series=10.0, offset=2e-4),
)
"""Leads and switches of 10 Ω and meters of 1 MΩ on pots of 100 kΩ."""
TOLERANCE = PotDefects(tolerance=0.2, wiper_spread=0.5, inl=0.5)
EXAMPLES = Path(__file__).parents[2] / "examples"
NETWORKS = {
    "crossbar": Network.crossbar(8, 4),
    "torus": Network.torus(4, 4, inputs=[0, 10], outputs=[3, 8]),
    "divider": Network(3, [[0, 1], [1, 2]], [0, 2], [1]),
    "bench16": prepare(Experiment.load(EXAMPLES / "bench16.toml")).network,
}
SEEDS = range(20, 40)


@dataclass(frozen=True)
class Wrong:
    """What is wrong, by terminal node, by node and by edge."""

    ends: Mapping[int, int] = field(default_factory=dict)
    """Terminal node → node its source really ends at, −1 nowhere."""
    reversed_sources: frozenset[int] = frozenset()
    reads: Mapping[int, int] = field(default_factory=dict)
    """Node → node its meter really reads."""
    gains: Mapping[int, float] = field(default_factory=dict)
    says: Mapping[int, float] = field(default_factory=dict)
    """Node → what its meter always says."""
    moves: Mapping[int, int] = field(default_factory=dict)
    """Pot → edge it really moves."""
    fixed: Mapping[int, float] = field(default_factory=dict)
    """Edge → the siemens it always has."""
    inverted: frozenset[int] = frozenset()
    shorted: frozenset[int] = frozenset()
    """Terminal nodes joined to 0 V."""


class Miswired(SafeExit):
    """A board whose wires, meters and pots are not where the file says; with ``own``, terminals read themselves."""

    exact = False

    def __init__(
        self,
        network: Network,
        seed: int,
        wrong: Wrong | None = None,
        *,
        own: bool = False,
        amperes: bool = True,
        pots: PotDefects = TOLERANCE,
        defects: Imperfections = REAL,
    ) -> None:
        self.network, self.wrong, self.own, self.amperes = network, wrong or Wrong(), own, amperes
        self.device_range = DeviceRange.of_pots(POT).for_edges(network.n_edges)
        generator = np.random.default_rng(seed)
        self.truth = np.array(true_tables([POT] * network.n_edges, pots, generator))
        # Every node can be driven behind the scenes, so that a wire can end anywhere.
        everywhere = Network(network.n_nodes, network.edges, [0], np.arange(1, network.n_nodes))
        self.inner = SimulatedBoard(everywhere, 1e-5, imperfections=defects, seed=seed)
        self.conductances = np.zeros(network.n_edges)
        self.program(generator.choice(POT.conductances(), network.n_edges))
        self.most_volts, self.last_drive, self.made_safe, self.rows = 0.0, np.zeros(0), False, 0

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        wished = np.asarray(conductances)
        projection = self.device_range.project(wished)
        assert projection.codes is not None
        np.testing.assert_allclose(projection.conductances, wished, rtol=1e-12)
        codes = projection.codes.copy()
        for edge in self.wrong.inverted:
            codes[edge] = POT.positions - 1 - codes[edge]
        held = np.full(self.network.n_edges, 64)
        for pot, code in enumerate(codes.tolist()):
            held[self.wrong.moves.get(pot, pot)] = code
        true = self.truth[np.arange(len(held)), held]
        for edge, value in self.wrong.fixed.items():
            true[edge] = value
        self.inner.program(true)
        self.conductances = projection.conductances
        return self.conductances

    def respond(self, drives: npt.ArrayLike) -> Response:
        wanted = np.asarray(drives, dtype=np.float64)
        self.rows += len(wanted)
        self.most_volts = max(self.most_volts, float(np.nanmax(np.abs(wanted))))
        self.last_drive = wanted[-1]
        terminals = self.network.terminals.tolist()
        n_nodes, wrong = self.network.n_nodes, self.wrong
        inside = np.full((len(wanted), n_nodes), np.nan)
        signs = [-1.0 if node in wrong.reversed_sources else 1.0 for node in terminals]
        ends = [wrong.ends.get(node, node) for node in terminals]
        for terminal, end in enumerate(ends):
            if end >= 0:
                inside[:, end] = signs[terminal] * wanted[:, terminal]
        inside[:, list(wrong.shorted)] = 0.0
        seen = self.inner.respond(inside)
        potentials, currents = seen.potentials.copy(), np.zeros(wanted.shape)
        for node in range(n_nodes):
            at = wrong.reads.get(node, node)
            potentials[:, node] = wrong.gains.get(node, 1.0) * seen.potentials[:, at]
            if node in wrong.says:
                potentials[:, node] = wrong.says[node]
        for terminal, (node, end) in enumerate(zip(terminals, ends, strict=True)):
            if end >= 0:
                currents[:, terminal] = signs[terminal] * seen.currents[:, end]
            if self.own:
                driven = ~np.isnan(wanted[:, terminal])
                there = signs[terminal] * seen.potentials[:, end] if end >= 0 else np.zeros(len(wanted))
                potentials[:, node] = np.where(driven, wanted[:, terminal], there)
        limited = np.zeros(wanted.shape, dtype=np.bool_)
        for node in wrong.shorted:
            at = terminals.index(node)
            limited[:, at] = np.nan_to_num(wanted[:, at]) != 0.0
        if not self.amperes:
            currents[:] = np.nan
        return Response(potentials, currents, seen.potentials_u, np.zeros_like(currents), limited)

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        return contrast_from_responses(self, inputs, targets, nudge)

    def snapshot(self) -> BoardSnapshot:
        return {}

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Nothing is remembered."""

    def make_safe(self) -> None:
        self.made_safe = True

    def close(self) -> None:
        self.make_safe()


def names_of(network: Network, *, own: bool = False) -> Names:
    nodes = range(network.n_nodes) if not own else network.hidden.tolist()
    return Names(
        {node: f"smu {node}" for node in network.terminals.tolist()},
        {node: f"channel {101 + node}" for node in nodes},
        {edge: f"board pot {edge}" for edge in range(network.n_edges)},
    )


def remarks_of(board: Miswired, *, named: bool = True) -> list[Remark]:
    remarks = list(Preflight(board, VOLTS, names_of(board.network, own=board.own) if named else None).run())
    for remark in remarks:
        assert "\n" not in remark.sentence
        assert len(remark.sentence) <= ROOM, remark.sentence
    return remarks


def faults_of(board: Miswired, *, named: bool = True) -> list[str]:
    return [remark.sentence for remark in remarks_of(board, named=named) if remark.kind == "fault"]


def case(kind: str, network: Network, seed: int, *, own: bool) -> tuple[Wrong, list[str]]:
    """Return a fault drawn by seed and what its sentence must hold."""
    generator = np.random.default_rng(seed)
    terminals = network.terminals.tolist()
    a, b, c = generator.choice(terminals, 3, replace=False).tolist()
    metered = network.hidden.tolist() if own else list(range(network.n_nodes))
    n, m, k = generator.choice(metered, 3, replace=False).tolist() if len(metered) > 2 else (0, 0, 0)
    e, f, g = generator.choice(network.n_edges, 3, replace=False).tolist()
    channel = {node: f"channel {101 + node}" for node in (n, m, k)}
    value = float(POT.conductances()[int(generator.integers(POT.positions))])
    cases: dict[str, tuple[Wrong, list[str]]] = {
        "open source": (
            Wrong(ends={a: -1}),
            ["nothing arrives at", f"node {a} from smu {a}"],
        ),
        "reversed source": (Wrong(reversed_sources=frozenset([a])), [f"smu {a} drives", "polarity reversed"]),
        "swapped sources": (
            Wrong(ends={a: b, b: a}),
            ["are swapped", f"smu {a}", f"smu {b}"],
        ),
        "permuted sources": (Wrong(ends={a: b, b: c, c: a}), ["permuted", *(f"smu {t} is seen at" for t in (a, b, c))]),
        "short": (Wrong(shorted=frozenset([a])), [f"smu {a} reaches its current limit"]),
        "dead meter": (Wrong(says={n: 0.0}), [f"{channel[n]} does not follow"]),
        "constant meter": (Wrong(says={n: 1.7}), [f"{channel[n]} does not follow", "always reads 1.7 V"]),
        "missing meter": (Wrong(says={n: np.nan}), [f"{channel[n]} gives no reading", "cannot be trained"]),
        "saturated meter": (Wrong(says={n: np.inf}), [f"{channel[n]} is saturated"]),
        "reversed meter": (Wrong(gains={n: -1.0}), [channel[n], "wrong sign"]),
        "wrong gain": (Wrong(gains={n: 2.0}), [channel[n], "times the volts"]),
        "swapped meters": (Wrong(reads={n: m, m: n}), ["swapped", f"{channel[n]} reads", f"{channel[m]} reads"]),
        "permuted meters": (Wrong(reads={n: m, m: k, k: n}), ["permuted", *(f"{channel[x]} reads" for x in (n, m, k))]),
        "stuck pot": (Wrong(fixed={e: value}), [f"board pot {e} (edge {e}) does not move"]),
        "open pot": (Wrong(fixed={e: 1e-9}), [f"board pot {e} (edge {e}) is open"]),
        "shorted pot": (Wrong(fixed={e: 0.1}), [f"board pot {e} (edge {e}) is shorted"]),
        "inverted pot": (Wrong(inverted=frozenset([e])), [f"board pot {e} (edge {e}) moves in the wrong direction"]),
        "swapped pots": (Wrong(moves={e: f, f: e}), ["swapped", f"board pot {e} ", f"board pot {f} "]),
        "permuted pots": (Wrong(moves={e: f, f: g, g: e}), ["permuted", *(f"pot {x} (" for x in (e, f, g))]),
    }
    if len(network.hidden):
        hidden = int(generator.choice(network.hidden))
        cases["source at a hidden node"] = (
            Wrong(ends={a: hidden}),
            [f"smu {a} is seen at hidden node {hidden} "],
        )
    return cases[kind]


KINDS = [
    "open source",
    "reversed source",
    "swapped sources",
    "permuted sources",
    "short",
    "dead meter",
    "constant meter",
    "missing meter",
    "saturated meter",
    "reversed meter",
    "wrong gain",
    "swapped meters",
    "permuted meters",
    "stuck pot",
    "open pot",
    "shorted pot",
    "inverted pot",
    "swapped pots",
    "permuted pots",
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("kind", "where"),
    [(kind, where) for kind in KINDS for where in ("crossbar", "torus")] + [("source at a hidden node", "torus")],
)
def test_a_single_fault_is_named_and_nothing_else(kind: str, where: str, seed: int) -> None:
    network = NETWORKS[where]
    wrong, needed = case(kind, network, seed, own=False)
    faults = faults_of(Miswired(network, seed, wrong))
    assert len(faults) == 1, faults
    assert all(part in faults[0] for part in needed), (needed, faults)


@pytest.mark.parametrize("kind", ["open source", "swapped sources", "reversed source"])
@pytest.mark.parametrize("where", ["crossbar", "torus"])
def test_sources_that_read_themselves_are_seen_by_what_the_pots_do(kind: str, where: str) -> None:
    network = NETWORKS[where]
    wrong, needed = case(kind, network, 3, own=True)
    faults = faults_of(Miswired(network, 3, wrong, own=True))
    assert len(faults) == 1, faults
    assert all(part in faults[0] for part in needed), (needed, faults)


@pytest.mark.parametrize("where", ["crossbar", "torus"])
@pytest.mark.parametrize(
    "kind", ["open source", "swapped sources", "swapped meters", "shorted pot", "open pot", "swapped pots"]
)
def test_long_leads_and_meters_that_load_the_board_hide_no_fault_and_add_none(kind: str, where: str) -> None:
    network = NETWORKS[where]
    wrong, needed = case(kind, network, 4, own=False)
    faults = faults_of(Miswired(network, 4, wrong, defects=HARD))
    assert len(faults) == 1, faults
    assert all(part in faults[0] for part in needed), (needed, faults)


@pytest.mark.parametrize("ohms", [2.0, 10.0])
def test_a_shorted_pot_of_ten_ohms_behind_long_leads_is_one_fault(ohms: float) -> None:
    defects = Imperfections(sources=SourceDefects(series=ohms), meters=MeterDefects(gain=0.002, noise=1e-4))
    for edge in (0, 1):
        faults = faults_of(Miswired(NETWORKS["divider"], 5, Wrong(fixed={edge: 0.1}), defects=defects))
        assert len(faults) == 1, faults
        assert faults[0].startswith(f"board pot {edge} (edge {edge}) is shorted")


def test_a_bad_contact_is_told_with_its_resistance() -> None:
    board = Miswired(NETWORKS["bench16"], 6, defects=Imperfections(sources=SourceDefects(series=2e3)))
    faults = faults_of(board)
    assert len(faults) == 4, faults
    for fault, node in zip(faults, board.network.terminals.tolist(), strict=True):
        assert f"smu {node} reaches" in fault
        assert 1800 <= float(fault.split("through about ")[1].split(" ohms")[0]) <= 2200


@pytest.mark.parametrize("where", ["crossbar", "torus"])
def test_a_pot_that_writes_to_the_edge_of_another_is_named_with_it(where: str) -> None:
    # The pot with the higher number is written last, so the other one no longer moves anything.
    faults = faults_of(Miswired(NETWORKS[where], 0, Wrong(moves={20: 6})))
    assert len(faults) == 2, faults
    assert faults[0].startswith("board pot 20 (edge 20) moves edge 6 instead")
    assert faults[1].startswith("board pot 6 (edge 6) does not move")


@pytest.mark.parametrize("amperes", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_on_a_divider_faults_that_look_the_same_are_all_named(seed: int, own: bool, amperes: bool) -> None:
    network = NETWORKS["divider"]
    cases: list[tuple[Wrong, str, str]] = [
        (Wrong(ends={0: -1}), "nothing arrives at input node 0 from smu 0", "smu 0 does not reach"),
        (Wrong(ends={0: 2, 2: 0}), "sources are swapped: smu 0 is seen", "smu 0 and smu 2 are swapped"),
        (Wrong(fixed={1: 1e-9}), "board pot 1 (edge 1) is open", "board pot 1 (edge 1) is open"),
        (Wrong(fixed={0: 0.1}), "board pot 0 (edge 0) is shorted", "board pot 0 (edge 0) is shorted"),
        (Wrong(moves={0: 1, 1: 0}), "edge 0) and board pot 1 (edge 1) are swapped", "edge 1) are swapped"),
    ]
    for wrong, alone, among in cases:
        said = remarks_of(Miswired(network, seed, wrong, own=own, amperes=amperes))
        faults = [remark.sentence for remark in said if remark.kind == "fault"]
        assert len(faults) == 1, faults
        either = faults[0].startswith("either ")
        rivals = faults + [each.sentence for each in said if each.sentence.startswith("just as likely")]
        assert any(among in each for each in rivals) if either else alone in faults[0], rivals


def test_a_source_and_a_pot_that_read_alike_are_named_together() -> None:
    # With one reading between two pots, an open pot and an open wire to it are the same.
    board = Miswired(NETWORKS["divider"], 0, Wrong(ends={0: -1}), own=True)
    (fault,) = faults_of(board)
    assert fault.startswith("either ")
    assert "smu 0 does not reach input node 0" in fault
    assert "board pot 0 (edge 0) is open" in fault


@pytest.mark.parametrize("seed", range(3))
def test_two_faults_at_once_are_both_named(seed: int) -> None:
    network = NETWORKS["bench16"]
    faults = faults_of(Miswired(network, seed, Wrong(ends={0: 2, 2: 0}, moves={3: 9, 9: 3})))
    assert len(faults) == 2, faults
    assert "swapped: smu 0 is seen at output node 2 and smu 2 is seen at input node 0" in faults[0]
    assert "board pot 3 (edge 3) and board pot 9 (edge 9) are swapped" in faults[1]
    stuck = float(POT.conductances()[100 - 40 * seed])
    faults = faults_of(Miswired(network, seed, Wrong(says={4: 0.0}, fixed={5: stuck})))
    assert len(faults) == 2, faults
    assert "channel 105 does not follow hidden node 4" in faults[0]
    assert "board pot 5 (edge 5) does not move" in faults[1]


def test_long_names_still_make_lines_of_two_hundred_characters() -> None:
    network = NETWORKS["crossbar"]
    terminals = range(network.n_nodes)
    names = Names(
        {node: f"the left keithley 2602B channel {node}" for node in terminals},
        {node: f"the scanner of the cellar channel {node}" for node in terminals},
        {edge: f"the pot board of the cellar pot {edge}" for edge in range(network.n_edges)},
    )
    pots = network.n_edges
    model = BoardModel(network, np.ones(pots), np.full(pots, 4.0), 1e-5)
    stated = Wires.stated(network)
    everything = replace(
        stated,
        source_node=np.roll(stated.source_node, 1),
        meter_node=np.roll(stated.meter_node, 2),
        pot_edge=np.roll(stated.pot_edge, 1),
    )
    fit = Fit(everything, model.nominal(), 0.0, 0.0)
    limits = np.full(pots, 1e-6), np.full(pots, 1e-4)
    found = Wording(network, names).findings(fit, model, np.zeros(network.n_nodes), limits)
    lines = [each.sentence for each in found] + either([[each] for each in found])
    assert max(map(len, lines)) <= ROOM
    for name in (*names.sources.values(), *names.meters.values(), *names.pots.values()):
        assert any(f"{name} " in line for line in lines), name


@pytest.mark.parametrize("amperes", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("where", NETWORKS)
def test_a_sound_board_has_no_fault(where: str, own: bool, amperes: bool) -> None:
    for seed in SEEDS:
        assert faults_of(Miswired(NETWORKS[where], seed, own=own, amperes=amperes)) == []
        assert faults_of(Miswired(NETWORKS[where], seed, own=own, amperes=amperes, defects=HARD)) == []


def test_nothing_is_driven_beyond_the_test_voltage_and_all_is_left_as_it_was() -> None:
    board = Miswired(NETWORKS["torus"], 0)
    start = board.conductances.copy()
    check = Preflight(board, VOLTS)
    assert {remark.kind for remark in check.run()} == {"done"}
    assert check.passed
    assert board.most_volts == VOLTS
    np.testing.assert_array_equal(board.conductances, start)
    np.testing.assert_array_equal(board.last_drive, 0.0)
    assert check.step_seconds(10) > check.step_seconds(1) > 0


def test_a_preflight_that_is_broken_off_leaves_the_board_as_it_was() -> None:
    board = Miswired(NETWORKS["divider"], 0)
    start = board.conductances.copy()
    remarks = Preflight(board, VOLTS).run()
    next(remarks)
    remarks.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(board.conductances, start)
    np.testing.assert_array_equal(board.last_drive, 0.0)


def test_a_board_that_fails_is_made_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Miswired(NETWORKS["divider"], 0)

    def fail(drives: npt.ArrayLike) -> Response:
        raise BoardError("the meter is gone: plug it in")

    monkeypatch.setattr(board, "respond", fail)
    start = board.conductances.copy()
    with pytest.raises(BoardError, match="the meter is gone"):
        list(Preflight(board, VOLTS).run())
    assert board.made_safe
    np.testing.assert_array_equal(board.conductances, start)


def test_what_fails_while_a_failed_board_is_put_back_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Miswired(NETWORKS["divider"], 0)

    def fail(values: npt.ArrayLike) -> FloatArray:
        raise BoardError("the pot board is gone: plug it in")

    monkeypatch.setattr(board, "program", fail)
    with pytest.raises(BoardError, match="the pot board is gone") as caught:
        list(Preflight(board, VOLTS).run())
    assert board.made_safe
    assert caught.value.__notes__ == ["after that: the pot board is gone: plug it in"]


def test_parallel_pots_are_said_to_be_alike() -> None:
    network = Network(3, [[0, 1], [0, 1], [1, 2]], [0, 2], [1])
    alike = [each.sentence for each in remarks_of(Miswired(network, 0)) if each.kind == "unchecked"]
    assert alike == [
        "could not be told apart: board pot 0 (edge 0), board pot 1 (edge 1); a swap among them would not show"
    ]


def test_a_pot_between_two_sources_without_ammeters_cannot_be_seen() -> None:
    network = Network(3, [[0, 2], [0, 1], [1, 2]], [0, 2], [1])
    said = [each.sentence for each in remarks_of(Miswired(network, 0, amperes=False)) if each.kind == "unchecked"]
    assert any("could not be seen to move: board pot 0 (edge 0);" in sentence for sentence in said)
    assert any("no current is read" in sentence for sentence in said)


@pytest.mark.parametrize("volts", [0.0, -1.0, np.nan, np.inf])
def test_a_test_voltage_is_positive(volts: float) -> None:
    with pytest.raises(InputError, match="positive test voltage"):
        Preflight(Miswired(NETWORKS["divider"], 0), volts)


def test_a_grounded_terminal_is_never_driven() -> None:
    board = Miswired(NETWORKS["divider"], 0)
    with pytest.raises(InputError, match="cannot be grounded"):
        Preflight(Miswired(Network.torus(4, 4, outputs=[3]), 0), VOLTS, grounded=[5])
    answer, driven = board.respond, []

    def watched(drives: npt.ArrayLike) -> Response:
        driven.append(np.asarray(drives))
        return answer(drives)

    board.respond = watched  # type: ignore[method-assign]
    assert [each for each in Preflight(board, VOLTS, grounded=[2]).run() if each.kind == "fault"] == []
    np.testing.assert_array_equal(np.concatenate(driven)[:, 1], 0.0)


def test_the_fake_is_a_board() -> None:
    assert isinstance(Miswired(NETWORKS["divider"], 0), Board)
