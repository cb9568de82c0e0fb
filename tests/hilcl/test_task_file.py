from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilcl.errors import InputError, TaskError
from hilcl.experiment import Experiment
from hilcl.task_file import LoadedTask, load_task

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

ONE_HOT = '[task.encoding]\nkind = "one-hot"\nlow = "0.4 V"\nhigh = "0.6 V"\n'
WIRED = '[task.encoding]\nkind = "wired"\n[task.encoding.levels]\nred = ["0.7 V", "0.1 V"]\nblue = ["0.2 V", "0.3 V"]\n'

FLOWERS = """\
length,width,colour,height
0,10,red,1
5,30,blue,3
10,20,red,2
2,15,blue,5
"""


def load(task: str, folder: Path, **files: str | dict[str, npt.ArrayLike]) -> LoadedTask:
    """Return the data of a [task] section; the network is not looked at."""
    for name, content in files.items():
        if isinstance(content, str):
            (folder / f"{name}.csv").write_text(content, encoding="utf-8")
        else:
            np.savez(folder / f"{name}.npz", **content)  # type: ignore[arg-type]
    board = '[board]\nnetwork = { kind = "crossbar", inputs = 1, outputs = 1 }\ng_min = "1 µS"\ng_max = "1 S"\n'
    text = f"{board}[learning]\nepochs = 1\n[task]\n{task}"
    return load_task(Experiment.parse(text, folder / "experiment.toml"))


def samples(n_samples: int) -> str:
    """Return a file whose column a numbers its rows; y is twice that, and classes alternate in threes."""
    rows = "".join(f"{i},{2 * i},{'abc'[i % 3]}\n" for i in range(n_samples))
    return f"a,y,class\n{rows}"


# Written in the experiment file.


def test_inline_data_are_volts_as_they_are(tmp_path: Path) -> None:
    data = load("inputs_volts = [[1, 0], [0.5, -2]]\ntargets_volts = [[0.5], [0.25]]", tmp_path)
    np.testing.assert_array_equal(data.train.inputs, [[1, 0], [0.5, -2]])
    np.testing.assert_array_equal(data.train.targets, [[0.5], [0.25]])
    assert data.test is None
    assert data.train.labels is None
    assert data.input_scale is None
    assert data.target_scale is None
    assert data.encoding is None


def test_inline_data_can_be_split(tmp_path: Path) -> None:
    rows = [[float(i), 0.0] for i in range(10)]
    text = f"inputs_volts = {rows}\ntargets_volts = {[[i / 2] for i, _ in rows]}\ntest_fraction = 0.3\n"
    data = load(text, tmp_path)
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (7, 3)
    together = np.vstack([data.train.inputs, data.test.inputs])
    assert sorted(together[:, 0].tolist()) == [float(i) for i in range(10)]
    np.testing.assert_array_equal(np.vstack([data.train.targets, data.test.targets])[:, 0], together[:, 0] / 2)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ("[]", "[]", "the data are empty"),
        ("[[]]", "[[]]", "the data are empty"),
        ("[[1, 0]]", "[[]]", "the data are empty"),
        ("[[1], [0, 1]]", "[[0], [0]]", r"task\.inputs_volts has rows of different length"),
        ("[[1], [0]]", "[[0], [0, 1]]", r"task\.targets_volts has rows of different length"),
        ("[[1], [0]]", "[[0]]", "2 rows of inputs but 1 rows of targets"),
    ],
)
def test_inline_data_refused(inputs: str, targets: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        load(f"inputs_volts = {inputs}\ntargets_volts = {targets}", tmp_path)


# Columns of a file.


def test_columns_in_the_order_asked_for(tmp_path: Path) -> None:
    task = 'file = "flowers.csv"\ninputs = ["width", "length"]\ntargets = "height"'
    data = load(task, tmp_path, flowers=FLOWERS)
    np.testing.assert_array_equal(data.train.inputs, [[10, 0], [30, 5], [20, 10], [15, 2]])
    np.testing.assert_array_equal(data.train.targets, [[1], [3], [2], [5]])


def test_a_folder_below_the_experiment_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "flowers.csv").write_text(FLOWERS)
    data = load('file = "data/flowers.csv"\ninputs = "length"\ntargets = ["height", "width"]', tmp_path)
    np.testing.assert_array_equal(data.train.targets, [[1, 10], [3, 30], [2, 20], [5, 15]])


