import csv
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from stages import report
from stages.common.command_line import UserError
from stages.pictures.table import PictureTable
from stages.pictures.table import write_table as write_picture_table
from stages.reporting.charts import class_orders, line_chart, round_ticks
from stages.reporting.page import picture_name, thumb_name
from stages.reporting.tables import (
    Prediction,
    compare_with_best,
    confident_mistakes,
    count_confusions,
    describe_comparison,
    find_confusions,
    find_reservations,
    group_parameters,
    most_uncertain,
    sample_classes,
    sample_right,
    sort_classes,
)

CLASSES = ["colt's foot", "iris", "<b>rose"]
PREDICTIONS = [
    ("jpg/image_0001.jpg", "iris", "iris", 0.9, 0.9),
    ("jpg/image_0002.jpg", "iris", "<b>rose", 0.8, 0.15),
    ("jpg/image_0003.jpg", "iris", "<b>rose", 0.6, 0.3),
    ("jpg/image_0004.jpg", "colt's foot", "colt's foot", 0.7, 0.7),
    ("jpg/image_0005.jpg", "<b>rose", "colt's foot", 0.95, 0.012),
]
HISTORY = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
CLASS_COLUMNS = [
    "class",
    "images",
    "head_recall",
    "head_precision",
    "finetuned_recall",
    "finetuned_precision",
]
COMPARISON = {"gain": 0.2, "only_head_right": 1, "only_finetuned_right": 2, "p_value": 0.728}
DUPLICATE_COLUMNS = ["image", "class", "group", "kind", "partner", "distance"]
PARAMS = """
dropout: 0.3
sets: [demo]
backbones: [mobilenet]
head: {hidden: [], optimizer: "adam<1>"}
"""


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def scores(**changed: float) -> dict[str, Any]:
    given: dict[str, Any] = {
        "accuracy": 0.4,
        "accuracy_low": 0.117621,
        "accuracy_high": 0.769276,
        "mean_class_accuracy": 0.444444,
        "mean_class_accuracy_low": 0.333333,
        "mean_class_accuracy_high": 0.666667,
        "top5_accuracy": 1.0,
        "log_loss": 1.25,
        "calibration_error": 0.3,
    }
    return {**given, "images": 5, "part": "val", "protocol": "stratified"} | changed


def summary(weights: str = "keras", images: str = "published") -> dict[str, Any]:
    files = {"demo.tgz": {"from": "somewhere", "sha256": "ab" * 32, "published": True}}
    return {
        "classes": CLASSES,
        "images": {"source": images, "files": files, "missing": []},
        "weights": {"source": weights},
        "features": {"image_size": 224, "views": ["plain", "mirror"]},
        "metrics": {
            "head": scores(),
            "finetuned": scores(accuracy=0.612345, log_loss=0.875),
            "comparison": COMPARISON,
        },
    }


def inspection(**changed: Any) -> dict[str, Any]:
    predictions = [
        {"class": "shower curtain", "probability": 0.83},
        {"class": "daisy", "probability": 0.912},
    ]
    picture = {"image": "jpg/image_0001.jpg", "class": "iris", "file": "picture_00.jpg"}
    plausible = {"class": "iris", "imagenet": "daisy", "images": 8, "plain": 1, "preprocessed": 7}
    given = {
        "image_size": 32,
        "crop": "center",
        "values": {"low": -1.0, "high": 1.0, "mean": -0.25, "counts": [1, 4, 2]},
        "classifier": "",
        "classifier_size": 24,
        "pictures": [picture | {"predictions": predictions}],
        "plausible": [plausible],
        "views": [{"name": "top_left", "file": "view_top_left.jpg"}],
        "augmented": ["augmented_0.jpg"],
    }
    return given | changed


def write_inspection(folder: Path, **changed: Any) -> None:
    facts = inspection(**changed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "facts.json").write_text(json.dumps(facts), "utf-8")
    for name in ("picture_00.jpg", "view_top_left.jpg", "augmented_0.jpg"):
        Image.new("RGB", (32, 32), (200, 90, 160)).save(folder / name)


EXPLAINED = {
    "image": "jpg/image_0005.jpg",
    "truth": "<b>rose",
    "prediction": "iris",
    "probability": 0.95,
    "truth_probability": 0.01,
    "files": ["0.jpg", "0_prediction.jpg", "0_truth.jpg"],
}


def write_explanation(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "facts.json").write_text(json.dumps([EXPLAINED]), "utf-8")
    for name in ("0.jpg", "0_prediction.jpg", "0_truth.jpg"):
        Image.new("RGB", (32, 32), (90, 200, 160)).save(folder / name)


