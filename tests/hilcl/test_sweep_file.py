import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.errors import ExperimentError
from hilcl.sweep_file import MOST_POINTS, Distribution, Point, SweepFile, experiment_at
from tests.sweep_files import SWEEP, write_sweep


def loaded(folder: Path, text: str = SWEEP, **changes: str) -> SweepFile:
    return SweepFile.load(write_sweep(folder, text, **changes))


def test_points_are_every_combination_with_every_draw(tmp_path: Path) -> None:
    points = loaded(tmp_path).points()
    assert [point.overrides["simulation.meters.offset"] for point in points] == ["0 V"] * 3 + ["1 mV"] * 3 + [
        "2 mV"
    ] * 3
    drawn = [(point.overrides["simulation.seed"], point.overrides["board.initial"]) for point in points]
    assert drawn[:3] == drawn[3:6] == drawn[6:]
    assert len({point.id for point in points}) == 9


def test_points_and_their_ids_are_the_same_on_every_machine(tmp_path: Path) -> None:
    # A store made elsewhere, or by another version, must be recognised: these may never change.
    points = loaded(tmp_path).points()
    assert [point.overrides["simulation.seed"] for point in points[:3]] == [266851, 634314, 316815]
    assert Point.of({"simulation.seed": 1, "board.g_min": "1 mS"}).id == "02c5e0b4b0af60af"
    assert Point.of({"board.g_min": "1 mS", "simulation.seed": 1}).id == "02c5e0b4b0af60af"


def test_more_draws_and_more_keys_keep_the_draws_there_are(tmp_path: Path) -> None:
    few = loaded(tmp_path).points()
    many = loaded(tmp_path, SWEEP.replace("draws = 3", "draws = 5")).points()
    assert {point.id for point in few} < {point.id for point in many}
    wider = loaded(tmp_path, SWEEP + "learning.seed = { integers = [0, 9] }\n").points()
    kept = [{key: point.overrides[key] for key in few[0].overrides} for point in wider]
    assert kept == [point.overrides for point in few]
    other = loaded(tmp_path, SWEEP.replace("seed = 7", "seed = 8")).points()
    assert {point.id for point in few}.isdisjoint(point.id for point in other)


@pytest.mark.parametrize(
    "grid",
    [
        "simulation.meters.noise = [0, '1 mV']",
        "'simulation.meters.noise' = [0, '1 mV']",
        "simulation = { meters = { noise = [0, '1 mV'] } }",
        "[grid.simulation.meters]\nnoise = [0, '1 mV']",
    ],
)
def test_a_key_may_be_written_as_toml_allows(tmp_path: Path, grid: str) -> None:
    points = loaded(tmp_path, f"experiment = 'divider.toml'\n[grid]\n{grid}").points()
    assert [point.overrides for point in points] == [
        {"simulation.meters.noise": 0},
        {"simulation.meters.noise": "1 mV"},
    ]
    assert Point.of({"simulation.meters.noise": 0}).id == points[0].id


def test_a_whole_section_and_a_key_inside_it_can_be_set(tmp_path: Path) -> None:
    sweep = loaded(tmp_path, "experiment = 'divider.toml'\n[grid]\nlearning.epochs = [1]")
    values: dict[str, Any] = {
        "board": {"network": {"kind": "crossbar", "inputs": 1, "outputs": 1}, "g_min": "1 mS", "g_max": "2 mS"},
        "task": {"inputs_volts": [[1.0]], "targets_volts": [[0.5]]},
        "learning": {"epochs": 3},
    }
    grid = {"kind": "grid", "rows": 2, "cols": 2, "inputs": [0], "outputs": [3]}
    point = Point.of({"board.network.rows": 5, "board.network": grid, "learning.stop.loss": "1e-6 V²"})
    experiment = experiment_at(values, point, sweep.source)
    assert experiment.board.network.kind == "grid"
    assert experiment.board.network.rows == 5
    assert experiment.learning.stop.loss == 1e-6
    assert values["board"]["network"] == {"kind": "crossbar", "inputs": 1, "outputs": 1}


