"""Draw the pictures of the README from a fresh run of the Iris example: python docs/images/make_images.py."""

import tempfile
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hilcl.drawing import draw_board
from hilcl.experiment import Experiment
from hilcl.preparation import prepare
from hilcl.results import load_run
from hilcl.session import Run
from hilcl.store import Store

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write iris-board.png: loss, and the board before and after."""
    preparation = prepare(Experiment.load(HERE.parents[1] / "examples" / "iris.toml"))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "runs.sqlite") as store:
        with Run.start(preparation, store, "iris") as run:
            for _ in run.steps():
                pass
            summary = run.finish()
        result = load_run(store, "iris")
    limits = preparation.device_range
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    curve, before, after = figure.subplots(1, 3, width_ratios=[1, 1.25, 1.25])
    curve.semilogy(result.history.scalars["epoch"], result.history.scalars["loss"], color="#1b6ca8")
    curve.set(xlabel="epoch", ylabel="mean squared error / V²", title="Training")
    curve.grid(visible=True, which="both", alpha=0.25)
    accuracy = summary["evaluation"]["test"]["accuracy"]
    scale = (float(limits.g_min.min()), float(result.last_conductances.max()))
    draw_board(result.network, result.initial, ax=before, title="Before: all pots in the middle", limits=scale)
    title = f"After: {accuracy:.0%} of the test flowers right"
    draw_board(result.network, result.last_conductances, ax=after, title=title, limits=scale)
    figure.savefig(HERE / "iris-board.png", dpi=110)


if __name__ == "__main__":
    main()
