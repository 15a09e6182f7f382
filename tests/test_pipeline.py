"""The contracts of dvc.yaml, params.yaml and requirements.txt."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.code import imported_modules
from stages.common.files import write_json
from tests.tiny_set import ROOT, default_parameters, words_of

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
TENSORFLOW_STAGES = {
    "weights", "imagenet", "inspect", "features", "prefix", "head", "finetune", "explain",
}  # fmt: skip


def script(name: str) -> Path:
    """The script that a stage runs."""
    module = STAGES[name]["cmd"].split()[2]
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def packages_of(modules: Iterable[Path]) -> set[str]:
    """The packages of stages/ that hold some of the modules."""
    return {f"stages/{path.parent.name}" for path in modules if path.parent != ROOT / "stages"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_script_and_every_package_it_imports_and_no_other(name: str) -> None:
    code = {f"stages/{name}.py"} | packages_of(imported_modules(script(name)))
    deps = STAGES[name]["deps"]
    assert {dep for dep in deps if dep.startswith("stages/")} == code
    assert len(deps) == len(set(deps))


def test_packages_import_each_other_in_no_circle() -> None:
    """Each imports only what stands before it."""
    order = [
        "common", "pictures", "sources", "networks", "extraction", "scoring", "training",
        "reporting",
    ]  # fmt: skip
    folders = {path.parent.name for path in (ROOT / "stages").glob("*/*.py")}
    assert folders == set(order)
    for place, package in enumerate(order):
        for path in (ROOT / "stages" / package).glob("*.py"):
            used = {each.removeprefix("stages/") for each in packages_of(imported_modules(path))}
            assert used <= set(order[: place + 1]), path


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_script_of_its_name_and_says_what_it_does(name: str) -> None:
    assert script(name).stem == name
    assert STAGES[name]["desc"]


def test_every_script_is_a_stage() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("[!_]*.py")}
    assert scripts == set(STAGES)


def test_there_is_one_list_of_sets_and_one_of_backbones() -> None:
    lists = [value for stage in STAGES.values() for value in stage.get("matrix", {}).items()]
    assert set(lists) == {("set", "${sets}"), ("backbone", "${backbones}")}


def test_only_the_first_stage_of_a_set_knows_its_folder() -> None:
    """All others go by the table that it writes, whatever kind of set it is."""
    knowing = {
        name for name in STAGES if any(dep.startswith("data/sets") for dep in STAGES[name]["deps"])
    }
    assert knowing == {"collect"}
    assert "data/sets/${item.set}" in STAGES["collect"]["deps"]
    assert STAGES["collect"]["outs"] == ["data/raw/${item.set}"]


def test_a_list_of_sets_is_checked_before_anything_is_made() -> None:
    assert STAGES["check"]["params"] == ["backbones", "sets"]
    (checked,) = STAGES["check"]["outs"]
    after = {name for name in STAGES if checked in STAGES[name]["deps"]}
    assert after == {"collect", "imagenet", "weights"}


@pytest.mark.parametrize("name", STAGES)
def test_only_stages_that_touch_a_network_import_tensorflow(name: str) -> None:
    modules = imported_modules(ROOT / f"stages/{name}.py")
    assert (ROOT / "stages/networks/keras_quiet.py" in modules) == (name in TENSORFLOW_STAGES)


@pytest.mark.parametrize("name", ["prefix", "finetune"])
def test_what_has_nothing_to_train_does_without_tensorflow(name: str, tmp_path: Path) -> None:
    models = tmp_path / "models/demo/vgg19"
    models.mkdir(parents=True)
    for file in ("head.keras", "head_probabilities.npy"):
        (models / file).touch()
    prefix = tmp_path / "data/prefix/demo/vgg19"
    if name == "finetune":
        write_json(prefix / "facts.json", {"values": "none"})
    code = (
        "import sys; sys.modules.update(keras=None, tensorflow=None); "
        f"from stages.{name} import main; main(sys.argv[1:])"
    )
    parameters = default_parameters()
    parameters["finetune"]["unfreeze"] = "0"
    words = words_of(STAGES[name]["cmd"], parameters, {"set": "demo", "backbone": "vgg19"})
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, check=True)
    written = {"prefix": prefix / "facts.json", "finetune": models / "finetuned.keras"}
    assert written[name].exists()


def test_every_parameter_reaches_a_stage() -> None:
    text = " ".join(stage["cmd"] for stage in STAGES.values())
    used = set(re.findall(r"\$\{([a-z_]+)", text))
    lists = {name for stage in STAGES.values() for name in stage.get("matrix", {}).values()}
    used |= {name.strip("${}") for name in lists}
    assert used - {"item"} == set(default_parameters())


def test_only_check_and_the_report_read_params_yaml_and_declare_it() -> None:
    readers = {
        path.stem
        for path in (ROOT / "stages").rglob("*.py")
        if re.search(r"""["'/]params\.yaml["']""", path.read_text("utf-8"))
    }
    assert readers == {"check", "report"}
    assert STAGES["check"]["params"] == ["backbones", "sets"]
    assert STAGES["report"]["params"] == [{"params.yaml": None}]


