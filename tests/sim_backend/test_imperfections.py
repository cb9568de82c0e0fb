import json
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import DeviceRange, Network, Potentiometer
from hilcl.board import contrast_from_responses
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend import Imperfections, MeterDefects, PotDefects, SimulatedBoard, SourceDefects
from hilcl.sim_backend.imperfections import OPEN_CONDUCTANCE, true_tables
from tests.sim_backend.exact_oracle import as_floats, exact_state

FloatArray = npt.NDArray[np.float64]

NETWORK = Network.torus(4, 4, inputs=[0, 5], outputs=[9, 14])

POT = Potentiometer(256, 10e3, wiper=75.0, series=100.0)

DRIVES = np.array([[1.0, 0.0, np.nan, np.nan], [1.0, -0.5, 0.3, np.nan], [1.0, 0.2, 0.4, 0.6]])

N_POTS = 400


def board(seed: int = 0, **defects: MeterDefects | PotDefects | SourceDefects) -> SimulatedBoard:
    """Return a board of equal pots with the given imperfections."""
    return SimulatedBoard(NETWORK, 2e-4, pots=POT, imperfections=Imperfections(**defects), seed=seed)  # type: ignore[arg-type]


def resistances(defects: PotDefects, pot: Potentiometer = POT, seed: int = 0) -> FloatArray:
    """Return the true resistances (400, codes) of 400 pots in ohms."""
    return 1 / np.array(true_tables([pot] * N_POTS, defects, np.random.default_rng(seed)))


def spread_over(values: FloatArray, limit: float) -> None:
    """Check that values fill −limit … +limit as a uniform distribution does, and never leave it."""
    assert np.abs(values).max() <= limit * (1 + 1e-9)
    # Standard deviation a/√3; of 400 values the mean strays by a/√1200 and the deviation by 2 %.
    assert np.mean(values) == pytest.approx(0.0, abs=4 * limit / math.sqrt(3 * len(values)))
    assert np.std(values) == pytest.approx(limit / math.sqrt(3), rel=0.12)
    assert np.abs(values).max() > 0.95 * limit


