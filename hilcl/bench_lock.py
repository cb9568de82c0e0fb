"""One program at a time on one bench: lock files by resource, freed by the kernel when their holders end."""

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from hilcl.bench_section import BenchSection
from hilcl.bench_targets import places
from hilcl.errors import BoardError

MOMENT = 0.3
"""Seconds in which a holder that is just ending lets go."""

GUARD_PATIENCE = 60.0
"""Seconds that a guard may take to make safe what a killed program left."""

_LONGEST_RECORD = 4096


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: process, its command, since when (UTC), and whether it is the guard of a program that died."""

    pid: int
    command: str
    since: str
    guard: bool = False

    @classmethod
    def now(cls, command: str, *, guard: bool = False) -> "Owner":
        """Return this process as the owner from now on."""
        return cls(os.getpid(), command, datetime.now(UTC).isoformat(timespec="seconds"), guard)

    def write(self, descriptor: int) -> None:
        """Write this owner into an open lock file; a full disk makes it nameless, no more."""
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(self)).encode(), 0)


class BenchLock:
    """The locks on all instruments of a bench, until ``release`` or the end of this process.

    They are flock locks: they live as long as any process has ``descriptors`` open, so a guard that was given them
    holds the bench until it has made it safe. What a lock file says of its owner counts only while it is locked, so
    files that are left over and process numbers that are used again do no harm.

    Raises BoardError naming the owner where one of the instruments is in use.
    """

    def __init__(self, bench: BenchSection, command: str, folder: Path | None = None) -> None:
        self.descriptors: list[int] = []
        where = lock_folder() if folder is None else folder
        # In one order for everybody, so that of two programs one gets all.
        files = sorted(lock_files(places(bench), where).items())
        started, pause = time.monotonic(), threading.Event()
        while (held := self._take([path for path, _ in files])) is not None:
            owner = _owner(held)
            patience = GUARD_PATIENCE if owner is not None and owner.guard else MOMENT
            if time.monotonic() > started + patience:
                raise _refusal(dict(files)[held], owner)
            pause.wait(0.02)
        me = Owner.now(command)
        for descriptor in self.descriptors:
            me.write(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others use the bench; may be called twice."""
        for descriptor in self.descriptors:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            with suppress(OSError):
                # Unlocked for every process that has it, unlike by closing.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        self.descriptors = []

    def _take(self, paths: Sequence[Path]) -> Path | None:
        """Take all locks and return None, or none of them and the path of one that is held."""
        for path in paths:
            descriptor = _opened(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                os.close(descriptor)
                self.release()
                if not isinstance(cause, BlockingIOError):
                    raise BoardError(f"the lock {path} cannot be taken: {cause.strerror}") from cause
                return path
            self.descriptors.append(descriptor)
        return None


def users_of(bench: BenchSection, folder: Path | None = None) -> list[tuple[str, Owner | None]]:
    """Return the instruments of a bench that are in use, with who uses them; nothing is locked."""
    found = []
    for path, name in sorted(lock_files(places(bench), lock_folder() if folder is None else folder).items()):
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append((name, _owner(path)))
        finally:
            os.close(descriptor)
    return found


def lock_folder() -> Path:
    """Return the folder of this user's lock files, made where it is missing.

    $XDG_RUNTIME_DIR, else /run/user/UID, else the system's folder for temporary files. Raises BoardError where the
    folder is not this user's alone.
    """
    user = os.getuid()
    given, usual = os.environ.get("XDG_RUNTIME_DIR"), Path(f"/run/user/{user}")
    if given and Path(given).is_dir():
        folder = Path(given) / "hilcl"
    elif usual.is_dir():
        folder = usual / "hilcl"
    else:
        folder = Path(tempfile.gettempdir()) / f"hilcl-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as cause:
        raise BoardError(f"the folder for locks {folder} cannot be made: {cause.strerror}") from cause
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise BoardError(f"the folder for locks {folder} is not yours alone: remove it, or take others' rights to it")
    return folder


def lock_files(resources: Mapping[str, Sequence[str]], folder: Path) -> dict[Path, str]:
    """Return the lock file of each resource, with the instrument it belongs to."""
    return {
        folder / f"{hashlib.sha256(canonical(each).encode()).hexdigest()[:24]}.lock": f"{name} ({each})"
        for name, listed in resources.items()
        for each in listed
    }


def canonical(resource: str) -> str:
    """Return one spelling for the ways of writing a resource: links followed, "TCPIP::" for "tcpip0::"."""
    text = resource.strip()
    if text.startswith("/"):
        return os.path.realpath(text)
    return re.sub(r"^([A-Z]+)0(?=::)", r"\1", text.upper())


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as cause:
        raise BoardError(f"the lock {path} cannot be opened: {cause.strerror}") from cause


def _owner(path: Path) -> Owner | None:
    """Return who says to hold a lock, None where that cannot be read."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_LONGEST_RECORD))
        owner = Owner(**values)
    except (OSError, ValueError, TypeError):
        return None
    types = (isinstance(owner.pid, int), isinstance(owner.command, str), isinstance(owner.since, str))
    return owner if all(types) else None


def _refusal(instrument: str, owner: Owner | None) -> BoardError:
    if owner is None:
        return BoardError(f"{instrument} is in use by another process: wait until it has ended, or stop it")
    since = f"process {owner.pid}, since {owner.since}"
    if owner.guard:
        return BoardError(
            f"{instrument} is still being made safe by the guard of {owner.command!r} ({since}): wait, then begin again"
        )
    return BoardError(
        f"{instrument} is in use by {owner.command!r} ({since}): wait until it has ended, or stop it with Ctrl-C"
    )
