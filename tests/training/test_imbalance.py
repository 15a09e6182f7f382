"""Classes of few images count as much as others where they are to."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.networks.keras_quiet import keras
from stages.training.batches import Batches
from stages.training.fit import fit, make_repeatable
from stages.training.imbalance import image_weights
from stages.training.logistic import choose_strength, fit_logistic, predict_logistic
from stages.training.recipe import Recipe

LABELS = np.repeat([0, 1], [180, 20])
TRAIN = np.arange(200)
Values = NDArray[np.float32]


def values() -> Values:
    """Features (images, 1, 2) of two classes that overlap."""
    noise = np.random.default_rng(0).normal(size=(200, 1, 2))
    return np.asarray(noise + LABELS[:, None, None], np.float32)


def test_weights_of_a_class_add_up_to_the_same_and_are_one_in_the_mean() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, 1, 0])
    train = np.arange(6)
    weights = image_weights(labels, train, 4, "balanced")
    assert weights is not None
    assert weights[train].mean() == 1
    np.testing.assert_allclose(np.bincount(labels[train], weights[train]), 2)
    assert weights[6] == weights[3]
    assert image_weights(labels, train, 4, "none") is None


def test_a_weight_is_worth_as_many_copies_of_the_image() -> None:
    features = values()
    copies = np.where(LABELS == 1, 3, 1)
    (weighted,) = fit_logistic(features, LABELS, [0.5], 2, copies.astype(np.float32))
    (repeated,) = fit_logistic(
        np.repeat(features, copies, axis=0), np.repeat(LABELS, copies), [0.5], 2
    )
    np.testing.assert_allclose(weighted[0], repeated[0], atol=1e-3)
    np.testing.assert_allclose(weighted[1], repeated[1], atol=1e-3)


def by_regression(how: str) -> Values:
    weights = image_weights(LABELS, TRAIN, 2, how)  # type: ignore[arg-type]
    return predict_logistic(values(), fit_logistic(values(), LABELS, [1], 2, weights)[0])


def by_gradient_descent(how: str) -> Values:
    make_repeatable(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    recipe = Recipe("adam", 0.05, "constant", 10, 32, class_weight=how)  # type: ignore[arg-type]
    fit(model, values(), LABELS, (TRAIN, TRAIN[:0]), recipe, seed=0)
    return np.asarray(model.predict_on_batch(values()[:, 0]))


@pytest.mark.parametrize("train", [by_regression, by_gradient_descent])
def test_the_smaller_class_is_found_as_often_as_the_larger(train: Callable[[str], Values]) -> None:
    found = {}
    for how in ("none", "balanced"):
        right = train(how).argmax(axis=1) == LABELS
        found[how] = [right[label == LABELS].mean() for label in (0, 1)]
    assert found["none"][1] < 0.5 < 0.9 < found["none"][0]
    assert abs(found["balanced"][1] - found["balanced"][0]) < 0.25
    assert found["balanced"][1] > found["none"][1] + 0.2


def test_the_strength_is_judged_with_the_classes_weighed() -> None:
    features, nothing = np.zeros((3, 1, 2), np.float32), (None, None)
    features[:, 0, 0] = [-1, 1, 1]
    choosing, judged = (features, np.array([0, 1, 1])), np.array([0, 0, 1])
    judging = (np.asarray(features[[0, 1, 2]]), judged)
    # The second image is labelled wrongly, so that with its weight the weaker penalty loses.
    heavy = (None, np.array([1, 100, 1], np.float32))
    light = (None, np.array([1, 0.001, 1], np.float32))
    assert choose_strength(choosing, judging, [0.01, 100], 2, heavy) == 0.01
    assert choose_strength(choosing, judging, [0.01, 100], 2, light) == 100
    assert choose_strength(choosing, judging, [5], 2, nothing) == 5


def test_batches_carry_weights_only_where_there_are_some() -> None:
    targets = np.eye(2, dtype=np.float32)[LABELS]
    weights = np.arange(200, dtype=np.float32)
    assert len(Batches(values(), targets, TRAIN, 8, 0)[0]) == 2
    batches = Batches(values(), targets, TRAIN, 8, 0, weights=weights)
    rows, _ = batches.dealt[3]
    np.testing.assert_array_equal(batches[3][2], weights[rows])
