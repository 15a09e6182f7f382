from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.networks import precision
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.options import PRECISIONS
from stages.networks.precision import (
    choose_precision,
    keep_slow_layers_in_float32,
    machine_has_bfloat16,
    set_precision,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def restored_policy() -> Iterator[None]:
    """Layers of other tests compute in what they did before."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def network(*convolutions: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 4)), layers.ReLU(), *convolutions])


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 amx_tile\n", True),
        ("processor : 0\nflags : fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        ("flags : xamx_bf16 amx_bf16x\n", False),
        ("Features : fp asimd bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_bfloat16_of_a_cpu_is_read_from_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, has: bool
) -> None:
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda _: [])
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    assert machine_has_bfloat16(cpuinfo) is has


@pytest.mark.parametrize(
    ("details", "has"),
    [
        ({"compute_capability": (8, 0)}, True),
        ({"compute_capability": (9, 0)}, True),
        ({"compute_capability": (7, 5)}, False),
        ({}, False),
    ],
)
def test_a_gpu_goes_before_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, details: dict[str, Any], has: bool
) -> None:
    config = tensorflow.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(config.experimental, "get_device_details", lambda _: details)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("" if has else "flags : amx_bf16")
    assert machine_has_bfloat16(cpuinfo) is has


DENSE = [layers.Conv2D(4, 3), layers.Conv2D(2, 1, groups=1)]
DEPTHWISE = [
    [layers.Conv2D(4, 3), layers.DepthwiseConv2D(3)],
    [layers.SeparableConv2D(4, 3)],
    [layers.Conv2D(4, 3, groups=4)],
]


def test_auto_is_bfloat16_where_machine_and_network_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "machine_has_bfloat16", lambda: True)
    assert choose_precision("auto", network(*DENSE)) == "bfloat16"
    monkeypatch.setattr(precision, "machine_has_bfloat16", lambda: False)
    assert choose_precision("auto", network(*DENSE)) == "float32"


@pytest.mark.parametrize("convolutions", DEPTHWISE, ids=["depthwise", "separable", "grouped"])
def test_auto_is_float32_for_depthwise_convolutions(
    monkeypatch: pytest.MonkeyPatch, convolutions: list[keras.layers.Layer]
) -> None:
    monkeypatch.setattr(precision, "machine_has_bfloat16", lambda: True)
    assert choose_precision("auto", network(*convolutions)) == "float32"


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, asked: Any, has: bool) -> None:
    monkeypatch.setattr(precision, "machine_has_bfloat16", lambda: has)
    assert asked in PRECISIONS
    for convolutions in (DENSE, DEPTHWISE[0]):
        assert choose_precision(asked, network(*convolutions)) == asked


@pytest.mark.parametrize(
    ("asked", "has", "wanted"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("float32", True, "float32"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_training_is_in_bfloat16_wherever_the_machine_has_it(
    monkeypatch: pytest.MonkeyPatch, asked: Any, has: bool, wanted: str
) -> None:
    monkeypatch.setattr(precision, "machine_has_bfloat16", lambda: has)
    assert choose_precision(asked) == wanted


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_layers_compute_in_the_precision_and_keep_float32_variables(name: Any) -> None:
    set_precision(name)
    layer = layers.Dense(2)
    values = layer(np.ones((1, 3), np.float32))
    assert keras.backend.standardize_dtype(values.dtype) == name
    assert layer.kernel.dtype == "float32"


def computed(network: keras.Model) -> dict[str, str]:
    return {type(layer).__name__: layer.compute_dtype for layer in network.layers}


def test_beside_depthwise_convolutions_dense_ones_alone_are_in_bfloat16() -> None:
    set_precision("bfloat16")
    mixed = network(layers.Conv2D(4, 3), layers.DepthwiseConv2D(3), layers.BatchNormalization())
    dense = network(layers.Conv2D(4, 3), layers.BatchNormalization())
    values = np.ones((1, 8, 8, 4), np.float32)
    before = np.asarray(mixed(values), np.float32)
    for each in (mixed, dense):
        keep_slow_layers_in_float32(each)
    assert computed(mixed) == {
        "ReLU": "float32",
        "Conv2D": "bfloat16",
        "DepthwiseConv2D": "float32",
        "BatchNormalization": "float32",
    }
    assert set(computed(dense).values()) == {"bfloat16"}
    after = mixed(values)
    assert keras.backend.standardize_dtype(after.dtype) == "float32"
    np.testing.assert_allclose(after, before, rtol=0.05, atol=0.05)
