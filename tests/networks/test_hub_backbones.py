"""KerasHub's networks: as registered, and small ones of the same kinds through every stage."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_json
from stages.networks import hub_backbones as hub
from stages.networks.backbones import build, cut_for, freeze, load_weights
from stages.networks.keras_quiet import keras
from stages.networks.pretrained import get_weights
from stages.networks.registry import find_backbone, registry
from tests.stages.test_head import images_of
from tests.tiny_set import ROOT, Stages

needs_keras_hub = pytest.mark.skipif(find_spec("keras_hub") is None, reason="needs `make hub`")

SIZE = 32
SHAPE = (SIZE, SIZE, 3)
SMALL = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "ViTBackbone": SMALL | {"patch_size": (16, 16), "mlp_dim": 16},
    "DINOV2Backbone": SMALL
    | {"patch_size": 14, "intermediate_dim": 16, "position_embedding_shape": (70, 70)},
    "CLIPVisionEncoder": SMALL | {"patch_size": 16, "intermediate_dim": 16},
}
LAST_BLOCK = {
    "ViTBackbone": "tranformer_block_2",
    "DINOV2Backbone": "layers_1",
    "CLIPVisionEncoder": "encoder_block_1",
}
NEVER_TRAINS = {"DINOV2Backbone": ["embeddings"]}


def small(model: str, preset: str = "small") -> dict[str, Any]:
    """A registry's entry for a network of two blocks, each 8 wide."""
    return {
        "library": "keras_hub",
        "constructor": model,
        "preset": preset,
        "options": SETTINGS[model],
        "mean": [0.5, 0.5, 0.5],
        "deviation": [0.5, 0.5, 0.5],
        "size": SIZE,
        "any_size": model == "DINOV2Backbone",
        "width": 8,
        "unfreeze": LAST_BLOCK[model],
        "never_trains": NEVER_TRAINS.get(model, []),
    }


@pytest.fixture(autouse=True, scope="module")
def small_registered() -> Iterator[None]:
    """Let the stages know of the small networks, each by its class's name."""
    with pytest.MonkeyPatch.context() as patch:
        for model in SETTINGS:
            patch.setitem(registry(), model, small(model))
        yield


def registered() -> list[str]:
    """Names of KerasHub's networks in the registry."""
    return [name for name in registry() if find_backbone(name).library == "keras_hub"]


def pixels(count: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (count, *SHAPE)).astype(np.float32)


# What holds whether or not KerasHub is installed.


def test_vit_dinov2_and_clip_are_registered() -> None:
    names = {"vit_base", "dinov2_small", "dinov2_base", "clip_base"}
    assert names <= set(registered())
    assert {find_backbone(name).constructor for name in names} == set(hub.LAYERS)


def test_without_keras_hub_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    for name in registered():
        with pytest.raises(UserError, match=r"needs KerasHub.*`make hub`") as caught:
            build(name, find_backbone(name).size)
        assert "\n" not in str(caught.value)
        assert find_backbone(name).preset in str(caught.value)


def test_keras_hub_is_imported_for_its_own_networks_alone() -> None:
    program = (
        "import sys; sys.modules['keras_hub'] = None; "
        "import stages.training.fine_tune, stages.networks.pretrained; "
        "from stages.networks.backbones import build; build('demo_backbone', 32)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["vit_base", "clip_base"])
def test_a_size_that_no_positions_are_learnt_for_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"features.image_size 96 does not suit {name} .*224"):
        build(name, 96)


# What needs it.


def published(model: str, folder: Path, **changes: Any) -> Any:
    """KerasHub's own network with random weights, written to `folder` as a preset."""
    import keras_hub

    models = keras_hub.models
    network = getattr(models, model)(image_shape=SHAPE, **SETTINGS[model] | changes)
    whole = network
    if model == "CLIPVisionEncoder":
        text = models.CLIPTextEncoder(
            vocabulary_size=9, embedding_dim=8, hidden_dim=8, num_layers=1, num_heads=2,
            intermediate_dim=8, max_sequence_length=4,
        )  # fmt: skip
        whole = models.CLIPBackbone(network, text, projection_dim=4)
    whole.save_to_preset(str(folder))
    return network


