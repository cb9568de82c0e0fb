import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import ContrastiveLearning, DeviceRange, Network, RobbinsMonro, Task
from hilcl.errors import DeviceRangeError, ExperimentError, InputError, NetworkError, RuleError, TaskError
from hilcl.experiment import Experiment
from hilcl.potentiometer import Potentiometer
from hilcl.preparation import Preparation, check_limits, prepare
from hilcl.session import open_board

EXAMPLES = Path(__file__).parents[2] / "examples"
FILE = Path("lab/board.toml")

CHAIN = '{ kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }'
BOX = 'g_min = "0.1 mS"\ng_max = "10 mS"\n'
POTS = '[board.pots]\npositions = 128\nend_to_end = "100 kΩ"\nwiper = "40 Ω"\nseries = "2 kΩ"\n'
DATA = "inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[0.2]]\n"


def parsed(
    board: str = BOX, network: str = CHAIN, task: str = DATA, learning: str = "", more: str = "", path: Path = FILE
) -> Experiment:
    sections = (
        f"[board]\nnetwork = {network}\n{board}",
        f"[task]\n{task}",
        f"[learning]\nepochs = 10\n{learning}",
        more,
    )
    return Experiment.parse("\n".join(sections), path)


def prepared(**parts: Any) -> Preparation:
    return prepare(parsed(**parts))


def refused(kind: type[InputError], message: str, **parts: Any) -> None:
    """Check that an experiment is refused in one sentence that names its file."""
    with pytest.raises(InputError, match=message) as caught:
        prepare(parsed(**parts))
    assert isinstance(caught.value, kind)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable(), "one line"
    assert str(caught.value).count(str(FILE)) == 1


# Everything together.


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_ready_to_run(example: Path) -> None:
    ready = prepare(Experiment.load(example))
    n_edges = ready.network.n_edges
    assert ready.device_range.g_min.shape == ready.device_range.g_max.shape == ready.initial.shape == (n_edges,)
    assert (ready.device_range.clip(ready.initial) == ready.initial).all()
    ready.data.train.check_on(ready.network)
    with open_board(ready) as board:
        first = board.contrast(ready.data.train.inputs, ready.data.train.targets, ready.rule.nudge)
        assert first.contrast.mean() > 0


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.toml")} >= {"iris", "regression", "allostery", "divider", "crossbar"}


def test_examples_run_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    ready = prepare(Experiment.load(Path("copy/iris.toml")))
    np.testing.assert_array_equal(
        ready.data.train.inputs, prepare(Experiment.load(EXAMPLES / "iris.toml")).data.train.inputs
    )


def test_preparing_twice_gives_the_same() -> None:
    first, second = (prepare(Experiment.load(EXAMPLES / "crossbar.toml")) for _ in range(2))
    np.testing.assert_array_equal(first.initial, second.initial)
    np.testing.assert_array_equal(first.data.train.targets, second.data.train.targets)
    assert first.network == second.network


def test_preparing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared(more='[store]\nfile = "runs.sqlite"\n')
    assert list(tmp_path.iterdir()) == []


# Networks.


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (CHAIN, Network(3, [[0, 1], [1, 2]], [0, 2], [1])),
        ('{ kind = "crossbar", inputs = 2, outputs = 1 }', Network.crossbar(2, 1)),
        ('{ kind = "grid", rows = 3, cols = 4, inputs = [0, 11], outputs = [5] }', Network.grid(3, 4, outputs=[5])),
        ('{ kind = "torus", rows = 3, cols = 4, inputs = [0, 11], outputs = [5] }', Network.torus(3, 4, outputs=[5])),
    ],
)
def test_networks(network: str, expected: Network) -> None:
    assert prepared(network=network).network == expected


def test_edges_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("# wires\nsecond,name,first\n1,a,0\n2,b,1\n")
    network = '{ kind = "edges", file = "edges.csv", inputs = [0, 2], outputs = [1] }'
    assert prepared(network=network, path=tmp_path / "e.toml").network == Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    (tmp_path / "edges.csv").write_text("first,second\n0,1\n1,2.5\n")
    with pytest.raises(InputError, match="whole"):
        prepared(network=network, path=tmp_path / "e.toml")
    (tmp_path / "edges.csv").write_text("first\n0\n")
    with pytest.raises(InputError, match="no column 'second'"):
        prepared(network=network, path=tmp_path / "e.toml")


