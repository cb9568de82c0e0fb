"""Sweeps: which points are still to be computed, their results into the store, and all of them at the end."""

import hashlib
import json
import tomllib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing

from hilcl.calibration_session import calibration_mark, prepare_calibrated
from hilcl.errors import InputError
from hilcl.session import fingerprint, open_board, versions
from hilcl.sweep_file import Point, SweepFile, experiment_at
from hilcl.sweep_point import PointResult, SweepBase
from hilcl.sweep_store import SweepStore

Compute = Callable[[SweepBase, Sequence[Point]], Generator[PointResult]]
"""What computes points, in any order: worker processes or a cluster."""


TRIED = 3
"""Points whose boards are made before anything is stored."""


class Sweep:
    """A sweep and what is known of its points.

    ``name`` is that under which a store keeps it. Makes and checks the experiment's own board: raises InputError where
    that is wrong, before anything is stored.
    """

    def __init__(self, file: SweepFile, name: str) -> None:
        self.file, self.name, self.points = file, name, file.points()
        experiment = file.experiment
        # Absolute, since the workers of a cluster may run anywhere.
        self.base = SweepBase(tomllib.loads(experiment.text), experiment.source.absolute())
        preparation = prepare_calibrated(experiment)
        with open_board(preparation, "sim") as board:
            self.versions = versions(board, preparation)
        self._try_points()
        settings = experiment.model_dump(mode="json", exclude={"store"})
        told = [settings, fingerprint(preparation), calibration_mark(preparation)]
        self.context = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _try_points(self) -> None:
        """Raise InputError where none of the first few points is a board: then it is the file that is wrong."""
        mistake: InputError | None = None
        for point in self.points[:TRIED]:
            try:
                preparation = prepare_calibrated(experiment_at(self.base.values, point, self.base.path))
                open_board(preparation, "sim").close()
            except InputError as error:
                mistake = mistake or error
            else:
                return
        if mistake is not None:
            raise type(mistake)(f"{self.file.source}: {mistake}")

    def run(self, store: SweepStore, compute: Compute) -> "Sitting":
        """Take the sweep up in a store; raises StoreError where another process is at work on it."""
        return Sitting(self, store, compute)


class Sitting:
    """One go at a sweep: points ``remaining`` when it began, ``computed`` so far, ``notes`` on what is not as it was.

    Iterate over ``steps`` to compute them; ``results`` has what the store knows of this file's points, in their order.
    """

    def __init__(self, sweep: Sweep, store: SweepStore, compute: Compute) -> None:
        self.sweep, self.notes = sweep, list[str]()
        self.computed = 0
        self._store, self._compute = store, compute
        others = store.sweeps(sweep.name)
        experiment = sweep.file.experiment
        self._number, self._first_versions = store.take_up_sweep(
            sweep.name, sweep.context, sweep=sweep.file.text, experiment=experiment.text, versions=sweep.versions
        )
        self._known = store.points(self._number, sweep.name)
        if others and store.sweeps(sweep.name) > others:
            self.notes.append(
                f"{store.path} has points of {sweep.name!r} with another experiment file or other data; they stay apart"
            )
        self._note_versions(sweep.versions)
        self.remaining = [
            point for point in sweep.points if point.id not in self._known or self._known[point.id].status == "lost"
        ]

    def steps(self) -> Iterator[PointResult]:
        """Compute what remains and yield each result once it is stored."""
        if not self.remaining:
            return
        # Closed at once when the caller stops: workers must not go on.
        computed = self._compute(self.sweep.base, self.remaining)
        with closing(computed):
            for result in computed:
                self._store.put_points(self._number, [result])
                self._known[result.point.id] = result
                self.computed += 1
                if result.versions is not None:
                    self._note_versions(result.versions)
                yield result

    def results(self) -> list[PointResult]:
        """Return the results there are, in the order of the points."""
        return [self._known[point.id] for point in self.sweep.points if point.id in self._known]

    def _note_versions(self, now: Mapping[str, str]) -> None:
        """Note once for each part that another version computes than did at first."""
        for part, then in self._first_versions.items():
            note = f"{part} was {then} and is {now.get(part)} now; the last digits may come out differently"
            # The solver may be chosen by the size of the network, which is swept.
            if part not in {"solver", "calibration"} and now.get(part) != then and note not in self.notes:
                self.notes.append(note)
