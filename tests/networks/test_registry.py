"""The registry: an entry a backbone, each its own, and what is wrong with one is one line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.common.command_line import UserError
from stages.common.parameters import read_yaml
from stages.extraction.extract import conditions
from stages.extraction.options import ImageOptions
from stages.networks import registry as module
from stages.networks.registry import PATH, find_backbone, registry
from tests.tiny_set import ROOT

DEMO = {"library": "demo", "size": 96, "width": 256, "unfreeze": "block2_out"}
ENTRY = """

new_one:
  library: keras
  constructor: VGG16
  module: vgg16
  size: 64
  width: 512
  unfreeze: block5_conv1
"""


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """The file is read anew, and after the test too."""
    registry.cache_clear()
    yield
    registry.cache_clear()


def read_from(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    """Have the registry read a file with this text."""
    path.write_text(text, "utf-8")
    monkeypatch.setattr(module, "PATH", path)
    registry.cache_clear()


def test_the_file_is_that_of_the_repository() -> None:
    assert PATH == ROOT / "stages/backbones.yaml"
    assert registry() == read_yaml(ROOT / "stages/backbones.yaml")


@pytest.mark.parametrize("name", [*registry()])
def test_every_entry_is_whole(name: str) -> None:
    backbone = find_backbone(name)
    assert backbone.name == name
    assert backbone.library in {"keras", "keras_hub", "demo"}
    # Each library's own facts, and no other's.
    assert bool(backbone.module) == (backbone.library == "keras")
    assert bool(backbone.constructor) == (backbone.library != "demo")
    assert bool(backbone.preset) == (backbone.library == "keras_hub")
    wanted = 3 if backbone.library == "keras_hub" else 0
    assert (len(backbone.mean), len(backbone.deviation)) == (wanted, wanted)
    assert 32 <= backbone.size <= 1024
    assert backbone.width > 0
    assert backbone.unfreeze


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sise": 96}, "'sise'"),
        ({"mean": None, "size": ...}, "'size'"),
        ({"library": ...}, "'library'"),
        ({"name": "other"}, "'name'"),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    entry = {key: value for key, value in (DEMO | changes).items() if value is not ...}
    monkeypatch.setitem(registry(), "wrong", entry)
    with pytest.raises(
        UserError, match=rf"backbones\.yaml does not describe wrong \(.*{reason}.*\); correct its"
    ) as caught:
        find_backbone("wrong")
    assert "\n" not in str(caught.value)


def test_an_entry_that_is_not_there_is_named_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^no backbone .vgg20.; there are: vgg16, vgg19"):
        find_backbone("vgg20")


def test_a_file_that_is_no_yaml_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from(monkeypatch, tmp_path / "backbones.yaml", "vgg16: {library: keras\n")
    with pytest.raises(UserError, match=r"backbones\.yaml is not valid YAML") as caught:
        find_backbone("vgg16")
    assert "\n" not in str(caught.value)


def conditions_of(backbone: str, weights: Path) -> dict[str, Any]:
    """What decides the values of a backbone's pictures."""
    options = ImageOptions("tiny", backbone, 32, "center", "avg", ["plain"], "float32")
    return conditions(options, "float32", weights, "features avg")


def test_an_entry_more_computes_nothing_again_and_a_changed_one_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of pictures is kept under these conditions."""
    weights = tmp_path / "x.weights.h5"
    weights.write_bytes(b"weights")
    before = {name: conditions_of(name, weights) for name in registry()}

    text = PATH.read_text("utf-8")
    read_from(monkeypatch, tmp_path / "backbones.yaml", text + ENTRY)
    assert find_backbone("new_one").size == 64
    assert {name: conditions_of(name, weights) for name in before} == before

    changed = text.replace("unfreeze: conv_dw_12", "unfreeze: conv_dw_11")
    read_from(monkeypatch, tmp_path / "backbones.yaml", changed)
    after = {name: conditions_of(name, weights) for name in before}
    assert [name for name in before if after[name] != before[name]] == ["mobilenet"]


def test_the_registry_is_read_without_tensorflow() -> None:
    code = (
        "import sys, stages.extraction.options; "
        "from stages.networks.registry import find_backbone; "
        "find_backbone('vgg19'); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_keras_has_not_is_named_with_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.networks.backbones import build

    entry = registry()["vgg19"]
    for wrong in ({"constructor": "VGG20"}, {"module": "vgg20"}):
        monkeypatch.setitem(registry(), "vgg19", entry | wrong)
        with pytest.raises(UserError, match=r"has no '(VGG|vgg)20'; correct it in stages/backb"):
            build("vgg19", 32)