def edges(edges: str, inputs: str = "[0, 2]", outputs: str = "[1]") -> str:
    return f'{{ kind = "edges", edges = {edges}, inputs = {inputs}, outputs = {outputs} }}'


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            edges("[[0, 1], [1, 2], [3, 4]]"),
            "node 3 is not connected to input node 0: the board is in 2 separate parts",
        ),
        (edges("[[0, 1], [1, 2], [3, 4]]", outputs="[4]"), "output node 4 has no path to any input"),
        (edges("[[0, 1], [1, 2]]", inputs="[0, 1]"), "node 1 is an output and an input: give each node one role"),
        (edges("[[0, 1], [1, 2]]", inputs="[0, 0]"), "node 0 is an input twice"),
        (edges("[[0, 1], [1, 2]]", outputs="[1, 1]"), "node 1 is an output twice"),
        (edges("[[0, 1], [1, 1], [1, 2]]"), "edge 1 joins node 1 with itself: remove it"),
        (edges("[[0, 1], [1, 2]]", inputs="[]"), "at least one input"),
        (edges("[[0, 1], [1, 2]]", outputs="[9]"), "9.*(0 to 2)"),
        (edges("[[0, 1], [1, 2]]", inputs="[-1, 0]"), "-1"),
        (edges("[[0, 1], [-1, 2]]"), "-1"),
        (edges("[[-1, 0]]"), "-1"),
        (edges("[]"), "at least (2 nodes|one edge)"),
        ('{ kind = "crossbar", inputs = 0, outputs = 1 }', "got 0"),
        ('{ kind = "grid", rows = 0, cols = 3, inputs = [0], outputs = [1] }', "got 0"),
        ('{ kind = "grid", rows = 1, cols = 1, inputs = [0], outputs = [] }', "at least 2 nodes"),
        ('{ kind = "edges", file = "no.csv", inputs = [0, 2], outputs = [1] }', r"no\.csv cannot be read"),
    ],
)
def test_networks_refused(network: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepared(network=network)
    assert str(caught.value).isprintable()
    assert str(FILE) in str(caught.value)


def test_the_kind_of_error_of_a_network() -> None:
    refused(NetworkError, "separate parts", network=edges("[[0, 1], [1, 2], [3, 4]]"))


@pytest.mark.parametrize(
    "network",
    [
        f'{{ kind = "grid", rows = {10**9}, cols = {10**9}, inputs = [0], outputs = [1] }}',
        f'{{ kind = "grid", rows = {2**32}, cols = {2**32}, inputs = [0], outputs = [1] }}',
        f'{{ kind = "torus", rows = {10**30}, cols = 2, inputs = [0], outputs = [1] }}',
        f'{{ kind = "crossbar", inputs = {10**9}, outputs = {10**9} }}',
        f'{{ kind = "crossbar", inputs = {10**30}, outputs = 1 }}',
        edges(f"[[0, 1], [1, 2], [2, {10**18}]]"),
        edges(f"[[0, 1], [1, {2**63 - 1}]]"),
        edges(f"[[0, 1], [1, {10**30}]]"),
        edges("[[0, 1], [1, 2]]", inputs=f"[0, {10**30}]"),
    ],
    ids=lambda text: text[:60],
)
def test_a_board_of_absurd_size_is_refused(network: str) -> None:
    refused(InputError, "network|nodes|edges|inputs|board", network=network)


# Devices.


def test_a_box_of_conductances() -> None:
    ready = prepared()
    np.testing.assert_allclose(ready.device_range.g_min, [1e-4, 1e-4])
    np.testing.assert_allclose(ready.device_range.g_max, [1e-2, 1e-2])
    assert ready.device_range.table is None
    assert ready.pots is None


def test_pots() -> None:
    ready = prepared(board=POTS)
    assert ready.pots == Potentiometer(128, 1e5, 40.0, 2e3)
    assert ready.device_range.table is not None
    np.testing.assert_array_equal(ready.device_range.table, [ready.pots.conductances()] * 2)
    assert ready.device_range.g_max[0] == pytest.approx(1 / 2040)


def test_pots_within_a_box() -> None:
    ready = prepared(board=f'g_max = "0.1 mS"\n{POTS}')
    assert ready.device_range.g_max.max() <= 1e-4
    assert (ready.device_range.clip(ready.initial) == ready.initial).all()


@pytest.mark.parametrize("inverted", ["false", "true"])
def test_codes_below_the_lowest_are_never_programmed(inverted: str) -> None:
    ready = prepared(board=f"{POTS}lowest_code = 20\ninverted = {inverted}\n")
    wishes = np.geomspace(1e-7, 1.0, 200)
    codes = [ready.device_range.project(np.array([wish, wish])).codes for wish in wishes]
    assert all(each is not None for each in codes)
    assert np.min(np.stack([each for each in codes if each is not None])) == 20
    assert ready.initial[0] == pytest.approx(1 / (2040 + 50_000))


@given(lowest=st.integers(0, 127))
@settings(max_examples=20)
def test_the_lowest_code_limits_the_current(lowest: int) -> None:
    ready = prepared(board=f"{POTS}lowest_code = {lowest}\n")
    largest = 1 / (2040 + 1e5 * lowest / 128)
    np.testing.assert_allclose(ready.device_range.g_max, largest, rtol=1e-14)
    assert ready.device_range.clip(ready.initial).tolist() == ready.initial.tolist(), "a start that is never programmed"
    with open_board(ready) as board:
        board.program(np.full(2, 1.0))
        worst = board.respond(np.array([[1.0, 0.0, 0.0]]))
        assert np.abs(worst.currents).max() <= largest * (1 + 1e-12)
    prepared(board=f"{POTS}lowest_code = {lowest}\n", more=f'[limits]\namperes_per_pot = "{largest * 1.0001} A"')
    refused(
        ExperimentError,
        "lowest_code",
        board=f"{POTS}lowest_code = {lowest}\n",
        more=f'[limits]\namperes_per_pot = "{largest * 0.9999} A"',
    )


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ('g_min = "0 S"\ng_max = "1 S"', "g_min must be a positive number of siemens, got 0 S"),
        ('g_min = 0\ng_max = "1 S"', "g_min must be a positive number of siemens, got 0 S"),
        ('g_min = "-1 mS"\ng_max = "1 S"', "g_min must be a positive number of siemens, got -0.001 S"),
        ('g_min = "2 mS"\ng_max = "1 mS"', "g_max must not be below g_min"),
        (f'g_max = "1 nS"\n{POTS}', "no code between g_min and g_max"),
        (f'g_min = "0 S"\n{POTS}', "g_min must be a positive"),
        (f"{POTS}lowest_code = 128", "no code|lowest_code"),
        (f"{POTS}denominator = 3", "denominator 3"),
        (POTS.replace("100 kΩ", "0 Ω"), "end-to-end resistance must be positive"),
        (POTS.replace("100 kΩ", "-1 kΩ"), "end-to-end resistance must be positive"),
        (POTS.replace("40 Ω", "-40 Ω"), "wiper resistance cannot be negative"),
        (POTS.replace("40 Ω", "0 Ω").replace("2 kΩ", "0 Ω"), "a code of this potentiometer is 0 Ω"),
        (f'initial = "0 S"\n{BOX}', r"board\.initial must be positive"),
        (f'initial = "-1 mS"\n{BOX}', r"board\.initial must be positive"),
        (f'initial = ["1 mS"]\n{BOX}', r"board\.initial has shape \(1,\), but the board has 2 edges"),
        (f'initial = ["1 mS", "1 mS", "1 mS"]\n{BOX}', r"board\.initial has shape \(3,\)"),
        (f"initial = []\n{BOX}", r"board\.initial has shape \(0,\)"),
        (f'initial = "1 µS"\n{BOX}', r"board\.initial"),
        (f'initial = ["1 mS", "20 mS"]\n{BOX}', r"board\.initial .*edge 1"),
        (f"initial_code = 3\n{POTS}lowest_code = 10", "initial_code"),
        (f'initial_code = 3\ng_max = "0.1 mS"\n{POTS}', "initial_code"),
    ],
)
def test_devices_refused(board: str, message: str) -> None:
    refused(DeviceRangeError, message, board=board)


