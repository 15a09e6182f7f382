"""Score the head and the fine-tuned model on the part that is reported.

    python -m stages.evaluate --set flowers17 --backbone vgg19 --protocol stratified

Writes `metrics/SET/BACKBONE.json`, the tables behind the plots and the report, and the model card
`models/SET/BACKBONE/README.md`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.arrays import read_array
from stages.common.command_line import Parser, run
from stages.common.files import read_json, replacing, write_csv, write_json
from stages.pictures.splits import read_split
from stages.scoring.model_card import write_card
from stages.scoring.scores import confusion, recall
from stages.scoring.tables import (
    CLASS_COLUMNS,
    PREDICTION_COLUMNS,
    RELIABILITY_COLUMNS,
    class_rows,
    prediction_rows,
    reliability_rows,
    score_models,
)


def write_tables(
    run_name: str,
    images: Sequence[str],
    truth: NDArray[np.int64],
    given: Mapping[str, NDArray[np.float32]],
    classes: Sequence[str],
) -> None:
    """Write the tables behind the plots; `given` holds each model's probabilities of `images`."""
    for name, each in given.items():
        path = Path(f"metrics/predictions/{run_name}-{name}.csv")
        write_csv(path, PREDICTION_COLUMNS, prediction_rows(images, truth, each, classes))
        path = Path(f"metrics/reliability/{run_name}-{name}.csv")
        write_csv(path, RELIABILITY_COLUMNS, reliability_rows(each, truth))
    head, finetuned = (given[name].argmax(axis=1) for name in ("head", "finetuned"))
    path = Path(f"metrics/classes/{run_name}.csv")
    write_csv(path, CLASS_COLUMNS, class_rows(truth, head, finetuned, classes))


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read probabilities and split, write scores, tables and model card."""
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
    rows = np.flatnonzero(table.parts == part)
    truth = table.labels[rows]
    given = {
        name: read_array(models / f"{name}_probabilities.npy")[rows]
        for name in ("head", "finetuned")
    }
    facts = {
        "images": len(rows),
        "part": part,
        "protocol": options.protocol,
        "image_source": info["images"]["source"],
        "weights": info["weights"]["source"],
    } | ({"unreadable": table.unreadable} if table.unreadable else {})
    metrics = score_models(**given, truth=truth, facts=facts)

    for name in given:
        scores = metrics[name]
        print(
            f"{run_name} {name}, {len(rows)} images of {part}: accuracy {scores['accuracy']:.4f} "
            f"({scores['accuracy_low']:.4f} to {scores['accuracy_high']:.4f}), "
            f"mean class accuracy {scores['mean_class_accuracy']:.4f}"
        )
    write_tables(run_name, [table.images[row] for row in rows], truth, given, classes)
    summary = info | {
        "protocol": options.protocol,
        "part": part,
        "classes": classes,
        "metrics": metrics,
    }
    write_json(Path(f"metrics/summary/{run_name}.json"), summary)
    counts = confusion(given["finetuned"].argmax(axis=1), truth, len(classes))
    sizes = {name: int((table.parts == name).sum()) for name in ("train", "val", part)}
    with replacing(models / "README.md") as temporary:
        card = write_card(summary, sizes, recall(counts).tolist(), counts.sum(axis=1).tolist())
        temporary.write_text(card, "utf-8")
    write_json(Path(f"metrics/{options.set}/{options.backbone}.json"), metrics)


if __name__ == "__main__":
    run(main)