def test_inputs_complements_and_biases_in_volts(tmp_path: Path) -> None:
    task = """
        file = "flowers.csv"
        inputs = ["length", "width"]
        targets = "height"
        input_volts = ["0.5 V", "4.5 V"]
        complement = true
        bias = ["0 V", "5 V"]
    """
    data = load(task, tmp_path, flowers=FLOWERS)
    expected = [
        [0.5, 0.5, 4.5, 4.5, 0, 5],
        [2.5, 4.5, 2.5, 0.5, 0, 5],
        [4.5, 2.5, 0.5, 2.5, 0, 5],
        [1.3, 1.5, 3.7, 3.5, 0, 5],
    ]
    np.testing.assert_allclose(data.train.inputs, expected, rtol=1e-14)
    assert data.input_scale is not None
    np.testing.assert_array_equal(data.input_scale.minimum, [0, 10])
    np.testing.assert_array_equal(data.input_scale.maximum, [10, 30])


def test_without_input_volts_readings_are_volts(tmp_path: Path) -> None:
    data = load('file = "f.csv"\ninputs = "a"\ntargets = "y"\nbias = ["1 V"]', tmp_path, f=samples(4))
    np.testing.assert_array_equal(data.train.inputs, [[0, 1], [1, 1], [2, 1], [3, 1]])
    assert data.input_scale is None


def test_a_range_of_readings_does_not_look_at_the_data(tmp_path: Path) -> None:
    task = 'file = "f.csv"\ninputs = "a"\ntargets = "y"\ninput_volts = ["0 V", "5 V"]\ninput_range = [-10, 2]'
    data = load(task, tmp_path, f=samples(4))
    np.testing.assert_allclose(data.train.inputs[:, 0], [50 / 12, 55 / 12, 5, 5], rtol=1e-14)


def test_targets_in_volts_only_where_asked(tmp_path: Path) -> None:
    task = 'file = "f.csv"\ninputs = "a"\ntargets = "y"\n'
    plain = load(task, tmp_path, f=samples(5))
    np.testing.assert_array_equal(plain.train.targets[:, 0], [0, 2, 4, 6, 8])
    assert plain.target_scale is None
    scaled = load(f'{task}target_volts = ["1 V", "2 V"]', tmp_path)
    np.testing.assert_allclose(scaled.train.targets[:, 0], [1, 1.25, 1.5, 1.75, 2], rtol=1e-15)
    assert scaled.target_scale is not None


# The split, and nothing of the test part in the training part.


@pytest.mark.parametrize("seed", range(8))
def test_scales_come_from_the_training_rows_alone(seed: int, tmp_path: Path) -> None:
    task = f"""
        file = "f.csv"
        inputs = "a"
        targets = "y"
        input_volts = ["0 V", "1 V"]
        target_volts = ["0 V", "1 V"]
        test_fraction = "40 %"
        split_seed = {seed}
    """
    data = load(task, tmp_path, f="a,y\n" + "".join(f"{i * i},{i * i - 50}\n" for i in range(20)))
    assert data.test is not None
    assert data.input_scale is not None
    assert data.target_scale is not None
    low, high = data.input_scale.minimum[0], data.input_scale.maximum[0]
    train_readings = low + data.train.inputs[:, 0] * (high - low)
    squares = np.round(np.sqrt(train_readings)).astype(int)
    test_rows = np.setdiff1d(np.arange(20), squares)
    assert len(test_rows) == len(data.test) == 8
    assert (low, high) == (squares.min() ** 2, squares.max() ** 2)
    expected = (test_rows**2 - low) / (high - low)
    np.testing.assert_allclose(data.test.inputs[:, 0], np.clip(expected, 0, 1), atol=1e-14)
    np.testing.assert_allclose(data.test.targets[:, 0], expected, atol=1e-14)


def test_extreme_test_rows_are_clipped_and_move_nothing(tmp_path: Path) -> None:
    task = 'file = "f.csv"\ninputs = "a"\ntargets = "y"\ninput_volts = ["0 V", "1 V"]\ntest_fraction = 0.25\n'
    rows = [[float(i), float(i)] for i in range(8)]

    def content() -> str:
        return "a,y\n" + "".join(f"{a},{y}\n" for a, y in rows)

    before = load(task, tmp_path, f=content())
    assert before.test is not None
    held_out = [int(value) for value in before.test.targets[:, 0]]
    rows[held_out[0]][0], rows[held_out[1]][0] = 1e6, -1e6
    after = load(task, tmp_path, f=content())
    assert after.test is not None
    np.testing.assert_array_equal(after.train.inputs, before.train.inputs)
    np.testing.assert_array_equal(after.test.inputs[:, 0], [1.0, 0.0])


def test_the_split_keeps_every_class(tmp_path: Path) -> None:
    task = f'file = "f.csv"\ninputs = "a"\nlabel = "class"\ntest_fraction = 0.2\nsplit_seed = 3\n{ONE_HOT}'
    data = load(task, tmp_path, f=samples(30))
    assert data.test is not None
    assert data.test.labels is not None
    assert data.train.labels is not None
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]


