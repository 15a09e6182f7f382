from pathlib import Path

import pytest

from stages.check import main
from stages.common.command_line import UserError

CHECKED = Path("data/checked.txt")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the sets `roses` and `2024`."""
    monkeypatch.chdir(tmp_path)
    for name in ("roses", "2024"):
        (Path("data/sets") / name).mkdir(parents=True)


def check(sets: str, backbones: str = "[vgg19]") -> None:
    Path("params.yaml").write_text(f"sets: {sets}\nbackbones: {backbones}\n", "utf-8")
    main([])


def test_another_list_of_sets_that_are_there_changes_nothing_that_is_written() -> None:
    written = set()
    for sets in ("[roses]", "[2024, roses]", "[2024]"):
        check(sets)
        written.add(CHECKED.read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("[roses, tulips]", r"there is no folder data/sets/tulips; there are: 2024, roses; put "),
        ("['red roses']", r"'red roses' is not of letters, digits and _ \. - alone; rename"),
        ("[../roses]", r"'\.\./roses' is not of letters"),
    ],
)
def test_a_set_that_there_is_not_is_one_line(sets: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^sets: {words}") as caught:
        check(sets)
    assert "\n" not in str(caught.value)
    assert not CHECKED.exists()


def test_a_backbone_that_there_is_not_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^no backbone 'vgg20'; there are: vgg16, vgg19, "):
        check("[roses]", "[vgg19, vgg20]")
    assert not CHECKED.exists()
