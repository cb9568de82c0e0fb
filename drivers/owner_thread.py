"""One thread that owns one physical link, so that links work in parallel and none is used by two callers at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from hilcl.errors import BoardError
from hilcl.strand import Strand, forked, own_strand

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds a caller waits; every wait inside the thread is bounded and shorter, so this is never reached in order."""


class OwnerThread:
    """The thread of the link called ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._closed = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"hilcl-{name}")
        self._ident: int | None = None

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the thread do ``work`` after what it has been given before, and return its future."""
        return self._begin(work)[1]

    def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread and wait for it, for a bounded time; called in the thread itself, do it at once."""
        if threading.get_ident() == self._ident:
            return work()
        strand, future = self._begin(work)
        try:
            return future.result(PATIENCE)
        except FutureTimeoutError as cause:
            if future.done():
                raise
            raise BoardError(
                f"{self.name} is still busy after {PATIENCE:g} s: switch it off by hand and start again"
            ) from cause
        finally:
            own_strand().join(strand)

    def close(self) -> None:
        """Let the thread end when its work is done; may be called twice."""
        self._closed = True
        self._executor.shutdown(wait=True)

    def _begin(self, work: Callable[[], T]) -> "tuple[Strand, Future[T]]":
        if self._closed:
            raise BoardError(f"{self.name} has been closed: open a new one")
        strand, on_strand = forked(work)
        return strand, self._executor.submit(self._owned, on_strand)

    def _owned(self, work: Callable[[], T]) -> T:
        self._ident = threading.get_ident()
        return work()
