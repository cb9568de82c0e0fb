import csv
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilcl.arrays import FloatArray
from hilcl.dataset import Table, VoltScale, board_inputs, read_csv, read_npz
from hilcl.errors import TaskError

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def table(content: str | bytes, folder: Path) -> Table:
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(path)


def archive(**arrays: npt.ArrayLike) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(values) for name, values in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def zipped(content: bytes, name: str = "a.npy") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(name, content)
    return buffer.getvalue()


def npy(header: bytes, data: bytes = bytes(80)) -> bytes:
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


def arrays_of(content: bytes, names: list[str], folder: Path) -> list[FloatArray]:
    path = folder / "data.npz"
    path.write_bytes(content)
    return read_npz(path, names)


# CSV.


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\n1,2\n3,4\n", [2, 3]),
        ("a,b\n1,2\n3,4", [2, 3]),
        ("\ufeffa,b\n1,2\n3,4\n", [2, 3]),
        ("a,b\r\n1,2\r\n3,4\r\n", [2, 3]),
        ("\n# made by hand\n\na,b\n1,2\n  \n# 9,9,9\n3,4\n\n", [5, 8]),
        ("\ufeff# from a spreadsheet\na,b\n1,2\n3,4\n", [3, 4]),
        ('"a","b"\n"1","2"\n"3",4\n', [2, 3]),
        (" a , b\n 1,2 \n+3.0, 4e0\n", [2, 3]),
    ],
    ids=["plain", "no last newline", "bom", "crlf", "comments", "bom and comment", "quoted", "spaces"],
)
def test_csv(content: str, rows: list[int], tmp_path: Path) -> None:
    found = table(content, tmp_path)
    assert list(found.columns) == ["a", "b"]
    assert found.rows == rows
    np.testing.assert_array_equal(found.numbers(["a", "b"]), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found.numbers(["b"]), [[2], [4]])
    assert found.numbers([]).shape == (2, 0)


def test_quoted_cells_hold_commas_quotes_and_comment_signs(tmp_path: Path) -> None:
    found = table('name,"x, in V"\n"Iris ""a"", b",1\n"# no comment",2\n', tmp_path)
    assert found.text("name") == ['Iris "a", b', "# no comment"]
    assert found.numbers(["x, in V"]).tolist() == [[1.0], [2.0]]