def test_equal_points_are_one(tmp_path: Path) -> None:
    text = SWEEP.replace("draws = 3", "draws = 40").replace("[0, 1000000]", "[0, 1]").split("board.initial")[0]
    assert len(loaded(tmp_path, text).points()) == 6


@given(st.integers(0, 2**32), st.floats(1e-6, 1.0), st.floats(1.001, 1e6))
def test_draws_lie_between_the_ends(seed: int, low: float, factor: float) -> None:
    generator = np.random.default_rng(seed)
    high = low * factor
    for kind in ("uniform", "log-uniform"):
        value = Distribution.model_validate({kind: [low, high]}).draw(generator)
        assert low <= value <= high
        text = Distribution.model_validate({kind: [f"{low!r} mS", f"{high!r} mS"]}).draw(generator)
        assert low <= float(text.removesuffix(" mS")) <= high


def test_draws_have_their_distributions() -> None:
    generator = np.random.default_rng(0)

    def many(**kind: object) -> list[float]:
        each = Distribution.model_validate({name.replace("_", "-"): ends for name, ends in kind.items()})
        return [each.draw(generator) for _ in range(4000)]

    # Five standard errors of a share of one half.
    margin = 5 * 0.5 / math.sqrt(4000)
    assert np.mean(np.array(many(uniform=[1.0, 5.0])) < 3.0) == pytest.approx(0.5, abs=margin)
    assert np.mean(np.array(many(log_uniform=[1e-4, 1e-2])) < 1e-3) == pytest.approx(0.5, abs=margin)
    assert np.mean(np.array(many(choice=[1, 2])) < 2) == pytest.approx(0.5, abs=margin)
    assert set(many(integers=[-1, 2])) == {-1, 0, 1, 2}


