import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hilcl.owner import Owner

ME = "from hilcl.owner import Owner; o = Owner.this_process(); print(o.pid, o.started, o.boot, flush=True); input()"


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], Owner]]:
    """Another process that waits for its input, and who it says it is."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", ME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        pid, started, boot = process.stdout.readline().split()
        yield process, Owner(int(pid), started, boot, Owner.this_process().host)
        process.kill()


def test_this_process_is_here() -> None:
    owner = Owner.this_process()
    assert owner.pid == os.getpid()
    assert owner.fate() == "here"


def test_another_process_is_alive_until_it_is_killed(other: tuple[subprocess.Popen[str], Owner]) -> None:
    process, owner = other
    assert owner.fate() == "alive"
    process.kill()
    # Not waited for yet: a zombie, whose entry is still there, runs nothing.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.fate() == "gone"
    process.wait()
    assert owner.fate() == "gone"


def test_a_number_used_again_is_another_process(other: tuple[subprocess.Popen[str], Owner]) -> None:
    _, owner = other
    assert replace(owner, started="1").fate() == "gone"


def test_no_process_outlives_its_computers_restart(other: tuple[subprocess.Popen[str], Owner]) -> None:
    _, owner = other
    assert replace(owner, boot="another").fate() == "gone"


def test_nothing_is_known_of_other_computers(other: tuple[subprocess.Popen[str], Owner]) -> None:
    _, owner = other
    assert replace(owner, host="another").fate() == "elsewhere"


def test_without_a_process_table_the_number_must_do(
    other: tuple[subprocess.Popen[str], Owner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, owner = other
    monkeypatch.setattr("hilcl.owner._PROC", tmp_path)
    plain = replace(owner, started="", boot="")
    assert plain.fate() == "alive"
    process.kill()
    process.wait()
    assert plain.fate() == "gone"
    assert replace(plain, pid=2**62).fate() == "gone"
    assert Owner.this_process().fate() == "here"