def test_odd_separators_inside_a_cell_end_no_line(tmp_path: Path) -> None:
    """An editor shows one line, and so does the line number in a message."""
    found = table("name,x\na\u2028b,1\nc\u0085d,2\ne\x0cf,bad\n", tmp_path)
    assert found.rows == [2, 3, 4]
    assert found.text("name")[0].startswith("a")
    with pytest.raises(TaskError, match="line 4: x is 'bad'"):
        found.numbers(["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  \n\t\n", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "a header but no rows: the data are empty"),
        (b"a,b\n# 1,2\n", "a header but no rows"),
        (b"a,b\n1,2,3\n", r"line 2: 3 cells, but the header has 2"),
        (b"a,b\n\n1,2\n\n1\n", r"line 5: 1 cells, but the header has 2"),
        (b"a,b\n1,2,\n", r"line 2: 3 cells, but the header has 2"),
        (b"a,b,a\n1,2,3\n", "two columns .*'a'"),
        (b"a, a\n1,2\n", "two columns .*'a'"),
        (b'a,b\n"1\n",2\n', "spans lines"),
        (b'a,b\n"1,2\n3,4\n', "spans lines"),
        (b"a\n" + b"9" * 200_000, "is not CSV: "),
        (b"\xe9,b\n1,2\n", "is not text: save it as CSV in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "is not text: save it as CSV in UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_csv_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        table(content, tmp_path)
    assert str(tmp_path / "data.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nope\.csv cannot be read: No such file"):
        read_csv(tmp_path / "nope.csv")
    with pytest.raises(TaskError, match="cannot be read: Is a directory"):
        read_csv(tmp_path)
    with pytest.raises(TaskError, match="cannot be read: File name too long"):
        read_csv(tmp_path / ("x" * 5_000))
    with pytest.raises(TaskError, match="cannot be read"):
        read_csv(tmp_path / "a\0b.csv")
    with pytest.raises(TaskError, match="cannot be read") as caught:
        read_csv(tmp_path / "a\nb.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["x", "", "1,5", "1.2.3", "0x10", "1 V", "--1", "#", "=A1", "1;2", "\x00"])
def test_a_cell_that_is_no_number_is_named(cell: str, tmp_path: Path) -> None:
    found = table(f'a,length\n1,2\n\n3,"{cell}"\n', tmp_path)
    assert found.numbers(["a"]).tolist() == [[1.0], [3.0]]
    with pytest.raises(TaskError, match=r"data\.csv, line 4: length is .*, which is not a number") as caught:
        found.numbers(["a", "length"])
    assert repr(cell) in str(caught.value)


@pytest.mark.parametrize("cell", ["nan", "NaN", "-inf", "Infinity", "1e400"])
def test_a_cell_that_is_not_finite_is_named(cell: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"line 3: b is {cell}, not a finite number"):
        table(f"a,b\n1,2\n3,{cell}\n", tmp_path).numbers(["b"])


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    found = table("a,b\n1,2\n", tmp_path)
    for ask in (found.text, lambda name: found.numbers(["a", name])):
        with pytest.raises(TaskError, match=r"has no column 'c': it has a, b"):
            ask("c")


@SAME_FOLDER
@given(
    values=hnp.arrays(
        float,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.booleans(),
)
def test_csv_round_trip(values: FloatArray, newline: str, quoting: int, bom: bool, tmp_path: Path) -> None:
    buffer = io.StringIO(newline="")
    names = [f"column {i}" for i in range(values.shape[1])]
    csv.writer(buffer, lineterminator=newline, quoting=quoting).writerows([names, *values.tolist()])  # type: ignore[arg-type]
    found = table(buffer.getvalue().encode("utf-8-sig" if bom else "utf-8"), tmp_path)
    np.testing.assert_array_equal(found.numbers(names), values)
    assert found.rows == list(range(2, 2 + len(values)))


@SAME_FOLDER
@given(content=st.one_of(st.binary(max_size=60), st.text('ab,"\n\r#1. \x00é\u2028', max_size=30).map(str.encode)))
@example(content=b'a,b\n1,2\n3,"4\n')
@example(content=b'""\n""\n')
def test_any_bytes_as_csv(content: bytes, tmp_path: Path) -> None:
    found: Table | str
    try:
        found = table(content, tmp_path)
        found.numbers(list(found.columns))
    except TaskError as error:
        found = str(error)
    if isinstance(found, str):
        assert "\n" not in found
        assert "data.csv" in found
    else:
        assert found.rows
        assert {len(column) for column in found.columns.values()} == {len(found.rows)}


# NPZ.


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "i1", "u2", ">f8", "?"])
def test_npz(kind: str, tmp_path: Path) -> None:
    wide, flat = np.array([[0, 1], [1, 0], [1, 1]], dtype=kind), np.array([1, 0, 1], dtype=kind)
    found = arrays_of(archive(flat=flat, wide=wide, other=["not", "asked", "for"]), ["wide", "flat"], tmp_path)
    assert [each.dtype for each in found] == [np.float64, np.float64]
    np.testing.assert_array_equal(found[0], wide.astype(float))
    np.testing.assert_array_equal(found[1], flat.astype(float)[:, None])


def test_compressed_npz(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(1000.0))
    np.testing.assert_array_equal(arrays_of(buffer.getvalue(), ["a"], tmp_path)[0], np.arange(1000.0)[:, None])


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trap = np.array([Trap(trace)], dtype=object)
    single = io.BytesIO()
    np.save(single, trap, allow_pickle=True)
    for content in (archive(a=trap), single.getvalue(), pickle.dumps(Trap(trace)), zipped(pickle.dumps(Trap(trace)))):
        with pytest.raises(TaskError, match=r"data\.npz"):
            arrays_of(content, ["a"], tmp_path)
    np.testing.assert_array_equal(arrays_of(archive(a=trap, b=[1.0]), ["b"], tmp_path)[0], [[1.0]])
    assert not trace.exists()


def test_one_array_without_a_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, [1.0, 2.0])
    with pytest.raises(TaskError, match=r"one array without a name: save it with numpy\.savez"):
        arrays_of(buffer.getvalue(), ["a"], tmp_path)


def test_an_array_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"data\.npz has no array 'c': it has a, b"):
        arrays_of(archive(a=[1], b=[2]), ["a", "c"], tmp_path)


