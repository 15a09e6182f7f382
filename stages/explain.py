"""Show where the fine-tuned model looks, on a few pictures it has right and a few it has wrong.

    python -m stages.explain --set flowers17 --backbone vgg19 --crop center

Writes `metrics/explain/SET-BACKBONE/`: the pictures, and for each the same one in which what speaks
for a class is in colour: for the class predicted, and for the true one where that is another.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import Parser, one_of, run
from stages.common.files import read_csv, read_json, replacing, write_json
from stages.common.progress import say
from stages.networks.options import add_run_options
from stages.pictures.decoding import CROPS, Pixels
from stages.pictures.reading import load_pictures
from stages.pictures.table import table_path
from stages.reporting.tables import confident_mistakes, parse_predictions, sample_right

PICTURES = 4
"""Of each kind: mistakes, and right ones."""
SHADE = 0.4
"""Brightness of what does not speak for a class."""


def coloured_where(picture: Pixels, shares: NDArray[np.float32]) -> Pixels:
    """A picture (size, size, 3), grey and dark where `shares`, of any lower resolution, are low."""
    side = len(picture)
    image = Image.fromarray(shares).resize((side, side), Image.Resampling.BILINEAR)
    share = np.asarray(image)[..., np.newaxis]
    grey = SHADE * np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., np.newaxis]
    mixed: Pixels = np.round(share * picture + (1 - share) * grey).astype(np.uint8)
    return mixed


def main(arguments: Sequence[str]) -> None:
    """Parse the options, choose pictures, write them with what speaks for which class."""
    parser = Parser(__doc__)
    add_run_options(parser)
    parser.add_argument("--crop", type=one_of(CROPS, "features.crop"), required=True)
    options = parser.parse_args(arguments)
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.networks.grad_cam import class_maps, has_places
    from stages.networks.model_files import load_model

    name = f"{options.set}-{options.backbone}"
    models = Path("models", options.set, options.backbone)
    classes = read_json(models / "classes.json")
    predictions = parse_predictions(read_csv(Path(f"metrics/predictions/{name}-finetuned.csv")))
    chosen = confident_mistakes(predictions, PICTURES) + sample_right(predictions, PICTURES)
    say(f"loading {models / 'finetuned.keras'}")
    classifier = load_model(models / "finetuned.keras")
    if not has_places(classifier, options.backbone):
        chosen = []
    names = [each.image for each in chosen]
    size = classifier.input_shape[1]
    pictures = load_pictures(table_path(options.set), names, size, options.crop)

    shown: dict[str, Pixels] = {}
    facts: list[dict[str, Any]] = []
    for kind in ("prediction", "truth") if chosen else ():
        say(f"looking for what speaks for the {kind}")
        labels = np.array([classes.index(getattr(each, kind)) for each in chosen])
        maps = class_maps(classifier, options.backbone, pictures, labels)
        for place, (picture, shares) in enumerate(zip(pictures, maps, strict=True)):
            shown[f"{place}_{kind}.jpg"] = coloured_where(picture, shares)
    for place, each in enumerate(chosen):
        shown[f"{place}.jpg"] = pictures[place]
        files = [f"{place}.jpg", f"{place}_prediction.jpg", f"{place}_truth.jpg"]
        facts.append({**each._asdict(), "files": files[:2] if each.right else files})
    used = [file for each in facts for file in each["files"]]
    with replacing(Path("metrics/explain", name)) as folder:
        folder.mkdir()
        for file in used:
            Image.fromarray(shown[file]).save(folder / file, "JPEG", quality=88)
        write_json(folder / "facts.json", facts)
    print(f"{name}: {len(facts)} pictures")


if __name__ == "__main__":
    run(main)
