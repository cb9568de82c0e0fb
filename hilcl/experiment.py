"""The experiment file: TOML in, validated values with SI units out, and errors a reader can act on."""

import difflib
import re
import tomllib
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator

from hilcl.bench_section import DRIVERS, BenchSection, instrument_section
from hilcl.calibration_section import CalibrationSection
from hilcl.errors import ExperimentError
from hilcl.faults_section import FaultsSection
from hilcl.file_values import LARGEST, Count, Node, Number, Section, StepSize, Switch, Whole
from hilcl.toml_file import parse_toml, read_text
from hilcl.units import (
    Amperes,
    Farads,
    Kelvins,
    Ohms,
    PerKelvin,
    Seconds,
    Share,
    Siemens,
    SquareVolts,
    Volts,
    Watts,
    to_si,
)


def _initial(value: object) -> object:
    """Return a start: a word as it is, a quantity or a list of them in siemens; ohms are turned into siemens."""
    if value in ("middle", "random"):
        return value
    try:
        return [_siemens(each) for each in value] if isinstance(value, list) else _siemens(value)
    except ValueError as cause:
        raise ValueError(f"{cause}; or use 'middle' or 'random'") from cause


def _siemens(value: object) -> float:
    try:
        return to_si(value, "siemens")
    except ValueError:
        ohms: float = (
            to_si(value, "ohm")
            if isinstance(value, str) and re.search("[\N{GREEK CAPITAL LETTER OMEGA}\N{OHM SIGN}]|ohm", value)
            else 0.0
        )
        if ohms <= 0:
            raise
        return 1.0 / ohms


class CrossbarSection(Section):
    """``kind = "crossbar"``: every input joined to every output."""

    kind: Literal["crossbar"]
    inputs: Count
    outputs: Count

    @model_validator(mode="after")
    def _not_too_large(self) -> Self:
        if self.inputs * self.outputs > LARGEST:
            raise ValueError(f"has {self.inputs * self.outputs} edges, more than the {LARGEST} that can be handled")
        return self


class GridSection(Section):
    """``kind = "grid"`` or ``"torus"``: rows x cols nodes, node (r, c) numbered r·cols + c."""

    kind: Literal["grid", "torus"]
    rows: Count
    cols: Count
    inputs: list[Node]
    outputs: list[Node]

    @model_validator(mode="after")
    def _not_too_large(self) -> Self:
        if self.rows * self.cols > LARGEST:
            raise ValueError(f"has {self.rows * self.cols} nodes, more than the {LARGEST} that can be handled")
        return self


class EdgesSection(Section):
    """``kind = "edges"``: a list of node pairs, or a CSV file with the columns ``first`` and ``second``."""

    kind: Literal["edges"]
    edges: list[tuple[Node, Node]] | None = None
    file: str | None = None
    inputs: list[Node]
    outputs: list[Node]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.edges is None) == (self.file is None):
            raise ValueError('needs either edges = [[0, 1], …] or file = "edges.csv"')
        return self


NetworkSection = Annotated[CrossbarSection | GridSection | EdgesSection, Field(discriminator="kind")]


class PotsSection(Section):
    """One potentiometer type on every edge: R(k) = series + wiper + end_to_end·k/denominator.

    ``chip`` names it in the catalogue, against whose figures and ratings the others are then checked.
    """

    chip: str | None = None
    positions: Whole = Field(ge=2, le=65536)
    end_to_end: Ohms
    wiper: Ohms = 0.0
    series: Ohms = 0.0
    denominator: Whole | None = None
    inverted: Switch = False
    lowest_code: Whole = Field(default=0, ge=0)


