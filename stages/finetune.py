"""Fine-tune the upper layers of a backbone together with its trained head.

    python -m stages.finetune --set flowers17 --backbone vgg19 --seed 42 --unfreeze auto ...

Starts from the trained head and trains on what the prefix stage cached. Writes the classifier as
`models/SET/BACKBONE/finetuned.keras`, its history, and the probabilities of every image in every
repeat. With zero epochs, or with nothing unfrozen, the head's model and probabilities are passed on
as they are.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.augmentation import RandomCrop, crop_side
from stages.common.backbones import build, cut_for, freeze
from stages.common.command_line import Parser, number, one_of, run
from stages.common.files import read_json, replacing, sha256
from stages.common.keras_quiet import keras
from stages.common.models import load_model, save_model, set_flat_weights
from stages.common.options import add_run_options, add_unfreeze_options, reads_pixels
from stages.common.precision import PRECISIONS, choose_training_precision, set_precision
from stages.common.results import HISTORY_COLUMNS, history_path, write_array, write_history
from stages.common.splits import choose_rows, read_split
from stages.common.training import (
    add_training_options,
    choose_reports,
    fit,
    make_repeatable,
    predict,
    recipe_of,
)


def checkpoints(options: Namespace, inputs: Sequence[Path]) -> Path:
    """The folder for this training's checkpoints, cleared of those of any other training.

    Its name is a digest of the options and of the input files, so that a run with other parameters
    or other input never goes on from them.
    """
    state = json.dumps([sorted(vars(options).items()), [sha256(path) for path in inputs]])
    folder = Path("data/checkpoints", options.set, options.backbone)
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return folder / key


def pass_through(models: Path, history: Path) -> None:
    """Hand the head's model and probabilities on as the fine-tuned ones, with an empty history."""
    for name in ("{}.keras", "{}_probabilities.npy"):
        with replacing(models / name.format("finetuned")) as temporary:
            shutil.copyfile(models / name.format("head"), temporary)
    write_history(history, {column: [] for column in HISTORY_COLUMNS})


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_run_options(parser)
    add_training_options(parser, "finetune", min_epochs=0)
    add_unfreeze_options(parser)
    parser.add_argument("--batch_norm_momentum", type=number(float, 0, 1), required=True)
    parser.add_argument("--precision", type=one_of(PRECISIONS, "finetune.precision"), required=True)
    parser.add_argument("--warmup", type=number(float, 0, 1), required=True)
    parser.add_argument("--lowest_rate", type=number(float, 0, 1, open_low=True), required=True)
    parser.add_argument("--slices", type=number(int, 1, 10_000), required=True)
    parser.add_argument("--average_views", action="store_true")
    return parser.parse_args(arguments)


def above_the_cut(
    backbone: keras.Model, classifier: keras.Model, options: Namespace
) -> keras.Model:
    """The network from the values that the prefix stage cached to the classifier's probabilities.

    Made of layers of `backbone` and of the classifier's head, which it shares.
    """
    cut = cut_for(backbone, options.unfreeze, reads_pixels(options))
    head, pool = classifier.get_layer("head"), classifier.get_layer("pool")
    return keras.Model(cut, head(pool(backbone.output)))


def start(
    head_model: Path, head: NDArray[np.float32], options: Namespace
) -> tuple[keras.Model, keras.Model, keras.Model]:
    """The classifier with weights `head`, a copy of its backbone to train, and what trains it.

    The copy computes in the precision asked for; the classifier stays in float32. Where pictures
    are cropped at random, the copy is made for the crops' size, and what trains it crops.
    """
    classifier = load_model(head_model)
    set_flat_weights(classifier.get_layer("head"), head)
    source = classifier.get_layer(options.backbone)
    crops = options.augment == "crop"
    set_precision(choose_training_precision(options.precision))
    side = source.input_shape[1]
    backbone = build(options.backbone, crop_side(options.backbone, side) if crops else side)
    set_precision("float32")
    backbone.set_weights(source.get_weights())
    for each in (source, backbone):
        freeze(each, options.unfreeze, options.batch_norm, options.batch_norm_momentum)
    network = above_the_cut(backbone, classifier, options)
    if crops:
        pictures = keras.Input(source.input_shape[1:])
        network = keras.Model(pictures, network(RandomCrop(backbone.input_shape[1])(pictures)))
    return classifier, backbone, network


def main(arguments: Sequence[str]) -> None:
    """Parse the options, train from the cut on, and write the model and what it predicts."""
    options = parse(arguments)
    models = Path("models", options.set, options.backbone)
    history_file = history_path(options.set, options.backbone, "finetuned")
    split_path = Path(f"data/splits/{options.set}.csv")
    prefix_info = Path(f"data/prefix/{options.set}/{options.backbone}.json")
    values = np.load(prefix_info.with_suffix(".npy"), mmap_mode="r")
    if options.epochs == 0 or values.size == 0:
        pass_through(models, history_file)
        return
    table = read_split(split_path)
    labels, heads = table.labels, np.load(models / "head_weights.npy")
    folder = checkpoints(options, [models / "head_weights.npy", split_path, prefix_info])
    views = len(read_json(prefix_info)["views"]) if options.average_views else 1
    recipe = recipe_of(options)

    probabilities = []
    for repeat, (*_, head) in enumerate(heads):
        seed, states = options.seed + repeat, folder / f"repeat_{repeat}"
        rows = choose_rows(table, repeat, options.refit == "true", seed)

        def new_network(weights: NDArray[np.float32] = head, seed: int = seed) -> keras.Model:
            make_repeatable(seed)
            return start(models / "head.keras", weights, options)[-1]

        reports = choose_reports(new_network, values, labels, rows, recipe, seed, states / "choice")
        make_repeatable(seed)
        classifier, backbone, network = start(models / "head.keras", heads[repeat, 0], options)
        watched = (rows.final, rows.shown)
        history = fit(network, values, labels, watched, recipe, seed, states / "final", reports)
        classifier.get_layer(options.backbone).set_weights(backbone.get_weights())
        upper = above_the_cut(classifier.get_layer(options.backbone), classifier, options)
        probabilities.append(predict(upper.predict_on_batch, values, views))
        if repeat == 0:
            save_model(classifier, models / "finetuned.keras")
            write_history(history_file, history, recipe.slices)
    write_array(models / "finetuned_probabilities.npy", np.stack(probabilities))
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
