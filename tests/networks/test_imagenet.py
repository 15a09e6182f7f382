import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.command_line import UserError
from stages.common.files import sha256
from stages.networks import imagenet
from stages.networks.keras_quiet import keras


def unreachable(_: str, origin: str, **__: Any) -> str:
    raise OSError(f"URL fetch failure on {origin}")


@pytest.fixture
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, an empty mirror, and Keras has not read its list of names yet."""
    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", None)
    monkeypatch.setenv("FLOWERS_MIRROR", str(tmp_path))
    (tmp_path / "SHA256SUMS").write_text("")
    return tmp_path


def test_names_are_kerass_from_the_mirror(nothing_known: Path) -> None:
    path = nothing_known / "imagenet_class_index.json"
    path.write_text(json.dumps({number: [f"n{number}", f"a_{number}"] for number in range(1000)}))
    (nothing_known / "SHA256SUMS").write_text(f"{sha256(path)}  {path.name}\n")
    names = imagenet.class_names()
    assert len(names) == 1000
    assert (names[0], names[985]) == ("a 0", "a 985")


def test_a_list_of_names_that_cannot_be_had_is_one_line(nothing_known: Path) -> None:
    assert not (nothing_known / "imagenet_class_index.json").exists()
    with pytest.raises(UserError, match=r"imagenet_class_index\.json could not be downloa") as it:
        imagenet.class_names()
    assert "\n" not in str(it.value)
    assert str(nothing_known) in str(it.value)


def test_a_classifier_that_cannot_be_had_is_one_line(nothing_known: Path) -> None:
    with pytest.raises(UserError, match=r"mobilenet_1_0_224_tf\.h5 could not be downloaded") as it:
        imagenet.download_imagenet_network("mobilenet")
    assert "\n" not in str(it.value)
    assert str(nothing_known) in str(it.value)
