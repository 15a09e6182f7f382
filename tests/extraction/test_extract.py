import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import Parser, UserError
from stages.extraction.extract import extract, extract_set
from stages.extraction.forward import (
    BATCH_SIZE,
    compute_here,
    images_at_once,
    in_full_batches,
    load_backbone,
)
from stages.extraction.kept import Kept
from stages.extraction.options import ExtractionOptions, add_extraction_options
from stages.networks import demo_backbone
from stages.networks.backbones import build
from stages.networks.keras_quiet import keras
from stages.networks.registry import registry

Pixels = NDArray[np.uint8]
OPTIONS = {
    "set": ["demo"],
    "backbone": ["vgg19"],
    "image_size": ["native"],
    "crop": ["center"],
    "pooling": ["avg"],
    "views": ["plain", "mirror"],
    "precision": ["auto"],
    "engine": ["local"],
}


def batches(order: list[int], size: int) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
    """Images that tell their position: the left column is 10 n, the right one 10 n + 1."""
    for start in range(0, len(order), size):
        positions = np.array(order[start : start + size])
        columns = 10 * positions[:, None] + np.array([0, 1])
        images = np.broadcast_to(columns[:, None, :, None], (len(positions), 2, 2, 3))
        yield positions, images.astype(np.uint8)


def left_column(images: Pixels) -> NDArray[np.float32]:
    return images[:, 0, 0, :2].astype(np.float32)


