import copy
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hilcl.bench_section import PotBoardInstrument, PythonInstrument, ScannerInstrument, SmuInstrument
from hilcl.errors import ExperimentError, InputError
from hilcl.experiment import CrossbarSection, EdgesSection, Experiment, GridSection
from hilcl.pot_bank_section import I2cInstrument, IioInstrument, SpiInstrument, UpDownInstrument
from hilcl.preparation import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"
FILE = Path("lab/divider.toml")

DIVIDER = """\
# A voltage divider.
[board]
network = { kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }
g_min = "0.1 mS"
g_max = "10 mS"
initial = "1 mS"

[task]
inputs_volts = [[1.0, 0.0]]
targets_volts = [[0.2]]

[learning]
step_size = "auto"
epochs = 1000
stop.loss = "1e-20 V²"

[limits]
volts = "5 V"

[simulation]
meters = { bits = 12, range = "5 V" }
pots.temperature_coefficient = "700 ppm/K"

[simulation.sources]
series = "1 Ω"

[store]
file = "runs.sqlite"
"""

CLASSES = """\
[board]
[board.network]
kind = "crossbar"
inputs = 4
outputs = 2
[board.pots]
positions = 128
end_to_end = "100 kΩ"
wiper = "40 Ω"
[task]
file = "flowers.csv"
inputs = ["length", "width"]
label = "species"
input_volts = ["0 V", "1 V"]
complement = true
test_fraction = "30 %"
[task.encoding]
kind = "one-hot"
low = "0.4 V"
high = "0.6 V"
[learning]
epochs = 10
"""


def changed(old: str, new: str, text: str = DIVIDER) -> str:
    """Return a file with one place changed."""
    assert text.count(old) == 1
    return text.replace(old, new)


def refusal(text: str, kind: type[InputError] = ExperimentError) -> str:
    """Return the one sentence with which a file is refused, and check its form."""
    with pytest.raises(InputError) as caught:
        prepare(Experiment.parse(text, FILE))
    assert isinstance(caught.value, kind)
    return one_sentence(caught.value)


def one_sentence(error: InputError) -> str:
    sentence = str(error)
    assert sentence.isprintable(), "one line"
    assert len(sentence) < 600
    assert str(FILE) in sentence
    assert error.exit_code == 2
    return sentence


def marked_line(text: str) -> int:
    """Return the number of the line that ends in the comment "# here"."""
    (number,) = [number for number, line in enumerate(text.split("\n"), 1) if line.rstrip("\r").endswith("# here")]
    return number


# What is read.


def test_a_whole_file() -> None:
    experiment = Experiment.parse(DIVIDER, FILE)
    assert experiment.source == FILE
    assert experiment.text == DIVIDER
    board, learning, simulation = experiment.board, experiment.learning, experiment.simulation
    assert isinstance(board.network, EdgesSection)
    assert board.network.edges == [(0, 1), (1, 2)]
    assert board.g_min == pytest.approx(1e-4)
    assert board.g_max == pytest.approx(1e-2)
    assert board.initial == pytest.approx(1e-3)
    assert experiment.task.inputs_volts == [[1.0, 0.0]]
    assert learning.step_size == "auto"
    assert learning.epochs == 1000
    assert learning.stop.loss == pytest.approx(1e-20)
    assert experiment.limits.volts == 5.0
    assert simulation.meters.volts_per_count == 5.0 / 4096
    assert simulation.pots.temperature_coefficient == pytest.approx(7e-4)
    assert simulation.sources.series == 1.0
    assert experiment.store.file == "runs.sqlite"


def test_classes() -> None:
    experiment = Experiment.parse(CLASSES, FILE)
    assert isinstance(experiment.board.network, CrossbarSection)
    assert experiment.board.pots is not None
    assert experiment.board.pots.end_to_end == pytest.approx(1e5)
    assert experiment.task.input_volts == (0.0, 1.0)
    assert experiment.task.test_fraction == pytest.approx(0.3)
    assert experiment.task.encoding is not None
    assert experiment.task.encoding.decode == "target"
    assert (experiment.task.encoding.low, experiment.task.encoding.high) == (0.4, 0.6)
    assert experiment.path_of("flowers.csv") == Path("lab/flowers.csv")


