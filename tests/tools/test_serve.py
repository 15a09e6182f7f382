import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from starlette.testclient import TestClient

from stages.common.command_line import UserError
from stages.pictures.decoding import decode
from tests.conftest import console_errors
from tests.tiny_set import ARCHIVE, CLASS_NAMES, CLASSES, ROOT, Stages, picture
from tools import serve
from tools.classifier import load_classifier

MODEL = "models/tiny/demo_backbone"
BLUE = picture(2, np.random.default_rng(5))


@pytest.fixture(scope="module")
def service(ran: Stages) -> serve.Service:
    """A service in the folder in which every stage has run."""
    before = Path.cwd()
    os.chdir(ran.folder)
    try:
        service = serve.Service(load_classifier(Path(MODEL)))
        assert service.sample_files
        pictures, split = service.sample_files
        service.sample_files = (pictures.absolute(), split.absolute())
    finally:
        os.chdir(before)
    return service


@pytest.fixture
def client(service: serve.Service) -> Iterator[TestClient]:
    with TestClient(serve.build_application(service)) as client:
        yield client


def test_body_and_form_get_the_models_probabilities(
    client: TestClient, service: serve.Service
) -> None:
    answers = [
        client.post("/predict", content=BLUE),
        client.post("/predict", content=BLUE, headers={"Content-Type": "image/jpeg"}),
        client.post("/predict", files={"picture": ("a.jpg", BLUE)}, data={"note": "x"}),
    ]
    model = service.classifier.model
    wanted = model.predict_on_batch(decode(BLUE, 32, "center")[np.newaxis])[0]
    for answer in answers:
        assert answer.status_code == 200
        found = answer.json()["predictions"]
        assert [each["class"] for each in found] == [
            CLASS_NAMES[label] for label in np.argsort(-wanted)
        ]
        np.testing.assert_allclose(
            [each["probability"] for each in found], -np.sort(-wanted), atol=1e-5
        )


def test_samples_of_a_class_are_its_pictures(client: TestClient) -> None:
    found = client.post("/predict", content=BLUE).json()["predictions"]
    addresses = {each["class"]: each["samples"] for each in found}
    assert addresses["blue's"] == "/samples/blue%27s"
    for label, name in enumerate(CLASS_NAMES):
        answer = client.get(addresses[name])
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert pixels.mean(axis=(0, 1)).argmax() == label
    unknown = client.get("/samples/a/b")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "no samples of 'a/b'"})


def test_without_the_sets_files_there_are_no_samples(
    service: serve.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "sample_files", None)
    monkeypatch.setattr(service, "samples", None)
    with TestClient(serve.build_application(service)) as client:
        assert "samples" not in client.post("/predict", content=BLUE).json()["predictions"][0]
        assert client.get("/samples/red").status_code == 404


