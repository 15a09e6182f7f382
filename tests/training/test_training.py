from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import Parser, UserError
from stages.networks.keras_quiet import keras
from stages.pictures.splits import Rows
from stages.training import fit as fit_module
from stages.training.batches import Batches
from stages.training.fit import choose_reports, fit, make_repeatable
from stages.training.history import HISTORY_COLUMNS
from stages.training.prediction import predict
from stages.training.recipe import (
    Recipe,
    add_training_options,
    make_optimizer,
    rate_shares,
    recipe_of,
)

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


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "sgd"])
def test_warm_up_rises_evenly_from_zero_and_the_cosine_falls_after_it(name: str) -> None:
    how = recipe(optimizer=name, learning_rate=0.5, warmup=0.2)
    schedule = make_optimizer(how, steps=20)._learning_rate
    found = [float(schedule(step)) for step in (0, 1, 2, 4, 8, 12, 20)]
    # Four of twenty steps rise; a quarter of the other sixteen is (1 + cos 45 degrees) / 2.
    assert found == pytest.approx([0, 0.125, 0.25, 0.5, 0.25 * (1 + 0.5**0.5), 0.25, 0])


def test_warm_up_may_last_to_the_end() -> None:
    schedule = make_optimizer(recipe(learning_rate=0.5, warmup=1), steps=4)._learning_rate
    assert [float(schedule(step)) for step in (0, 2, 4)] == pytest.approx([0, 0.25, 0.5])


def test_a_constant_rate_knows_no_steps() -> None:
    optimizer = make_optimizer(recipe(schedule="constant", learning_rate=0.5, warmup=0.5), 4)
    assert float(optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "sgd"])
@pytest.mark.parametrize(("decay", "wanted"), [(0, 3.0), (0.1, 3 * (1 - 0.5 * 0.1))])
def test_weight_decay_takes_its_share_of_the_rate_where_nothing_is_to_learn(
    name: str, decay: float, wanted: float
) -> None:
    how = recipe(optimizer=name, schedule="constant", learning_rate=0.5, weight_decay=decay)
    weight = keras.Variable([3.0])
    make_optimizer(how, 1).apply([keras.ops.zeros(1)], [weight])
    assert float(weight.value[0]) == pytest.approx(wanted)


def parser() -> Parser:
    taken = Parser(None)
    add_training_options(taken, "head", min_epochs=1)
    return taken


WORDS = (
    "--seed 1 --refit true --optimizer sgd --learning_rate 0.5 --schedule cosine --epochs 3 "
    "--batch_size 8 --weight_decay 0.01 --label_smoothing 0.2 --early_stopping 4 "
    "--class_weight balanced"
)


def test_options_make_the_recipe() -> None:
    options = parser().parse_args(WORDS.split())
    wanted = Recipe(
        "sgd", 0.5, "cosine", 3, 8, 0, 0.01, 0.2, early_stopping=4, class_weight="balanced"
    )
    assert recipe_of(options) == wanted
    assert (options.seed, options.refit) == (1, "true")


def test_options_of_fine_tuning_alone_come_into_the_recipe_too() -> None:
    taken = parser()
    names = ("warmup", "lowest_rate", "slices")
    for name in names:
        taken.add_argument(f"--{name}", type=float)
    words = [f"--{name}={number}" for number, name in enumerate(names, 1)]
    found = recipe_of(taken.parse_args([*WORDS.split(), *words]))
    assert [getattr(found, name) for name in names] == [1, 2, 3]


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("seed", "-1", "from 0 to"),
        ("refit", "yes", "no refit 'yes'; there are: true, false"),
        ("optimizer", "lion", "no head.optimizer 'lion'; there are: adam, adamax, adamw, sgd"),
        ("learning_rate", "0", "above 0 to 10"),
        ("schedule", "step", "no head.schedule 'step'"),
        ("epochs", "0", "from 1 to"),
        ("batch_size", "0.5", "a whole number"),
        ("weight_decay", "-0.1", "from 0 to 10"),
        ("label_smoothing", "1", "from 0 to 0.9"),
        ("early_stopping", "-1", "a whole number from 0"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parser().parse_args([f"--{option}={value}"])


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


def four_layers() -> keras.Model:
    """Four Dense layers, the upper two in a model of their own; the third does not train."""
    image = keras.Input((WIDTH,))
    upper = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(CLASSES, "softmax")]
    )
    upper.layers[0].trainable = False
    return keras.Model(image, upper(keras.layers.Dense(4)(keras.layers.Dense(4)(image))))


