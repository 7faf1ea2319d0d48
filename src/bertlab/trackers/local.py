"""Local files: `metrics.jsonl`, one record a line, and `curves.png`. Written for every run, whatever other
tracker there is.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bertlab.config.schema import TrackerConfig
from bertlab.contracts import Metric, RunInfo, Tracker
from bertlab.declarations import PAIRS_ACCURACY, PAIRS_WORDS
from bertlab.runs.files import open_new, unusable, write_atomically
from bertlab.runs.summaries import best_possible as best_of


@dataclass
class Local(TrackerConfig):
    """Nothing to set: these files are written for every run."""

    side_by_side: ClassVar = True

    def build(self, _info: RunInfo) -> None:
        """Nothing beside them."""


class LocalTracker(Tracker):
    """See contracts.Tracker."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.records: list[dict[str, Any]] = []
        self.file = open_new(info.folder / "metrics.jsonl", "w")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line; flushed, so that a killed run leaves what it knew."""
        self.records.append(record)
        try:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
        except OSError as error:
            raise unusable(self.info.folder / "metrics.jsonl", error) from error

    def finish(self, summary: dict[str, Any]) -> None:
        """Close the file and draw the curves."""
        self.file.close()
        if self.records:
            best = best_of(summary.get("metrics", {}), self.info.split, self.info.primary.name)
            draw_curves(self.records, self.info, self.info.folder / "curves.png", best)


def draw_curves(
    records: list[dict[str, Any]], info: RunInfo, path: Path, best_possible: float | None = None
) -> None:
    """`curves_figure` as PNG."""
    figure = curves_figure(records, info.primary, info.loss_unit, info.title, best_possible, info.split)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))


def curves_figure(
    records: list[dict[str, Any]],
    primary: Metric,
    loss_unit: str,
    title: str,
    best_possible: float | None = None,
    split: str = "validation",
) -> Any:
    """The loss and the primary metric over epochs, of training and of the split scored meanwhile; snapshots
    on minimal pairs over words seen.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A picture in a notebook, also where nothing has told Jupyter of matplotlib."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=120)
            return stream.getvalue()

    pairs = PAIRS_ACCURACY
    snapshots = [
        (record[PAIRS_WORDS], pairs.factor * record[pairs.name]) for record in records if pairs.name in record
    ]
    figure = Shown(figsize=(15 if snapshots else 10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, *more = figure.subplots(1, 3 if snapshots else 2)
    for axes in more:
        axes.plot(*zip(*snapshots, strict=True), color="C2", linewidth=1.6, marker="o", markersize=3.5)
        axes.set_xscale("log")
        axes.set_xlabel("words seen")
        axes.set_ylabel("minimal pairs, accuracy (%), higher is better")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes, name, label in (
        (loss, "train/loss", "training"),
        (loss, f"{split}/loss", split),
        (score, f"{split}/{primary.name}", split),
    ):
        factor = primary.factor if axes is score else 1
        points = [(record["epoch"], factor * record[name]) for record in records if name in record]
        if points:
            few = len(points) < 40
            color = "C0" if label == "training" else "C1"
            axes.plot(
                *zip(*points, strict=True),
                label=label,
                color=color,
                linewidth=1.6,
                marker="o" if few else None,
                markersize=3.5,
            )
    if best_possible is not None:
        score.axhline(
            primary.factor * best_possible, color="black", linestyle=":", linewidth=1.2, label="best possible"
        )
    for axes, name in ((loss, f"loss ({loss_unit})"), (score, f"{primary.label}, {primary.direction}")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure
