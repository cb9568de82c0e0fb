"""Files in TOML: their text and what it says, or one sentence why not."""

import tomllib
from pathlib import Path
from typing import Any

from hilcl.errors import ExperimentError


def read_text(path: Path, what: str) -> str:
    """Return the text of a file of the kind ``what``, "experiment"; raises ExperimentError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise ExperimentError(f"the {what} file {path} cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ExperimentError(f"the {what} file {path} is not text in UTF-8") from cause


def parse_toml(text: str, path: Path, what: str) -> dict[str, Any]:
    """Return the values of a text; ``path`` and ``what`` are named in errors. Raises ExperimentError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ExperimentError(f"{path} is not valid TOML: {cause}") from cause
    except ValueError as cause:
        raise ExperimentError(f"{path} holds a number of too many digits") from cause
    except RecursionError as cause:
        article = "an" if what[0] in "aeiou" else "a"
        raise ExperimentError(f"{path} is nested too deeply to be {article} {what} file") from cause