class BoardSection(Section):
    """The network, what its edges can be, and where training starts."""

    network: NetworkSection
    pots: PotsSection | None = None
    g_min: Siemens | None = None
    g_max: Siemens | None = None
    initial: Annotated[Literal["middle", "random"] | float | list[float], BeforeValidator(_initial)] = "middle"
    initial_code: Whole | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _has_devices(self) -> Self:
        if self.pots is None and (self.g_min is None or self.g_max is None):
            raise ValueError("needs either a [board.pots] section or both g_min and g_max")
        if self.initial_code is not None and self.pots is None:
            raise ValueError("initial_code needs a [board.pots] section: without codes, give initial")
        if self.initial_code is not None and "initial" in self.model_fields_set:
            raise ValueError("initial and initial_code exclude each other: keep one")
        if self.pots is not None and self.initial_code is not None and self.initial_code >= self.pots.positions:
            raise ValueError(f"initial_code is {self.initial_code}, but codes end at {self.pots.positions - 1}")
        return self


class EncodingSection(Section):
    """Output volts of each class: one-hot between ``low`` and ``high``, or ``levels`` listed class by class."""

    kind: Literal["one-hot", "wired"]
    low: Volts | None = None
    high: Volts | None = None
    levels: dict[str, list[Volts]] | None = None
    decode: Literal["target", "centroid"] = "target"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "one-hot" and (self.low is None or self.high is None or self.levels is not None):
            raise ValueError("one-hot needs low and high, and no levels")
        if self.kind == "wired" and (self.levels is None or self.low is not None or self.high is not None):
            raise ValueError("wired needs levels, the output volts of each class, and no low and high")
        return self


class TaskSection(Section):
    """The data: written here in volts, or taken from a CSV or NPZ file beside this one."""

    inputs_volts: list[list[Number]] | None = None
    targets_volts: list[list[Number]] | None = None
    file: str | None = None
    inputs: list[str] | str | None = None
    targets: list[str] | str | None = None
    label: str | None = None
    input_volts: tuple[Volts, Volts] | None = None
    input_range: tuple[Number, Number] | None = None
    target_volts: tuple[Volts, Volts] | None = None
    complement: Switch = False
    bias: list[Volts] = Field(default_factory=list)
    encoding: EncodingSection | None = None
    test_fraction: Share | None = None
    split_seed: Whole = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        inline = self.inputs_volts is not None or self.targets_volts is not None
        if inline == (self.file is not None):
            raise ValueError("needs either inputs_volts and targets_volts, or file")
        if inline and (self.inputs_volts is None or self.targets_volts is None):
            raise ValueError("needs both inputs_volts and targets_volts")
        only_file = ("inputs", "targets", "label", "encoding", "input_volts", "target_volts", "complement", "bias")
        superfluous = [key for key in only_file if inline and key in self.model_fields_set]
        if superfluous:
            raise ValueError(
                f"{superfluous[0]} belongs to a data file: inputs_volts and targets_volts are taken as they are"
            )
        if self.file is not None and not self.inputs:
            raise ValueError("needs inputs: the columns of the file that drive the board")
        if self.targets == []:
            raise ValueError("targets is empty: name the columns to reproduce")
        if self.label is not None and self.target_volts is not None:
            raise ValueError(
                "target_volts scales targets, but classes take their volts from [task.encoding]: leave it out"
            )
        if self.file is not None and (self.targets is None) == (self.label is None):
            raise ValueError("needs either targets (columns to reproduce) or label (a column of class names)")
        if (self.label is None) != (self.encoding is None):
            raise ValueError("label and [task.encoding] belong together: the encoding gives each class its volts")
        if self.complement and self.input_volts is None:
            raise ValueError("complement needs input_volts: the complement of v is low + high − v")
        if self.input_range is not None and (self.input_volts is None or self.input_range[0] >= self.input_range[1]):
            raise ValueError("input_range is the lowest and the highest reading that input_volts stand for: give both")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must lie between 0 and 1, got {self.test_fraction:g}")
        return self


class StoppingSection(Section):
    """When to stop before the last epoch."""

    loss: SquareVolts | None = Field(default=None, ge=0)
    residual: SquareVolts | None = Field(default=None, ge=0)
    seconds: Seconds | None = Field(default=None, gt=0)


