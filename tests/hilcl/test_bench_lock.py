import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hilcl.bench_lock import BenchLock, Owner, canonical, lock_files, lock_folder, users_of
from hilcl.bench_section import BenchSection
from hilcl.bench_targets import places
from hilcl.errors import BoardError

HOLDER = """
import sys
from pathlib import Path
from hilcl.bench_lock import BenchLock
from hilcl.bench_section import BenchSection
lock = BenchLock(BenchSection.model_validate_json(sys.argv[1]), "hilcl run holder.toml", Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def bench(smu: str = "TCPIP::10.0.0.5::5025::SOCKET", board: str = "/dev/ttyACM0", more: str = "") -> str:
    """A [bench] section as JSON."""
    return f"""{{
        "instruments": {{
            "board": {{"driver": "potboard", "resource": "{board}"}},
            "smu": {{"driver": "keithley2400", "resource": "{smu}", "compliance": "1 mA"}}{more}
        }},
        "wiring": {{"pots": {{"board": "all"}}, "sources": {{"smu": [0]}}}}
    }}"""


def section(text: str | None = None) -> BenchSection:
    return BenchSection.model_validate_json(text or bench())


def test_a_bench_in_use_is_refused_and_its_owner_named(tmp_path: Path) -> None:
    with BenchLock(section(), "hilcl run first.toml", tmp_path):
        message = (
            rf"(smu|board) \(.*\) is in use by 'hilcl run first.toml' \(process {os.getpid()}, since 20..-.*\): "
            "wait until it has ended, or stop it"
        )
        with pytest.raises(BoardError, match=message):
            BenchLock(section(), "hilcl run second.toml", tmp_path)
    BenchLock(section(), "hilcl run second.toml", tmp_path).release()


def test_one_instrument_in_common_is_enough_and_none_is_not(tmp_path: Path) -> None:
    with BenchLock(section(), "one", tmp_path):
        other = bench(smu="tcpip0::10.0.0.5::5025::socket ", board="/dev/ttyACM1")
        with pytest.raises(BoardError, match=r"smu .* is in use by 'one'"):
            BenchLock(section(other), "two", tmp_path)
        # The board was free, and a refusal leaves it so.
        BenchLock(section(bench(smu="GPIB::24::INSTR", board="/dev/ttyACM1")), "three", tmp_path).release()


def test_a_port_is_the_same_by_any_of_its_names(tmp_path: Path) -> None:
    port, link = tmp_path / "port", tmp_path / "by-id"
    port.touch()
    link.symlink_to(port)
    with BenchLock(section(bench(board=str(port))), "one", tmp_path):
        other = section(bench(smu="GPIB::24::INSTR", board=str(link)))
        with pytest.raises(BoardError, match=r"board .* is in use"):
            BenchLock(other, "two", tmp_path)
        assert [name for name, _ in users_of(other, tmp_path)] == [f"board ({link})"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("TCPIP0::a::INSTR", "tcpip::A::instr"), ("GPIB0::24::INSTR", " GPIB::24::INSTR"), ("/dev/../dev/x", "/dev/x")],
)
def test_spellings_of_one_resource(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_two_boards_of_one_kind_are_two_resources() -> None:
    assert canonical("GPIB1::24::INSTR") != canonical("GPIB0::24::INSTR")
    assert canonical("TCPIP::10.0.0.5::5025::SOCKET") != canonical("TCPIP::10.0.0.5::5026::SOCKET")


def test_two_banks_may_share_the_tree_of_kernel_devices(tmp_path: Path) -> None:
    more = "".join(
        f', "{name}": {{"driver": "iio", "chips": [{{"device": "{device}"}}]}}'
        for name, device in (("one", "1-002c"), ("two", "1-002d"))
    )
    both = section(bench(more=more))
    assert places(both)["one"] == ["/sys/bus/iio/devices/1-002c"]
    with BenchLock(both, "x", tmp_path) as lock:
        assert len(lock.descriptors) == 4


def test_a_killed_owner_frees_the_bench_and_its_file_misleads_nobody(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, bench(), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BoardError, match=f"'hilcl run holder.toml' .process {holder.pid},"):
            BenchLock(section(), "x", tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert any("holder.toml" in path.read_text() for path in tmp_path.glob("*.lock"))
    assert users_of(section(), tmp_path) == []
    with BenchLock(section(), "x", tmp_path):
        assert {owner.command for _, owner in users_of(section(), tmp_path) if owner} == {"x"}


def test_whoever_inherits_the_lock_keeps_it(tmp_path: Path) -> None:
    """As a guard does, which says so; whoever comes then is patient, and gets the bench when the guard has ended."""
    lock = BenchLock(section(), "hilcl run dead.toml", tmp_path)
    code = "import sys; print('here', flush=True); sys.stdin.read()"
    guard = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=lock.descriptors,
    )
    with guard:
        assert guard.stdout is not None
        guard.stdout.readline()
        for descriptor in lock.descriptors:
            Owner.now("hilcl run dead.toml", guard=True).write(descriptor)
            os.close(descriptor)
        users = users_of(section(), tmp_path)
        assert [owner.guard for _, owner in users if owner] == [True, True]
        assert guard.stdin is not None
        guard.stdin.close()
        BenchLock(section(), "next", tmp_path).release()


def test_a_guard_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilcl.bench_lock.GUARD_PATIENCE", 0.0)
    with BenchLock(section(), "hilcl run dead.toml", tmp_path) as lock:
        for descriptor in lock.descriptors:
            Owner.now("hilcl run dead.toml", guard=True).write(descriptor)
        with pytest.raises(BoardError, match=r"still being made safe by the guard of 'hilcl run dead\.toml'"):
            BenchLock(section(), "x", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "command": 1, "since": 2}', "\0" * 9000])
def test_a_lock_without_a_readable_owner_is_refused_all_the_same(tmp_path: Path, text: str) -> None:
    with BenchLock(section(), "x", tmp_path):
        for path in tmp_path.glob("*.lock"):
            path.write_text(text)
        with pytest.raises(BoardError, match="is in use by another process"):
            BenchLock(section(), "y", tmp_path)


def test_releasing_twice_is_releasing_once(tmp_path: Path) -> None:
    lock = BenchLock(section(), "x", tmp_path)
    lock.release()
    lock.release()
    assert {path.read_text() for path in tmp_path.glob("*.lock")} == {""}


def test_a_lock_file_is_no_way_to_other_files(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = next(iter(lock_files(places(section()), tmp_path)))
    path.symlink_to(victim)
    with pytest.raises(BoardError, match="cannot be opened"):
        BenchLock(section(), "x", tmp_path)
    assert victim.read_text() == "precious"


def test_the_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = lock_folder()
    assert folder == tmp_path / "hilcl"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert lock_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(BoardError, match="is not yours alone"):
        lock_folder()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoardError, match="is not yours alone"):
        lock_folder()