def write_run(folder: Path, backbone: str = "mobilenet", **sources: str) -> None:
    metrics, run = folder / "metrics", f"demo-{backbone}"
    (metrics / "summary").mkdir(parents=True, exist_ok=True)
    (metrics / f"summary/{run}.json").write_text(json.dumps(summary(**sources)), "utf-8")
    for model in ("head", "finetuned"):
        write_table(
            metrics / f"predictions/{run}-{model}.csv",
            ["image", "truth", "prediction", "probability", "truth_probability"],
            PREDICTIONS,
        )
        write_table(
            metrics / f"history/{run}-{model}.csv",
            HISTORY,
            [(1, 0.25, 2.0, 0.5, 1.5), (2, 0.75, 1.0, 0.625, 1.25)],
        )
        write_table(
            metrics / f"reliability/{run}-{model}.csv",
            ["confidence", "accuracy", "images"],
            [(0.65, 0.5, 2), (0.883333, 0.333333, 3)],
        )
    write_inspection(metrics / f"inspect/{run}")
    write_explanation(metrics / f"explain/{run}")
    write_table(
        metrics / f"classes/{run}.csv",
        CLASS_COLUMNS,
        [("colt's foot", 1, 1.0, 0.5, 1.0, 0.5), ("iris", 3, 0.123, 1.0, 0.333333, "")],
    )


def write_pictures(folder: Path, names: Sequence[str], contents: bytes | None = None) -> None:
    """Write the archive of the set `demo`, and the table of the pictures `names` in it."""
    path = folder / "data/raw/demo/demo.tgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    digests = []
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", (90, 60), (40 * number, 90, 160)).save(buffer, "JPEG")
            data = buffer.getvalue() if contents is None else contents
            digests.append(hashlib.sha256(data).hexdigest())
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    labels = np.zeros(len(names), int)
    archives = ["data/raw/demo/demo.tgz"] * len(names)
    pictures = PictureTable(names, labels, ["iris"], digests, archives)
    write_picture_table(path.with_name("pictures.csv"), pictures)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with one run in it, made the working directory."""
    (tmp_path / "params.yaml").write_text(PARAMS, "utf-8")
    write_run(tmp_path)
    write_table(tmp_path / "data/duplicates/demo.csv", DUPLICATE_COLUMNS, [])
    write_table(
        tmp_path / "metrics/survey/demo.csv",
        ["image", "class", "width", "height", "damaged"],
        [
            ("a", "iris", 90, 60, ""),
            ("b", "iris", "", "", ""),
            ("c", "<b>rose", 300, 70, "its end is missing"),
        ],
    )
    write_table(
        tmp_path / "data/splits/demo.csv",
        ["image", "class", "part"],
        [("a", "iris", "train"), ("b", "iris", "train"), ("c", "<b>rose", "val")],
    )
    write_pictures(tmp_path, [row[0] for row in PREDICTIONS])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_page(folder: Path) -> str:
    report.main([])
    return (folder / "metrics/report/index.html").read_text("utf-8")


class Elements(HTMLParser):
    """Every element's name and attributes, and the page's text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_files_that_the_source_lacks_are_named(folder: Path) -> None:
    text = write_page(folder)
    assert "it lacks" not in text
    path = folder / "metrics/summary/demo-mobilenet.json"
    given = summary(images="mirror")
    given["images"]["missing"] = ["datasplits.mat"]
    path.write_text(json.dumps(given), "utf-8")
    text = write_page(folder)
    assert "images.files that it lacks" in text
    assert "datasplits.mat" in text


def test_the_page_shows_results_parameters_and_provenance(folder: Path) -> None:
    text = " ".join(Elements(write_page(folder)).text.split())
    wilson, bootstrap = "0.118\N{EN DASH}0.769", "0.333\N{EN DASH}0.667"
    assert (
        f"mobilenet head 0.4000 {wilson} 0.4444 {bootstrap} 1.0000 1.2500 0.3000 5 val stratified"
        in text
    )
    assert (
        f"fine-tuned 0.6123 {wilson} +0.2123 0.4444 {bootstrap} +0.0000 1.0000 +0.0000 "
        "0.8750 \N{MINUS SIGN}0.3750" in text
    )
    assert (
        "Fine-tuning gains 0.2000 in accuracy. Images right with the head alone: 1, "
        "with the fine-tuned model alone: 2. If neither were better, a difference like this would "
        "come up in 72.8 % of cases (McNemar's test), so it may be chance." in text
    )
    assert "dropout 0.3" in text
    assert "hidden []" in text
    assert "features.views plain, mirror" in text
    assert "demo.tgz somewhere yes " + "ab" * 32 in text


def test_the_page_shows_curves_confusions_classes_and_predictions(folder: Path) -> None:
    text = " ".join(Elements(write_page(folder)).text.split())
    assert "train 0.750 validation 0.625 after 2 epochs" in text
    assert "train 1.000 validation 1.250 after 2 epochs" in text
    assert "iris taken for <b>rose: 2 of 3" in text
    assert "iris: 1 of 3 right" in text
    assert "Truth Taken for Images iris <b>rose 2 of 3 <b>rose colt's foot 1 of 1" in text
    assert "3 images stated at 0.883: 0.333 right" in text
    assert "iris 3 0.123 0.333 1.000 \N{EN DASH}" in text
    assert "predicted colt's foot 95.0 % truth <b>rose 1.2 %" in text


