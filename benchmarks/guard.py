"""How long outputs stay on after a run on a bench was killed with SIGKILL.

The instruments of examples/bench16.toml are emulated in this process and used by `hilcl run --backend bench` in
another, which is killed at a random moment of its training. Its guard then makes the bench safe: the time from the kill
until the last output is off, and until the pots are at their safe codes too.

    python benchmarks/guard.py [--kills N] [--seed N]
"""

import argparse
import math
import random
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.sim_backend.emulated_bench import EmulatedBench

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "bench16.toml"
SAFE_CODE = 256
BOUND = 60.0
"""Seconds after which what has not happened counts as never."""


@dataclass(frozen=True)
class Kill:
    """Seconds from a kill until outputs were off and until the pots were at their safe codes; infinite for never."""

    off: float
    safe: float


@contextmanager
def served(path: Path) -> Iterator[EmulatedBench]:
    """Serve the example's bench, and write its file with the instruments' places and an endless training."""
    text = EXAMPLE.read_text("utf-8").replace("epochs = 60", "epochs = 1000000000")
    path.write_text(text, "utf-8")
    with EmulatedBench(prepare(Experiment.load(path))) as bench:
        for name, resource in bench.resources.items():
            text = text.replace(f'"{tomllib.loads(text)["bench"]["instruments"][name]["resource"]}"', f'"{resource}"')
        path.write_text(text, "utf-8")
        yield bench


def seconds_until(condition: Callable[[], bool], start: float) -> float:
    while not condition():
        if time.monotonic() - start > BOUND:
            return math.inf
        time.sleep(0.001)
    return time.monotonic() - start


def kills(count: int, seed: int) -> Iterator[Kill]:
    """Kill a run ``count`` times; raises RuntimeError where a run does not come to drive anything."""
    generator = random.Random(seed)
    with TemporaryDirectory(prefix="hilcl-") as folder, served(Path(folder) / "bench.toml") as bench:

        def on() -> bool:
            return any(any(outputs) for outputs in bench.outputs_on.values())

        command = [sys.executable, "-m", "hilcl", "run", "bench.toml", "--backend", "bench", "--no-report"]
        for _ in range(count):
            with subprocess.Popen(command, cwd=folder) as process:
                if math.isinf(seconds_until(on, time.monotonic())):
                    process.kill()
                    raise RuntimeError("the run drove nothing")
                time.sleep(generator.uniform(0.0, 2.0))
                process.kill()
                start = time.monotonic()
                off = seconds_until(lambda: not on(), start)
                safe = seconds_until(lambda: bool((bench.codes == SAFE_CODE).all()), start)
            yield Kill(off, safe)


def main() -> int:
    """Print the times of a number of kills, and return 1 where one took longer than a second."""
    parser = argparse.ArgumentParser(description="How long outputs stay on after a run was killed.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = list(kills(options.kills, options.seed))
    for what, times in (("outputs off", [kill.off for kill in done]), ("pots safe", [kill.safe for kill in done])):
        print(f"{what}: median {statistics.median(times) * 1e3:.0f} ms, longest {max(times) * 1e3:.0f} ms")
    late = sum(kill.off > 1.0 for kill in done)
    print(f"{len(done)} kills, outputs on for more than 1 s after {late} of them")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