# The start.


def test_the_middle_of_a_box_is_its_geometric_mean() -> None:
    np.testing.assert_allclose(prepared().initial, [1e-3, 1e-3], rtol=1e-14)


def test_the_middle_of_a_pot_is_half_its_travel() -> None:
    ready = prepared(board=POTS)
    assert ready.pots is not None
    assert ready.initial.tolist() == [ready.pots.conductances()[64]] * 2
    odd = prepared(board=POTS.replace("128", "101"))
    assert odd.pots is not None
    assert odd.initial.tolist() == [odd.pots.conductances()[50]] * 2


def test_a_code_to_start_from() -> None:
    ready = prepared(board=f"initial_code = 127\n{POTS}")
    assert ready.pots is not None
    assert ready.initial.tolist() == [ready.pots.conductances()[127]] * 2
    with open_board(ready) as board:
        np.testing.assert_array_equal(board.conductances, ready.initial)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ('"2 mS"', [2e-3, 2e-3]),
        ('"500 Ω"', [2e-3, 2e-3]),
        ('["2 mS", "1 kΩ"]', [2e-3, 1e-3]),
        ('"0.1 mS"', [1e-4, 1e-4]),
        ('"10 mS"', [1e-2, 1e-2]),
    ],
)
def test_a_start_as_asked(start: str, expected: list[float]) -> None:
    np.testing.assert_allclose(prepared(board=f"initial = {start}\n{BOX}").initial, expected, rtol=1e-14)