def test_a_broken_archive_costs_the_samples_alone(
    service: serve.Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert service.sample_files
    pictures, split = service.sample_files
    table = tmp_path / "data/raw/tiny/pictures.csv"
    table.parent.mkdir(parents=True)
    shutil.copy(pictures, table)
    (tmp_path / ARCHIVE).write_bytes(b"no archive")
    monkeypatch.setattr(service, "sample_files", (table, split))
    monkeypatch.setattr(service, "samples", None)
    with TestClient(serve.build_application(service)) as client:
        assert client.get("/samples/red").status_code == 404
        assert client.post("/predict", content=BLUE).status_code == 200
    assert "no sample pictures: " in capsys.readouterr().err


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"content": b""}, 400, "no picture; send its bytes as the body"),
        ({"files": {"picture": ("a.jpg", b"")}}, 400, "no picture"),
        ({"files": {"x": (None, b"text")}}, 400, "no picture"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": FORM}, 400, "multipart"),
        ({"content": b"<svg/>"}, 415, "cannot be read as a picture: not a picture in JPEG"),
        ({"json": {"picture": "rose"}}, 415, "cannot be read as a picture: not a picture in"),
        ({"content": BLUE[:900]}, 415, "image file is truncated"),
        ({"files": {"picture": ("a.jpg", b"GIF89a")}}, 415, "cannot be read as a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(
    client: TestClient, request_: dict[str, Any], status: int, message: str
) -> None:
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.mark.parametrize("form", [False, True])
def test_the_size_is_counted_while_it_streams(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, form: bool
) -> None:
    """Whatever the headers say: a body in chunks has no length."""
    monkeypatch.setattr(serve, "MAX_BYTES", len(BLUE) + 200)
    chunks = [BLUE, bytes(100), bytes(101)]
    start, end = b'--edge\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n', b""
    if form:
        chunks, end = [start, *chunks], b"\r\n--edge--\r\n"
    headers = FORM if form else {}
    large = client.post("/predict", content=iter([*chunks, end]), headers=headers)
    assert large.status_code == 413
    assert large.json()["error"] == f"more than {len(BLUE) + 200:,} bytes; send a smaller picture"
    small = [start, BLUE, end] if form else [BLUE, bytes(200)]
    assert client.post("/predict", content=iter(small), headers=headers).status_code == 200


def test_too_many_at_a_time_are_told_to_come_again(
    client: TestClient, service: serve.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "waiting", serve.MAX_WAITING)
    answer = client.post("/predict", content=BLUE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "too many" in answer.json()["error"]
    monkeypatch.setattr(service, "waiting", serve.MAX_WAITING - 1)
    assert client.post("/predict", content=BLUE).status_code == 200
    assert client.post("/predict", content=b"x").status_code == 415
    assert service.waiting == serve.MAX_WAITING - 1


def test_other_addresses_and_methods(client: TestClient) -> None:
    assert (client.get("/none").status_code, client.get("/predict").status_code) == (404, 405)
    assert client.get("/none").json() == {"error": "Not Found"}
    assert client.put("/health").json() == {"error": "Method Not Allowed"}
    for name in ("../serve.py", "page.html.j2", "%2e%2e/serve.py"):
        assert client.get(f"/{name}").status_code == 404


def test_health_says_what_is_served(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "model": f"{MODEL}/finetuned.keras",
        "set": "tiny",
        "classes": 3,
        "image_size": 32,
    }


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "blue&#39;s, green, red" in page.text
    names = re.findall(r'(?:href|src)="([^"]*)"', page.text)
    assert sorted(names) == ["/icon.svg", "/page.css", "/page.js"]
    texts = [page.text]
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        texts.append(answer.text)
    outside = re.findall(r"(?:https?:)?//[a-z][^\s\"']*", "\n".join(texts))
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert " style=" not in page.text


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^127\.0\.0\.1, port {port}: .* by --host or --port"):
            serve.main(["anywhere", "--port", str(port)])


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.keras file and no folder with one"):
        serve.main([str(tmp_path), "--port", "0"])


@pytest.fixture(scope="module")
def server(ran: Stages) -> Iterator[str]:
    """The address of a server in a process of its own, which ends well when it is interrupted."""
    code = "from tools.serve import main; from stages.common.command_line import run; run(main)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, MODEL, "--port", "0"],
        cwd=ran.folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    yield process.stdout.readline().split()[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    lines = process.stderr.read().splitlines()
    assert lines == [
        f"loading {MODEL}",
        f"{MODEL}/finetuned.keras: 3 classes of tiny, 32 px",
    ]


@pytest.mark.slow
def test_a_load_loses_nothing(server: str) -> None:
    """200 requests by 8 threads, while others send what is refused, or go away."""

    def disturb() -> None:
        requests.post(f"{server}/predict", data=bytes(serve.MAX_BYTES + 1), timeout=60)
        for _ in range(20):
            requests.post(f"{server}/predict", data=b"x", timeout=60)
            host, port = server.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as gone:
                gone.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx")

    disturber = threading.Thread(target=disturb)
    disturber.start()
    pictures = [picture(n, np.random.default_rng(n)) for n in (0, 1, 2)]

    def ask(index: int) -> bool:
        data = pictures[index % len(pictures)]
        answer = requests.post(f"{server}/predict", data=data, timeout=60)
        return answer.status_code == 200 and bool(answer.json()["predictions"])

    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(ask, range(200)))
    disturber.join()
    assert answered == 200


@pytest.mark.slow
def test_a_body_that_is_too_large_hears_why(server: str) -> None:
    answer = requests.post(f"{server}/predict", data=bytes(2 * serve.MAX_BYTES), timeout=60)
    assert answer.status_code == 413
    assert "send a smaller picture" in answer.json()["error"]


def status_with(browser: Chrome, words: str) -> str:
    """Wait until the page says something with these words; return all that it says."""
    WebDriverWait(browser, 20).until(
        lambda each: words in each.find_element(By.ID, "status").text,
        f"the page does not say {words!r}",
    )
    return browser.find_element(By.ID, "status").text


TRANSFER = """
const [kind, place, type, base64] = arguments;
const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
const transfer = new DataTransfer();
if (bytes.length) transfer.items.add(new File([bytes], `${kind}ed.jpg`, { type }));
else transfer.setData("text/plain", "words");
const event = kind === "past"
  ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
  : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
document.querySelector(place).dispatchEvent(event);
"""


@pytest.mark.slow
def test_the_page_in_a_browser(server: str, browser: Chrome, tmp_path: Path) -> None:
    """Choose, drop and paste a picture; see five flowers at most, bars and samples; be told why."""
    import base64

    browser.get(server)
    assert not browser.find_element(By.ID, "result").is_displayed()
    (tmp_path / "a <b>.jpg").write_bytes(BLUE)
    chooser = browser.find_element(By.ID, "file")
    chooser.send_keys(str(tmp_path / "a <b>.jpg"))
    assert re.fullmatch(r"a <b>\.jpg: blue's, \d+\.\d %", status_with(browser, "%"))

    rows = browser.find_elements(By.CSS_SELECTOR, "#flowers li")
    assert len(rows) == CLASSES
    shares = [float(row.text.split()[-2]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    tracks = browser.find_elements(By.CLASS_NAME, "track")
    bars = browser.find_elements(By.CLASS_NAME, "bar")
    for share, track, bar in zip(shares, tracks, bars, strict=True):
        width = 100 * bar.rect["width"] / track.rect["width"]
        assert width == pytest.approx(share, abs=0.2)
    samples = browser.find_elements(By.CSS_SELECTOR, "#flowers img")
    WebDriverWait(browser, 20).until(
        lambda _: [each.get_property("naturalWidth") for each in samples] == [576] * CLASSES
    )
    assert samples[0].get_attribute("alt") == "Pictures of blue's that the model learned from"
    assert browser.find_element(By.ID, "preview").get_property("naturalWidth") == 130

    for kind in ("dropp", "past"):
        data = base64.b64encode(BLUE).decode()
        browser.execute_script(TRANSFER, kind, "h1", "image/jpeg", data)
        status_with(browser, f"{kind}ed.jpg: blue's")
        browser.execute_script(TRANSFER, kind, "h1", "", "")
        status_with(browser, f"What was {kind}ed is no file")
    assert console_errors(browser) == []

    (tmp_path / "notes.jpg").write_text("words")
    chooser.send_keys(str(tmp_path / "notes.jpg"))
    status_with(browser, "notes.jpg: cannot be read as a picture: not a picture in JPEG")
    assert not browser.find_element(By.ID, "result").is_displayed()
    # Chromium itself logs every answer that is an error.
    (logged,) = console_errors(browser)
    assert "415" in logged
    (tmp_path / "large.jpg").write_bytes(bytes(serve.MAX_BYTES + 1))
    chooser.send_keys(str(tmp_path / "large.jpg"))
    status_with(browser, "large.jpg: more than 20 MB; choose a smaller picture")

    # Named for those who do not see it.
    assert chooser.accessible_name == "Choose a picture"
    assert browser.find_element(By.ID, "status").aria_role == "status"
    browser.set_window_size(390, 800)
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
