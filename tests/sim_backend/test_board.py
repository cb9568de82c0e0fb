import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Board, Network
from hilcl.board import Contrast, contrast_from_responses, free_drives
from hilcl.device_range import DeviceRange
from hilcl.errors import BoardError, ComplianceError, InputError
from hilcl.sim_backend import Imperfections, PotDefects, SimulatedBoard, SourceDefects
from hilcl.sim_backend.solvers import SolverName
from tests.sim_backend.boards import HOSTILE, VOLTS, conductances_of, networks
from tests.sim_backend.exact_oracle import as_floats, exact_contrast, exact_state

FloatArray = npt.NDArray[np.float64]

CHAIN = Network(3, [[0, 1], [1, 2]], [0, 2], [1])

TORUS = Network.torus(4, 4, inputs=[3, 9, 12], outputs=[0, 6])


def torus_board(**more: object) -> SimulatedBoard:
    """Return a board of moderate conductances."""
    g = np.random.default_rng(11).uniform(1e-4, 1e-3, TORUS.n_edges)
    return SimulatedBoard(TORUS, g, **more)  # type: ignore[arg-type]


def dense_state(network: Network, g: FloatArray, drives: FloatArray) -> FloatArray:
    """Return node potentials (N,) by a dense solve of Kirchhoff's law at the floating nodes."""
    incidence = network.incidence.toarray()
    whole = incidence @ np.diag(g) @ incidence.T
    potentials = np.full(network.n_nodes, np.nan)
    potentials[network.terminals] = drives
    held = ~np.isnan(potentials)
    potentials[~held] = np.linalg.solve(whole[np.ix_(~held, ~held)], -whole[np.ix_(~held, held)] @ potentials[held])
    return potentials


