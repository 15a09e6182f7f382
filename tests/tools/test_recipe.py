"""The recipes, as the stages get them: from recipes.yaml through DVC to the models they build."""

import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages import features, finetune, head, split
from stages.common.command_line import UserError
from stages.common.parameters import read_yaml
from stages.networks.backbones import build, freeze
from stages.networks.classifier import build_classifier, build_head, flat_weights
from stages.networks.keras_quiet import keras
from stages.networks.model_files import save_model
from stages.pictures.views import see
from stages.training.batches import Batches
from stages.training.fit import make_repeatable
from stages.training.optimizers import make_optimizer
from stages.training.recipe import UpperLayers
from stages.training.upper_layers import take_apart
from tests.tiny_set import ROOT
from tools.recipe import as_setting, command, main

RECIPES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "recipes.yaml").read_text("utf-8"))


def commands_of(folder: Path, recipe: str) -> dict[str, list[str]]:
    """The options of every stage, by its name in the graph, as DVC makes them of a recipe."""
    from dvc.repo import Repo

    parameters = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    for name, value in RECIPES[recipe].items():
        section, _, key = name.rpartition(".")
        owner = parameters[section] if section else parameters
        assert key in owner, name
        owner[key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters), "utf-8")
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text("utf-8"), "utf-8")
    with Repo.init(folder, no_scm=True) as repo:
        stages = [stage for stage in repo.index.stages if isinstance(stage.cmd, str)]
        return {stage.name: shlex.split(stage.cmd)[3:] for stage in stages}


@pytest.mark.parametrize(
    ("recipe", "dropout", "views"),
    [
        ("guide", 0, ["plain"]),
        ("guide-dropout", 0.3, ["plain"]),
        ("guide-flips", 0.3, ["plain", "mirror"]),
    ],
)
def test_the_guide(tmp_path: Path, recipe: str, dropout: float, views: list[str]) -> None:
    given = commands_of(tmp_path, recipe)
    runs = {name.partition("@")[2] for name in given if name.startswith("head")}
    assert runs == {"flowers17-vgg19"}

    parts = split.parse(given["split@flowers17"])
    assert (parts.protocol, parts.group_duplicates) == ("ordered", False)
    shown = features.parse(given["features@flowers17-vgg19"])
    assert (shown.image_size, shown.crop, shown.pooling) == (224, "none", "max")
    assert shown.views == views

    options = head.parse(given["head@flowers17-vgg19"])
    model = build_head(512, options.normalize, options.hidden, options.dropout, 17)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Dense", *(["Dropout"] if dropout else []), "Dense"]
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [128, 17]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "softmax"]
    assert all(layer.rate == dropout for layer in model.layers if hasattr(layer, "rate"))
    assert len(model.trainable_variables) == 4
    assert (options.kind, options.average_views) == ("mlp", False)

    recipe_given = options.recipe
    optimizer = make_optimizer(recipe_given, 350)
    assert type(optimizer) is keras.optimizers.Adam
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert not optimizer.weight_decay
    assert (recipe_given.epochs, recipe_given.batch_size) == (10, 32)
    assert recipe_given.label_smoothing == 0
    # An epoch is one pass over 17 x 65 images, in one view each.
    values = np.zeros((1360, len(views), 1), np.float32)
    rows = np.arange(17 * 65)
    batches = Batches(values, np.zeros((1360, 17), np.float32), rows, 32, 0, recipe_given.slices)
    assert len(batches) == 35
    # Nothing is fine-tuned.
    assert finetune.parse(given["finetune@flowers17-vgg19"]).unfreeze == "0"


def test_the_mirror_view_is_a_flip_from_left_to_right() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(see(picture, "mirror"), picture[:, :, [1, 0]])


def test_vgg19_is_preprocessed_as_it_was_trained() -> None:
    """Colours go from RGB to BGR, less the means of ImageNet."""
    network = build("vgg19", 32)
    first = network.get_layer("block1_conv1")
    seen = keras.Model(network.input, first.input)
    picture = np.zeros((1, 32, 32, 3), np.float32)
    picture[..., 0] = 255
    pixel = np.asarray(seen(picture))[0, 0, 0]
    np.testing.assert_allclose(pixel, [-103.939, -116.779, 255 - 123.68], atol=1e-3)