@pytest.mark.parametrize("name", sorted({*STAGES} - {"check", "report"}))
def test_a_stage_that_builds_a_network_depends_on_its_entry_in_the_registry_alone(
    name: str,
) -> None:
    """`evaluate` and `explain` take the model as it is."""
    builds = "backbone" in STAGES[name].get("matrix", {}) and name not in ("evaluate", "explain")
    entry = [{"stages/backbones.yaml": ["${item.backbone}"]}]
    assert STAGES[name].get("params") == (entry if builds else None)


def test_every_parameter_has_a_comment() -> None:
    lines = (ROOT / "params.yaml").read_text("utf-8").splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"^ *[a-z_0-9]+:", line) and not before.strip().startswith("#")
    ]
    # Inside `finetune` those that are as for the head share its comments.
    allowed = {"learning_rate", "schedule", "batch_size", "weight_decay", "label_smoothing"}
    assert {line.split(":")[0].strip() for line in bare} <= allowed | {"average_views"}


def test_sections_unpack_to_options() -> None:
    for section in default_parameters().values():
        for value in section.values() if isinstance(section, dict) else [section]:
            assert value is not None
            assert not isinstance(value, dict)


def test_the_contract_of_the_parameters() -> None:
    parameters = default_parameters()
    assert parameters["sets"] == ["flowers17", "oxford102"]
    assert parameters["backbones"] == ["vgg19", "inception_v3"]
    names = {
        "split": {"protocol", "fraction"},
        "features": {"pooling", "views", "precision"},
        "head": {"hidden", "epochs", "learning_rate"},
        "finetune": {"epochs", "unfreeze", "batch_norm", "learning_rate"},
    }
    for section, keys in names.items():
        assert keys <= set(parameters[section])
    assert {"dropout", "seed", "weights"} <= set(parameters)


def test_dvc_reads_the_default_matrix() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = done.stdout.split()
    assert len(names) == 1 + 4 * 2 + 2 * 2 + 7 * 4 + 1
    assert {"check", "collect@oxford102", "evaluate@flowers17-vgg19"} <= set(names)


def test_dvc_reads_a_matrix_with_sets_of_ones_own(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    parameters = default_parameters() | {"sets": ["flowers17", "my-roses", "цветы"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters, allow_unicode=True), "utf-8")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [*dvc, "stage", "list", "--name-only"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = done.stdout.split()
    assert len(names) == 1 + 4 * 3 + 2 * 2 + 7 * 6 + 1
    assert {"collect@my-roses", "evaluate@my-roses-vgg19", "split@цветы"} <= set(names)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("requirements", 100),
        ("requirements-hub", 5),
        ("requirements-onnx", 3),
        ("requirements-ray", 5),
        ("requirements-s3", 5),
        ("requirements-upkeep", 20),
    ],
)
def test_requirements_are_pinned_and_hashed_and_name_no_index(name: str, least: int) -> None:
    text = (ROOT / f"{name}.txt").read_text("utf-8")
    assert "://" not in text
    blocks = re.split(r"\n(?=[a-z])", text.strip())
    assert len(blocks) >= least
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==[^ ]+", block), block
        assert "--hash=sha256:" in block


