"""A bench whose instruments another program serves, for commands with --backend bench."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.server import Faults
from tests.command_line import EXAMPLES

ENDLESS = "1000000000"


@contextmanager
def served(
    path: Path, name: str = "bench16", *, faults: Mapping[str, Faults] | None = None, **keys: str
) -> Iterator[EmulatedBench]:
    """Serve an example's bench from here, and write its file with the places of the instruments.

    ``keys`` are keys of [bench] with their values as TOML, ``faults`` what lies in front of instruments.
    """
    text = (EXAMPLES / f"{name}.toml").read_text("utf-8").replace("epochs = 60", f"epochs = {ENDLESS}")
    added = "".join(f"{key} = {value}\n" for key, value in keys.items())
    text = text.replace("[bench]\n", f"[bench]\n{added}")
    path.write_text(text, "utf-8")
    with EmulatedBench(prepare(Experiment.load(path)), faults=faults) as bench:
        for instrument, resource in bench.resources.items():
            given = tomllib.loads(text)["bench"]["instruments"][instrument]["resource"]
            path.write_text(path.read_text("utf-8").replace(f'"{given}"', f'"{resource}"'), "utf-8")
        yield bench


def anything_on(bench: EmulatedBench) -> bool:
    """Return whether any output of the bench is on, or any switch of its boards closed."""
    return any(on for outputs in bench.outputs_on.values() for on in outputs)