class LearningSection(Section):
    """The rule, its step, and how long."""

    rule: Literal["contrastive"] = "contrastive"
    step_size: StepSize = "auto"
    decay_updates: Number | None = Field(default=None, gt=0)
    decay_power: Number = Field(default=1.0, gt=0, le=1)
    nudge: Number = 1.0
    batch_size: Whole | None = None
    draw: Literal["shuffled", "independent"] = "shuffled"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    epochs: Whole = Field(ge=1)
    seed: Whole = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    stop: StoppingSection = Field(default_factory=StoppingSection)

    @model_validator(mode="after")
    def _whole_schedule(self) -> Self:
        if self.decay_updates is None and "decay_power" in self.model_fields_set:
            raise ValueError("decay_power needs decay_updates: without it the step size does not fall")
        return self


class LimitsSection(Section):
    """What no edge and no terminal may see; checked before anything is driven."""

    volts: Volts | None = None
    amperes_per_pot: Amperes | None = None
    watts_per_pot: Watts | None = None


class SimulatedPots(Section):
    """How the simulated pots differ from their nominal law."""

    tolerance: Share = 0.0
    wiper_spread: Share = 0.0
    series_spread: Share = 0.0
    inl_codes: Number = Field(default=0.0, ge=0)
    temperature_coefficient: PerKelvin = 0.0
    temperature_rise: Kelvins = 0.0
    stuck: dict[int, Whole] = Field(default_factory=dict)
    opened: list[Whole] = Field(default_factory=list)


class SimulatedMeters(Section):
    """How the simulated meters differ from ideal ones; ``bits`` over ``range`` also give the ``resolution``."""

    gain: Share = 0.0
    offset: Volts = 0.0
    noise: Volts = 0.0
    resolution: Volts | None = None
    bits: Whole | None = Field(default=None, ge=1, le=32)
    range: Volts | None = None
    input_resistance: Ohms | None = None

    @model_validator(mode="after")
    def _one_resolution(self) -> Self:
        if (self.bits is None) != (self.range is None):
            raise ValueError("bits and range belong together: 12 bits over 5 V")
        if self.bits is not None and self.resolution is not None:
            raise ValueError("resolution and bits exclude each other: keep one")
        return self

    @property
    def volts_per_count(self) -> float:
        """Resolution in volts, 0 for none."""
        if self.bits is not None and self.range is not None:
            return float(self.range / 2.0**self.bits)
        return self.resolution or 0.0


class SimulatedSources(Section):
    """How the simulated sources differ from ideal ones."""

    series: Ohms = 0.0
    offset: Volts = 0.0
    compliance: Amperes | None = None


NodePair = tuple[Node, Node]


class SimulatedMiswiring(Section):
    """Wires of the emulated bench that are not where the file says: pairs that are swapped, and wires that are cut."""

    sources: list[NodePair] = Field(default_factory=list)
    meters: list[NodePair] = Field(default_factory=list)
    pots: list[NodePair] = Field(default_factory=list)
    cut_sources: list[Node] = Field(default_factory=list)
    cut_meters: list[Node] = Field(default_factory=list)


class SimulationSection(Section):
    """What the simulated truth is: imperfections by seed, solver and accuracy; and how fast emulated time passes."""

    seed: Whole = Field(default=0, ge=0)
    accuracy: Literal["standard", "certified"] = "standard"
    solver: Literal["auto", "dense", "superlu", "qdldl", "fused", "multifrontal", "pcg", "cholmod"] = "auto"
    pots: SimulatedPots = Field(default_factory=SimulatedPots)
    meters: SimulatedMeters = Field(default_factory=SimulatedMeters)
    sources: SimulatedSources = Field(default_factory=SimulatedSources)
    time_scale: Number = Field(default=0.0, ge=0, le=10)
    capacitance: Farads = Field(default=0.0, ge=0, le=1)
    round_trip: Seconds = Field(default=0.0, ge=0, le=10)
    line_frequency: Literal[50, 60] = 60
    pot_board: Literal["python", "firmware"] = "python"
    miswired: SimulatedMiswiring = Field(default_factory=SimulatedMiswiring)
    faults: FaultsSection = Field(default_factory=FaultsSection)