def test_values_cannot_change() -> None:
    experiment = Experiment.parse(DIVIDER, FILE)
    with pytest.raises(ValueError, match="frozen"):
        experiment.learning.epochs = 3  # type: ignore[misc]


def test_a_data_file_lies_beside_the_experiment_file(tmp_path: Path) -> None:
    experiment = Experiment.parse(DIVIDER, tmp_path / "a" / "b.toml")
    assert experiment.path_of("data/x.csv") == tmp_path / "a" / "data" / "x.csv"
    assert experiment.path_of(str(tmp_path / "x.csv")) == tmp_path / "x.csv"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples(example: Path) -> None:
    experiment = Experiment.load(example)
    assert experiment.source == example
    assert experiment.text == example.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("written", "siemens"),
    [
        ('"1 mS"', 1e-3),
        ('"5 k\u03a9"', 2e-4),
        ('"5 k\u2126"', 2e-4),
        ('"5 kohm"', 2e-4),
        ('["1 mS", "500 Ω"]', [1e-3, 2e-3]),
        ('"middle"', "middle"),
        ('"random"', "random"),
    ],
)
def test_a_start_in_siemens_or_ohms(written: str, siemens: object) -> None:
    assert Experiment.parse(changed('"1 mS"', written), FILE).board.initial == (
        siemens if isinstance(siemens, str) else pytest.approx(siemens)
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_crlf_and_a_byte_order_mark_do_no_harm(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(DIVIDER.replace("\n", "\r\n").encode(encoding))
    assert Experiment.load(path).learning.epochs == 1000


# What is no experiment file at all.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"board is missing: add it \(and 2 more\)"),
        (b"# nothing yet\n", "board is missing"),
        (b"\xff\xfeb\x00", "is not text in UTF-8"),
        (b"[board]\ng_min = \xe9\n", "is not text in UTF-8"),
        (b"[board]\n\nx = = 3\n", r"is not valid TOML: .*line 3"),
        (b"[board\n", r"is not valid TOML: .*line 1"),
        (b"[board]\n[task]\n[board]\n", r"is not valid TOML: .*line 3"),
        (b"a = 1\na = 2\n\n", r"is not valid TOML: .*line 2"),
        (b"\x00", r"is not valid TOML: .*line 1"),
        (b"PK\x03\x04", "is not valid TOML"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"x = " + b"{a=" * 5_000, "nested too deeply"),
        (b"x = " + b"[" * 300 + b"]" * 300, "x is not a key hilcl knows"),
        (b"x = " + b"9" * 5_000, "number"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_files_that_are_no_experiment(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=message) as caught:
        Experiment.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nope\.toml cannot be read: No such file"):
        Experiment.load(tmp_path / "nope.toml")
    with pytest.raises(ExperimentError, match="cannot be read: Is a directory"):
        Experiment.load(tmp_path)
    with pytest.raises(ExperimentError, match="cannot be read: File name too long"):
        Experiment.load(tmp_path / ("x" * 5_000))


# Unknown keys, at every level.


def sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield every section of the file with its model."""
    yield path, model
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is list:
            continue
        named = ("NAME",) if get_origin(field.annotation) is dict else ()
        for member in members(field.annotation):
            yield from sections(member, (*path, name, *named))


def members(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [member for part in get_args(annotation) for member in members(part)]


KINDS = {
    CrossbarSection: ("kind", "crossbar"),
    GridSection: ("kind", "torus"),
    EdgesSection: ("kind", "edges"),
    SmuInstrument: ("driver", "keithley2400"),
    ScannerInstrument: ("driver", "34970a"),
    PotBoardInstrument: ("driver", "potboard"),
    PythonInstrument: ("driver", "python"),
    IioInstrument: ("driver", "iio"),
    SpiInstrument: ("driver", "spi"),
    I2cInstrument: ("driver", "i2c"),
    UpDownInstrument: ("driver", "updown"),
}
"""What tells a section from its relatives, so that its other keys can be known."""
KEYS = [
    (path, model, key)
    for path, model in sections(Experiment)
    for key in model.model_fields
    if not (model in KINDS and key == "driver")
]


def written_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def written(values: object) -> str:
    """Return TOML for a value."""
    if isinstance(values, dict):
        return "{" + ", ".join(f"{written_key(key)} = {written(value)}" for key, value in values.items()) + "}"
    if isinstance(values, list):
        return "[" + ", ".join(map(written, values)) + "]"
    if isinstance(values, float) and not math.isfinite(values):
        return str(values)
    return json.dumps(values)


def whole_file(values: dict[str, Any]) -> str:
    return "\n".join(f"{written_key(key)} = {written(value)}" for key, value in values.items())


def test_the_sections_are_all_there() -> None:
    names = {".".join(path) for path, _ in sections(Experiment)}
    assert names >= {"", "board", "board.network", "board.pots", "task.encoding", "learning.stop", "simulation.meters"}
    assert len(KEYS) > 60


@pytest.mark.parametrize(
    ("path", "model", "key"), KEYS, ids=[".".join((*path, model.__name__, key)) for path, model, key in KEYS]
)
def test_a_misspelt_key_is_named_with_what_was_meant(path: tuple[str, ...], model: type[BaseModel], key: str) -> None:
    """Wherever it stands, and whatever else is missing in that section."""
    section: dict[str, Any] = {f"{key}x": 1}
    if model in KINDS:
        tag, value = KINDS[model]
        section[tag] = value
    values: dict[str, Any] = section
    for name in reversed(path):
        values = {name: values}
    text = "\n" + whole_file(values)
    name = ".".join((*path, f"{key}x"))
    assert f"{name} is not a key hilcl knows: did you mean {key}?" in refusal(text)
    assert f"{FILE}, line 2: " in refusal(text)


def test_a_misspelt_key_of_a_chip_is_named_with_what_was_meant() -> None:
    instrument = 'driver = "spi"\nresource = "/dev/spidev0"\nchips = [{ chip = "AD5206", selekt = 1 }]'
    text = f"\n[bench.instruments.NAME]\n{instrument}"
    said = refusal(text)
    assert "bench.instruments.NAME.chips.selekt is not a key hilcl knows: did you mean select?" in said


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("frobnicate", "frobnicate"),
        ("float", "float"),
        ("str", "str"),
        ("literal", "literal"),
        ("crossbar", "crossbar"),
        ('"µ"', "µ"),
        ('"a b"', "a b"),
        ('"a.b"', "a.b"),
        ('""', "''"),
        ('"a\\nb"', "a"),
        ('"\\u001b[31m"', "31m"),
    ],
)
@pytest.mark.parametrize("section", ["", "task", "learning.stop", "board.network"])
def test_unknown_keys_of_every_spelling(section: str, key: str, shown: str) -> None:
    before = {
        "": "# A voltage",
        "task": "inputs_volts",
        "learning.stop": "stop.loss",
        "board.network": 'kind = "edges"',
    }
    inserted = {
        "": f"{key} = 1 # here\n# A voltage",
        "task": f"{key} = 1 # here\ninputs_volts",
        "learning.stop": f"stop.{key} = 1 # here\nstop.loss",
        "board.network": f'{key} = 1, kind = "edges"',
    }
    sentence = refusal(changed(before[section], inserted[section]))
    place = f"{section}." if section else ""
    line = 3 if section == "board.network" else marked_line(changed(before[section], inserted[section]))
    assert sentence.startswith(f"{FILE}, line {line}: {place}")
    assert shown in sentence.split(" is not a key hilcl knows: ")[0]
    assert "is not a key hilcl knows: " in sentence


def test_where_nothing_is_near_the_known_keys_are_listed() -> None:
    assert refusal("frob = 1\n" + DIVIDER) == (
        f"{FILE}, line 1: frob is not a key hilcl knows: "
        "known here are bench, board, calibration, firmware, learning, limits, simulation, store, task"
    )
    sentence = refusal(changed('kind = "edges"', 'kind = "edges", qqqq = 1'))
    assert sentence.endswith("known here are edges, file, inputs, kind, outputs")


def test_many_mistakes_are_one_sentence() -> None:
    sentence = refusal(changed("[limits]", "[limits]\n" + "".join(f"x{i} = 1\n" for i in range(50))))
    assert sentence.endswith("(and 49 more)")


# Lines.

BAD_LINES = {
    "a key": changed('g_min = "0.1 mS"', 'g_min = "0.1 V" # here'),
    "a dotted key": changed('stop.loss = "1e-20 V²"', 'stop.loss = "1 V" # here'),
    "a spaced dotted key": changed('stop.loss = "1e-20 V²"', 'stop . loss = "1 V" # here'),
    "an inline table": changed('range = "5 V" }', 'range = "5 A" } # here'),
    "a nested inline table": changed("outputs = [1] }", 'outputs = ["x"] } # here'),
    "a dotted key in a section": changed('"700 ppm/K"', '"700 V" # here'),
    "a section of a section": changed('series = "1 Ω"', 'series = "1 A" # here'),
    "a dotted key at the top": 'learning.epochs = 0 # here\nlearning.stop.loss = "0 V²"\n'
    + DIVIDER.replace('[learning]\nstep_size = "auto"\nepochs = 1000\nstop.loss = "1e-20 V²"\n', ""),
    "a section header": changed("[learning]", "[learning] # here").replace("epochs = 1000\n", ""),
    "a model of a section": changed("[board]", "[board] # here").replace('g_max = "10 mS"\n', ""),
    "a comment of brackets": changed("[learning]", "[learning] # [task]").replace("= 1000", "= 0 # here"),
    "a key in a comment": changed("[learning]", "[learning]\n# epochs = 3").replace("= 1000", "= 0 # here"),
    "a quoted key": changed('g_min = "0.1 mS"', '"g_min" = "0.1 V" # here'),
    "a quoted section": changed("[learning]", '["learning"]').replace("= 1000", "= 0 # here"),
    "a spaced section": changed("[learning]", "  [ learning ]").replace("= 1000", "= 0 # here"),
    "an indented key": changed("epochs = 1000", "\t epochs=0 # here"),
    "crlf": changed("epochs = 1000", "epochs = 0 # here").replace("\n", "\r\n"),
    "an array of several lines": changed("[[1.0, 0.0]]", "[\n  [1.0, 0.0],\n]").replace("[[0.2]]", '"x" # here'),
    "an array of single values": changed("targets_volts = [[0.2]]", "targets_volts = [\n  [0.2]\n]\nfrob = 3 # here"),
    "an array of single values and commas": changed(
        "targets_volts = [[0.2]]", "targets_volts = [\n[0.2],\n[0.1],\n]\nfrob = 3 # here"
    ),
    "an array with comments": changed(
        "targets_volts = [[0.2]]", "targets_volts = [\n [0.2], # ]\n # ]\n]\nsplit_seed = -1 # here"
    ),
    "text of several lines": changed("[limits]", '[store]\nrun = """\n[learning]\nepochs = 3\n"""\n[limits]')
    .replace('\n[store]\nfile = "runs.sqlite"\n', "")
    .replace("= 1000", "= 0 # here"),
    "literal text of several lines": "[store]\nrun = '''\n[learning]\nepochs = 3\n'''\n"
    + DIVIDER.replace('[store]\nfile = "runs.sqlite"\n', "").replace("= 1000", "= 0 # here"),
    "text with brackets": changed('file = "runs.sqlite"', "file = \"[[[\"\nrun = '[['\nrum = 3 # here"),
    "a line separator in a comment": "# a\u2028b\u0085c\n" + changed("epochs = 1000", "epochs = 0 # here"),
}


@pytest.mark.parametrize("text", BAD_LINES.values(), ids=BAD_LINES)
def test_the_line_is_the_one_with_the_mistake(text: str) -> None:
    assert refusal(text).startswith(f"{FILE}, line {marked_line(text)}: ")


@settings(max_examples=60)
@given(
    blank=st.lists(st.sampled_from(["", "# x", "  ", "\t# [learning]", "# epochs = 1"]), max_size=6),
    seed=st.integers(0, 99),
)
def test_the_line_moves_with_what_stands_above(blank: list[str], seed: int) -> None:
    lines = changed("epochs = 1000", "epochs = 0 # here").split("\n")
    generator = random.Random(seed)
    for extra in blank:
        lines.insert(generator.randrange(len(lines)), extra)
    text = "\n".join(lines)
    assert refusal(text).startswith(f"{FILE}, line {marked_line(text)}: learning.epochs: ")


# Wrong values: each with its key.

WRONG_VALUES = [
    # units
    ('g_min = "0.1 mS"', 'g_min = "0.1 mV"', r"line 4: board\.g_min '0.1 mV' has the wrong unit: .*'1 mS'"),
    ('g_min = "0.1 mS"', "g_min = 0.1", r"line 4: board\.g_min has no unit: .*'1 mS'"),
    ('initial = "1 mS"', "initial = 1", r"line 6: board\.initial has no unit: .*'1 mS'"),
    ('initial = "1 mS"', 'initial = "5 V"', r"board\.initial '5 V' has the wrong unit.*'middle' or 'random'"),
    ('initial = "1 mS"', 'initial = ["1 mS", "1 V"]', r"board\.initial '1 V' has the wrong unit"),
    ('step_size = "auto"', 'step_size = "1 V"', r"learning\.step_size '1 V' has the wrong unit: .*S/V²"),
    ('step_size = "auto"', "step_size = 1e-4", r"learning\.step_size has no unit: .*S/V²"),
    ('step_size = "auto"', 'step_size = "fast"', r"learning\.step_size 'fast' is not a quantity"),
    ('loss = "1e-20 V²"', 'loss = "1e-20 V"', r"learning\.stop\.loss '1e-20 V' has the wrong unit: .*V²"),
    ('volts = "5 V"', 'volts = "5 A"', r"limits\.volts '5 A' has the wrong unit"),
    ('volts = "5 V"', "volts = 5", r"limits\.volts has no unit"),
    ('range = "5 V"', 'range = "5 A"', r"simulation\.meters\.range '5 A' has the wrong unit"),
    ('"700 ppm/K"', '"700 ppm"', r"temperature_coefficient '700 ppm' has the wrong unit: .*ppm/K"),
    # types
    ("epochs = 1000", 'epochs = "many"', r"learning\.epochs: .*integer.*'many'"),
    ("epochs = 1000", 'epochs = "1000"', r"learning\.epochs: .*integer.*'1000'"),
    ("epochs = 1000", "epochs = true", r"learning\.epochs: .*integer.*True"),
    ("epochs = 1000", "epochs = 1.5", r"learning\.epochs: .*integer.*1\.5"),
    ("epochs = 1000", "epochs = []", r"learning\.epochs: .*integer"),
    ("epochs = 1000", "epochs = 1979-05-27", r"learning\.epochs: .*integer"),
    ("epochs = 1000", "epochs = 10\nnudge = true", r"learning\.nudge: .*number.*True"),
    ("epochs = 1000", 'epochs = 10\nnudge = "1"', r"learning\.nudge: .*number.*'1'"),
    ("epochs = 1000", "epochs = 10\nseed = 1.5", r"learning\.seed: .*integer"),
    ("epochs = 1000", "epochs = 10\nseed = true", r"learning\.seed: .*integer"),
    ("epochs = 1000", "epochs = 10\nrounding = 3", r"learning\.rounding: .*'nearest' or 'stochastic'"),
    ("[[1.0, 0.0]]", "[1.0, 0.0]", r"task\.inputs_volts: .*list"),
    ("[[1.0, 0.0]]", '[["1 V", "0 V"]]', r"task\.inputs_volts: .*number"),
    ("[[1.0, 0.0]]", "[[true, false]]", r"task\.inputs_volts: .*number.*True"),
    ("[[1.0, 0.0]]", "{}", r"task\.inputs_volts: .*list"),
    ("inputs = [0, 2]", "inputs = 0", r"board\.network\.inputs: .*list"),
    ("inputs = [0, 2]", "inputs = [0.5, 2]", r"board\.network\.inputs: .*integer.*0\.5"),
    ("[[0, 1], [1, 2]]", "[[0, 1, 2]]", r"board\.network\.edges: .*\[0, 1, 2\]"),
    ('file = "runs.sqlite"', "file = 3", r"store\.file: .*string"),
    ('file = "runs.sqlite"', 'file = "/etc/x"', r"store\.file is '/etc/x', but must lie in the directory"),
    ('file = "runs.sqlite"', 'file = "a/../../x"', r"store\.file is 'a/../../x', but must lie in the directory"),
    ("stop.loss", "stop = 3 #", r"learning\.stop: "),
    # out of range
    ("epochs = 1000", "epochs = 0", r"learning\.epochs: .*1, got 0"),
    ("epochs = 1000", "epochs = -5", r"learning\.epochs: .*1, got -5"),
    ("epochs = 1000", "epochs = 1\nseed = -1", r"learning\.seed: .*0, got -1"),
    ("epochs = 1000", "epochs = 1\nnudge = nan", r"learning\.nudge: .*finite.*nan"),
    ("epochs = 1000", "epochs = 1\nnudge = 1e400", r"learning\.nudge: .*finite"),
    ("epochs = 1000", "epochs = 1\ndecay_updates = 0", r"learning\.decay_updates: .*greater than 0"),
    ("epochs = 1000", "epochs = 1\ndecay_updates = 9\ndecay_power = 2", r"learning\.decay_power: .*1, got 2"),
    ("epochs = 1000", 'epochs = 1\nrule = "backprop"', r"learning\.rule: .*'contrastive', got 'backprop'"),
    ('loss = "1e-20 V²"', 'loss = "-1 V²"', r"learning\.stop\.loss: .*0, got .*-1"),
    ("stop.loss", 'stop.seconds = "-1 min"\nstop.loss', r"learning\.stop\.seconds: .*0, got .*-"),
    ("[[1.0, 0.0]]", "[[nan, 0.0]]", r"task\.inputs_volts: .*finite.*nan"),
    ("[[0.2]]", "[[-inf]]", r"task\.targets_volts: .*finite.*-inf"),
    ("bits = 12", "bits = 99", r"simulation\.meters\.bits: .*32, got 99"),
    ('"edges", edges', '"ring", edges', r"board\.network: kind is 'ring', but it must be one of 'crossbar', 'grid'"),
    # missing, exclusive, belonging together
    ("epochs = 1000", "", r"learning\.epochs is missing: add it"),
    ('g_max = "10 mS"', "", r"board needs either a \[board\.pots\] section or both g_min and g_max"),
    ('kind = "edges", ', "", r"board\.network needs a kind: crossbar, grid, torus or edges"),
    ("edges = [[0, 1], [1, 2]], ", "", r"board\.network needs either edges = .* or file"),
    ("outputs = [1]", 'outputs = [1], file = "e.csv"', r"board\.network needs either edges = .* or file"),
    ("outputs = [1]", "", r"TOML|outputs is missing"),
    ("targets_volts = [[0.2]]", "", r"task needs both inputs_volts and targets_volts"),
    ("targets_volts = [[0.2]]", 'targets_volts = [[0.2]]\nfile = "a.csv"', r"needs either inputs_volts .* or file"),
    ("targets_volts = [[0.2]]", 'targets_volts = [[0.2]]\nbias = ["1 V"]', r"task .*bias"),
    ("targets_volts = [[0.2]]", 'targets_volts = [[0.2]]\ntargets = "y"', r"task .*targets "),
    ("targets_volts = [[0.2]]", 'targets_volts = [[0.2]]\ninput_volts = ["0 V", "5 V"]', r"task .*input_volts"),
    ("targets_volts = [[0.2]]", 'targets_volts = [[0.2]]\ntarget_volts = ["0 V", "5 V"]', r"task .*target_volts"),
    (
        "targets_volts = [[0.2]]",
        "targets_volts = [[0.2]]\ntest_fraction = 0",
        r"test_fraction must lie between 0 and 1",
    ),
    ('initial = "1 mS"', "initial_code = 3", r"board initial_code needs a \[board\.pots\] section"),
    ('bits = 12, range = "5 V"', "bits = 12", r"simulation\.meters bits and range belong together"),
    ("bits = 12, ", 'bits = 12, resolution = "1 mV", ', r"resolution and bits exclude each other"),
    ("epochs = 1000", "epochs = 1\ndecay_power = 0.6", r"decay_power.*decay_updates"),
]


@pytest.mark.parametrize(
    ("old", "new", "message"), WRONG_VALUES, ids=[new[:50] or old[:30] for old, new, _ in WRONG_VALUES]
)
def test_wrong_values(old: str, new: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        prepare(Experiment.parse(changed(old, new), FILE))
    one_sentence(caught.value)


WRONG_CLASSES = [
    ('inputs = ["length", "width"]', "", r"task needs inputs: the columns"),
    ('inputs = ["length", "width"]', "inputs = []", r"inputs"),
    ('inputs = ["length", "width"]', "inputs = [3]", r"line 12: task\.inputs: .*string"),
    ('label = "species"', "", r"task needs either targets .* or label"),
    ('label = "species"', 'label = "species"\ntargets = "y"', r"task needs either targets .* or label"),
    ('label = "species"', 'targets = "y"', r"label and \[task\.encoding\] belong together"),
    ('label = "species"', 'label = "species"\ntarget_volts = ["0 V", "1 V"]', r"target_volts"),
    ('input_volts = ["0 V", "1 V"]', "", r"complement needs input_volts"),
    ('input_volts = ["0 V", "1 V"]', 'input_volts = "1 V"', r"task\.input_volts: "),
    ('input_volts = ["0 V", "1 V"]', 'input_volts = ["1 V"]', r"task\.input_volts: (?!is missing)"),
    ('input_volts = ["0 V", "1 V"]', 'input_volts = ["0 V", "1 V", "2 V"]', r"task\.input_volts: "),
    ('input_volts = ["0 V", "1 V"]', 'input_volts = [0, "1 A"]', r"task\.input_volts '1 A' has the wrong unit"),
    ("complement = true", "complement = 1", r"task\.complement: .*boolean"),
    ("complement = true", 'complement = "yes"', r"task\.complement: .*boolean"),
    ("complement = true", "input_range = [1, 0]", r"input_range is the lowest and the highest"),
    ("complement = true", "input_range = [nan, 0]", r"task\.input_range: .*finite"),
    ("complement = true", 'bias = "1 V"', r"task\.bias: .*list"),
    ('"30 %"', '"130 %"', r"test_fraction must lie between 0 and 1, got 1\.3"),
    ('"30 %"', '"30 V"', r"task\.test_fraction '30 V' has the wrong unit: it needs no unit"),
    ('"30 %"', "nan", r"task\.test_fraction.*finite"),
    ('"30 %"', "1" + "0" * 400, r"task\.test_fraction"),
    ('kind = "one-hot"', 'kind = "one_hot"', r"task\.encoding\.kind: .*'one-hot' or 'wired', got 'one_hot'"),
    ('kind = "one-hot"', 'kind = "wired"', r"task\.encoding wired needs levels"),
    ('low = "0.4 V"', "", r"task\.encoding one-hot needs low and high"),
    ('low = "0.4 V"', 'low = "0.4 V"\nlevels = { a = ["1 V"] }', r"one-hot needs low and high, and no levels"),
    ('end_to_end = "100 kΩ"', "", r"line 6: board\.pots\.end_to_end is missing: add it"),
    ('end_to_end = "100 kΩ"', 'end_to_end = "100 V"', r"line 8: board\.pots\.end_to_end '100 V' has the wrong unit"),
    ("positions = 128", "positions = 1", r"board\.pots\.positions: .*2, got 1"),
    ("positions = 128", "positions = 65537", r"board\.pots\.positions: .*65536"),
    ("positions = 128", "positions = 128\nlowest_code = -1", r"board\.pots\.lowest_code: .*0, got -1"),
    ("positions = 128", 'positions = 128\ninverted = "no"', r"board\.pots\.inverted: .*boolean"),
    ("[board]", "[board]\ninitial_code = 128", r"initial_code is 128, but codes end at 127"),
    ("[board]", "[board]\ninitial_code = -1", r"board\.initial_code: .*0, got -1"),
    ("[board]", '[board]\ninitial_code = 1\ninitial = "middle"', r"initial and initial_code exclude each other"),
]


@pytest.mark.parametrize(
    ("old", "new", "message"), WRONG_CLASSES, ids=[new[:50] or old[:30] for old, new, _ in WRONG_CLASSES]
)
def test_wrong_values_of_pots_and_classes(old: str, new: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        Experiment.parse(changed(old, new, CLASSES), FILE)
    one_sentence(caught.value)


def test_a_class_with_wrong_volts_is_named() -> None:
    levels = '[task.encoding]\nkind = "wired"\n[task.encoding.levels]\na = ["0.1 V"]\n'
    text = CLASSES.replace('[task.encoding]\nkind = "one-hot"\nlow = "0.4 V"\nhigh = "0.6 V"\n', levels)
    for name in ("str", "float", "Iris setosa", "inputs"):
        wrong = text.replace("[learning]", f'"{name}" = [0.5] # here\n[learning]')
        sentence = refusal(wrong)
        assert sentence.startswith(f"{FILE}, line {marked_line(wrong)}: task.encoding.levels.")
        assert name in sentence


@pytest.mark.parametrize("network", ["3", '"grid"', "[]", "true", "{}", "{ kind = 3 }", '{ kind = ["grid"] }'])
def test_a_network_of_another_shape(network: str) -> None:
    original = '{ kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }'
    assert refusal(changed(original, network)).startswith(f"{FILE}, line 3: board.network")


def test_a_section_of_another_shape() -> None:
    assert refusal("task = 3").startswith(f"{FILE}")
    assert refusal(changed("[limits]", "[[limits]]")).startswith(f"{FILE}, line 17: limits: ")


def test_a_long_value_is_not_repeated_at_length() -> None:
    refusal(changed('"1e-20 V²"', '"' + "x" * 5_000 + '"'))
    refusal(changed("epochs = 1000", "epochs = [" + "1, " * 5_000 + "]"))
    refusal(changed("[[0, 1], [1, 2]]", "[" * 200 + "]" * 200))


@pytest.mark.parametrize("wrong", ['"0.1\\n V"', '"""a\nb"""', '"\\u001b[2J"', '"\\u2028 \\u0000"'])
@pytest.mark.parametrize("place", ['"0.1 mS"', '"auto"', '"edges"', "1000", '"1e-20 V²"'])
def test_a_message_is_one_line_whatever_the_value(place: str, wrong: str) -> None:
    refusal(changed(place, wrong))


def test_a_message_is_one_line_whatever_the_path() -> None:
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse("x = 1", Path("a\nb.toml"))
    assert "\n" not in str(caught.value)


# Anything at all.

BASE: dict[str, Any] = {
    "board": {
        "network": {"kind": "edges", "edges": [[0, 1], [1, 2]], "inputs": [0, 2], "outputs": [1]},
        "g_min": "0.1 mS",
        "g_max": "10 mS",
        "initial": "1 mS",
    },
    "task": {"inputs_volts": [[1.0, 0.0], [0.5, 0.0]], "targets_volts": [[0.2], [0.1]]},
    "learning": {"step_size": "auto", "epochs": 10, "nudge": 1.0, "stop": {"loss": "0 V²"}},
    "limits": {"volts": "5 V", "amperes_per_pot": "1 A"},
    "simulation": {"seed": 0, "pots": {"tolerance": 0.1}, "meters": {"bits": 12, "range": "5 V"}},
    "store": {"file": "a.sqlite"},
}
POTS = copy.deepcopy(BASE)
POTS["board"] = {
    "network": {"kind": "crossbar", "inputs": 2, "outputs": 1},
    "pots": {"positions": 8, "end_to_end": "1 kΩ", "wiper": "50 Ω", "lowest_code": 1},
    "initial_code": 4,
}

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
scalars = st.one_of(
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([10**18, -(10**18), 10**30, 2**63, 10**400]),
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.text(characters, max_size=8),
    st.sampled_from(
        ["middle", "random", "auto", "1 mS", "-1 V", "0 S", "5 Ω", "20 %", "1 S/V²", "grid", "torus", "crossbar"]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(characters, max_size=6), st.sampled_from(["kind", "inputs", "rows"])), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a value."""
    inside = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [found for key, value in inside for found in [(*path, key), *places(value, (*path, key))]]


def check_whatever(text: str) -> None:
    """Prepare, or refuse in one sentence."""
    sentence = str(FILE)
    try:
        prepare(Experiment.parse(text, FILE))
    except InputError as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert str(FILE) in sentence
    assert len(sentence) < 2_000


@settings(max_examples=400, deadline=None)
@given(data=st.data(), base=st.sampled_from([BASE, POTS]))
def test_any_value_anywhere(data: st.DataObject, base: dict[str, Any]) -> None:
    values = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(values)))
        holder: Any = values
        for key in path:
            holder = holder[key]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            holder[last] = data.draw(anything)
        elif action == "remove" and len(places(values)) > 1:
            del holder[last]
        elif isinstance(holder, dict):
            holder[data.draw(st.text(characters, max_size=6))] = data.draw(anything)
    check_whatever(whole_file(values))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), base=st.sampled_from([DIVIDER, whole_file(POTS)]))
def test_any_slip_of_the_pen(data: st.DataObject, base: str) -> None:
    text = base
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 3)))
        inserted = data.draw(st.one_of(st.text(max_size=3), st.text('[]{}"=.,#\n -_0aV\\', max_size=3)))
        text = text[:start] + inserted + text[end:]
    check_whatever(text)


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError) as caught:
        Experiment.load(path)
    assert str(caught.value).isprintable()