def test_the_page_shows_the_set_and_what_the_network_sees(folder: Path) -> None:
    text = " ".join(Elements(write_page(folder)).text.split())
    assert "Images 3, of 2 classes train 2 val 1 Width 90 to 300 px, median 195" in text
    assert (
        "Height 60 to 70 px, median 65 Duplicates none Unreadable 1: b Damaged, but read 1: c"
        in text
    )
    assert "Class train val <b>rose 0 1 iris 2 0" in text
    assert "as they reach mobilenet: 32 \N{MULTIPLICATION SIGN} 32 px" in text
    assert "iris as it is shower curtain 83 % preprocessed daisy 91 %" in text
    assert "Of the 8 images of class iris, 1 are called daisy without preprocessing, 7 with" in text
    assert "-1 1 mean -0.25 of the 1 pictures above View of the first picture top left" in text


def test_the_page_shows_where_the_model_looks(folder: Path) -> None:
    text = " ".join(Elements(write_page(folder)).text.split())
    assert "the picture for iris for <b>rose iris 95.0 %, truth <b>rose" in text
    (folder / "metrics/explain/demo-mobilenet/facts.json").write_text("[]", "utf-8")
    assert "Where the model looks" not in write_page(folder)


def test_the_page_says_why_there_is_no_classifier(folder: Path) -> None:
    picture = inspection()["pictures"][0] | {"predictions": []}
    changed = {"classifier": "its weights are random", "pictures": [picture], "plausible": []}
    write_inspection(folder / "metrics/inspect/demo-mobilenet", **changed, augmented=[])
    text = " ".join(Elements(write_page(folder)).text.split())
    assert "What the untouched network would call them is not known: its weights are rand" in text
    assert "preprocessed" not in text
    assert "Random crops" not in text


def test_a_history_without_validation_shows_training_alone(folder: Path) -> None:
    for model in ("head", "finetuned"):
        path = folder / f"metrics/history/demo-mobilenet-{model}.csv"
        write_table(path, HISTORY, [(1, 0.25, 2.0, "", ""), (2, 0.75, 1.0, "", "")])
    page = write_page(folder)
    text = " ".join(Elements(page).text.split())
    assert "train 0.750 after 2 epochs" in text
    assert "train 1.000 after 2 epochs" in text
    assert 'class="validation"' not in page


def test_text_from_outside_is_escaped(folder: Path) -> None:
    page = write_page(folder)
    assert "<b>rose" not in page
    assert "&lt;b&gt;rose" in page
    assert "adam<1>" not in page


def test_every_picture_is_there_and_described(folder: Path) -> None:
    report_folder = folder / "metrics/report"
    pictures = Elements(write_page(folder)).all("img")
    # Twice, being right or mistaken and uncertain, and once in the table of classes, which lacks
    # a row of <b>rose; three of what the network sees and three of where the model looks.
    assert len(pictures) == 2 * len(PREDICTIONS) + 4 + 3 + 3
    for each in pictures:
        assert each["alt"]
        folder_name = Path(str(each["src"])).parts[1]
        side = {"large": 240, "small": 96, "inspect": 32, "explain": 32}[folder_name]
        with Image.open(report_folder / str(each["src"])) as image:
            assert (image.format, image.size) == ("JPEG", (side, side))
    written = {path.relative_to(report_folder).as_posix() for path in report_folder.rglob("*.jpg")}
    shown = {str(each["src"]) for each in pictures}
    assert written - shown == {thumb_name("demo", "jpg/image_0005.jpg")}


def test_pictures_that_differ_by_folder_ending_or_set_alone_have_names_of_their_own() -> None:
    images = [("a", "cat/1.jpg"), ("a", "dog/1.jpg"), ("a", "dog/1.png"), ("a-b", "1.jpg")]
    images += [("a", "b-1.jpg"), ("a", "100 %#?.jpg")]
    names = [name(*each) for name in (picture_name, thumb_name) for each in images]
    assert len({*names}) == len(names)
    assert all(re.fullmatch(r"[\w/.-]+\.jpg", name) for name in names)


def test_the_page_needs_no_network_and_its_links_lead_somewhere(folder: Path) -> None:
    page = write_page(folder)
    elements = Elements(page).found
    names = {attributes.get("id") for _, attributes in elements}
    links = {attributes["href"] for tag, attributes in elements if tag == "a"}
    assert links == {"#demo-mobilenet"}
    assert "demo-mobilenet" in names
    assert "://" not in page
    assert not [tag for tag, _ in elements if tag in ("iframe", "object", "embed")]
    scripts = [attributes for tag, attributes in elements if tag == "script"]
    assert scripts == [{}]


def test_a_second_run_gives_the_same_bytes(folder: Path) -> None:
    def contents() -> dict[str, bytes]:
        report.main([])
        files = sorted((folder / "metrics/report").rglob("*.*"))
        return {str(path): path.read_bytes() for path in files}

    assert contents() == contents()


@pytest.mark.parametrize(
    ("sources", "marks"),
    [
        ({}, []),
        ({"weights": "demo"}, []),
        ({"weights": "random"}, ["random weights"]),
        ({"images": "mirror"}, ["mirror images"]),
        ({"images": "generated", "weights": "random"}, ["generated images", "random weights"]),
    ],
)
def test_random_weights_and_other_images_are_marked(
    folder: Path, sources: dict[str, str], marks: list[str]
) -> None:
    write_run(folder, **sources)
    text = Elements(write_page(folder)).text
    assert [mark for mark, _ in find_reservations(summary(**sources))] == marks
    assert ("Before you quote" in text) == bool(marks)
    for mark in marks:
        # Beside the results, above the run, and explained in the notice.
        assert text.count(mark) == 2
        assert f"{mark.capitalize()} (demo, mobilenet)" in text


