"""Options and small conveniences that several commands share."""

import re
from pathlib import Path

import click

from hilcl.errors import InputError

DEFAULT_STORE = "hilcl.sqlite"

experiment_argument = click.argument("experiment", type=click.Path(path_type=Path), metavar="EXPERIMENT.toml")

store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help=f"The store of runs; by default {DEFAULT_STORE}, for `run` the one its file names.",
)

BACKENDS = ("sim", "emulated", "bench")

backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default=None,
    help="What stands under the loop: the exact simulator (sim, unless told otherwise), the real drivers against "
    "emulated instruments, or the bench itself.",
)

force_option = click.option("--force", is_flag=True, help="Replace a file that exists.")


output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Where the file goes."
)


def checked_run_name(name: str) -> str:
    """Return a run name that is safe as a file name; InputError where it is not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(f"the run name {name!r} will not do: use letters, digits, '.', '_' and '-'")
    return name


def report_path(store: Path, run: str) -> Path:
    """Return where a run's report goes unless told otherwise: reports/ beside the store, by store and run."""
    stem = "" if store.name == DEFAULT_STORE else f"{store.stem}-"
    return store.parent / "reports" / f"{stem}{run}.html"


def refuse_overwriting(path: Path, *, force: bool) -> None:
    """Raise InputError where a file exists and --force was not given."""
    if path.exists() and not force:
        raise InputError(f"{path} exists: choose another place with --output, or add --force")