def test_rates_rise_evenly_over_the_layers_that_train() -> None:
    shares = rate_shares(four_layers(), 0.01)
    assert [*shares.values()] == pytest.approx([0.01, 0.01, 0.1, 0.1, 1, 1])
    assert [path.rpartition("/")[2] for path in shares] == ["kernel", "bias"] * 3
    assert [*rate_shares(network(), 0.01).values()][-1] == 1


def test_each_layer_takes_its_share_of_a_step() -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    values, labels, rows = data()
    keras.utils.set_random_seed(0)
    model = four_layers()
    before = [variable.numpy() for variable in model.trainable_variables]
    how = recipe(optimizer="adam", schedule="constant", epochs=1, batch_size=40, lowest_rate=0.01)
    fit(model, values, labels, (rows.final, rows.shown), how, seed=0)
    steps = [
        abs(variable.numpy() - old).max()
        for variable, old in zip(model.trainable_variables, before, strict=True)
    ]
    rate = how.learning_rate
    assert steps == pytest.approx([0.01 * rate] * 2 + [0.1 * rate] * 2 + [rate] * 2, rel=0.02)


def test_the_same_seed_trains_the_same_weights() -> None:
    (_, one), (_, again) = trained(recipe(epochs=6)), trained.__wrapped__(recipe(epochs=6))
    np.testing.assert_array_equal(one, again)


def test_training_for_so_many_reports_is_the_beginning_of_the_whole() -> None:
    """The schedule stays that of all the epochs."""
    whole, begun = trained(recipe(epochs=6))[0], trained(recipe(epochs=6), reports=2)[0]
    assert begun == {name: entries[:2] for name, entries in whole.items()}


def test_the_number_of_reports_is_that_of_the_lowest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def losses(*arguments: Any, **settings: Any) -> dict[str, list[float]]:
        given.update(settings, rows=arguments[3])
        return {"val_loss": [3, 2, 1.5, 1.5, 4]}

    monkeypatch.setattr("stages.training.fit.fit", losses)
    values, labels, rows = data()
    assert choose_reports(network, values, labels, rows, recipe(early_stopping=7), seed=0) == 3
    assert given["patience"] == 7
    assert given["rows"] == (rows.choosing, rows.judging)


def test_the_choice_ends_so_many_epochs_after_the_lowest_loss() -> None:
    how = recipe(epochs=30, schedule="constant")
    losses = trained(how)[0]["val_loss"]
    stopped = trained(how, patience=2)[0]["val_loss"]
    best = int(np.argmin(stopped))
    assert stopped == losses[: best + 1 + 2]
    assert len(stopped) < 30
    # The first epoch after which the loss rose twice running, by the whole training's losses.
    lowest = [int(np.argmin(losses[:end])) for end in range(1, 31)]
    assert len(stopped) == next(end for end in range(1, 31) if end - 1 - lowest[end - 1] >= 2)


@pytest.mark.parametrize("changes", [{"early_stopping": 0}, {"early_stopping": 3, "epochs": 0}])
def test_where_nothing_is_to_choose_nothing_is_trained(changes: dict[str, int]) -> None:
    values, labels, rows = data()
    how = recipe(**changes)
    assert choose_reports(lambda: pytest.fail("built"), values, labels, rows, how, 0) is None


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
