"""What one clone pushes to a DVC remote spares the next one the work: a folder, and S3.

    python -m pytest -m slow tests/test_remote.py

Every command of docs/machines.md that shares results is run here. The S3 server is moto's, on this
machine; its test is skipped without `make s3`.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.test_repro import SHRUNK, Clone

pytestmark = pytest.mark.slow

TARGET = "evaluate@demo-demo_backbone"
MODEL = "models/demo/demo_backbone/finetuned.keras"
STAGES = {
    "check", "collect", "weights", "survey", "duplicates", "split", "features", "prefix", "head",
    "finetune", "evaluate",
}  # fmt: skip
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


class Colleague(Clone):
    """A clone of another one's Git: without its cache, and without its DVC configuration."""

    def __init__(self, first: Clone, folder: Path) -> None:
        self.folder, self.environment = folder, first.environment
        words = ["git", "clone", "--quiet", str(first.folder), str(folder)]
        subprocess.run(words, check=True)
        self("git", "config", "user.name", "colleague")
        self("git", "config", "user.email", "colleague@example.org")
        assert has_no_data(self)


def has_no_data(clone: Clone) -> bool:
    """Whether it has what Git knows alone: the facts of published sets."""
    files = [path for path in (clone.folder / "data").rglob("*") if path.is_file()]
    return {path.name for path in files} == {"set.yaml", "species.yaml"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone that has run everything up to the scores, and committed."""
    clone = Clone(tmp_path_factory.mktemp("first"), SHRUNK)
    assert clone.ran("dvc", "repro", TARGET) == STAGES
    clone.commit()
    return clone


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an S3 server that has a bucket `flowers`."""
    pytest.importorskip("dvc_s3", reason="needs `make s3`")
    server = pytest.importorskip("moto.server", reason="needs `make s3`").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    assert requests.put(f"{address}/flowers", timeout=10).ok
    yield address
    server.stop()


def publish(clone: Clone, *remote: str) -> None:
    """Make a remote the default, commit that, and push to it."""
    clone("dvc", "remote", "add", "--force", "--default", "shared", *remote)
    clone.commit()


def check_it_has_all(clone: Clone, first: Clone) -> None:
    assert (clone.folder / MODEL).read_bytes() == (first.folder / MODEL).read_bytes()
    assert clone.lock() == first.lock()
    assert "up to date" in clone("dvc", "status", TARGET)
    assert clone("git", "status", "--porcelain") == ""


def test_a_folder(first: Clone, tmp_path: Path) -> None:
    publish(first, str(tmp_path / "remote"))
    first("dvc", "push")
    pulling = Colleague(first, tmp_path / "pulling")
    pulling("dvc", "pull", "--allow-missing")
    assert pulling.ran("dvc", "repro", TARGET) == set()
    check_it_has_all(pulling, first)
    at_once = Colleague(first, tmp_path / "at_once")
    assert at_once.ran("dvc", "repro", "--pull", TARGET) == set()
    check_it_has_all(at_once, first)
    some = Colleague(first, tmp_path / "some")
    some("dvc", "pull", MODEL)
    assert (some.folder / MODEL).is_file()
    assert has_no_data(some)


@pytest.mark.soak
def test_without_the_data_only_what_changed_runs(first: Clone, tmp_path: Path) -> None:
    publish(first, str(tmp_path / "remote"))
    first("dvc", "push")
    clone = Colleague(first, tmp_path / "clone")
    clone.set_parameters({r"^dropout:.*": "dropout: 0.3"})
    assert clone.ran("dvc", "repro", "--pull", TARGET) == {"head", "finetune", "evaluate"}


def test_half_a_lock_is_completed_from_the_records_of_runs(first: Clone, tmp_path: Path) -> None:
    """As after a merge of two locks of which one side was taken."""
    publish(first, str(tmp_path / "remote"))
    first("dvc", "push", "--run-cache")
    clone = Colleague(first, tmp_path / "clone")
    whole = clone.lock()
    kept = whole[: whole.index(b"\n  features@") + 1]
    (clone.folder / "dvc.lock").write_bytes(kept)
    assert clone.ran("dvc", "repro", "--pull", TARGET) == {"evaluate"}
    assert clone.lock() == whole
    check_it_has_all(clone, first)


@pytest.mark.soak
def test_an_experiment_goes_to_a_colleague(first: Clone, tmp_path: Path) -> None:
    # `dvc exp apply` fails where dvc.lock does not know every output.
    assert first.ran("dvc", "repro") == {"inspect", "explain", "report"}
    first.commit()
    publish(first, str(tmp_path / "remote"))
    first("dvc", "push")
    first("git", "init", "--bare", "--quiet", str(tmp_path / "shared.git"))
    first("git", "remote", "add", "shared", str(tmp_path / "shared.git"))
    first("git", "push", "--quiet", "shared", "HEAD")
    changes = ("-S", "dropout=0.4", TARGET)
    assert first.ran("dvc", "exp", "run", "--name", "less", *changes) == {
        "head", "finetune", "evaluate",
    }  # fmt: skip
    model = (first.folder / MODEL).read_bytes()
    first("git", "checkout", "--", ".")
    first("dvc", "checkout", "--allow-missing")
    assert (first.folder / MODEL).read_bytes() != model
    first("dvc", "exp", "push", "--run-cache", "shared", "less")

    clone = Colleague(first, tmp_path / "clone")
    clone("git", "remote", "add", "shared", str(tmp_path / "shared.git"))
    clone("dvc", "exp", "pull", "shared", "less")
    clone("dvc", "exp", "apply", "less")
    assert clone.ran("dvc", "repro", "--pull", TARGET) == set()
    assert (clone.folder / MODEL).read_bytes() == model

    # By the run cache, who asks the same again gets it too; scores are not in a cache, and anew.
    other = Colleague(first, tmp_path / "other")
    assert other.ran("dvc", "exp", "run", "--pull", *changes) == {"evaluate"}
    assert (other.folder / MODEL).read_bytes() == model


def test_s3(first: Clone, tmp_path: Path, bucket: str) -> None:
    publish(first, "s3://flowers/results")
    first("dvc", "remote", "modify", "shared", "endpointurl", bucket)
    first.commit()
    first("dvc", "push", **KEYS)
    listed = requests.get(f"{bucket}/flowers?list-type=2", timeout=10).text
    assert re.search(r"<Key>results/files/md5/\w\w/\w{30}</Key>", listed)
    clone = Colleague(first, tmp_path / "clone")
    clone("dvc", "pull", "--allow-missing", **KEYS)
    assert clone.ran("dvc", "repro", TARGET) == set()
    check_it_has_all(clone, first)
