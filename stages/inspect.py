"""Show what a network gets to see, and what it makes of it before anything is trained.

    python -m stages.inspect --set flowers17 --backbone vgg19 --image_size native --crop center \
        --pooling avg --views plain mirror --precision auto --augment none --color_jitter 0 \
        --seed 42

Writes `metrics/inspect/SET-BACKBONE/`: pictures as they reach the network, and in `facts.json` the
values after preprocessing, and what the untouched network with ImageNet's classifier says of them
with and without preprocessing. Without that classifier it says why and goes on.
"""
# Python's own `inspect` is not hidden by the name: `stages` is never a folder of the path.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import Parser, UserError, any_seed, one_of, run
from stages.common.files import read_json, replacing, write_json
from stages.common.progress import progress_bar, say
from stages.extraction.extract import add_image_options, image_side, load_pictures
from stages.extraction.forward import BATCH_SIZE
from stages.networks.augmentation import augment, crop_side
from stages.networks.backbones import BACKBONES
from stages.networks.imagenet import (
    PLAUSIBLE,
    class_names,
    has_classifier,
    load_classifier,
    preprocess,
)
from stages.networks.keras_quiet import keras
from stages.networks.options import AUGMENTATIONS, color_share
from stages.pictures.decoding import Pixels
from stages.pictures.readable import readable_rows
from stages.pictures.views import see
from stages.sources.sets import find_set, read_labels

PICTURES = 12
AUGMENTED = 6
BINS = 48
STATES = {
    "random": "its weights are random",
    "none": "it is not published with a classifier",
    "lacking": "its weights with the classifier could not be had",
    "tried": "",
}

Labels = NDArray[np.int64]


def choose_pictures(labels: Labels, first: Sequence[int], seed: int) -> list[int]:
    """Positions of PICTURES images of as many classes, those of the classes `first` among them."""
    rng = np.random.default_rng(seed)
    others = [each for each in rng.permutation(labels.max() + 1).tolist() if each not in first]
    classes = sorted([*first, *others][:PICTURES])
    return [int(rng.choice(np.flatnonzero(labels == each))) for each in classes]


def describe_values(values: NDArray[np.float32]) -> dict[str, Any]:
    """Range, mean and histogram of the values that go into the network."""
    counts, edges = np.histogram(values, BINS)
    return {
        "low": round(float(edges[0]), 4),
        "high": round(float(edges[-1]), 4),
        "mean": round(float(values.mean(dtype=np.float64)), 4),
        "counts": counts.tolist(),
    }