class TestResponses:
    def test_every_pattern_of_floating_terminals_in_one_call(self) -> None:
        board = torus_board()
        patterns = np.array(np.meshgrid(*[[False, True]] * 5)).reshape(5, -1).T
        driven = patterns[patterns.any(axis=1)]
        volts = np.random.default_rng(0).uniform(-2, 2, driven.shape)
        drives = np.where(driven, volts, np.nan)
        response = board.respond(drives)
        for row, potentials, currents in zip(drives, response.potentials, response.currents, strict=True):
            expected = dense_state(TORUS, board.conductances, row)
            np.testing.assert_allclose(potentials, expected, rtol=0, atol=1e-12)
            into = TORUS.incidence.toarray() @ (board.conductances * TORUS.edge_voltages(expected))
            np.testing.assert_allclose(currents, into[TORUS.terminals], rtol=0, atol=1e-15)
            np.testing.assert_allclose(currents[np.isnan(row)], 0.0, atol=1e-16)

    def test_ideal_readings_have_no_uncertainty_and_no_limits(self) -> None:
        response = torus_board().respond(np.zeros((3, 5)))
        assert response.potentials.shape == response.potentials_u.shape == (3, 16)
        assert response.currents.shape == response.currents_u.shape == response.in_compliance.shape == (3, 5)
        assert not response.potentials_u.any()
        assert not response.currents_u.any()
        assert not response.in_compliance.any()

    def test_samples_together_are_samples_one_by_one(self) -> None:
        board = torus_board()
        drives = np.random.default_rng(1).uniform(-1, 1, (20, 5))
        drives[::3, 3:] = np.nan
        drives[1::3, 4] = np.nan
        together = board.respond(drives)
        for sample, row in enumerate(drives):
            alone = board.respond(row)
            np.testing.assert_allclose(together.potentials[sample], alone.potentials[0], rtol=0, atol=1e-14)
            np.testing.assert_allclose(together.currents[sample], alone.currents[0], rtol=0, atol=1e-17)

    def test_kirchhoff_and_tellegen(self) -> None:
        board = torus_board()
        drives = np.random.default_rng(2).uniform(-1, 1, (12, 5))
        drives[:4, 3:] = np.nan
        drives[4:8, 0] = np.nan
        response = board.respond(drives)
        voltages = TORUS.edge_voltages(response.potentials)
        leaving = (voltages * board.conductances) @ TORUS.incidence.toarray().T
        traffic = np.abs(voltages * board.conductances) @ np.abs(TORUS.incidence.toarray()).T
        injected = np.zeros_like(leaving)
        injected[:, TORUS.terminals] = response.currents
        assert (np.abs(leaving - injected) <= 1e-11 * traffic).all()
        np.testing.assert_allclose(response.currents.sum(axis=1), 0.0, atol=1e-16)
        dissipated = (board.conductances * voltages**2).sum(axis=1)
        delivered = (response.potentials[:, TORUS.terminals] * response.currents).sum(axis=1)
        np.testing.assert_allclose(delivered, dissipated, rtol=1e-11)

    @pytest.mark.parametrize("solver", ["dense", "superlu", "qdldl", "fused"])
    def test_every_solver_gives_the_same_board(self, solver: SolverName) -> None:
        board, reference = torus_board(solver=solver, accuracy="certified"), torus_board()
        assert board.solver_name == solver
        drives = np.array([[1.0, 0.0, 0.5, np.nan, np.nan], [1.0, np.nan, 0.5, 0.7, np.nan]])
        np.testing.assert_allclose(
            board.respond(drives).potentials, reference.respond(drives).potentials, rtol=0, atol=1e-13
        )

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_any_drive_of_any_board_against_rational_arithmetic(self, data: st.DataObject) -> None:
        network = data.draw(networks(min_terminals=1))
        g = data.draw(conductances_of(network))
        n_terminals = len(network.terminals)
        drives = data.draw(
            st.lists(VOLTS | st.just(math.nan), min_size=n_terminals, max_size=n_terminals).filter(
                lambda row: not all(map(math.isnan, row))
            )
        )
        response = SimulatedBoard(network, g).respond(drives)
        exact = exact_state(network, g, drives)
        span = max(abs(volts) for volts in drives if not math.isnan(volts))
        np.testing.assert_allclose(response.potentials[0], as_floats(exact.potentials), rtol=0, atol=1e-9 * span)
        np.testing.assert_allclose(response.currents[0], as_floats(exact.currents), rtol=0, atol=1e-9 * span * g.max())

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_no_potential_leaves_the_range_of_the_drives(self, data: st.DataObject) -> None:
        network = data.draw(networks(min_terminals=1))
        g = data.draw(conductances_of(network))
        n_terminals = len(network.terminals)
        drives = np.array(data.draw(st.lists(VOLTS, min_size=n_terminals, max_size=n_terminals)))
        floats = data.draw(st.lists(st.booleans(), min_size=n_terminals, max_size=n_terminals))
        drives[1:][np.array(floats[1:], dtype=bool)] = np.nan
        potentials = SimulatedBoard(network, g).respond(drives).potentials
        low, high = np.nanmin(drives), np.nanmax(drives)
        slack = 1e-9 * max(abs(low), abs(high))
        assert potentials.min() >= low - slack
        assert potentials.max() <= high + slack

    def test_foster_by_terminal_currents(self) -> None:
        """Σ g_e R_eff(e) = N − 1, R_eff from the current that 1 V drives from one end of the edge to the other."""
        g = np.random.default_rng(5).uniform(1e-4, 1e-2, TORUS.n_edges)
        total = 0.0
        for edge, ends in enumerate(TORUS.edges):
            board = SimulatedBoard(Network(16, TORUS.edges, ends, []), g)
            current = board.respond([1.0, 0.0]).currents[0]
            assert current[1] == pytest.approx(-current[0], rel=1e-12)
            total += g[edge] / current[0]
        assert total == pytest.approx(15.0, rel=1e-12)

    @pytest.mark.parametrize("side", [2, 3, 4])
    def test_a_grid_from_corner_to_corner(self, side: int) -> None:
        current = SimulatedBoard(Network.grid(side, side), 1.0).respond([1.0, 0.0]).currents[0, 0]
        assert 1 / current == pytest.approx({2: 1.0, 3: 3 / 2, 4: 13 / 7}[side], rel=1e-14)

    @pytest.mark.parametrize(
        ("drives", "message"),
        [
            ([[1.0, 0.0]], "drives has 2 columns, but 3 are needed"),
            ([[1.0, 0.0, np.inf]], "finite volts, or NaN"),
            ([["one", 0.0, 0.0]], "drives must be a table of numbers"),
            (np.zeros((1, 1, 3)), "one row per sample"),
        ],
    )
    def test_drives_that_make_no_sense_are_refused(self, drives: npt.ArrayLike, message: str) -> None:
        with pytest.raises(InputError, match=message):
            SimulatedBoard(CHAIN, 1e-3).respond(drives)

    def test_a_board_that_nothing_drives_is_refused(self) -> None:
        with pytest.raises(BoardError, match="sample 1 drives no terminal"):
            SimulatedBoard(CHAIN, 1e-3).respond([[1.0, np.nan, np.nan], [np.nan] * 3])