def test_duplicates_are_shown_those_of_two_classes_first(folder: Path) -> None:
    assert "None were found." in write_page(folder)
    names = [f"jpg/image_{number:04}.jpg" for number in (10, 11, 12, 13)]
    write_pictures(folder, [row[0] for row in PREDICTIONS] + names)
    write_table(
        folder / "data/duplicates/demo.csv",
        DUPLICATE_COLUMNS,
        [
            (names[0], "iris", 10, "exact", names[2], 0),
            (names[2], "iris", 10, "exact", names[0], 0),
            (names[1], "iris", 11, "near", names[3], 1),
            (names[3], "<b>rose", 11, "near", names[1], 1),
        ],
    )
    page = write_page(folder)
    text = " ".join(Elements(page).text.split())
    mixed = f"{names[1]} {names[3]} iris <b>rose near, 1 bit near, 1 bit"
    same = f"{names[0]} {names[2]} iris exact exact"
    assert f"{mixed} {same}" in text
    assert "<b>rose" not in page
    shown = [str(each["src"]) for each in Elements(page).all("img")]
    assert shown[-4:] == [
        thumb_name("demo", f"jpg/image_00{number}.jpg") for number in (11, 13, 10, 12)
    ]
    assert all((folder / "metrics/report" / each).exists() for each in shown)


def test_only_the_runs_of_the_parameters_are_shown(folder: Path) -> None:
    write_run(folder, "vgg19")
    assert "vgg19" not in write_page(folder)
    text = "sets: [demo]\nbackbones: [mobilenet, vgg19]\n"
    (folder / "params.yaml").write_text(text, "utf-8")
    page = write_page(folder)
    assert 'id="demo-mobilenet"' in page
    assert 'id="demo-vgg19"' in page


def test_a_history_without_epochs_is_said_to_be_one(folder: Path) -> None:
    assert "Trained for no epoch" not in write_page(folder)
    write_table(folder / "metrics/history/demo-mobilenet-finetuned.csv", HISTORY, [])
    assert write_page(folder).count("Trained for no epoch") == 1


def test_a_history_of_one_entry_is_told_in_words(folder: Path) -> None:
    path = folder / "metrics/history/demo-mobilenet-head.csv"
    write_table(path, HISTORY, [[1, 1, 0.0084, 0.9669, 0.1022]])
    page = write_page(folder)
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Accuracy 1.000 on train, 0.967 on validation" in text
    assert "Loss 0.008 on train, 0.102 on validation" in text
    assert page.count('aria-label="Accuracy of the') == 1
    write_table(path, HISTORY, [[1, 1, 0.0084, "", ""]])
    text = " ".join(re.sub("<[^>]*>", " ", write_page(folder)).split())
    assert "Accuracy 1.000 on train Loss 0.008 on train Reliability" in text


def test_no_mistakes_and_nothing_right_are_said(folder: Path) -> None:
    path = folder / "metrics/predictions/demo-mobilenet-finetuned.csv"
    columns = ["image", "truth", "prediction", "probability", "truth_probability"]
    write_table(path, columns, PREDICTIONS[:1])
    page = write_page(folder)
    assert "The fine-tuned model made no mistake." in page
    assert "No image was taken for another class." in page
    write_table(path, columns, PREDICTIONS[1:2])
    assert "The fine-tuned model had nothing right." in write_page(folder)


@pytest.mark.parametrize(
    "name",
    [
        "metrics/summary/demo-mobilenet.json",
        "metrics/history/demo-mobilenet-finetuned.csv",
        "metrics/predictions/demo-mobilenet-head.csv",
        "metrics/classes/demo-mobilenet.csv",
        "metrics/reliability/demo-mobilenet-head.csv",
        "metrics/inspect/demo-mobilenet/facts.json",
        "metrics/inspect/demo-mobilenet/view_top_left.jpg",
        "metrics/explain/demo-mobilenet/facts.json",
        "metrics/explain/demo-mobilenet/0_truth.jpg",
        "metrics/survey/demo.csv",
        "data/splits/demo.csv",
        "data/duplicates/demo.csv",
        "data/raw/demo/pictures.csv",
    ],
)
def test_a_missing_file_is_named_and_the_old_report_stays(folder: Path, name: str) -> None:
    page = write_page(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"^{name} is missing; run `dvc repro`$"):
        report.main([])
    assert (folder / "metrics/report/index.html").read_text("utf-8") == page


