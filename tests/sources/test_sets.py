from pathlib import Path

import pytest

from stages.common.command_line import UserError
from stages.sources.sets import check_set


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sets `roses` and `demo`, and a file beside them."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/sets"
    for name in ("roses", "demo"):
        (folder / name).mkdir(parents=True)
    (folder / "notes").write_text("no set")
    return folder


@pytest.mark.parametrize("name", ["roses", "demo", "r", "2024", "a.b", "a-b_c", "Blüten"])
def test_a_folder_is_a_set(sets: Path, name: str) -> None:
    (sets / name).mkdir(exist_ok=True)
    check_set(name)


@pytest.mark.parametrize("name", ["flowers18", "notes"])
def test_a_set_without_a_folder_is_one_line_that_lists_those_there_are(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_set(name)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"sets: there is no folder data/sets/{name}; there are: demo, roses; ")
    assert "data/sets/NAME" in text
    assert "params.yaml" in text


def test_no_set_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="there is no folder data/sets/demo"):
        check_set("demo")


@pytest.mark.parametrize("name", ["", ".", "..", "../roses", "a/b", "two words", "-x", "$x", "a\n"])
def test_a_name_that_suits_no_command_line_is_one_line(sets: Path, name: str) -> None:
    (sets / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match="rename its folder") as caught:
        check_set(name)
    assert "\n" not in str(caught.value)
