"""Train a head on cached features.

    python -m stages.head --set flowers17 --backbone vgg19 --dropout 0.3 --seed 42 --hidden 128 ...

Several backbones joined by `+` give their features side by side. Writes the whole classifier,
images to probabilities, as `models/SET/BACKBONE/head.keras`, with its class names, how a picture is
made ready for it (`input.json`), its training history, and the probabilities of every image in
every repeat.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.arrays import read_array, write_array
from stages.common.command_line import Parser, UserError, number, one_of, run
from stages.common.files import read_json, write_json
from stages.common.progress import say
from stages.networks.backbones import BACKBONES, build, load_weights
from stages.networks.classifier import (
    NORMALIZE,
    adapt_head,
    apply_temperature,
    apply_to_views,
    build_classifier,
    build_head,
    flat_weights,
)
from stages.networks.keras_quiet import keras
from stages.networks.model_files import save_model
from stages.pictures.splits import Rows, choose_rows, read_split
from stages.scoring.scores import log_loss
from stages.training.calibration import choose_temperature
from stages.training.fit import choose_reports, fit, make_repeatable
from stages.training.history import HISTORY_COLUMNS, History, history_path, write_history
from stages.training.imbalance import image_weights
from stages.training.logistic import choose_strength, fit_logistic
from stages.training.prediction import predict, predict_views
from stages.training.recipe import add_training_options, recipe_of

KINDS = ("mlp", "logistic")

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range or contradict each other."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--backbone", required=True)
    add_training_options(parser, "head", min_epochs=0)
    parser.add_argument("--kind", type=one_of(KINDS, "head.kind"), required=True)
    parser.add_argument("--normalize", type=one_of(NORMALIZE, "head.normalize"), required=True)
    parser.add_argument("--dropout", type=number(float, 0, 0.95), required=True)
    # DVC leaves an empty list out of the command.
    parser.add_argument("--hidden", type=number(int, 1, 65536), nargs="*", default=[])
    parser.add_argument(
        "--strengths", type=number(float, 0, 1e9, open_low=True), nargs="+", required=True
    )
    parser.add_argument("--finetune_early_stopping", type=number(int, 0), required=True)
    parser.add_argument("--average_views", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.backbone.split("+"):
        if name not in BACKBONES:
            parser.error(f"no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    names = options.backbone.split("+")
    if len(set(names)) < len(names):
        raise UserError(f"fusions: {options.backbone} names a backbone twice; name each once")
    if options.kind == "logistic" and options.hidden:
        raise UserError(
            f"head.hidden: {options.hidden} layers do not go with head.kind logistic; set it to []"
        )
    return options


def read_features(set_name: str, backbones: Sequence[str]) -> tuple[Features, list[Any]]:
    """Features (images, views, sum of widths) of the backbones, and what was recorded of each."""
    paths = [Path(f"data/features/{set_name}/{name}.npy") for name in backbones]
    infos = [read_json(path.with_suffix(".json"))["features"] for path in paths]
    arrays = [read_array(path, "r") for path in paths]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2), infos


def wants_second(options: Namespace, rows: Rows) -> bool:
    """Whether a head is wanted besides the final one, which has not seen the images that judge."""
    chooses = options.finetune_early_stopping or options.calibrate
    return bool(chooses) and not np.array_equal(rows.choosing, rows.final)


def train_mlp(
    new_head: Callable[[NDArray[np.int64]], keras.Model],
    features: Features,
    labels: Labels,
    rows: Rows,
    options: Namespace,
    seed: int,
) -> tuple[list[keras.Model], History]:
    """Train heads by gradient descent; return them and the first one's history.

    The first one has learned from `rows.final`. Where something is left to choose a second one
    follows that has not seen the images by which it is chosen.
    """
    recipe = recipe_of(options)
    reports = choose_reports(lambda: new_head(rows.choosing), features, labels, rows, recipe, seed)
    trainings = [(rows.final, rows.shown)]
    if wants_second(options, rows):
        trainings.append((rows.choosing, rows.judging))
    heads = [new_head(train) for train, _ in trainings]
    histories = [
        fit(head, features, labels, each, recipe, seed, reports=reports)
        for head, each in zip(heads, trainings, strict=True)
    ]
    return heads, histories[0]


def train_logistic(
    new_head: Callable[[NDArray[np.int64]], keras.Model],
    features: Features,
    labels: Labels,
    rows: Rows,
    options: Namespace,
    seed: int,  # noqa: ARG001
) -> tuple[list[keras.Model], History]:
    """Fit heads by logistic regression; return as `train_mlp` does, with one entry of history."""

    def normalized(head: keras.Model, images: NDArray[np.int64]) -> Features:
        before = keras.Model(head.input, head.get_layer("classes").input)
        return apply_to_views(before, features, images)

    choosing, final = new_head(rows.choosing), new_head(rows.final)
    classes = final.output_shape[1]

    def weigh(train: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.float32] | None:
        weights = image_weights(labels, train, classes, options.class_weight)
        return None if weights is None else weights[images]

    strength = choose_strength(
        (normalized(choosing, rows.choosing), labels[rows.choosing]),
        (normalized(choosing, rows.judging), labels[rows.judging]),
        options.strengths,
        classes,
        (weigh(rows.choosing, rows.choosing), weigh(rows.choosing, rows.judging)),
    )
    trainings = [(final, rows.final)]
    if wants_second(options, rows):
        trainings.append((choosing, rows.choosing))
    for head, train in trainings:
        (weights,) = fit_logistic(
            normalized(head, train), labels[train], [strength], classes, weigh(train, train)
        )
        head.get_layer("classes").set_weights(weights)
    history: History = {column: [nan] for column in HISTORY_COLUMNS}
    for prefix, images in (("", rows.final), ("val_", rows.shown)):
        if len(images):
            given = predict(final.predict_on_batch, features[images], features.shape[1])
            right = given.argmax(axis=1) == labels[images]
            loss = log_loss(given, labels[images])
            history[f"{prefix}accuracy"], history[f"{prefix}loss"] = [right.mean()], [loss]
    return [head for head, _ in trainings], history


def classifier_of(
    names: Sequence[str], infos: Sequence[Any], head: keras.Model, views: Sequence[str]
) -> keras.Model:
    """The whole classifier: the backbones as their features were extracted, and the head."""
    say(f"building {'+'.join(names)} with its head")
    backbones = []
    for name, info in zip(names, infos, strict=True):
        backbone = build(name, info["image_size"])
        load_weights(backbone, Path(f"data/weights/{name}.weights.h5"))
        backbones.append(backbone)
    return build_classifier(backbones, infos[0]["pooling"], head, views)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, train, and write the models and what they predict."""
    options = parse(arguments)
    names = options.backbone.split("+")
    features, infos = read_features(options.set, names)
    table = read_split(Path(f"data/splits/{options.set}.csv"))
    classes = table.class_names
    shown = infos[0]["views"] if options.average_views else infos[0]["views"][:1]
    folder = Path("models", options.set, options.backbone)

    def new_head(rows: NDArray[np.int64]) -> keras.Model:
        widths = [info["width"] for info in infos]
        head = build_head(widths, options.normalize, options.hidden, options.dropout, len(classes))
        adapt_head(head, features, rows)
        return head

    train = train_mlp if options.kind == "mlp" else train_logistic
    weights, probabilities = [], []
    for repeat in range(len(table.parts)):
        seed = options.seed + repeat
        make_repeatable(seed)
        rows = choose_rows(table, repeat, options.refit == "true", seed)
        heads, history = train(new_head, features, table.labels, rows, options, seed)
        weights.append(np.stack([flat_weights(head) for head in heads]))
        if options.calibrate:
            judged = predict_views(heads[-1].predict_on_batch, features, rows.judging, len(shown))
            apply_temperature(heads[0], choose_temperature(judged, table.labels[rows.judging]))
        probabilities.append(predict(heads[0].predict_on_batch, features, len(shown)))
        if repeat == 0:
            save_model(classifier_of(names, infos, heads[0], shown), folder / "head.keras")
            write_history(history_path(options.set, options.backbone, "head"), history)
    write_json(folder / "classes.json", list(classes))
    size = max(info["image_size"] for info in infos)
    shape = {"set": options.set, "crop": infos[0]["crop"], "image_size": size}
    write_json(folder / "input.json", shape)
    write_array(folder / "head_weights.npy", np.stack(weights))
    write_array(folder / "head_probabilities.npy", np.stack(probabilities))


if __name__ == "__main__":
    run(main)
