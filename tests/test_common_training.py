import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import Parser, UserError
from stages.common.files import read_json, write_json
from stages.common.keras_quiet import keras
from stages.common.results import HISTORY_COLUMNS
from stages.common.training import (
    Batches,
    Checkpoints,
    Recipe,
    add_training_options,
    choose_rows,
    fit,
    make_optimizer,
    make_repeatable,
    predict,
    recipe_of,
)

IMAGES, VIEWS, WIDTH, CLASSES = 40, 2, 6, 3

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]


def recipe(**changes: Any) -> Recipe:
    return replace(Recipe("adam", 0.05, "cosine", epochs=4, batch_size=8), **changes)


def data() -> tuple[NDArray[np.float16], NDArray[np.int64], Rows]:
    """Noisy clusters: values (images, views, width), labels, and rows to train on and to watch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=IMAGES)
    centres = rng.normal(size=(CLASSES, 1, WIDTH))
    values = centres[labels] + rng.normal(size=(IMAGES, VIEWS, WIDTH))
    return values.astype(np.float16), labels, (np.arange(5, 40), np.arange(5))


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


def distinct(rows: int = 10) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Values that tell their row and view, 10 * row + view, and labels that tell the row."""
    values = 10 * np.arange(rows)[:, None, None] + np.arange(3)[None, :, None]
    return values.astype(np.float16), np.arange(rows)


def epoch_of(batches: Batches, epoch: int) -> tuple[NDArray[Any], NDArray[Any]]:
    batches.start_epoch(epoch)
    values, labels = zip(*(batches[step] for step in range(len(batches))), strict=True)
    return np.concatenate(values), np.concatenate(labels)


def test_an_epoch_covers_its_rows_once_and_its_last_batch_is_smaller() -> None:
    rows = np.array([1, 2, 3, 5, 7, 8, 9])
    batches = Batches(*distinct(), rows, batch_size=3, seed=0)
    assert [len(batches[step][1]) for step in range(len(batches))] == [3, 3, 1]
    values, labels = epoch_of(batches, 0)
    assert sorted(labels) == rows.tolist()
    np.testing.assert_array_equal(values[:, 0] // 10, labels)


def test_values_of_a_batch_are_float32() -> None:
    values, _ = Batches(*distinct(), np.arange(4), 4, seed=0)[0]
    assert values.dtype == np.float32
    assert values.shape == (4, 1)


def test_views_are_drawn_for_each_image_from_all_that_there_are() -> None:
    batches = Batches(*distinct(100), np.arange(100), 7, seed=0)
    views = epoch_of(batches, 0)[0][:, 0] % 10
    assert set(views) == {0, 1, 2}


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def drawn(seed: int, *epochs: int) -> list[float]:
        batches = Batches(*distinct(), np.arange(10), 4, seed)
        return [epoch_of(batches, epoch)[0].ravel().tolist() for epoch in epochs][-1]

    assert drawn(1, 0, 1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 1)
    assert drawn(1, 2) != drawn(2, 2)


def test_without_patience_val_is_watched() -> None:
    parts = np.array(["train", "val", "train", "val"])
    train, watched = choose_rows(np.zeros(4, int), parts, patience=0, seed=0)
    assert (train.tolist(), watched.tolist()) == ([0, 2], [1, 3])


def test_early_stopping_watches_val_where_test_is_reported() -> None:
    parts = np.array(["train", "val", "train", "test"])
    train, watched = choose_rows(np.zeros(4, int), parts, patience=3, seed=0)
    assert (train.tolist(), watched.tolist()) == ([0, 2], [1])


def test_early_stopping_holds_a_stratified_tenth_out_where_val_is_reported() -> None:
    labels = np.repeat([0, 1], 50)
    parts = np.array((["train"] * 40 + ["val"] * 10) * 2)
    train, watched = choose_rows(labels, parts, patience=3, seed=0)
    assert np.bincount(labels[watched]).tolist() == [4, 4]
    both = np.concatenate([train, watched])
    assert sorted(both) == [row for row, part in enumerate(parts) if part == "train"]
    assert train.tolist() == sorted(train)
    assert watched.tolist() == sorted(watched)
    again = choose_rows(labels, parts, patience=3, seed=0)
    other = choose_rows(labels, parts, patience=3, seed=1)
    assert again[1].tolist() == watched.tolist()
    assert other[1].tolist() != watched.tolist()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("adamax", keras.optimizers.Adamax),
        ("adamw", keras.optimizers.AdamW),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_optimizers_are_those_named(name: str, kind: Any) -> None:
    optimizer = make_optimizer(recipe(optimizer=name, schedule="constant", learning_rate=0.5), 10)
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.5


def test_sgd_has_nesterov_momentum() -> None:
    optimizer = make_optimizer(recipe(optimizer="sgd"), 10)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "sgd"])
