"""What the finetune stage does where there is something to train.

Apart from it, as the stage loads TensorFlow only then.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.arrays import read_array, write_array
from stages.common.code import code_digests
from stages.common.command_line import Parser, number, one_of, outlives_dvc
from stages.common.files import read_json, sha256
from stages.common.progress import say
from stages.networks.augmentation import augment, crop_side
from stages.networks.backbones import build, cut_for, freeze
from stages.networks.classifier import apply_temperature, set_flat_weights
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.model_files import load_model, save_model
from stages.networks.options import (
    add_run_options,
    add_unfreeze_options,
    color_share,
    reads_pixels,
)
from stages.networks.precision import (
    PRECISIONS,
    choose_training_precision,
    keep_slow_layers_in_float32,
    set_precision,
)
from stages.pictures.splits import SplitTable, choose_rows, read_split
from stages.training.batches import Values
from stages.training.calibration import choose_temperature
from stages.training.distribution import all_machines, share_batch_norm
from stages.training.fit import choose_reports, fit, make_repeatable
from stages.training.history import History, history_path, write_history
from stages.training.prediction import predict, predict_views
from stages.training.recipe import add_training_options, recipe_of


def checkpoints(options: Namespace, inputs: Sequence[Path]) -> Path:
    """The folder for this training's checkpoints, cleared of those of any other training.

    Its name is a digest of the options, of the input files, of the code and its libraries, and of
    the precision that this machine trains in, so that a run with others never goes on from them.
    """
    precision = choose_training_precision(options.precision)
    digests = [sha256(path) for path in inputs]
    code = code_digests("stages.training.finetuning")
    versions = [each.__version__ for each in (keras, np, tensorflow)]
    state = json.dumps([sorted(vars(options).items()), precision, digests, code, versions])
    folder = Path("data/checkpoints", options.set, options.backbone)
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return folder / key


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(None)
    add_run_options(parser)
    add_training_options(parser, "finetune", min_epochs=0)
    add_unfreeze_options(parser)
    parser.add_argument("--batch_norm_momentum", type=number(float, 0, 1), required=True)
    parser.add_argument("--color_jitter", type=color_share, required=True)
    parser.add_argument("--precision", type=one_of(PRECISIONS, "finetune.precision"), required=True)
    parser.add_argument("--warmup", type=number(float, 0, 1), required=True)
    parser.add_argument("--lowest_rate", type=number(float, 0, 1, open_low=True), required=True)
    parser.add_argument("--slices", type=number(int, 1, 10_000), required=True)
    parser.add_argument("--average_views", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
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
    say(f"loading {head_model}, and building {options.backbone} to train")
    classifier = load_model(head_model)
    set_flat_weights(classifier.get_layer("head"), head)
    source = classifier.get_layer(options.backbone)
    crops = options.augment == "crop"
    set_precision(choose_training_precision(options.precision))
    side = source.input_shape[1]
    backbone = build(options.backbone, crop_side(options.backbone, side) if crops else side)
    set_precision("float32")
    keep_slow_layers_in_float32(backbone)
    backbone.set_weights(source.get_weights())
    for each in (source, backbone):
        freeze(each, options.unfreeze, options.batch_norm, options.batch_norm_momentum)
    share_batch_norm(backbone)
    network = above_the_cut(backbone, classifier, options)
    if crops:
        pictures = keras.Input(source.input_shape[1:])
        seen = augment(pictures, backbone.input_shape[1], options.color_jitter)
        network = keras.Model(pictures, network(seen))
    return classifier, backbone, network


def train(
    values: Values, table: SplitTable, repeat: int, views: int, states: Path, options: Namespace
) -> tuple[keras.Model, NDArray[np.float32], History]:
    """The fine-tuned classifier of a repeat, its probabilities of every image, and its history.

    What is to be chosen, the number of epochs and the temperature, is chosen by trainings of their
    own on `rows.choosing`. Checkpoints go into the folder `states`.
    """
    models, recipe = Path("models", options.set, options.backbone), recipe_of(options)
    final_head, choosing_head = read_array(models / "head_weights.npy")[repeat, [0, -1]]
    labels, seed = table.labels, options.seed + repeat
    rows = choose_rows(table, repeat, options.refit == "true", seed)

    def new(head: NDArray[np.float32]) -> tuple[keras.Model, keras.Model, keras.Model]:
        strategy = all_machines()
        make_repeatable(seed)
        with strategy.scope():
            return start(models / "head.keras", head, options)

    reports = choose_reports(
        lambda: new(choosing_head)[-1], values, labels, rows, recipe, seed, states / "choice"
    )

    def trained(
        head: NDArray[np.float32],
        watched: tuple[NDArray[np.int64], NDArray[np.int64]],
        states: Path,
    ) -> tuple[keras.Model, keras.Model, History]:
        classifier, backbone, network = new(head)
        history = fit(network, values, labels, watched, recipe, seed, states, reports)
        classifier.get_layer(options.backbone).set_weights(backbone.get_weights())
        upper = above_the_cut(classifier.get_layer(options.backbone), classifier, options)
        return classifier, upper, history

    def temperature_of(upper: keras.Model) -> float:
        judged = predict_views(upper.predict_on_batch, values, rows.judging, views)
        return choose_temperature(judged, labels[rows.judging])

    temperature, unseen = 1.0, np.array_equal(rows.choosing, rows.final)
    if options.calibrate and not unseen:
        print("training without those held out, for the temperature", flush=True)
        judged_by = (rows.choosing, rows.judging)
        temperature = temperature_of(trained(choosing_head, judged_by, states / "calibration")[1])
    classifier, upper, history = trained(final_head, (rows.final, rows.shown), states / "final")
    if options.calibrate and unseen:
        temperature = temperature_of(upper)
    apply_temperature(classifier.get_layer("head"), temperature)
    return classifier, predict(upper.predict_on_batch, values, views), history


def fine_tune(arguments: Sequence[str]) -> None:
    """Parse the options, train from the cut on, and write the model and what it predicts."""
    options = parse(arguments)
    models = Path("models", options.set, options.backbone)
    history_file = history_path(options.set, options.backbone, "finetuned")
    split_path = Path(f"data/splits/{options.set}.csv")
    prefix_info = Path(f"data/prefix/{options.set}/{options.backbone}.json")
    values = read_array(prefix_info.with_suffix(".npy"), "r")
    table = read_split(split_path)
    # The model too: of dropout, which trains, it alone knows.
    heads = [models / "head.keras", models / "head_weights.npy"]
    folder = checkpoints(options, [*heads, split_path, prefix_info])
    views = len(read_json(prefix_info)["views"]) if options.average_views else 1

    probabilities = []
    for repeat in range(len(table.parts)):
        states = folder / f"repeat_{repeat}"
        classifier, given, history = train(values, table, repeat, views, states, options)
        probabilities.append(given)
        if repeat == 0:
            save_model(classifier, models / "finetuned.keras")
            write_history(history_file, history, options.slices)
    write_array(models / "finetuned_probabilities.npy", np.stack(probabilities))
    # The next DVC knows nothing of what one that has gone has started: it runs the stage again,
    # which then has only to write its outputs.
    if not outlives_dvc():
        shutil.rmtree(folder)