@needs_keras_hub
@pytest.mark.parametrize("model", SETTINGS)
def test_a_preset_gives_keras_hubs_own_class_token(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = published(model, tmp_path)
    monkeypatch.setitem(registry(), "small", small(model, str(tmp_path)))
    backbone, source = get_weights("small", "imagenet", 42)
    assert source == {
        "source": "keras_hub",
        "preset": str(tmp_path),
        "version": version("keras-hub"),
    }
    assert backbone.output_shape == (None, 1, 1, 8)
    scaled = pixels() / 127.5 - 1
    tokens = network(scaled if model == "ViTBackbone" else {"images": scaled})
    assert np.ptp(tokens) > 0.1
    np.testing.assert_allclose(backbone(pixels())[:, 0, 0], tokens[:, 0], rtol=1e-4, atol=1e-5)


@needs_keras_hub
def test_a_preset_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published("DINOV2Backbone", tmp_path, num_heads=4)
    monkeypatch.setitem(registry(), "small", small("DINOV2Backbone", str(tmp_path)))
    with pytest.raises(UserError, match=r"has num_heads 4, not 2 as stages/backbones"):
        get_weights("small", "imagenet", 42)


@needs_keras_hub
@pytest.mark.parametrize("name", ["vit_base", "dinov2_small", "clip_base"])
def test_a_preset_that_cannot_be_had_is_named_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to kaggle.com\nfor a reason")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", unreachable)
    with pytest.raises(UserError) as caught:
        get_weights(name, "imagenet", 42)
    message = str(caught.value)
    assert "\n" not in message
    preset = find_backbone(name).preset
    for words in (preset, "no route to kaggle.com", "KAGGLEHUB_CACHE", "weights to random"):
        assert words in message


@needs_keras_hub
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("dinov2_small", 518),
        pytest.param("dinov2_base", 518, marks=pytest.mark.slow),
        pytest.param("vit_base", 224, marks=pytest.mark.slow),
    ],
)
def test_the_presets_are_known_and_have_as_many_weights(name: str, size: int) -> None:
    """At the size that KerasHub counts them at."""
    import keras_hub

    keras.utils.clear_session()
    presets = keras_hub.models.Backbone.presets
    wanted = presets[find_backbone(name).preset]["metadata"]["params"]
    assert build(name, size).count_params() == wanted
    assert find_backbone("clip_base").preset in presets
    keras.utils.clear_session()


@needs_keras_hub
def test_dinov2_takes_other_sizes_from_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "small.weights.h5"
    backbone = build("DINOV2Backbone", SIZE)
    backbone.save_weights(path)
    larger = build("DINOV2Backbone", 70)
    load_weights(larger, path)
    mine, theirs = (each.get_layer("embeddings") for each in (backbone, larger))
    np.testing.assert_array_equal(theirs.position_embeddings, mine.position_embeddings)
    # At the size that they were learnt at, positions are not interpolated.
    np.testing.assert_array_equal(theirs.interpolated_position_embeddings, mine.position_embeddings)
    assert mine.interpolated_position_embeddings.shape == (1, 1 + 2 * 2, 8)


@needs_keras_hub
@pytest.mark.parametrize("model", SETTINGS)
def test_layers_are_numbered_as_blocks(model: str) -> None:
    backbone = build(model, SIZE)
    freeze(backbone, "auto", "frozen", 0.9)
    trained = [layer.name for layer in backbone.layers if layer.trainable and layer.weights]
    assert len(trained) == 2
    assert trained[0] == LAST_BLOCK[model]
    assert (
        cut_for(backbone, "auto", reads_pixels=False) is backbone.get_layer(LAST_BLOCK[model]).input
    )


class HubStages(Stages):
    """Runs stages on one of the small networks."""

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__(folder)
        self.model = model
        self.PAIR = ("--set", "tiny", "--backbone", model)

    def file(self, path: str) -> Path:
        return self.folder / path.format(self.model)

    def file_model(self, name: str) -> keras.Model:
        return keras.saving.load_model(self.file(f"models/tiny/{{}}/{name}.keras"))


# All three take a minute; `make soak` runs the others.
KINDS = [
    "DINOV2Backbone",
    pytest.param("ViTBackbone", marks=pytest.mark.soak),
    pytest.param("CLIPVisionEncoder", marks=pytest.mark.soak),
]


@pytest.fixture(scope="module", params=KINDS)
def hub_ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubStages]:
    """A folder in which every stage has run with a small network."""
    if find_spec("keras_hub") is None:
        pytest.skip("needs `make hub`")
    keras.utils.clear_session()
    stages = HubStages(tmp_path_factory.mktemp("hub"), request.param)
    stages.run_all()
    yield stages
    keras.utils.clear_session()