class StoreSection(Section):
    """Where runs are kept, within the directory the command is run in."""

    file: str = "hilcl.sqlite"
    run: str | None = None

    @field_validator("file")
    @classmethod
    def _stays_here(cls, value: str) -> str:
        """A file that came from somebody else may not choose what is written to elsewhere on this computer."""
        path = PurePath(value)
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ValueError(f"is {value!r}, but must lie in the directory hilcl is run in: use --store for others")
        return value


class Experiment(Section):
    """A whole experiment file."""

    board: BoardSection
    task: TaskSection
    learning: LearningSection
    limits: LimitsSection = Field(default_factory=LimitsSection)
    bench: BenchSection | None = None
    calibration: CalibrationSection = Field(default_factory=CalibrationSection)
    firmware: dict[str, Any] | None = None
    simulation: SimulationSection = Field(default_factory=SimulationSection)
    store: StoreSection = Field(default_factory=StoreSection)

    _source: Path = PrivateAttr(default=Path("experiment.toml"))
    _text: str = PrivateAttr(default="")

    @property
    def source(self) -> Path:
        """The file it was read from."""
        return self._source

    @property
    def text(self) -> str:
        """The file's text."""
        return self._text

    @classmethod
    def load(cls, path: Path) -> "Experiment":
        """Read and validate an experiment file.

        Raises ExperimentError with the file, the line, the key and what is wrong with it.
        """
        return cls.parse(read_text(path, "experiment"), path)

    @classmethod
    def parse(cls, text: str, path: Path) -> "Experiment":
        """Validate the text of an experiment file; ``path`` names it and is where its data files are looked for."""
        return cls.of_values(parse_toml(text, path, "experiment"), path, text)

    @classmethod
    def of_values(cls, values: dict[str, Any], path: Path, text: str = "") -> "Experiment":
        """Validate the values of an experiment file; in ``text``, if given, errors find their line."""
        try:
            experiment = cls.model_validate(values)
        except ValidationError as cause:
            raise ExperimentError(_sentence(cause, text, path)) from cause
        experiment._source, experiment._text = path, text
        return experiment

    def path_of(self, name: str) -> Path:
        """Return the path of a data file named in the experiment file: relative to the experiment file."""
        return self._source.parent / name


def _sentence(error: ValidationError, text: str, path: Path) -> str:
    """Return what is wrong with the file, starting with its first mistake."""
    problems = error.errors()
    # A misspelt key often shows up twice, as unknown and as missing: the unknown one is what the reader can see.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    keys = _keys(first["loc"], unknown=first["type"] == "extra_forbidden")
    line = _line_of(keys, text)
    place = f"{path}, line {line}" if line else f"{path}"
    sentence = f"{place}: {_about(first, keys)}"
    if len(problems) > 1:
        sentence += f" (and {len(problems) - 1} more)"
    return sentence


def _about(problem: Any, keys: tuple[str, ...]) -> str:
    name = ".".join(key if re.fullmatch(r"[\w-]+", key) else repr(key) for key in keys)
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _known_keys(keys[:-1], problem["loc"])
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"
        return f"{name} is not a key hilcl knows: {hint}"
    if kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"{name} is missing: add it"
    if kind == "union_tag_invalid":
        tag, word = problem["ctx"]["tag"], problem["ctx"]["discriminator"].strip("'")
        return f"{name}: {word} is {tag!r}, but it must be one of {problem['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        if name.startswith("bench"):
            return f"{name} needs a driver: {', '.join(DRIVERS)}"
        return f"{name} needs a kind: crossbar, grid, torus or edges"
    message = problem["msg"]
    if kind == "value_error":
        return f"{name} {message.removeprefix('Value error, ')}" if name else message.removeprefix("Value error, ")
    got = repr(problem["input"])
    return f"{name}: {message[0].lower()}{message[1:]}, got {got if len(got) <= 60 else got[:60] + ' …'}"


