"""A real browser in front of a real appliance. What the page does wrong, its console says, and that fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.cli.conftest import Machine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZE = (1360, 900)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Gone with its module: while playwright is there its event loop counts as running, and nobody can have another."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no chromium: .ci/run installs it")
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An appliance without keys that no test changes, with one model loaded and one that is not: its base URL."""
    machine = Machine(tmp_path_factory.mktemp("still"))
    said = ("--say", "the kettle is on", "--say", "WARNING the milk is off")
    machine.write(*said, models="  tiny: {source: ./weights}\n  later: {source: ./weights, load: on_demand}")
    yield machine.up()
    machine.close()


class Viewer:
    """Opens the page, and remembers what the browser complained about and whom it asked."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []
        self.asked: set[str] = set()

    @contextmanager
    def open(self, base: str, view: str = "overview", **context: Any) -> Iterator[Page]:
        size = {"width": SIZE[0], "height": SIZE[1]}
        opened = self._browser.new_context(**{"viewport": size, "reduced_motion": "reduce", **context})
        page = opened.new_page()
        page.set_default_timeout(20_000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note)
        page.goto(f"{base}/ui#/{view}")
        try:
            yield page
        finally:
            opened.close()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location.get('url')})")

    def _note(self, request: Request) -> None:
        self.asked.add("/".join(request.url.split("/")[:3]))


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    viewer = Viewer(browser)
    yield viewer
    assert viewer.complaints == []
