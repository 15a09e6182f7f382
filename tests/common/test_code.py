import hashlib
from pathlib import Path

import pytest

from stages.common import code
from stages.common.code import code_digests


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The texts of modules below a root of their own, by their paths."""
    texts = {
        "stages/rooms/first.py": "from stages.rooms import second",
        "stages/rooms/second.py": "def late() -> None:\n    import stages.rooms.third\n",
        "stages/rooms/third.py": "import os\nfrom stages.common.files import sha256\n",
        "stages/rooms/apart.py": "",
        "stages/common/files.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "SHARED", tmp_path / "stages/common")
    return texts


def test_code_is_told_by_the_bytes_of_all_it_imports(written: dict[str, str]) -> None:
    names = [f"stages/rooms/{name}.py" for name in ("first", "second", "third")]
    assert code_digests("stages.rooms.first") == {name: digest(written[name]) for name in names}


def test_what_decides_a_pictures_values_is_followed() -> None:
    names = set(code_digests("stages.extraction.forward"))
    decides = {"pictures/decoding.py", "networks/backbones.py", "networks/precision.py"}
    assert {f"stages/{name}" for name in decides} <= names
    assert not any("common" in name or "kept" in name for name in names)