def test_cosine_falls_from_the_rate_over_its_half_to_zero(name: str) -> None:
    optimizer = make_optimizer(recipe(optimizer=name, learning_rate=0.5), steps=10)
    schedule = optimizer._learning_rate
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0])


def test_options_make_the_recipe() -> None:
    parser = Parser(None)
    add_training_options(parser, "head", min_epochs=1)
    words = (
        "--seed 1 --optimizer sgd --learning_rate 0.5 --schedule cosine --epochs 3 --batch_size 8"
    )
    options = parser.parse_args(words.split())
    assert recipe_of(options, 2) == Recipe("sgd", 0.5, "cosine", 3, 8, 2)
    assert options.seed == 1


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("seed", "-1", "from 0 to"),
        ("optimizer", "lion", "no head.optimizer 'lion'; there are: adam, adamax, adamw, sgd"),
        ("learning_rate", "0", "above 0 to 10"),
        ("schedule", "step", "no head.schedule 'step'"),
        ("epochs", "0", "from 1 to"),
        ("batch_size", "0.5", "a whole number"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: str, reason: str) -> None:
    parser = Parser(None)
    add_training_options(parser, "head", min_epochs=1)
    with pytest.raises(UserError, match=reason):
        parser.parse_args([f"--{option}={value}"])


def test_history_has_a_value_an_epoch_and_the_loss_falls() -> None:
    values, labels, rows = data()
    history = fit(network(), values, labels, rows, recipe(epochs=6), seed=0)
    assert set(history) == set(HISTORY_COLUMNS)
    assert {len(column) for column in history.values()} == {6}
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_validation_sees_the_watched_rows_in_their_first_view() -> None:
    values, labels, rows = data()
    model = network()
    history = fit(model, values, labels, rows, recipe(epochs=1), seed=0)
    seen = model.predict_on_batch(values[rows[1], 0].astype(np.float32))
    own = seen[np.arange(5), labels[rows[1]]]
    assert history["val_loss"][0] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert history["val_accuracy"][0] == pytest.approx((seen.argmax(1) == labels[rows[1]]).mean())


def test_training_takes_the_batches_of_each_epoch_in_turn() -> None:
    """Linear steps of SGD, worked by hand in NumPy in the order that Batches draws."""
    values, labels, (train, watched) = data()
    model = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(CLASSES, "softmax", kernel_initializer="zeros")]
    )
    how = recipe(optimizer="sgd", schedule="constant", learning_rate=0.1, epochs=3)
    fit(model, values, labels, (train, watched), how, seed=5)

    weights, speed = np.zeros((WIDTH + 1, CLASSES)), np.zeros((WIDTH + 1, CLASSES))
    batches = Batches(values, labels, train, how.batch_size, seed=5)
    for epoch in range(3):
        batches.start_epoch(epoch)
        for step in range(len(batches)):
            x, y = batches[step]
            x = np.hstack([x, np.ones((len(x), 1))])
            scores = np.exp(x @ weights)
            slope = x.T @ (scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[y]) / len(x)
            speed = 0.9 * speed - 0.1 * slope
            weights += 0.9 * speed - 0.1 * slope
    np.testing.assert_allclose(np.vstack(model.get_weights()), weights, atol=1e-5)


