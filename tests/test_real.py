"""A short run on real flowers, where FLOWERS_MIRROR names a folder that holds them.

    FLOWERS_MIRROR=../shared/mirror python -m pytest -m slow tests/test_real.py

The floors are a few images below what the run gave when it was written (see README.md).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.common.files import read_json
from tests.test_repro import Clone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("FLOWERS_MIRROR" not in os.environ, reason="FLOWERS_MIRROR is not set"),
]
RUN = "flowers17-mobilenet_v2_035"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the default parameters, but for one set, one backbone, and few epochs."""
    changes = {
        r"^sets:.*": "sets: [flowers17]",
        r"^backbones:.*": "backbones: [mobilenet_v2_035]",
        r"^  epochs: 15\b.*": "  epochs: 5",  # Of fine-tuning.
        r"^  classifier:.*": "  classifier: false",  # The mirror lacks it.
    }
    clone = Clone(tmp_path_factory.mktemp("real"), changes)
    mirror = Path(os.environ["FLOWERS_MIRROR"]).resolve()
    clone("dvc", "repro", FLOWERS_MIRROR=str(mirror))
    clone.commit()
    return clone


def metrics(clone: Clone) -> dict[str, dict[str, Any]]:
    path = clone.folder / "metrics/flowers17/mobilenet_v2_035.json"
    return dict(json.loads(path.read_text()))


def test_real_flowers_are_recognised(clone: Clone) -> None:
    scores = metrics(clone)
    assert scores["head"]["images"] == 246
    assert scores["head"]["accuracy"] > 0.93
    assert scores["finetuned"]["accuracy"] > 0.94


def test_where_images_and_weights_came_from_is_said(clone: Clone) -> None:
    source = json.loads((clone.folder / "data/raw/flowers17/source.json").read_text())
    assert source["source"] == "mirror"
    assert source["files"]["17flowers.tgz"]["published"] is False
    assert metrics(clone)["head"]["weights"] == "mirror"
    page = (clone.folder / "metrics/report/index.html").read_text()
    assert "not the published" in page.lower()


def test_the_ordered_protocol_runs_from_the_same_features(clone: Clone) -> None:
    change = ["-S", "split.protocol=ordered", "-S", "finetune.unfreeze=0"]
    stages = clone.ran("dvc", "exp", "run", *change)
    assert stages == {"split", "prefix", "head", "finetune", "evaluate", "explain", "report"}
    scores = metrics(clone)
    assert scores["head"]["images"] == 243
    assert scores["head"]["accuracy"] > 0.80
    assert scores["finetuned"] == scores["head"]


def test_daisies_need_preprocessing(clone: Clone) -> None:
    """MobileNetV2 with ImageNet's classifier, before anything is trained."""
    mirror = str(Path(os.environ["FLOWERS_MIRROR"]).resolve())
    clone(
        sys.executable, "-m", "stages.imagenet", "--backbone", "mobilenet_v2",
        "--weights", "imagenet", "--classifier", FLOWERS_MIRROR=mirror,
    )  # fmt: skip
    clone(
        sys.executable, "-m", "stages.inspect", "--set", "flowers17", "--backbone", "mobilenet_v2",
        "--image_size", "larger", "--crop", "center", "--pooling", "avg", "--views", "plain",
        "--precision", "auto", "--augment", "none", "--color_jitter", "0", "--seed", "42",
    )  # fmt: skip
    facts = read_json(clone.folder / "metrics/inspect/flowers17-mobilenet_v2/facts.json")
    (daisies,) = facts["plausible"]
    assert (daisies["imagenet"], daisies["images"]) == ("daisy", 80)
    assert daisies["plain"] <= 1
    assert daisies["preprocessed"] >= 79