def loaded(stages: HubStages) -> keras.Model:
    backbone = build(stages.model, SIZE)
    load_weights(backbone, stages.file("data/weights/{}.weights.h5"))
    return backbone


def test_features_are_the_class_token(hub_ran: HubStages) -> None:
    features = np.load(hub_ran.file("data/features/tiny/{}.npy"))
    assert features.shape == (30, 2, 8)
    images = images_of(hub_ran)
    backbone = loaded(hub_ran)
    for view, seen in enumerate((images, images[:, :, ::-1])):
        expected = backbone.predict_on_batch(seen)[:, 0, 0]
        np.testing.assert_allclose(features[:, view], expected, rtol=1e-4, atol=1e-5)
    info = read_json(hub_ran.file("data/features/tiny/{}.json"))
    assert info["weights"] == {"source": "random", "seed": 42, "terms": "random numbers"}


def test_the_rest_of_the_network_makes_features_of_the_prefix(hub_ran: HubStages) -> None:
    prefix = np.load(hub_ran.file("data/prefix/tiny/{}/values.npy"))
    assert prefix.shape == (30, 2, 5, 8)
    backbone = loaded(hub_ran)
    rest = keras.Model(cut_for(backbone, "auto", reads_pixels=False), backbone.output)
    features = np.load(hub_ran.file("data/features/tiny/{}.npy"))
    found = rest.predict_on_batch(prefix[:, 1])[:, 0, 0]
    np.testing.assert_allclose(found, features[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["head", "finetuned"])
def test_the_model_file_gives_the_probabilities_that_are_scored(
    hub_ran: HubStages, name: str
) -> None:
    expected = np.load(hub_ran.file(f"models/tiny/{{}}/{name}_probabilities.npy"))
    found = hub_ran.file_model(name).predict_on_batch(images_of(hub_ran))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_a_model_file_needs_keras_hub_installed_and_not_imported(hub_ran: HubStages) -> None:
    program = "import keras, sys; print(keras.saving.load_model(sys.argv[1]).output_shape)"
    path = hub_ran.file("models/tiny/{}/finetuned.keras")
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(None, 3)"


def test_fine_tuning_trains_the_last_block_and_the_norm_after_it(hub_ran: HubStages) -> None:
    before, after = (hub_ran.file_model(name) for name in ("head", "finetuned"))
    parts = [model.get_layer(hub_ran.model).layers for model in (before, after)]
    changed = [
        mine.name
        for mine, theirs in zip(*parts, strict=True)
        if any(map(np.any, map(np.subtract, mine.get_weights(), theirs.get_weights())))
    ]
    names = [layer.name for layer in parts[0] if layer.weights]
    assert changed == names[-2:]
    assert changed[0] == LAST_BLOCK[hub_ran.model]


def test_a_second_run_writes_the_same_bytes(hub_ran: HubStages) -> None:
    paths = [
        hub_ran.file(path)
        for path in (
            "data/weights/{}.weights.h5", "data/features/tiny/{}.npy",
            "data/prefix/tiny/{}/values.npy",
            "models/tiny/{}/head.keras", "models/tiny/{}/finetuned.keras",
        )
    ]  # fmt: skip
    before = [path.read_bytes() for path in paths]
    keras.utils.clear_session()  # As a stage is a process of its own.
    hub_ran.run_weights()
    hub_ran.run_features()
    hub_ran.run_prefix()
    hub_ran.run_head()
    hub_ran.run_finetune()
    for path, content in zip(paths, before, strict=True):
        assert path.read_bytes() == content, path


def test_bfloat16_gives_nearly_the_same_features(hub_ran: HubStages) -> None:
    path = hub_ran.file("data/features/tiny/{}.npy")
    exact = np.load(path)
    hub_ran.run_features(precision="bfloat16")
    rough = np.load(path)
    hub_ran.run_features()
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.1)


def test_with_all_unfrozen_the_model_file_is_still_the_one_scored(hub_ran: HubStages) -> None:
    """KerasHub loses DINOv2's position embeddings where they have been trained."""
    every = str(len(loaded(hub_ran).layers))
    hub_ran.run_prefix(unfreeze=every)
    hub_ran.run_finetune(unfreeze=every, learning_rate=0.01)
    expected = np.load(hub_ran.file("models/tiny/{}/finetuned_probabilities.npy"))
    found = hub_ran.file_model("finetuned").predict_on_batch(images_of(hub_ran))
    np.testing.assert_allclose(found, expected, atol=1e-4)
