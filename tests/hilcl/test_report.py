import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.device_range import DeviceRange
from hilcl.errors import InputError
from hilcl.experiment import Experiment
from hilcl.network import Network
from hilcl.preparation import prepare
from hilcl.report import MAX_EDGES, MAX_OUTPUTS, duration, quantity, report_html, scientific, write_report
from hilcl.results import RunResult, load_run
from hilcl.session import Run
from hilcl.store import History, Store
from hilcl.task import Task

VOID = {"meta", "br", "link", "img", "input", "hr", "source"}
LOADING = {"src", "srcset", "href", "xlink:href", "data", "action", "formaction", "poster", "background"}

DIVIDER = """
# hostile: <script>alert("x")</script> & </pre>
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
epochs = 40
"""

CLASSES = """
[board]
network = { kind = "crossbar", inputs = 4, outputs = 2 }
[board.pots]
positions = 64
end_to_end = "10 kΩ"
wiper = "50 Ω"
series = "500 Ω"
[task]
file = "data.csv"
inputs = ["a", "b"]
label = "kind"
input_volts = ["0.5 V", "4.5 V"]
complement = true
test_fraction = 0.25
[task.encoding]
kind = "wired"
[task.encoding.levels]
"<b>low" = ["2.2 V", "2.2 V"]
high = ["2.8 V", "2.8 V"]
[learning]
step_size = "auto"
epochs = 12
"""

GRID = """
[board]
network = { kind = "grid", rows = 4, cols = 4, inputs = [0, 15], outputs = [5, 10] }
g_min = "10 µS"
g_max = "1 mS"
[task]
inputs_volts = [[1.0, 0.0], [0.0, 1.0], [0.9, 0.3]]
targets_volts = [[0.7, 0.4], [0.3, 0.6], [0.6, 0.5]]
[learning]
step_size = "auto"
decay_updates = 5
epochs = 30
"""


@dataclass
class Page(HTMLParser):
    """What a reader and a browser find in a page."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, str]] = []
        self.feed(self.text)
        self.close()
        self.unbalanced += [tag for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            section = named.get("aria-labelledby") or (tag if tag in {"header", "title", "style"} else None)
            self._open.append((tag, section or (self._open[-1][1] if self._open else "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        tag, section = self._open[-1]
        self.words[section] = self.words.get(section, "") + data
        if tag in {"td", "th"}:
            self.rows[-1][-1] += data

    def section(self, name: str) -> str:
        """Return a section's text with plain spaces."""
        return " ".join(self.words.get(name, "").split())

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]

    def row(self, first: str) -> list[str]:
        """Return the only row with this first cell, with plain spaces."""
        (found,) = [row for row in self.rows if row[:1] == [first]]
        return [" ".join(cell.split()) for cell in found]


