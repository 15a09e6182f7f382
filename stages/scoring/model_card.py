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
UNKNOWN_TERMS = (
    "their terms are not recorded here; for whose work they are see "
    "<https://keras.io/api/applications/>. Keras itself is under the Apache licence 2.0"
)


def results_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a table: a row for each score, a column for each model, intervals in brackets."""
    lines = ["| | " + " | ".join(NAMES.values()) + " |", "|---|" + "---|" * len(NAMES)]
    for score in SHOWN:
        cells = []
        for name in NAMES:
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


def _results(
    summary: Mapping[str, Any], recalls: Sequence[float], images: Sequence[int]
) -> list[str]:
    metrics, classes, protocol = summary["metrics"], summary["classes"], summary["protocol"]
    stand_ins = "mirror" in {summary["images"]["source"], summary["weights"]["source"]}
    low = weakest(classes, recalls, images)
    return [
        "## Results",
        f"On {metrics['finetuned']['images']} images of the part `{summary['part']}` of the "
        f"protocol `{protocol}`: {PROTOCOLS[protocol]}. In brackets the 95 % interval. "
        "Seed, refit and all else that decides: `params.yaml` of the same commit.",
        *([STAND_INS] if stand_ins else []),
        "\n".join(results_table(metrics)),
        f"Guessing would be right in {1 / len(classes):.1%}. "
        + (
            f"Classes that the {NAMES['finetuned']} model recognises least:"
            if low
            else f"The {NAMES['finetuned']} model recognises every one of these images."
        ),
        *(["\n".join(low)] if low else []),
    ]


def _data(summary: Mapping[str, Any], parts: Mapping[str, int]) -> list[str]:
    features, images = summary["features"], summary["images"]
    unreadable = summary["metrics"]["finetuned"].get("unreadable")
    files = [
        f"- `{file}`: SHA-256 `{record['sha256']}`"
        for file, record in sorted(images["files"].items())
    ]
    return [
        "## Data",
        f"The set `{summary['set']}`: {SOURCES[images['source']]}. "
        + ", ".join(f"{count} images of {part}" for part, count in parts.items())
        + (f"; {unreadable} cannot be read." if unreadable else "."),
        *(["\n".join(files)] if files else []),
        f"Weights of the backbone: `{summary['weights']['source']}`. Pictures "
        f"as squares of {features['image_size']} px, crop `{features['crop']}`, views "
        f"{', '.join(features['views'])}; pooling `{features['pooling']}`.",
    ]


def write_card(
    summary: Mapping[str, Any],
    parts: Mapping[str, int],
    recalls: Sequence[float],
    images: Sequence[int],
) -> str:
    """The model card of a set and backbone, Markdown.

    `summary` is what `metrics/summary/` holds, `parts` the number of images by part in the split,
    `recalls` and `images` those of each class, of the fine-tuned model, on the part that is
    reported.
    """
    name, backbone = summary["set"], summary["backbone"]
    kinds = "classes" if summary["images"]["source"] == "own" else "kinds of flowers"
    sections = [
        f"# {name}, {backbone}",
        f"Tells {len(summary['classes'])} {kinds} apart: a head trained on the features of a "
        "frozen network, then fine-tuned with the network's upper layers.",
        *_results(summary, recalls, images),
        *_data(summary, parts),
        "## Limits",
        "- It knows no \"none of these\": whatever it is shown, it names one of its classes.\n"
        f"- It takes squares of {summary['features']['image_size']} px; other pictures are to be "
        "cropped and scaled as above.\n"
        "- Scores are of pictures of the set it learned from; how it does on others has not been "
        "measured.\n"
        "- Nothing that matters should hang on it: not what is safe to eat or to touch.",
        "## Terms",
        f"- Pictures: {summary['images']['terms']}\n"
        f"- Weights of `{backbone}`: {summary['weights'].get('terms', UNKNOWN_TERMS)}\n"
        "- Nothing here is legal advice.",
        "## Use",
        "```python\nimport keras\n\n"
        f'model = keras.saving.load_model("models/{name}/{backbone}/finetuned.keras")\n'
        "probabilities = model.predict(images)  # RGB, 0 to 255, of model.input_shape\n```",
        "The classes' names, in the order of the probabilities, are in `classes.json` beside it.",
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"
