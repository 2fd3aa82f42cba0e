"""The report of a study in a real browser: no error, nothing asked of a network, linked views, sliders, clicks.

Set REPORT_SCREENSHOT=FILE.png to keep a picture of the page.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from tiny_reading import NAME, reading

from cspine.lesions import CENTRE
from cspine.report.page import page_html, probability_colour, write_page

needs_browser = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
SET = """const field = document.getElementById(arguments[0]); field.value = arguments[1];
field.dispatchEvent(new Event("input"));"""
# The mean of |red - green| + |green - blue| over a canvas: grey has none.
COLOUR = """const canvas = document.getElementById(arguments[0]);
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data; let sum = 0;
for (let i = 0; i < pixels.length; i += 4)
  sum += Math.abs(pixels[i] - pixels[i + 1]) + Math.abs(pixels[i + 1] - pixels[i + 2]);
return sum / (canvas.width * canvas.height);"""
MEAN = """const canvas = document.getElementById(arguments[0]);
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data; let sum = 0;
for (let i = 0; i < pixels.length; i += 4) sum += pixels[i];
return sum / (canvas.width * canvas.height);"""
# Presses and releases the pointer on an element at shares of its width and height.
CLICK = """const target = document.getElementById(arguments[0]), box = target.getBoundingClientRect();
for (const type of ["pointerdown", "pointerup"])
  target.dispatchEvent(new PointerEvent(type, { pointerId: 1, bubbles: true,
    buttons: type === "pointerdown" ? 1 : 0, clientX: box.left + box.width * arguments[1],
    clientY: box.top + box.height * arguments[2] }));"""
PLACE = re.compile(r"x (-?[\d.]+), y (-?[\d.]+), z (-?[\d.]+) mm")


def test_names_and_notes_are_escaped_and_only_the_viewer_may_run() -> None:
    made = reading()
    text = page_html(made, NAME)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Sons" in text
    assert "&lt;b&gt;markup" in text
    policy = re.search(r'content="(default-src[^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    assert "http" not in re.sub(r'<script type="text/plain".*?</script>', "", text).replace("http-equiv", "")
    # A name that looks like a place to fill stays a name.
    assert "<title>@SCRIPT@ @DATA@</title>" in page_html(made, "@SCRIPT@ @DATA@")


def test_colours_go_from_bone_to_red() -> None:
    greens = [probability_colour(share)[1] for share in np.linspace(0, 1, 11)]
    assert greens == sorted(greens, reverse=True)
    assert len(set(greens)) == 11


def test_without_heads_and_lesions_there_is_less_on_the_page() -> None:
    text = page_html(reading(heads=False, lesions=False), "a")
    assert "heat-opacity" not in text
    assert "<h2>Lesions" not in text
    assert "No fracture head" in text
    assert "levels-opacity" in text


def test_a_scan_without_levels_is_not_judged() -> None:
    made = reading(lesions=False)
    bare = replace(made, levels=tuple(replace(level, centre_mm=None) for level in made.levels), surfaces=(None,) * 7)
    text = page_html(bare, "a")
    assert "this scan is not judged" in text
    assert "The patient:" not in text
    assert 'data-go="level' not in text


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("study")
    with browser(folder) as session:
        session.open(write_page(reading(), folder / "study.html"))
        wait(session)
        yield session


def wait(session: Browser) -> None:
    for _ in range(200):
        if session.run("return document.documentElement.dataset.ready"):
            return
        time.sleep(0.05)
    raise AssertionError(f"the page is not ready: {session.log('browser')}")


def place(session: Browser) -> list[float]:
    found = PLACE.search(session.text("place"))
    assert found is not None
    return [float(value) for value in found.groups()]


@needs_browser
def test_no_error_and_no_request(page: Browser) -> None:
    assert page.run("return document.title") == NAME
    asked = page.requests()
    assert any(address.endswith("/study.html") for address in asked)
    assert [address for address in asked if not address.startswith(("file://", "data:", "blob:"))] == []
    assert page.log("browser") == []
    assert page.text("no-space") == ""
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_it_opens_at_the_surest_lesion(page: Browser) -> None:
    expected = reading().lesions[list(CENTRE)].iloc[0].to_numpy(float)
    assert np.abs(np.array(place(page)) - expected).max() <= 0.5 + 1e-6


@needs_browser
@pytest.mark.parametrize("level", range(4))
def test_a_click_on_a_level_goes_to_it(page: Browser, level: int) -> None:
    page.run(f"document.querySelector('tr[data-go=\"level-{level}\"] button').click()")
    centre = reading().levels[level].centre_mm
    assert centre is not None
    assert np.abs(np.array(place(page)) - centre).max() <= 0.5 + 1e-6
    assert page.text("place").endswith(f"C{level + 1}")
    assert page.run("return document.querySelector('tr.chosen').dataset.go") == f"level-{level}"


@needs_browser
def test_a_click_on_a_lesion_goes_to_it(page: Browser) -> None:
    page.run("document.querySelector('tr[data-go=\"level-3\"]').click()")
    page.run("document.querySelector('tr[data-go=\"lesion-0\"]').click()")
    expected = reading().lesions[list(CENTRE)].iloc[0].to_numpy(float)
    assert np.abs(np.array(place(page)) - expected).max() <= 0.5 + 1e-6


@needs_browser
def test_levels_that_are_not_found_cannot_be_clicked(page: Browser) -> None:
    assert page.run("return document.querySelectorAll('tr[data-go^=level]').length") == 4


@needs_browser
def test_sliders_show_and_hide_the_overlays(page: Browser) -> None:
    page.run("document.querySelector('tr[data-go=\"level-1\"]').click()")
    seen = {}
    for levels, heat in ((0, 0), (0.5, 0), (1, 0), (0, 0.5), (0, 1)):
        page.run(SET, "levels-opacity", levels)
        page.run(SET, "heat-opacity", heat)
        seen[levels, heat] = page.run(COLOUR, "sagittal")
    assert seen[0, 0] < seen[0.5, 0] < seen[1, 0]
    assert seen[0, 0] < seen[0, 0.5] < seen[0, 1]
    page.run("document.querySelector('tr[data-go=\"level-3\"]').click()")
    # Of C4 alone: the heat is C2's.
    page.run(SET, "levels-opacity", 0)
    assert page.run(COLOUR, "axial") < seen[0, 0.5]


@needs_browser
def test_windows_change_the_greys(page: Browser) -> None:
    page.run(SET, "levels-opacity", 0)
    page.run(SET, "heat-opacity", 0)
    means = {}
    for name in ("bone", "soft", "wide"):
        page.run(f"document.querySelector('[data-window={name}]').click()")
        means[name] = page.run(MEAN, "axial")
        assert page.run("return document.querySelector('[aria-pressed=true]').dataset.window") == name
    # Soft tissue of 40 HU: half of the soft window, a quarter of the bone window.
    assert means["soft"] > 1.5 * means["bone"]
    page.run("document.querySelector('[data-window=bone]').click()")


@needs_browser
def test_the_crosshair_of_one_view_moves_the_others(page: Browser) -> None:
    page.run("document.querySelector('tr[data-go=\"level-0\"]').click()")
    x, y, z = place(page)
    before = page.run(MEAN, "axial")
    # Down on the sagittal plane, off the levels, is caudal: y and z move, x stays.
    page.run(CLICK, "sagittal", 0.3, 0.95)
    moved = place(page)
    assert moved[0] == x
    assert moved[1] < y
    assert moved[2] < z - 20
    assert page.run(MEAN, "axial") != before
    page.run(CLICK, "axial", 0.9, 0.5)
    aside = place(page)
    assert aside[0] > x + 5
    assert aside[2] == moved[2]
    # On the coronal plane left and up.
    page.run(CLICK, "coronal", 0.45, 0.2)
    last = place(page)
    assert last[0] < aside[0] - 5
    assert last[1] == aside[1]
    assert last[2] > aside[2] + 20


@needs_browser
def test_letters_name_the_patients_sides(page: Browser) -> None:
    shown = page.run("return [0, 1, 2].map((axis) => letter(axis, 1) + letter(axis, -1))")
    # x runs to the patient's left, y to the back, z to the feet.
    assert shown == ["LR", "PA", "IS"]


@needs_browser
def test_a_click_on_a_surface_goes_to_its_level(page: Browser) -> None:
    page.run("document.querySelector('tr[data-go=\"level-0\"]').click(); state.yaw = 0; state.pitch = 0; draw();")
    centre = reading().levels[3].centre_mm
    assert centre is not None
    share = page.run(
        """const m = space.turn(), p = space.centred(arguments[0]);
        return [0, 1].map((r) => 0.5 + (r ? -0.5 : 0.5) * (m[r] * p[0] + m[4 + r] * p[1] + m[8 + r] * p[2]));""",
        list(centre),
    )
    page.run(CLICK, "space", *share)
    assert np.abs(np.array(place(page)) - centre).max() <= 0.5 + 1e-6
    page.run(CLICK, "space", 0.01, 0.5)
    assert np.abs(np.array(place(page)) - centre).max() <= 0.5 + 1e-6
    # The tests' own reading of canvases is warned of.
    assert [entry for entry in page.log("browser") if entry["level"] != "WARNING"] == []


@needs_browser
def test_a_picture(page: Browser, tmp_path: Path) -> None:
    page.run("document.querySelector('tr[data-go=\"level-1\"]').click(); state.yaw = 0.6; draw();")
    file = Path(os.environ.get("REPORT_SCREENSHOT", tmp_path / "study.png"))
    page.screenshot(file)
    import cv2

    picture = cv2.imread(str(file))
    assert picture is not None
    assert np.std(picture) > 20
