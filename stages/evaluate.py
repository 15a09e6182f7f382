"""Score the head, and the fine-tuned model where there is one, on the part that is reported.

    python -m stages.evaluate --set flowers17 --backbone vgg19 --protocol stratified

Writes `metrics/SET/BACKBONE.json`, the tables behind the plots and the report, and the model card
`models/SET/BACKBONE/README.md`. The scores are means over the repeats; the comparison of the
models, the number of images and the tables are those of the first one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.arrays import read_array
from stages.common.command_line import Parser, run
from stages.common.files import read_json, replacing, write_csv, write_json
from stages.pictures.splits import SplitTable, read_split
from stages.scoring.model_card import write_card
from stages.scoring.scores import (
    all_scores,
    confusion,
    mcnemar,
    mean_scores,
    precision,
    recall,
    reliability,
)

MODELS = ("head", "finetuned")
PREDICTION_COLUMNS = ("image", "truth", "prediction", "probability", "truth_probability")
RELIABILITY_COLUMNS = ("confidence", "accuracy", "images")


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


def reliability_rows(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64]
) -> list[list[str]]:
    """One row of RELIABILITY_COLUMNS for each bin of confidence that holds an image."""
    return [
        [f"{confidence:.6f}", f"{accuracy:.6f}", str(images)]
        for confidence, accuracy, images in zip(*reliability(probabilities, truth), strict=True)
    ]


def score_model(probabilities: NDArray[np.float32], table: SplitTable) -> dict[str, float]:
    """Scores on the reported part, means over the repeats.

    `probabilities` has the shape (repeats, images, classes), of every image of the set.
    """
    reported = table.parts == table.reported_part
    return mean_scores(
        [
            all_scores(each[rows], table.labels[rows])
            for each, rows in zip(probabilities, reported, strict=True)
        ]
    )


def compare_models(
    head: NDArray[np.int64], finetuned: NDArray[np.int64], truth: NDArray[np.int64]
) -> dict[str, float]:
    """What fine-tuning gained, from labels of shape (images,): two predicted ones and the true.

    `gain` is a difference of accuracies, `p_value` that of McNemar's test; both to six digits.
    """
    test = mcnemar(head == truth, finetuned == truth)
    return {
        "gain": round((test.only_second_right - test.only_first_right) / len(truth), 6),
        "only_head_right": test.only_first_right,
        "only_finetuned_right": test.only_second_right,
        "p_value": round(test.p_value, 6),
    }


def read_info(set_name: str, backbone: str) -> dict[str, Any]:
    """What the features stage recorded; of backbones joined by `+`, the first one's.

    Their sources of weights are joined in the same way, where they differ.
    """
    paths = [Path(f"data/features/{set_name}/{name}.json") for name in backbone.split("+")]
    infos = [read_json(path) for path in paths]
    source = "+".join(dict.fromkeys(info["weights"]["source"] for info in infos))
    weights = infos[0]["weights"] | {"source": source}
    return dict(infos[0]) | {"backbone": backbone, "weights": weights}


def read_probabilities(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Probabilities of the head, and of the fine-tuned model where the folder has one."""
    paths = {name: folder / f"{name}_probabilities.npy" for name in MODELS}
    there = [name for name, path in paths.items() if name == "head" or path.exists()]
    return {name: read_array(paths[name]) for name in there}


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
    info = read_info(options.set, options.backbone)
    classes = read_json(models / "classes.json")
    probabilities = read_probabilities(models)
    part = table.reported_part
    rows = np.flatnonzero(table.parts[0] == part)
    truth, images = table.labels[rows], [table.images[row] for row in rows]
    given = {name: each[0, rows] for name, each in probabilities.items()}

    facts = {
        "images": len(rows),
        "part": part,
        "protocol": options.protocol,
        "image_source": info["images"]["source"],
        "weights": info["weights"]["source"],
    }
    if table.unreadable:
        facts["unreadable"] = table.unreadable
    metrics: dict[str, dict[str, Any]] = {
        name: score_model(each, table) | facts for name, each in probabilities.items()
    }
    for name, scores in metrics.items():
        print(
            f"{run_name} {name}, {len(rows)} images of {part}: accuracy {scores['accuracy']:.4f} "
            f"({scores['accuracy_low']:.4f} to {scores['accuracy_high']:.4f}), "
            f"mean class accuracy {scores['mean_class_accuracy']:.4f}"
        )
    predicted = [each.argmax(axis=1) for each in given.values()]
    if "finetuned" in given:
        head, finetuned = predicted
        metrics["comparison"] = compare_models(head, finetuned, truth)
    for name, each in given.items():
        write_csv(
            Path(f"metrics/predictions/{run_name}-{name}.csv"),
            PREDICTION_COLUMNS,
            prediction_rows(images, truth, each, classes),
        )
        write_csv(
            Path(f"metrics/reliability/{run_name}-{name}.csv"),
            RELIABILITY_COLUMNS,
            reliability_rows(each, truth),
        )
    write_csv(
        Path(f"metrics/classes/{run_name}.csv"),
        ["class", "images"]
        + [f"{name}_{kind}" for name in given for kind in ("recall", "precision")],
        class_rows(truth, predicted, classes),
    )
    summary = info | {"protocol": options.protocol, "part": part, "classes": classes}
    summary |= {"metrics": metrics}
    write_json(Path(f"metrics/summary/{run_name}.json"), summary)
    counts = confusion(predicted[-1], truth, len(classes))
    sizes = {name: int((table.parts[0] == name).sum()) for name in ("train", "val", part)}
    with replacing(models / "README.md") as temporary:
        card = write_card(summary, sizes, recall(counts).tolist(), counts.sum(axis=1).tolist())
        temporary.write_text(card, "utf-8")
    write_json(Path(f"metrics/{options.set}/{options.backbone}.json"), metrics)


if __name__ == "__main__":
    run(main)