def test_the_article(tmp_path: Path) -> None:
    given = commands_of(tmp_path, "article")
    runs = {name.partition("@")[2] for name in given if name.startswith("head")}
    assert runs == {"oxford102-inception_v3"}

    parts = split.parse(given["split@oxford102"])
    assert (parts.protocol, parts.fraction, parts.seed) == ("stratified", 0.2, 42)
    assert not parts.group_duplicates
    shown = features.parse(given["features@oxford102-inception_v3"])
    assert (shown.image_size, shown.crop, shown.pooling) == (250, "center", "avg")
    assert shown.views == ["plain"]

    of_head = head.parse(given["head@oxford102-inception_v3"])
    model = build_head(2048, of_head.normalize, of_head.hidden, of_head.dropout, 102)
    assert [type(layer).__name__ for layer in model.layers] == ["InputLayer", "Dense"]
    assert of_head.recipe.epochs == 0

    keras.utils.clear_session()
    backbone = build("inception_v3", 250)
    classifier = build_classifier(backbone, "avg", model, ["plain"])
    save_model(classifier, tmp_path / "head.keras")
    options = finetune.parse(given["finetune@oxford102-inception_v3"])
    make_repeatable(0)
    upper = UpperLayers(**{each.name: getattr(options, each.name) for each in fields(UpperLayers)})
    _, trained, network = take_apart(tmp_path / "head.keras", flat_weights(model), upper)
    kinds = [type(layer).__name__ for layer in network.get_layer("head").layers]
    assert kinds == ["InputLayer", "Dense"]
    assert network.input_shape == (None, 250, 250, 3)
    norms = [layer for layer in trained.layers if "BatchNorm" in type(layer).__name__]
    assert len(norms) == 94
    assert all(layer.trainable and layer.momentum == 0.9 for layer in norms)
    others = [layer for layer in trained.layers if layer not in norms]
    last = set(map(id, trained.layers[-50:]))
    assert all(layer.trainable == (id(layer) in last) for layer in others)
    pixel = keras.Model(trained.input, trained.get_layer("conv2d").input)
    np.testing.assert_allclose(
        np.asarray(pixel(np.full((1, 250, 250, 3), 255.0)))[0, 0, 0], [1, 1, 1]
    )

    recipe = options.recipe
    optimizer = make_optimizer(recipe, 400)
    assert type(optimizer) is keras.optimizers.Adamax
    assert float(optimizer.learning_rate) == pytest.approx(1e-2)
    assert not optimizer.weight_decay
    assert (recipe.epochs, recipe.slices) == (2, 8)
    assert (recipe.label_smoothing, recipe.lowest_rate) == (0, 1)
    assert (options.augment, options.precision, options.average_views) == ("none", "float32", False)
    # An epoch is one pass over 6,551 images, reported in eight slices.
    values = np.zeros((8189, 1, 1), np.float32)
    targets = np.zeros((8189, 102), np.float32)
    batches = Batches(values, targets, np.arange(6551), recipe.batch_size, 0, recipe.slices)
    seen = 0
    for part in range(8):
        batches.start(part)
        seen += sum(len(batches[step][0]) for step in range(len(batches)))
    assert seen == 6551


def test_the_thorough_one_trains_most_of_the_network_on_crops(tmp_path: Path) -> None:
    given = commands_of(tmp_path, "thorough")
    options = finetune.parse(given["finetune@flowers17-mobilenet"])
    recipe = options.recipe
    assert (options.unfreeze, options.batch_norm, options.augment) == (
        "conv_dw_6",
        "frozen",
        "crop",
    )
    assert (recipe.epochs, recipe.learning_rate, recipe.lowest_rate) == (50, 0.001, 0.3)
    assert options.color_jitter == 0.3
    words = given["prefix@flowers17-mobilenet"]
    assert words[words.index("--augment") + 1] == "crop"
    network = build("mobilenet", 32)
    freeze(network, options.unfreeze, options.batch_norm, options.batch_norm_momentum)
    blocks = {variable.path.split("/")[-2] for variable in network.trainable_variables}
    assert {f"conv_pw_{block}" for block in range(6, 14)} <= blocks
    assert not {"conv1", *(f"conv_pw_{block}" for block in range(1, 6))} & blocks


TEXTS = ["x", "007", "off", "true", "null", "1.5", "a,b", "[a]", "a: b", " ü", "it's", 'a"b']


@pytest.mark.parametrize("value", [*TEXTS, 1, 0.1, 1e-05, True, False, None, [], TEXTS, [1, "x"]])
def test_settings_are_read_by_dvc_as_they_are(value: Any, tmp_path: Path) -> None:
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    (tmp_path / "params.yaml").write_text("a: {b: 0}\n", "utf-8")
    overrides = to_path_overrides([as_setting("a.b", value)])
    assert [*overrides] == ["params.yaml"]
    apply_overrides(tmp_path / "params.yaml", overrides["params.yaml"])
    assert read_yaml(tmp_path / "params.yaml") == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("params", "recipe", "message"),
    [
        ("sets: roses", "dropout: 0", 'params.yaml has sets: "roses", which is no list'),
        ("sets:", "dropout: 0", "params.yaml has nothing in sets"),
        ("sets: [a]\nbackbones: [1.5]", "dropout: 0", "params.yaml has 1.5 in backbones"),
        ("sets: roses\nbackbones: [b]", "sets: iris", 'recipes.yaml has sets: "iris"'),
        ("sets: [a]\nbackbones: [b]", "", "recipes.yaml has no parameters in 2024"),
    ],
)
def test_what_dvc_cannot_make_stages_of_is_one_line(
    params: str, recipe: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"{params}\n", "utf-8")
    Path("recipes.yaml").write_text(f"2024:\n  {recipe}\n", "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        main(["2024"])
    assert "\n" not in str(caught.value)


def test_what_follows_the_name_prevails() -> None:
    words = command("guide", {"seed": 1}, ["-S", "seed=2"])
    assert words[1:] == [
        "-m", "dvc", "exp", "run", "--name", "guide", "-S", "seed=1", "-S", "seed=2",
    ]  # fmt: skip
    from dvc.cli import parse_args

    for mine in (["-n", "mine"], ["--name=mine"]):
        assert parse_args(command("guide", {}, mine)[3:]).name == "mine"


def test_an_unknown_recipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="no recipe 'cake'; there are: guide, guide-dropout"):
        main(["cake"])


def test_the_exit_status_is_that_of_dvc() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.recipe", "guide", "-S", "no_such=1", "--no-such-option"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "no-such-option" in done.stderr