@pytest.fixture(params=["auto", "fused"])
def solver(request: pytest.FixtureRequest) -> SolverName:
    """One solver of each way to a contrast: from the basis, and from one compiled pass."""
    name: SolverName = request.param
    return name


class TestContrast:
    INPUTS = np.random.default_rng(7).uniform(-1, 1, (9, 3))
    TARGETS = np.random.default_rng(8).uniform(-0.5, 0.5, (9, 2))

    @pytest.mark.parametrize("nudge", [1.0, 0.5, 0.05])
    def test_the_fused_contrast_is_that_of_two_responses(self, solver: SolverName, nudge: float) -> None:
        board = torus_board(solver=solver)
        fused = board.contrast(self.INPUTS, self.TARGETS, nudge)
        measured = contrast_from_responses(board, self.INPUTS, self.TARGETS, nudge)
        np.testing.assert_allclose(fused.outputs, measured.outputs, rtol=0, atol=1e-14)
        np.testing.assert_allclose(fused.gradient, measured.gradient, rtol=0, atol=1e-12 * nudge)
        np.testing.assert_allclose(fused.power_free, measured.power_free, rtol=1e-11)
        np.testing.assert_allclose(fused.contrast, measured.contrast, rtol=1e-10)
        assert fused.clamp_error == 0.0
        assert measured.clamp_error < 1e-14

    @pytest.mark.parametrize("board", HOSTILE)
    @pytest.mark.parametrize("nudge", [1.0, 0.1])
    def test_hostile_boards_against_rational_arithmetic(self, solver: SolverName, board: str, nudge: float) -> None:
        network, g = HOSTILE[board]
        generator = np.random.default_rng(1)
        inputs = generator.uniform(-1, 1, len(network.inputs))
        targets = generator.uniform(inputs.min(), inputs.max(), len(network.outputs))
        fused = SimulatedBoard(network, g, solver=solver).contrast(inputs, targets, nudge)
        exact = exact_contrast(network, g, inputs.tolist(), targets.tolist(), nudge)
        np.testing.assert_allclose(fused.outputs[0], as_floats(exact.outputs), rtol=0, atol=1e-9)
        gradient = as_floats(exact.gradient)
        np.testing.assert_allclose(fused.gradient, gradient, rtol=0, atol=1e-9 * np.abs(gradient).max())
        np.testing.assert_allclose(fused.power_free[0], float(exact.power_free), rtol=1e-9)
        np.testing.assert_allclose(fused.contrast[0], float(exact.contrast), rtol=1e-8)

    @pytest.mark.parametrize("board", HOSTILE)
    def test_certified_gradients_of_hostile_boards(self, board: str) -> None:
        network, g = HOSTILE[board]
        inputs = np.linspace(1.0, 0.0, len(network.inputs))
        targets = np.linspace(0.3, 0.6, len(network.outputs))
        fused = SimulatedBoard(network, g, accuracy="certified").contrast(inputs, targets, 1.0)
        exact = exact_contrast(network, g, inputs.tolist(), targets.tolist())
        gradient = as_floats(exact.gradient)
        np.testing.assert_allclose(fused.gradient, gradient, rtol=0, atol=1e-13 * np.abs(gradient).max())
        np.testing.assert_allclose(fused.contrast[0], float(exact.contrast), rtol=1e-13)

    @pytest.mark.parametrize("nudge", [1.0, 1e-2, 1e-4, 1e-6, 1e-8])
    def test_the_gradient_keeps_its_digits_however_small_the_nudge(self, nudge: float) -> None:
        g = np.random.default_rng(11).uniform(1e-4, 1e-3, TORUS.n_edges)
        inputs, targets = [1.0, 0.0, 0.3], [0.2, 0.9]
        fused = SimulatedBoard(TORUS, g, accuracy="certified").contrast(inputs, targets, nudge)
        exact = as_floats(exact_contrast(TORUS, g, inputs, targets, nudge).gradient)
        assert np.abs(fused.gradient - exact).max() <= 1e-13 * np.abs(exact).max()
        assert np.median(np.abs(fused.gradient / exact - 1)) <= 1e-13

    def test_samples_add_up(self, solver: SolverName) -> None:
        board = torus_board(solver=solver)
        together = board.contrast(self.INPUTS, self.TARGETS, 0.5)
        alone = [board.contrast(u, y, 0.5) for u, y in zip(self.INPUTS, self.TARGETS, strict=True)]
        np.testing.assert_allclose(together.gradient, sum(one.gradient for one in alone), rtol=0, atol=1e-13)
        for sample, one in enumerate(alone):
            np.testing.assert_allclose(together.outputs[sample], one.outputs[0], rtol=1e-13)
            np.testing.assert_allclose(together.contrast[sample], one.contrast[0], rtol=1e-11)

    def test_the_contrast_at_the_terminals(self, solver: SolverName) -> None:
        """Q = (y − o)ᵀ S_c (y − o), S_c the Schur complement of the Laplacian onto the outputs, inputs held."""
        board = torus_board(solver=solver)
        incidence = TORUS.incidence.toarray()
        whole = incidence @ np.diag(board.conductances) @ incidence.T
        o, h = TORUS.outputs, TORUS.hidden
        schur = whole[np.ix_(o, o)] - whole[np.ix_(o, h)] @ np.linalg.solve(whole[np.ix_(h, h)], whole[np.ix_(h, o)])
        for nudge in (1.0, 0.1):
            result = board.contrast(self.INPUTS, self.TARGETS, nudge)
            error = self.TARGETS - result.outputs
            np.testing.assert_allclose(result.contrast, np.einsum("so,op,sp->s", error, schur, error), rtol=1e-11)

    def test_powers(self, solver: SolverName) -> None:
        board = torus_board(solver=solver)
        free = board.respond(free_drives(self.INPUTS, 2))
        clamped = board.respond(np.hstack([self.INPUTS, self.TARGETS]))
        power_free, power_clamped = (
            TORUS.edge_voltages(response.potentials) ** 2 @ board.conductances for response in (free, clamped)
        )
        result = board.contrast(self.INPUTS, self.TARGETS, 1.0)
        np.testing.assert_allclose(result.power_free, power_free, rtol=1e-11)
        np.testing.assert_allclose(result.contrast, power_clamped - power_free, rtol=1e-9)
        assert (result.contrast >= 0).all()

    def test_the_gradient_is_the_derivative_of_the_contrast(self, solver: SolverName) -> None:
        """Central differences of the rational Q, so that only the step itself limits them."""
        network = Network.grid(3, 3, inputs=[0, 8], outputs=[2, 4])
        g = np.random.default_rng(3).uniform(1e-4, 1e-3, network.n_edges)
        inputs, targets = [1.0, 0.0], [0.7, 0.4]
        gradient = SimulatedBoard(network, g, solver=solver).contrast(inputs, targets, 1.0).gradient
        for edge in range(network.n_edges):
            step = np.zeros(network.n_edges)
            step[edge] = g[edge] * 2.0**-14
            up, down = (exact_contrast(network, g + s, inputs, targets).contrast for s in (step, -step))
            slope = (up - down) / (Fraction((g + step)[edge]) - Fraction((g - step)[edge]))
            assert gradient[edge] == pytest.approx(float(slope), rel=1e-6, abs=1e-9)

    def test_targets_already_met_have_no_contrast(self, solver: SolverName) -> None:
        board = torus_board(solver=solver)
        outputs = board.respond(free_drives(self.INPUTS, 2)).potentials[:, TORUS.outputs]
        result = board.contrast(self.INPUTS, outputs, 1.0)
        np.testing.assert_allclose(result.gradient, 0.0, atol=1e-14)
        np.testing.assert_allclose(result.contrast, 0.0, atol=1e-25)

    def test_the_divider_of_the_theory(self, solver: SolverName) -> None:
        """Step 0.1 on g = (1, 1) with target 0.2: Δg = (−0.039, +0.021) for η = 1 and (−0.0345, +0.0255) for 0.5."""
        board = SimulatedBoard(CHAIN, 1.0, solver=solver)
        for nudge, change in ((1.0, [-0.039, 0.021]), (0.5, [-0.0345, 0.0255])):
            gradient = board.contrast([1.0, 0.0], [0.2], nudge).gradient
            np.testing.assert_allclose(-0.1 * gradient / nudge, change, rtol=1e-13)

    def test_defective_pots_alone_keep_the_fused_path_on_the_true_conductances(self, solver: SolverName) -> None:
        broken = Imperfections(pots=PotDefects(opened=(3,)))
        board = torus_board(imperfections=broken, solver=solver)
        truth = SimulatedBoard(TORUS, board.true_conductances, solver=solver)
        assert board.true_conductances[3] == 1e-9
        np.testing.assert_array_equal(
            board.contrast(self.INPUTS, self.TARGETS, 0.3).gradient,
            truth.contrast(self.INPUTS, self.TARGETS, 0.3).gradient,
        )

    def test_real_sources_are_measured_and_their_clamp_error_is_logged(self) -> None:
        board = torus_board(imperfections=Imperfections(sources=SourceDefects(series=200.0)))
        result = board.contrast(self.INPUTS, self.TARGETS, 1.0)
        measured = contrast_from_responses(board, self.INPUTS, self.TARGETS, 1.0)
        np.testing.assert_array_equal(result.gradient, measured.gradient)
        free = board.respond(free_drives(self.INPUTS, 2))
        applied = free.potentials[:, TORUS.outputs] + (self.TARGETS - free.potentials[:, TORUS.outputs])
        realised = board.respond(np.hstack([self.INPUTS, applied])).potentials[:, TORUS.outputs]
        assert result.clamp_error == np.abs(realised - applied).max()
        assert result.clamp_error > 1e-3

    def test_a_source_at_its_limit_stops_the_contrast_and_is_named(self) -> None:
        limited = Imperfections(sources=SourceDefects(compliance=1e-4))
        board = SimulatedBoard(CHAIN, 1e-3, imperfections=limited)
        with pytest.raises(ComplianceError, match=r"source at node \d .* in sample 1"):
            board.contrast([[0.1, 0.0], [1.0, 0.0]], [[0.05], [0.5]], 1.0)

    @pytest.mark.parametrize(
        ("inputs", "targets", "message"),
        [
            ([[1.0]], [[0.5]], "inputs has 1 columns, but 2 are needed"),
            ([[1.0, 0.0]], [[0.5, 0.5]], "targets has 2 columns, but 1 are needed"),
        ],
    )
    def test_data_of_another_board_are_refused(
        self, inputs: npt.ArrayLike, targets: npt.ArrayLike, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            SimulatedBoard(CHAIN, 1e-3).contrast(inputs, targets, 1.0)

    @pytest.mark.parametrize("solver", ["auto", "fused"])
    @settings(deadline=None, max_examples=60)
    @given(st.data(), st.floats(0.01, 1.0))
    def test_random_boards_against_rational_arithmetic(
        self, solver: SolverName, data: st.DataObject, nudge: float
    ) -> None:
        network = data.draw(networks(min_terminals=3).filter(lambda drawn: len(drawn.outputs) > 0))
        g = np.array(data.draw(st.lists(st.floats(1e-4, 1e-2), min_size=network.n_edges, max_size=network.n_edges)))
        n_inputs, n_outputs = len(network.inputs), len(network.outputs)
        inputs = data.draw(st.lists(VOLTS, min_size=n_inputs, max_size=n_inputs))
        targets = data.draw(st.lists(VOLTS, min_size=n_outputs, max_size=n_outputs))
        result: Contrast = SimulatedBoard(network, g, solver=solver).contrast(inputs, targets, nudge)
        exact = exact_contrast(network, g, inputs, targets, nudge)
        scale = max(1e-3, *map(abs, inputs), *map(abs, targets))
        np.testing.assert_allclose(result.gradient, as_floats(exact.gradient), rtol=0, atol=1e-11 * nudge * scale**2)
        np.testing.assert_allclose(result.contrast[0], float(exact.contrast), rtol=1e-9, atol=1e-14 * scale**2)


class TestBoard:
    def test_it_is_a_board(self) -> None:
        board = SimulatedBoard(CHAIN, 1e-3)
        assert isinstance(board, Board)
        assert board.network is CHAIN
        assert board.exact
        assert board.snapshot() == {}

    def test_program_sets_reads_back_and_projects(self) -> None:
        board = SimulatedBoard(CHAIN, 1e-3, DeviceRange(1e-4, [1e-2, 5e-3]))
        np.testing.assert_array_equal(board.conductances, [1e-3, 1e-3])
        returned = board.program([1.0, 1e-9])
        np.testing.assert_array_equal(returned, [1e-2, 1e-4])
        np.testing.assert_array_equal(board.conductances, returned)
        np.testing.assert_array_equal(board.true_conductances, returned)
        assert board.respond([1.0, 0.0, np.nan]).potentials[0, 1] == pytest.approx(1e-2 / 1.01e-2, rel=1e-14)

    def test_codes_are_programmed_to_the_nearest(self) -> None:
        board = SimulatedBoard(CHAIN, 1.4e-3, DeviceRange.from_table([1e-3, 2e-3, 4e-3]))
        assert board.conductances.tolist() == [1e-3, 1e-3]
        assert board.program([3.1e-3, 1.6e-3]).tolist() == [4e-3, 2e-3]

    def test_conductances_cannot_be_changed_behind_the_board(self) -> None:
        given_values = np.array([1e-3, 2e-3])
        board = SimulatedBoard(CHAIN, given_values)
        given_values[0] = 1.0
        assert board.conductances[0] == 1e-3
        for array in (board.conductances, board.true_conductances):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1.0

    @pytest.mark.parametrize(
        ("conductances", "message"),
        [
            ([1e-3], r"shape \(1,\), but the board has 2 edges"),
            ([1e-3, 0.0], "edge 1 was given 0 S"),
            ([-1e-3, 1.0], "edge 0 was given -0.001 S"),
            ([1e-3, np.nan], "edge 1 was given nan S"),
            (np.inf, "edge 0 was given inf S"),
            ("many", "conductances must be a number"),
        ],
    )
    def test_conductances_that_make_no_sense_are_refused(self, conductances: npt.ArrayLike, message: str) -> None:
        board = SimulatedBoard(CHAIN, 2e-3)
        with pytest.raises(InputError, match=message):
            board.program(conductances)
        np.testing.assert_array_equal(board.conductances, [2e-3, 2e-3])
        with pytest.raises(InputError, match=message):
            SimulatedBoard(CHAIN, conductances)

    def test_safe_and_closed_any_number_of_times(self) -> None:
        with SimulatedBoard(CHAIN, 1e-3) as board:
            board.make_safe()
            board.make_safe()
        board.close()
        with pytest.raises(ZeroDivisionError), SimulatedBoard(CHAIN, 1e-3):
            raise ZeroDivisionError