def trained(folder: Path, text: str, *, stop: int | None = None, finish: bool = True) -> RunResult:
    preparation = prepare(Experiment.parse(text, folder / "experiment.toml"))
    with Store(folder / "runs.sqlite") as store:
        with Run.start(preparation, store, None) as run:
            for step in run.steps():
                if step.epoch + 1 == stop:
                    break
            if finish:
                run.finish()
        return load_run(store, run.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(1)
    low, high = generator.normal(1.0, 0.3, (20, 2)), generator.normal(3.0, 0.3, (20, 2))
    rows = [f"{a:.3f},{b:.3f},<b>low" for a, b in low] + [f"{a:.3f},{b:.3f},high" for a, b in high]
    (folder / "data.csv").write_text("\n".join(["a,b,kind", *rows, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def divider(folder: Path) -> RunResult:
    return trained(folder, DIVIDER)


@pytest.fixture(scope="module")
def classes(folder: Path) -> RunResult:
    return trained(folder, CLASSES)


@pytest.fixture(scope="module")
def grid(folder: Path) -> RunResult:
    return trained(folder, GRID)


@pytest.fixture(scope="module")
def unfinished(folder: Path) -> RunResult:
    return trained(folder, CLASSES, stop=5, finish=False)


@pytest.fixture(scope="module")
def empty(folder: Path) -> RunResult:
    preparation = prepare(Experiment.parse(DIVIDER, folder / "experiment.toml"))
    with Store(folder / "runs.sqlite") as store:
        with Run.start(preparation, store, "empty"):
            pass
        return load_run(store, "empty")


@pytest.fixture(scope="module")
def results(
    divider: RunResult, classes: RunResult, grid: RunResult, unfinished: RunResult, empty: RunResult
) -> dict[str, RunResult]:
    return {"divider": divider, "classes": classes, "grid": grid, "unfinished": unfinished, "empty": empty}


@pytest.fixture(scope="module")
def pages(results: dict[str, RunResult]) -> dict[str, Page]:
    return {name: Page(report_html(result)) for name, result in results.items()}


@pytest.fixture(params=["divider", "classes", "grid", "unfinished", "empty"])
def page(request: pytest.FixtureRequest, pages: dict[str, Page]) -> Page:
    return pages[request.param]


def with_summary(result: RunResult, **changes: Any) -> RunResult:
    assert result.summary is not None
    return replace(result, info=replace(result.info, summary=result.summary | changes))


def test_every_page_is_well_formed_html_with_language_title_and_one_heading(page: Page) -> None:
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.unbalanced == []
    names = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert names.count("h1") == names.count("title") == names.count("main") == 1
    assert page.section("title").endswith("hilcl run report")


def test_no_page_loads_or_runs_anything(page: Page) -> None:
    assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(tag for tag, _ in page.tags)
    for name in sorted(LOADING):
        for value in page.attributes(name):
            assert value.startswith(("#", "data:image/"))
    assert not [name for name in {key for _, each in page.tags for key in each} if name.startswith("on")]
    assert not re.search(r"https?:|@import|url\((?!#)", page.text)
    (policy,) = [
        each["content"] for tag, each in page.tags if each.get("http-equiv") == "Content-Security-Policy" and tag
    ]
    assert policy is not None
    assert "default-src 'none'" in policy


def test_ids_are_unique_and_every_reference_has_its_target(page: Page) -> None:
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r"url\(#([^)]+)\)", page.text)) | set(page.attributes("aria-labelledby"))
    used |= {value[1:] for name in ("href", "xlink:href") for value in page.attributes(name) if value[:1] == "#"}
    assert used <= set(ids)


def test_pictures_are_named_and_table_headers_say_what_they_head(page: Page) -> None:
    pictures = [each for tag, each in page.tags if tag == "svg"]
    assert pictures
    for each in pictures:
        assert each["role"] == "img"
        assert len(each["aria-label"] or "") > 20
    headers = [each for tag, each in page.tags if tag == "th"]
    assert headers
    assert {each.get("scope") for each in headers} == {"col", "row"}
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table")


def test_light_dark_phone_and_paper_have_their_styles(page: Page) -> None:
    style = page.section("style")
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 34rem"):
        assert rule in style
    assert any(each.get("name") == "viewport" for tag, each in page.tags if tag == "meta")


def test_the_experiment_file_is_shown_as_it_is_and_never_obeyed(pages: dict[str, Page], divider: RunResult) -> None:
    page = pages["divider"]
    assert DIVIDER in page.words["experiment"]
    assert divider.info.experiment == DIVIDER
    assert "<script" not in page.text


def test_all_that_a_user_can_name_is_escaped(classes: RunResult) -> None:
    nasty = '<img src=x onerror="alert(1)">'
    info = replace(classes.info, name=nasty, reason=nasty, versions={nasty: nasty}, status="failed", backend=nasty)
    for summary in (None, {**(classes.summary or {}), "certificate": [nasty], "remarks": [nasty], "stopped_by": nasty}):
        page = Page(report_html(replace(classes, info=replace(info, summary=summary))))
        assert "img" not in [tag for tag, _ in page.tags]
        assert page.section("header").count(nasty) >= 2
        assert page.unbalanced == []


def test_a_class_name_is_text_not_markup(pages: dict[str, Page]) -> None:
    page = pages["classes"]
    assert "b" not in [tag for tag, _ in page.tags]
    assert [row[0] for row in page.rows if row].count("<b>low") == 2


def test_the_headline_tells_the_loss_before_and_after(divider: RunResult, pages: dict[str, Page]) -> None:
    assert divider.summary is not None
    after = divider.summary["evaluation"]["train"]["loss"]
    assert after < 0.01
    spoken = " ".join(scientific(after, "V²").split())
    header = pages["divider"].section("header")
    assert f"The loss fell from 0.0900 V² to {spoken} with training." in header
    assert "All 40 epochs are done." in header
    assert "Finished" in header
    row = pages["divider"].row("Untrained, training data")
    assert row == ["Untrained, training data", "1", "0.0900 V²", "300 mV"]


def test_accuracies_and_confusion_matrices_are_those_of_the_summary(classes: RunResult, pages: dict[str, Page]) -> None:
    assert classes.summary is not None
    page = pages["classes"]
    for part, name, size in (("train", "training", 30), ("test", "test", 10)):
        confusion = np.array(classes.summary["evaluation"][part]["confusion"])
        assert confusion.sum() == size
        right = int(np.trace(confusion))
        said = f"{100 * right / size:.1f} % ({right} of {size})"
        assert f"{said} on {name} data" in page.section("header")
        assert f"Confusion matrix, {name.capitalize()} data: " in " ".join(page.attributes("aria-label"))
        head = next(row for row in page.rows if row and row[0] == "True class")
        assert head == ["True class", *classes.train.class_names, "Correct"]
        for c, class_name in enumerate(classes.train.class_names):
            counts = [str(count) for count in confusion[c].tolist()]
            assert [class_name, *counts] in [row[:-1] for row in page.rows]
    assert not page.section("outputs")


def test_a_class_without_samples_has_no_share(classes: RunResult) -> None:
    assert classes.summary is not None
    evaluation = classes.summary["evaluation"]
    test = evaluation["test"] | {"confusion": [[10, 0], [0, 0]], "accuracy": 1.0}
    page = Page(report_html(with_summary(classes, evaluation=evaluation | {"test": test})))
    assert ["high", "0", "0", "–"] in page.rows


def test_regression_shows_every_output_against_its_target(grid: RunResult, pages: dict[str, Page]) -> None:
    page = pages["grid"]
    assert grid.summary is not None
    measured = np.array(grid.summary["evaluation"]["train"]["outputs"])
    for column, node in enumerate((5, 10)):
        rms = float(np.sqrt(((measured - grid.train.targets)[:, column] ** 2).mean()))
        after = " ".join(quantity(rms, "V").split())
        labels = [" ".join(label.split()) for label in page.attributes("aria-label")]
        (label,) = [label for label in labels if label.startswith(f"Output at node {node} ")]
        assert f"{after} after" in label
    assert "Rings: untrained. Dots: trained." in page.section("outputs")
    assert not page.section("classes")


def test_many_outputs_are_cut_with_a_word(grid: RunResult) -> None:
    n_outputs = MAX_OUTPUTS + 3
    network = Network.crossbar(2, n_outputs)
    task = Task([[1.0, 0.0]], [[0.5] * n_outputs])
    history = replace(
        grid.history,
        conductances=np.full((len(grid.history), network.n_edges), 1e-4),
        outputs=np.full((len(grid.history), 1, n_outputs), 0.4),
        pinned=[np.zeros(0, dtype=np.int64)] * len(grid.history),
    )
    result = replace(
        grid, network=network, train=task, history=history, initial=np.full(network.n_edges, 1e-4),
        device_range=DeviceRange(1e-5, 1e-3), info=replace(grid.info, summary=None, status="stopped"),
    )  # fmt: skip
    page = Page(report_html(result))
    assert f"The first {MAX_OUTPUTS} of {n_outputs} outputs" in page.section("outputs")
    assert sum(label.startswith("Output at ") for label in page.attributes("aria-label")) == MAX_OUTPUTS


def test_the_certificate_and_the_remarks_are_said_in_full(divider: RunResult) -> None:
    result = with_summary(divider, remarks=["Something is odd."])
    page = Page(report_html(result))
    assert result.summary is not None
    assert len(result.summary["certificate"]) >= 3
    for sentence in result.summary["certificate"]:
        assert sentence in page.section("certificate")
    assert "Something is odd." in page.section("remarks")
    assert not Page(report_html(divider)).section("remarks")


def test_edges_held_at_a_limit_are_listed_with_their_limit(divider: RunResult) -> None:
    result = with_summary(divider, pinned=[0, 1], kept_conductances=[1e-4, 1e-2])
    page = Page(report_html(result))
    assert page_rows(page, "Limit")[0] == ["0", "0 – 1", "100 µS", "lower, 100 µS"]
    assert page_rows(page, "Limit")[1] == ["1", "1 – 2", "10.0 mS", "upper, 10.0 mS"]
    assert "2 edges at a limit, dashed" in page.section("board")
    assert page_rows(page, "Limit", first_head="Edge", width=6)[0][-1] == "lower"


def page_rows(page: Page, last_head: str, *, first_head: str = "Edge", width: int = 4) -> list[list[str]]:
    """Return the rows below the head with this first and last cell and so many cells."""
    (start,) = [
        n
        for n, row in enumerate(page.rows)
        if row[:1] == [first_head] and row[-1:] == [last_head] and len(row) == width
    ]
    body: list[list[str]] = []
    for row in page.rows[start + 1 :]:
        if len(row) != width or row[0] == first_head:
            break
        body.append([" ".join(cell.split()) for cell in row])
    return body


def test_the_table_of_conductances_has_the_state_that_was_kept(classes: RunResult, pages: dict[str, Page]) -> None:
    assert classes.summary is not None
    assert classes.history.codes is not None
    kept = classes.summary["kept_epoch"]
    assert kept > 0
    rows = page_rows(pages["classes"], "Limit", width=7)
    assert len(rows) == classes.network.n_edges
    for edge, row in enumerate(rows):
        first, second = classes.network.edges[edge]
        assert row[:2] == [str(edge), f"{first} – {second}"]
        assert row[2] == " ".join(quantity(classes.initial[edge], "S").split())
        assert row[3] == " ".join(quantity(classes.summary["kept_conductances"][edge], "S").split())
        # The law of the pot: 64 positions of 10 kΩ behind 550 Ω.
        assert 1 / (550 + 1e4 * int(row[5]) / 64) == pytest.approx(classes.summary["kept_conductances"][edge])


def test_the_codes_are_those_programmed_before_the_kept_epoch_was_measured(classes: RunResult) -> None:
    codes = classes.history.codes
    assert codes is not None
    assert codes[1].tolist() not in (codes[0].tolist(), codes[2].tolist(), codes[-1].tolist())
    page = Page(report_html(with_summary(classes, kept_epoch=2)))
    assert [int(row[5]) for row in page_rows(page, "Limit", width=7)] == codes[1].tolist()


def test_a_state_kept_from_the_start_has_no_codes(classes: RunResult) -> None:
    page = Page(report_html(with_summary(classes, kept_epoch=0)))
    assert "Code" not in [cell for row in page.rows for cell in row]


def test_no_pinned_edge_is_said_too(divider: RunResult) -> None:
    assert "No edge is held at a limit." in Page(report_html(with_summary(divider, pinned=[]))).section("board")


def test_a_falling_step_size_has_its_curve_and_a_constant_one_not(pages: dict[str, Page]) -> None:
    assert "Step size" in pages["grid"].section("training")
    assert "Step size" not in pages["divider"].section("training")


def test_contrast_below_zero_is_mentioned(divider: RunResult) -> None:
    contrast = divider.history.scalars["contrast"].copy()
    contrast[-1] = -1e-9
    history = replace(divider.history, scalars=divider.history.scalars | {"contrast": contrast})
    assert "at or below zero" in Page(report_html(replace(divider, history=history))).section("training")
    assert "at or below zero" not in Page(report_html(divider)).section("training")


def test_a_run_that_is_not_finished_says_so_and_how_to_go_on(unfinished: RunResult, pages: dict[str, Page]) -> None:
    header = pages["unfinished"].section("header")
    assert "Not finished" in header
    assert "5 of 12 epochs are stored" in header
    assert f"--resume {unfinished.info.name}" in header
    assert "The accuracy is measured when a run finishes." in header
    assert "The certificate is drawn up when a run finishes." in pages["unfinished"].section("certificate")
    loss = " ".join(scientific(unfinished.history.scalars["loss"][-1], "V²").split())
    assert pages["unfinished"].row("Last epoch, training data")[2] == loss
    assert "After the last stored epoch" in pages["unfinished"].section("board")
    codes = unfinished.history.codes
    assert codes is not None
    assert [row[5] for row in page_rows(pages["unfinished"], "Limit", width=7)] == [str(c) for c in codes[-1]]


def test_a_failed_run_gives_its_reason(unfinished: RunResult) -> None:
    info = replace(unfinished.info, status="failed", reason="the source on node 3 is in compliance.")
    header = Page(report_html(replace(unfinished, info=info))).section("header")
    assert "Failed" in header
    assert "5 of 12 epochs are stored: the source on node 3 is in compliance. Take it up" in header


def test_a_run_without_an_epoch_shows_the_plan(pages: dict[str, Page]) -> None:
    page = pages["empty"]
    assert "No epoch is stored yet" in page.section("header")
    for missing in ("training", "classes", "outputs", "timings"):
        assert not page.section(missing)
    assert "Before training: 1.00 mS." in page.section("board")
    assert "After" not in page.section("board")
    assert DIVIDER in page.words["experiment"]


def test_one_epoch_of_an_unfinished_run_is_the_untrained_board(folder: Path) -> None:
    header = Page(report_html(trained(folder, DIVIDER, stop=1, finish=False))).section("header")
    assert "The loss of the untrained board is 0.0900 V²." in header


def test_one_epoch_that_is_finished_is_reported(folder: Path) -> None:
    result = trained(folder, DIVIDER.replace("epochs = 40", "epochs = 1"))
    page = Page(report_html(result))
    assert "Its only epoch is done." in page.section("header")
    assert page.section("timings")


def test_an_early_stop_gives_its_reason(folder: Path) -> None:
    text = DIVIDER.replace("epochs = 40", 'epochs = 4000\nstop.loss = "1e-3 V²"')
    header = Page(report_html(trained(folder, text))).section("header")
    assert re.search(r"It ended after \d+ of 4000 epochs: the loss reached", header)


def test_times_are_summed_and_shared(divider: RunResult) -> None:
    scalars = divider.history.scalars
    shares = {"measure_s": 0.3, "update_s": 0.1, "program_s": 0.6}
    n_epochs = len(divider.history)
    scalars = scalars | {key: np.full(n_epochs, value) for key, value in shares.items()}
    page = Page(report_html(replace(divider, history=replace(divider.history, scalars=scalars))))
    assert page.row("Measuring both phases") == ["Measuring both phases", "12.0 s", "300 ms", "300 ms", "30 %"]
    assert page.row("Programming")[-1] == "60 %"
    assert page.row("All")[:3] == ["All", "40.0 s", "1.00 s"]


def test_versions_and_dates_are_given(divider: RunResult, pages: dict[str, Page]) -> None:
    text = pages["divider"].section("provenance")
    for name, number in divider.info.versions.items():
        assert pages["divider"].row(name) == [name, number]
    created = divider.info.created.replace("T", " ").removesuffix("+00:00")
    assert f"{created} UTC" in text
    assert divider.info.fingerprint in text


def big_result(divider: RunResult) -> RunResult:
    network = Network.grid(71, 71, inputs=[0, 5040], outputs=[2500])
    n_edges = network.n_edges
    start, after = np.full(n_edges, 1e-3), np.geomspace(1e-4, 1e-2, n_edges)
    history = History(
        divider.history.scalars,
        np.tile(after, (len(divider.history), 1)),
        None,
        divider.history.outputs,
        [np.arange(n_edges)] * len(divider.history),
    )
    info = replace(divider.info, summary=None, status="stopped", reason="the user pressed Ctrl-C")
    return replace(
        divider, info=info, network=network, history=history, initial=start, device_range=DeviceRange(1e-4, 1e-2)
    )


def test_a_board_of_ten_thousand_edges_is_cut_with_a_word(divider: RunResult) -> None:
    text = report_html(big_result(divider))
    assert len(text) < 2_000_000
    page = Page(text)
    note = f"The first {MAX_EDGES} of 9940 edges; hilcl export {divider.info.name} writes all of them."
    # Once below the edges at a limit, once below all edges.
    assert page.section("board").count(note) == 2
    assert len(page_rows(page, "Limit", width=4)) == MAX_EDGES


def test_unlimited_conductances_are_no_obstacle(divider: RunResult) -> None:
    page = Page(report_html(replace(with_summary(divider, pinned=[0]), device_range=DeviceRange.unbounded())))
    assert "1.00 pS to any" in page.section("key-figures")
    assert page_rows(page, "Limit")[0][-1] == "lower, 1.00 pS"


def test_equal_runs_give_equal_pages(divider: RunResult) -> None:
    assert report_html(divider) == report_html(divider)


def test_the_report_is_written_whole_and_replaces_an_old_one(divider: RunResult, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text("old")
    assert write_report(divider, path) == path
    assert path.read_text(encoding="utf-8") == report_html(divider)
    assert [each.name for each in tmp_path.iterdir()] == ["run.html"]


def test_a_place_that_cannot_be_written_is_a_sentence(divider: RunResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "run.html", tmp_path / "file" / "run.html", tmp_path / "folder"):
        with pytest.raises(InputError, match="cannot write"):
            write_report(divider, path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.857e-6, "9.86 µS"),
        (12.34e-6, "12.3 µS"),
        (999.6e-6, "1.00 mS"),
        (0.4, "400 mS"),
        (1.0, "1.00 S"),
        (-2.5e-3, "−2.50 mS"),
        (0.0, "0 S"),
        (1e-40, "1.00×10⁻⁴⁰ S"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (None, "–"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert " ".join(quantity(value, "S").split()) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.09, "0.0900 V²"),
        (3.0986e-3, "0.00310 V²"),
        (3.0986e-4, "3.10×10⁻⁴ V²"),
        (12.34, "12.3 V²"),
        (123.4, "123 V²"),
        (1234.0, "1.23×10³ V²"),
        (0.09996, "0.100 V²"),
        (0.0, "0 V²"),
        (None, "–"),
    ],
)
def test_squares_have_powers_of_ten_and_no_prefix(value: float | None, text: str) -> None:
    assert " ".join(scientific(value, "V²").split()) == text


PREFIXES = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6}


@given(st.floats(1e-8, 1e8))
def test_a_quantity_read_back_is_the_number_to_three_digits(value: float) -> None:
    number, unit = quantity(value, "S").split()
    assert float(number) * PREFIXES[unit.removesuffix("S")] == pytest.approx(value, rel=5.001e-3)
    assert 1.0 <= float(number) < 1000.0
    assert len(number.replace(".", "")) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3934, "393 ms"),
        (12.0, "12.0 s"),
        (59.99, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_times_are_said_in_the_units_of_a_clock(seconds: float, text: str) -> None:
    assert " ".join(duration(seconds).split()) == text
