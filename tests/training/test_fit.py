import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.networks.keras_quiet import keras
from stages.pictures.splits import Rows
from stages.training import fit as fit_module
from stages.training.batches import Batches
from stages.training.fit import fit, make_repeatable
from stages.training.history import HISTORY_COLUMNS
from stages.training.optimizers import make_optimizer
from stages.training.recipe import Recipe
from tests.tiny_set import ROOT

IMAGES, VIEWS, WIDTH, CLASSES = 40, 2, 6, 3


def recipe(**changes: Any) -> Recipe:
    return replace(Recipe("adam", 0.05, "cosine", epochs=4, batch_size=8), **changes)


def data() -> tuple[NDArray[np.float16], NDArray[np.int64], Rows]:
    """Noisy clusters: values (images, views, width), labels, and rows of which 5 judge.

    Those that judge have wrong labels, so that their loss is at its lowest after a few epochs.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=IMAGES)
    centres = rng.normal(size=(CLASSES, 1, WIDTH))
    values = centres[labels] + rng.normal(size=(IMAGES, VIEWS, WIDTH))
    labels[:5] = (labels[:5] + 1) % CLASSES
    rows = Rows(np.arange(5, 40), np.arange(5), np.arange(40), np.arange(0))
    return values.astype(np.float16), labels, rows


def network(seed: int = 0) -> keras.Model:
    """A small network with all that carries state: dropout, batch norm and weights."""
    make_repeatable(seed)
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )


@cache
def trained(how: Recipe, seed: int = 0, **settings: Any) -> tuple[dict[str, list[float]], Any]:
    """History and weights of the network trained on those that do not judge, watching them."""
    values, labels, rows = data()
    model = network()
    judged = (rows.choosing, rows.judging)
    history = fit(model, values, labels, judged, how, seed, **settings)
    return history, np.concatenate([weights.ravel() for weights in model.get_weights()])


def test_history_has_a_value_an_epoch_and_the_loss_falls() -> None:
    history, _ = trained(recipe(epochs=6))
    assert set(history) == set(HISTORY_COLUMNS)
    assert {len(column) for column in history.values()} == {6}
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_slices_report_and_the_rate_falls_over_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, labels, rows = data()
    how, steps = recipe(epochs=2, slices=4), list[int]()

    def watching(recipe: Recipe, count: int) -> Any:
        steps.append(count)
        return make_optimizer(recipe, count)

    monkeypatch.setattr(fit_module, "make_optimizer", watching)
    history = fit(network(), values, labels, (rows.final, rows.shown), how, seed=0)
    assert len(history["loss"]) == 8
    # 40 images in batches of 8 at most: two in each of four slices.
    assert steps == [2 * 4 * 2]
    # No rows are watched.
    assert np.isnan([history["val_loss"], history["val_accuracy"]]).all()
    assert np.isfinite([history["loss"], history["accuracy"]]).all()


def test_no_epochs_leave_the_model_as_it_is() -> None:
    history, weights = trained(recipe(epochs=0))
    assert history == {column: [] for column in HISTORY_COLUMNS}
    drawn = np.concatenate([each.ravel() for each in network().get_weights()])
    np.testing.assert_array_equal(weights, drawn)


def test_validation_sees_the_watched_rows_in_their_first_view() -> None:
    values, labels, rows = data()
    model, watched = network(), rows.judging
    history = fit(model, values, labels, (rows.choosing, watched), recipe(epochs=1), seed=0)
    seen = model.predict_on_batch(values[watched, 0].astype(np.float32))
    own = seen[np.arange(5), labels[watched]]
    assert history["val_loss"][0] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert history["val_accuracy"][0] == pytest.approx((seen.argmax(1) == labels[watched]).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.3},
        {"weight_decay": 0.5},
        {"slices": 2},
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def test_training_takes_the_steps_that_the_recipe_says(changes: dict[str, Any]) -> None:
    """Linear steps of SGD, worked by hand in NumPy in the order that Batches draws."""
    values, labels, rows = data()
    model = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(CLASSES, "softmax", kernel_initializer="ones")]
    )
    how = recipe(optimizer="sgd", schedule="constant", learning_rate=0.1, epochs=3, **changes)
    history = fit(model, values, labels, (rows.choosing, rows.judging), how, seed=5)

    weights, speed = np.ones((WIDTH + 1, CLASSES)), np.zeros((WIDTH + 1, CLASSES))
    weights[-1] = 0
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    batches = Batches(values, targets, rows.choosing, 8, 5, how.slices)
    for part in range(3 * how.slices):
        batches.start(part)
        for step in range(len(batches)):
            x, y = batches[step]
            x = np.hstack([x, np.ones((len(x), 1))])
            y = (1 - how.label_smoothing) * y + how.label_smoothing / CLASSES
            scores = np.exp(x @ weights)
            slope = x.T @ (scores / scores.sum(1, keepdims=True) - y) / len(x)
            speed = 0.9 * speed - 0.1 * slope
            weights = weights * (1 - 0.1 * how.weight_decay) + 0.9 * speed - 0.1 * slope
    np.testing.assert_allclose(np.vstack(model.get_weights()), weights, atol=1e-5)
    assert len(history["loss"]) == 3 * how.slices


def test_the_same_seed_trains_the_same_weights() -> None:
    (_, one), (_, again) = trained(recipe(epochs=6)), trained.__wrapped__(recipe(epochs=6))
    np.testing.assert_array_equal(one, again)


def test_make_repeatable_seeds_layers_and_numpy() -> None:
    def drawn() -> list[float]:
        make_repeatable(3)
        layer = keras.layers.Dense(1)
        layer.build((None, 1))
        return [np.random.rand(), float(layer.kernel[0, 0])]  # noqa: NPY002

    assert drawn() == drawn()


def test_the_number_of_threads_is_fixed_where_training_is_to_repeat_and_nowhere_else() -> None:
    """Serving, say, imports this module and is to use the whole machine."""
    code = (
        "import os\n"
        "from stages.training.fit import make_repeatable\n"
        "assert os.environ['TF_NUM_INTRAOP_THREADS'] == '3'\n"
        "make_repeatable(0)\n"
        "assert os.environ['TF_NUM_INTRAOP_THREADS'] == '8'\n"
    )
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "3"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
