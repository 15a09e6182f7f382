import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from stages.common.command_line import UserError
from stages.common.files import write_json
from stages.pictures.reading import read_members
from tests.tiny_set import CLASS_NAMES, CLASSES, IMAGES, ROOT, Stages, picture
from tools import predict

MODEL = "models/tiny/demo_backbone"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of nine good pictures, three of each class, of every kind, and two broken ones."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(picture(number % CLASSES, rng))
    for name, mode in (("1.jpg", "CMYK"), ("2.jpg", "RGB")):
        path = folder / name
        image = Image.open(path).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, "JPEG", exif=exif)
    Image.open(folder / "3.jpg").save(folder / "more/3.png")
    Image.open(folder / "4.jpg").save(folder / "more/4 <b>&amp;.webp", lossless=True)
    for name in ("3.jpg", "4.jpg"):
        (folder / name).unlink()
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    (folder / ".hidden.jpg").touch()
    return folder


ORDER = ["0.jpg", "1.jpg", "2.jpg", "5.jpg", "6.jpg", "7.jpg", "8.jpg", "more/3.png"]
ORDER += ["more/4 <b>&amp;.webp"]


def run_predict(ran: Stages, *words: object) -> None:
    predict.main([str(ran.folder / MODEL), *map(str, words)])


def test_a_table_of_every_picture_and_broken_ones_named(
    ran: Stages, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^2 of 11 files could not be read; see above$"):
        run_predict(ran, pictures)
    output, errors = capsys.readouterr()
    header, *lines = output.splitlines()
    assert header.split() == ["picture", "class", "probability"]
    assert len({len(line) for line in lines}) == 1
    assert [line[: header.index("class")].strip() for line in lines[::CLASSES]] == [
        str(pictures / name) for name in ORDER
    ]
    for start in range(0, len(lines), CLASSES):
        rows = [line[header.index("class") :].split() for line in lines[start : start + CLASSES]]
        assert sorted(row[0] for row in rows) == sorted(CLASS_NAMES)
        values = [float(row[1]) for row in rows]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=2e-4)
    assert f"{pictures / 'broken.jpg'} cannot be read: image file is truncated" in errors
    assert f"{pictures / 'empty.png'} cannot be read: not a picture in JPEG, PNG" in errors
    assert "finetuned.keras: 3 classes of tiny, 32 px" in errors
    assert f"left out, hidden: 1: {pictures / '.hidden.jpg'}\n" in errors
    assert "hidden" not in output


