"""Fine-tune the upper layers of a backbone together with its trained head.

    python -m stages.finetune --set flowers17 --backbone vgg19 --seed 42 --unfreeze auto ...

Starts from `head.keras` and trains on what the prefix stage cached. Writes the classifier as
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

from stages.common.backbones import cut_for, freeze
from stages.common.command_line import Parser, number, run
from stages.common.files import read_json, replacing, sha256
from stages.common.keras_quiet import keras
from stages.common.models import load_model, save_model, set_flat_weights
from stages.common.options import add_run_options, add_unfreeze_options
from stages.common.results import HISTORY_COLUMNS, history_path, write_array, write_history
from stages.common.splits import read_split
from stages.common.training import (
    add_training_options,
    choose_rows,
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


def unfrozen_part(classifier: keras.Model, options: Namespace) -> keras.Model:
    """The part of the classifier above the cut, from activations to probabilities.

    Shares its layers with the classifier, of which those that are to train are made trainable.
    """
    backbone, head = classifier.get_layer(options.backbone), classifier.get_layer("head")
    cut = cut_for(backbone, options.unfreeze, options.batch_norm)
    freeze(backbone, options.unfreeze, options.batch_norm, options.batch_norm_momentum)
    return keras.Model(cut, head(classifier.get_layer("pool")(backbone.output)))


def main(arguments: Sequence[str]) -> None:
    """Parse the options, train from the cut on, and write the model and what it predicts."""
    parser = Parser(__doc__)
    add_run_options(parser)
    add_training_options(parser, "finetune", min_epochs=0)
    add_unfreeze_options(parser)
    parser.add_argument("--batch_norm_momentum", type=number(float, 0, 1), required=True)
    parser.add_argument("--average_views", action="store_true")
    options = parser.parse_args(arguments)

    models = Path("models", options.set, options.backbone)
    history_file = history_path(options.set, options.backbone, "finetuned")
    split_path = Path(f"data/splits/{options.set}.csv")
    prefix_info = Path(f"data/prefix/{options.set}/{options.backbone}.json")
    values = np.load(prefix_info.with_suffix(".npy"), mmap_mode="r")
    if options.epochs == 0 or values.size == 0:
        pass_through(models, history_file)
        return
    split = read_split(split_path)
    heads = np.load(models / "head_weights.npy")
    folder = checkpoints(options, [models / "head_weights.npy", split_path, prefix_info])
    views = len(read_json(prefix_info)["views"]) if options.average_views else 1
    recipe = recipe_of(options)

    probabilities = []
    for repeat, parts in enumerate(split.parts):
        seed = options.seed + repeat
        make_repeatable(seed)
        classifier = load_model(models / "head.keras")
        set_flat_weights(classifier.get_layer("head"), heads[repeat])
        upper = unfrozen_part(classifier, options)
        rows = choose_rows(split.labels, parts, recipe.patience, seed)
        states = folder / f"repeat_{repeat}"
        history = fit(upper, values, split.labels, rows, recipe, seed, states)
        probabilities.append(predict(upper.predict_on_batch, values, views))
        if repeat == 0:
            save_model(classifier, models / "finetuned.keras")
            write_history(history_file, history)
    write_array(models / "finetuned_probabilities.npy", np.stack(probabilities))
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