HEAD = "experiment = 'divider.toml'\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("experiment = 'none.toml'\n[grid]\nlearning.seed = [1]", "none.toml cannot be read"),
        ("[grid]\nlearning.seed = [1]", "experiment is missing"),
        ("experiment = 3", "experiment: input should be a valid string, got 3"),
        (HEAD, "varies nothing: list values in [grid] or distributions in [random]"),
        (HEAD + "[grid]", "varies nothing"),
        (HEAD + "[grids]", "grids is not a key of a sweep file: known here are experiment, grid, random, yield"),
        (HEAD + "[yield]\nloss = 1", "yield.loss is not a key of a sweep file: known here are by, losses"),
        (HEAD + "[grid]\nlearning.seed = []", "grid.learning.seed is empty: list the values it takes"),
        (HEAD + "[grid]\nlearning.seed = 3", "grid.learning.seed needs a list of values"),
        (HEAD + "grid = 3", "grid: input should be a valid dictionary, got 3"),
        (HEAD + "[grid]\nlearning.epoch = [3]", "learning.epoch is not a key hilcl knows: did you mean epochs?"),
        (HEAD + "[grid]\nlearnings.epochs = [3]", "learnings is not a key hilcl knows: did you mean learning?"),
        (HEAD + "[grid]\nlearning.epochs = [3, 'x']", "learning.epochs: input should be a valid integer, got 'x'"),
        (HEAD + "[grid]\nlearning.epochs = [3, 0]", "learning.epochs: input should be greater than or equal to 1"),
        (HEAD + "[grid]\nboard.g_min = [3]", "board.g_min has no unit: write it as text with one"),
        (HEAD + "[grid]\nlearning.epochs.x = [3]", "learning.epochs.x cannot be set: learning.epochs has no keys"),
        (HEAD + "[grid]\n'' = [3]", "'' is not a key"),
        (HEAD + "[grid]\n'learning.seed' = [3]\nlearning.seed = [4]", "learning.seed is given twice: keep one"),
        (HEAD + "[grid]\nlearning.stop.seconds = ['1 s']", "learning.stop.seconds makes a point depend on how busy"),
        (HEAD + "[random]\ndraws = 3", "[random] names no key: add one, such as simulation.seed"),
        (HEAD + "[random]\nlearning.seed = {integers = [0, 3]}", "random.draws is missing: add it"),
        (HEAD + "[random]\ndraws = 0\nlearning.seed = {integers = [0, 3]}", "random.draws: input should be greater"),
        (HEAD + "[random]\ndraws = '3'\nlearning.seed = {integers = [0, 3]}", "random.draws: input should be"),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = [3]", "random.learning.seed: input should be a valid dictionary"),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = {integer = [0, 3]}", "random.learning.seed.integer: "),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = {integers = [0.5, 3]}", "random.learning.seed.integers: "),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = {integers = [3, 0]}", "needs the lower end first, got 3 and 0"),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = {integers = [0, 3], choice = [1]}", "needs one of uniform"),
        (HEAD + "[random]\ndraws = 3\nlearning.seed = {choice = []}", "choice is empty"),
        (HEAD + "[random]\ndraws = 3\nlearning.nudge = {log-uniform = [0, 1]}", "log-uniform needs ends above 0"),
        (HEAD + "[random]\ndraws = 3\nlearning.nudge = {uniform = [0, nan]}", "random.learning.nudge.uniform: "),
        (HEAD + "[random]\ndraws = 3\nboard.g_min = {uniform = ['1 µS', '1 mS']}", "different units, µS and mS"),
        (HEAD + "[random]\ndraws = 3\nboard.g_min = {uniform = ['x', '1 mS']}", "'x' is not a quantity"),
        (HEAD + "[random]\ndraws = 3\nboard.g_min = {uniform = ['1 V', '2 V']}", "has the wrong unit"),
        (
            HEAD + "[grid]\nlearning.seed = [1]\n[random]\ndraws = 3\nlearning.seed = {integers = [0, 3]}",
            "learning.seed stands in [grid] and in [random]: keep one",
        ),
        (HEAD + "[grid]\nlearning.seed = [1]\n[yield]\nby = ['learning.x']", "yield.by names 'learning.x'"),
        (HEAD + "[grid]\nlearning.seed = [1]\n[yield]\nlosses = [1e-3]", "yield.losses has no unit"),
        (
            HEAD + f"[grid]\nlearning.seed = [1, 2]\n[random]\ndraws = {MOST_POINTS}\nboard.g_min = {{choice = [1]}}",
            f"asks for {2 * MOST_POINTS} points, more than",
        ),
        ("experiment = ", "is not valid TOML"),
        ("x = " + 2000 * "[" + 2000 * "]", "is nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    path = write_sweep(tmp_path, text)
    with pytest.raises(ExperimentError, match=re.escape(sentence)) as told:
        SweepFile.load(path)
    assert str(told.value).count(str(path)) == (0 if "none.toml" in text else 1)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="cannot be read: No such file"):
        SweepFile.load(tmp_path / "none.toml")
    (tmp_path / "sweep.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExperimentError, match="is not text in UTF-8"):
        SweepFile.load(tmp_path / "sweep.toml")


def test_an_experiment_that_stops_by_the_clock_is_refused(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    with (tmp_path / "divider.toml").open("a") as file:
        file.write("stop.seconds = '3 s'\n")
    with pytest.raises(ExperimentError, match=r"learning\.stop\.seconds makes a point depend"):
        SweepFile.load(path)


def test_the_yield_is_shown_by_what_the_grid_tells_apart(tmp_path: Path) -> None:
    text = HEAD + "[grid]\nlearning.epochs = [3]\nlearning.nudge = [0.5, 1.0]\nsimulation.seed = [1, 2]\n"
    assert loaded(tmp_path, text).by == ["learning.nudge"]
    assert loaded(tmp_path, text).losses is None
    chosen = loaded(tmp_path, text + "[yield]\nby = ['simulation.seed']\nlosses = ['1 V²', '2e-3 V²']")
    assert (chosen.by, chosen.losses) == (["simulation.seed"], [1.0, 2e-3])
