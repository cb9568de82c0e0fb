"""Every example runs as it is, from the command line, and makes its point."""

from pathlib import Path

import pytest

from hilcl.results import RunResult, load_run
from hilcl.store import Store
from tests.command_line import EXAMPLES, copy_example, hilcl, listing


def result_of(name: str, folder: Path, *options: str) -> RunResult:
    """Run an example to its end and return what was stored."""
    copy_example(name, folder)
    done = hilcl("run", f"{name}.toml", *options, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Stored as run '{name}' in hilcl.sqlite." in done.stdout
    with Store(folder / "hilcl.sqlite", writable=False) as store:
        result = load_run(store, name)
    assert result.info.status == "finished"
    return result


def test_all_examples_are_tested() -> None:
    tested = {"allostery", "bench16", "bench32", "crossbar", "divider", "iris", "regression"}
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == tested


def test_the_divider_meets_its_target(tmp_path: Path) -> None:
    result = result_of("divider", tmp_path, "--no-report")
    assert result.summary is not None
    assert result.summary["evaluation"]["train"]["loss"] < 1e-18
    assert result.summary["evaluation"]["train"]["outputs"] == [[pytest.approx(0.2, abs=1e-9)]]
    assert result.summary["evaluation"]["untrained"]["loss"] == pytest.approx(0.09)
    g1, g2 = result.last_conductances
    assert g1 / (g1 + g2) == pytest.approx(0.2, abs=1e-9)


def test_allostery_reaches_its_targets_through_hidden_nodes(tmp_path: Path) -> None:
    result = result_of("allostery", tmp_path, "--no-report")
    assert result.summary is not None
    assert result.summary["coverage"] == "stationary"
    assert result.summary["evaluation"]["train"]["loss"] <= 1e-11
    assert result.summary["evaluation"]["train"]["outputs"] == [pytest.approx([0.75, 0.30], abs=1e-5)]
    assert "the loss reached" in result.summary["stopped_by"]
    assert len(result.network.hidden) == 12
    contrast = result.history.scalars["contrast"]
    assert (contrast[1:] <= contrast[:-1]).all()


def test_the_crossbar_ends_with_a_certificate(tmp_path: Path) -> None:
    result = result_of("crossbar", tmp_path, "--no-report")
    assert result.summary is not None
    assert result.summary["coverage"] == "convex"
    loss, contrast = result.history.scalars["loss"], result.history.scalars["contrast"]
    assert loss[-1] < 1e-3 * loss[0]
    gap = contrast[-1] - result.history.scalars["lower_bound"].max()
    assert 0 <= gap < 1e-3 * contrast[0]
    assert any("above the smallest that the conductance limits allow" in line for line in result.summary["certificate"])


def test_the_regression_generalises(tmp_path: Path) -> None:
    result = result_of("regression", tmp_path, "--no-report")
    assert result.summary is not None
    parts = result.summary["evaluation"]
    assert parts["test"]["loss"] < 1e-3
    assert parts["train"]["loss"] < 1e-2 * parts["untrained"]["loss"]
    assert result.test is not None


@pytest.mark.parametrize("backend", ["sim", "emulated"])
@pytest.mark.parametrize(("name", "factor"), [("bench16", 1e-3), ("bench32", 1e-4)])
def test_the_benches_train_simulated_and_emulated(name: str, factor: float, backend: str, tmp_path: Path) -> None:
    result = result_of(name, tmp_path, "--backend", backend, "--no-report")
    assert result.info.backend == backend
    assert result.summary is not None
    parts = result.summary["evaluation"]
    assert parts["train"]["loss"] < factor * parts["untrained"]["loss"]
    assert sum(part.startswith("instrument ") for part in result.info.versions) == (
        0 if backend == "sim" else 3 if name == "bench16" else 4
    )


def test_iris_with_its_report(tmp_path: Path) -> None:
    result = result_of("iris", tmp_path)
    assert result.summary is not None
    parts = result.summary["evaluation"]
    assert parts["test"]["accuracy"] > 0.9
    assert parts["train"]["accuracy"] > 0.9
    assert sum(map(sum, parts["test"]["confusion"])) == 45
    assert (tmp_path / "reports" / "iris.html").stat().st_size > 10_000
    assert listing(tmp_path) == {
        "data", "data/crossbar.csv", "data/iris.csv", "data/regression.csv", "hilcl.sqlite", "iris.toml", "reports",
        "reports/iris.html",
    }  # fmt: skip
