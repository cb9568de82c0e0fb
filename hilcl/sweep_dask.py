"""The points of a sweep computed by the workers of a Dask cluster that is there already."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

from hilcl.errors import InputError, SweepError
from hilcl.sweep_file import Point
from hilcl.sweep_point import PointResult, SweepBase, compute_point

AHEAD = 4
"""Points handed over for each thread of the cluster: enough to keep it busy, few enough to hold."""

CONNECT_SECONDS = 5
POLL_SECONDS = 5
WITHOUT_WORKERS_SECONDS = 60


def dask_results(base: SweepBase, points: Sequence[Point], address: str) -> Generator[PointResult]:
    """Compute points on the cluster of a Dask scheduler and yield their results as they come.

    Points of a worker that dies are begun again by the scheduler, as often as it allows; then they are "lost".
    Raises InputError where Dask is not installed or no scheduler answers, and SweepError where the cluster has no
    workers for a minute or cannot compute.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as cause:
        raise InputError("--scheduler needs Dask: pip install 'hilcl[sweep]'") from cause
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as cause:
        raise InputError(
            f"no Dask scheduler answers at {address}: check the address, such as tcp://host:8786"
        ) from cause
    with closing(client):
        yield from _computed(distributed, client, base, points)


def _computed(distributed: Any, client: Any, base: SweepBase, points: Sequence[Point]) -> Generator[PointResult]:
    waiting, begun = iter(points), dict[Any, Point]()
    lonely = 0.0
    try:
        while True:
            threads = sum(client.nthreads().values())
            lonely = 0.0 if threads else lonely
            # Keys of their own: another sweep on the same cluster, or this one begun again, must not share them.
            for point in _next(waiting, AHEAD * max(threads, 1) - len(begun)):
                begun[client.submit(compute_point, base, point, pure=False)] = point
            if not begun:
                return
            try:
                done = distributed.wait(list(begun), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                lonely = 0.0 if threads else lonely + POLL_SECONDS
                if lonely >= WITHOUT_WORKERS_SECONDS:
                    raise SweepError("the cluster has no workers: start some, then go on with the sweep") from None
                continue
            for future in done:
                yield _result(distributed, future, begun.pop(future))
    except OSError as cause:
        raise SweepError(f"the Dask scheduler does not answer any more ({cause})") from cause
    finally:
        if begun and client.status == "running":
            client.cancel(list(begun))


def _result(distributed: Any, future: Any, point: Point) -> PointResult:
    try:
        result = future.result()
    except distributed.scheduler.KilledWorker:
        return PointResult(point, "lost", reason="its workers died, each time it was begun")
    except OSError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise SweepError(
            f"the cluster cannot compute points ({kind}: {error}): install the same hilcl on its workers"
        ) from error
    if not isinstance(result, PointResult):
        raise SweepError("the cluster cannot compute points: install the same hilcl on its workers")
    return result


def _next(points: Iterator[Point], count: int) -> Iterator[Point]:
    for _ in range(count):
        point = next(points, None)
        if point is None:
            return
        yield point
