"""How much easier a random split is than an ordered one, and how much of it duplicates explain.

    python -m tools.duplicate_effect --set flowers17 --backbone mobilenet

Reads what `split` and `features` wrote and fits logistic regressions, seconds each on 17 flowers.
Prints mean and standard deviation of accuracy over the seeds: of the stratified split; of the same
models on the val images that have no duplicate in train; with duplicates kept on one side. Then,
where the set has an ordered protocol, for blocks of consecutive images of each class: accuracy when
they are drawn at random beside the others, and when the whole block is left out of training.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from stages.common.command_line import Parser, number, one_of, run
from stages.pictures.splits import read_split
from stages.sources.sets import SETS
from stages.split import keep_groups_together, stratified

STRENGTH = 0.01
"""Inverse of the L2 penalty, the same for every fit, so that no figure is chosen by val."""
BLOCKS = 6

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def judge(features: Features, labels: Labels, train: Mask) -> Mask:
    """Whether a logistic regression fitted on `train` is right on each other image.

    `features` has shape (images, views, width), the other two (images,). All views of an image
    train, and its probabilities are averaged over them. Images that train count as wrong.
    """
    views, width = features.shape[1:]
    scaler = StandardScaler().fit(features[train].reshape(-1, width))
    model = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3)
    model.fit(scaler.transform(features[train].reshape(-1, width)), labels[train].repeat(views))
    tested = np.flatnonzero(~train)
    probabilities = sum(
        model.predict_proba(scaler.transform(features[tested, view])) for view in range(views)
    )
    right = np.zeros(len(labels), bool)
    right[tested] = model.classes_[np.argmax(probabilities, axis=1)] == labels[tested]
    return right


def compare_groupings(
    features: Features, labels: Labels, groups: Labels, fraction: float, seeds: Sequence[int]
) -> dict[str, list[float]]:
    """Accuracy on val for each seed, shape (seeds,), by how duplicates are dealt with."""
    accuracies: dict[str, list[float]] = {
        "stratified": [],
        "  on val images without a duplicate in train": [],
        "  duplicates kept on one side": [],
    }
    for seed in seeds:
        parts = stratified(labels, fraction, seed)
        val = parts == "val"
        right = judge(features, labels, ~val)
        alone = val & ~np.isin(groups, groups[~val])
        together = keep_groups_together(parts, groups) == "val"
        regrouped = judge(features, labels, ~together)
        figures = right[val].mean(), right[alone].mean(), regrouped[together].mean()
        for values, figure in zip(accuracies.values(), figures, strict=True):
            values.append(float(figure))
    return accuracies


def number_in_class(labels: Labels) -> Labels:
    """Place, from 0, of every image among those of its class, in the set's order."""
    places = np.zeros_like(labels)
    for label in np.unique(labels):
        places[labels == label] = np.arange(np.sum(labels == label))
    return places


def compare_blocks(
    features: Features, labels: Labels, first: int, seeds: Sequence[int]
) -> list[tuple[int, int, float, float]]:
    """Blocks as long as what the `ordered` protocol validates on: all after image `first`.

    A row for each of BLOCKS blocks of every class: its first and last image, counted from 1;
    accuracy when as many images of the class are drawn at random, over all seeds; accuracy when the
    block is left out as a whole. The last row's last figure is the `ordered` protocol's.
    """
    places = number_in_class(labels)
    length = int(places.max()) + 1 - first
    right, drawn = np.zeros(len(labels)), np.zeros(len(labels))
    for seed in seeds:
        val = stratified(labels, length / (first + length), seed) == "val"
        right += judge(features, labels, ~val)
        drawn += val
    rows = []
    for start in np.linspace(0, first, BLOCKS).astype(int).tolist():
        block = (places >= start) & (places < start + length)
        at_random = right[block].sum() / drawn[block].sum()
        as_block = judge(features, labels, ~block)[block].mean()
        rows.append((start + 1, start + length, float(at_random), float(as_block)))
    return rows


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read features and split, print both comparisons."""
    parser = Parser(__doc__)
    parser.add_argument("--set", type=one_of([*SETS], "set"), required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--fraction", type=number(float, 0.01, 0.99), default=0.2)
    parser.add_argument("--seeds", type=number(int, 1, 1000), default=20)
    options = parser.parse_args(arguments)

    table = read_split(Path(f"data/splits/{options.set}.csv"))
    features = np.load(f"data/features/{options.set}/{options.backbone}.npy")
    seeds = range(42, 42 + options.seeds)

    print(f"{options.set}, {options.backbone}, logistic regression, {options.seeds} seeds from 42")
    groupings = compare_groupings(features, table.labels, table.groups, options.fraction, seeds)
    for name, values in groupings.items():
        print(f"{name:46} {np.mean(values):.4f} +- {np.std(values):.4f}")
    first = SETS[options.set].ordered_train
    if first is not None:
        print("images of each class     drawn at random  left out together")
        for start, stop, at_random, as_block in compare_blocks(
            features, table.labels, first, seeds
        ):
            print(f"{start:4} to {stop:4} {at_random:27.4f} {as_block:18.4f}")


if __name__ == "__main__":
    run(main)
