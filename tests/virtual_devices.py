"""What training and extraction give on one device and on several, which are parts of the CPU.

    python -m tests.virtual_devices functions FOLDER       # or `more`, or `stages`

tests/networks/test_devices.py runs it in a process of its own: TensorFlow divides the CPU before it
computes for the first time, or never.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.extraction.forward import BATCH_SIZE, in_full_batches, load_backbone
from stages.networks import devices
from stages.networks.backbones import build, freeze
from stages.networks.devices import all_gpus, on_each_device
from stages.networks.keras_quiet import keras, tensorflow
from stages.training import calibration
from stages.training.checkpoints import Checkpoints
from stages.training.distribution import share_batch_norm
from stages.training.fit import fit, make_repeatable
from stages.training.recipe import Recipe
from tests.tiny_set import Stages, write_tiny_set

DEVICES = 3
WIDTH, CLASSES, IMAGES = 6, 3, 42
RECIPE = Recipe("adamw", 0.05, "cosine", 4, 8, 0.1, 0.1, 0.1, lowest_rate=0.5)
"""37 images train in batches of 8 and 7, which three devices share as 3, 3 and 2 or 1; of the five
that are watched they have 2, 2 and 1."""


def use(count: int) -> None:
    """Let the pipeline see so many GPUs."""
    names = tuple(f"CPU:{number}" for number in range(count)) if count > 1 else ()
    devices.gpus = lambda: names


def network() -> keras.Model:
    """A small network, made where the pipeline makes its own."""
    make_repeatable(0)
    with all_gpus().scope():
        model = keras.Sequential(
            [
                keras.Input((WIDTH,)),
                keras.layers.Dense(5, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        share_batch_norm(model)
    return model


def trained(
    recipe: Recipe, model: keras.Model, checkpoints: Path | None = None, images: int = IMAGES
) -> dict[str, NDArray[np.float64]]:
    """The weights and the history of `model` after training, by name."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=images)
    values = rng.normal(size=(CLASSES, 1, WIDTH))[labels] + rng.normal(size=(images, 2, WIDTH))
    rows = (np.arange(5, images), np.arange(5))
    history = fit(model, values.astype(np.float32), labels, rows, recipe, 0, checkpoints)
    weights = {f"weight {number}": each for number, each in enumerate(model.get_weights())}
    return weights | {name: np.array(entries) for name, entries in history.items()}


def dies_after_an_epoch(model: keras.Model, folder: Path) -> None:
    """Train for one epoch, whose checkpoint is left in `folder`."""
    save = Checkpoints.on_epoch_end

    def save_then_die(self: Checkpoints, epoch: int, logs: dict[str, float]) -> None:
        save(self, epoch, logs)
        raise KeyboardInterrupt

    Checkpoints.on_epoch_end = save_then_die  # type: ignore[method-assign]
    try:
        trained(RECIPE, model, folder)
    except KeyboardInterrupt:
        return
    finally:
        Checkpoints.on_epoch_end = save  # type: ignore[method-assign]
    raise AssertionError("it did not die")


Results = dict[str, dict[str, NDArray[Any]]]


def trainings(folder: Path) -> Results:
    """Results on one device and on several; the latter's model is left in `folder`."""
    use(1)
    results: Results = {"one": trained(RECIPE, network())}
    use(DEVICES)
    model = network()
    results["several"] = trained(RECIPE, model) | {"copies": copies_of(model)}
    model.save(folder / "several.keras")
    return results


def interrupted(folder: Path) -> Results:
    """Results on several devices, undisturbed, and after a kill on several and on one."""
    use(DEVICES)
    results = {"undisturbed": trained(RECIPE, network())}
    dies_after_an_epoch(network(), folder / "several")
    shutil.copytree(folder / "several", folder / "one")
    results["several"] = trained(RECIPE, network(), folder / "several")
    use(1)
    results["one"] = trained(RECIPE, network(), folder / "one")
    return results


def few_images() -> Results:
    """Results with four images that train, of which two devices take two and one none."""
    results = {}
    for name, count in (("one", 1), ("several", DEVICES)):
        use(count)
        results[name] = trained(replace(RECIPE, optimizer="sgd"), network(), images=9)
    return results