def test_a_run_that_was_not_made_is_named(folder: Path) -> None:
    (folder / "params.yaml").write_text("sets: [demo]\nbackbones: [vgg19]\n", "utf-8")
    with pytest.raises(UserError, match=r"metrics/summary/demo-vgg19\.json is missing"):
        report.main([])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics/summary/demo-mobilenet.json", "<<<<<<< ours"),
        ("metrics/summary/demo-mobilenet.json", "{}"),
        ("metrics/history/demo-mobilenet-head.csv", "epoch\n1\n"),
        (
            "metrics/predictions/demo-mobilenet-head.csv",
            "image,truth,prediction,probability,truth_probability\na,iris,oak,0.5,0.5\n",
        ),
        ("metrics/classes/demo-mobilenet.csv", "class,images\niris,many\n"),
        ("metrics/reliability/demo-mobilenet-head.csv", "confidence\n0.5\n"),
        ("metrics/inspect/demo-mobilenet/facts.json", "{}"),
        ("metrics/explain/demo-mobilenet/facts.json", '{"image": 1}'),
        ("metrics/survey/demo.csv", "image,width\na,wide\n"),
        ("data/duplicates/demo.csv", "image,class,group\na,iris,first\n"),
    ],
)
def test_a_broken_file_is_named_in_one_line(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=f"^{name} cannot be used .*; delete it and run") as caught:
        report.main([])
    assert "\n" not in str(caught.value)


def test_files_of_another_version_are_one_line(folder: Path) -> None:
    page = write_page(folder)
    path = folder / "metrics/inspect/demo-mobilenet/facts.json"
    given = {name: value for name, value in inspection().items() if name != "crop"}
    path.write_text(json.dumps(given), "utf-8")
    with pytest.raises(UserError, match=r"^a file below metrics/ .*'crop'\); run `dvc repro`$"):
        report.main([])
    assert (folder / "metrics/report/index.html").read_text("utf-8") == page


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("sets: demo\nbackbones: [a]", 'params.yaml has sets: "demo", which is no list'),
        ("sets:\nbackbones: [a]", "params.yaml has nothing in sets"),
        ("sets: [[demo]]\nbackbones: [a]", r'params.yaml has \["demo"\] in sets, which is no text'),
        ("sets: [demo]\nbackbones: []", "params.yaml has nothing in backbones"),
        (
            "sets: [demo]\nown: [roses]\nbackbones: [a]",
            "params.yaml has 'own', which nothing reads",
        ),
        ("- demo", "params.yaml is no list of"),
        ("sets: [demo", "params.yaml is not valid YAML"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(folder: Path, params: str, message: str) -> None:
    (folder / "params.yaml").write_text(params, "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        report.main([])
    assert "\n" not in str(caught.value)


def test_missing_parameters_are_named(folder: Path) -> None:
    (folder / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"^params\.yaml is missing"):
        report.main([])


def test_a_picture_that_cannot_be_read_is_named(folder: Path) -> None:
    write_pictures(folder, [row[0] for row in PREDICTIONS], b"")
    with pytest.raises(UserError, match=r"jpg/image_0001\.jpg of the set demo is no readable"):
        report.main([])


def test_an_archive_without_a_picture_is_named(folder: Path) -> None:
    table = (folder / "data/raw/demo/pictures.csv").read_bytes()
    write_pictures(folder, ["jpg/image_0001.jpg"])
    (folder / "data/raw/demo/pictures.csv").write_bytes(table)
    with pytest.raises(UserError, match=r"demo\.tgz lacks jpg/image_0002\.jpg"):
        report.main([])


def test_the_stage_does_not_load_tensorflow() -> None:
    code = "import sys, stages.report; print([n for n in ('tensorflow', 'keras', 'sklearn', "
    code += "'matplotlib') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def make_predictions(*rows: tuple[str, str, str, float]) -> list[Prediction]:
    return [Prediction(*row, truth_probability=0.1) for row in rows]


def test_confusions_are_counted_by_truth_and_prediction() -> None:
    matrix = count_confusions([Prediction(*row) for row in PREDICTIONS], CLASSES)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 2], [1, 0, 0]]


def test_confusions_are_ordered_by_count_then_share() -> None:
    matrix = np.array([[5, 1, 0], [2, 7, 1], [1, 0, 1]])
    found = find_confusions(matrix, ["a", "b", "c"])
    assert [each[:4] for each in found if not each.right][:3] == [
        ("b", "a", 2, 10),
        ("c", "a", 1, 2),
        ("a", "b", 1, 6),
    ]
    assert found[0] == ("b", "b", 7, 10, 1, 1)
    right = find_confusions(np.diag([3, 2, 0]), ["a", "b", "c"])
    assert [each.truth for each in right if each.right] == ["a", "b"]
    assert len(right) == 2


def test_confident_mistakes_are_wrong_and_ordered() -> None:
    given = make_predictions(
        ("4", "a", "b", 0.5), ("3", "a", "b", 0.9), ("2", "a", "a", 0.99), ("1", "b", "a", 0.9)
    )
    assert [each.image for each in confident_mistakes(given)] == ["1", "3", "4"]
    assert [each.image for each in confident_mistakes(given, most=1)] == ["1"]


def test_uncertain_predictions_are_the_least_likely_ones() -> None:
    given = make_predictions(
        ("3", "a", "b", 0.5), ("2", "a", "a", 0.3), ("1", "a", "a", 0.5), ("0", "a", "b", 0.9)
    )
    assert [each.image for each in most_uncertain(given, most=3)] == ["2", "1", "3"]


