"""The sweep file: which keys of an experiment take which values, as TOML in and points out."""

import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hilcl.errors import ExperimentError
from hilcl.experiment import Experiment
from hilcl.file_values import Number, Section, Whole
from hilcl.toml_file import parse_toml, read_text
from hilcl.units import SquareVolts

MOST_POINTS = 1_000_000
"""Points of a sweep: more is a slip of the pen."""

CHECKED = 2000
"""Points that are checked before the first one is computed; of more, those with a value not seen before."""

_END = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*")


_Model = TypeVar("_Model", bound=BaseModel)


class Distribution(BaseModel):
    """How a key is drawn: one of the four, numbers or quantities such as "5 %" with both ends in one unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)

    uniform: tuple[Number | str, Number | str] | None = Field(default=None, strict=False)
    log_uniform: tuple[Number | str, Number | str] | None = Field(default=None, strict=False, alias="log-uniform")
    integers: tuple[Whole, Whole] | None = Field(default=None, strict=False)
    choice: list[Any] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in (self.uniform, self.log_uniform, self.integers, self.choice) if kind is not None]
        if len(given) != 1:
            raise ValueError("needs one of uniform, log-uniform, integers or choice")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice is empty: list what to choose from")
            return self
        low, high, _ = self.ends
        if not low < high:
            raise ValueError(f"needs the lower end first, got {low:g} and {high:g}")
        if self.log_uniform is not None and low <= 0:
            raise ValueError(f"log-uniform needs ends above 0, got {low:g}")
        if self.integers is not None and not -(2**63) <= low <= high < 2**63 - 1:
            raise ValueError("integers must have at most 63 bits")
        return self

    @property
    def ends(self) -> tuple[float, float, str]:
        """Lower end, upper end and unit ("" for none) of what is not a choice."""
        ends = self.uniform or self.log_uniform or self.integers or (0.0, 1.0)
        (low, unit), (high, other) = (_end(each) for each in ends)
        if unit != other:
            raise ValueError(f"has ends in different units, {unit or 'none'} and {other or 'none'}: use the same")
        return low, high, unit

    def draw(self, generator: np.random.Generator) -> Any:
        """Return one value as it could stand in an experiment file."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        if self.integers is not None:
            return int(generator.integers(self.integers[0], self.integers[1], endpoint=True))
        low, high, unit = self.ends
        share = float(generator.random())
        if self.log_uniform is not None:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, low), high)
        return f"{value!r} {unit}" if unit else value


def _end(value: float | str) -> tuple[float, str]:
    if not isinstance(value, str):
        return float(value), ""
    parts = _END.fullmatch(value)
    if parts is None or not math.isfinite(float(parts[1])):
        raise ValueError(f"{value[:40]!r} is not a quantity: write a number and a unit, such as '20 %'")
    return float(parts[1]), parts[2] or ""


class YieldSection(Section):
    """What the yield table shows: shares of boards at or below ``losses``, in a row for each value of the keys ``by``.

    Without ``losses`` they are taken from the results; without ``by`` the rows are those of the grid, seeds and keys of
    one value left out.
    """

    losses: list[SquareVolts] | None = Field(default=None, min_length=1)
    by: list[str] | None = None


class _Frame(Section):
    """A sweep file before its keys are looked at."""

    experiment: str = Field(min_length=1)
    grid: dict[str, Any] = Field(default_factory=dict)
    random: dict[str, Any] = Field(default_factory=dict)
    yields: YieldSection = Field(default_factory=YieldSection, alias="yield")


class _Draws(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    draws: Whole = Field(ge=1, le=MOST_POINTS)
    seed: Whole = Field(default=0, ge=0)


@dataclass(frozen=True)
class Point:
    """One point of a sweep: the keys it sets, with their values, and an ``id`` that depends on nothing else."""

    id: str
    overrides: dict[str, Any]

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> Self:
        """Return the point of these keys and values."""
        text = json.dumps(overrides, sort_keys=True, default=str)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:16], dict(overrides))


