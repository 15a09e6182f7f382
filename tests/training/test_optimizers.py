from typing import Any

import pytest

from stages.networks.keras_quiet import keras
from stages.training.fit import fit
from stages.training.optimizers import make_optimizer, rate_shares
from tests.training.test_fit import CLASSES, WIDTH, data, network, recipe


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