@given(seed=st.integers(0, 2**70))
def test_a_random_start(seed: int) -> None:
    network = '{ kind = "crossbar", inputs = 2, outputs = 20 }'
    task = f"inputs_volts = [[1.0, 0.0]]\ntargets_volts = {[[0.5] * 20]}"
    parts = {"network": network, "task": task, "board": f'initial = "random"\n{BOX}'}
    start = prepared(learning=f"seed = {seed}", **parts).initial
    assert start.shape == (40,)
    assert (start >= 1e-4).all()
    assert (start <= 1e-2).all()
    np.testing.assert_array_equal(start, prepared(learning=f"seed = {seed}", **parts).initial)
    assert (start != prepared(learning=f"seed = {seed + 1}", **parts).initial).any()


def test_a_random_start_is_spread_over_the_logarithms() -> None:
    network = '{ kind = "crossbar", inputs = 2, outputs = 500 }'
    task = f"inputs_volts = [[1.0, 0.0]]\ntargets_volts = {[[0.5] * 500]}"
    start = prepared(network=network, task=task, board=f'initial = "random"\n{BOX}').initial
    counts, _ = np.histogram(np.log10(start), bins=4, range=(-4, -2))
    assert counts.min() > 200


# Data.


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[1.2]]", r"node 1 in row 0 is 1.2 V, .* 0 to 1 V"),
        ("inputs_volts = [[1.0, 0.5]]\ntargets_volts = [[0.4]]", r"node 1 in row 0 is 0.4 V, .* 0.5 to 1 V"),
        ("inputs_volts = [[1, 0], [1, 1]]\ntargets_volts = [[1], [0.9]]", r"node 1 in row 1 is 0.9 V, .* 1 to 1 V"),
        ("inputs_volts = [[1.0]]\ntargets_volts = [[0.5]]", "1 input columns, but the network has 2 inputs"),
        ("inputs_volts = [[1.0, 0]]\ntargets_volts = [[0.5, 0.5]]", "2 target columns, but the network has 1 outputs"),
        ("inputs_volts = []\ntargets_volts = []", "the data are empty"),
        ("inputs_volts = [[]]\ntargets_volts = [[]]", "the data are empty"),
    ],
)
def test_data_refused(task: str, message: str) -> None:
    refused(TaskError, message, task=task)


def test_no_output_to_learn_at() -> None:
    refused(TaskError, "no output node", network=edges("[[0, 1], [1, 2]]", outputs="[]"))


def test_nan_in_the_data_is_named(tmp_path: Path) -> None:
    refused(ExperimentError, "inputs_volts.*nan", task="inputs_volts = [[nan, 0]]\ntargets_volts = [[1]]")
    (tmp_path / "d.csv").write_text("a,b,y\n0,1,0.5\n0,nan,0.5\n")
    with pytest.raises(TaskError, match=r"e\.toml: .*d\.csv, line 3: b is nan"):
        prepared(task='file = "d.csv"\ninputs = ["a", "b"]\ntargets = "y"', path=tmp_path / "e.toml")


