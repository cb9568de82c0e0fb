import csv
import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
import pytest
from pyarrow import parquet
from scipy.io import netcdf_file

from hilcl.errors import InputError
from hilcl.experiment import Experiment
from hilcl.export import SUFFIXES, UNITS, ExportFormat, export_run, write_file
from hilcl.preparation import prepare
from hilcl.results import RunResult, load_run
from hilcl.session import Run
from hilcl.store import Store
from tests.command_line import EXAMPLES, listing

FORMATS = get_args(ExportFormat)
SCALARS = (
    "loss", "contrast", "step_size", "residual", "lower_bound", "power", "clamp_error", "measure_s", "update_s",
    "program_s",
)  # fmt: skip


def trained(folder: Path, example: str, epochs: int | None) -> RunResult:
    """Return an example's run: of so many epochs and unfinished, or finished after five."""
    text = (EXAMPLES / f"{example}.toml").read_text("utf-8")
    lines = ["epochs = 5" if line.startswith("epochs") else line for line in text.splitlines()]
    preparation = prepare(Experiment.parse("\n".join(lines), EXAMPLES / f"{example}.toml"))
    with Store(folder / "runs.sqlite") as store:
        with Run.start(preparation, store, example) as run:
            list(islice(run.steps(), epochs))
            if epochs is None:
                run.finish()
        return load_run(store, example)


@pytest.fixture(scope="module", params=[("iris", None), ("iris", 3), ("allostery", None), ("regression", 1)])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return trained(tmp_path_factory.mktemp("run"), *request.param)


def expected_columns(result: RunResult) -> dict[str, Any]:
    history = result.history
    columns: dict[str, Any] = {"epoch": np.arange(len(history))}
    columns |= {name: history.scalars[name] for name in SCALARS}
    columns["pinned_count"] = np.array([len(edges) for edges in history.pinned])
    for edge in range(result.network.n_edges):
        columns[f"conductance_{edge}"] = history.conductances[:, edge]
    if history.codes is not None:
        for edge in range(result.network.n_edges):
            columns[f"code_{edge}"] = history.codes[:, edge]
    return columns


def test_csv_holds_every_digit(result: RunResult, tmp_path: Path) -> None:
    path = export_run(result, "csv", tmp_path / "run.csv")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    expected = expected_columns(result)
    assert header == list(expected)
    assert len(rows) == len(result.history)
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal([float(cell) for cell in cells], expected[name])


def test_parquet_holds_every_digit(result: RunResult, tmp_path: Path) -> None:
    table = parquet.read_table(export_run(result, "parquet", tmp_path / "run.parquet"))
    expected = expected_columns(result)
    assert table.column_names == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values)
    texts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert_texts(result, texts)


def assert_texts(result: RunResult, texts: dict[str, str]) -> None:
    info = result.info
    assert texts["run"] == info.name
    assert texts["experiment"] == info.experiment
    assert texts["status"] == info.status
    assert texts["created"] == info.created
    assert json.loads(texts["summary"]) == info.summary
    assert json.loads(texts["versions"]) == info.versions
    assert tuple(json.loads(texts["class_names"])) == result.train.class_names


def assert_arrays(result: RunResult, arrays: dict[str, Any]) -> None:
    history, network = result.history, result.network
    np.testing.assert_array_equal(arrays["epoch"], np.arange(len(history)))
    for name in SCALARS:
        np.testing.assert_array_equal(arrays[name], history.scalars[name])
    pinned = np.zeros(history.conductances.shape)
    for row, edges in zip(pinned, history.pinned, strict=True):
        row[edges] = 1
    expected: dict[str, Any] = {
        "conductances": history.conductances,
        "outputs": history.outputs,
        "pinned": pinned,
        "initial_conductances": result.initial,
        "edges": network.edges,
        "input_nodes": network.inputs,
        "output_nodes": network.outputs,
        "inputs": result.train.inputs,
        "targets": result.train.targets,
        "labels": result.train.labels,
        "codes": history.codes,
        "test_inputs": None if result.test is None else result.test.inputs,
        "test_targets": None if result.test is None else result.test.targets,
        "test_labels": None if result.test is None else result.test.labels,
    }
    for name, values in expected.items():
        assert (name in arrays) == (values is not None)
        if values is not None:
            np.testing.assert_array_equal(arrays[name], values)