def test_what_a_folder_holds_besides_is_named_with_the_reason(
    ran: Stages, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pictures.rglob("*.*"):
        if path.name not in ("0.jpg", "1.jpg"):
            path.unlink()
    for name in ("a.heic", "b.HEIC", "c.zip", "d.txt", "e.tar", "@eaDir", "Thumbs.db"):
        (pictures / name).touch()
    (pictures / "0.jpg").rename(pictures / "0.jfif")
    run_predict(ran, pictures)
    output, errors = capsys.readouterr()
    assert str(pictures / "0.jfif") in output
    said = [line for line in errors.splitlines() if line.startswith("left out")]
    assert [line.replace(f"{pictures}/", "") for line in said] == [
        "left out, archives, which are not looked into; unpack them: 1: c.zip",
        "left out, hidden: 2: @eaDir, Thumbs.db",
        "left out, no pictures by their names: 1: d.txt",
        "left out, pictures of a kind that is not read; convert them by `mogrify -format jpg FILES`"
        ": 2: a.heic, b.HEIC",
        "left out, tars, which are not looked into here; unpack them: 1: e.tar",
    ]


def test_csv_and_json_hold_what_the_table_holds(
    ran: Stages, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    for name in ("broken.jpg", "empty.png"):
        (pictures / name).unlink()
    run_predict(ran, pictures)
    table = capsys.readouterr().out.splitlines()[1:]
    run_predict(ran, pictures, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    run_predict(ran, pictures, "--json")
    objects = json.loads(capsys.readouterr().out)
    assert [row["picture"] for row in rows] == [str(pictures / name) for name in ORDER]
    assert list(rows[0]) == [
        "picture", "class_1", "probability_1", "class_2", "probability_2", "class_3",
        "probability_3", "error",
    ]  # fmt: skip
    for number, (row, each) in enumerate(zip(rows, objects, strict=True)):
        assert each["picture"] == row["picture"]
        for rank, given in enumerate(each["predictions"]):
            assert given["class"] == row[f"class_{rank + 1}"]
            assert given["probability"] == pytest.approx(float(row[f"probability_{rank + 1}"]))
            line = table[CLASSES * number + rank]
            assert given["class"] in line
            assert float(line.split()[-1]) == pytest.approx(given["probability"], abs=1e-4)


def test_csv_and_json_hold_broken_files_in_their_places(
    ran: Stages, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    for form in ("--csv", "--json"):
        with pytest.raises(UserError, match="2 of 11 files"):
            run_predict(ran, pictures, form)
        out = capsys.readouterr().out
        rows = json.loads(out) if form == "--json" else [*csv.DictReader(io.StringIO(out))]
        assert [row["picture"] for row in rows] == sorted(row["picture"] for row in rows)
        assert len(rows) == 11
        errors = {Path(row["picture"]).name: row["error"] for row in rows if row.get("error")}
        assert sorted(errors) == ["broken.jpg", "empty.png"]
        assert errors["broken.jpg"].startswith("image file is truncated")
        if form == "--json":
            assert [sorted(row) for row in rows if "error" in row] == [["error", "picture"]] * 2
        else:
            assert all(bool(row["class_1"]) != bool(row["error"]) for row in rows)


def test_a_picture_is_cropped_as_in_training(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.run_features(crop="none")
    stages.run_head()
    table = stages.folder / "data/raw/tiny/pictures.csv"
    ((_, data),) = read_members(table, [IMAGES[4]])
    (tmp_path / "a.jpg").write_bytes(data)
    model = stages.folder / MODEL

    def probabilities() -> list[float]:
        capsys.readouterr()
        predict.main([str(model / "head.keras"), str(tmp_path / "a.jpg"), "--json"])
        (found,) = json.loads(capsys.readouterr().out)
        given = {each["class"]: each["probability"] for each in found["predictions"]}
        return [given[name] for name in CLASS_NAMES]

    scored = np.load(model / "head_probabilities.npy")[4]
    np.testing.assert_allclose(probabilities(), scored, atol=1e-5)
    write_json(model / "input.json", {"set": "tiny", "crop": "center"})
    assert np.abs(probabilities() - scored).max() > 1e-4


def test_nothing_to_predict_is_one_line(
    ran: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=f"^no pictures in {tmp_path}; name files"):
        run_predict(ran, tmp_path)
    with pytest.raises(UserError, match=r"^1 of 1 files could not be read"):
        run_predict(ran, tmp_path / "none.jpg", "--json")
    output, errors = capsys.readouterr()
    error = "No such file or directory"
    assert json.loads(output) == [{"picture": str(tmp_path / "none.jpg"), "error": error}]
    assert "none.jpg cannot be read: No such file or directory" in errors


def test_the_page_holds_every_picture_and_escapes_their_names(
    ran: Stages, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(UserError, match="2 of 11"):
        run_predict(ran, pictures, "--html", page, "--csv")
    text = page.read_text("utf-8")
    assert text.count('<img src="data:image/jpeg;base64,') == len(ORDER)
    assert "4 &lt;b&gt;&amp;amp;.webp" in text
    assert "blue&#39;s" in text
    assert "<b>" not in text
    assert "http" not in text
    assert text.count("cannot be read: ") == 2
    assert "broken.jpg" in text
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + 11
    assert f"wrote {page}" in printed.err
    assert list(tmp_path.glob(".partial-*")) == []


@pytest.mark.slow
def test_the_page_in_a_browser(
    ran: Stages, pictures: Path, tmp_path: Path, browser: Chrome
) -> None:
    for name in ("broken.jpg", "empty.png"):
        (pictures / name).unlink()
    run_predict(ran, pictures, "--html", tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    images = browser.find_elements(By.TAG_NAME, "img")
    assert [each.get_attribute("alt") for each in images] == [str(pictures / n) for n in ORDER]
    assert all(each.get_property("naturalWidth") == 32 for each in images)
    assert len(browser.find_elements(By.TAG_NAME, "li")) == CLASSES * len(ORDER)


def test_from_the_shell(ran: Stages, pictures: Path) -> None:
    """Exit status, no chatter of TensorFlow's, and no traceback when the reader goes away."""
    command = [sys.executable, "-m", "tools.predict", str(ran.folder / MODEL), str(pictures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("picture ")
    lines = done.stderr.splitlines()
    assert [line.split(":")[0].split(" ")[0] for line in lines] == [
        "left", "loading", str(ran.folder / MODEL / "finetuned.keras"),
        str(pictures / "broken.jpg"), str(pictures / "empty.png"), "error",
    ]  # fmt: skip
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command[:-1], str(pictures / "0.jpg")],
        cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 141
    assert len(done.stderr.splitlines()) == 2
