"""Score the head and the fine-tuned model on the part that the protocol reports.

    python -m stages.evaluate --set flowers17 --backbone vgg19 --protocol stratified

Writes `metrics/SET/BACKBONE.json` and the tables behind the plots and the report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import Parser, run
from stages.common.files import read_json, write_csv, write_json
from stages.common.scores import all_scores, confusion, precision, recall
from stages.common.splits import read_split

MODELS = ("head", "finetuned")
PREDICTION_COLUMNS = ("image", "truth", "prediction", "probability", "truth_probability")


def prediction_rows(
    images: Sequence[str],
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
) -> list[list[str]]:
    """One row of PREDICTION_COLUMNS for each image, probabilities to six digits."""
    predicted = probabilities.argmax(axis=1)
    return [
        [image, classes[t], classes[p], f"{row[p]:.6f}", f"{row[t]:.6f}"]
        for image, t, p, row in zip(images, truth, predicted, probabilities, strict=True)
    ]


def class_rows(
    truth: NDArray[np.int64], predicted: Sequence[NDArray[np.int64]], classes: Sequence[str]
) -> list[list[Any]]:
    """One row for each class: name, images, and recall and precision by each model, or empty."""
    images = np.bincount(truth, minlength=len(classes))
    columns: list[Sequence[Any]] = [classes, images.tolist()]
    for each in predicted:
        counts = confusion(each, truth, len(classes))
        columns += [
            ["" if np.isnan(score) else f"{score:.6f}" for score in scores]
            for scores in (recall(counts), precision(counts))
        ]
    return [list(row) for row in zip(*columns, strict=True)]


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read probabilities and split, write scores and tables."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--protocol", required=True)
    options = parser.parse_args(arguments)
    models = Path("models", options.set, options.backbone)
    run_name = f"{options.set}-{options.backbone}"

    table = read_split(Path(f"data/splits/{options.set}.csv"))
    info = read_json(Path(f"data/features/{options.set}/{options.backbone}.json"))
    classes = read_json(models / "classes.json")
    part = table.reported_part
    rows = np.flatnonzero(table.parts[0] == part)
    truth, images = table.labels[rows], [table.images[row] for row in rows]
    given = {name: np.load(models / f"{name}_probabilities.npy")[0, rows] for name in MODELS}

    facts = {
        "images": len(rows),
        "part": part,
        "protocol": options.protocol,
        "image_source": info["images"]["source"],
        "weights": info["weights"]["source"],
    }
    metrics = {name: all_scores(given[name], truth) | facts for name in MODELS}
    for name in MODELS:
        write_csv(
            Path(f"metrics/predictions/{run_name}-{name}.csv"),
            PREDICTION_COLUMNS,
            prediction_rows(images, truth, given[name], classes),
        )
        scores = ", ".join(f"{key} {value:.4f}" for key, value in list(metrics[name].items())[:3])
        print(f"{run_name} {name}, {len(rows)} images of {part}: {scores}")
    write_csv(
        Path(f"metrics/classes/{run_name}.csv"),
        ["class", "images"]
        + [f"{name}_{kind}" for name in MODELS for kind in ("recall", "precision")],
        class_rows(truth, [given[name].argmax(axis=1) for name in MODELS], classes),
    )
    summary = info | {"protocol": options.protocol, "part": part, "classes": classes}
    write_json(Path(f"metrics/summary/{run_name}.json"), summary | {"metrics": metrics})
    write_json(Path(f"metrics/{options.set}/{options.backbone}.json"), metrics)


if __name__ == "__main__":
    run(main)