class TestPots:
    def test_without_defects_the_truth_is_the_nominal_law(self) -> None:
        np.testing.assert_allclose(resistances(PotDefects()), np.tile(POT.resistances(), (N_POTS, 1)), rtol=1e-15)
        ideal = board()
        np.testing.assert_array_equal(ideal.true_conductances, ideal.conductances)
        assert ideal.exact

    def test_tolerance(self) -> None:
        track = resistances(PotDefects(tolerance=0.2)) - 175.0
        errors = track[:, 1:] / (POT.resistances()[1:] - 175.0) - 1
        np.testing.assert_allclose(errors, np.tile(errors[:, -1:], (1, 255)), atol=1e-11)
        np.testing.assert_allclose(track[:, 0], 0.0, atol=1e-9)
        spread_over(errors[:, -1], 0.2)

    def test_wiper_and_series_spread(self) -> None:
        spread_over(resistances(PotDefects(wiper_spread=0.3))[:, 0] - 175.0, 0.3 * 75.0)
        spread_over(resistances(PotDefects(series_spread=0.01))[:, 0] - 175.0, 0.01 * 100.0)

    def test_the_draws_of_different_figures_are_independent(self) -> None:
        end = resistances(PotDefects(tolerance=0.2))[:, -1]
        wiper = resistances(PotDefects(wiper_spread=0.2))[:, 0]
        series = resistances(PotDefects(series_spread=0.2))[:, 0]
        correlations = np.corrcoef([end, wiper, series])[np.triu_indices(3, 1)]
        assert np.abs(correlations).max() < 4 / math.sqrt(N_POTS)

    def test_switching_one_figure_on_does_not_move_the_others(self) -> None:
        end = resistances(PotDefects(tolerance=0.2, wiper_spread=0.5, inl=1.0))[:, -1]
        alone = resistances(PotDefects(tolerance=0.2))[:, -1]
        wiper = resistances(PotDefects(wiper_spread=0.5))[:, 0] - 175.0
        np.testing.assert_allclose(end - wiper, alone, rtol=1e-12)

    @pytest.mark.parametrize(
        "pot",
        [
            POT,
            Potentiometer(100, 10e3, wiper=40.0, denominator=99),
            Potentiometer(64, 5e3, wiper=50.0, inverted=True),
        ],
        ids=["plain", "full scale", "inverted"],
    )
    def test_integral_non_linearity_is_a_bow_with_fixed_ends(self, pot: Potentiometer) -> None:
        lsb = pot.end_to_end / (pot.denominator or pot.positions)
        bow = (resistances(PotDefects(inl=0.8), pot) - pot.resistances()) / lsb
        np.testing.assert_allclose(bow[:, [0, -1]], 0.0, atol=1e-9)
        assert np.abs(bow).max() <= 0.8
        assert np.abs(bow).max() > 0.4
        assert np.abs(bow).max(axis=1).min() < 0.1
        assert np.abs(np.diff(bow, n=2)).max() < 0.8 * (2 * np.pi / (pot.positions - 1)) ** 2

    def test_a_bow_never_makes_a_resistance_negative(self) -> None:
        pot = Potentiometer(16, 1e4, wiper=1.0)
        assert resistances(PotDefects(inl=8.0), pot).min() >= 1.0 - 1e-12

    def test_a_bow_that_would_short_a_pot_is_refused(self) -> None:
        pot = Potentiometer(16, 1e4, inverted=True)
        with pytest.raises(InputError, match="give the pots a wiper or a series resistance"):
            resistances(PotDefects(inl=40.0), pot)

    def test_temperature(self) -> None:
        warm = resistances(PotDefects(temperature_coefficient=-50e-6, temperature_rise=20.0))
        np.testing.assert_allclose(warm, np.tile(175 + (POT.resistances() - 175) * (1 - 1e-3), (N_POTS, 1)), rtol=1e-14)

    def test_program_returns_nominal_values_while_the_truth_differs(self) -> None:
        real = board(pots=PotDefects(tolerance=0.2))
        wished = np.linspace(1e-4, 1e-3, NETWORK.n_edges)
        returned = real.program(wished)
        np.testing.assert_array_equal(returned, DeviceRange.of_pots(POT).project(wished).conductances)
        np.testing.assert_array_equal(real.conductances, returned)
        ratio = real.true_conductances / returned
        assert np.abs(ratio - 1).max() < 0.25
        assert np.abs(ratio - 1).min() > 0
        assert not real.exact
        truth = SimulatedBoard(NETWORK, real.true_conductances)
        np.testing.assert_array_equal(real.respond(DRIVES).potentials, truth.respond(DRIVES).potentials)

    def test_the_truth_follows_the_code(self) -> None:
        real = board(pots=PotDefects(tolerance=0.2, inl=1.0))
        first = real.true_conductances.copy()
        real.program(1e-3)
        assert (real.true_conductances > first).all()
        real.program(2e-4)
        np.testing.assert_array_equal(real.true_conductances, first)

    def test_the_seed_decides(self) -> None:
        defects = PotDefects(tolerance=0.2, wiper_spread=0.5, inl=1.0)
        truths = [board(seed, pots=defects).true_conductances for seed in (3, 3, 4)]
        np.testing.assert_array_equal(truths[0], truths[1])
        assert (truths[0] != truths[2]).all()

    def test_stuck_and_open_pots(self) -> None:
        real = board(pots=PotDefects(stuck={0: 10, 7: 255}, opened=(3,)))
        nominal = POT.conductances()
        for wish in (2e-4, 1e-3):
            returned = real.program(wish)
            assert len(set(returned.tolist())) == 1
            assert real.true_conductances[[0, 7, 3]].tolist() == [nominal[10], nominal[255], OPEN_CONDUCTANCE]
            others = np.delete(np.arange(NETWORK.n_edges), [0, 3, 7])
            np.testing.assert_array_equal(real.true_conductances[others], returned[others])

    def test_a_stuck_pot_keeps_its_own_tolerance(self) -> None:
        defects = PotDefects(tolerance=0.2, stuck={5: 100})
        free = SimulatedBoard(
            NETWORK, POT.conductances()[100], pots=POT, imperfections=Imperfections(pots=PotDefects(tolerance=0.2))
        )
        assert board(pots=defects).true_conductances[5] == free.true_conductances[5]

    def test_a_table_alone_can_have_stuck_and_open_pots(self) -> None:
        real = SimulatedBoard(
            NETWORK,
            1e-3,
            DeviceRange.from_table([1e-4, 1e-3]),
            Imperfections(pots=PotDefects(stuck={1: 0}, opened=(2,))),
        )
        assert real.true_conductances[:4].tolist() == [1e-3, 1e-4, OPEN_CONDUCTANCE, 1e-3]

    def test_a_pot_can_be_stuck_at_a_code_outside_the_limits(self) -> None:
        real = SimulatedBoard(
            NETWORK,
            1e-3,
            DeviceRange(5e-4, 2e-3, [1e-4, 1e-3, 1e-2]),
            Imperfections(pots=PotDefects(stuck={1: 0})),
        )
        assert real.true_conductances[:2].tolist() == [1e-3, 1e-4]

    def test_each_edge_can_have_its_own_pot(self) -> None:
        pots = [POT if edge % 2 else Potentiometer(64, 5e3, wiper=50.0) for edge in range(NETWORK.n_edges)]
        real = SimulatedBoard(
            NETWORK, 3e-4, pots=pots, imperfections=Imperfections(pots=PotDefects(tolerance=0.1)), seed=1
        )
        ratio = real.true_conductances / real.conductances
        assert np.isfinite(ratio).all()
        assert np.abs(ratio - 1).max() < 0.12
        np.testing.assert_array_equal(
            real.conductances, DeviceRange.of_pots(pots).project(np.full(NETWORK.n_edges, 3e-4)).conductances
        )

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: board(pots=PotDefects(stuck={32: 0})), "edge 32 is said to be defective"),
            (lambda: board(pots=PotDefects(stuck={-1: 0})), "edge -1 is said to be defective"),
            (lambda: board(pots=PotDefects(opened=(99,))), "edge 99 is said to be defective"),
            (lambda: board(pots=PotDefects(stuck={2: 256})), "edge 2 cannot be stuck at code 256.*0 to 255"),
            (lambda: board(pots=PotDefects(stuck={2: -1})), "edge 2 cannot be stuck at code -1"),
            (
                lambda: SimulatedBoard(
                    NETWORK,
                    2e-4,
                    pots=[Potentiometer(64, 1e4, 75.0), *[POT] * 31],
                    imperfections=Imperfections(pots=PotDefects(stuck={0: 200})),
                ),
                "edge 0 cannot be stuck at code 200",
            ),
            (
                lambda: SimulatedBoard(NETWORK, 1e-3, imperfections=Imperfections(pots=PotDefects(stuck={0: 1}))),
                "only be stuck at a code where the devices have codes",
            ),
            (
                lambda: SimulatedBoard(NETWORK, 1e-3, imperfections=Imperfections(pots=PotDefects(tolerance=0.1))),
                "tolerances belong to a potentiometer's law: give pots",
            ),
            (lambda: SimulatedBoard(NETWORK, 1e-3, pots=[POT] * 3), "32 edges"),
            (
                lambda: SimulatedBoard(NETWORK, 1e-4, DeviceRange.of_pots(POT), pots=[POT] * 3),
                "3 potentiometers were given for 32 edges",
            ),
            (
                lambda: SimulatedBoard(NETWORK, 1e-4, DeviceRange.of_pots(POT), pots=Potentiometer(128, 1e4, 75.0)),
                "codes|positions",
            ),
            (
                lambda: SimulatedBoard(NETWORK, 1e-4, DeviceRange.of_pots(Potentiometer(128, 1e4, 75.0)), pots=POT),
                "codes|positions",
            ),
            (lambda: PotDefects(tolerance=1.0), "tolerance must lie between 0 and 1"),
            (lambda: PotDefects(wiper_spread=-0.1), "wiper_spread must lie between 0 and 1"),
            (lambda: PotDefects(series_spread=float("nan")), "series_spread must lie between"),
            (lambda: PotDefects(inl=-1.0), "inl must not be negative"),
            (lambda: PotDefects(inl=float("inf")), "inl must not be negative"),
            (
                lambda: PotDefects(temperature_coefficient=-0.01, temperature_rise=100.0),
                "temperature rise would make the end-to-end resistance negative",
            ),
            (lambda: PotDefects(temperature_coefficient=float("nan"), temperature_rise=1.0), "temperature"),
        ],
    )
    def test_defects_that_make_no_sense_are_refused(self, build: Callable[[], object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            build()


class TestMeters:
    MANY = np.tile([[0.8, -0.6, np.nan, np.nan]], (4000, 1))

    def test_gain_and_offset_belong_to_the_channel(self) -> None:
        drives = np.array([[1.0, 0.0, np.nan, np.nan], [0.5, -0.5, 0.3, np.nan], [-1.0, 0.2, 0.4, 0.6]])
        truth = board().respond(drives).potentials
        for defects in (MeterDefects(offset=2e-3), MeterDefects(gain=1e-3), MeterDefects(gain=1e-3, offset=2e-3)):
            readings = board(meters=defects).respond(drives).potentials
            errors = readings - truth
            # Two samples give gain and offset of every node; the third must fit them.
            gain = (errors[1] - errors[0]) / (truth[1] - truth[0])
            offset = errors[0] - gain * truth[0]
            np.testing.assert_allclose(errors[2], gain * truth[2] + offset, atol=1e-13)
            assert np.abs(gain).max() <= defects.gain * (1 + 1e-9) + 1e-13
            assert np.abs(offset).max() <= defects.offset * (1 + 1e-9) + 1e-13
            assert np.std(gain) >= defects.gain / 4
            assert np.std(offset) >= defects.offset / 4

    def test_channels_are_drawn_evenly_within_their_limits(self) -> None:
        network = Network(401, [[0, node] for node in range(1, 401)], [0], [1])
        readings = SimulatedBoard(
            network, 1e-3, imperfections=Imperfections(meters=MeterDefects(offset=5e-3)), seed=2
        ).respond([1.0, np.nan])
        spread_over(readings.potentials[0] - 1.0, 5e-3)

    def test_noise_is_white_normal_and_of_the_given_size(self) -> None:
        noisy = board(meters=MeterDefects(noise=1e-3))
        truth = board().respond(self.MANY[0]).potentials
        noise = noisy.respond(self.MANY).potentials - truth
        count = noise.size
        assert np.mean(noise) == pytest.approx(0.0, abs=4e-3 / math.sqrt(count))
        assert np.std(noise) == pytest.approx(1e-3, rel=4 / math.sqrt(2 * count))
        assert np.mean(np.abs(noise) > 2e-3) == pytest.approx(0.0455, abs=4 * math.sqrt(0.0455 / count))
        for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(0.0, abs=4 / math.sqrt(a.size))

    def test_resolution_rounds_to_counts(self) -> None:
        coarse = board(meters=MeterDefects(resolution=1e-3))
        readings, truth = coarse.respond(DRIVES).potentials, board().respond(DRIVES).potentials
        np.testing.assert_allclose(readings / 1e-3, np.rint(readings / 1e-3), atol=1e-9)
        assert np.abs(readings - truth).max() <= 0.5e-3 * (1 + 1e-9)
        assert np.abs(readings - truth).max() > 0.3e-3

    @pytest.mark.parametrize(
        "defects",
        [
            MeterDefects(gain=2e-3),
            MeterDefects(offset=1e-3),
            MeterDefects(noise=1e-3),
            MeterDefects(resolution=5e-3),
            MeterDefects(gain=2e-3, offset=1e-3, noise=5e-4, resolution=1e-3),
        ],
        ids=["gain", "offset", "noise", "resolution", "all"],
    )
    def test_the_uncertainty_is_the_spread_of_the_errors(self, defects: MeterDefects) -> None:
        """Over many benches, each with its own channels, errors have the standard deviation that is stated."""
        drives = np.random.default_rng(0).uniform(-1, 1, (20, 4))
        truth = board().respond(drives).potentials
        scores = []
        for seed in range(60):
            response = board(seed, meters=defects).respond(drives)
            scores.append((response.potentials - truth) / response.potentials_u)
        # 60 benches x 16 channels are independent even where the 20 samples of one channel are not.
        assert np.std(scores) == pytest.approx(1.0, rel=4 / math.sqrt(2 * 60 * 16))
        assert np.mean(scores) == pytest.approx(0.0, abs=4 / math.sqrt(60 * 16))

    def test_the_seed_decides_the_readings(self) -> None:
        defects = MeterDefects(gain=1e-3, offset=1e-3, noise=1e-3)
        readings = [board(seed, meters=defects).respond(DRIVES).potentials for seed in (1, 1, 2)]
        np.testing.assert_array_equal(readings[0], readings[1])
        assert (readings[0] != readings[2]).all()

    def test_one_defect_does_not_move_the_draws_of_another(self) -> None:
        pots, sources = PotDefects(tolerance=0.2), SourceDefects(offset=1e-3)
        meters = MeterDefects(gain=1e-3, offset=1e-3)
        noisy = MeterDefects(gain=1e-3, offset=1e-3, noise=1e-4, resolution=1e-6, input_resistance=1e9)
        alone, everything = board(pots=pots), board(pots=pots, sources=sources, meters=noisy)
        np.testing.assert_array_equal(everything.true_conductances, alone.true_conductances)
        driven = np.random.default_rng(0).uniform(-1, 1, (5, 4))
        applied = board(sources=sources).respond(driven).potentials[:, NETWORK.terminals]
        np.testing.assert_allclose(
            board(sources=sources, meters=meters).respond(driven).potentials,
            board(meters=meters).respond(applied).potentials,
            atol=1e-13,
        )

    def test_a_snapshot_continues_the_identical_noise(self) -> None:
        noisy = board(meters=MeterDefects(noise=1e-3))
        noisy.respond(DRIVES)
        saved = json.dumps(noisy.snapshot())
        following = [noisy.respond(DRIVES).potentials for _ in range(3)]
        noisy.restore(json.loads(saved))
        for expected in following:
            np.testing.assert_array_equal(noisy.respond(DRIVES).potentials, expected)
        other = board(meters=MeterDefects(noise=1e-3))
        other.restore(json.loads(saved))
        np.testing.assert_array_equal(other.respond(DRIVES).potentials, following[0])

    def test_programming_leaves_the_noise_alone(self) -> None:
        first, second = (board(meters=MeterDefects(noise=1e-3)) for _ in range(2))
        second.program(1e-3)
        second.program(2e-4)
        np.testing.assert_array_equal(first.respond(DRIVES).potentials, second.respond(DRIVES).potentials)

    def test_silent_meters_have_nothing_to_remember(self) -> None:
        silent = board(meters=MeterDefects(offset=1e-3))
        assert silent.snapshot() == {}
        silent.restore({})
        np.testing.assert_array_equal(silent.respond(DRIVES).potentials, silent.respond(DRIVES).potentials)

    def test_the_contrast_of_noisy_meters_is_measured(self) -> None:
        defects = MeterDefects(noise=1e-3, gain=1e-3)
        fused, measured = board(meters=defects), board(meters=defects)
        a = fused.contrast([[1.0, 0.0]], [[0.4, 0.6]], 0.5)
        b = contrast_from_responses(measured, np.array([[1.0, 0.0]]), np.array([[0.4, 0.6]]), 0.5)
        np.testing.assert_array_equal(a.gradient, b.gradient)
        np.testing.assert_array_equal(a.outputs, b.outputs)
        exact = board().contrast([[1.0, 0.0]], [[0.4, 0.6]], 0.5)
        assert (a.gradient != exact.gradient).all()
        np.testing.assert_allclose(a.gradient, exact.gradient, atol=0.02)

    @pytest.mark.parametrize("resistance", [1e4, 1e7])
    def test_the_input_resistance_is_an_edge_to_ground_at_every_node(self, resistance: float) -> None:
        loaded = board(meters=MeterDefects(input_resistance=resistance))
        ground = NETWORK.n_nodes
        shunts = [[node, ground] for node in range(ground)]
        extended = Network(ground + 1, [*NETWORK.edges.tolist(), *shunts], [*NETWORK.inputs, ground], NETWORK.outputs)
        g = [*loaded.true_conductances, *[1 / resistance] * ground]
        drives = np.vstack([DRIVES, [[np.nan, np.nan, 0.5, np.nan], [np.nan, 0.5, np.nan, np.nan]]])
        response = loaded.respond(drives)
        assert response.potentials.shape == (5, 16)
        for row, potentials, currents in zip(drives, response.potentials, response.currents, strict=True):
            exact = exact_state(extended, g, [*row[:2], 0.0, *row[2:]])
            np.testing.assert_allclose(potentials, as_floats(exact.potentials[:ground]), rtol=0, atol=1e-12)
            expected = as_floats(exact.currents)[[0, 1, 3, 4]]
            np.testing.assert_allclose(currents, expected, rtol=1e-9, atol=1e-15)

    def test_meters_do_not_drive_the_board(self) -> None:
        loaded = board(meters=MeterDefects(input_resistance=1e6))
        with pytest.raises(BoardError, match="drives no terminal"):
            loaded.respond([[np.nan] * 4])

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: MeterDefects(gain=-1.0), "meters: gain must be a number and not negative, got -1.0"),
            (lambda: MeterDefects(offset=float("nan")), "meters: offset"),
            (lambda: MeterDefects(noise=float("inf")), "meters: noise"),
            (lambda: MeterDefects(resolution=-1e-3), "meters: resolution"),
            (lambda: MeterDefects(input_resistance=0.0), "meters: input_resistance must be positive, got 0.0"),
            (lambda: MeterDefects(input_resistance=float("nan")), "meters: input_resistance"),
        ],
    )
    def test_figures_that_make_no_sense_are_refused(self, build: Callable[[], object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            build()


class TestSources:
    def test_offsets_belong_to_the_source(self) -> None:
        offset = board(sources=SourceDefects(offset=5e-3))
        readings = offset.respond([[1.0, 0.0, 0.5, 0.2], [0.0, 0.0, 0.0, 0.0]]).potentials
        errors = readings[:, NETWORK.terminals] - np.array([[1.0, 0.0, 0.5, 0.2], [0.0] * 4])
        np.testing.assert_allclose(errors[0], errors[1], atol=1e-13)
        assert np.abs(errors).max() <= 5e-3
        assert np.std(errors[0]) > 5e-4

    def test_offsets_are_drawn_evenly_by_seed(self) -> None:
        draws = np.array(
            [
                board(seed, sources=SourceDefects(offset=5e-3)).respond([0.0] * 4).potentials[0, 0]
                for seed in range(N_POTS)
            ]
        )
        spread_over(draws, 5e-3)

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: SourceDefects(series=-1.0), "sources: series must be a number and not negative"),
            (lambda: SourceDefects(offset=float("inf")), "sources: offset"),
            (lambda: SourceDefects(compliance=0.0), "sources: compliance must be positive, got 0.0"),
            (lambda: SourceDefects(compliance=float("nan")), "sources: compliance"),
        ],
    )
    def test_figures_that_make_no_sense_are_refused(self, build: Callable[[], object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            build()


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 3.0),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_every_true_resistance_lies_within_the_stated_limits(
    tolerance: float, wiper_spread: float, inl: float, seed: int, inverted: bool
) -> None:
    pot = Potentiometer(64, 5e3, wiper=50.0, series=20.0, inverted=inverted)
    defects = PotDefects(tolerance=tolerance, wiper_spread=wiper_spread, series_spread=0.01, inl=inl)
    tables = true_tables([pot] * 5, defects, np.random.default_rng(seed))
    steps = inl / 64
    low = 50 * (1 - wiper_spread) + 20 * 0.99 + 5e3 * (1 - tolerance) * np.maximum(pot.travel() - steps, 0)
    high = 50 * (1 + wiper_spread) + 20 * 1.01 + 5e3 * (1 + tolerance) * (pot.travel() + steps)
    for table in tables:
        assert (1 / table >= low * (1 - 1e-12)).all()
        assert (1 / table <= high * (1 + 1e-12)).all()
