"""Every class of faults at random places of an emulated run, and a long run with faults at a rate.

Each trial must end with the codes of the undisturbed run, or stopped safe with a sentence and resumed to those codes;
its outputs must be off, or said not to be. The soak is that of benchmarks/soak.py.

Runs that are killed with SIGKILL at random moments and resumed must end bit-identical to an undisturbed one, noise and
stochastic rounding included, and must not lose a step that was acknowledged.

    python benchmarks/reliability.py [--places N] [--kinds lost,reset] [--soak STEPS] [--kills N] [--seed SEED]
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl.drivers.smu import FreeMode
from hilcl.experiment import Experiment
from hilcl.faults_section import KINDS, FaultKind
from hilcl.preparation import Preparation, prepare
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.faults import Fault, FaultPlan
from hilcl.sim_backend.fault_trials import Trial, trial, undisturbed

# At the end, so that `hilcl` stays the installed package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.soak import BENCH16, calm_bench, soak
from tests.kill_campaign import kill_campaign


def example(epochs: int, free_mode: FreeMode = "zero_amp") -> Preparation:
    """Return the calm bench, its clamps floating in some way; with "relay", the pot board switches them."""
    lines = []
    for line in calm_bench(epochs):
        lines.append(line)
        if line == 'driver = "keysight-b2900"':
            lines.append(f'free_mode = "{free_mode}"')
        if free_mode == "relay" and line == "[bench.wiring]":
            lines.append("switches = { board = { 0 = 2, 1 = 6 } }")
    return prepare(Experiment.parse("\n".join(lines) + "\n", BENCH16))


class Subject:
    """A bench to try faults on, its undisturbed codes, and what can happen to each of its instruments."""

    def __init__(self, epochs: int, free_mode: FreeMode) -> None:
        self.preparation = example(epochs, free_mode)
        self.codes, self.messages = undisturbed(self.preparation)
        with EmulatedBench(self.preparation, plan=(plan := FaultPlan())) as bench:
            self.possible = {name: plan.possible(name) for name in (*bench.instruments, *bench.boards)}


def try_all(places: int, kinds: list[str], seed: int, epochs: int) -> list[Trial]:
    """Try every class at random places of every instrument it can happen to, and print the outcome."""
    # Relays that do not open matter only where they have to.
    needed: dict[FaultKind, FreeMode] = {"stuck_relay": "relay", "output_closed": "himp"}
    subjects = {mode: Subject(epochs, mode) for mode in ("zero_amp", *needed.values())}
    random = np.random.default_rng(seed)
    done: list[Trial] = []
    print("| class | trials | unharmed | stopped and resumed | wrong | outputs left on, unsaid | longest, s |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        subject = subjects[needed.get(kind, "zero_amp")]
        names = [name for name, classes in subject.possible.items() if kind in classes]
        if kinds and kind not in kinds:
            continue
        trials = []
        for place in range(places):
            name = names[place % len(names)]
            fault = Fault(kind, name, message=int(random.integers(subject.messages[name])), seconds=0.4)
            trials.append(trial(subject.preparation, fault, subject.codes))
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


def killed(kills: int, seed: int) -> bool:
    """Kill runs ``kills`` times in all and return whether every one ended like the undisturbed run, with every step."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults on an emulated bench.")
    parser.add_argument("--places", type=int, default=3, help="random places per class, 0 for none (default 3)")
    parser.add_argument("--kinds", default="", help="classes, separated by commas (default all)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each trial (default 6)")
    parser.add_argument("--soak", type=int, default=2000, help="steps of the soak, 0 for none (default 2000)")
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
