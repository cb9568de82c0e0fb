"""All speed tables by one command, with the machine they were measured on, as a Markdown file.

Each table is measured in a process of its own with one BLAS thread; its figures are comparable with one another, not
with those of another table or another day.

    python benchmarks/speed.py [--only small,large] [--rounds N] [--output docs/measured-speed.md]
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "small": "Small boards",
    "steps": "Beside naive solvers",
    "large": "Large boards",
    "spice": "Beside ngspice",
    "sweeps": "Sweeps",
    "bench_clock": "The bench against its own clock",
}
"""Module of this folder → heading. Each has ``tables(rounds)``, which returns Markdown."""

PACKAGES = ("hilcl", "numpy", "scipy", "numba", "qdldl", "cvxopt", "distributed")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def machine() -> str:
    """Return what the figures were measured on."""
    processor, memory = platform.processor() or platform.machine(), ""
    if (told := Path("/proc/cpuinfo")).exists():
        models = [line.partition(":")[2].strip() for line in told.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    if (ngspice := shutil.which("ngspice")) is not None:
        said = subprocess.run([ngspice, "--version"], capture_output=True, text=True, check=True).stdout
        versions += [word for word in said.split() if word.startswith("ngspice-")][:1]
    return f"{processor}, {os.cpu_count()} processors{memory}, {platform.system()}; {', '.join(versions)}."


def table(module: str, rounds: int | None) -> str:
    """Return what ``module`` measures, in a process of its own."""
    call = "tables()" if rounds is None else f"tables({rounds})"
    done = subprocess.run(
        [sys.executable, "-c", (f"import sys; sys.path.append({str(ROOT)!r}); from benchmarks.{module} import tables; "
         f"print({call})")],
        env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure all speed tables and write them to a Markdown file.")
    parser.add_argument("--only", default=",".join(TABLES), help="tables, separated by commas (default all)")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each table (default its own)")
    parser.add_argument("--output", type=Path, default=None, help="file to write; printed where there is none")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := sorted(set(wanted) - set(TABLES)):
        parser.error(f"there is no table {unknown[0]!r}: choose from {', '.join(TABLES)}")
    parts = ["# Measured speed", f"Written by `python benchmarks/speed.py`. {machine()}"]
    for module in wanted:
        print(f"{module} ...", file=sys.stderr, flush=True)
        parts += [f"## {TABLES[module]}", table(module, arguments.rounds)]
    text = "\n\n".join(parts) + "\n"
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