def run(
    network: Callable[[Pixels], Any],
    order: list[int],
    size: int,
    views: list[str],
    dtype: str,
    path: Path,
    recipe: str = "",
    keys: list[str] | None = None,
) -> list[int]:
    """Extract images that come in an `order`; return the rows that were read."""
    keys = keys or [str(number) for number in range(len(order))]
    shape = np.shape(network(np.zeros((1, 2, 2, 3), np.uint8)))[1:]
    kept = Kept(path.parent / "kept", keys, views, {"recipe": recipe}, shape, dtype)
    seen: list[int] = []

    def read(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        wanted = [row for row in order if row in rows]
        seen.extend(wanted)
        return batches(wanted, size)

    extract(compute_here(network, read, kept.lacking_views), np.arange(len(order)), kept, path)
    return seen


def test_rows_are_in_the_order_of_positions_with_a_column_a_view(tmp_path: Path) -> None:
    path = tmp_path / "features" / "demo.npy"
    path.parent.mkdir()
    run(left_column, [3, 0, 4, 1, 2], 2, ["plain", "mirror"], "float32", path)
    found = np.load(path)
    assert found.shape == (5, 2, 2)
    assert found.dtype == np.float32
    assert found[:, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert found[:, 1, 0].tolist() == [1, 11, 21, 31, 41]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["demo.npy", "kept"]


def test_views_are_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "demo.npy"
    run(left_column, [0, 1], 2, ["mirror"], "float32", path)
    assert np.load(path)[:, :, 0].tolist() == [[1], [11]]


def test_pixels_pass_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "demo.npy"
    run(lambda images: images, [1, 0], 1, ["plain"], "uint8", path)
    found = np.load(path, mmap_mode="r")
    assert found.dtype == np.uint8
    assert found[1, 0, 0, :, 0].tolist() == [10, 11]


def test_files_bytes_are_stable(tmp_path: Path) -> None:
    for name, order in (("first", [0, 1, 2]), ("second", [2, 0, 1])):
        path = tmp_path / name / "demo.npy"
        path.parent.mkdir()
        run(left_column, order, 2, ["plain"], "float16", path)
    first, second = (tmp_path / name / "demo.npy" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_bfloat16_becomes_float16(tmp_path: Path) -> None:
    def network(images: Pixels) -> Any:
        return keras.ops.convert_to_numpy(keras.ops.cast(left_column(images), "bfloat16"))

    path = tmp_path / "demo.npy"
    run(network, [0, 1], 2, ["plain"], "float16", path)
    found = np.load(path)
    assert found.dtype == np.float16
    assert found[:, 0, 0].tolist() == [0, 10]


@pytest.mark.parametrize("wrong", [65536.0, -1e30, np.inf, np.nan])
def test_values_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path, wrong: float) -> None:
    def network(images: Pixels) -> NDArray[np.float32]:
        values = left_column(images)
        values[values == 30] = wrong
        return values

    path = tmp_path / "demo.npy"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"do not fit float16 in .*demo\.npy; .*float32") as caught:
        run(network, [0, 3, 1, 2], 1, ["plain"], "float16", path)
    assert f"up to {abs(wrong):g}" in str(caught.value)
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_disk_without_room_is_met_before_anything_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fallocate(_: int, start: int, size: int) -> None:
        assert start == 0
        assert size > 5 * 2 * 4
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", fallocate)
    path = tmp_path / "features.npy"
    with pytest.raises(OSError, match=r"No space left on device: '.*kept'"):
        run(left_column, [3, 0, 4, 1, 2], 2, ["plain", "mirror"], "float32", path)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_float16_fits(tmp_path: Path) -> None:
    path = tmp_path / "demo.npy"
    run(lambda images: np.full((len(images), 1), 65504.0), [0], 1, ["plain"], "f2", path)
    assert np.load(path).item() == 65504


def parsed(**changes: list[str]) -> ExtractionOptions:
    parser = Parser(None)
    add_extraction_options(parser)
    words = []
    for name, values in (OPTIONS | changes).items():
        words += [f"--{name}", *values]
    return ExtractionOptions(**vars(parser.parse_args(words)))


@pytest.mark.parametrize(
    ("backbone", "asked", "side"),
    [
        ("vgg19", "native", 224),
        ("inception_v3", "native", 299),
        ("demo_backbone", "native", 96),
        ("vgg19", "larger", 256),
        ("vit_base", "larger", 224),
        ("vgg19", "32", 32),
        ("vgg19", "250", 250),
        ("vgg19", "1024", 1024),
    ],
)
def test_image_side_is_native_larger_or_a_number(backbone: str, asked: str, side: int) -> None:
    assert parsed(backbone=[backbone], image_size=[asked]).side == side


def test_options_are_read() -> None:
    options = parsed(views=["mirror"], crop=["none"], pooling=["max"], precision=["bfloat16"])
    assert (options.set, options.views, options.crop) == ("demo", ["mirror"], "none")
    assert (options.pooling, options.precision) == ("max", "bfloat16")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("backbone", "vgg20", "no backbone 'vgg20'; there are: vgg16, vgg19"),
        ("image_size", "31", "'31' is not a whole number from 32 to 1024"),
        ("image_size", "1025", "'1025' is not a whole number from 32 to 1024"),
        ("image_size", "0", "'0' is not"),
        ("image_size", "big", "'big' is not"),
        ("crop", "centre", "no features.crop 'centre'; there are: center, none"),
        ("pooling", "mean", "no features.pooling 'mean'; there are: avg, max"),
        ("views", "flip", "no view in features.views 'flip'; there are: plain, mirror"),
        ("precision", "float16", "there are: auto, float32, bfloat16"),
    ],
)
def test_options_that_there_are_not_are_refused(option: str, value: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parsed(**{option: [value]})


def parse_engine(text: str) -> str:
    return parsed(engine=[text]).engine


def test_an_engine_that_there_is_not_and_ray_where_it_is_not_installed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.extraction.options.find_spec", lambda _: None)
    assert parse_engine("local") == "local"
    with pytest.raises(UserError, match="no engine 'dask'; there are: local, ray"):
        parse_engine("dask")
    with pytest.raises(UserError, match="ray is not installed; run `make ray`, or set it to local"):
        parse_engine("ray")
    monkeypatch.setattr("stages.extraction.options.find_spec", lambda name: name)
    assert parse_engine("ray") == "ray"


def test_at_least_one_view_is_asked_for() -> None:
    with pytest.raises(UserError, match="--views"):
        parsed(views=[])


def tiny_network(images: keras.KerasTensor) -> keras.KerasTensor:
    """A network of layers that Keras names."""
    values = keras.layers.Conv2D(2, 3)(images)
    return keras.layers.Conv2D(4, 3)(values)


@pytest.fixture
def tiny_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The weights of a backbone `tiny` that is added to the registry."""
    entry = {"library": "demo", "size": 8, "width": 4, "unfreeze": "conv2d_1"}
    monkeypatch.setitem(registry(), "tiny", entry)
    monkeypatch.setattr(demo_backbone, "feature_map", tiny_network)
    monkeypatch.setattr(demo_backbone, "preprocess_input", lambda image: image)
    keras.utils.clear_session()
    policy = keras.config.dtype_policy()
    path = tmp_path / "tiny.weights.h5"
    build("tiny", 8).save_weights(path)
    keras.utils.clear_session()
    yield path
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_backbone_is_loaded_in_the_precision(tiny_weights: Path, precision: Any) -> None:
    backbone, chosen = load_backbone("tiny", 8, tiny_weights, precision)
    assert chosen == precision
    output = backbone.predict_on_batch(np.ones((1, 8, 8, 3), np.uint8))
    assert str(output.dtype) == precision
    reference = build("tiny", 8)
    reference.load_weights(tiny_weights)
    for found, wanted in zip(backbone.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_have_the_same_names_in_either_precision(tiny_weights: Path, precision: Any) -> None:
    """A name in `finetune.unfreeze` means the same layer here as in the model of the head."""
    backbone, _ = load_backbone("tiny", 8, tiny_weights, precision)
    assert [layer.name for layer in backbone.layers] == ["image", "conv2d", "conv2d_1"]


@pytest.mark.parametrize(
    ("asked", "machine", "depthwise", "built"),
    [
        ("auto", True, False, ["mixed_bfloat16"]),
        ("auto", True, True, ["mixed_bfloat16", "float32"]),
        ("auto", False, True, ["float32"]),
        ("bfloat16", False, True, ["mixed_bfloat16"]),
        ("float32", True, False, ["float32"]),
    ],
)
def test_a_network_is_built_twice_only_where_auto_comes_to_float32_after_all(
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: Any,
    machine: bool,
    depthwise: bool,
    built: list[str],
) -> None:
    found = []

    def build_and_note(name: str, size: int) -> keras.Model:
        found.append(keras.config.dtype_policy().name)
        return build(name, size)

    monkeypatch.setattr("stages.extraction.forward.build", build_and_note)
    monkeypatch.setattr("stages.networks.precision.machine_has_bfloat16", lambda: machine)
    monkeypatch.setattr("stages.networks.precision._is_depthwise", lambda _: depthwise)
    load_backbone("tiny", 8, tiny_weights, asked)
    assert found == built


def test_weights_that_do_not_fit_are_named(tiny_weights: Path) -> None:
    tiny_weights.write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"tiny\.weights\.h5 does not fit tiny"):
        load_backbone("tiny", 8, tiny_weights, "float32")


def test_a_network_of_large_layers_sees_fewer_images_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, keras.layers.Conv2D(16, 1)(image))
    bytes_of_an_image = 4 * 8 * 8 * 16
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    whole = in_full_batches(network)(images)
    for limit, count in ((32, 32), (31, 16), (4, 4), (3, 2), (0, 1)):
        monkeypatch.setattr("stages.extraction.forward.MAX_OUTPUT", limit * bytes_of_an_image)
        assert images_at_once(network) == count
        np.testing.assert_allclose(in_full_batches(network)(images), whole, rtol=1e-5, atol=1e-5)


def test_one_graph_serves_batches_of_every_size_with_the_same_bytes() -> None:
    calls = []

    class Counting(keras.layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            calls.append(values.shape)
            return values / 255

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    normalized = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(Counting()(image)))
    network = keras.Model(image, keras.layers.ReLU()(normalized))
    network.layers[-2].set_weights(np.repeat([[2.0], [1.0], [0.1], [0.5]], 4, axis=1))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    network.compile(jit_compile=False)
    expected = network.predict_on_batch(images[:, :, ::-1])
    calls.clear()
    forward = in_full_batches(network)
    whole = forward(images[:, :, ::-1])
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    assert whole.dtype == expected.dtype
    for few in (images[:2], images[4:]):
        assert forward(few[:, :, ::-1]).tobytes() in whole.tobytes()
    assert calls == [(BATCH_SIZE, 8, 8, 3)]


def test_pictures_come_in_batches_for_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name, stand_in in {
        "all_gpus": lambda: SimpleNamespace(num_replicas_in_sync=3),
        "read_table": lambda _: SimpleNamespace(images=["a.jpg"], digests=["1"]),
        "readable_rows": lambda _: np.arange(1),
        "Kept": lambda *_: SimpleNamespace(lacking_views=None),
        "decode_rows": lambda *given: asked.append(given[-1]),
        "compute_here": lambda _network, read, _kept: read,
        "extract": lambda compute, rows, *_: compute(rows),
    }.items():
        monkeypatch.setattr(f"stages.extraction.extract.{name}", stand_in)
    path = Path("data/features/demo/vgg19.npy")
    extract_set(None, (1,), "uint8", parsed(), {}, path)
    assert asked == [3 * BATCH_SIZE]
