"""The benchmark's statistics by hand-worked numbers, its images, and a tiny run of it."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts import bench_images
from scripts.bench import forward_alone, main, parse, plan_of, read_old
from scripts.bench_images import generated_picture, pictures, unpack, write_archive
from scripts.bench_lines import LINES, STAGES, shares
from scripts.bench_machine import machine_facts, processor_of
from scripts.bench_parts import Scale, recipe, resized_set
from scripts.bench_statistics import (
    Goal,
    Line,
    comparison_table,
    digits,
    goal_table,
    marginal_seconds,
    result_table,
    scaled_seconds,
    spread,
    summarize,
    table,
)
from scripts.bench_workspace import KILOBYTE, StageRun, parse_log, run, write_shim
from stages.common.command_line import UserError
from stages.sources.sets import SETS
from tests.tiny_set import ROOT

RATIO = Line("ratio", "times", "slow", "fast", Goal(4), whole_set=True)


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([5, 1, 3]) == (3, 1, 5)
    assert spread([2.0]) == (2, 2, 2)


def test_epochs_are_scaled_and_the_rest_counted_once() -> None:
    # 30 s: 6 to start, epochs of 14 and 10; the first one built the graph for 4 of its seconds.
    assert scaled_seconds(30, [14, 10], counted=10, images=2) == 6 + 4 + 10 * 2 * 10
    assert scaled_seconds(16, [10], counted=3) == 6 + 30
    # An epoch that took longer than the first one costs no less for it.
    assert scaled_seconds(27, [10, 11], counted=2) == 6 + 22


def test_time_for_a_further_image_is_free_of_the_start() -> None:
    start, each = 7.0, 0.01
    seconds = [start + each * size for size in (1000, 10_000, 100_000)]
    assert marginal_seconds([1000, 10_000, 100_000], seconds) == pytest.approx([each, each])
    assert marginal_seconds([10, 20, 40], [1, 2, 6]) == pytest.approx([0.1, 0.2])


def test_a_ratio_is_taken_within_each_repeat() -> None:
    # Of the medians it would be 30 / 8; of the pairs it is 2, 5 and 3.
    repeats = [{"slow": 10, "fast": 5}, {"slow": 50, "fast": 10}, {"slow": 30, "fast": 10}]
    (entry,) = summarize([RATIO], repeats, whole_set=True)
    assert (entry["median"], entry["least"], entry["greatest"], entry["repeats"]) == (3, 2, 5, 3)
    assert (entry["goal"], entry["verdict"]) == ("at least 4", "missed")


@pytest.mark.parametrize(
    ("goal", "value", "verdict", "text"),
    [
        (Goal(4), 4, "met", "at least 4"),
        (Goal(4), 3.99, "missed", "at least 4"),
        (Goal(high=1.5), 1.5, "met", "at most 1.5"),
        (Goal(high=1.5), 1.51, "missed", "at most 1.5"),
        (Goal(0.9, 1.1), 0.89, "missed", "0.9 to 1.1"),
        (Goal(0.9, 1.1), 1.1, "met", "0.9 to 1.1"),
    ],
)
def test_a_verdict_is_computed(goal: Goal, value: float, verdict: str, text: str) -> None:
    (entry,) = summarize([Line("a", "s", "a", None, goal)], [{"a": value}], whole_set=False)
    assert (entry["verdict"], entry["goal"]) == (verdict, text)


def test_a_part_of_the_set_is_not_held_against_a_goal_for_all_of_it() -> None:
    (entry,) = summarize([RATIO], [{"slow": 8, "fast": 1}], whole_set=False)
    assert entry["median"] == 8
    assert "verdict" not in entry


def test_what_was_not_measured_has_no_line() -> None:
    assert summarize([RATIO], [{"slow": 8}], whole_set=True) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(203.4, "203"), (8.123, "8.12"), (0.85, "0.850"), (12_345.6, "12,346"), (0, "0"),
     (0.0001234, "0.000123"), (62, "62.0")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_columns_are_aligned() -> None:
    assert table([["a", "10", ""], ["long", "2", "x"]]) == "a     10\nlong   2  x"


def test_the_table_names_spread_goal_and_verdict() -> None:
    lines = [RATIO, Line("seconds", "s", "slow")]
    repeats = [{"slow": 10, "fast": 2}, {"slow": 18, "fast": 3}]
    rows = result_table(summarize(lines, repeats, whole_set=True)).splitlines()
    cells = ["5.50", "times", "5.00", "..", "6.00", "at", "least", "4", "met"]
    assert rows[1].split() == ["ratio", *cells]
    assert rows[2].split() == ["seconds", *["14.0", "s", "10.0", "..", "18.0"]]


def test_a_comparison_shows_the_change_and_whether_it_stands_out() -> None:
    def entry(name: str, middle: float, low: float, high: float) -> dict[str, object]:
        return {"name": name, "unit": "s", "median": middle, "least": low, "greatest": high}

    old = [entry("a", 10, 9, 11), entry("b", 10, 9, 11), entry("gone", 1, 1, 1)]
    new = [entry("a", 10.5, 10, 12), entry("b", 5, 4, 6), entry("new", 1, 1, 1)]
    _, first, second = comparison_table(old, new).splitlines()
    assert first.split() == ["a", "10.0", "10.5", "+5.0", "%", "within", "the", "spread"]
    assert second.split() == ["b", "10.0", "5.00", "-50.0", "%"]


def test_names_of_lines_are_unique_by_unit() -> None:
    names = [(line.name, line.unit) for line in LINES]
    assert len(names) == len(set(names))


def test_the_issue_s_goals_are_among_the_lines() -> None:
    goals = {line.name: line.goal.text for line in LINES if line.goal}
    assert goals["guide, cold: pipeline against plain"] == "at least 40"
    assert goals["guide, other dropout: pipeline against plain"] == "at least 120"
    assert goals["guide, other dropout"] == "at most 15"
    assert goals["fine-tuning epoch: pipeline against plain"] == "at least 8"
    assert goals["features vgg19 over forward pass alone"] == "at least 0.85"
    assert goals["features inception_v3 over forward pass alone"] == "at least 0.85"
    assert goals["features mobilenet over forward pass alone"] == "at least 0.7"
    assert goals["two views over one, vgg19"] == "at most 1.9"
    assert goals["dvc repro, nothing to do"] == "at most 2"
    assert goals["evaluate, one set and backbone"] == "at most 1.5"
    assert goals["102 flowers, mobilenet: any stage"] == "at most 2.5"
    assert goals["features: further images, last over first"] == "0.9 to 1.1"
    assert goals["rows logistic head: further images, last over first"] == "0.9 to 1.1"
    assert goals["rows mlp head: most images"] == "at most 2.5"
    assert "rows logistic head: most images" not in goals


def test_shares_are_of_the_whole_process() -> None:
    seconds = {"start-up": 4, "read": 1, "decode": 2, "resize": 1, "wait": 1, "forward": 4}
    measured = {f"part {part} vgg19": value for part, value in (seconds | {"write": 1}).items()}
    _, row, percent, _ = shares(measured | {"whole one vgg19": 10.0}, ["vgg19", "mobilenet"])
    assert row[0] == "vgg19"
    assert percent[1:-1] == ["40%", "10%", "20%", "10%", "10%", "40%", "10%"]
    assert shares({}, ["vgg19"]) == []


def test_the_processor_and_its_instructions_are_named() -> None:
    text = "model name\t: Some Processor\nflags\t\t: fpu avx2 amx_bf16 avx512_bf16x\n"
    found = processor_of(text)
    assert found == {"processor": "Some Processor", "instruction_sets": ["avx2", "amx_bf16"]}
    assert {"cores", "memory_gb", "versions", "load_before"} <= set(machine_facts())


def test_generated_pictures_differ_and_are_as_large_as_photographs() -> None:
    first, second = generated_picture(0), generated_picture(1)
    assert Image.open(io.BytesIO(first)).size == (667, 500)
    assert first != second
    assert first == generated_picture(0)
    assert 20_000 < len(first) < 150_000


def test_an_archive_holds_numbered_pictures_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "17flowers.tgz"
    write_archive(path, "jpg/image_{:04d}.jpg", [b"one", b"two"])
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["jpg/image_0001.jpg", "jpg/image_0002.jpg"]
    assert (tmp_path / "SHA256SUMS").read_text().endswith("  17flowers.tgz\n")
    unpack(path, [("jpg/image_0002.jpg", "lily of the valley", "val")], tmp_path / "out")
    (file,) = (each for each in (tmp_path / "out").rglob("*") if each.is_file())
    assert file.relative_to(tmp_path) == Path("out/val/lily of the valley/image_0002.jpg")
    assert file.read_bytes() == b"two"


def test_pictures_of_a_mirror_are_spread_over_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_set = SETS["flowers17"]
    everything = [str(number).encode() for number in range(1, image_set.images + 1)]
    write_archive(tmp_path / image_set.archive, image_set.image_pattern, everything)
    monkeypatch.setenv("FLOWERS_MIRROR", str(tmp_path))
    chosen, what = pictures("flowers17", 34)
    assert [int(each) for each in chosen] == [1 + 40 * number for number in range(34)]
    assert what == "34 of 1360 pictures of the mirror's 17flowers.tgz"


def test_without_a_mirror_pictures_are_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    monkeypatch.setattr(bench_images, "NEIGHBOUR", tmp_path / "none")
    chosen, what = pictures("flowers17", 2)
    assert [*chosen] == [generated_picture(0), generated_picture(1)]
    assert what.startswith("2 generated pictures")


def test_a_mirror_that_is_no_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_MIRROR", "nowhere")
    with pytest.raises(UserError, match="FLOWERS_MIRROR=nowhere is no folder"):
        bench_images.mirror()


def test_a_set_of_another_size_keeps_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "flowers17", SETS["flowers17"])
    exec(resized_set("flowers17", 170), {"SETS": SETS})
    changed = SETS["flowers17"]
    assert (changed.images, changed.ordered_train) == (170, 8)
    assert [file.name for file in changed.files] == ["17flowers.tgz"]
    with pytest.raises(UserError, match="171 images of flowers17 are no multiple of 17"):
        resized_set("flowers17", 171)
    with pytest.raises(UserError, match="34 images"):
        resized_set("flowers17", 34)


def test_the_log_of_stages_is_read() -> None:
    log = "1.5 2000 -m stages.features --set a\n0.5 10 -c pass\n2.5 10 -m stages.head --set a\n"
    assert parse_log(log) == [
        StageRun("features", 1.5, 2000 * KILOBYTE),
        StageRun("head", 2.5, 10 * KILOBYTE),
    ]


def test_the_shim_notes_time_and_memory_and_passes_the_status_on(tmp_path: Path) -> None:
    write_shim(tmp_path / "bin", tmp_path / "log")
    code = "import sys, time; x = bytearray(300_000_000); time.sleep(0.2); sys.exit(7)"
    command = [str(tmp_path / "bin/python"), "-c", code]
    assert subprocess.run(command, check=False).returncode == 7
    seconds, peak, *_ = (tmp_path / "log").read_text().split()
    assert 0.2 < float(seconds) < 60
    assert 0.3e9 < int(peak) * KILOBYTE < 0.4e9


def test_a_command_is_measured_and_a_failure_is_one_line(tmp_path: Path) -> None:
    (folder := tmp_path / "repository").mkdir()
    done = run((sys.executable, "-c", "print('x'); print('[1, 2]')"), folder, {})
    assert done.result() == [1, 2]
    assert done.seconds > 0
    code = "import sys; print('error: no file'); print('more'); sys.exit(3)"
    with pytest.raises(UserError, match=r"status 3: error: no file$"):
        run((sys.executable, "-c", code), folder, {})


def test_goals_are_a_table_in_markdown() -> None:
    lines = [RATIO, Line("fast", "s", "fast")]
    entries = summarize(lines, [{"slow": 10, "fast": 2}, {"slow": 18, "fast": 3}], whole_set=True)
    row = "| ratio | at least 4 | 5.50 times (5.00 to 6.00) | met |"
    assert goal_table(entries).splitlines()[2:] == [row]
    assert goal_table(entries[1:]) == ""


def test_the_limit_of_the_guide_is_its_forward_pass_alone() -> None:
    repeat = {"plain guide": 2000.0, "guide cold": 200.0, "forward vgg19": 10.0}
    repeat |= forward_alone(repeat, 1000)
    found = {each["name"]: each["median"] for each in summarize(LINES, [repeat], whole_set=True)}
    assert found["limit: guide, cold, were it the forward pass alone"] == 20
    assert found["guide, cold: share of that limit"] == 0.5
    assert forward_alone({"guide cold": 1.0}, 1000) == {}


def test_options_change_the_plan() -> None:
    assert plan_of(parse([])).images == 1360
    plan = plan_of(parse(["--short", "--repeats", "4", "--backbones", "vgg19"]))
    assert (plan.repeats, plan.backbones, plan.images) == (4, ("vgg19",), 170)
    with pytest.raises(UserError, match="no part 'all'"):
        parse(["--only", "all"])


def test_a_result_to_compare_with_is_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no result of an earlier run"):
        read_old(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    started = time.monotonic()
    with pytest.raises(UserError, match="is no result of an earlier run"):
        main(["--compare", str(tmp_path / "other.json")])
    assert time.monotonic() - started < 1


def test_the_plain_guide_follows_the_recipe() -> None:
    from scripts.plain_guide import BATCH, SIZE, classifier

    guide = recipe("guide-dropout")
    model = classifier(17, guide["dropout"], None)
    assert (guide["features.image_size"], guide["head.batch_size"]) == (SIZE, BATCH)
    names = [type(layer).__name__ for layer in model.layers]
    assert names[-4:] == ["GlobalMaxPooling2D", "Dense", "Dropout", "Dense"]
    assert [model.layers[-3].units] == guide["head.hidden"]
    assert model.layers[-2].rate == 0.3
    assert len(model.trainable_weights) == 4


def test_the_plain_article_follows_the_recipe(tmp_path: Path) -> None:
    from scripts.plain_article import LAST_LAYERS, MOMENTUM, SIZE, classifier, pictures
    from stages.networks.keras_quiet import keras

    article = recipe("article")
    assert article["features.image_size"] == SIZE
    assert article["finetune.unfreeze"] == LAST_LAYERS
    assert article["finetune.batch_norm_momentum"] == MOMENTUM
    model = classifier(17, None)
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert all(each.trainable and each.momentum == MOMENTUM for each in norms)
    below = model.layers[: -LAST_LAYERS - 2]
    assert not any(each.trainable for each in below if each.weights and each not in norms)
    path = tmp_path / "a.tgz"
    write_archive(path, "{}.jpg", map(generated_picture, range(3)))
    ((images, labels),) = pictures(path, {"3.jpg": 1, "1.jpg": 0})
    assert images.shape == (2, SIZE, SIZE, 3)
    assert images.dtype == np.float32
    assert labels.tolist() == [0, 1]


@pytest.mark.soak
def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_MIRROR", str(tmp_path))  # Empty: pictures are generated.
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench", "--short", "--images", "119", "--output", output],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    names = {each["name"] for each in result["lines"]}
    assert {"guide, cold", "dvc repro, nothing to do", "limit: decoding to 224 px"} <= names
    assert "119 generated pictures" in done.stdout
    for entry in result["lines"]:
        assert entry["median"] > 0, entry
    peaks = [each["median"] for each in result["lines"] if each["unit"] == "GB"]
    assert len(peaks) == len(STAGES)
    assert all(0.03 < peak < 10 for peak in peaks)


def test_small_sets_run_in_turn_with_the_large_one_and_nothing_is_known(tmp_path: Path) -> None:
    ran = []

    def workspace(name: str) -> Any:
        kept = tmp_path / name / "data/kept"

        def python(word: str) -> str:
            assert not kept.exists()
            kept.mkdir(parents=True)
            ran.append(name)
            return f"{name} {word}"

        return SimpleNamespace(folder=tmp_path / name, python=python)

    scale = Scale.__new__(Scale)
    scale.workspaces = [workspace(name) for name in "abc"]
    done: Any = scale.run_in_turn([["x"], ["y"], ["z"]])
    assert "".join(ran) == "ababcabab"
    assert done == [["a x"] * 4, ["b y"] * 4, ["c z"]]
