"""A run's numbers in files other programs read: CSV, NPZ, NetCDF and Parquet."""

import csv
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np

from hilcl.errors import InputError
from hilcl.results import RunResult

ExportFormat = Literal["csv", "npz", "netcdf", "parquet"]

SUFFIXES: dict[str, str] = {"csv": ".csv", "npz": ".npz", "netcdf": ".nc", "parquet": ".parquet"}


def export_run(result: RunResult, kind: ExportFormat, path: Path) -> Path:
    """Write a run to ``path`` and return it; an existing file is replaced only when the new one is complete.

    CSV and Parquet: one row per epoch, scalars first, then conductance_0 … (S) and code_0 …; NPZ and NetCDF also hold
    outputs (epoch, sample, output) in volts, the data, the network and the experiment file.

    Raises InputError where the path cannot be written or the run has no steps.
    """
    if kind not in get_args(ExportFormat):
        raise InputError(f"there is no export format {kind!r}: choose {', '.join(get_args(ExportFormat))}")
    if not len(result.history):
        raise InputError(f"the run {result.info.name!r} has no steps yet, so there is nothing to export")
    writers: dict[str, Callable[[RunResult, IO[bytes]], None]] = {
        "csv": _write_csv,
        "npz": _write_npz,
        "netcdf": _write_netcdf,
        "parquet": _write_parquet,
    }
    write_file(path, lambda file: writers[kind](result, file))
    return path


def write_file(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that the name only ever stands for a complete one; InputError where that cannot be done."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as cause:
        raise InputError(f"cannot write {path}: {cause.strerror}; choose another place with --output") from cause
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as cause:
        raise InputError(f"cannot write {path}: {cause.strerror}; choose another place with --output") from cause
    finally:
        temporary.unlink(missing_ok=True)


def _columns(result: RunResult) -> dict[str, Any]:
    history = result.history
    columns: dict[str, Any] = {"epoch": history.scalars["epoch"].astype(np.int64)}
    columns |= {name: values for name, values in history.scalars.items() if name != "epoch"}
    columns["pinned_count"] = np.array([len(edges) for edges in history.pinned], dtype=np.int64)
    columns |= {f"conductance_{edge}": history.conductances[:, edge] for edge in range(result.network.n_edges)}
    if history.codes is not None:
        columns |= {f"code_{edge}": history.codes[:, edge] for edge in range(result.network.n_edges)}
    return columns


def _write_csv(result: RunResult, file: IO[bytes]) -> None:
    import io

    columns = _columns(result)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    text.detach()


def _arrays(result: RunResult) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return every array of a run with the names of its dimensions."""
    history, network = result.history, result.network
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (("epoch",), values if name != "epoch" else values.astype(np.int32))
        for name, values in history.scalars.items()
    }
    arrays |= {
        "conductances": (("epoch", "edge"), history.conductances),
        "outputs": (("epoch", "sample", "output"), history.outputs),
        "initial_conductances": (("edge",), result.initial),
        "edges": (("edge", "end"), network.edges.astype(np.int32)),
        "input_nodes": (("input",), network.inputs.astype(np.int32)),
        "output_nodes": (("output",), network.outputs.astype(np.int32)),
        "inputs": (("sample", "input"), result.train.inputs),
        "targets": (("sample", "output"), result.train.targets),
    }
    held = np.zeros(history.conductances.shape, dtype=np.int8)
    for row, edges in zip(held, history.pinned, strict=True):
        row[edges] = 1
    arrays["pinned"] = (("epoch", "edge"), held)
    if history.codes is not None:
        arrays["codes"] = (("epoch", "edge"), history.codes.astype(np.int32))
    if result.summary is not None:
        arrays["kept_conductances"] = (("edge",), result.last_conductances)
    if result.test is not None:
        arrays["test_inputs"] = (("test_sample", "input"), result.test.inputs)
        arrays["test_targets"] = (("test_sample", "output"), result.test.targets)
    for name, task, sample in (("labels", result.train, "sample"), ("test_labels", result.test, "test_sample")):
        if task is not None and task.labels is not None:
            arrays[name] = ((sample,), task.labels.astype(np.int32))
    return arrays


def _texts(result: RunResult) -> dict[str, str]:
    info = result.info
    return {
        "run": info.name,
        "created": info.created,
        "status": info.status,
        "experiment": info.experiment,
        "versions": json.dumps(info.versions),
        "class_names": json.dumps(result.train.class_names),
        "summary": json.dumps(info.summary),
    }


def _write_npz(result: RunResult, file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {name: values for name, (_, values) in _arrays(result).items()}
    arrays |= {name: np.array(text) for name, text in _texts(result).items()}
    np.savez_compressed(file, allow_pickle=False, **arrays)


UNITS = {
    "loss": "V2",
    "contrast": "W",
    "step_size": "S V-2",
    "residual": "V2",
    "lower_bound": "W",
    "power": "W",
    "clamp_error": "V",
    "measure_s": "s",
    "update_s": "s",
    "program_s": "s",
    "conductances": "S",
    "initial_conductances": "S",
    "kept_conductances": "S",
    "outputs": "V",
    "inputs": "V",
    "targets": "V",
    "test_inputs": "V",
    "test_targets": "V",
}


def _write_netcdf(result: RunResult, file: IO[bytes]) -> None:
    import io

    from scipy.io import netcdf_file

    # The writer closes what it is given, so it gets a buffer of its own.
    buffer = io.BytesIO()
    target = netcdf_file(buffer, "w", version=2)
    for name, text in _texts(result).items():
        setattr(target, name, text.encode("utf-8"))
    for name, (dimensions, values) in _arrays(result).items():
        for dimension, size in zip(dimensions, values.shape, strict=True):
            if dimension not in target.dimensions:
                target.createDimension(dimension, size)
        variable = target.createVariable(name, values.dtype.char, dimensions)
        variable[:] = values
        if name in UNITS:
            variable.units = UNITS[name].encode()  # type: ignore[attr-defined]  # attributes are set this way
    target.flush()
    file.write(buffer.getvalue())
    target.close()


def _write_parquet(result: RunResult, file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(_columns(result)).replace_schema_metadata(_texts(result))
    parquet.write_table(table, file)
