"""The catalogue of digital potentiometers: catalogue.json, read once and checked."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import Any

from hilcl.drivers.chips.model import FIGURES, Chip
from hilcl.errors import InputError

# Figures that go with an end-to-end resistance; a family or a part gives the common one.
_PER_OPTION = ("tolerance", "wiper", "wiper_max", "wiper_current")
_UNVERIFIED = "M"


def chip(name: str) -> Chip:
    """Return the chip of that name: ``chip("AD5206")``; case, spaces and dashes do not matter.

    Raises InputError naming the nearest names.
    """
    wanted = _key(name)
    found = _by_key().get(wanted)
    if found is not None:
        return found
    close = get_close_matches(wanted, _by_key(), n=10, cutoff=0.6)
    close.sort(key=lambda key: _shared_start(key, wanted), reverse=True)
    near = [_by_key()[key].name for key in close[:3]]
    hint = f"did you mean {' or '.join(near)}?" if near else "hilcl.drivers.chips.chips() lists those there are"
    raise InputError(f'there is no digital potentiometer "{name}" in the catalogue: {hint}')


@cache
def chips() -> tuple[Chip, ...]:
    """Return every chip of the catalogue, in the catalogue's order.

    Raises pydantic.ValidationError when the catalogue contradicts itself, which its tests rule out.
    """
    catalogue = json.loads((files(__package__) / "catalogue.json").read_text(encoding="utf-8"))
    references = catalogue["references"]
    return tuple(
        Chip.model_validate(_part(name, family, shared, own, references))
        for family, shared in catalogue["families"].items()
        for name, own in shared["parts"].items()
    )


@cache
def _by_key() -> dict[str, Chip]:
    return {_key(known.name): known for known in chips()}


def _key(name: str) -> str:
    return name.upper().replace(" ", "").replace("-", "")


def _shared_start(one: str, other: str) -> int:
    """Return with how many equal characters two names begin: maker and family come first."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _part(
    name: str, family: str, shared: Mapping[str, Any], own: Mapping[str, Any], references: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields of a chip: those of its family under those of its own."""
    merged = {**shared, **own, "name": name, "family": family}
    del merged["parts"]
    sources = {**shared["sources"], **own.get("sources", {})}
    merged["sources"] = {figure: _source(sources.get(figure, _UNVERIFIED), references) for figure in FIGURES}
    common = {key: merged.pop(key) for key in _PER_OPTION}
    special = merged.pop("per_end_to_end", {})
    merged["options"] = [
        {"end_to_end": value, **common, **special.get(f"{value:.0f}", {})} for value in merged.pop("end_to_end")
    ]
    return merged


def _source(text: str, references: Mapping[str, str]) -> tuple[str, str]:
    """Return "P key key" with the keys written out: a letter for the kind of origin, then references."""
    origin, *keys = text.split()
    return origin, "; ".join(references[key] for key in keys) or "no source found"
