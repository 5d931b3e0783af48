"""Drives the page of a running `ldm serve` in a headless Chromium.

usage: page.py BASE_URL SCREENSHOTS [--web FOLDER] [--only NAME]

`cargo xtask test-clients --browser` installs what it needs and runs it. The server must have the emoji model as its
default, the models `classes`, `layouts` and `maps`, and no API key. `--web` takes the files of the page from a folder
instead of the server. CHROMIUM is the path of the browser.
"""

import argparse
import base64
import io
import json
import os
import re
import shutil
import struct
import sys
import time
import traceback
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
TESTS = []


def test(function):
    TESTS.append(function)
    return function


class Site:
    """The server, and new pages of it that must have no errors."""

    def __init__(self, browser, base, shots, web):
        self.browser, self.base, self.shots, self.web = browser, base.rstrip("/"), Path(shots), web
        self.pages = []

    def open(self, path="/", width=1280, height=900, scheme="light", prepare=None):
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce",
            has_touch=width < 600,
        )
        context.set_default_timeout(20_000)
        page = context.new_page()
        problems = []

        def said(message):
            # A job may end between the news of a preview and the request for it.
            if message.type in ("error", "warning") and "/preview?" not in message.location.get("url", ""):
                problems.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('CSP', event.violatedDirective, event.blockedURI));"
        )
        if self.web:
            page.route(re.compile(r"^[^?]*/([\w-]+\.(js|css|svg)|docs)?$"), self._file)
        if prepare:
            prepare(page)
        self.pages.append((page, problems))
        page.goto(self.base + path)
        page.wait_for_selector("html[data-ready]")
        return page

    def _file(self, route):
        name = urllib.parse.urlparse(route.request.url).path.lstrip("/") or "index.html"
        name = "docs.html" if name == "docs" else name
        path = Path(self.web) / name
        if not path.is_file():
            return route.continue_()
        headers = {"content-type": TYPES[path.suffix], "content-security-policy": POLICY}
        return route.fulfill(body=path.read_bytes(), headers=headers)

    def shot(self, page, name, full=False):
        self.shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=self.shots / f"serve-{name}.png", full_page=full)

    def call(self, path, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def clear(self):
        for job in self.call("/v1/jobs?limit=500")["jobs"]:
            if job["state"] in ("queued", "running"):
                self.call(f"/v1/jobs/{job['id']}/cancel", "POST")
                self.call(f"/v1/jobs/{job['id']}?wait=30")
        for job in self.call("/v1/jobs?limit=500")["jobs"]:
            self.call(f"/v1/jobs/{job['id']}", "DELETE")

    def end(self, allowed):
        """Closes all pages; their errors, but those that a test expects."""
        found = []
        for page, problems in self.pages:
            found += [text for text in problems if not any(each in text for each in allowed)]
            page.context.close()
        self.pages = []
        return found


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, color, text=None):
    """A PNG of one color, with a text `parameters`."""
    rows = (b"\0" + bytes(color) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    texts = chunk(b"tEXt", b"parameters\0" + text.encode("latin-1")) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + texts + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def gray(url):
    """Width, height and rows of a gray PNG without filters, as the page writes."""
    data = io.BytesIO(base64.b64decode(url.split(",", 1)[1]))
    assert data.read(8) == b"\x89PNG\r\n\x1a\n"
    pixels = b""
    while True:
        size, name = struct.unpack(">I4s", data.read(8))
        body = data.read(size)
        assert struct.unpack(">I", data.read(4))[0] == zlib.crc32(name + body), "checksum"
        if name == b"IHDR":
            width, height, depth, kind = struct.unpack(">IIBB", body[:10])
            assert (depth, kind) == (8, 0)
        if name == b"IDAT":
            pixels += body
        if name == b"IEND":
            break
    raw = zlib.decompress(pixels)
    return width, height, [raw[y * (width + 1) + 1:(y + 1) * (width + 1)] for y in range(height)]


def drop(page, selector, name, data, kind="image/png"):
    """Drops a file onto an element."""
    transfer = page.evaluate_handle(
        """([name, text, type]) => {
            const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [name, base64.b64encode(data).decode(), kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(selector, event, {"dataTransfer": transfer})


def request_of(page):
    """The next request for images that a page sends."""
    return page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/jobs"))


def steps(page, count):
    page.fill("#steps", str(count))


def prompt(page, text, count=4, seed=None):
    page.fill("#prompt", text)
    steps(page, count)
    if seed is not None:
        page.fill("#seed", str(seed))


def done(page, timeout=240_000):
    expect(page.locator("#featured .finished img").first).to_be_visible(timeout=timeout)


def choose(page, model):
    """Chooses a model; it is another one for each condition, with random weights and 16 pixels a side."""
    page.select_option("#model", model)


def sampled(page, request):
    """The job of a request that the page sent, once its image is shown."""
    done(page)
    job = request.response().json()
    assert page.locator("#featured .finished img").first.get_attribute("src").startswith(f"v1/jobs/{job['id']}/"), job
    return job


@test
def generates(site):
    page = site.open()
    expect(page.locator("#featured")).to_contain_text("Images appear here")
    prompt(page, "red heart", 12, 7)
    page.fill("#n", "4")
    with request_of(page) as sent:
        page.click("#generate")
    assert sent.value.post_data_json["seed"] == 7, sent.value.post_data
    done(page)
    expect(page.locator("#featured .images img")).to_have_count(4)
    expect(page.locator("#featured")).to_contain_text("seed 7")
    natural = page.locator("#featured .images img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)")
    assert natural == 64, natural
    # The same image large, with keys.
    page.locator("#featured .open").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer-text")).to_contain_text("Seed: 7")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-text")).to_contain_text("Seed: 8")
    site.shot(page, "viewer")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.click("#last-seed")
    assert page.input_value("#seed") == "7"
    page.click("#dice")
    assert page.input_value("#seed") == ""


@test
def keyboard_only(site):
    page = site.open()
    page.evaluate("document.activeElement.blur()")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "prompt":
            break
    assert page.evaluate("document.activeElement.id") == "prompt", "the prompt is not reached by Tab"
    page.keyboard.press("Control+A")
    page.keyboard.type("blue star")
    with request_of(page) as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.post_data_json["prompt"] == "blue star"
    done(page)
    expect(page.locator("#announcer")).to_have_text(re.compile("Done"))


@test
def shows_previews_and_cancels(site):
    page = site.open()
    prompt(page, "smiling face", 400)
    page.click("#generate")
    preview = page.locator("#featured .preview")
    expect(preview).to_be_visible(timeout=60_000)
    first = preview.get_attribute("src")
    expect(preview).not_to_have_attribute("src", first, timeout=60_000)
    assert preview.evaluate("(image) => image.naturalWidth") > 0
    expect(page.locator("#featured .state")).to_have_text(re.compile(r"Step \d+ of 400 · .* left"))
    site.shot(page, "progress")
    # A second job waits, and leaves the queue by its own button.
    prompt(page, "green apple", 401)
    page.click("#generate")
    expect(page.locator("#queue-list li")).to_have_count(1)
    expect(page.locator("#queue-list")).to_contain_text("Place 1")
    page.click("#queue-list button")
    expect(page.locator("#queue-list li")).to_have_count(0)
    page.click("#featured button:has-text('Cancel')")
    expect(page.locator("#featured progress")).to_have_count(0, timeout=30_000)
    states = {job["state"] for job in site.call("/v1/jobs?limit=2")["jobs"]}
    assert states == {"canceled"}, states


@test
def reload_finds_the_job(site):
    page = site.open()
    prompt(page, "yellow sun", 300)
    page.click("#generate")
    expect(page.locator("#featured .preview")).to_be_visible(timeout=60_000)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#featured .state")).to_have_text(re.compile(r"Step \d+ of 300"))
    assert page.input_value("#prompt") == "yellow sun", "settings are not remembered"
    assert page.input_value("#steps") == "300"
    done(page)


@test
def mask_is_painted_and_sent(site):
    page = site.open()
    prompt(page, "red heart", 6)
    drop(page, "#drop", "blue.png", png(96, 64, (40, 80, 220)))
    expect(page.locator("#image-view")).to_be_visible()
    expect(page.locator("#strength")).to_have_value("0.75")
    expect(page.locator("#hires")).to_be_hidden()
    page.click("#image-mask")
    expect(page.locator("#strength")).to_have_value("1")
    canvas = page.locator("#image-view canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.move(*at(0.2, 0.5))
    page.mouse.down()
    page.mouse.move(*at(0.8, 0.5), steps=8)
    page.mouse.up()
    site.shot(page, "mask")
    with request_of(page) as sent:
        page.click("#generate")
    body = sent.value.post_data_json
    width, height, rows = gray(body["mask"])
    assert (width, height) == (64, 64), (width, height)
    assert rows[32][32] == 255 and rows[32][13] == 255 and rows[5][32] == 0 and rows[32][2] == 0
    assert set(b"".join(rows)) == {0, 255}
    assert body["image"].startswith("data:image/png;base64,") and body["strength"] == 1
    done(page)
    # Inverted, undone, cleared; then painted with keys.
    tools = page.locator("#image-view .tools")
    tools.get_by_text("Invert").click()
    with request_of(page) as sent:
        page.keyboard.press("Control+Enter")
    assert gray(sent.value.post_data_json["mask"])[2][32][32] == 0
    tools.get_by_text("Clear").click()
    expect(page.locator("#generate")).to_be_enabled()
    canvas.focus()
    for key in ("ArrowLeft", "Space", "ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    with request_of(page) as sent:
        page.keyboard.press("Control+Enter")
    assert gray(sent.value.post_data_json["mask"])[2][32][32] == 255
    page.click("#image-remove")
    expect(page.locator("#drop")).to_be_visible()


@test
def dropped_png_gives_its_settings(site):
    text = (
        "a (red:1.2) circle\nNegative prompt: blurry\nSteps: 21, Sampler: DPM++ 2M Karras, CFG scale: 4, Seed: 12345678901234567890, "
        "Size: 96x64, Face restoration: GFPGAN, Model: nobody-has-this"
    )
    page = site.open()
    drop(page, "#prompt", "old.png", png(8, 8, (1, 2, 3), text))
    expect(page.locator("#taken")).to_contain_text("Face restoration: GFPGAN")
    expect(page.locator("#taken")).to_contain_text("nobody-has-this")
    values = {name: page.input_value(f"#{name}") for name in ("prompt", "negative", "steps", "guidance-scale", "seed", "width", "height", "sampler", "spacing")}
    assert values == {
        "prompt": "a (red:1.2) circle", "negative": "blurry", "steps": "21", "guidance-scale": "4",
        "seed": "12345678901234567890", "width": "96", "height": "64", "sampler": "dpmpp_2m", "spacing": "karras",
    }, values
    with request_of(page) as sent:
        page.click("#generate")
    assert '"seed":12345678901234567890' in sent.value.post_data, "the seed lost digits"
    done(page)
    expect(page.locator("#featured")).to_contain_text("seed 12345678901234567890")
    drop(page, "#prompt", "plain.png", png(8, 8, (1, 2, 3)))
    expect(page.locator("#taken")).to_contain_text("plain.png has no settings in it")


@test
def errors_are_shown_at_their_fields(site):
    page = site.open()
    prompt(page, "x", 4)
    page.fill("#width", "60")
    page.click("#generate")
    field = page.locator("[data-field=width]")
    expect(field.locator(".error")).to_contain_text("expected a multiple of 16")
    expect(page.locator("#form-error")).to_contain_text("expected a multiple of 16")
    expect(page.locator("#width")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#width")).to_be_focused()
    page.click("#presets button >> nth=0")
    page.fill("#seed", "abc")
    page.click("#generate")
    expect(page.locator("[data-field=seed] .error")).to_contain_text("whole number")
    page.fill("#seed", "")
    page.click("#generate")
    expect(page.locator("#form-error")).to_be_empty()
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    done(page)


@test
def results_are_reused_and_deleted(site):
    site.clear()
    for seed in (1, 2):
        job = site.call("/v1/jobs", "POST", {"prompt": f"<b>heart</b> {seed}", "steps": 3, "seed": seed, "width": 64, "height": 64})
        site.call(f"/v1/jobs/{job['id']}?wait=30")
    page = site.open()
    expect(page.locator("#gallery .result")).to_have_count(1)
    expect(page.locator("#gallery .result .title")).to_have_text("<b>heart</b> 1")
    menu = page.locator("#gallery .menu")
    menu.locator("summary").click()
    menu.get_by_text("Reuse settings").click()
    assert (page.input_value("#prompt"), page.input_value("#seed"), page.input_value("#steps")) == ("<b>heart</b> 1", "1", "3")
    menu.locator("summary").click()
    menu.get_by_text("Use as image").click()
    expect(page.locator("#image-view")).to_be_visible()
    menu.locator("summary").click()
    with page.expect_download() as saved:
        menu.get_by_text("Download").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    for answer, left in (("Keep", 1), ("Delete", 0)):
        menu.locator("summary").click()
        menu.get_by_text("Delete").click()
        page.locator("#question").get_by_role("button", name=answer).click()
        expect(page.locator("#gallery .result")).to_have_count(left)
    assert len(site.call("/v1/jobs")["jobs"]) == 1


def fake_models(page, **changes):
    """Answers with another model, whose requests are only looked at."""

    def answer(route):
        models = route.fetch().json()
        models["data"][0].update(changes)
        route.fulfill(json=models)

    def submit(route):
        if route.request.method != "POST":
            return route.fallback()
        error = {"message": "prompt: expected nothing, got a test", "param": None}
        return route.fulfill(status=400, json={"error": error})

    page.route("**/v1/models", answer)
    page.route("**/v1/jobs", submit)


@test
def layouts_are_drawn(site):
    page = site.open()
    choose(page, "layouts")
    expect(page.locator("#prompt")).to_be_hidden()
    names = site.call("/v1/models/layouts")["class_names"]
    steps(page, 3)
    page.fill("#box-label", names[1])
    box = page.locator("#boxes").bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.9 * box["height"], steps=5)
    page.mouse.up()
    page.fill("#box-label", names[2])
    page.click("#box-add")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    site.shot(page, "layout")
    with request_of(page) as sent:
        page.click("#generate")
    job = sampled(page, sent.value)
    first, second = job["request"]["layout"]
    assert first["label"] == names[1] and all(abs(a - b) < 0.02 for a, b in zip(first["box"], [0.1, 0.2, 0.5, 0.7])), first
    assert second == {"label": names[2], "box": [0.27, 0.25, 0.5, 0.52]}, second
    assert "prompt" not in sent.value.post_data_json
    page.locator("#boxes .box").nth(1).focus()
    page.keyboard.press("Delete")
    expect(page.locator("#boxes .box")).to_have_count(1)
    page.locator("#box-list input").fill("no-such-label")
    page.click("#generate")
    expect(page.locator("[data-field=layout] > .error")).to_contain_text("no-such-label")


@test
def label_maps_are_painted(site):
    page = site.open()
    choose(page, "maps")
    expect(page.locator("#drop")).to_be_hidden()
    steps(page, 3)
    canvas = page.locator("#map canvas").nth(1)
    names = page.locator("#map-class option").all_text_contents()
    assert len(names) == 11, names
    page.select_option("#map-class", index=1)
    page.locator("#map").get_by_text("Fill").click()
    canvas.click(position={"x": 10, "y": 10})
    page.select_option("#map-class", index=2)
    page.locator("#map").get_by_text("Brush").click()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 0.8 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 0.8 * box["height"], steps=6)
    page.mouse.up()
    site.shot(page, "label-map")
    with request_of(page) as sent:
        page.click("#generate")
    width, height, rows = gray(sent.value.post_data_json["label_map"])
    assert (width, height) == (16, 16)
    assert rows[1][1] == 1 and rows[12][8] == 2 and set(b"".join(rows)) == {1, 2}, rows
    sampled(page, sent.value)


@test
def classes_are_chosen(site):
    page = site.open()
    choose(page, "classes")
    expect(page.locator("#prompt")).to_be_hidden()
    steps(page, 3)
    page.fill("#class", site.call("/v1/models/classes")["class_names"][2])
    with request_of(page) as sent:
        page.click("#generate")
    assert sampled(page, sent.value)["request"]["class"] == page.input_value("#class")
    page.fill("#class", "99")
    page.click("#generate")
    expect(page.locator("[data-field=class] .error")).to_contain_text("99")
    # The prompt of the model before is still there.
    choose(page, "emoji")
    expect(page.locator("#prompt")).to_be_visible()


@test
def completion_has_its_fields(site):
    page = site.open(prepare=lambda page: fake_models(page, conditioning="inpainting"))
    drop(page, "#drop", "a.png", png(64, 64, (9, 200, 90)))
    expect(page.locator("#image-view .tools")).to_be_visible()
    for gone in ("#image-mask", "#strength", "#prompt", "#hires"):
        expect(page.locator(gone)).to_be_hidden()


@test
def words_are_weighed_by_keys(site):
    page = site.open(prepare=lambda page: fake_models(page, clip=True))
    field = page.locator("#prompt")
    field.fill("a red fox, at night")

    def press(keys, start=None, end=None):
        if start is not None:
            field.evaluate("(field, [start, end]) => field.setSelectionRange(start, end)", [start, end])
        page.keyboard.press(keys)
        selection = field.evaluate("(field) => field.value.slice(field.selectionStart, field.selectionEnd)")
        return field.input_value(), selection

    field.focus()
    assert press("Control+ArrowUp", 2, 9) == ("a (red fox:1.1), at night", "red fox")
    expect(page.locator("#toasts")).to_contain_text("Weights")
    assert page.input_value("#syntax") == "weights"
    assert press("Control+ArrowUp") == ("a (red fox:1.2), at night", "red fox")
    for _ in range(3):
        press("Control+ArrowDown")
    assert press("Control+ArrowDown") == ("a (red fox:0.8), at night", "red fox")
    press("Control+ArrowUp")
    # At the cursor: the part of a weight, or the word.
    assert press("Control+ArrowUp", 5, 5) == ("a red fox, at night", "red fox"), "1.0 is no weight"
    assert press("Control+ArrowDown", 16, 16) == ("a red fox, at (night:0.9)", "night")
    for _ in range(11):
        press("Control+ArrowUp")
    assert field.input_value() == "a red fox, at (night:2.0)"
    page.keyboard.press("Control+Z")
    assert field.input_value() == "a red fox, at (night:1.9)", "it can be undone"
    # Brackets that are text stay.
    field.fill("\\(cat\\) (dog)")
    assert press("Control+ArrowUp", 2, 5)[0] == "\\((cat:1.1)\\) (dog)"
    field.fill("fox")
    with request_of(page) as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.post_data_json["prompt_syntax"] == "weights"
    # A model whose text CLIP does not read knows no weights.
    page = site.open()
    page.fill("#prompt", "red heart")
    page.focus("#prompt")
    page.keyboard.press("Control+ArrowUp")
    assert page.input_value("#prompt") == "red heart"


@test
def shortcuts_are_explained(site):
    page = site.open()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("weight of the selected words")
    site.shot(page, "keys")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.focus("#prompt")
    page.keyboard.type("what?")
    expect(page.locator("#keys")).to_be_hidden()
    page.click("#keys-open")
    page.click("#keys-close")
    expect(page.locator("#keys")).to_be_hidden()


@test
def guidance_has_an_interval(site):
    page = site.open()
    prompt(page, "red heart", 4, 1)
    page.click("#advanced > summary")
    page.fill("#interval-low", "1")
    with request_of(page) as sent:
        page.click("#generate")
    assert sent.value.post_data_json["guidance_interval"] == [1, None], sent.value.post_data
    sampled(page, sent.value)
    page.locator("#featured .open").first.click()
    expect(page.locator("#viewer-text")).to_contain_text("CFG interval: 1..inf")
    page.keyboard.press("Escape")
    page.fill("#interval-high", "0.5")
    page.click("#generate")
    expect(page.locator("[data-field=guidance_interval] > .error")).to_contain_text("0 <= low < high")
    page.wait_for_timeout(500)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert [page.input_value(f"#interval-{side}") for side in ("low", "high")] == ["1", "0.5"]
    expect(page.locator("#interval-low")).to_be_visible()


@test
def the_api_is_described(site):
    for name, width, scheme in (("docs", 1280, "light"), ("docs-dark", 1280, "dark"), ("docs-phone", 375, "light")):
        page = site.open("/docs", width, 812 if width < 600 else 900, scheme)
        expect(page.locator("#list details").first).to_be_visible()
        operation = page.locator("#list details", has=page.locator("summary", has_text="Accepts a job and answers at once"))
        operation.locator("summary").click()
        expect(operation).to_contain_text("Body")
        site.shot(page, name)
        operation.get_by_role("link", name="GenerationRequest").click()
        schema = page.locator("#GenerationRequest")
        expect(schema).to_have_attribute("open", "")
        expect(schema).to_contain_text("guidance_interval")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name}: too wide"
        site.shot(page, f"{name}-schema")
        page.fill("#filter", "png-info")
        expect(page.locator("#list summary:visible")).to_have_count(1)
        page.click("nav >> text=Generate")
        expect(page.locator("#generate")).to_be_visible()


@test
def advanced_options_are_sent(site):
    def prepare(page):
        fake_models(page, clip=True)
        page.route("**/v1/server", lambda route: route.fulfill(json={**route.fetch().json(), "loras": ["ink", "wool"]}))

    page = site.open(prepare=prepare)
    expect(page.locator("#eta")).to_be_hidden()
    page.click("#advanced > summary")
    page.fill("#eta", "0.5")
    page.fill("#guidance-rescale", "0.7")
    page.check("#hires")
    page.fill("#hires-scale", "1.5")
    page.check("#variation")
    page.fill("#variation-seed", "9")
    page.fill("#tile", "auto")
    page.locator("#loras").get_by_text("Add a LoRA").click()
    page.select_option("#loras select", "wool")
    page.fill("#loras input", "0.6")
    page.fill("#clip-skip", "2")
    page.select_option("#syntax", "weights")
    page.fill("#token-merging", "0.5")
    page.fill("#deep-cache", "3")
    with request_of(page) as sent:
        page.click("#generate")
    body = sent.value.post_data_json
    expected = {
        "eta": 0.5, "guidance_rescale": 0.7, "hires": {"scale": 1.5, "strength": 0.7}, "variation": {"seed": 9, "strength": 0.1},
        "tile": "auto", "loras": [{"name": "wool", "weight": 0.6}], "clip_skip": 2, "prompt_syntax": "weights",
        "token_merging": 0.5, "deep_cache": "3", "n": 1, "width": 64, "height": 64, "steps": 50, "guidance_scale": 5,
    }
    assert {key: body.get(key) for key in expected} == expected, body
    page.wait_for_timeout(500)  # settings are remembered a moment after the last change
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#deep-cache")).to_have_value("3")
    expect(page.locator("#loras select")).to_have_value("wool")
    page.click("#reset")
    expect(page.locator("#deep-cache")).to_have_value("")
    expect(page.locator("#hires")).not_to_be_checked()


@test
def lost_connection_is_said(site):
    page = site.open(prepare=lambda page: page.route("**/v1/events", lambda route: route.abort()))
    expect(page.locator("#connection")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("Trying again")
    page.unroute("**/v1/events")
    expect(page.locator("#connection")).to_be_hidden()


RUNS = {
    f"photos-{name}": {
        "loss": [[step, base / (1 + step / 400) + 0.02 * ((step * 7919) % 13) / 13] for step in range(0, 4000, 20)],
        "learning_rate": [[step, min(1, step / 500) * 1e-4] for step in range(0, 4000, 20)],
        "gradient_norm": [[step, 10 ** (1 - step / 2000)] for step in range(0, 4000, 40)],
    }
    for name, base in (("diffusion", 0.9), ("first-stage", 0.6))
}


def fake_runs(page):
    summary = lambda name: {"name": name, "step": 3980, "steps": 5000, "state": "running" if "d" in name[7] else "ended", "updated": 1}

    def answer(route):
        path = urllib.parse.unquote(urllib.parse.urlparse(route.request.url).path).split("/")[3:]
        if not path:
            return route.fulfill(json={"runs": [summary(name) for name in RUNS]})
        if path[-1] == "metrics":
            return route.fulfill(json={"series": RUNS[path[0]]})
        if "samples" in path:
            return route.fulfill(body=png(64, 32, (80, 40 * int(path[-1]), 120)), content_type="image/png")
        samples = [{"step": 1000 * each, "url": f"/v1/runs/{path[0]}/samples/{each}"} for each in (1, 2, 3)]
        return route.fulfill(json={**summary(path[0]), "config": "model:\n  channels: 64\n", "keys": list(RUNS[path[0]]), "samples": samples})

    def server(route):
        route.fulfill(json={**route.fetch().json(), "runs": True})

    page.route(re.compile(r"/v1/runs"), answer)
    page.route("**/v1/server", server)


@test
def runs_are_compared(site):
    page = site.open("/#training", prepare=fake_runs)
    expect(page.locator("#charts svg")).to_have_count(3)
    expect(page.locator("#charts polyline")).to_have_count(3)
    page.check("#run-list input >> nth=1")
    expect(page.locator("#charts polyline")).to_have_count(6)
    linear = page.locator("#charts polyline").first.get_attribute("points")
    page.check("#log-scale")
    expect(page.locator("#charts polyline").first).not_to_have_attribute("points", linear)
    page.fill("#smoothing", "0.9")
    page.keyboard.press("Enter")
    expect(page.locator("#charts polyline.faint")).to_have_count(6)
    page.locator("#charts svg").first.hover()
    expect(page.locator("#charts .readings").first).to_contain_text("Step")
    page.fill("#sample-step", "0")
    expect(page.locator("#samples img")).to_have_attribute("src", re.compile("samples/1$"))
    page.click("#run-detail summary")
    expect(page.locator("#config")).to_contain_text("channels: 64")
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    site.shot(page, "training")
    phone = site.open("/#training", 375, 800, prepare=fake_runs)
    expect(phone.locator("#charts svg")).to_have_count(3)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375


@test
def fits_phones_and_dark_rooms(site):
    for name, seed in (("red heart", 3), ("blue star", 11), ("green tree", 5), ("yellow sun", 2), ("smiling cat", 8), ("rocket", 4), ("pizza", 6)):
        job = site.call("/v1/jobs", "POST", {"prompt": name, "steps": 20, "seed": seed, "n": 4 if name == "blue star" else 1})
        site.call(f"/v1/jobs/{job['id']}?wait=60")
    for name, width, scheme in (("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 375, "light")):
        page = site.open("/", width, 812 if width < 600 else 900, scheme)
        done(page)
        page.fill("#prompt", "pizza")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name}: {wide} pixels wide"
        if width < 600:
            small = page.evaluate(
                "[...document.querySelectorAll('button, a.button')].filter((each) => each.checkVisibility() && !each.classList.contains('link')"
                " && each.getBoundingClientRect().height < 24).map((each) => each.textContent)"
            )
            assert small == [], small
            page.click("#settings > summary")
            page.click("#advanced > summary")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "with its settings"
            page.click("#settings > summary")
            page.evaluate("scrollTo(0, 0)")
        page.evaluate("Promise.all([...document.images].filter((each) => each.loading !== 'lazy' && each.checkVisibility()).map((each) => each.decode()))")
        site.shot(page, name)
        unlabeled = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels?.length && !each.ariaLabel).map((each) => each.outerHTML)"
        )
        assert unlabeled == [], unlabeled


# Answers that tests ask for; a browser writes each to its console.
ALLOWED = {
    "errors_are_shown_at_their_fields": ["status of 400"],
    "dropped_png_gives_its_settings": ["status of 400"],
    "layouts_are_drawn": ["status of 400"],
    "classes_are_chosen": ["status of 400"],
    "words_are_weighed_by_keys": ["status of 400"],
    "guidance_has_an_interval": ["status of 400"],
    "advanced_options_are_sent": ["status of 400"],
    "lost_connection_is_said": ["ERR_FAILED"],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("shots")
    parser.add_argument("--web")
    parser.add_argument("--only")
    options = parser.parse_args()
    failed = []
    begin = time.monotonic()
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=shutil.which(path) or path, args=["--no-sandbox"])
        site = Site(browser, options.base, options.shots, options.web)
        chosen = [each for each in TESTS if not options.only or options.only in each.__name__]
        print(f"Chromium {browser.version}: {len(chosen)} tests", flush=True)
        if not options.only:
            site.clear()
        for each in chosen:
            start = time.monotonic()
            try:
                each(site)
                errors = site.end(ALLOWED.get(each.__name__, []))
                assert errors == [], f"errors of the page: {errors}"
                word = "PASSED"
            except Exception:
                word = "FAILED"
                failed.append((each.__name__, traceback.format_exc()))
                if site.pages:
                    site.shot(site.pages[-1][0], f"failed-{each.__name__}")
                failed[-1] += (site.end([]),)
                # Jobs that it has left must not delay the next one.
                site.clear()
            print(f"{each.__name__} {word} ({time.monotonic() - start:.1f} s)", flush=True)
        browser.close()
    for name, trace, messages in failed:
        print(f"\n_____ {name} _____\n{trace}messages of the page: {messages}")
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed in {time.monotonic() - begin:.1f} s")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