def test_a_test_row_beyond_reach_is_refused_too(tmp_path: Path) -> None:
    rows = "".join(f"0,1,{y}\n" for y in (0.1, 0.2, 0.3, 0.4))
    task = 'file = "d.csv"\ninputs = ["a", "b"]\ntargets = "y"\ntest_fraction = 0.5\n'
    (tmp_path / "d.csv").write_text(f"a,b,y\n{rows}")
    ready = prepared(task=task, path=tmp_path / "e.toml")
    assert ready.data.test is not None
    held_out = f"{ready.data.test.targets[0, 0]:g}"
    (tmp_path / "d.csv").write_text(f"a,b,y\n{rows}".replace(held_out, "1.5"))
    with pytest.raises(TaskError, match=r"is 1\.5 V, but no resistor board"):
        prepared(task=task, path=tmp_path / "e.toml")


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_targets_at_the_ends_of_the_range_are_allowed(target: float) -> None:
    prepared(task=f"inputs_volts = [[1.0, 0.0]]\ntargets_volts = [[{target}]]")


CLASSES = 'file = "d.csv"\ninputs = ["a", "b"]\nlabel = "c"\n[task.encoding]\nkind = "wired"\n'
LEVELS = '[task.encoding.levels]\nred = ["0.4 V"]\nblue = ["0.6 V"]\n'


@pytest.mark.parametrize(("decode", "expected"), [("target", [[0.4], [0.6]]), ("centroid", None)])
def test_what_decides_the_class(decode: str, expected: list[list[float]] | None, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n0,1,blue\n1,0,red\n")
    ready = prepared(task=f'{CLASSES}decode = "{decode}"\n{LEVELS}', path=tmp_path / "e.toml")
    assert (None if ready.centres is None else ready.centres.tolist()) == expected
    assert prepared().centres is None


def test_centroids_need_a_training_sample_of_every_class(tmp_path: Path) -> None:
    """Refused at the start, not after the last epoch."""
    (tmp_path / "d.csv").write_text("a,b,c\n0,1,blue\n1,0,blue\n")
    prepared(task=f'{CLASSES}decode = "target"\n{LEVELS}', path=tmp_path / "e.toml")
    with pytest.raises(InputError, match=r"class 'red' has no .*sample"):
        prepared(task=f'{CLASSES}decode = "centroid"\n{LEVELS}', path=tmp_path / "e.toml")


# The rule.


def test_rules() -> None:
    assert prepared().rule == ContrastiveLearning("auto")
    rule = prepared(learning='step_size = "2e-4 S/V²"\nnudge = 0.5\nbatch_size = 1\ndraw = "independent"').rule
    assert rule == ContrastiveLearning(2e-4, 0.5, 1, "independent")


def test_schedules() -> None:
    rule = prepared(learning='step_size = "1e-3 S/V²"\ndecay_updates = 100\ndecay_power = 0.6').rule
    assert rule.step_size == RobbinsMonro(1e-3, 100.0, 0.6)
    assert prepared(learning="decay_updates = 7").rule.step_size == RobbinsMonro("auto", 7.0, 1.0)


def test_stopping() -> None:
    stopping = prepared(learning='stop = { loss = "1 mV²", residual = "2 V²", seconds = "2 min" }').stopping
    assert stopping.loss == pytest.approx(1e-6)
    assert stopping.residual == 2.0
    assert stopping.seconds == 120.0
    assert prepared().stopping.loss is None


@pytest.mark.parametrize(
    ("learning", "message"),
    [
        ('step_size = "0 S/V²"', "the step size must be positive, got 0"),
        ("step_size = 0", "the step size must be positive, got 0"),
        ('step_size = "-1e-4 S/V²"', "the step size must be positive, got -0.0001 S/V²"),
        ('step_size = "-1e-4 S/V²"\ndecay_updates = 3', "the step size must be positive"),
        ("nudge = 0", "nudge must lie in 0 < η ≤ 1, got 0"),
        ("nudge = -0.5", "nudge must lie in 0 < η ≤ 1"),
        ("nudge = 1.5", "nudge must lie in 0 < η ≤ 1"),
        ("batch_size = 0", "batch size must be a whole number of at least 1"),
        ("batch_size = -1", "batch size must be a whole number of at least 1"),
    ],
)
def test_rules_refused(learning: str, message: str) -> None:
    refused(RuleError, message, learning=learning)


def test_a_batch_larger_than_the_data() -> None:
    refused(ExperimentError, r"learning\.batch_size is 2, with only 1 samples", learning="batch_size = 2")


# Limits.


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ('volts = "0.5 V"', r"the data drive 1 V, above limits\.volts = 0\.5 V"),
        ('volts = "0 V"', r"above limits\.volts"),
        (
            'amperes_per_pot = "9.99 mA"',
            r"edge 0 between node 0 and node 1 could see 0\.01 A at 1 V, above limits\.amperes_per_pot = 0\.00999 A",
        ),
        ('watts_per_pot = "9.99 mW"', r"edge 0 between node 0 and node 1 could see 0\.01 W .*limits\.watts_per_pot"),
    ],
)
def test_limits_refuse(limits: str, message: str) -> None:
    refused(ExperimentError, message, more=f"[limits]\n{limits}")