@dataclass(frozen=True)
class SweepFile:
    """A validated sweep file and the experiment it varies.

    ``grid`` maps keys to their values, ``random`` keys to their distributions; ``draws`` is 1 without random keys.
    """

    source: Path
    text: str
    experiment: Experiment
    grid: dict[str, list[Any]]
    random: dict[str, Distribution]
    draws: int
    seed: int
    losses: list[float] | None
    by: list[str]

    @classmethod
    def load(cls, path: Path) -> "SweepFile":
        """Read a sweep file and its experiment, and check the points it asks for; nothing is computed.

        Raises ExperimentError with the file, the key and what is wrong with it.
        """
        text = read_text(path, "sweep")
        return cls._of_values(parse_toml(text, path, "sweep"), path, text)

    @classmethod
    def _of_values(cls, values: dict[str, Any], path: Path, text: str) -> "SweepFile":
        frame = _validated(_Frame, values, path, "")
        experiment = Experiment.load(path.parent / frame.experiment)
        grid: dict[str, list[Any]] = {}
        for key, listed in _leaves(frame.grid, path):
            if not isinstance(listed, list):
                raise ExperimentError(f"{path}: grid.{key} needs a list of values, such as [1, 2, 3]")
            if not listed:
                raise ExperimentError(f"{path}: grid.{key} is empty: list the values it takes")
            grid[key] = listed
        settings = {key: frame.random[key] for key in ("draws", "seed") if key in frame.random}
        drawn = {key: value for key, value in frame.random.items() if key not in settings}
        random = {key: _validated(Distribution, value, path, f"random.{key}") for key, value in _leaves(drawn, path)}
        if settings and not random:
            raise ExperimentError(f"{path}: [random] names no key: add one, such as simulation.seed")
        if not grid and not random:
            raise ExperimentError(f"{path} varies nothing: list values in [grid] or distributions in [random]")
        if both := sorted(set(grid) & set(random)):
            raise ExperimentError(f"{path}: {both[0]} stands in [grid] and in [random]: keep one")
        draws = _validated(_Draws, settings, path, "random") if random else _Draws(draws=1)
        telling = [key for key, values in grid.items() if len(values) > 1 and not key.endswith("seed")]
        by = telling if frame.yields.by is None else frame.yields.by
        if unknown := [key for key in by if key not in grid and key not in random]:
            raise ExperimentError(f"{path}: yield.by names {unknown[0]!r}, which is no key of [grid] or [random]")
        sweep = cls(
            path, text, experiment, grid, random, draws.draws, draws.seed, frame.yields.losses, list(dict.fromkeys(by))
        )
        count = sweep.draws * math.prod(len(each) for each in grid.values())
        if count > MOST_POINTS:
            raise ExperimentError(f"{path} asks for {count} points, more than the {MOST_POINTS} that can be handled")
        sweep._check()
        return sweep

    def points(self) -> list[Point]:
        """Return all points: every combination of the grid with every draw, the last grid key turning fastest.

        A draw depends on the seed, the key and its number only, so more draws keep the first ones and every
        combination sees the same draws. Points that come out equal are one.
        """
        drawn = [
            {key: each.draw(_generator(self.seed, number, key)) for key, each in self.random.items()}
            for number in range(self.draws)
        ]
        found: dict[str, Point] = {}
        for combination in itertools.product(*self.grid.values()):
            fixed = dict(zip(self.grid, combination, strict=True))
            for draw in drawn:
                point = Point.of(fixed | draw)
                found.setdefault(point.id, point)
        return list(found.values())

    def _check(self) -> None:
        """Raise ExperimentError for a key or a value that no experiment can have."""
        _refuse_clock(self.experiment, self.source)
        values = tomllib.loads(self.experiment.text)
        seen: set[tuple[str, str]] = set()
        for number, point in enumerate(self.points()):
            pairs = {(key, json.dumps(value, default=str)) for key, value in point.overrides.items()}
            if number < CHECKED or (len(seen) < CHECKED and pairs - seen):
                _refuse_clock(experiment_at(values, point, self.source), self.source)
            seen |= pairs


def _refuse_clock(experiment: Experiment, path: Path) -> None:
    if experiment.learning.stop.seconds is not None:
        raise ExperimentError(
            f"{path}: learning.stop.seconds makes a point depend on how busy the computer is: leave it out in a sweep"
        )


def experiment_at(values: Mapping[str, Any], point: Point, path: Path) -> Experiment:
    """Return the experiment with these values and the overrides of a point; ``path`` is named in errors.

    Raises ExperimentError where the result is no experiment.
    """
    # Sections before the keys inside them.
    merged = dict(values)
    for key in sorted(point.overrides, key=lambda key: key.count(".")):
        *sections, last = key.split(".")
        inner = merged
        for depth, section in enumerate(sections, 1):
            under = inner.get(section, {})
            if not isinstance(under, dict):
                raise ExperimentError(f"{path}: {key} cannot be set: {'.'.join(sections[:depth])} has no keys")
            inner[section] = dict(under)
            inner = inner[section]
        inner[last] = point.overrides[key]
    return Experiment.of_values(merged, path)


def _generator(seed: int, number: int, key: str) -> np.random.Generator:
    """Return the generator of one draw of one key."""
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, number, *words.tolist()])


_KINDS = {"uniform", "log-uniform", "integers", "choice"}


def _leaves(section: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and what stands under them, whether written with sections, dots or in quotes."""
    found: set[str] = set()

    def walk(inner: Mapping[str, Any], before: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, value in inner.items():
            parts = (*before, *name.split("."))
            if isinstance(value, dict) and value and not _KINDS & set(value):
                yield from walk(value, parts)
                continue
            key = ".".join(parts)
            if not all(parts):
                raise ExperimentError(f"{path}: {key!r} is not a key: write one such as learning.step_size")
            if key in found:
                raise ExperimentError(f"{path}: {key} is given twice: keep one")
            found.add(key)
            yield key, value

    yield from walk(section, ())


def _validated(model: type[_Model], values: Any, path: Path, place: str) -> _Model:
    """Return validated values; ExperimentError with the first mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as cause:
        raise ExperimentError(f"{path}: {_mistake(cause, place)}") from cause


def _mistake(error: ValidationError, place: str) -> str:
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    kinds = {"float", "str", "constrained-str"}
    parts = [str(part) for part in problem["loc"] if not isinstance(part, int) and part not in kinds]
    name = ".".join([place, *parts] if place else parts)
    if problem["type"] == "extra_forbidden":
        frame = (
            ["by", "losses"] if parts[0] == "yield" and len(parts) > 1 else ["experiment", "grid", "random", "yield"]
        )
        known = sorted(_KINDS) if place else frame
        return f"{name} is not a key of a sweep file: known here are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{name} is missing: add it"
    if problem["type"] == "value_error":
        return f"{name} {problem['msg'].removeprefix('Value error, ')}"
    got = repr(problem["input"])
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {got if len(got) <= 60 else got[:60] + ' …'}"