def test_the_same_seed_trains_the_same_weights() -> None:
    values, labels, rows = data()

    def trained() -> Any:
        model = network()
        fit(model, values, labels, rows, recipe(epochs=2), seed=1)
        return np.concatenate([weights.ravel() for weights in model.get_weights()])

    np.testing.assert_array_equal(trained(), trained())


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("optimizer", "killed_in"), [("adam", 2), ("sgd", 0)])
def test_killed_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int, optimizer: str
) -> None:
    values, labels, rows = data()
    how = recipe(optimizer=optimizer)
    undisturbed = network()
    history = fit(undisturbed, values, labels, rows, how, 0, tmp_path / "undisturbed")

    get_batch, started = Batches.__getitem__, Batches.start_epoch

    def start_epoch(self: Batches, epoch: int) -> None:
        started(self, epoch)
        self.epoch = epoch

    def killing(self: Batches, step: int) -> Any:
        if self.epoch == killed_in and step == 3:
            raise KilledError
        return get_batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "start_epoch", start_epoch)
        patch.setattr(Batches, "__getitem__", killing)
        with pytest.raises(Exception, match="KilledError"):
            fit(network(), values, labels, rows, how, 0, tmp_path / "killed")

    states = list((tmp_path / "killed").glob("*"))
    assert [state.name for state in states] == ([] if killed_in == 0 else ["000001"])
    resumed = network()
    assert fit(resumed, values, labels, rows, how, 0, tmp_path / "killed") == history
    for found, wanted in zip(resumed.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_last_checkpoint_alone_stays_and_needs_no_more_training(tmp_path: Path) -> None:
    values, labels, rows = data()
    done = network()
    history = fit(done, values, labels, rows, recipe(), 0, tmp_path)
    assert [state.name for state in tmp_path.glob("*")] == ["000003"]
    assert read_json(tmp_path / "000003/history.json") == history
    again = network(seed=9)
    assert fit(again, values, labels, rows, recipe(), 0, tmp_path) == history
    for found, wanted in zip(again.get_weights(), done.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_unfinished_checkpoint_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / ".partial-000003").mkdir()
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    assert Checkpoints(tmp_path).restore(model) == 0


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    """A kill between the writing of a state and the removal of the one before leaves both."""
    values, labels, rows = data()
    history = fit(network(), values, labels, rows, recipe(epochs=1), 0, tmp_path)
    shutil.copytree(tmp_path / "000000", tmp_path / "000001")
    write_json(tmp_path / "000001/history.json", {key: 2 * row for key, row in history.items()})
    model = network()
    model.compile(make_optimizer(recipe(), 1), "sparse_categorical_crossentropy")
    assert Checkpoints(tmp_path).restore(model) == 2


def test_early_stopping_takes_the_best_epoch() -> None:
    values, labels, (train, watched) = data()
    shuffled = labels.copy()
    shuffled[watched] = (labels[watched] + 1) % CLASSES
    model = network()
    how = recipe(epochs=30, patience=2, schedule="constant")
    history = fit(model, values, shuffled, (train, watched), how, 0)
    losses = history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 30
    seen = model.predict_on_batch(values[watched, 0].astype(np.float32))
    own = seen[np.arange(len(watched)), shuffled[watched]]
    assert -np.log(own).mean() == pytest.approx(losses[best], rel=1e-4)


def test_prediction_averages_the_first_views() -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 3, 2)

    def first_share(batch: NDArray[Any]) -> NDArray[Any]:
        assert batch.dtype == np.float32
        share = batch[:, :1] / 100
        return np.hstack([share, 1 - share])

    one = predict(first_share, values, views=1, batch_size=3)
    np.testing.assert_allclose(one[:, 0], [0, 0.06, 0.12, 0.18], atol=1e-7)
    two = predict(first_share, values, views=2, batch_size=3)
    np.testing.assert_allclose(two[:, 0], [0.01, 0.07, 0.13, 0.19], atol=1e-7)
    np.testing.assert_allclose(two.sum(1), 1)
    assert two.dtype == np.float32


def test_prediction_of_pixels_keeps_their_shape() -> None:
    values = np.full((3, 2, 4, 4, 3), 7, np.uint8)

    def mean(batch: NDArray[Any]) -> NDArray[Any]:
        assert batch.shape[1:] == (4, 4, 3)
        return np.asarray(batch.mean(axis=(1, 2)))

    np.testing.assert_array_equal(predict(mean, values, views=2), np.full((3, 3), 7))


def test_make_repeatable_seeds_layers_and_numpy() -> None:
    def drawn() -> list[float]:
        make_repeatable(3)
        layer = keras.layers.Dense(1)
        layer.build((None, 1))
        return [np.random.rand(), float(layer.kernel[0, 0])]  # noqa: NPY002

    assert drawn() == drawn()
