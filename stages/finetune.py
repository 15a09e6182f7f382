"""Fine-tune the upper layers of a backbone together with its trained head.

    python -m stages.finetune --set flowers17 --backbone vgg19 --seed 42 --unfreeze auto ...

Starts from the trained head and trains on what the prefix stage cached. Writes the classifier as
`models/SET/BACKBONE/finetuned.keras`, its history, and the probabilities of every image. With zero
epochs, or with nothing unfrozen, the head's model and probabilities are passed on as they are.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stages.common.arrays import read_array, write_array
from stages.common.code import code_digests
from stages.common.command_line import Parser, number, one_of, outlives_dvc, run
from stages.common.files import read_json, replacing, sha256
from stages.networks.options import (
    PRECISIONS,
    add_run_options,
    add_unfreeze_options,
    color_share,
)
from stages.networks.registry import registry
from stages.pictures.splits import choose_rows, read_split
from stages.training.history import HISTORY_COLUMNS, history_path, write_history
from stages.training.recipe import Recipe, UpperLayers, add_training_options, take_recipe


@dataclass(frozen=True)
class Options(UpperLayers):
    """What the stage is asked for; see params.yaml."""

    set: str
    seed: int
    refit: bool
    recipe: Recipe
    average_views: bool
    calibrate: bool


def parse(arguments: Sequence[str]) -> Options:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_run_options(parser)
    add_training_options(parser, "finetune", min_epochs=0)
    add_unfreeze_options(parser)
    parser.add_argument("--dropout", type=number(float, 0, 0.95), required=True)
    parser.add_argument("--batch_norm_momentum", type=number(float, 0, 1), required=True)
    parser.add_argument("--color_jitter", type=color_share, required=True)
    parser.add_argument("--precision", type=one_of(PRECISIONS, "finetune.precision"), required=True)
    parser.add_argument("--warmup", type=number(float, 0, 1), required=True)
    parser.add_argument("--lowest_rate", type=number(float, 0, 1, open_low=True), required=True)
    parser.add_argument("--slices", type=number(int, 1, 10_000), required=True)
    parser.add_argument("--average_views", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    values = vars(parser.parse_args(arguments))
    return Options(recipe=take_recipe(values), **values)


def pass_on(models: Path, history: Path) -> None:
    """Hand the head's model and probabilities on as the fine-tuned ones, with an empty history."""
    for name in ("{}.keras", "{}_probabilities.npy"):
        with replacing(models / name.format("finetuned")) as temporary:
            shutil.copyfile(models / name.format("head"), temporary)
    write_history(history, {column: [] for column in HISTORY_COLUMNS})


def checkpoints(options: Options, inputs: Sequence[Path]) -> Path:
    """The folder for this training's checkpoints, cleared of those of any other training.

    Its name is a digest of the options, of the input files, of the code and its libraries, and of
    the precision that this machine trains in, so that a run with others never goes on from them.
    """
    from stages.networks.keras_quiet import keras, tensorflow
    from stages.networks.precision import choose_precision

    state = {
        "options": asdict(options),
        "registry": registry()[options.backbone],
        "precision": choose_precision(options.precision),
        "inputs": [sha256(path) for path in inputs],
        "code": code_digests("stages.finetune"),
        "versions": [each.__version__ for each in (keras, np, tensorflow)],
    }
    folder = Path("data/checkpoints", options.set, options.backbone)
    key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return folder / key


def train(options: Options, prefix: Path, models: Path, history_file: Path) -> None:
    """Train from the cut on, and write the models and what they predict."""
    # Here, as TensorFlow takes seconds to load, and is not needed where nothing trains.
    from stages.networks.model_files import save_model
    from stages.training.fine_tune import fine_tune

    split_path = Path(f"data/splits/{options.set}.csv")
    table, values = read_split(split_path), read_array(prefix / "values.npy", "r")
    heads = read_array(models / "head_weights.npy")
    inputs = [models / "head.keras", models / "head_weights.npy", split_path, prefix / "facts.json"]
    folder = checkpoints(options, inputs)
    views = len(read_json(prefix / "facts.json")["views"]) if options.average_views else 1
    classifier, probabilities, history = fine_tune(
        options, options.recipe, models / "head.keras", heads, values, table.labels,
        choose_rows(table, options.refit, options.seed), views, options.calibrate, options.seed,
        folder,
    )  # fmt: skip
    save_model(classifier, models / "finetuned.keras")
    write_history(history_file, history, options.recipe.slices)
    write_array(models / "finetuned_probabilities.npy", probabilities)
    # The next DVC knows nothing of what one that has gone has started: it runs the stage again,
    # which then has only to write its outputs.
    if not outlives_dvc():
        shutil.rmtree(folder)


def main(arguments: Sequence[str]) -> None:
    """Fine-tune if there is anything to train, else pass the head on."""
    options = parse(arguments)
    prefix = Path("data/prefix", options.set, options.backbone)
    models = Path("models", options.set, options.backbone)
    history = history_path(options.set, options.backbone, "finetuned")
    if options.recipe.epochs == 0 or read_json(prefix / "facts.json")["values"] == "none":
        pass_on(models, history)
    else:
        train(options, prefix, models, history)


if __name__ == "__main__":
    run(main)
