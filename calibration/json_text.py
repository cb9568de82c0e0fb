"""JSON that people can read and programs can check: lists of numbers on one line, a checksum over the values."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hilcl.calibration.errors import CalibrationError

LARGEST_FILE = 512 * 2**20
"""Bytes; no calibration is larger, and reading more could take the computer's memory."""


def checksum(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON document without its own ``checksum``: equal exactly for equal values."""
    values = {key: value for key, value in document.items() if key != "checksum"}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def written(document: dict[str, Any]) -> str:
    """Return the text of a JSON document: keys on lines of their own, flat lists on one line."""
    return _text(document, "") + "\n"


def parsed(text: str, path: Path) -> dict[str, Any]:
    """Return the document in the text of a file; ``path`` names it in messages.

    Raises CalibrationError where the text is not one JSON object, or a key is given twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise CalibrationError(f"{path}: a key is there twice: take the file as it was written")
        return document

    def refused(constant: str) -> None:
        raise CalibrationError(f"{path} holds {constant}, which is no number of a calibration")

    try:
        document = json.loads(text, object_pairs_hook=once, parse_constant=refused)
    except json.JSONDecodeError as cause:
        ended = cause.pos >= len(text.rstrip())
        what = "it ends in the middle" if ended else f"line {cause.lineno} cannot be read"
        raise CalibrationError(f"{path} is not a whole JSON file, {what}: take a copy, or calibrate again") from cause
    except (RecursionError, ValueError) as cause:
        if isinstance(cause, CalibrationError):
            raise
        raise CalibrationError(f"{path} is not a calibration file") from cause
    if not isinstance(document, dict):
        raise CalibrationError(f"{path} is not a calibration file")
    return document


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises CalibrationError where it is not there, cannot be read or is not text.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CalibrationError(f"{path} is too large to be a calibration file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as cause:
        raise CalibrationError(f"there is no calibration file {path}: make one with `hilcl calibrate`") from cause
    except UnicodeDecodeError as cause:
        raise CalibrationError(f"{path} is not text in UTF-8, so it is no calibration file") from cause
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "no file can be called so"
        raise CalibrationError(f"the calibration file {path} cannot be read: {reason}") from cause


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all: whatever happens, the old or the new one is there in full.

    Raises CalibrationError where it cannot be written.
    """
    target = path.resolve()  # through a link, so that the link stays one
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        temporary.replace(target)
        temporary = None
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "no file can be called so"
        raise CalibrationError(f"the calibration file {path} cannot be written: {reason}") from cause
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _text(value: Any, margin: str) -> str:
    if isinstance(value, dict) and value:
        inner = margin + "  "
        items = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inner = margin + "  "
        return "[\n" + ",\n".join(inner + _text(item, inner) for item in value) + f"\n{margin}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