def test_a_class_is_shown_by_one_right_picture_and_the_two_surest_mistakes() -> None:
    given = make_predictions(
        ("1", "a", "a", 0.9), ("2", "a", "a", 0.9), ("3", "a", "b", 0.5), ("4", "a", "c", 0.7),
        ("5", "a", "b", 0.6), ("6", "b", "a", 0.6), ("7", "c", "c", 0.6),
    )  # fmt: skip
    shown = {
        name: [each.image for each in samples] for name, samples in sample_classes(given).items()
    }
    assert shown["a"][0] in ("1", "2")
    assert (shown["a"][1:], shown["b"], shown["c"]) == (["4", "5"], ["6"], ["7"])


def test_the_best_model_is_compared_with_each_other_one() -> None:
    """Of five images the best has one alone right and the other none."""
    first = make_predictions(*((str(n), "a", "b" if n == 0 else "a", 0.5) for n in range(5)))
    second = make_predictions(*((str(n), "a", "b" if n < 2 else "a", 0.5) for n in range(5)))
    elsewhere = make_predictions(("9", "a", "a", 0.5))
    (text,) = compare_with_best({"two": second, "one": first[::-1], "other": elsewhere})
    assert text.startswith(
        "one against two: images right with the first alone: 1, with the second alone: 0. "
        "If neither were better, a difference like this would come up in 100.0 % of cases"
    )


def test_the_best_of_several_models_is_compared_with_that_in_mind() -> None:
    """Of 20 images the best has all right, the others 7 wrong: by hand 2 / 2 ** 7, for 3 pairs."""
    runs = {
        name: make_predictions(
            *((f"{n:02}", "a", "b" if n < wrong else "a", 0.5) for n in range(20))
        )
        for name, wrong in (("best", 0), ("second", 7), ("third", 7))
    }
    texts = compare_with_best(runs)
    verdict = (
        "would come up in 4.7 % of cases (McNemar's test, for 3 pairs of models), so it is real"
    )
    assert len(texts) == 2
    assert all(
        f"If none of the 3 were better, a difference like this {verdict}" in t for t in texts
    )
    (alone,) = compare_with_best({name: runs[name] for name in ("best", "second")})
    assert "in 1.6 % of cases (McNemar's test), so" in alone


def test_the_sample_is_right_and_hardly_moves_between_models() -> None:
    good = make_predictions(*((f"{number:02}", "a", "a", 0.9) for number in range(50)))
    chosen = sample_right(good)
    assert len(chosen) == 12
    assert sample_right(good[::-1]) == chosen
    assert chosen != sorted(chosen)
    worse = [each._replace(prediction="b") if each == chosen[3] else each for each in good]
    assert sample_right(worse)[:11] == chosen[:3] + chosen[4:]
    assert all(each.right for each in sample_right(worse))


def write_scores(folder: Path, head: dict[str, Any], finetuned: dict[str, Any]) -> None:
    metrics = {"head": head, "finetuned": finetuned, "comparison": COMPARISON}
    path = folder / "metrics/summary/demo-mobilenet.json"
    path.write_text(json.dumps(summary() | {"metrics": metrics}), "utf-8")


def test_the_better_of_two_scores_is_marked(folder: Path) -> None:
    write_scores(folder, scores(), scores(accuracy=0.3, log_loss=0.5))
    page = write_page(folder)
    # Five scores and the number of images of each model.
    best = [bool(mark) for mark in re.findall('<td class="number( best)?">', page)[:12]]
    assert best[:6] == [True, False, False, False, False, False]
    assert best[6:] == [False, False, False, True, False, False]
    text = " ".join(Elements(page).text.split())
    assert "0.3000 0.118\N{EN DASH}0.769 \N{MINUS SIGN}0.1000 0.4444" in text


@pytest.mark.parametrize(
    ("gain", "p_value", "change", "verdict"),
    [
        (0.03, 0.0213, "gains 0.0300", "in 2.1 % of cases (McNemar's test), so it is real at"),
        (-0.03, 0.0002, "loses 0.0300", "in fewer than 0.1 % of cases (McNemar's test), so it is"),
        (0.0, 1.0, "changes nothing", "in 100.0 % of cases (McNemar's test), so it may be chance"),
    ],
)
def test_a_comparison_in_words(gain: float, p_value: float, change: str, verdict: str) -> None:
    given = {"head": scores(), "comparison": COMPARISON | {"gain": gain, "p_value": p_value}}
    text = describe_comparison(given)
    assert text.startswith(f"Fine-tuning {change} in accuracy. ")
    assert verdict in text


def test_classes_come_worst_first_and_undefined_ones_last() -> None:
    def row(name: str, recall: str) -> dict[str, str]:
        names = ("head_recall", "head_precision", "finetuned_precision")
        given = dict.fromkeys(names, "0.5")
        return {"class": name, "images": "3", "finetuned_recall": recall, **given}

    given = [row("d", ""), row("a", ""), row("b", "1"), row("c", "0.25")]
    assert [each["class"] for each in sort_classes(given)] == ["c", "b", "a", "d"]