@pytest.mark.parametrize(
    "values",
    [["x"], [1j], 3.0, np.zeros((2, 2, 2)), np.array(["2020"], dtype="M8[D]"), np.array([(1, 2)], dtype="i4,i4")],
    ids=["text", "complex", "scalar", "cube", "dates", "records"],
)
def test_arrays_that_are_no_table_of_numbers(values: npt.ArrayLike, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"data\.npz: the array 'a' must be a table of numbers"):
        arrays_of(archive(a=values), ["a"], tmp_path)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_arrays_keep_their_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    """What is empty is refused where the task is made."""
    (found,) = arrays_of(archive(a=np.zeros(shape)), ["a"], tmp_path)
    assert found.shape == (*shape, 1)[:2]


VALID = archive(a=np.arange(20.0))
METHOD = bytearray(VALID)
METHOD[8] = METHOD[VALID.find(b"PK\x01\x02") + 10] = 99
LOCKED = bytearray(VALID)
LOCKED[6] |= 1
LOCKED[VALID.find(b"PK\x01\x02") + 8] |= 1
FORM = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"

DAMAGED = {
    "empty": b"",
    "text": b"1,2,3\n",
    "zip signature": b"PK\x03\x04xx",
    "half": VALID[: len(VALID) // 2],
    "cut": VALID[:-10],
    "flipped": VALID[:200] + bytes([VALID[200] ^ 255]) + VALID[201:],
    "no array inside": zipped(b"hello"),
    "no npy": zipped(b"hello", "a"),
    "header cut": zipped(b"\x93NUMPY\x01\x00"),
    "unknown version": zipped(b"\x93NUMPY\x09\x00\x00\x00"),
    "unreadable header": zipped(npy(b"[[[[")),
    "unknown type": zipped(npy(FORM.replace(b"<f8", b"z9") % 1)),
    "larger than its data": zipped(npy(FORM % 100)),
    "larger than any memory": zipped(npy(FORM % 10**17)),
    "negative": zipped(npy(FORM % -1)),
    "unknown compression": bytes(METHOD),
    "encrypted": bytes(LOCKED),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_npz(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"data\.npz") as caught:
        arrays_of(content, ["a"], tmp_path)
    assert "\n" not in str(caught.value)


def test_an_npz_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nope\.npz cannot be read: No such file"):
        read_npz(tmp_path / "nope.npz", ["a"])
    with pytest.raises(TaskError, match="cannot be read: Is a directory"):
        read_npz(tmp_path, ["a"])
    with pytest.raises(TaskError, match="data file"):
        read_npz(tmp_path / "a\0b.npz", ["a"])


def test_compressed_bytes_that_do_not_unpack(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.random.default_rng(0).random(50))
    whole = buffer.getvalue()
    for place in range(40, 120, 3):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            (found,) = arrays_of(damaged, ["a"], tmp_path)
        except TaskError:
            continue
        np.testing.assert_array_equal(found, np.random.default_rng(0).random((50, 1)))


@SAME_FOLDER
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.binary(max_size=100).map(lambda tail: b"PK\x03\x04" + tail),
        st.binary(max_size=100).map(lambda tail: b"\x93NUMPY" + tail),
        st.binary(max_size=150).map(zipped),
        st.binary(max_size=100).map(lambda header: zipped(npy(header.replace(b"\n", b"")))),
    )
)
def test_any_bytes_as_npz(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"data\.npz") as caught:
        arrays_of(content, ["a"], tmp_path)
    assert "\n" not in str(caught.value)


@SAME_FOLDER
@given(place=st.integers(0, len(VALID) - 1), byte=st.integers(0, 255))
def test_any_byte_wrong_in_an_npz_file(place: int, byte: int, tmp_path: Path) -> None:
    """The archive's checksum covers its arrays: what is read is right, or nothing is."""
    found: FloatArray | str
    try:
        (found,) = arrays_of(VALID[:place] + bytes([byte]) + VALID[place + 1 :], ["a"], tmp_path)
    except TaskError as error:
        found = str(error)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        np.testing.assert_array_equal(found, np.arange(20.0)[:, None])


# Scaling.


def test_each_feature_spans_the_volts() -> None:
    features = np.array([[0.0, 10.0], [5.0, 30.0], [10.0, 20.0]])
    scale = VoltScale.fit(features, 0.5, 4.5)
    np.testing.assert_allclose(scale.volts(features), [[0.5, 0.5], [2.5, 4.5], [4.5, 2.5]], rtol=1e-15)


