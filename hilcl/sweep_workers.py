"""Worker processes of this computer that compute the points of a sweep, each one point at a time.

On Linux they are forked from a server process that has one thread and has imported this module, so that they start in
no time; elsewhere each imports it anew.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection

from hilcl.errors import SweepError
from hilcl.sweep_file import Point
from hilcl.sweep_point import PointResult, SweepBase, compute_point

TRIES = 3
"""How often a point is begun whose worker dies, and how often a worker that cannot start is started in a row."""

DYING_SECONDS = 2.0
"""How long a worker that has closed its pipe may take to end, so that it shows how it died."""

_MAKING = multiprocessing.get_context("forkserver") if sys.platform == "linux" else multiprocessing.get_context("spawn")


def local_results(base: SweepBase, points: Sequence[Point], workers: int) -> Generator[PointResult]:
    """Compute points in worker processes and yield their results as they come.

    A point whose worker dies is begun again, ``TRIES`` times in all; then it is "lost". Close the iterator to end the
    workers. Raises SweepError where no worker can be started.
    """
    waiting, deaths = deque(points), Counter[str]()
    failed_starts = 0
    staff: list[_Worker] = []

    def hand_out() -> None:
        for worker in staff:
            if waiting and worker.started and worker.point is None:
                worker.begin(waiting.popleft())

    try:
        while waiting or any(worker.point for worker in staff):
            hand_out()
            starting = sum(not worker.started for worker in staff)
            while len(staff) < workers and starting < len(waiting):
                staff.append(_Worker(base))
                starting += 1
            ready = connection.wait([worker.connection for worker in staff])
            for worker in [each for each in staff if each.connection in ready]:
                message = worker.receive()
                if message is not None:
                    failed_starts = 0
                    worker.started, worker.point = True, None
                    hand_out()
                    if isinstance(message, PointResult):
                        yield message
                    continue
                staff.remove(worker)
                worker.end(DYING_SECONDS)
                if worker.point is not None:
                    deaths[worker.point.id] += 1
                    if deaths[worker.point.id] < TRIES:
                        waiting.appendleft(worker.point)
                    else:
                        reason = f"its worker process died {TRIES} times ({worker.manner_of_death()})"
                        yield PointResult(worker.point, "lost", reason=reason)
                elif not worker.started:
                    failed_starts += 1
                    if failed_starts >= TRIES:
                        raise SweepError(
                            f"worker processes die before they have begun ({worker.manner_of_death()}): "
                            "free memory, or ask for fewer with --workers"
                        )
    finally:
        for worker in staff:
            worker.end()


class _Worker:
    """A worker process seen from its parent. ``point`` is what it works on, ``started`` whether it ever answered."""

    def __init__(self, base: SweepBase) -> None:
        self.connection, theirs = _MAKING.Pipe()
        self._process = _MAKING.Process(target=_serve, args=(theirs, base), daemon=True)
        try:
            with _deaf_children(), _same_imports():
                self._process.start()
        except (OSError, EOFError) as cause:
            self.connection.close()
            raise SweepError(
                f"a worker process cannot be started ({cause}): free memory, or ask for fewer with --workers"
            ) from cause
        # The other end is the child's alone, so that its death closes the pipe.
        theirs.close()
        self.point: Point | None = None
        self.started = False
        self._exit_code: int | None = None

    def begin(self, point: Point) -> None:
        """Hand over a point; where the worker has just died, that shows at the next ``receive``."""
        self.point = point
        with suppress(OSError):
            self.connection.send(point)

    def receive(self) -> PointResult | str | None:
        """Return what the worker says: "ready", a result, or None where it is dead."""
        try:
            message: PointResult | str = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self, patience: float = 0.0) -> None:
        """End the process, after ``patience`` seconds to die by itself; only its parent writes."""
        self._process.join(patience)
        self._process.kill()
        self._process.join()
        self._exit_code = self._process.exitcode
        self._process.close()
        self.connection.close()

    def manner_of_death(self) -> str:
        """Return how a process that was ended had died."""
        code = self._exit_code
        if code is None or code >= 0:
            return f"exit code {code}"
        memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"signal {-code}{memory}"


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Start children to which Ctrl-C in a terminal, which reaches all, means nothing: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # What comes with the server of workers lets the signal through once it has started: it starts before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _same_imports() -> Iterator[None]:
    """Let the server of workers, should it be started now, import what this process would, whatever the folder."""
    _MAKING.set_forkserver_preload([__name__])
    told = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, base: SweepBase) -> None:
    """Compute what the parent sends, until it has gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            pipe.send(compute_point(base, pipe.recv()))


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, in the middle of a point."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
