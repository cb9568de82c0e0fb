import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import hilcl
from hilcl.cli import main as main_module
from hilcl.cli.main import COMMANDS, cli, main
from hilcl.errors import BoardError, InputError
from tests.command_line import environment, listing, write_experiment
from tests.command_line import hilcl as run_hilcl


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "hilcl")
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(command: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, option]) == 0
    output, errors = capsys.readouterr()
    assert output.startswith(f"Usage: hilcl {' '.join(command)}".rstrip())
    assert errors == ""


def test_help_lists_every_command_with_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    output = capsys.readouterr().out
    context = click.Context(cli)
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name}" in output
        assert summary in output
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help


def test_every_option_is_explained() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["export", "--help"]])
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    script = (
        "import sys; from hilcl.cli.main import main; code = main(sys.argv[1:]); "
        "print(sorted({'numpy', 'scipy', 'matplotlib', 'pydantic', 'rich', 'pyarrow'} & set(sys.modules))); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hilcl {hilcl.__version__}\n"


def test_the_console_script_and_the_module_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("hilcl")
    done = subprocess.run([script, "--help"], cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert done.stdout.decode() == run_hilcl("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "No such command 'frob'."),
        (["--frob"], "No such option"),
        (["run"], "Missing argument 'EXPERIMENT.toml'."),
        (["run", "x.toml", "--frob"], "No such option"),
        (["run", "x.toml", "y.toml"], "unexpected extra argument"),
        (["run", "x.toml", "--backend", "cloud"], "'cloud' is not one of 'sim', 'emulated', 'bench'"),
        (["run", "x.toml", "--name", "a", "--resume", "b"], "--name is for a new run, --resume for a stored one"),
        (["check"], "Missing argument 'EXPERIMENT.toml'."),
        (["show"], "Missing argument 'RUN'."),
        (["export", "x"], "Missing option '--to'"),
        (["export", "x", "--to", "xls"], "'xls' is not one of"),
        (["report"], "Missing argument 'RUN'."),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("Error: ") == 1
    assert message in errors
    assert "Traceback" not in errors
    assert listing(tmp_path) == set()


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(**_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("bad key: mend it"), 2, "hilcl: bad key: mend it"),
        (BoardError("source 1 is silent: plug it in"), 1, "hilcl: source 1 is silent: plug it in"),
        (KeyboardInterrupt(), 1, "hilcl: stopped by the keyboard or a signal"),
        (click.Abort(), 1, "hilcl: stopped by the keyboard or a signal"),
        (MemoryError(), 1, "hilcl: there is not enough memory for this board and these data"),
        (
            RuntimeError("oh no"),
            1,
            "hilcl: internal error (RuntimeError: oh no); please report it with the output of --debug",
        ),
    ],
)
@pytest.mark.parametrize("place", [None, 0, 1])
def test_every_error_is_one_sentence_and_debug_shows_where(
    error: BaseException,
    code: int,
    sentence: str,
    place: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "get_command", lambda *_: click.Command("runs", callback=fail_with(error)))
    arguments = ["runs"]
    if place is not None:
        arguments.insert(place, "--debug")
    assert main(arguments) == code
    output, errors = capsys.readouterr()
    assert output == ""
    # click ends the line that ^C stands on, so there may be an empty one.
    *above, last = filter(None, errors.splitlines())
    assert last == sentence
    assert bool(above) == (place is not None)
    if place is not None:
        assert above[0] == "Traceback (most recent call last):"


def test_debug_shows_the_traceback_of_a_real_mistake(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "x.toml", epochs='"many"')
    plain = run_hilcl("run", path, cwd=tmp_path)
    assert plain.returncode == 2
    assert len(plain.stderr.splitlines()) == 1
    for arguments in (["--debug", "run", str(path)], ["run", str(path), "--debug"]):
        debug = run_hilcl(*arguments, cwd=tmp_path)
        assert debug.returncode == 2
        assert "Traceback (most recent call last):" in debug.stderr
        assert debug.stderr.endswith(plain.stderr)


def piped(command: list[str], cwd: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    """Run in a shell, for redirections and pipes; ``command`` is written with ``hilcl`` for the command line."""
    line = " ".join(command).replace("hilcl ", f"{sys.executable} -m hilcl ")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip


@pytest.fixture
def with_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "divider.toml", epochs="2")
    for _ in range(3):
        assert main(["run", str(path), "--no-report"]) == 0
    return tmp_path


@pytest.mark.parametrize("command", ["runs", "show divider", "--help", "check divider.toml"])
def test_a_reader_that_goes_away_leaves_no_traceback(with_runs: Path, command: str) -> None:
    """As with ``hilcl runs | head -1``, for certain: the reader is gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hilcl", *command.split()],
            cwd=with_runs, env=environment(), stdout=write, stderr=subprocess.PIPE, encoding="utf-8", check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode in {1, -signal.SIGPIPE}


def test_runs_into_head(with_runs: Path) -> None:
    done = piped(["hilcl runs | head -2"], with_runs)
    assert done.stderr == ""
    assert "created (UTC)" in done.stdout


@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&-"])
@pytest.mark.parametrize("command", ["hilcl runs", "hilcl run divider.toml --no-report --name fresh"])
def test_closed_streams_do_no_harm(with_runs: Path, command: str, streams: str) -> None:
    done = piped([command, streams], with_runs)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_an_output_that_cannot_be_written_is_told(with_runs: Path) -> None:
    done = piped(["hilcl runs > /dev/full"], with_runs)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["show divider", "runs", "check divider.toml", "run divider.toml --no-report"])
def test_a_terminal_with_few_characters_gets_what_it_can_show(with_runs: Path, command: str, encoding: str) -> None:
    done = run_hilcl(*command.split(), cwd=with_runs, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "divider" in done.stdout or "The file is in order." in done.stdout


def test_a_file_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.toml")
    done = run_hilcl("run", odd, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be read: No such file or directory" in done.stderr


def test_main_takes_the_process_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["hilcl", "--version"])
    with pytest.raises(SystemExit) as ended:
        main_module.run_script()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("hilcl ")