def in_float64() -> Results:
    """Results of training the demo's network whole, batch norm too, all but without rounding."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (29, 1, 32, 32, 3), np.uint8)
    labels, rows = rng.integers(CLASSES, size=29), (np.arange(5, 29), np.arange(5))
    recipe = replace(RECIPE, epochs=2, learning_rate=0.001)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    results = {}
    for name, count in (("one", 1), ("several", DEVICES)):
        use(count)
        make_repeatable(0)
        with all_gpus().scope():
            backbone = build("demo_backbone", 32)
            freeze(backbone, "all", "train", 0.9)
            share_batch_norm(backbone)
            features = keras.layers.GlobalAveragePooling2D()(backbone.output)
            outputs = keras.layers.Dense(CLASSES, activation="softmax")(features)
            model = keras.Model(backbone.input, outputs)
        # Of the losses, Keras takes a third in float32.
        fit(model, images, labels, rows, recipe, 0)
        results[name] = {str(number): each for number, each in enumerate(model.get_weights())}
    return results


def copies_of(model: keras.Model) -> NDArray[Any]:
    """The number of devices that have the weights of `model`."""
    return np.array(len(all_gpus().experimental_local_results(model.weights[0].value)))


def extractions(folder: Path) -> Results:
    """What networks with and without batch norm give for more images than devices see at once."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (DEVICES * BATCH_SIZE + 5, 8, 8, 3), dtype=np.uint8)
    results: Results = {}
    for name, count in (("one", 1), ("several", DEVICES)):
        use(count)
        results[name] = {}
        for layer in (keras.layers.BatchNormalization, keras.layers.ReLU):
            make_repeatable(0)
            with all_gpus().scope():
                image = keras.Input((8, 8, 3))
                network = keras.Model(image, layer()(keras.layers.Conv2D(4, 3)(image)))
            results[name][layer.__name__] = in_full_batches(network)(images)

    def device_number(batch: Any) -> Any:
        return batch + tensorflow.distribute.get_replica_context().replica_id_in_sync_group

    numbers = on_each_device(device_number, all_gpus())(np.zeros(2 * DEVICES, np.int32))
    weights = folder / "demo_backbone.weights.h5"
    build("demo_backbone", 32).save_weights(weights)
    backbone, _ = load_backbone("demo_backbone", 32, weights, "float32")
    results["several"] |= {"device numbers": numbers, "copies": copies_of(backbone)}
    return results


def write(results: Results, file: Path) -> None:
    """Write the results to a .npz file, as `HOW/NAME`."""
    flat = {f"{how}/{name}": each for how, found in results.items() for name, each in found.items()}
    np.savez(file, **flat)  # type: ignore[arg-type]


def functions(folder: Path) -> None:
    """Write results of training and of extraction to files in `folder`."""
    write(trainings(folder), folder / "trainings.npz")
    write(extractions(folder), folder / "extractions.npz")


def more(folder: Path) -> None:
    """Write results of longer trainings to files in `folder`."""
    write(interrupted(folder), folder / "interrupted.npz")
    write(few_images(), folder / "few_images.npz")
    write(in_float64(), folder / "in_float64.npz")


def tiny_stages(folder: Path) -> Stages:
    """The stages in a folder, with what makes fine-tuning on several devices that on one."""
    run = Stages(folder)
    run.dropout = 0
    run.finetune |= {"precision": "float32"}
    run.predict |= {"calibrate": True}
    calibration.FEWEST = 1  # Of so small a set six images judge.
    return run


def stages(folder: Path) -> None:
    """Run all stages on one device and on two, in the folders `one` and `several`.

    In float32 and without dropout, so that fine-tuning on several devices is that on one.
    """
    for name, count in (("one", 1), ("several", 2)):
        use(count)
        run = Stages(folder / name)
        run.dropout = 0
        run.finetune |= {"precision": "float32"}
        run.predict |= {"calibrate": True}
        write_tiny_set(run.folder / "data/raw/tiny")
        run.run_from_weights()


if __name__ == "__main__":
    (cpu,) = tensorflow.config.list_physical_devices("CPU")
    part = tensorflow.config.LogicalDeviceConfiguration()
    tensorflow.config.set_logical_device_configuration(cpu, [part] * DEVICES)
    command: dict[str, Callable[[Path], None]] = {
        "functions": functions,
        "more": more,
        "stages": stages,
    }
    command[sys.argv[1]](Path(sys.argv[2]))