def test_parameters_are_grouped_by_section() -> None:
    given = {"a": {"x": [1, 2], "y": {"z": True}}, "dropout": 0.3, "name": "b"}
    assert group_parameters(given) == [
        ("general", [("dropout", "0.3"), ("name", "b")]),
        ("a", [("x", "1, 2"), ("y.z", "true")]),
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.42, 0.97, [0.4, 0.6, 0.8, 1.0]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 3, [3, 4]),
        (0, 0, [0, 0.2]),
        (120, 480, [100, 200, 300, 400, 500]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert round_ticks(low, high) == expected


def test_a_chart_places_its_points_between_the_axes() -> None:
    chart = line_chart([1, 2, 3], {"train": [0, 0.5, 1], "validation": [1, math.nan, 0.5]})
    assert chart is not None

    def placed(name: str) -> list[tuple[float, float]]:
        return [(chart.x.at(epoch), chart.y.at(value)) for epoch, value in chart.lines[name]]

    assert placed("train") == [(44, 154), (163, 82), (282, 10)]
    assert placed("validation") == [(44, 10), (282, 82)]
    assert [chart.x.at(tick) for tick in chart.x.ticks] == [44, 163, 282]
    assert chart.x.ticks == [1, 2, 3]


def test_a_chart_without_values_is_none() -> None:
    assert line_chart([1, 2], {"train": [math.inf, math.nan]}) is None


def test_a_reliability_diagram_places_its_bins(folder: Path) -> None:
    path = folder / "metrics/reliability/demo-mobilenet-head.csv"
    write_table(path, ["confidence", "accuracy", "images"], [(0.5, 0, 10), (1, 1, 40)])
    page = Elements(write_page(folder))
    first, last = [each for each in page.all("circle") if each["r"] == "2.6"][:2]
    assert (first["cx"], first["cy"]) == ("163.0", "154.0")
    assert (last["cx"], last["cy"]) == ("282.0", "10.0")
    # Bars are as high as the number of images, from the axis at 154 up.
    bars = [each for each in page.all("line") if each["class"] == "amount"][:2]
    heights = [float(str(each["y1"])) - float(str(each["y2"])) for each in bars]
    assert heights[1] == pytest.approx(4 * heights[0])
    assert {each["y1"] for each in bars} == {"154"}


def test_intervals_lie_between_round_ends(folder: Path) -> None:
    write_scores(
        folder,
        scores(accuracy=0.9, accuracy_low=0.85, accuracy_high=0.92),
        scores(accuracy=0.95, accuracy_low=0.9, accuracy_high=0.97),
    )
    page = write_page(folder)
    assert "demo: accuracy and its 95 % interval, from 0.85 to 1<" in page
    track = '<div><span style="left: (.*)%; width: (.*)%"></span><b style="left: (.*)%"></b></div>'
    first, second = [[float(each) for each in found] for found in re.findall(track, page)]
    assert first[:2] == pytest.approx([0, 100 * 0.07 / 0.15], abs=0.01)
    assert second[2] == pytest.approx(100 * 0.1 / 0.15, abs=0.01)


def test_orders_of_classes() -> None:
    matrix = np.array([[6, 0, 4, 0], [0, 9, 0, 1], [5, 0, 5, 0], [0, 2, 0, 8]])
    orders = class_orders(matrix, ["d", "b", "a", "C"])
    assert orders["as in the set"] == [0, 1, 2, 3]
    assert orders["by name"] == [2, 1, 3, 0]
    assert orders["worst first"] == [2, 0, 3, 1]
    together = orders["confused ones together"]
    assert abs(together.index(0) - together.index(2)) == 1
    assert abs(together.index(1) - together.index(3)) == 1


@pytest.mark.parametrize(("classes", "side"), [(3, 26), (102, 10)])
def test_a_confusion_matrix_places_what_is_not_zero(folder: Path, classes: int, side: int) -> None:
    names = [f"class {number}" for number in range(classes)]
    given = summary() | {"classes": names}
    (folder / "metrics/summary/demo-mobilenet.json").write_text(json.dumps(given), "utf-8")
    columns = ["image", "truth", "prediction", "probability", "truth_probability"]
    taken_for = [names[0]] * 3 + [names[2]]
    images = [row[0] for row in PREDICTIONS[:4]]
    rows = [(*each, 0.5, 0.5) for each in zip(images, [names[0]] * 4, taken_for, strict=True)]
    for model in ("head", "finetuned"):
        write_table(folder / f"metrics/predictions/demo-mobilenet-{model}.csv", columns, rows)
    page = write_page(folder)
    elements = Elements(page)
    drawing = next(each for each in elements.all("svg") if "data-side" in each)
    margin = int(str(drawing["data-margin"]))
    assert (drawing["data-side"], drawing["width"]) == (str(side), str(margin + classes * side + 1))
    right, wrong = [each for each in elements.all("g") if "data-row" in each][:2]
    assert (right["class"], wrong["class"]) == ("right strong", "wrong")
    assert right["transform"] == f"translate({margin} {margin})"
    assert wrong["transform"] == f"translate({margin + 2 * side} {margin})"
    assert (wrong["data-row"], wrong["data-column"]) == ("0", "2")
    assert wrong["data-names"] == "class 0\nclass 2"
    opacities = [each["fill-opacity"] for each in elements.all("rect") if "fill-opacity" in each]
    assert opacities[:2] == ["0.8", "0.4"]
    # The count has room where there are few classes.
    assert ('text-anchor="middle">3</text></g>' in page) == (classes == 3)


def write_wide_run(folder: Path) -> None:
    """A run of 102 classes with all kinds of confusions."""
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(102)]
    given = summary() | {"classes": names}
    (folder / "metrics/summary/demo-mobilenet.json").write_text(json.dumps(given), "utf-8")
    rows = [
        (f"jpg/image_{number % 5 + 1:04}.jpg", *rng.choice(names, 2), 0.5, 0.1)
        for number in range(1638)
    ]
    for model in ("head", "finetuned"):
        write_table(
            folder / f"metrics/predictions/demo-mobilenet-{model}.csv",
            ["image", "truth", "prediction", "probability", "truth_probability"],
            rows,
        )
    write_table(
        folder / "metrics/classes/demo-mobilenet.csv",
        CLASS_COLUMNS,
        [(name, number, *rng.random(4).round(6)) for number, name in enumerate(names, 1)],
    )


