"""Train a head on cached features.

    python -m stages.head --set flowers17 --backbone vgg19 --dropout 0.3 --seed 42 --hidden 128 ...

Writes the whole classifier, images to probabilities, as `models/SET/BACKBONE/head.keras`, with its
class names, how a picture is made ready for it (`input.json`), its training history, and the
probabilities of every image. `head_weights.npy`, shape (heads, weights), holds the weights of the
head that has learned from all that trains, and last those of one that has not seen the images by
which choices are judged; where none are held out it is one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.arrays import read_array, write_array
from stages.common.command_line import Parser, UserError, number, one_of, run
from stages.common.files import read_json, write_json
from stages.common.progress import say
from stages.networks.options import NORMALIZE, Normalize, add_run_options
from stages.pictures.splits import choose_rows, read_split
from stages.training.history import history_path, write_history
from stages.training.recipe import Recipe, add_training_options, take_recipe

KINDS = ("mlp", "logistic")


@dataclass(frozen=True)
class Options:
    """What the stage is asked for; see params.yaml."""

    set: str
    backbone: str
    seed: int
    refit: bool
    recipe: Recipe
    kind: str
    normalize: Normalize
    dropout: float
    hidden: Sequence[int]
    strengths: Sequence[float]
    average_views: bool
    calibrate: bool


def parse(arguments: Sequence[str]) -> Options:
    """The options; raises UserError where they are out of range or contradict each other."""
    parser = Parser(__doc__)
    add_run_options(parser)
    add_training_options(parser, "head", min_epochs=0)
    parser.add_argument("--kind", type=one_of(KINDS, "head.kind"), required=True)
    parser.add_argument("--normalize", type=one_of(NORMALIZE, "head.normalize"), required=True)
    parser.add_argument("--dropout", type=number(float, 0, 0.95), required=True)
    # DVC leaves an empty list out of the command.
    parser.add_argument("--hidden", type=number(int, 1, 65536), nargs="*", default=[])
    parser.add_argument(
        "--strengths", type=number(float, 0, 1e9, open_low=True), nargs="+", required=True
    )
    parser.add_argument("--average_views", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    values = vars(parser.parse_args(arguments))
    options = Options(recipe=take_recipe(values), **values)
    if options.kind == "logistic" and options.hidden:
        raise UserError(
            f"head.hidden: {options.hidden} layers do not go with head.kind logistic; set it to []"
        )
    return options


def main(arguments: Sequence[str]) -> None:
    """Parse the options, train, and write the models and what they predict."""
    options = parse(arguments)
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.networks.backbones import build, load_weights
    from stages.networks.classifier import (
        adapt_head,
        apply_temperature,
        build_classifier,
        build_head,
        flat_weights,
    )
    from stages.networks.model_files import save_model
    from stages.training.calibration import choose_temperature
    from stages.training.fit import make_repeatable
    from stages.training.heads import train_logistic, train_mlp
    from stages.training.prediction import predict

    path = Path(f"data/features/{options.set}/{options.backbone}.npy")
    features, info = read_array(path, "r"), read_json(path.with_suffix(".json"))["features"]
    table = read_split(Path(f"data/splits/{options.set}.csv"))
    labels, classes = table.labels, table.class_names
    shown = info["views"] if options.average_views else info["views"][:1]
    folder = Path("models", options.set, options.backbone)

    def new_head(rows: Any) -> Any:
        # Only an mlp trains by steps, in which dropout acts.
        dropout = options.dropout if options.kind == "mlp" else 0
        head = build_head(info["width"], options.normalize, options.hidden, dropout, len(classes))
        adapt_head(head, features, rows)
        return head

    make_repeatable(options.seed)
    rows = choose_rows(table, options.refit, options.seed)
    if options.kind == "mlp":
        heads, history = train_mlp(new_head, features, labels, rows, options.recipe, options.seed)
    else:
        heads, history = train_logistic(new_head, features, labels, rows, options.strengths)
    weights = np.stack([flat_weights(head) for head in heads])
    if options.calibrate:
        judged = predict(heads[-1].predict_on_batch, features, rows.judging, len(shown))
        apply_temperature(heads[0], choose_temperature(judged, labels[rows.judging]))
    every = np.arange(len(features))
    probabilities = predict(heads[0].predict_on_batch, features, every, len(shown)).mean(axis=1)
    say(f"building {options.backbone} with its head")
    backbone = build(options.backbone, info["image_size"])
    load_weights(backbone, Path(f"data/weights/{options.backbone}.weights.h5"))
    classifier = build_classifier(backbone, info["pooling"], heads[0], shown)
    save_model(classifier, folder / "head.keras")
    write_history(history_path(options.set, options.backbone, "head"), history)
    write_json(folder / "classes.json", list(classes))
    size = {"crop": info["crop"], "image_size": info["image_size"]}
    write_json(folder / "input.json", {"set": options.set} | size)
    write_array(folder / "head_weights.npy", weights)
    write_array(folder / "head_probabilities.npy", probabilities)


if __name__ == "__main__":
    run(main)
