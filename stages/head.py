"""Train a head on cached features.

    python -m stages.head --set flowers17 --backbone vgg19 --dropout 0.3 --seed 42 --hidden 128 ...

Writes the whole classifier, images to probabilities, as `models/SET/BACKBONE/head.keras`, with its
class names, its training history, and the probabilities of every image in every repeat.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.backbones import build, load_weights
from stages.common.command_line import Parser, number, run
from stages.common.files import read_json, write_json
from stages.common.models import build_classifier, build_head, flat_weights, save_model
from stages.common.options import add_run_options
from stages.common.results import history_path, write_array, write_history
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
    classes = SETS[options.set].class_names
    recipe = recipe_of(options, options.early_stopping)
    views = info["views"] if options.average_views else info["views"][:1]
    folder = Path("models", options.set, options.backbone)

    weights, probabilities = [], []
    for repeat, parts in enumerate(split.parts):
        seed = options.seed + repeat
        make_repeatable(seed)
        head = build_head(info["width"], options.hidden, options.dropout, len(classes))
        rows = choose_rows(split.labels, parts, recipe.patience, seed)
        history = fit(head, features, split.labels, rows, recipe, seed)
        probabilities.append(predict(head.predict_on_batch, features, len(views)))
        weights.append(flat_weights(head))
        if repeat == 0:
            backbone = build(options.backbone, info["image_size"])
            load_weights(backbone, Path(f"data/weights/{options.backbone}.weights.h5"))
            classifier = build_classifier(backbone, info["pooling"], head, views)
            save_model(classifier, folder / "head.keras")
            write_history(history_path(options.set, options.backbone, "head"), history)
    write_json(folder / "classes.json", list(classes))
    write_array(folder / "head_weights.npy", np.stack(weights))
    write_array(folder / "head_probabilities.npy", np.stack(probabilities))


if __name__ == "__main__":
    run(main)