def test_readings_beyond_the_range_are_held_at_its_ends() -> None:
    scale = VoltScale.fit(np.array([[0.0], [10.0]]), 0.0, 1.0)
    np.testing.assert_array_equal(scale.volts(np.array([[-5.0], [15.0]])), [[0.0], [1.0]])
    np.testing.assert_array_equal(scale.volts(np.array([[-5.0], [15.0]]), clip=False), [[-0.5], [1.5]])


def test_a_range_of_readings() -> None:
    scale = VoltScale.of_range(2, (-10.0, 10.0), 0.0, 5.0)
    np.testing.assert_allclose(scale.volts(np.array([[-10.0, 10.0], [0.0, 20.0]])), [[0.0, 5.0], [2.5, 5.0]])


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (1.0, 1.0)])
def test_volts_must_rise(low: float, high: float) -> None:
    with pytest.raises(TaskError, match="must rise"):
        VoltScale.fit(np.array([[0.0], [1.0]]), low, high)


def test_a_feature_that_never_changes() -> None:
    with pytest.raises(TaskError, match="feature 1 has one value only"):
        VoltScale.fit(np.array([[0.0, 7.0], [1.0, 7.0]]), 0.0, 1.0)


def test_a_scale_cannot_change() -> None:
    scale = VoltScale.fit(np.array([[0.0], [1.0]]), 0.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        scale.minimum[0] = 3.0


@given(
    features=hnp.arrays(float, st.tuples(st.integers(2, 6), st.integers(1, 3)), elements=st.integers(-50, 50)),
    new=hnp.arrays(float, st.tuples(st.integers(1, 6), st.just(1)), elements=st.floats(-1e3, 1e3)),
    volts=st.tuples(st.integers(-5, 5), st.integers(-5, 5)).filter(lambda pair: pair[0] < pair[1]),
)
def test_scaled_volts_stay_within_the_volts(features: FloatArray, new: FloatArray, volts: tuple[int, int]) -> None:
    varying = features[:, np.ptp(features, axis=0) > 0]
    if not varying.shape[1]:
        return
    scale = VoltScale.fit(varying, *volts)
    fitted, others = scale.volts(varying), scale.volts(np.repeat(new, varying.shape[1], axis=1))
    np.testing.assert_allclose(fitted.min(axis=0), volts[0], atol=1e-14)
    np.testing.assert_allclose(fitted.max(axis=0), volts[1], rtol=1e-14, atol=1e-14)
    assert (others >= volts[0] - 1e-12).all()
    assert (others <= volts[1] + 1e-12).all()
    order = np.argsort(varying[:, 0])
    assert (np.diff(fitted[order, 0]) >= 0).all()


# Input columns.


def test_features_then_complements_then_biases() -> None:
    volts = np.array([[0.5, 4.5], [1.0, 2.0]])
    built = board_inputs(volts, complement=(0.5, 4.5), bias=[0.0, 5.0])
    np.testing.assert_allclose(built, [[0.5, 4.5, 4.5, 0.5, 0.0, 5.0], [1.0, 2.0, 4.0, 3.0, 0.0, 5.0]])


def test_neither_complements_nor_biases() -> None:
    volts = np.array([[0.5, 4.5]])
    np.testing.assert_array_equal(board_inputs(volts, complement=None, bias=[]), volts)
    np.testing.assert_array_equal(board_inputs(volts, complement=None, bias=[1.0]), [[0.5, 4.5, 1.0]])


@pytest.mark.parametrize(
    ("content", "name", "advice"),
    [
        ("a;b\n1;2\n", "a", "separated by semicolons: save it with commas"),
        ("a\tb\n1\t2\n", "a", "separated by tabs"),
        ("sepal_length,b\n1,2\n", "sepal_lenght", "did you mean 'sepal_length'?"),
        ("Volts,b\n1,2\n", "volts", "did you mean 'Volts'?"),
    ],
)
def test_a_missing_column_comes_with_advice(tmp_path: Path, content: str, name: str, advice: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        read_csv(path).numbers([name])
    assert advice in str(caught.value)


def test_a_spreadsheet_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "data.xlsx"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(TaskError, match="is a spreadsheet: save it as CSV"):
        read_csv(path)