@pytest.mark.parametrize(
    ("extra", "among"),
    [
        ("hub", {"keras-hub", "tensorflow-text"}),
        ("onnx", {"onnx", "onnxruntime", "tf2onnx"}),
        ("ray", {"ray", "pandas", "pyarrow"}),
        ("s3", {"dvc-s3", "s3fs", "moto"}),
    ],
)
def test_an_extra_is_pinned_apart_from_what_everyone_installs(extra: str, among: set[str]) -> None:
    """What everyone installs on Windows alone may be in both."""
    usual = set(re.findall(r"(?m)^(\S+)==\S+ \\$", (ROOT / "requirements.txt").read_text("utf-8")))
    text = (ROOT / f"requirements-{extra}.txt").read_text("utf-8")
    further = set(re.findall(r"(?m)^([a-z0-9._-]+)==", text))
    assert len(usual) > 100
    assert among <= further
    assert further.isdisjoint(usual)


def test_tools_of_upkeep_need_no_other_version_of_what_everyone_installs() -> None:
    usual, tools = (
        set(re.findall(r"(?m)^([a-z0-9._-]+==\S+)", (ROOT / name).read_text("utf-8")))
        for name in ("requirements.txt", "requirements-upkeep.txt")
    )
    common = {pin.split("==")[0] for pin in usual} & {pin.split("==")[0] for pin in tools}
    assert common
    assert {pin for pin in tools if pin.split("==")[0] in common} <= usual


def test_the_licence_of_every_package_is_listed() -> None:
    """Made by `make licences`; those that another Python or system needs may be missing."""
    extras = ("hub", "onnx", "ray")
    files = ("requirements.txt", *(f"requirements-{extra}.txt" for extra in extras))
    pins = "\n".join((ROOT / name).read_text("utf-8") for name in files)
    always = set(re.findall(r"(?m)^([a-z0-9._-]+)==\S+ \\$", pins))
    sometimes = set(re.findall(r"(?m)^([a-z0-9._-]+)==\S+ ;", pins))
    _, table = (ROOT / "docs/licences.md").read_text("utf-8").split("\n| Name ")
    names = re.findall(r"(?m)^\| (\w\S*) +\| \S.*\|$", table)
    listed = {re.sub("[._]+", "-", name.lower()) for name in names}
    assert len(always) > 100
    assert always <= listed <= always | sometimes


def test_every_dependency_is_pinned_and_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8").split("[build-system]")[0]
    names = re.findall(r'"([A-Za-z0-9.-]+)(?:[><=]|")', project.split("dependencies", 1)[1])
    pinned = "\n".join(path.read_text("utf-8").lower() for path in ROOT.glob("requirements*.txt"))
    pages = [ROOT / "README.md", ROOT / "docs/development.md"]
    explained = "\n".join(path.read_text("utf-8").lower() for path in pages)
    assert len(names) > 10
    for name in names:
        assert f"\n{name.lower().replace('.', '-')}==" in f"\n{pinned}", name
        assert f"`{name.lower()}`" in explained, name


@pytest.mark.parametrize(
    "name", [".venv", ".demo", "models", "metrics/report", "dvc_plots", "mutants"]
)
@pytest.mark.parametrize("link", [True, False])
def test_what_is_made_is_ignored_by_git_as_a_folder_and_as_a_link(
    name: str, link: bool, tmp_path: Path
) -> None:
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    path = repository / name
    for folder in (path.parent, elsewhere) if link else (path,):
        folder.mkdir(parents=True, exist_ok=True)
    if link:
        path.symlink_to(elsewhere)
    (path / "file").write_text("made")
    (repository / ".gitignore").write_text((ROOT / ".gitignore").read_text("utf-8"))
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(status, cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "?? .gitignore\n"


def test_importing_changes_nothing_but_what_tensorflow_demands() -> None:
    """That is in stages/networks/keras_quiet.py; modules without TensorFlow are imported here."""
    quiet = ROOT / "stages/networks/keras_quiet.py"
    paths = [path for path in (ROOT / "stages").rglob("*.py") if path != quiet]
    plain = [path for path in paths if quiet not in imported_modules(path)]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in plain]
    assert len(names) > 30
    code = f"""
import importlib, os, sys, warnings
import PIL.Image, jinja2, numpy, requests, ruamel.yaml, scipy.io, sklearn, tqdm
def state():
    return dict(os.environ), sys.excepthook, list(warnings.filters), os.getcwd(), sys.stderr
before = state()
for name in {names}:
    importlib.import_module(name)
    assert state() == before, name
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
