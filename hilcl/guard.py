"""The guard of a bench: a small process that makes the instruments safe when this one dies or falls silent."""

import os
import select
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from hilcl.bench_targets import Target, bench_targets
from hilcl.errors import BoardError, HilclError, UnsafeBoardError
from hilcl.experiment import Experiment
from hilcl.guard_process import BEAT, END, PATIENCE, READY, UNSAFE, UNSURE, Orders
from hilcl.uninterrupted import uninterrupted

START_PATIENCE = 120.0
"""Seconds a guard may take to start on a busy computer."""

END_PATIENCE = 10.0
"""Seconds waited for a guard to end, which takes it milliseconds."""

ACT_PATIENCE = 2 * PATIENCE
"""Seconds waited for a guard that makes safe what this process could not."""

LONGEST_BEAT = 1.0
"""Seconds between two signs of life at most."""

_LAUNCH = "import sys; sys.path.append(sys.argv[1]); from hilcl.guard_process import main; main()"


class Guard:
    """A guard that watches this process from ``__init__`` to ``end``.

    A ``with`` block that is left because the bench could not be made safe has the guard do it, with connections of its
    own, and waits for what becomes of that.

    The guard is a session of its own: what is done to this process, its group or its terminal does not reach it. It
    connects to no instrument before it has to. ``silence``: seconds without a sign of life after which it acts as if
    this process had died. ``log``: file that is appended to when it acts. ``keep_open``: descriptors of locks that
    shall be held until it has ended.

    Raises BoardError where it cannot be started.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        silence: float,
        log: Path,
        command: str = "hilcl",
        with_us: bool = False,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.log = log.absolute()
        self._with_us = with_us
        self._left = ""
        orders = Orders(
            targets=[target.model_dump(mode="json") for target in targets],
            silence=silence,
            log=str(self.log),
            command=command,
            pid=os.getpid(),
            folder=str(Path.cwd()),
            with_us=with_us,
            locks=list(keep_open),
        )
        package = str(Path(__file__).resolve().parents[1])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _LAUNCH, package],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )
        except OSError as cause:
            raise _not_started(str(cause.strerror)) from cause
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._line: IO[bytes] = _pipe(self._process.stdin)
        self._answers: IO[bytes] = _pipe(self._process.stdout)
        self._heart = threading.Thread(
            target=self._beat, args=(min(LONGEST_BEAT, silence / 5),), name="hilcl-guard-heartbeat", daemon=True
        )
        try:
            # One that has ended already is found out by what it does not say.
            with suppress(OSError):
                self._send(orders.model_dump_json().encode() + b"\n")
            self._wait_ready()
        except BaseException:
            self.end()
            raise
        # From here on a guard that does not read must not hold us up.
        os.set_blocking(self._line.fileno(), False)
        self._heart.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = self._lost.is_set() or self._process.poll() is not None
        unsafe = None if self._with_us else _unsafe(error)
        if unsafe is not None and not lost:
            self._hand_over()
            said = error if isinstance(error, HilclError) else unsafe
            raise BoardError(f"{self._loss()}; before that, {said}") from error
        self.end()
        if lost and isinstance(error, BoardError):
            loss = self._loss()
            if loss not in str(error):
                raise BoardError(f"{loss}; {error}") from error

    @property
    def pid(self) -> int:
        """Number of the guard's process."""
        return self._process.pid

    def check(self) -> None:
        """Raise BoardError where the guard has ended before us: it has made the bench safe, or somebody killed it."""
        if not self._ended.is_set() and (self._lost.is_set() or self._process.poll() is not None):
            raise BoardError(self._loss())

    def end(self) -> None:
        """Tell the guard that the bench is safe and wait until it has ended; may be called twice."""
        if self._ended.is_set():
            return
        with suppress(OSError):
            self._send(END)
        self.abandon()

    def abandon(self, patience: float = END_PATIENCE) -> None:
        """Let the guard find out for itself that nobody drives the bench any more; wait for its end for a while."""
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join()
        with suppress(OSError):
            self._line.close()
        # One that is making the bench safe takes longer, and need not be waited for.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._hear()

    @uninterrupted("making the bench safe")
    def _hand_over(self) -> None:
        """Let the guard make the bench safe."""
        with suppress(OSError):
            self._send(UNSURE)
        self.abandon(ACT_PATIENCE)

    def _hear(self) -> None:
        """Take the last word of a guard that has ended: what it could not verify to be safe."""
        if not self._answers.closed:
            with self._answers:
                if self._process.poll() is not None:
                    self._left = self._answers.read().decode()

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._line.fileno(), left) :]

    def _wait_ready(self) -> None:
        heard = b""
        until = time.monotonic() + START_PATIENCE
        while heard != READY:
            if not select.select([self._answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise BoardError(f"the guard of the bench did not start within {START_PATIENCE:g} s: try again")
            piece = os.read(self._answers.fileno(), len(READY) - len(heard))
            if not piece:
                raise _not_started("it ended at once")
            heard += piece

    def _beat(self, interval: float) -> None:
        """Give a sign of life until the end; a guard that is not there to hear it is lost."""
        while not self._ended.wait(interval):
            try:
                os.write(self._line.fileno(), BEAT)
            except BlockingIOError:
                continue
            except (OSError, ValueError):
                if not self._ended.is_set():
                    self._lost.set()
                return

    def _loss(self) -> str:
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(END_PATIENCE)
        self._hear()
        if code == 0:
            return f"the guard has made the bench safe, as {self.log} tells"
        if code == UNSAFE:
            return f"the guard could not verify that {self._left} is safe, as {self.log} tells: switch it off by hand"
        if code is None:
            return f"the guard is still making the bench safe, as {self.log} tells: wait for it"
        return "the guard of the bench was ended by somebody else, and nothing is driven without it"


@contextmanager
def guarded(experiment: Experiment, backend: str, log: Path, command: str | None = None) -> Iterator[Guard | None]:
    """Hold the bench for this process and let a guard watch it; what is driven meanwhile is safe afterwards.

    Without a bench (``backend`` "sim") nothing happens, and None is returned, as with ``bench.guard`` "off". Enter it
    before the board is opened, and leave it when the board is closed. Instruments emulated in this process end with it,
    so their guard has nothing to do but watch, and nobody else can use them, so they are not locked.

    Raises BoardError naming the owner where an instrument is in use.
    """
    bench = experiment.bench
    if bench is None or backend not in {"bench", "emulated"}:
        yield None
        return
    # Locks need a POSIX system, as the guard does; simulations do not.
    from hilcl.bench_lock import BenchLock

    said = shlex.join(["hilcl", *sys.argv[1:]]) if command is None else command
    emulated = backend == "emulated"
    with ExitStack() as held:
        lock = None if emulated else held.enter_context(BenchLock(bench, said))
        if bench.guard is None:
            yield None
            return
        yield held.enter_context(
            Guard(
                [] if emulated else bench_targets(bench),
                silence=bench.guard,
                log=log,
                command=said,
                with_us=emulated,
                keep_open=[] if lock is None else lock.descriptors,
            )
        )


def _unsafe(error: BaseException | None) -> UnsafeBoardError | None:
    """Return the error that says the bench is not safe, among those that led to ``error`` or that it hides."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        if isinstance(each, UnsafeBoardError):
            return each
        seen.add(id(each))
        waiting += [each.__context__, each.__cause__]
    return None


def guard_log(store: Path) -> Path:
    """Return where a guard writes what it did: beside the store, and named after it."""
    return store.parent / f"{store.stem}.guard.log"


def _not_started(reason: str) -> BoardError:
    return BoardError(
        f"the guard of the bench could not be started with {sys.executable} ({reason}); nothing was driven: mend that, "
        'or set bench.guard = "off"'
    )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AssertionError("Popen was asked for pipes")
    return stream
