"""Fixtures: a folder in which every stage has run, to read or to run stages in, and a browser."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.hostile_site import Site, serving
from tests.small_clone import Reference, SmallClone
from tests.tiny_set import Stages


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A folder in which every stage has run; tests only read there."""
    stages = Stages(tmp_path_factory.mktemp("ran"))
    stages.run_all()
    return stages


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """An undisturbed `dvc repro` of a small clone; tests work on copies."""
    folder = tmp_path_factory.mktemp("reference")
    before = SmallClone(folder / "before")
    after = before.copy(folder / "after")
    started = time.monotonic()
    after("dvc", "repro")
    seconds = time.monotonic() - started
    after.commit()
    return Reference(before, after, after.lock(), after.outputs(), seconds)


@pytest.fixture
def stages(ran: Stages, tmp_path: Path) -> Stages:
    """A copy of that folder, in which a test can run stages again."""
    folder = tmp_path / "repository"
    shutil.copytree(ran.folder, folder)
    return Stages(folder)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A hostile server in place of the publisher's."""
    site = Site()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    with serving(site):
        yield site


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Chrome]:
    """Headless Chromium, started once; a test that needs it is skipped where it is not installed.

    The driver is named, as Selenium would otherwise look for one on the network.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium or chromedriver; on Debian: apt-get install chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for option in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    options.add_argument("--disable-background-networking")
    options.add_argument("--no-first-run")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(_chromium: Chrome) -> Iterator[Chrome]:
    """Headless Chromium at an empty page, 1200 px wide; the test fails on a console error."""
    _chromium.get("about:blank")
    _chromium.set_window_size(1200, 900)
    console_errors(_chromium)
    yield _chromium
    assert console_errors(_chromium) == []


def console_errors(browser: Chrome) -> list[str]:
    """What the console showed as an error since the last call."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [each["message"] for each in entries if each["level"] == "SEVERE"]
