"""A run as one self-contained HTML page: no scripts, nothing loaded from anywhere."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hilcl import plots
from hilcl.arrays import FloatArray, IntArray
from hilcl.drawing import draw_board, figure_svg
from hilcl.errors import InputError
from hilcl.export import write_file
from hilcl.results import RunResult
from hilcl.summary import held_at_limits

MAX_EDGES = 500
"""Rows of a table of edges: a longer one is cut, and says so."""

MAX_OUTPUTS = 12
"""Output nodes that get a picture of their own."""

UNKNOWN = "–"
"""Stands where there is no number."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPACE = "\N{NARROW NO-BREAK SPACE}"

_STATUS = {
    "finished": "Finished",
    "running": "Not finished",
    "stopped": "Stopped",
    "failed": "Failed",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page; ``label`` is what a screen reader says instead of it."""

    svg: Markup
    label: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it. ``note`` stands below, the columns ``texts`` are set flush left."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    texts: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix with class names; ``shares`` are its cells as parts of their row's sum, for the shading."""

    caption: str
    names: list[str]
    counts: list[list[int]]
    shares: list[list[float]]
    correct: list[str]


def write_report(result: RunResult, path: Path) -> Path:
    """Write the report of a run to ``path`` and return it; an existing file is replaced only by a complete one.

    Raises InputError where the file cannot be written.
    """
    page = report_html(result).encode("utf-8")

    def write(file: IO[bytes]) -> None:
        file.write(page)

    write_file(path, write)
    return path


def report_html(result: RunResult) -> str:
    """Return the report of a run as the text of an HTML page; equal runs give equal pages."""
    info = result.info
    outputs, legend = _outputs(result)
    return _template().render(
        name=info.name,
        status=info.status,
        status_word=_STATUS.get(info.status, info.status),
        status_sentence=status_sentence(result),
        outcome=outcome_sentences(result),
        results=_results_table(result),
        figures=_facts(result),
        certificate=[] if result.summary is None else result.summary["certificate"],
        remarks=[] if result.summary is None else result.summary["remarks"],
        curves=_curves(result),
        boards=_boards(result),
        pinned=_pinned_table(result),
        confusions=_confusions(result),
        outputs=outputs,
        outputs_legend=legend,
        conductances=_conductance_table(result),
        timings=_timings_table(result),
        experiment=info.experiment,
        provenance=_provenance(result),
        versions=Table("Versions", ("What", "Version"), sorted(info.versions.items()), texts=(0, 1)),
    )


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a number and its unit with a prefix, such as "12.3 µS"; ``UNKNOWN`` where it is not finite."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return f"0{_SPACE}{unit}"
    mantissa, exponent = _mantissa(value, digits)
    thousands = 3 * (exponent // 3)
    if thousands not in EngFormatter.ENG_PREFIXES:
        return scientific(value, unit, digits)
    shift = exponent - thousands
    number = f"{mantissa * 10**shift:.{max(0, digits - 1 - shift)}f}".replace("-", "−")
    return f"{number}{_SPACE}{EngFormatter.ENG_PREFIXES[thousands]}{unit}"


def scientific(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a number in front of a unit that takes no prefix, such as "3.10×10⁻⁴ V²" (1 mV² is 10⁻⁶ V²)."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return f"0{_SPACE}{unit}"
    mantissa, exponent = _mantissa(value, digits)
    if -3 <= exponent < digits:
        number = f"{value:.{max(0, digits - 1 - exponent)}f}"
    else:
        number = f"{mantissa:.{digits - 1}f}×10{str(exponent).translate(_SUPERSCRIPTS)}"
    return f"{number}{_SPACE}{unit}".replace("-", "−")


def duration(seconds: float) -> str:
    """Return a time as it is read aloud: "393 ms", "12.0 s", "3 min 20 s", "2 h 05 min"."""
    if not seconds >= 59.95:
        return quantity(seconds, "s")
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {rest:02d}{_SPACE}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{_SPACE}h {minutes:02d}{_SPACE}min"


def status_sentence(result: RunResult) -> str:
    """Return how the run stands, and why."""
    info, done = result.info, len(result.history)
    asked = info.settings.get("learning", {}).get("epochs")
    epochs = f"{done} of {asked} epochs" if asked is not None else _count(done, "epoch")
    reason = f": {info.reason.rstrip('.')}" if info.reason else ""
    if info.status == "finished" and result.summary is not None:
        if done == asked:
            return "Its only epoch is done." if done == 1 else f"All {done} epochs are done."
        return f"It ended after {epochs}: {result.summary['stopped_by'].rstrip('.')}."
    resume = f"Take it up again with: hilcl run EXPERIMENT.toml --resume {info.name}"
    if info.status == "running":
        return f"{epochs} are stored; the run is still going on, or its process was killed. {resume}"
    if info.status == "finished":
        return f"{epochs} are stored, but the run has no summary. {resume}"
    return f"{epochs} are stored{reason}. {resume}"


def outcome_sentences(result: RunResult) -> list[str]:
    """Return what came of the run, the most important first."""
    first, last = _loss(result, "untrained"), _loss(result, "train")
    if last is None:
        return ["No epoch is stored yet, so there is nothing to report but the plan."]
    if first is None or (result.summary is None and len(result.history) == 1):
        return [f"The loss of the untrained board is {scientific(last, 'V²')}."]
    change = "fell from" if last < first else "rose from" if last > first else "stayed at"
    whole = scientific(last, "V²") if last == first else f"{scientific(first, 'V²')} to {scientific(last, 'V²')}"
    when = "with training" if result.summary is not None else "up to the last stored epoch"
    said = [f"The loss {change} {whole} {when}."]
    accuracies = [
        f"{_accuracy(part)} on {name} data"
        for key, name in (("train", "training"), ("test", "test"))
        if (part := _part(result, key)) is not None and part["accuracy"] is not None
    ]
    if accuracies:
        said.append(f"Accuracy: {', '.join(accuracies)}.")
    elif result.train.labels is not None:
        said.append("The accuracy is measured when a run finishes.")
    return said


def _results_table(result: RunResult) -> Table | None:
    """Return loss, RMS error and accuracy of the untrained and the trained board."""
    if _loss(result, "train") is None:
        return None
    parts = [("untrained", "Untrained, training data"), ("train", "Trained, training data")]
    if result.summary is None:
        parts[1] = ("train", "Last epoch, training data")
    if _part(result, "test") is not None:
        parts.append(("test", "Trained, test data"))
    rows = []
    for key, name in parts:
        task, loss, part = result.test if key == "test" else result.train, _loss(result, key), _part(result, key)
        row = [
            name,
            UNKNOWN if task is None else str(len(task)),
            scientific(loss, "V²"),
            quantity(None if loss is None else math.sqrt(loss), "V"),
        ]
        if result.train.labels is not None:
            row.append(_accuracy(part))
        rows.append(tuple(row))
    head = ["Board and data", "Samples", "Loss", "RMS error"]
    if result.train.labels is not None:
        head.append("Accuracy")
    return Table(
        "The board before and after training",
        tuple(head),
        rows,
        "Loss: squared output error, mean over samples and outputs.",
    )


def _facts(result: RunResult) -> list[tuple[str, str]]:
    """Return the key figures of board, rule and run."""
    network, limits, history, summary = result.network, result.device_range, result.history, result.summary
    learning: dict[str, Any] = result.info.settings.get("learning", {})
    roles = (
        f"{_count(len(network.inputs), 'input')}, {_count(len(network.outputs), 'output')}, "
        f"{len(network.hidden) or 'none'} hidden"
    )
    facts = [
        ("Back end", result.info.backend),
        ("Board", f"{_count(network.n_nodes, 'node')} ({roles}), {_count(network.n_edges, 'edge')}"),
        ("Conductance limits", _range_text(limits.g_min, limits.g_max)),
    ]
    data = _count(len(result.train), "training sample")
    if result.test is not None:
        data += f", {_count(len(result.test), 'test sample')}"
    if result.train.class_names:
        data += f", {len(result.train.class_names)} classes"
    facts.append(("Data", data))
    if learning:
        batch = learning.get("batch_size")
        facts.append(
            (
                "Rule",
                f"Contrastive Learning, nudge {learning.get('nudge', 1.0):g}, "
                + ("all samples per update" if batch is None else f"{_count(batch, 'sample')} per update"),
            )
        )
    if len(history):
        steps = history.scalars["step_size"]
        last = "" if np.ptp(steps) == 0 else f", falling to {scientific(float(steps[-1]), 'S/V²')}"
        facts.append(("Step size γ", f"{scientific(float(steps[0]), 'S/V²')}{last}"))
    if summary is not None:
        kept = summary["kept_epoch"]
        facts.append(
            ("State kept", "the last one" if kept is None else f"the one measured in epoch {kept} (smallest loss)")
        )
    if len(history):
        power = history.scalars["power"]
        facts.append(
            (
                "Power, free phase",
                f"{quantity(power[0], 'W')} at the first epoch, {quantity(power[-1], 'W')} at the last",
            )
        )
        facts.append(("Largest clamp error", quantity(float(history.scalars["clamp_error"].max()), "V")))
    facts.append(("Edges at a limit", f"{len(_pinned(result))} of {network.n_edges}"))
    return facts


def _curves(result: RunResult) -> list[Picture]:
    history, summary = result.history, result.summary
    if not len(history):
        return []
    scalars = history.scalars
    epochs, loss, contrast, steps = (scalars[key] for key in ("epoch", "loss", "contrast", "step_size"))
    kept = None if summary is None else summary["kept_epoch"]
    pictures = [
        _picture(
            plots.loss_figure(epochs, loss, kept_epoch=kept),
            "loss",
            f"Loss over {_count(len(history), 'epoch')}: {scientific(loss[0], 'V²')} at the first, "
            f"{scientific(loss[-1], 'V²')} at the last, {scientific(loss.min(), 'V²')} at the smallest.",
            "Loss of the free phase, measured before each epoch's update.",
        )
    ]
    batch = result.info.settings.get("learning", {}).get("batch_size")
    bounded = summary is not None and summary["coverage"] == "convex" and batch is None
    caption = "Contrast Q: mean power of the second phase minus that of the free phase."
    if (contrast <= 0).any() and (contrast > 0).any():
        caption += " Epochs with Q at or below zero, as noise can make it, are left out."
    pictures.append(
        _picture(
            plots.contrast_figure(epochs, contrast, scalars["lower_bound"] if bounded else None),
            "contrast",
            f"Contrast Q over {_count(len(history), 'epoch')}: {quantity(contrast[0], 'W')} at the first, "
            f"{quantity(contrast[-1], 'W')} at the last.",
            caption,
        )
    )
    if np.ptp(steps) > 1e-9 * steps.max():
        pictures.append(
            _picture(
                plots.step_size_figure(epochs, steps),
                "steps",
                f"Step size over {_count(len(history), 'epoch')}: from {scientific(steps[0], 'S/V²')} "
                f"to {scientific(steps[-1], 'S/V²')}.",
                "Step size γ of each epoch's last update.",
            )
        )
    return pictures


def _boards(result: RunResult) -> list[Picture]:
    """Return the board before and after training, with one scale of conductances for both."""
    before, after = result.initial, result.last_conductances
    together = np.concatenate([before, after])
    low, high = float(together.min()), float(together.max())
    limits = (low, high) if high > 1.001 * low else (low / 2, 2 * high)
    states: list[tuple[str, str, FloatArray, Sequence[int]]] = [
        ("before", "Before training", before, held_at_limits(before, result.device_range))
    ]
    if len(result.history):
        name = "After training" if result.summary is not None else "After the last stored epoch"
        states.append(("after", name, after, _pinned(result)))
    pictures = []
    for key, name, conductances, pinned in states:
        axes = draw_board(result.network, conductances, limits=limits, pinned=np.array(pinned, dtype=np.int64))
        figure = axes.get_figure(root=True)
        if figure is None:
            raise InputError("the picture of the board has no figure")
        held = f"; {_count(len(pinned), 'edge')} at a limit, dashed" if pinned else ""
        reach = _range_text(conductances, conductances)
        label = f"Board {name.lower()}: {result.network.n_edges} edges of {reach}{held}."
        pictures.append(_picture(figure, f"board-{key}", label, f"{name}: {reach}{held}."))
    return pictures


def _pinned(result: RunResult) -> list[int]:
    """Return the edges held at a limit at the end, ascending."""
    if result.summary is not None:
        return sorted(result.summary["pinned"])
    if len(result.history):
        return sorted(result.history.pinned[-1].tolist())
    return held_at_limits(result.initial, result.device_range)


def _pinned_table(result: RunResult) -> Table | None:
    pinned = _pinned(result)
    if not pinned:
        return None
    limits, conductances = result.device_range.for_edges(result.network.n_edges), result.last_conductances
    rows = [
        (str(edge), _ends(result, edge), quantity(conductances[edge], "S"), f"{side}, {quantity(limit, 'S')}")
        for edge in pinned[:MAX_EDGES]
        for side, limit in [_limit_of(conductances[edge], limits.g_min[edge], limits.g_max[edge])]
    ]
    return Table("Edges held at a limit", ("Edge", "Nodes", "Conductance", "Limit"), rows, _cut(len(pinned), result))


def _conductance_table(result: RunResult) -> Table:
    n_edges, trained = result.network.n_edges, bool(len(result.history))
    codes = _kept_codes(result)
    head = ["Edge", "Nodes", "Before"]
    if trained:
        head += ["After", "Change"]
    if codes is not None:
        head.append("Code")
    head.append("Limit")
    limits = result.device_range.for_edges(n_edges)
    before, after, pinned = result.initial, result.last_conductances, set(_pinned(result))
    rows = []
    for edge in range(min(n_edges, MAX_EDGES)):
        row = [str(edge), _ends(result, edge), quantity(before[edge], "S")]
        if trained:
            row += [quantity(after[edge], "S"), _change(before[edge], after[edge])]
        if codes is not None:
            row.append(str(codes[edge]))
        side = _limit_of(after[edge], limits.g_min[edge], limits.g_max[edge])[0] if edge in pinned else ""
        rows.append((*row, side))
    return Table("Conductances of all edges", tuple(head), rows, _cut(n_edges, result), texts=(0, len(head) - 1))


def _kept_codes(result: RunResult) -> IntArray | None:
    """Return the codes (M,) of the conductances kept, or None where there are none or they were not recorded."""
    codes = result.history.codes
    if codes is None or not len(codes):
        return None
    kept = None if result.summary is None else result.summary["kept_epoch"]
    # An epoch's loss belongs to what the epoch before has programmed; nothing records the codes of the start.
    if kept == 0:
        return None
    row: IntArray = codes[-1 if kept is None else kept - 1]
    return row


def _confusions(result: RunResult) -> list[Confusion]:
    matrices = []
    for key, caption in (("test", "Test data"), ("train", "Training data")):
        part = _part(result, key)
        if part is None or part["confusion"] is None:
            continue
        counts = [[int(cell) for cell in row] for row in part["confusion"]]
        known = result.train.class_names
        names = [known[c] if c < len(known) else f"class {c}" for c in range(len(counts))]
        sums = [sum(row) for row in counts]
        matrices.append(
            Confusion(
                f"{caption}: {_accuracy(part)}",
                names,
                counts,
                [[cell / max(1, total) for cell in row] for row, total in zip(counts, sums, strict=True)],
                [_percent(row[c], total) for c, (row, total) in enumerate(zip(counts, sums, strict=True))],
            )
        )
    return matrices


def _outputs(result: RunResult) -> tuple[list[Picture], str]:
    """Return target against output for each output node, and how to read them; nothing where there are classes."""
    history, nodes = result.history, result.network.outputs
    if result.train.labels is not None or not len(history):
        return [], ""
    trained, test = _part(result, "train"), _part(result, "test")
    legend = "Measured output against target of every sample; on the line they are equal. Rings: untrained. "
    parts = [(result.train.targets, history.outputs[0])]
    if trained is None:
        legend += "Dots: last epoch."
        parts.append((result.train.targets, history.outputs[-1]))
    else:
        legend += "Dots: trained."
        parts.append((result.train.targets, np.array(trained["outputs"])))
    if test is not None and result.test is not None:
        legend += " Diamonds: trained, test data."
        parts.append((result.test.targets, np.array(test["outputs"])))
    if len(nodes) > MAX_OUTPUTS:
        legend += (
            f" The first {MAX_OUTPUTS} of {len(nodes)} outputs; hilcl export {result.info.name} writes all of them."
        )
    pictures = []
    for column, node in enumerate(nodes[:MAX_OUTPUTS].tolist()):
        shown = [plots.Outputs(targets[:, column], measured[:, column]) for targets, measured in parts]
        rms = [math.sqrt(float(np.mean((part.measured - part.targets) ** 2))) for part in shown]
        caption = f"RMS error {quantity(rms[0], 'V')} before, {quantity(rms[1], 'V')} after"
        caption += f", {quantity(rms[2], 'V')} on test data." if len(rms) > 2 else "."
        name = f"Output at {result.network.name(node)}"
        figure = plots.output_figure(shown, title=name)
        pictures.append(_picture(figure, f"output-{column}", f"{name} against its target. {caption}", caption))
    return pictures, legend


def _timings_table(result: RunResult) -> Table | None:
    if not len(result.history):
        return None
    scalars = result.history.scalars
    parts = [
        ("Measuring both phases", scalars["measure_s"]),
        ("Update and projection", scalars["update_s"]),
        ("Programming", scalars["program_s"]),
    ]
    total = sum(values for _, values in parts)
    whole = float(np.sum(total))
    rows = [
        (
            name,
            duration(float(values.sum())),
            quantity(float(np.median(values)), "s"),
            quantity(float(values.max()), "s"),
            _percent(float(values.sum()), whole, digits=0),
        )
        for name, values in [*parts, ("All", np.asarray(total))]
    ]
    return Table("Time in the loop", ("Part", "In all", "Median per epoch", "Longest", "Share"), rows)


def _provenance(result: RunResult) -> list[tuple[str, str]]:
    info = result.info
    return [
        ("Run", info.name),
        ("Created", _moment(info.created)),
        ("Finished" if info.status == "finished" else "Ended", _moment(info.finished)),
        ("Fingerprint of wiring and data", info.fingerprint),
    ]


def _picture(figure: Figure, prefix: str, label: str, caption: str) -> Picture:
    figure.set_facecolor("none")
    text = figure_svg(figure, prefix)
    # Inside HTML an <svg> needs no namespace, and without one the page holds no address at all.
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    # format escapes the label.
    named = Markup('<svg role="img" aria-label="{}"').format(label)
    # The figure is ours: matplotlib writes its letters as paths, so no text of the user is in it.
    return Picture(Markup(text.replace("<svg", named, 1)), label, caption)  # noqa: S704


def _part(result: RunResult, key: str) -> dict[str, Any] | None:
    """Return what was evaluated of "untrained", "train" or "test", if it was."""
    part: dict[str, Any] | None = None if result.summary is None else result.summary["evaluation"].get(key)
    return part


def _loss(result: RunResult, key: str) -> float | None:
    """Return a loss in V²; of a run that is not finished, that of its first or last epoch."""
    part = _part(result, key)
    if part is not None:
        return float(part["loss"])
    loss = result.history.scalars["loss"]
    if not len(loss) or key == "test":
        return None
    return float(loss[0] if key == "untrained" else loss[-1])


def _accuracy(part: dict[str, Any] | None) -> str:
    if part is None or part["accuracy"] is None:
        return UNKNOWN
    confusion = np.array(part["confusion"])
    right, total = int(np.trace(confusion)), int(confusion.sum())
    return f"{_percent(right, total)} ({right} of {total})"


def _percent(part: float, whole: float, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f}{_SPACE}%" if whole > 0 else UNKNOWN


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}{_SPACE}%".replace("-", "−") if after != before else f"0{_SPACE}%"


def _limit_of(conductance: float, low: float, high: float) -> tuple[str, float]:
    """Return which limit a pinned conductance is held at: the nearer one in ratio."""
    upper = math.isfinite(high) and conductance / low > high / conductance
    return ("upper", high) if upper else ("lower", low)


def _range_text(lows: FloatArray, highs: FloatArray) -> str:
    low, high = float(lows.min()), float(highs.max())
    if low == high:
        return quantity(low, "S")
    return f"{quantity(low, 'S')} to {'any' if math.isinf(high) else quantity(high, 'S')}"


def _ends(result: RunResult, edge: int) -> str:
    first, second = (int(node) for node in result.network.edges[edge])
    return f"{first} – {second}"


def _cut(n_edges: int, result: RunResult) -> str:
    if n_edges <= MAX_EDGES:
        return ""
    return f"The first {MAX_EDGES} of {n_edges} edges; hilcl export {result.info.name} writes all of them."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _moment(text: str | None) -> str:
    if text is None:
        return UNKNOWN
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return text


def _mantissa(value: float, digits: int) -> tuple[float, int]:
    """Return mantissa and exponent of a number rounded to so many digits."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return float(mantissa), int(exponent)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("hilcl"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")
