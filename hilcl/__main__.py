"""``python -m hilcl``: the same as the console script."""

from hilcl.cli.main import run_script

run_script()
