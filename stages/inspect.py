"""Show what a network gets to see, and what it makes of it before anything is trained.

    python -m stages.inspect --set flowers17 --backbone vgg19 --image_size native --crop center \
        --pooling avg --views plain mirror --precision auto --augment none --color_jitter 0 \
        --seed 42

Writes `metrics/inspect/SET-BACKBONE/`: pictures as they reach the network, and in `facts.json` the
values after preprocessing, and what the untouched network with ImageNet's classifier says of them
with and without preprocessing, or why that is not there.
"""
# Python's own `inspect` is not hidden by the name: `stages` is never a folder of the path.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import Parser, any_seed, one_of, run
from stages.common.files import read_json, replacing, write_json
from stages.common.progress import say
from stages.extraction.options import ImageOptions, add_image_options
from stages.networks.options import AUGMENTS, Augment, color_share
from stages.networks.registry import find_backbone
from stages.pictures.decoding import Pixels
from stages.pictures.readable import readable_rows
from stages.pictures.reading import load_pictures
from stages.pictures.table import Labels, read_table, table_path
from stages.pictures.views import see

PICTURES = 12
AUGMENTED = 6
BINS = 48


@dataclass(frozen=True)
class Options(ImageOptions):
    """What the stage is asked for; see params.yaml."""

    augment: Augment
    color_jitter: float
    seed: int


def parse(arguments: Sequence[str]) -> Options:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_image_options(parser)
    parser.add_argument("--augment", type=one_of(AUGMENTS, "finetune.augment"), required=True)
    parser.add_argument("--color_jitter", type=color_share, required=True)
    parser.add_argument("--seed", type=any_seed, required=True)
    return Options(**vars(parser.parse_args(arguments)))


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


def ask_classifier(
    options: Options,
    names: Sequence[str],
    labels: Labels,
    class_names: Sequence[str],
    chosen: Sequence[int],
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """What the untouched network with ImageNet's classifier calls the pictures of a set.

    `names` and `labels` are those of the readable pictures, `chosen` those that are shown. Returns
    for each of the latter its likeliest class as it is and preprocessed, and for each class that
    ImageNet knows too how many of its pictures are called by it. Both are empty where the stage
    `imagenet` has no classifier.
    """
    folder = Path("data/imagenet", options.backbone)
    facts = read_json(folder / "facts.json")
    if facts["lacking"]:
        return [[] for _ in chosen], []
    from stages.networks.backbones import preprocess
    from stages.networks.imagenet import PLAUSIBLE, classify, count_plausible, load_imagenet_network

    backbone, known = find_backbone(options.backbone), facts["class_names"]
    plausible = [label for label, name in enumerate(class_names) if name in PLAUSIBLE]
    # Those that are shown first, then all of the classes that ImageNet knows.
    tried = [*chosen, *np.flatnonzero(np.isin(labels, plausible)).tolist()]
    tried = list(dict.fromkeys(tried))
    asked = [names[each] for each in tried]
    pictures = load_pictures(table_path(options.set), asked, backbone.size, options.crop)
    say(f"building {options.backbone} with ImageNet's classifier")
    network = load_imagenet_network(options.backbone, folder / "classifier.weights.h5")
    values = pictures.astype(np.float32)
    plain = classify(network, values, known)
    preprocessed = classify(network, np.asarray(preprocess(backbone, values), np.float32), known)
    counts = count_plausible(labels[tried], class_names, known, plain, preprocessed)
    return [[*both] for both in zip(plain, preprocessed, strict=True)][: len(chosen)], counts


def views_and_crops(picture: Pixels, options: Options) -> dict[str, Pixels]:
    """A picture in each view, and random crops of it where fine-tuning makes some, by file."""
    shown = {f"view_{view}.jpg": see(picture[np.newaxis], view)[0] for view in options.views}
    if options.augment == "crop":
        from stages.networks.augmentation import random_crops

        crops = random_crops(
            picture, AUGMENTED, options.backbone, options.color_jitter, options.seed
        )
        shown |= {f"augmented_{place}.jpg": crop for place, crop in enumerate(crops)}
    return shown


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look at pictures, and write them and what was found."""
    options = parse(arguments)
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.networks.backbones import preprocess
    from stages.networks.imagenet import PLAUSIBLE

    table, readable = read_table(options.set), readable_rows(options.set)
    names, labels = [table.images[row] for row in readable], table.labels[readable]
    known = [label for label, each in enumerate(table.class_names) if each in PLAUSIBLE]
    chosen = choose_pictures(labels, known, options.seed)
    pictures = load_pictures(
        table_path(options.set), [names[each] for each in chosen], options.side, options.crop
    )
    predictions, plausible = ask_classifier(options, names, labels, table.class_names, chosen)
    lacking = read_json(Path("data/imagenet", options.backbone, "facts.json"))["lacking"]
    print(f"{len(chosen)} pictures; ImageNet's classifier: {lacking or 'tried'}")
    files = [f"picture_{place:02}.jpg" for place in range(len(chosen))]
    others = views_and_crops(pictures[0], options)
    backbone = find_backbone(options.backbone)
    values = np.asarray(preprocess(backbone, pictures.astype(np.float32)), np.float32)
    facts = {
        "image_size": options.side,
        "crop": options.crop,
        "values": describe_values(values),
        "classifier": lacking,
        "classifier_size": backbone.size,
        "pictures": [
            {"image": names[each], "class": table.class_names[labels[each]], "file": file,
             "predictions": said}
            for each, file, said in zip(chosen, files, predictions, strict=True)
        ],
        "plausible": plausible,
        "views": [{"name": view, "file": f"view_{view}.jpg"} for view in options.views],
        "augmented": [file for file in others if file.startswith("augmented")],
    }  # fmt: skip
    with replacing(Path(f"metrics/inspect/{options.set}-{options.backbone}")) as folder:
        folder.mkdir()
        for file, picture in (dict(zip(files, pictures, strict=True)) | others).items():
            Image.fromarray(picture).save(folder / file, "JPEG", quality=90)
        write_json(folder / "facts.json", facts)


if __name__ == "__main__":
    run(main)
