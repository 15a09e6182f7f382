"""Train a head on cached features.

    python -m stages.head --set flowers17 --backbone vgg19 --dropout 0.3 --seed 42 --hidden 128 ...

Writes the whole classifier, images to probabilities, as `models/SET/BACKBONE/head.keras`, with its
class names, its training history, and the probabilities of every image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.backbones import build, load_weights
from stages.common.command_line import Parser, number, run
from stages.common.files import read_json, write_json
from stages.common.models import build_classifier, build_head, save_model
from stages.common.options import add_run_options
from stages.common.results import write_history, write_probabilities
from stages.common.sets import SETS
from stages.common.splits import read_split
from stages.common.training import (
    add_training_options,
    choose_rows,
    fit,
    make_repeatable,
    predict,
    recipe_of,
)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, train, and write the model and what it predicts."""
    parser = Parser(__doc__)
    add_run_options(parser)
    add_training_options(parser, "head", min_epochs=1)
    parser.add_argument("--dropout", type=number(float, 0, 0.95), required=True)
    parser.add_argument("--hidden", type=number(int, 1, 65536), nargs="*", required=True)
    parser.add_argument("--early_stopping", type=number(int, 0), required=True)
    parser.add_argument("--average_views", action="store_true")
    options = parser.parse_args(arguments)

    features = np.load(f"data/features/{options.set}/{options.backbone}.npy", mmap_mode="r")
    info = read_json(Path(f"data/features/{options.set}/{options.backbone}.json"))["features"]
    split = read_split(Path(f"data/splits/{options.set}.csv"))
    make_repeatable(options.seed)

    classes = SETS[options.set].class_names
    head = build_head(info["width"], options.hidden, options.dropout, len(classes))
    recipe = recipe_of(options, options.early_stopping)
    rows = choose_rows(split.labels, split.parts, recipe.patience, options.seed)
    history = fit(head, features, split.labels, rows, recipe, options.seed)
    views = info["views"] if options.average_views else info["views"][:1]
    probabilities = predict(head.predict_on_batch, features, len(views))

    backbone = build(options.backbone, info["image_size"])
    load_weights(backbone, Path(f"data/weights/{options.backbone}.weights.h5"))
    folder = Path("models", options.set, options.backbone)
    save_model(build_classifier(backbone, info["pooling"], head, views), folder / "head.keras")
    write_json(folder / "classes.json", list(classes))
    write_probabilities(folder / "head_probabilities.npy", probabilities)
    write_history(Path(f"metrics/history/{options.set}-{options.backbone}-head.csv"), history)


if __name__ == "__main__":
    run(main)
