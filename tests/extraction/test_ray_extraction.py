"""Extraction on a Ray cluster of one processor; skipped without `make ray`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.extraction.forward import compute_here, in_full_batches
from stages.extraction.kept import Kept
from stages.networks.keras_quiet import keras
from stages.pictures.reading import decode_rows
from tests.tiny_set import ARCHIVE, IMAGES, write_tiny_set

pytest.importorskip("ray", reason="needs `make ray`")
pytestmark = pytest.mark.slow

SIDE, VIEWS = 16, ("plain", "mirror")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster that the first test's extraction finds as the one of this machine."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=1, logging_level="ERROR", log_to_driver=False)
        patch.setattr("ray.init", lambda **_: None)
        yield
        ray.shutdown()


@pytest.fixture
def network() -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(image, keras.layers.Conv2D(4, 5, strides=3, activation="relu")(image))


def compute(network: Any, table: Path, kept: Kept) -> dict[str, Any]:
    """What the cluster computes of every third picture of the tiny set, by view, by row."""
    from stages.extraction.ray_extraction import compute_on_cluster

    rows = np.arange(0, len(IMAGES), 3)
    run = compute_on_cluster(network, table, IMAGES, "center", kept)
    batches = list(run(rows))
    found = np.concatenate([positions for positions, _ in batches])
    assert sorted(found) == rows.tolist()
    order = np.argsort(found)
    return {
        view: np.concatenate([values[view] for _, values in batches])[order]
        for view in batches[0][1]
    }


def new_kept(folder: Path, network: Any) -> Kept:
    names = IMAGES
    return Kept(folder, names, VIEWS, {}, network.output_shape[1:], "float32")


def test_the_values_are_those_of_this_machine_in_the_views_that_are_not_known(
    network: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("stages.extraction.ray_extraction.SHARD", 4)
    write_tiny_set(tmp_path / "data/raw/tiny")
    table = tmp_path / "data/raw/tiny/pictures.csv"
    kept = new_kept(tmp_path / "kept", network)
    whole = compute(network, table, kept)
    assert [*whole] == [*VIEWS]
    assert "Ray: 1 processors and 0 GPUs" in capsys.readouterr().out
    here = compute_here(
        in_full_batches(network),
        lambda rows: decode_rows(table, IMAGES, rows, SIDE, "center", 32),
        kept.lacking_views,
    )
    for positions, values in here(np.arange(0, len(IMAGES), 3)):
        for view in VIEWS:
            np.testing.assert_array_equal(whole[view][positions // 3], values[view])
    kept.mark(np.arange(len(IMAGES)), 0)
    assert [*compute(network, table, kept)] == ["mirror"]


def test_what_a_worker_cannot_read_is_the_error_of_the_stage(
    network: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_set(tmp_path / "data/raw/tiny")
    (tmp_path / ARCHIVE).unlink()
    table = tmp_path / "data/raw/tiny/pictures.csv"
    with pytest.raises(UserError, match=r"tiny\.tgz cannot be read .*download again$"):
        compute(network, table, new_kept(tmp_path / "kept", network))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1:1", "nowhere"])
def test_an_address_without_a_cluster_is_named(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.init", ray._private.worker.init)
    with pytest.raises(UserError, match=f"no Ray cluster .* at RAY_ADDRESS '{address}'"):
        compute(network, tmp_path / "any.csv", new_kept(tmp_path / "kept", network))
