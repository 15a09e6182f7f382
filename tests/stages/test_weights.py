import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.common.files import read_json, sha256
from stages.networks.backbones import build
from stages.networks.keras_quiet import keras
from stages.networks.pretrained import DEMO_WEIGHTS, get_weights
from stages.networks.registry import find_backbone, registry
from stages.weights import main
from tests.tiny_set import ROOT, Stages

NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


def weights_equal(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_random_weights_follow_the_seed(ran: Stages) -> None:
    first, source = get_weights("demo_backbone", "random", 1)
    again, _ = get_weights("demo_backbone", "random", 1)
    other, _ = get_weights("demo_backbone", "random", 2)
    assert source == {"source": "random", "seed": 1, "terms": "random numbers"}
    assert weights_equal(first, again)
    assert not weights_equal(first, other)
    assert read_json(ran.folder / "data/weights/demo_backbone.json")["source"] == "random"


def test_a_second_run_writes_the_same_bytes(stages: Stages) -> None:
    path = stages.folder / "data/weights/demo_backbone.weights.h5"
    before = path.read_bytes()
    stages.run_weights()
    assert path.read_bytes() == before


def test_the_demo_has_weights_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone, source = get_weights("demo_backbone", "imagenet", 42)
    terms = find_backbone("demo_backbone").terms
    assert "this project" in terms
    assert source == {"source": "demo", "sha256": sha256(DEMO_WEIGHTS), "terms": terms}
    expected = build("demo_backbone", 96)
    expected.load_weights(DEMO_WEIGHTS)
    assert weights_equal(backbone, expected)


def test_a_file_of_the_mirror_stands_in_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(7)
    published = keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(224, 224, 3)
    )
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    published.save_weights(mirror / "x.weights.h5")
    (mirror / "x.weights.h5").rename(mirror / NAME)
    digest = sha256(mirror / NAME)
    (mirror / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")
    monkeypatch.setenv("FLOWERS_MIRROR", str(mirror))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.Model, "load_weights", _load_any_name)
    main(["--backbone", "mobilenet_v2_035", "--weights", "imagenet", "--seed", "42"])
    record = json.loads((tmp_path / "data/weights/mobilenet_v2_035.json").read_text())
    assert record == {"source": "mirror", "file": NAME, "sha256": digest}
    loaded = build("mobilenet_v2_035", 64)
    loaded.load_weights(tmp_path / "data/weights/mobilenet_v2_035.weights.h5")
    assert weights_equal(loaded, published)


_load = keras.Model.load_weights


def _load_any_name(self: keras.Model, path: Any, **options: Any) -> None:
    """Load a file in Keras 3's format whatever its name; published ones are in an older one."""
    copy = Path(path).with_name("copy.weights.h5")
    if not str(path).endswith(".weights.h5"):
        copy.write_bytes(Path(path).read_bytes())
        path = copy
    _load(self, path, **options)


def test_without_a_network_one_line_names_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: str, origin: str, **__: Any) -> str:
        raise OSError(f"URL fetch failure on {origin}")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        main(["--backbone", "vgg19", "--weights", "imagenet", "--seed", "42"])
    message = str(caught.value)
    assert "\n" not in message
    for words in ("vgg19_weights", "FLOWERS_MIRROR", "make demo", "weights to random"):
        assert words in message
    assert not (tmp_path / "data").exists()


def test_an_unknown_backbone_is_named_in_one_line() -> None:
    command = [sys.executable, "-m", "stages.weights", "--backbone", "vgg20"]
    done = subprocess.run(
        [*command, "--weights", "imagenet", "--seed", "42"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: argument --backbone: no backbone 'vgg20'; there are: ")
    assert all(name in line for name in registry())


def test_mobilenet_does_not_warn_of_its_own_size() -> None:
    """Keras warns wherever it is not told the shape, though the default one is wanted."""
    code = (
        "import sys, warnings, stages.networks.keras_quiet\n"
        "warnings.warn('`input_shape` is undefined or non-square, or `rows` is not in [128]')\n"
        "warnings.warn('something else')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "input_shape" not in done.stderr
    assert "something else" in done.stderr