def classify(network: keras.Model, values: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Likeliest ImageNet class of each image, and its probability to four digits."""
    with progress_bar(total=len(values), desc="ImageNet's classifier", unit=" images") as bar:
        shown = keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, **_: bar.update(
                min(BATCH_SIZE, len(values) - batch * BATCH_SIZE)
            )
        )
        given = network.predict(values, batch_size=BATCH_SIZE, verbose=0, callbacks=[shown])
    return [
        {"class": int(row.argmax()), "probability": round(float(row.max()), 4)} for row in given
    ]


def try_classifier(
    name: str, pictures: Pixels, weights: str
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """What the untouched network calls pictures, as they are and preprocessed.

    Returns the key of STATES, and both lists, which are empty unless it is `tried`.
    """
    if weights == "random":
        return "random", [], []
    if not has_classifier(name):
        return "none", [], []
    say(f"building {name} with ImageNet's classifier")
    try:
        network = load_classifier(name)
    except UserError as error:
        print(f"{name} with its ImageNet classifier is left out: {error}")
        return "lacking", [], []
    as_they_are = classify(network, pictures.astype(np.float32))
    return "tried", as_they_are, classify(network, preprocess(name, pictures))


def count_plausible(
    labels: Labels,
    classes: Mapping[int, int],
    plain: Sequence[Mapping[str, Any]],
    preprocessed: Sequence[Mapping[str, Any]],
) -> list[dict[str, int]]:
    """For each label of `classes` (label: ImageNet class), how many images are called by it.

    `labels`, and both lists of predictions, are of the same images.
    """

    def count(predictions: Sequence[Mapping[str, Any]], label: int) -> int:
        own = zip(labels, predictions, strict=True)
        return sum(each["class"] == classes[label] for found, each in own if found == label)

    return [
        {
            "label": label,
            "imagenet": classes[label],
            "images": int(np.sum(labels == label)),
            "plain": count(plain, label),
            "preprocessed": count(preprocessed, label),
        }
        for label in classes
    ]


def random_crops(picture: Pixels, name: str, color_jitter: float, seed: int) -> Pixels:
    """AUGMENTED random crops of a picture (size, size, 3), as fine-tuning shows them `name`."""
    keras.utils.set_random_seed(seed)
    pictures = np.stack([picture] * AUGMENTED).astype(np.float32)
    crops = augment(pictures, crop_side(name, picture.shape[0]), color_jitter, training=True)
    return np.round(np.asarray(crops)).astype(np.uint8)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look at pictures, and write them and what was found."""
    parser = Parser(__doc__)
    add_image_options(parser)
    parser.add_argument("--augment", type=one_of(AUGMENTATIONS, "finetune.augment"), required=True)
    parser.add_argument("--color_jitter", type=color_share, required=True)
    parser.add_argument("--seed", type=any_seed, required=True)
    options = parser.parse_args(arguments)
    image_set, name = find_set(options.set), options.backbone
    raw = Path("data/raw", image_set.name)
    archive, readable = raw / image_set.archive, readable_rows(image_set.name)
    names = [image_set.image_names[row] for row in readable]
    labels = read_labels(image_set, raw)[readable]
    weights = read_json(Path(f"data/weights/{name}.json"))["source"]

    plausible = {
        label: PLAUSIBLE[each]
        for label, each in enumerate(image_set.class_names)
        if each in PLAUSIBLE
    }
    chosen = choose_pictures(labels, [*plausible], options.seed)
    size = image_side(options)
    pictures = load_pictures(archive, [names[each] for each in chosen], size, options.crop)
    # Those that are shown first, then all of the classes that ImageNet knows.
    tried = [*chosen, *np.flatnonzero(np.isin(labels, [*plausible])).tolist()]
    tried = list(dict.fromkeys(tried))
    native = BACKBONES[name].size
    state, plain, preprocessed = try_classifier(
        name,
        load_pictures(archive, [names[each] for each in tried], native, options.crop),
        weights,
    )
    print(f"{len(chosen)} pictures; ImageNet's classifier: {STATES[state] or 'tried'}")
    known = class_names() if state == "tried" else []

    def named(prediction: Mapping[str, Any]) -> dict[str, Any]:
        return {**prediction, "class": known[prediction["class"]]}

    facts: dict[str, Any] = {
        "image_size": size,
        "crop": options.crop,
        "values": describe_values(preprocess(name, pictures)),
        "classifier": STATES[state],
        "classifier_size": native,
        "pictures": [
            {
                "image": names[each],
                "class": image_set.class_names[labels[each]],
                "file": f"picture_{place:02}.jpg",
                "predictions": [named(both[place]) for both in (plain, preprocessed) if both],
            }
            for place, each in enumerate(chosen)
        ],
        "plausible": [
            {
                **each,
                "class": image_set.class_names[each["label"]],
                "imagenet": known[each["imagenet"]],
            }
            for each in count_plausible(labels[tried], plausible, plain, preprocessed)
        ]
        if state == "tried"
        else [],
        "views": [{"name": view, "file": f"view_{view}.jpg"} for view in options.views],
        "augmented": [],
    }
    shown = dict(zip([each["file"] for each in facts["pictures"]], pictures, strict=True))
    for view, each in zip(options.views, facts["views"], strict=True):
        shown[each["file"]] = see(pictures[:1], view)[0]
    if options.augment == "crop":
        changed = random_crops(pictures[0], name, options.color_jitter, options.seed)
        facts["augmented"] = [f"augmented_{place}.jpg" for place in range(AUGMENTED)]
        shown |= dict(zip(facts["augmented"], changed, strict=True))
    with replacing(Path(f"metrics/inspect/{image_set.name}-{name}")) as folder:
        folder.mkdir()
        for file, picture in shown.items():
            Image.fromarray(picture).save(folder / file, "JPEG", quality=90)
        write_json(folder / "facts.json", facts)


if __name__ == "__main__":
    run(main)
