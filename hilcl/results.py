"""A stored run as the objects it was made of: network, tasks, history, summary."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError, StoreError
from hilcl.network import Network
from hilcl.store import History, RunInfo, Store
from hilcl.task import Task


@dataclass(frozen=True)
class RunResult:
    """Everything a store knows about a run. ``initial`` (M,) in siemens; ``summary`` None until the run is finished."""

    info: RunInfo
    network: Network
    device_range: DeviceRange
    train: Task
    test: Task | None
    initial: FloatArray
    history: History

    @property
    def summary(self) -> dict[str, Any] | None:
        """What ``hilcl.summary.run_summary`` returned at the end of the run."""
        return self.info.summary

    @property
    def last_conductances(self) -> FloatArray:
        """Conductances (M,) in siemens to look at: the kept ones of a finished run, else the last programmed."""
        if self.summary is not None:
            return np.array(self.summary["kept_conductances"])
        return self.history.conductances[-1] if len(self.history) else self.initial


def load_run(store: Store, name: str) -> RunResult:
    """Return a stored run; StoreError where it is unknown or damaged."""
    info, history = store.run(name), store.history(name)
    arrays = info.arrays
    try:
        network = Network(
            int(arrays["n_nodes"]),
            arrays["edges"],
            arrays["input_nodes"],
            arrays["output_nodes"],
            positions=arrays.get("positions"),
        )
        class_names = tuple(arrays["class_names"].tolist())
        parts = [
            Task(arrays[f"{prefix}inputs"], arrays[f"{prefix}targets"], arrays.get(f"{prefix}labels"), class_names)
            if f"{prefix}inputs" in arrays
            else None
            for prefix in ("", "test_")
        ]
        device_range = DeviceRange(arrays["g_min"], arrays["g_max"])
        if parts[0] is None:
            raise KeyError("inputs")
        return RunResult(info, network, device_range, parts[0], parts[1], arrays["initial"], history)
    except (KeyError, InputError) as cause:
        raise StoreError(f"the run {name!r} in {store.path} is damaged: {cause}") from cause
