"""The same bytes from another clone in another environment, and what precision changes.

python -m pytest -m soak tests/test_same_bytes.py
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.small_clone import Reference
from tests.tiny_set import ROOT, as_options, default_parameters

pytestmark = pytest.mark.soak

ELSEWHERE = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "12345",
}
AGREEMENT = 0.995
"""Share of images of which features in bfloat16 and in float32 must give the same class."""


@pytest.mark.skipif(sys.platform != "linux", reason="needs taskset")
def test_threads_locale_time_zone_umask_hash_seed_and_folder_change_no_byte(
    reference: Reference, tmp_path: Path
) -> None:
    folder = tmp_path / "another folder, with a comma" / "ö" / "clone"
    clone = reference.before.copy(folder)
    assert shutil.which("taskset")
    command = ["sh", "-c", "umask 077; exec taskset --cpu-list 0 dvc repro"]
    clone(*command, **ELSEWHERE)
    different = clone.outputs().items() ^ reference.outputs.items()
    assert sorted({name for name, _ in different}) == []
    assert clone.lock() == reference.lock


def folds(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of each image by a head that has not seen it, of five."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    def power(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        roots = np.sqrt(np.abs(rows)) * np.sign(rows)
        return np.asarray(roots / np.linalg.norm(roots, axis=1, keepdims=True), np.float64)

    head = make_pipeline(
        FunctionTransformer(power), StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
    )
    order = StratifiedKFold(5, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(head, features.mean(axis=1), labels, cv=order))


@pytest.mark.skipif("FLOWERS_MIRROR" not in os.environ, reason="FLOWERS_MIRROR is not set")
def test_bfloat16_gives_the_class_that_float32_gives(tmp_path: Path) -> None:
    backbone = "mobilenet"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "FLOWERS_MIRROR": str(Path(os.environ["FLOWERS_MIRROR"]).resolve()),
    }

    def stage(name: str, *options: str) -> None:
        command = [sys.executable, "-m", f"stages.{name}", *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    shutil.copytree(ROOT / "data/sets/flowers17", tmp_path / "data/sets/flowers17")
    stage("collect", "--set", "flowers17")
    stage("survey", "--set", "flowers17", "--unreadable", "stop")
    stage("weights", "--backbone", backbone, "--weights", "imagenet", "--seed", "42")
    asked = default_parameters()["features"] | {"views": ["plain"], "image_size": "native"}
    features = {}
    for precision in ("float32", "bfloat16"):
        options = as_options(asked | {"precision": precision, "engine": "local"})
        stage("features", "--set", "flowers17", "--backbone", backbone, *options)
        features[precision] = np.load(tmp_path / f"data/features/flowers17/{backbone}.npy")
    labels = np.arange(1360) // 80
    exact, short = (folds(features[name], labels) for name in ("float32", "bfloat16"))
    agreement = float(np.mean(exact == short))
    print(f"{backbone}: {agreement:.4f} of {len(labels)} images agree")
    assert np.mean(exact == labels) > 0.9
    assert agreement >= AGREEMENT