def test_a_wide_run_is_quick(folder: Path) -> None:
    write_wide_run(folder)
    start = time.process_time()
    report.main([])
    assert time.process_time() - start < 3


LOADED = "return arguments[0].complete && arguments[0].naturalWidth > 0"


def open_page(browser: Chrome, folder: Path) -> None:
    report.main([])
    browser.get((folder / "metrics/report/index.html").as_uri())


def values(browser: Chrome, selector: str, expression: str) -> list[Any]:
    """A JavaScript expression of each shown element `e` that a CSS selector finds."""
    script = f"""return [...document.querySelectorAll({selector!r})]
        .filter((e) => e.checkVisibility()).map((e) => {expression})"""
    found: list[Any] = browser.execute_script(script)
    return found


@pytest.mark.slow
def test_the_page_shows_its_pictures_and_fits_any_screen(browser: Chrome, folder: Path) -> None:
    write_run(folder, "inception_resnet_v2")
    (folder / "params.yaml").write_text(
        PARAMS.replace("[mobilenet]", "[mobilenet, inception_resnet_v2]"), "utf-8"
    )
    for width in (1200, 390):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        open_page(browser, folder)
        for picture in browser.find_elements(By.TAG_NAME, "img"):
            browser.execute_script("arguments[0].scrollIntoView()", picture)  # As they are lazy.
            WebDriverWait(browser, 5).until(
                lambda _, picture=picture: browser.execute_script(LOADED, picture)  # type: ignore[misc]
            )
        overflow = "const page = document.documentElement; return page.scrollWidth > innerWidth"
        assert not browser.execute_script(overflow)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_what_matters_is_on_a_phone_without_scrolling_sideways(
    browser: Chrome, folder: Path
) -> None:
    write_wide_run(folder)
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    open_page(browser, folder)
    for part in (".counts", ".intervals", ".run .classes", ".looks", ".sections"):
        ends = values(browser, f"{part} *", "e.getBoundingClientRect().right")
        assert ends
        assert max(ends) <= 400, part
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_tables_are_sorted_by_their_heads(browser: Chrome, folder: Path) -> None:
    write_wide_run(folder)
    open_page(browser, folder)
    name, _, images, *_ = browser.find_elements(By.CSS_SELECTOR, ".run .classes thead th")
    name.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert name.get_attribute("aria-sort") == "ascending"
    assert values(browser, ".run .classes tbody th", "e.textContent") == [
        f"class {number}" for number in range(102)
    ]
    images.find_element(By.TAG_NAME, "button").click()
    images.find_element(By.TAG_NAME, "button").click()
    assert (name.get_attribute("aria-sort"), images.get_attribute("aria-sort")) == (
        None, "descending",
    )  # fmt: skip
    assert values(browser, ".run .classes td:nth-child(3)", "Number(e.textContent)") == [
        *range(102, 0, -1)
    ]
    browser.find_elements(By.CSS_SELECTOR, ".run .classes thead th button")[2].click()
    recalls = values(browser, ".run .classes td:nth-child(4)", "Number(e.textContent)")
    assert len(recalls) == 102
    assert recalls == sorted(recalls)


@pytest.mark.slow
def test_a_confusion_matrix_is_ordered_and_searched(browser: Chrome, folder: Path) -> None:
    write_wide_run(folder)
    open_page(browser, folder)
    (area, *_) = browser.find_elements(By.CSS_SELECTOR, ".confusion.findable")

    def names() -> list[str]:
        """True classes from above."""
        pairs = values(
            browser,
            ".confusion [data-across]",
            "[e.getBoundingClientRect().y, e.textContent]",
        )
        return [name for _, name in sorted(pairs)]

    assert names()[:3] == ["class 0", "class 1", "class 2"]
    Select(area.find_element(By.TAG_NAME, "select")).select_by_visible_text("by name")
    assert names()[:3] == ["class 0", "class 1", "class 10"]
    area.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("Class 99")
    shown = values(browser, ".pairs tbody tr", "e.textContent")
    assert 0 < len(shown) < 100
    assert all("class 99" in text for text in shown)
    (count,) = values(browser, ".confusion.findable [data-shown]", "e.textContent")
    assert count.startswith(f"{len(shown)} of ")
    clear = values(browser, ".confusion.findable [data-row]:not(.faint)", "e.dataset.names")
    assert clear
    assert all("class 99" in text for text in clear)