_UNIONS = (["initial"], ["step_size"], ["inputs"], ["targets"], ["inl"])
"""Keys with several kinds of value: pydantic adds the name of the kind to an error's location."""


def _keys(location: tuple[int | str, ...], *, unknown: bool) -> tuple[str, ...]:
    """Return the keys of the file in an error's location, without the names of union members."""
    members = {"crossbar", "grid", "torus", "edges"}
    if location[:2] == ("bench", "instruments") and len(location) > 3 and location[3] in DRIVERS:
        location = (*location[:3], *location[4:])
    keys: list[str] = []
    for position, part in enumerate(location):
        if isinstance(part, int):
            continue
        inside_network = keys[-1:] == ["network"] and part in members and position == 2
        as_written = unknown and position == len(location) - 1
        if as_written or not (inside_network or keys[-1:] in _UNIONS):
            keys.append(part)
    return tuple(keys)


def _known_keys(section: tuple[str, ...], location: tuple[int | str, ...]) -> list[str]:
    if section[:2] == ("bench", "instruments") and len(location) > 3:
        model = instrument_section(str(location[3]))
        chips = get_args(model.model_fields[section[3]].annotation) if len(section) > 3 else ()
        return sorted((chips[0] if chips else model).model_fields)
    models: list[Any] = [Experiment]
    for key in section:
        models = [member for model in models if key in model.model_fields for member in _members(model, key)]
    if len(models) > 1:
        models = [model for model in models if location[2] in get_args(model.model_fields["kind"].annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _members(model: Any, key: str) -> list[Any]:
    annotation = model.model_fields[key].annotation
    candidates = [annotation, *get_args(annotation)]
    return [member for member in candidates if isinstance(member, type) and issubclass(member, BaseModel)]


_PLAIN = r"""[\w-]+|"(?:\\.|[^"\\])*"|'[^']*'"""
_DOTTED = rf"(?:{_PLAIN})(?:\s*\.\s*(?:{_PLAIN}))*"
_HEADER = re.compile(rf"\s*\[+\s*({_DOTTED})\s*\]+\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_TEXT = re.compile(
    r"""\"\"\"(?:\\.|[^\\])*?(?:\"{3,5}|$)|'''.*?(?:'{3,5}|$)|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*""", re.DOTALL
)


def _line_of(keys: tuple[str, ...], text: str) -> int | None:
    """Return the line of a key, or of the nearest section around it that the text shows."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    # Strings of several lines are emptied, so that what looks like a key or a section inside them is none.
    plain = _TEXT.sub(lambda match: match[0] if "\n" not in match[0] else '""' + "\n" * match[0].count("\n"), text)
    depth = 0
    for number, line in enumerate(plain.split("\n"), 1):
        if depth == 0:
            if header := _HEADER.fullmatch(line.rstrip("\r")):
                section = _parts(header[1])
                found.setdefault(section, number)
                continue
            if key := _KEY.match(line):
                path = section + _parts(key[1])
                for length in range(len(section) + 1, len(path) + 1):
                    found.setdefault(path[:length], number)
        bare = _TEXT.sub("", line)
        depth += bare.count("[") - bare.count("]")
    for length in range(len(keys), 0, -1):
        if keys[:length] in found:
            return found[keys[:length]]
    return None


def _parts(dotted: str) -> tuple[str, ...]:
    """Return the keys of a dotted key, quoted ones with their escapes undone."""
    parts: list[str] = []
    inner: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(inner, dict):
        [(key, inner)] = inner.items()
        parts.append(key)
    return tuple(parts)
