"""The page that goes with a model: what it is, how well it does, and what it is not for."""

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = ("accuracy", "mean_class_accuracy", "top5_accuracy", "log_loss", "calibration_error")
NAMES = {"head": "head", "finetuned": "fine-tuned"}

SOURCES = {
    "published": "the published files, by their digests",
    "mirror": "stand-ins from a local mirror, not the published files",
    "generated": "drawn by this project",
    "own": "a folder of its maker's, listed with a digest of each picture",
}
PROTOCOLS = {
    "stratified": "a share of each class, drawn at random, is val; the rest is train",
    "official": "the parts that whoever made the set gave it",
    "ordered": "the first 65 images of each class are train, its last 15 are val",
}
STAND_INS = (
    "Images or weights are a local mirror's stand-ins (its own README says how they differ), so "
    "these figures are not those of the published ones."
)
PICTURE_TERMS = {
    "generated": "Drawn by this project: nobody else's rights.",
    "own": "Those under which whoever made the set has them.",
}
PUBLISHED_TERMS = (
    "The set's pages ([17](https://www.robots.ox.ac.uk/~vgg/data/flowers/17/), "
    "[102](https://www.robots.ox.ac.uk/~vgg/data/flowers/102/)) state no licence. The pictures are "
    "photographs, many of them from the web, and stay their owners'; the set is there for research."
)
OXFORD = "ported from those of the Visual Geometry Group, Oxford: Creative Commons Attribution"
META = "Meta's: Apache licence 2.0"
WEIGHT_TERMS = {
    "vgg16": OXFORD,
    "vgg19": OXFORD,
    "resnet50": "ported from those of Kaiming He: MIT licence",
    "dinov2_small": META,
    "dinov2_base": META,
    "demo_backbone": "trained by this project, on pictures that it drew",
}
"""What is known of a backbone's published weights."""
UNKNOWN_TERMS = (
    "their terms are not recorded here; for whose work they are see "
    "<https://keras.io/api/applications/>. Keras itself is under the Apache licence 2.0"
)


def weight_terms(backbone: str, source: str) -> str:
    """One line on the terms of a backbone's weights, `source` being that of its record."""
    known = WEIGHT_TERMS.get(backbone, UNKNOWN_TERMS)
    return f"`{backbone}`: " + ("random numbers" if source == "random" else known)


def results_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a table: a row for each score, a column for each model, intervals in brackets."""
    models = [name for name in NAMES if name in metrics]
    lines = [
        "| | " + " | ".join(NAMES[name] for name in models) + " |",
        "|---|" + "---|" * len(models),
    ]
    for score in SHOWN:
        cells = []
        for name in models:
            scores = metrics[name]
            low, high = scores.get(f"{score}_low"), scores.get(f"{score}_high")
            interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
            cells.append(f"{scores[score]:.4f}{interval}")
        lines.append(f"| {score.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def weakest(
    classes: Sequence[str], recalls: Sequence[float], images: Sequence[int], most: int = 5
) -> list[str]:
    """Lines on the classes of which the least is recognised, the worst first; none at 100 %.

    `recalls` are shares, NaN for a class without images.
    """
    rows = zip(recalls, classes, images, strict=True)
    low = sorted(row for row in rows if row[0] < 1)
    return [f"- {name}: {share:.0%} of {count}" for share, name, count in low[:most]]


def write_card(
    summary: Mapping[str, Any],
    parts: Mapping[str, int],
    recalls: Sequence[float],
    images: Sequence[int],
) -> str:
    """The model card of a set and backbone, Markdown.

    `summary` is what `metrics/summary/` holds, `parts` the number of images by part in the split,
    `recalls` and `images` those of each class, of the last model, on the part that is reported.
    """
    name, backbones = summary["set"], summary["backbone"].split("+")
    metrics, features, classes = summary["metrics"], summary["features"], summary["classes"]
    last = "finetuned" if "finetuned" in metrics else "head"
    scores, source = metrics[last], summary["images"]["source"]
    repeats = scores.get("repeats", 1)
    # The sizes of a fusion's backbones may differ.
    size = f"{features['image_size']} px" if len(backbones) == 1 else "`model.input_shape`"
    files = [
        f"- `{file}`: SHA-256 `{record['sha256']}`"
        for file, record in sorted(summary["images"]["files"].items())
    ]
    low = weakest(classes, recalls, images)
    terms = PICTURE_TERMS.get(source, PUBLISHED_TERMS)
    kinds = "classes" if source == "own" else "kinds of flowers"
    sections = [
        f"# {name}, {' and '.join(backbones)}",
        f"Tells {len(classes)} {kinds} apart: a head trained on the features of "
        + ("a frozen network" if len(backbones) == 1 else "frozen networks side by side")
        + (", then fine-tuned with the network's upper layers." if last == "finetuned" else "."),
        "## Results",
        f"On {scores['images']} images of the part `{summary['part']}` of the protocol "
        f"`{summary['protocol']}`: {PROTOCOLS[summary['protocol']]}. In brackets the 95 % interval"
        + (f"; means of {repeats} repeats, images of the first." if repeats > 1 else ".")
        + " Seed, refit and all else that decides: `params.yaml` of the same commit.",
        *([STAND_INS] if "mirror" in {source, *summary["weights"]["source"].split("+")} else []),
        "\n".join(results_table(metrics)),
        f"Guessing would be right in {1 / len(classes):.1%}. "
        + (
            f"Classes that the {NAMES[last]} model recognises least:"
            if low
            else f"The {NAMES[last]} model recognises every one of these images."
        ),
        *(["\n".join(low)] if low else []),
        "## Data",
        f"The set `{name}`: {SOURCES[source]}. "
        + ", ".join(f"{count} images of {part}" for part, count in parts.items())
        + ("." if "unreadable" not in scores else f"; {scores['unreadable']} cannot be read."),
        *(["\n".join(files)] if files else []),
        f"Weights of the backbone: `{summary['weights']['source']}`. Pictures "
        f"as squares of {size}, crop `{features['crop']}`, views "
        f"{', '.join(features['views'])}; pooling `{features['pooling']}`.",
        "## Limits",
        "- It knows no \"none of these\": whatever it is shown, it names one of its classes.\n"
        f"- It takes squares of {size}; other pictures are to be cropped and scaled as above.\n"
        "- Scores are of pictures of the set it learned from; how it does on others has not been "
        "measured.\n"
        "- Nothing that matters should hang on it: not what is safe to eat or to touch.",
        "## Terms",
        f"- Pictures: {terms}\n"
        + "\n".join(
            f"- Weights of {weight_terms(each, summary['weights']['source'])}"
            for each in backbones
        )
        + "\n- Nothing here is legal advice.",
        "## Use",
        "```python\nimport keras\n\n"
        f'model = keras.saving.load_model("models/{name}/{summary["backbone"]}/{last}.keras")\n'
        "probabilities = model.predict(images)  # RGB, 0 to 255, of model.input_shape\n```",
        "The classes' names, in the order of the probabilities, are in `classes.json` beside it.",
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"
