"""Every class of faults at random places of an emulated run, and a long run with faults at a rate.

Each trial must end with the codes of the undisturbed run, or stopped safe with a sentence and resumed to those codes;
its outputs must be off, or said not to be. The soak must end, with as many threads and files as before and flat memory.

Runs that are killed with SIGKILL at random moments and resumed must end bit-identical to an undisturbed one, noise and
stochastic rounding included, and must not lose a step that was acknowledged.

    python benchmarks/reliability.py [--places N] [--kinds lost,reset] [--soak STEPS] [--kills N] [--seed SEED]
"""

import argparse
import resource
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl.experiment import Experiment
from hilcl.faults_section import KINDS, FaultKind
from hilcl.preparation import Preparation, prepare
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.faults import Fault, FaultPlan
from hilcl.sim_backend.fault_trials import Trial, opened, steps_on, trial, undisturbed

BENCH16 = Path(__file__).resolve().parents[1] / "examples" / "bench16.toml"

RECOVERABLE: tuple[FaultKind, ...] = (
    "lost",
    "dropped",
    "duplicated",
    "half",
    "garbled",
    "reset",
    "nan",
    "overflow",
    "compliance",
    "glitch",
)
"""What a soak can do without being stopped."""


def example(epochs: int) -> Preparation:
    """Return the 16-edge bench without noise, so that a reading taken again is the same, and with short time-outs."""
    lines = []
    for line in BENCH16.read_text("utf-8").splitlines():
        if line.startswith("meters = { bits"):
            continue
        if line.startswith("compliance ="):
            lines.append('timeout = "0.3 s"')
        if line == 'driver = "potboard"':
            lines += ['turnaround = "0.1 s"', 'boot_time = "2 s"']
        lines.append(f"epochs = {epochs}" if line.startswith("epochs =") else line)
    return prepare(Experiment.parse("\n".join(lines) + "\n", BENCH16))


def try_all(places: int, kinds: list[str], seed: int, epochs: int) -> list[Trial]:
    """Try every class at random places of every instrument it can happen to, and print the outcome."""
    preparation = example(epochs)
    codes, messages = undisturbed(preparation)
    bench = EmulatedBench(preparation, plan=(plan := FaultPlan()))
    possible = {name: plan.possible(name) for name in (*bench.instruments, *bench.boards)}
    bench.close()
    random = np.random.default_rng(seed)
    done: list[Trial] = []
    print("| class | trials | unharmed | stopped and resumed | wrong | outputs left on, unsaid | longest, s |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        names = [name for name, classes in possible.items() if kind in classes]
        if not names or (kinds and kind not in kinds):
            continue
        trials = []
        for place in range(places):
            name = names[place % len(names)]
            fault = Fault(kind, name, message=int(random.integers(messages[name])), seconds=0.4)
            trials.append(trial(preparation, fault, codes))
            if not trials[-1].passed:
                print(f"FAILED: {trials[-1]}", flush=True)
        verdicts = Counter(each.verdict for each in trials)
        unsaid = sum(not each.passed and each.verdict != "wrong" for each in trials)
        longest = max(each.seconds for each in trials)
        print(
            f"| {kind} | {places} | {verdicts['unharmed']} | {verdicts['stopped']} | {verdicts['wrong']} | {unsaid} "
            f"| {longest:.1f} |",
            flush=True,
        )
        done += trials
    return done


def soak(steps: int, rate: float, seed: int) -> bool:
    """Train for ``steps`` with faults at a rate and return whether nothing leaked and nothing was wrong."""
    preparation = example(steps)
    before = (threading.active_count(), _open_files())
    plan = FaultPlan(rate=rate, kinds=RECOVERABLE, seed=seed, seconds=0.4)
    start, marks = time.monotonic(), list[int]()
    made = events = 0
    with EmulatedBench(preparation, plan=plan) as bench, opened(preparation, bench) as board:
        for step in steps_on(board, preparation):
            made = step.epoch + 1
            events += len(board.take_events())
            if made in {max(steps // 10, 1), steps}:
                marks.append(_resident())
        left = bench.codes
    after = (threading.active_count(), _open_files())
    growth = marks[-1] / marks[0] - 1
    print(
        f"\nSoak: {made} steps in {time.monotonic() - start:.0f} s, {len(plan.happened)} faults, {events} events; "
        f"memory {growth:+.1%} after the first tenth; threads and open files {before} before, {after} after; "
        f"codes in force at the end {left.tolist()}."
    )
    return made == steps and growth <= 0.05 and after[0] <= before[0] and after[1] <= before[1]


def killed(kills: int, seed: int) -> bool:
    """Kill runs ``kills`` times in all and return whether every one ended like the undisturbed run, with every step."""
    # Shared with the tests, which kill a few.
    sys.path.insert(0, str(BENCH16.parents[1]))
    from tests.kill_campaign import kill_campaign

    text = BENCH16.read_text("utf-8").replace("epochs = 60", 'epochs = 60\nrounding = "stochastic"')
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench16.toml"
        path.write_text(text, "utf-8")
        result = kill_campaign(path, Path(folder), kills, seed=seed)
    print(
        f"\nSIGKILL: {result.kills} kills in {result.runs} runs of {result.steps} steps ({result.seconds:.1f} s "
        f"undisturbed): {result.lost} acknowledged steps lost, {len(result.different)} runs ended differently, "
        f"{len(result.unfinished)} did not end."
    )
    return result.passed


def _resident() -> int:
    """Return the resident memory of this process in kilobytes; its highest so far where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults on an emulated bench.")
    parser.add_argument("--places", type=int, default=3, help="random places per class, 0 for none (default 3)")
    parser.add_argument("--kinds", default="", help="classes, separated by commas (default all)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each trial (default 6)")
    parser.add_argument("--soak", type=int, default=500, help="steps of the soak, 0 for none (default 500)")
    parser.add_argument("--rate", type=float, default=1 / 500, help="faults per step of the soak (default 1/500)")
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs in all, 0 for none (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with threadpool_limits(limits=1):
        kinds = [kind for kind in arguments.kinds.split(",") if kind]
        good = True
        if arguments.places:
            good = all(each.passed for each in try_all(arguments.places, kinds, arguments.seed, arguments.epochs))
        if arguments.soak:
            good = soak(arguments.soak, arguments.rate, arguments.seed) and good
    if arguments.kills:
        good = killed(arguments.kills, arguments.seed) and good
    if not good:
        raise SystemExit("Not everything ended as it must.")


if __name__ == "__main__":
    main()
