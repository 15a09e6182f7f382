import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.networks.model_files import load_model
from tests.tiny_set import Stages
from tools import export
from tools.export import FORMATS, agreement, check, choose_output, main, megabytes

MODEL = Path("models/tiny/demo_backbone")


@pytest.fixture
def folder(stages: Stages) -> Path:
    """The folder of a trained model, where the set's table and split are."""
    return stages.folder / MODEL


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", [*FORMATS])
def test_what_is_exported_gives_the_probabilities_of_the_model(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In batches of other sizes than it was checked with, too."""
    if name == "onnx":
        pytest.importorskip("tf2onnx", reason="needs `make onnx`")
    main([str(folder), "--format", name])
    printed = capfd.readouterr()
    assert "first 6 pictures of val of tiny" in printed.out
    assert "same top-1 100.00%" in printed.out
    assert "INFO" not in printed.err
    assert "arning" not in printed.err
    images = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3)).astype(np.float32)
    predict = FORMATS[name].load(folder / f"finetuned{FORMATS[name].ending}")
    wanted = load_model(folder / "finetuned.keras").predict_on_batch(images)
    for batch in (images, images[:2]):
        np.testing.assert_allclose(predict(batch), wanted[: len(batch)], atol=1e-5)
    labels = [path for path in listing(folder) if path.name.endswith(".labels.txt")]
    assert [path.read_text("utf-8") for path in labels] == ["red\ngreen\nblue's\n"]


def test_a_class_is_one_line_of_the_labels() -> None:
    labels = ["a\nb", "c\u2028d\x85", "e\r\nf", "g h"]
    assert export.one_a_line(labels) == "a b\nc d\ne f\ng h\n"


def test_the_head_alone_goes_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    output = tmp_path / "new/rose.tflite"
    main([str(folder / "head.keras"), "--format", "tflite", "--output", str(output)])
    assert listing(output.parent) == {output, output.with_name("rose.labels.txt")}
    assert listing(folder) == before


@pytest.mark.parametrize("lost", ["data/raw/tiny/pictures.csv", "data/splits/tiny.csv"])
def test_without_the_table_or_split_it_is_checked_on_drawn_flowers(
    stages: Stages, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PICTURES", 4)
    (stages.folder / lost).unlink()
    images, description = export.pictures_for(stages.folder / MODEL / "head.keras", 32)
    assert description.startswith("4 drawn flowers")
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images, axis=0)) == 4


def test_a_model_of_no_set_is_checked_on_drawn_flowers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PICTURES", 2)
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "head.keras", "mine.keras")
    assert export.pictures_for(Path("mine.keras"), 32)[1].startswith("2 drawn flowers")


def test_where_the_two_disagree_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_wrong(path: Path) -> export.Predict:
        predict = FORMATS["tflite"].load(path)
        return lambda images: np.roll(predict(images), 1, axis=1)

    before = listing(folder)
    wrong = replace(FORMATS["tflite"], load=load_wrong)
    monkeypatch.setattr(export, "FORMATS", {"tflite": wrong})
    with pytest.raises(UserError, match=r"finetuned\.tflite is not written: .* the same for 0\.0%"):
        main([str(folder), "--format", "tflite"])
    assert listing(folder) == before


def test_a_converter_that_fails_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(model: Any, path: Path) -> None:  # noqa: ARG001
        path.write_text("half")
        raise RuntimeError("no such operation\nand a long story")

    before = listing(folder)
    monkeypatch.setattr(export, "FORMATS", {"tflite": replace(FORMATS["tflite"], convert=convert)})
    with pytest.raises(
        UserError, match=r"cannot be converted to tflite \(no such operation\); try"
    ):
        main([str(folder), "--format", "tflite"])
    assert listing(folder) == before


def test_a_wrong_option_names_the_help_and_not_params_yaml(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no format 'tfl'; .* \(see `python -m tools\.export --h"):
        main([str(folder), "--format", "tfl"])


def test_without_onnx_one_line_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime.*, not installed here; .*make onnx"):
        main([str(folder), "--format", "onnx"])


def test_the_agreement_by_hand() -> None:
    original = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]], np.float32)
    exported = np.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], np.float32)
    assert agreement(original, exported) == pytest.approx((0.1, 0.75))


@pytest.mark.parametrize(
    ("difference", "same"), [(0.011, 1.0), (0.0, 0.994), (float("nan"), 1.0), (1.0, 0.0)]
)
def test_a_disagreement_is_an_error(difference: float, same: float) -> None:
    with pytest.raises(UserError, match="is not written"):
        check(difference, same, Path("a.onnx"))


def test_a_small_difference_passes() -> None:
    check(0.009, 0.995, Path("a.onnx"))


def test_an_output_that_may_be_something_else_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "head.keras"
    model.touch()
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "c.tflite").mkdir()
    for name, output, reason in (
        ("tflite", model, "is to end in .tflite"),
        ("saved_model", model, "is there and no saved_model"),
        ("saved_model", mine, "folder of something else"),
        ("tflite", tmp_path / "c.tflite", "is there and no tflite"),
    ):
        with pytest.raises(UserError, match=reason):
            choose_output(output, model, name)


def test_an_export_of_before_is_replaced(tmp_path: Path) -> None:
    model, output = tmp_path / "head.keras", tmp_path / "head_saved_model"
    output.mkdir()
    (output / "saved_model.pb").touch()
    (tmp_path / "head.onnx").touch()
    assert choose_output(None, model, "saved_model") == output
    assert choose_output(None, model, "onnx") == tmp_path / "head.onnx"


def test_megabytes_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(bytes(500_000))
    (tmp_path / "in/b").write_bytes(bytes(250_000))
    assert megabytes(tmp_path) == 0.75
    assert megabytes(tmp_path / "a") == 0.5
