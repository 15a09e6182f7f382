"""Fixtures: a folder in which every stage has run, to read or to run stages in again."""

import shutil
from pathlib import Path

import pytest

from stages.common.sets import SETS
from tests.tiny_set import TINY, Stages


@pytest.fixture(scope="session", autouse=True)
def tiny_registered() -> None:
    """Let the stages know of TINY."""
    SETS["tiny"] = TINY


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A folder in which every stage has run; tests only read there."""
    stages = Stages(tmp_path_factory.mktemp("ran"))
    stages.run_all()
    return stages


@pytest.fixture
def stages(ran: Stages, tmp_path: Path) -> Stages:
    """A copy of that folder, in which a test can run stages again."""
    folder = tmp_path / "repository"
    shutil.copytree(ran.folder, folder)
    return Stages(folder)
