"""The ``hilcl`` command: its sub-commands, and what every error looks like."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from hilcl.cli.signals import handlers_kept, ignore_signals
from hilcl.errors import HilclError

COMMANDS = {
    "run": ("hilcl.cli.run", "Train a board as an experiment file says."),
    "check": ("hilcl.cli.check", "Check an experiment file before anything is driven."),
    "calibrate": ("hilcl.cli.calibrate", "Measure what every code of every pot is worth, in place."),
    "calibration": ("hilcl.cli.calibration", "Show, compare or plot calibration files."),
    "twin": ("hilcl.cli.calibration", "Replay a run on the digital twin of its board."),
    "safe": ("hilcl.cli.safe", "Switch off and make safe every instrument of a bench."),
    "emulate": ("hilcl.cli.emulate", "Serve the emulated bench of an experiment file."),
    "sweep": ("hilcl.cli.sweep", "Train many virtual boards and count those that learn."),
    "runs": ("hilcl.cli.runs", "List the runs in a store."),
    "show": ("hilcl.cli.runs", "Show one run."),
    "export": ("hilcl.cli.runs", "Write a run's numbers to a file."),
    "report": ("hilcl.cli.runs", "Write a run's report as one HTML file."),
    "devices": ("hilcl.cli.devices", "List instruments and serial ports with their answers."),
    "firmware": ("hilcl.cli.firmware", "Build, flash and ask the firmware of a pot board."),
}
"""Where each command lives, and its line in --help: a module is imported only when its command is called."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import hilcl

        click.echo(f"hilcl {hilcl.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def cli(debug: bool) -> None:
    """Train a board of adjustable resistors by Contrastive Learning.

    One experiment file runs on the exact simulator and on the bench: start with `hilcl run EXPERIMENT.toml`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed or stopped, 2 wrong usage or file."""
    with handlers_kept():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Found by hand: it must work wherever it stands, and also when parsing itself fails.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        result = cli.main(args=given, prog_name="hilcl", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone (hilcl runs | head): there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _failed("stopped by the keyboard or a signal", 1, debug=debug)
    except HilclError as error:
        return _failed(str(error), error.exit_code, debug=debug)
    except OSError as error:
        return _failed(f"the output cannot be written: {error.strerror or error}", 1, debug=debug)
    except MemoryError:
        return _failed("there is not enough memory for this board and these data", 1, debug=debug)
    except Exception as error:  # noqa: BLE001  # a defect of ours; the user gets a sentence, --debug the traceback
        kind = type(error).__name__
        return _failed(f"internal error ({kind}: {error}); please report it with the output of --debug", 1, debug=debug)
    return result if isinstance(result, int) else 0


def _failed(sentence: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    # Where the terminal has gone there is nobody left to tell, but whoever started us still gets the code.
    with contextlib.suppress(OSError, ValueError):
        click.echo(f"hilcl: {sentence}", err=True)
    return code


def run_script() -> None:
    """Entry point of the console script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: what is said goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        else:  # a terminal that lacks µ or Ω shows ? instead
            stream.reconfigure(errors="replace")
    try:
        code = _main(None)
    except KeyboardInterrupt:  # one more, when everything was said already
        code = 1
    ignore_signals()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # else Python complains at its end, and ends with another code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