def test_limits_that_are_kept() -> None:
    prepared(more='[limits]\nvolts = "1 V"\namperes_per_pot = "10.001 mA"\nwatts_per_pot = "10.001 mW"')


def test_the_limit_of_volts_is_about_either_sign_and_either_part(tmp_path: Path) -> None:
    task = "inputs_volts = [[-3.0, 0.0]]\ntargets_volts = [[-1.0]]"
    refused(ExperimentError, "the data drive 3 V", task=task, more='[limits]\nvolts = "2 V"')
    (tmp_path / "d.csv").write_text("a,b,y\n" + "".join(f"{i},0,0\n" for i in range(10)))
    split = 'file = "d.csv"\ninputs = ["a", "b"]\ntargets = "y"\ntest_fraction = 0.5\n'
    with pytest.raises(ExperimentError, match=r"the data drive 9 V"):
        prepared(task=split, more='[limits]\nvolts = "8.5 V"', path=tmp_path / "e.toml")


def test_the_edge_that_could_see_most_is_named() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1], labels=["left", "lamp", "right"])
    experiment = parsed(more='[limits]\namperes_per_pot = "5 mA"')
    task = Task([[2.0, 0.0]], [[1.0]])
    check_limits(experiment, DeviceRange([1e-3, 1e-3], [2e-3, 2e-3]), [task], network)
    with pytest.raises(
        ExperimentError, match=r"edge 1 between node 1 \(lamp\) and node 2 \(right\) could see 0\.006 A"
    ):
        check_limits(experiment, DeviceRange([1e-3, 1e-3], [2e-3, 3e-3]), [task], network)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_edge_ever_sees_more_than_was_checked(seed: int) -> None:
    """Whatever is learnt: both phases, random conductances of the range, hidden nodes too."""
    generator = np.random.default_rng(seed)
    network = '{ kind = "grid", rows = 3, cols = 3, inputs = [0, 8], outputs = [4] }'
    inputs = generator.uniform(-5, 5, (3, 2))
    targets = inputs @ [[0.5], [0.5]]
    task = f"inputs_volts = {inputs.tolist()}\ntargets_volts = {targets.tolist()}"
    ready = prepared(network=network, task=task)
    with open_board(ready) as board:
        for _ in range(5):
            board.program(np.exp(generator.uniform(np.log(1e-4), np.log(1e-2), ready.network.n_edges)))
            for outputs in (np.full((3, 1), np.nan), targets):
                seen = ready.network.edge_voltages(board.respond(np.hstack([inputs, outputs])).potentials)
                amperes = float(np.abs(seen * board.conductances).max())
                watts = float((seen**2 * board.conductances).max())
                limits = f'[limits]\namperes_per_pot = "{amperes * 0.999} A"'
                refused(ExperimentError, "amperes_per_pot", network=network, task=task, more=limits)
                limits = f'[limits]\nwatts_per_pot = "{watts * 0.999} W"'
                refused(ExperimentError, "watts_per_pot", network=network, task=task, more=limits)


def test_the_file_is_named_once() -> None:
    refused(RuleError, f"^{FILE}: the nudge", learning="nudge = 7")


def test_a_target_out_of_reach_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    rows = [f"0,1,0.{index}" for index in range(1, 9)]
    rows.insert(5, "0,1,1.5")
    lines = ["# a comment", "a,b,y", *rows]
    (tmp_path / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    text = """
[board]
network = { kind = "crossbar", inputs = 2, outputs = 1 }
g_min = "1 µS"
g_max = "1 mS"
[task]
file = "data.csv"
inputs = ["a", "b"]
targets = "y"
test_fraction = 0.3
split_seed = %d
[learning]
epochs = 1
"""
    for seed in range(6):  # in the training part or in the test part, whichever the seed makes it
        with pytest.raises(TaskError, match=r"in line 8 of .*data\.csv is 1\.5 V, but no resistor board can leave"):
            prepare(Experiment.parse(text % seed, tmp_path / "x.toml"))
