"""The page at / in a real browser: a person drops a picture or types a text, and reads the answer.

The browser is Chromium, as Debian's package installs it; Playwright drives it from an environment of its own.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from edgetune.serve.loading import load
from tests.golden.pictures import LABELS, picture_bytes, write_picture_bundle

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.servers,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

DRIVER = """
import json, sys
from playwright.sync_api import sync_playwright

chromium, url, script = sys.argv[1:]
options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=options)
    page = browser.new_page()
    problems, asked = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    answers = []
    for step in json.loads(script):
        form = page.locator("[data-ask]")
        if "file" in step:
            form.locator("[type=file]").set_input_files(step["file"])
        elif "dropped" in step:
            page.evaluate('''([name, encoded]) => {
                const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
                const carried = new DataTransfer();
                carried.items.add(new File([bytes], name, { type: "image/png" }));
                document.querySelector("[data-ask]").dispatchEvent(
                    new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
            }''', ["dropped.png", step["dropped"]])
        else:
            form.locator("textarea").first.fill(step["text"])
            form.locator("button").click()
        page.wait_for_function("() => / ms$|wrong|refused|not|no /.test(document.querySelector('output').innerText)")
        answers.append([line.strip() for line in form.locator("output").inner_text().splitlines()])
        page.evaluate("() => document.querySelector('output').replaceChildren()")
    shown = page.locator("img").count() and page.locator("img").evaluate("each => each.naturalWidth")
    print(json.dumps({"answers": answers, "problems": problems, "asked": asked, "shown": shown}))
    browser.close()
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """`browse(url, steps)`: what a browser showed after each step, what it complained of and whom it asked."""
    environment = tmp_path_factory.mktemp("playwright")
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "playwright>=1.50"], check=True, timeout=600)

    def run(url: str, steps: list[dict[str, str]]) -> dict[str, object]:
        command = [python, "-c", DRIVER, CHROMIUM, url, json.dumps(steps)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_typed_text_is_answered_as_by_the_runtime(run_server, browse):
    server = run_server()
    text = 'where is <b>my</b> parcel & "card"'
    found = browse(server.url, [{"text": text}])
    (answer,) = found["answers"]
    bundle = Path(__file__).parents[3] / "golden" / "bundle-v1"
    expected = sorted(load(bundle).predict_one(text).scores.items(), key=lambda item: -item[1])
    assert answer[:-1] == [f"{label} {100 * share:.1f}%" for label, share in expected]
    assert answer[-1].endswith(" ms")
    assert found["problems"] == []
    assert {url.split("/", 3)[2] for url in found["asked"]} == {server.url.rpartition("/")[2]}


def test_a_chosen_and_a_dropped_picture_are_shown_and_answered(run_server, browse, tmp_path):
    write_picture_bundle(tmp_path / "bundle")
    server = run_server(bundle=tmp_path / "bundle")
    chosen, broken = tmp_path / "chosen.png", tmp_path / "broken.png"
    chosen.write_bytes(picture_bytes("green"))
    broken.write_bytes(picture_bytes("green")[:40])
    dropped = base64.b64encode(picture_bytes("blue")).decode()
    found = browse(server.url, [{"file": str(chosen)}, {"dropped": dropped}, {"file": str(broken)}])
    green, blue, refused = found["answers"]
    assert green[0].startswith("green ")
    assert blue[0].startswith("blue ")
    assert {line.split()[0] for line in green[:-1]} == set(LABELS)
    assert "picture" in refused[0]
    assert all("status of 4" in problem for problem in found["problems"])  # the broken picture alone
    assert len(found["problems"]) <= 1