def test_npz_holds_every_bit(result: RunResult, tmp_path: Path) -> None:
    path = export_run(result, "npz", tmp_path / "run.npz")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert_arrays(result, arrays)
    assert_texts(result, {name: str(array) for name, array in arrays.items() if array.dtype.kind == "U"})


def test_netcdf_holds_every_bit(result: RunResult, tmp_path: Path) -> None:
    path = export_run(result, "netcdf", tmp_path / "run.nc")
    with netcdf_file(path, "r", mmap=False) as file:
        variables: dict[str, Any] = file.variables
        arrays = {name: variable[:].copy() for name, variable in variables.items()}
        texts = {name: value.decode("utf-8") for name, value in vars(file).items() if isinstance(value, bytes)}
        units = {name: variable.units.decode() for name, variable in variables.items() if name in UNITS}
        dimensions = {name: variable.dimensions for name, variable in variables.items()}
    assert_arrays(result, arrays)
    assert_texts(result, texts)
    assert units["loss"] == "V2"
    assert units["conductances"] == "S"
    assert units["outputs"] == "V"
    assert units["contrast"] == "W"
    assert dimensions["outputs"] == ("epoch", "sample", "output")
    assert dimensions["conductances"] == ("epoch", "edge")


def test_missing_power_is_a_gap_in_every_format(tmp_path: Path) -> None:
    result = trained(tmp_path, "regression", 2)
    result.history.scalars["power"][:] = math.nan
    for kind in FORMATS:
        export_run(result, kind, tmp_path / kind)
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        assert [math.isnan(float(row["power"])) for row in csv.DictReader(file)] == [True, True]
    with np.load(tmp_path / "npz") as archive:
        assert np.isnan(archive["power"]).all()
    with netcdf_file(tmp_path / "netcdf", "r", mmap=False) as file:
        assert np.isnan(file.variables["power"][:]).all()
    assert np.isnan(parquet.read_table(tmp_path / "parquet")["power"].to_numpy()).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_without_steps_is_refused(tmp_path: Path, kind: ExportFormat) -> None:
    result = trained(tmp_path, "regression", 0)
    with pytest.raises(InputError, match="the run 'regression' has no steps yet, so there is nothing to export"):
        export_run(result, kind, tmp_path / "x")
    assert listing(tmp_path) == {"runs.sqlite"}


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    result = trained(tmp_path, "regression", 1)
    with pytest.raises(InputError, match="no export format 'xls': choose csv, npz, netcdf, parquet"):
        export_run(result, "xls", tmp_path / "x")  # type: ignore[arg-type]
    assert set(SUFFIXES) == set(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, kind: ExportFormat) -> None:
    result = trained(tmp_path, "regression", 1)
    (tmp_path / "file").touch()
    before = listing(tmp_path)
    for place in (tmp_path / "nowhere" / "x", tmp_path / "file" / "x", tmp_path, Path("/proc/x")):
        with pytest.raises(InputError, match=r"cannot write .*; choose another place with --output"):
            export_run(result, kind, place)
    assert listing(tmp_path) == before


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "there.bin"
    path.write_bytes(b"old")
    yield path
    assert listing(tmp_path) == {"there.bin"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bug")])
def test_a_file_that_cannot_be_completed_leaves_the_old_one(there: Path, error: BaseException) -> None:
    def half(file: IO[bytes]) -> None:
        file.write(b"ne")
        raise error

    with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
        write_file(there, half)
    assert there.read_bytes() == b"old"


def test_a_complete_file_replaces_the_old_one(there: Path) -> None:
    def whole(file: IO[bytes]) -> None:
        file.write(b"new")

    write_file(there, whole)
    assert there.read_bytes() == b"new"
    assert there.stat().st_mode & 0o111 == 0
    assert there.stat().st_mode & 0o600 == 0o600
