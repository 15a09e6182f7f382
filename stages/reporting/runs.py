"""What the report shows of a run, which is a set and a backbone, read from metrics/."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.command_line import UserError
from stages.common.files import read_csv, read_json
from stages.reporting.charts import Chart, class_orders, line_chart
from stages.reporting.tables import (
    MODELS,
    Confusion,
    Prediction,
    confident_mistakes,
    count_confusions,
    describe_comparison,
    find_confusions,
    find_reservations,
    flatten,
    most_uncertain,
    parse_predictions,
    sample_classes,
    sample_right,
    sort_classes,
)


@dataclass(frozen=True)
class ModelView:
    """What the page shows of one model of a run."""

    title: str
    column: str
    """How the columns of the table of classes begin that are of this model."""
    scores: Mapping[str, Any]
    history: Sequence[Mapping[str, str]]
    """Of training, a row for each epoch."""
    charts: Mapping[str, Chart]
    reliability: list[tuple[float, float, int]]
    """Mean confidence, accuracy and images of each bin."""
    predictions: list[Prediction]
    confusions: list[Confusion]
    orders: Mapping[str, Sequence[int]]
    """Of the classes in the confusion matrix."""


@dataclass(frozen=True)
class RunView:
    """What the page shows of one set and backbone; predictions are those of the last model."""

    set_name: str
    backbone: str
    name: str
    """Unique on the page."""
    summary: Mapping[str, Any]
    models: list[ModelView]
    comparison: str
    reservations: list[tuple[str, str]]
    provenance: list[tuple[str, str]]
    class_rows: list[Mapping[str, str]]
    class_samples: Mapping[str, list[Prediction]]
    samples: Mapping[str, list[Prediction]]
    """Those that are shown large, by what they are samples of."""
    inspection: Mapping[str, Any]
    explanations: Sequence[Mapping[str, Any]]
    """Empty for a network without places to look at."""
    drawn: Mapping[str, Sequence[str]]
    """From stage: the pictures that it made of the run."""


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Turn what can be wrong with the file `path` into a UserError."""
    try:
        yield path
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be used ({error!r}); delete it and run `dvc repro`"
        ) from None


def history_charts(rows: Sequence[Mapping[str, str]]) -> dict[str, Chart]:
    """Charts of a training history, none for a history with less than two entries.

    Values on val are empty where every image trains.
    """
    charts = {}
    for column in ("accuracy", "loss"):
        series = {
            "train": [float(row[column]) for row in rows],
            "validation": [float(row[f"val_{column}"] or "nan") for row in rows],
        }
        chart = line_chart([float(row["epoch"]) for row in rows], series) if rows[1:] else None
        if chart:
            charts[column] = chart
    return charts


def read_model(run: str, model: str, summary: Mapping[str, Any]) -> ModelView:
    """Read what `evaluate` and training wrote of a model of a run, such as `demo-vgg19`.

    Raises UserError for a file that is missing or cannot be used.
    """
    classes = summary["classes"]
    with reading(Path(f"metrics/history/{run}-{model}.csv")) as path:
        history = read_csv(path)
        charts = history_charts(history)
    with reading(Path(f"metrics/predictions/{run}-{model}.csv")) as path:
        predictions = parse_predictions(read_csv(path))
        matrix = count_confusions(predictions, classes)
    with reading(Path(f"metrics/reliability/{run}-{model}.csv")) as path:
        bins = [
            (float(row["confidence"]), float(row["accuracy"]), int(row["images"]))
            for row in read_csv(path)
        ]
    return ModelView(
        MODELS[model], model, summary["metrics"][model], history, charts, bins, predictions,
        find_confusions(matrix, classes), class_orders(matrix, classes),
    )  # fmt: skip


def provenance_of(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where images, weights and features of a run come from, as names and texts."""
    images = {"source": summary["images"]["source"]}
    if summary["images"]["missing"]:
        images["files that it lacks"] = summary["images"]["missing"]
    return flatten(
        {"images": images, "weights": summary["weights"], "features": summary["features"]}
    )


def read_run(set_name: str, backbone: str) -> RunView:
    """Read what `evaluate`, training, `inspect` and `explain` wrote of one set and backbone.

    Raises UserError for a file that is missing or cannot be used.
    """
    name = f"{set_name}-{backbone}"
    with reading(Path(f"metrics/summary/{name}.json")) as path:
        summary = read_json(path)
        models = [read_model(name, model, summary) for model in MODELS]
        comparison = describe_comparison(summary["metrics"])
        reservations, provenance = find_reservations(summary), provenance_of(summary)
    with reading(Path(f"metrics/classes/{name}.csv")) as path:
        class_rows = sort_classes(read_csv(path))
    with reading(Path(f"metrics/inspect/{name}/facts.json")) as path:
        inspection = read_json(path)
        described = [*inspection["pictures"], *inspection["views"]]
        inspected = [each["file"] for each in described] + inspection["augmented"]
    with reading(Path(f"metrics/explain/{name}/facts.json")) as path:
        explanations = read_json(path)
        explained = [file for each in explanations for file in each["files"]]
    predictions = models[-1].predictions
    samples = {
        "right": sample_right(predictions),
        "mistakes": confident_mistakes(predictions),
        "uncertain": most_uncertain(predictions),
    }
    return RunView(
        set_name, backbone, name, summary, models, comparison, reservations, provenance, class_rows,
        sample_classes(predictions), samples, inspection, explanations,
        {"inspect": inspected, "explain": explained},
    )  # fmt: skip
