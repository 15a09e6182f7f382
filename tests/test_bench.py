"""The benchmark's pictures, scratch copies and statistics, and a short run of it."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import machine_of, main, measure, summarize, table
from bench.parts import PARTS, Plan, recipe
from bench.workspace import (
    UNIT,
    StageRun,
    Workspace,
    generated_picture,
    run,
    stage_run,
    write_folder,
    write_shim,
)
from stages.common.command_line import UserError
from tests.tiny_set import ROOT


def test_medians_have_their_ends() -> None:
    repeats = [{"a [s]": 5.0, "b": 1.0}, {"a [s]": 1.0, "b": 2000.5}, {"a [s]": 3.0, "b": 2.0}]
    assert summarize(repeats) == [
        {"name": "a [s]", "median": 3, "least": 1, "greatest": 5},
        {"name": "b", "median": 2, "least": 1, "greatest": 2000.5},
    ]
    first, second = table(summarize(repeats)).splitlines()
    assert first == "a [s]      3.000  (1.000 to 5.000)"
    assert second == "b          2.000  (1.000 to 2,000.500)"


def test_parts_are_measured_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def part(name: str):  # type: ignore[no-untyped-def]
        def measured(folder: Path, plan: Plan):  # type: ignore[no-untyped-def]  # noqa: ARG001
            while True:
                ran.append(folder.name)
                yield {name: float(len(ran))}

        return measured

    monkeypatch.setitem(PARTS, "guide", part("x"))
    monkeypatch.setitem(PARTS, "nothing", part("y"))
    plan = Plan(1, 1, 1, 1, networks=(), repeats=2)
    assert measure(["guide", "nothing"], plan, tmp_path) == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    assert ran == ["guide", "nothing"] * 2


def test_the_processor_and_its_instructions_are_named() -> None:
    found = machine_of("model name\t: Some Processor\nflags\t\t: fpu avx2 amx_bf16 avx512_bf16x\n")
    assert found["processor"] == "Some Processor"
    assert found["instruction_sets"] == ["amx_bf16", "avx2"]
    assert machine_of("")["processor"] == "unknown processor"


def test_an_option_out_of_range_is_one_line() -> None:
    with pytest.raises(UserError, match="no part 'all'; there are: guide, article"):
        main(["--only", "all"])
    with pytest.raises(UserError, match="'0' is not a whole number from 1"):
        main(["--repeats", "0"])


def test_generated_pictures_differ_and_are_as_large_as_photographs() -> None:
    first, second = generated_picture(0), generated_picture(1)
    assert Image.open(io.BytesIO(first)).size == (667, 500)
    assert first != second
    assert first == generated_picture(0)
    assert 10_000 < len(first) < 60_000


def test_pictures_are_spread_over_classes_and_parts(tmp_path: Path) -> None:
    write_folder(tmp_path, 170)
    classes = {path.name for path in (tmp_path / "train").iterdir()}
    assert len(classes) == 17
    assert classes == {path.name for path in (tmp_path / "val").iterdir()}
    last = tmp_path / "val/class16/0169.jpg"
    assert last.read_bytes() == generated_picture(169)
    assert len([*tmp_path.glob("*/*/*.jpg")]) == 170


def test_the_shim_notes_time_and_memory_and_passes_the_status_on(tmp_path: Path) -> None:
    (folder := tmp_path / "a folder").mkdir()
    write_shim(folder / "python", folder / "log")
    code = "import sys, time; x = bytearray(300_000_000); time.sleep(0.2); sys.exit(7)"
    assert subprocess.run([str(folder / "python"), "-c", code]).returncode == 7
    seconds, peak, *_ = (folder / "log").read_text().split()
    assert 0.2 < float(seconds) < 60
    assert 0.3e9 < int(peak) * UNIT < 0.4e9


def test_a_line_of_the_log_is_a_stage() -> None:
    found = stage_run("1.5 2000 -m stages.features --set a b")
    assert found == StageRun("features", 1.5, 2000 * UNIT / 1e9)


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    assert run((sys.executable, "-c", "print(1)"), tmp_path, {}) == "1\n"
    code = "import sys; print('error: no file'); print('more'); sys.exit(3)"
    with pytest.raises(UserError, match=r"ended with 3: error: no file$"):
        run((sys.executable, "-c", code), tmp_path, {})


def test_a_workspace_is_a_copy_with_sets_and_parameters_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source := tmp_path / "source").mkdir()
    for name in ("params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, source)
    (source / "dvc.lock").write_text("{}")
    run(("git", "init", "--quiet"), source, os.environ)
    monkeypatch.chdir(source)
    made = Workspace(tmp_path, {"some": 5}, {"dropout": 0.5, "features.image_size": 224})
    assert not (made.folder / "dvc.lock").exists()
    assert len([*made.folder.glob("data/sets/some/*/*/*.jpg")]) == 5
    text = (made.folder / "params.yaml").read_text()
    for line in ("dropout: 0.5", "  image_size: 224", "sets:\n- some"):
        assert f"{line}\n" in text
    assert made.run("git", "status", "--porcelain")[1] == ""
    assert (source / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_the_plain_guide_follows_the_recipe() -> None:
    from bench.plain import BATCH, GUIDE_SIZE, guide_network

    guide = recipe("guide")
    model = guide_network(17)
    assert (guide["features.image_size"], guide["head.batch_size"]) == (GUIDE_SIZE, BATCH)
    names = [type(layer).__name__ for layer in model.layers]
    assert names[-3:] == ["GlobalMaxPooling2D", "Dense", "Dense"]
    assert [model.layers[-2].units] == guide["head.hidden"]
    assert guide["dropout"] == 0
    assert len(model.trainable_weights) == 4


def test_the_plain_article_follows_the_recipe(tmp_path: Path) -> None:
    import keras

    from bench.plain import ARTICLE_SIZE, LAST_LAYERS, MOMENTUM, article_network, pictures

    article = recipe("article")
    assert article["features.image_size"] == ARTICLE_SIZE
    assert article["finetune.unfreeze"] == LAST_LAYERS
    assert article["finetune.batch_norm_momentum"] == MOMENTUM
    model = article_network(17)
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert all(each.trainable and each.momentum == MOMENTUM for each in norms)
    below = model.layers[: -LAST_LAYERS - 2]
    assert not any(each.trainable for each in below if each.weights and each not in norms)
    write_folder(tmp_path / "set", 10)
    archive = shutil.make_archive(str(tmp_path / "set"), "gztar", tmp_path / "set")
    classes = [f"class{number:02}" for number in range(17)]
    ((images, labels),) = pictures(Path(archive), "val", classes)
    assert images.shape == (2, ARTICLE_SIZE, ARTICLE_SIZE, 3)
    assert images.dtype == np.float32
    assert labels.tolist() == [4 * 17 // 10, 9 * 17 // 10]


@pytest.mark.soak
def test_the_benchmark_runs(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--short", "--output", output],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = json.loads(output.read_text())["lines"]
    assert {"guide, cold [s]", "guide, cold: head [GB]", "features, mobilenet [images/s]",
            "dvc repro, nothing to do [s]"} <= {each["name"] for each in lines}  # fmt: skip
    assert all(each["median"] > 0 for each in lines)
    peaks = [each["median"] for each in lines if each["name"].endswith("[GB]")]
    assert all(0.01 < peak < 10 for peak in peaks)