@SAME_FOLDER
@given(
    n_samples=st.integers(12, 40),
    fraction=st.sampled_from([0.25, 0.5, 0.75]),
    seed=st.integers(0, 2**40),
    label=st.booleans(),
)
def test_every_row_is_in_one_part(n_samples: int, fraction: float, seed: int, label: bool, tmp_path: Path) -> None:
    answer = f'label = "class"\n{{}}\n{ONE_HOT}' if label else 'targets = "y"\n{}'
    split = f"test_fraction = {fraction}\nsplit_seed = {seed}"
    task = f'file = "f.csv"\ninputs = "a"\n{answer.format(split)}'
    data = load(task, tmp_path, f=samples(n_samples))
    assert data.test is not None
    parts = [part.inputs[:, 0].astype(int).tolist() for part in (data.train, data.test)]
    assert sorted(parts[0] + parts[1]) == list(range(n_samples))
    for part, rows in zip((data.train, data.test), parts, strict=True):
        if label:
            assert part.labels is not None
            assert [data.train.class_names[c] for c in part.labels] == ["abc"[row % 3] for row in rows]
        else:
            assert part.targets[:, 0].tolist() == [2 * row for row in rows]
    again = load(task, tmp_path)
    np.testing.assert_array_equal(again.train.inputs, data.train.inputs)


def test_the_split_follows_its_seed(tmp_path: Path) -> None:
    task = 'file = "f.csv"\ninputs = "a"\ntargets = "y"\ntest_fraction = 0.5\nsplit_seed = '
    parts = {tuple(load(f"{task}{seed}", tmp_path, f=samples(20)).train.inputs[:, 0].tolist()) for seed in range(10)}
    assert len(parts) > 5


def test_too_few_rows_to_split(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="3 samples are too few"):
        load('file = "f.csv"\ninputs = "a"\ntargets = "y"\ntest_fraction = 0.1', tmp_path, f=samples(3))


# Classes.


def test_one_hot_classes_in_alphabetical_order(tmp_path: Path) -> None:
    data = load(f'file = "flowers.csv"\ninputs = "length"\nlabel = "colour"\n{ONE_HOT}', tmp_path, flowers=FLOWERS)
    assert data.train.class_names == ("blue", "red")
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(data.train.targets, [[0.4, 0.6], [0.6, 0.4], [0.4, 0.6], [0.6, 0.4]], rtol=1e-15)


def test_wired_classes_in_the_order_written(tmp_path: Path) -> None:
    data = load(f'file = "flowers.csv"\ninputs = "length"\nlabel = "colour"\n{WIRED}', tmp_path, flowers=FLOWERS)
    assert data.train.class_names == ("red", "blue")
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(data.train.targets, [[0.7, 0.1], [0.2, 0.3], [0.7, 0.1], [0.2, 0.3]])
    assert data.target_scale is None


def test_classes_of_both_parts_have_the_same_numbers(tmp_path: Path) -> None:
    task = f'file = "f.csv"\ninputs = "a"\nlabel = "class"\ntest_fraction = 0.5\n{ONE_HOT}'
    data = load(task, tmp_path, f="a,class\n0,z\n1,a\n2,z\n3,a\n")
    assert data.test is not None
    assert data.test.class_names == data.train.class_names == ("a", "z")


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_class_numbers_in_the_order_of_numbers(kind: str, tmp_path: Path) -> None:
    """Output 10 is class 10, not class 2."""
    task = f'file = "digits.{kind}"\ninputs = "a"\nlabel = "digit"\n{ONE_HOT}'
    if kind == "csv":
        data = load(task, tmp_path, digits="a,digit\n" + "".join(f"{i},{i}\n" for i in range(12)))
    else:
        data = load(task, tmp_path, digits={"a": np.arange(12.0), "digit": np.arange(12)})
    assert data.train.class_names == tuple(str(i) for i in range(12))
    assert data.train.labels is not None
    assert data.train.labels.tolist() == list(range(12))


def test_a_class_without_volts(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="class 'green' has no output volts: the encoding knows red, blue"):
        load(f'file = "f.csv"\ninputs = "a"\nlabel = "colour"\n{WIRED}', tmp_path, f="a,colour\n1,red\n2,green\n")


def test_equal_one_hot_volts(tmp_path: Path) -> None:
    equal = ONE_HOT.replace("0.4", "0.6")
    with pytest.raises(TaskError, match="one-hot volts must differ"):
        load(f'file = "flowers.csv"\ninputs = "length"\nlabel = "colour"\n{equal}', tmp_path, flowers=FLOWERS)


# NPZ.

ARRAYS: dict[str, npt.ArrayLike] = {
    "x": [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]],
    "b": [5.0, 6.0, 7.0],
    "y": [[0.1], [0.2], [0.3]],
    "digit": [1, 0, 1],
    "table": [[0, 1], [1, 0], [1, 1]],
    "large": [20_000_001, 20_000_002, 20_000_001],
    "holes": [[0.0, 1.0], [np.nan, 0.0], [0.5, 0.5]],
    "no_number": [0.0, np.nan, 1.0],
    "short": [1.0, 2.0],
    "empty": np.zeros((0, 2)),
}


