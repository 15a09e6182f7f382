import hashlib
from pathlib import Path

import pytest

from stages.common.command_line import UserError
from stages.sources.mirror import find_in_mirror, mirror_remedy


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror beside the repository in which the test runs."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "a.mat").write_bytes(b"a")
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(b'a').hexdigest()}  a.mat\n")
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setenv("FLOWERS_MIRROR", str(folder))
    return folder


@pytest.mark.parametrize("value", [None, ""])
def test_no_mirror(mirror: Path, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("FLOWERS_MIRROR")
    else:
        monkeypatch.setenv("FLOWERS_MIRROR", value)
    assert (mirror / "a.mat").exists()
    assert find_in_mirror("a.mat") is None
    assert mirror_remedy().startswith("set FLOWERS_MIRROR to a folder that holds it, or run")


def test_absolute_path(mirror: Path) -> None:
    assert find_in_mirror("a.mat") == mirror / "a.mat"


def test_path_relative_to_the_repository(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_MIRROR", "../mirror")
    found = find_in_mirror("a.mat")
    assert found is not None
    assert found.samefile(mirror / "a.mat")


def test_path_relative_to_the_repository_in_a_temporary_copy(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path.cwd() / ".dvc/tmp/exps/standalone/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("FLOWERS_MIRROR", "../mirror")
    found = find_in_mirror("a.mat")
    assert found is not None
    assert found.samefile(mirror / "a.mat")


def test_a_file_that_the_mirror_lacks(mirror: Path) -> None:
    assert find_in_mirror("b.mat") is None
    assert f"the folder of FLOWERS_MIRROR={mirror}, which lacks it" in mirror_remedy()


def test_a_listed_file_that_is_not_there(mirror: Path) -> None:
    (mirror / "a.mat").unlink()
    assert find_in_mirror("a.mat") is None


def test_other_forms_of_sums(mirror: Path) -> None:
    (mirror / "SHA256SUMS").write_text(f"\n{hashlib.sha256(b'a').hexdigest().upper()} *a.mat\n\n")
    assert find_in_mirror("a.mat") == mirror / "a.mat"


def test_a_folder_that_does_not_exist(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_MIRROR", f"{mirror}-typo")
    with pytest.raises(UserError, match="mirror-typo is no folder"):
        find_in_mirror("a.mat")


@pytest.mark.parametrize("name", ["a.mat", "b.mat"])
def test_a_mirror_without_sums(mirror: Path, name: str) -> None:
    (mirror / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="SHA256SUMS cannot be read"):
        find_in_mirror(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"\xff\xfe", "cannot be read"), (b"a.mat\n", "is not listed in SHA256SUMS")],
)
def test_senseless_sums(mirror: Path, text: bytes, words: str) -> None:
    (mirror / "SHA256SUMS").write_bytes(text)
    with pytest.raises(UserError, match=words):
        find_in_mirror("a.mat")


def test_a_changed_file(mirror: Path) -> None:
    (mirror / "a.mat").write_bytes(b"A")
    with pytest.raises(UserError, match=r"a\.mat has sha256 559aead0\w+, SHA256SUMS says ca9781"):
        find_in_mirror("a.mat")


def test_an_unlisted_file(mirror: Path) -> None:
    (mirror / "b.mat").write_bytes(b"b")
    with pytest.raises(UserError, match=r"b\.mat is not listed in SHA256SUMS"):
        find_in_mirror("b.mat")


@pytest.mark.parametrize("name", ["a\u2028b.mat", "a\x85b.mat", "a\x0cb.mat", "a  b.mat"])
def test_names_that_hold_breaks_of_lines(mirror: Path, name: str) -> None:
    (mirror / name).write_bytes(b"b")
    with (mirror / "SHA256SUMS").open("a", encoding="utf-8") as sums:
        sums.write(f"{hashlib.sha256(b'b').hexdigest()} *{name}\n")
    assert find_in_mirror("a.mat") == mirror / "a.mat"
    assert find_in_mirror(name) == mirror / name
