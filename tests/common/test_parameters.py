from pathlib import Path
from typing import Any

import pytest

from stages.common.command_line import UserError
from stages.common.parameters import names, read_yaml
from tests.tiny_set import ROOT

WRITTEN = ["2024", "007", "0o17", "off", "yes", "true", "1.5", "1e3", "null", "~", "2024-01-01"]


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("text", [*WRITTEN, '"007"', "{a: [b]}", "''"])
def test_yaml_is_read_as_dvc_reads_it(text: str, tmp_path: Path) -> None:
    from dvc.utils.serialize import load_yaml

    path = written(tmp_path / "a.yaml", f"a: [{text}]\n")
    assert read_yaml(path) == load_yaml(str(path))


@pytest.mark.parametrize("name", ["params.yaml", "recipes.yaml"])
def test_the_files_of_the_project(name: str) -> None:
    assert len(read_yaml(ROOT / name)) > 3


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path / "a.yaml", "# Nothing yet.\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\nc: 2\n", r"is not valid YAML \(line 3: "),
        ("a: 1\na: 2\n", r"is not valid YAML \(line 2: found duplicate key"),
        ("a: 1\nb: \x07\n", r"is not valid YAML \("),
        ("a: !!python/object:os.system x\n", r"is not valid YAML \(line 1: "),
        ("- a\n", "is no list of"),
        ("roses\n", "is no list of"),
    ],
)
def test_what_is_no_yaml_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.yaml", text)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(UserError, match=r"a\.yaml is missing; run this in the project's folder"):
        read_yaml(path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match=r"a\.yaml is not valid YAML"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[roses]", ["roses"]),
        ("[2024, off, 007, -3]", ["2024", "off", "7", "-3"]),
        ('["007", "true", "1.5"]', ["007", "true", "1.5"]),
        ('[2024, roses, "2024", roses]', ["2024", "roses"]),
    ],
)
def test_names_are_those_of_the_stages_that_dvc_makes(
    text: str, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "params.yaml", f"sets: {text}\n")
    stage = "stages:\n  a:\n    matrix:\n      set: ${sets}\n    cmd: echo ${item.set}\n"
    written(tmp_path / "dvc.yaml", stage)
    with Repo.init(no_scm=True) as repo:
        assert [each.cmd for each in repo.index.stages] == [f"echo {name}" for name in wanted]
    assert names(read_yaml(path), "sets", path) == wanted


@pytest.mark.parametrize("value", [True, False, 1.5, None, ["a"], {"a": "b"}])
def test_what_is_no_name_is_to_be_put_in_quotes(value: Any) -> None:
    with pytest.raises(UserError, match=r"^params.yaml has .* in sets, .*put the name in quotes$"):
        names({"sets": ["roses", value]}, "sets", Path("params.yaml"))


@pytest.mark.parametrize("value", ["roses", 7, True, {"roses": 1}])
def test_what_is_no_list_is_to_be_put_in_brackets(value: Any) -> None:
    with pytest.raises(UserError, match=r"^params.yaml has sets: .*write `sets: \[NAME\]`"):
        names({"sets": value}, "sets", Path("params.yaml"))


@pytest.mark.parametrize("params", [{}, {"sets": None}, {"sets": []}])
def test_an_empty_list_is_no_list_of_names(params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^params.yaml has nothing in sets; list a name there"):
        names(params, "sets", Path("params.yaml"))