def test_npz_arrays_side_by_side(tmp_path: Path) -> None:
    data = load('file = "d.npz"\ninputs = ["b", "x"]\ntargets = ["y", "b"]', tmp_path, d=ARRAYS)
    np.testing.assert_array_equal(data.train.inputs, [[5, 0, 1], [6, 1, 0], [7, 0.5, 0.5]])
    np.testing.assert_array_equal(data.train.targets, [[0.1, 5], [0.2, 6], [0.3, 7]])


def test_npz_class_numbers(tmp_path: Path) -> None:
    wired = WIRED.replace("red =", "1 =").replace("blue =", "0 =")
    data = load(f'file = "d.npz"\ninputs = "x"\nlabel = "digit"\n{wired}', tmp_path, d=ARRAYS)
    assert data.train.class_names == ("1", "0")
    np.testing.assert_array_equal(data.train.targets, [[0.7, 0.1], [0.2, 0.3], [0.7, 0.1]])


def test_large_class_numbers_stay_apart(tmp_path: Path) -> None:
    data = load(f'file = "d.npz"\ninputs = "x"\nlabel = "large"\n{ONE_HOT}', tmp_path, d=ARRAYS)
    assert data.train.class_names == ("20000001", "20000002")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ('inputs = "zz"\ntargets = "y"', "has no array 'zz': it has x, b, y"),
        ('inputs = "x"\ntargets = "short"', r"different numbers of rows: \[2, 3\]"),
        ('inputs = "holes"\ntargets = "y"', "inputs row 1, column 0 is nan"),
        ('inputs = "holes"\ntargets = "y"\ninput_volts = ["0 V", "1 V"]', "not finite"),
        ('inputs = "x"\ntargets = "no_number"', "targets row 1, column 0 is nan"),
        ('inputs = "empty"\ntargets = "empty"', "the data are empty"),
        ('inputs = "empty"\ntargets = "empty"\ninput_volts = ["0 V", "1 V"]', "empty"),
        (f'inputs = "x"\nlabel = "table"\n{ONE_HOT}', "table"),
        (f'inputs = "x"\nlabel = "no_number"\n{ONE_HOT}', "no_number|finite"),
    ],
)
def test_npz_refused(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        load(f'file = "d.npz"\n{task}', tmp_path, d=ARRAYS)
    assert "\n" not in str(caught.value)


# Refused.


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ('file = "no.csv"\ninputs = "a"\ntargets = "y"', r"no\.csv cannot be read: No such file"),
        ('file = ""\ninputs = "a"\ntargets = "y"', "cannot be read: Is a directory"),
        ('file = "no\\nsuch.csv"\ninputs = "a"\ntargets = "y"', "cannot be read"),
        ('file = "a\\u0000.csv"\ninputs = "a"\ntargets = "y"', "cannot be read"),
        ('file = "a\\u0000.npz"\ninputs = "a"\ntargets = "y"', "data file"),
        ('file = "f.csv"\ninputs = "b"\ntargets = "y"', r"f\.csv has no column 'b': it has a, y, class"),
        ('file = "f.csv"\ninputs = "a"\ntargets = "z"', "has no column 'z'"),
        (f'file = "f.csv"\ninputs = "a"\nlabel = "z"\n{ONE_HOT}', "has no column 'z'"),
        (
            'file = "f.csv"\ninputs = ["a", "class"]\ntargets = "y"',
            r"f\.csv, line 2: class is 'a', which is not a number",
        ),
        ('file = "f.csv"\ninputs = "a"\ntargets = "y"\ninput_volts = ["1 V", "0 V"]', "volts must rise"),
        ('file = "f.csv"\ninputs = "a"\ntargets = "y"\ntarget_volts = ["1 V", "1 V"]', "volts must rise"),
        ('file = "c.csv"\ninputs = ["a", "b"]\ntargets = "y"\ninput_volts = ["0 V", "1 V"]', "1 has one value only"),
        ('file = "f.csv"\ninputs = []\ntargets = "y"', "inputs|empty"),
        ('file = "d.npz"\ninputs = []\ntargets = "y"', "inputs|empty"),
        ('file = "f.csv"\ninputs = "a"\ntargets = []', "targets|empty"),
        ('file = "d.npz"\ninputs = "x"\ntargets = []', "targets|empty"),
    ],
)
def test_files_refused(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(task, tmp_path, f=samples(4), c="a,b,y\n1,7,1\n2,7,2\n", d=ARRAYS)
    assert "\n" not in str(caught.value)
