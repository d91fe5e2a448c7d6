"""The leaderboard's page in a headless browser: chromium and chromium-driver, or Chrome."""

from __future__ import annotations

import json
import shutil
import time
from itertools import pairwise

import pytest

from makers.measured import save_dataset, save_result
from makers.site import EVIL, evil_site
from spurbench.core import markdown
from spurbench.leaderboard import page as site

pytestmark = pytest.mark.browser

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
from selenium.webdriver.common.keys import Keys  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver; Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    images = save_dataset(folder / "data")
    shares = {"delta": 0.1, "alpha": 0.5, "gamma": 0.55, "beta": 1.0}
    architectures = ("resnet50", "convnext_atto", "resnet101", "vit_base_patch16_224")
    for i, ((name, share), architecture) in enumerate(
        zip(shares.items(), architectures, strict=True)
    ):
        save_result(
            folder / "results",
            images,
            f"{name}.a1_in1k" if i % 2 else name,
            {"real": 1 - share, "generated": share},
            architecture=architecture,
            seed=i,
        )
    site.build([folder / "results"], [str(folder / "data")], folder / "board")
    return folder / "board"


@pytest.fixture
def page(browser, board):
    return opened(browser, board)


def opened(browser, board, *, width=1280, height=900, scheme="light"):
    for log in ("browser", "performance"):
        browser.get_log(log)  # forget
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {
            "features": [
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ]
        },
    )
    browser.get((board / "index.html").resolve().as_uri())
    return browser


def all_of(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def shown(page):
    return [e.text for e in all_of(page, ".ranking tbody tr:not([hidden]) .label")]


def heading(page, text):
    return next(th for th in all_of(page, ".ranking thead th") if th.text.strip().startswith(text))


def press(page, *keys):
    page.switch_to.active_element.send_keys(*keys)


def test_it_is_ranked_quiet_and_loads_nothing(page):
    assert shown(page) == ["delta", "alpha.a1_in1k", "gamma", "beta.a1_in1k"]
    time.sleep(0.2)
    assert page.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}
    assert len([url for url in urls if url.startswith("file")]) == 1


def test_headings_sort_and_say_so(page):
    name = heading(page, "Classifier")
    one(name, "button").click()
    assert shown(page) == ["alpha.a1_in1k", "beta.a1_in1k", "delta", "gamma"]
    assert name.get_attribute("aria-sort") == "ascending"
    one(name, "button").click()
    assert shown(page) == ["gamma", "delta", "beta.a1_in1k", "alpha.a1_in1k"]
    assert name.get_attribute("aria-sort") == "descending"
    real = heading(page, "Real")
    one(real, "button").click()
    assert shown(page) == ["beta.a1_in1k", "gamma", "alpha.a1_in1k", "delta"]
    assert len(all_of(page, "[aria-sort]")) == 1
    # Rules between tie groups are of the ranking's order only.
    assert not all_of(page, "tr.opens")
    one(heading(page, "#"), "button").click()
    assert shown(page)[0] == "delta"
    assert len(all_of(page, "tr.opens")) == 2


def test_search_and_filters_narrow_the_table_and_the_pictures(page):
    search = one(page, "[data-search]")
    search.send_keys("GAM")
    assert shown(page) == ["gamma"]
    assert one(page, "[role=status]").text == "1 of 4 classifiers"
    assert len([p for p in all_of(page, "[data-point]") if p.is_displayed()]) == 1
    assert len([c for c in all_of(page, "thead [data-column]") if c.is_displayed()]) == 1
    search.send_keys("x")
    assert shown(page) == [] and one(page, ".empty").is_displayed()
    one(page, "[data-clear]").click()
    assert len(shown(page)) == 4
    family = one(page, "[data-filter=family]")
    options = [o.text for o in all_of(family, "option")]
    assert options == ["all", "convnext", "resnet", "vision_transformer"]
    all_of(family, "option")[2].click()
    assert shown(page) == ["delta", "gamma"]
    training = one(page, "[data-filter=training]")
    assert [o.text for o in all_of(training, "option")] == ["all", "ImageNet-1k", "unknown"]
    all_of(training, "option")[1].click()
    assert shown(page) == []
    all_of(family, "option")[0].click()
    assert shown(page) == ["alpha.a1_in1k", "beta.a1_in1k"]


def test_a_class_shows_its_images_with_every_answer(page):
    button = one(page, "[data-class='105']")
    button.click()
    dialog = one(page, "dialog")
    assert dialog.is_displayed()
    assert one(page, "#samples-title").text == "koala"
    figures = all_of(dialog, "figure")
    assert len(figures) == 12
    for figure in figures:
        image = one(figure, "img")
        assert page.execute_script("return arguments[0].naturalWidth", image) == 32
        assert "koala" in image.get_attribute("alt")
        answers = [[s.text for s in all_of(li, "span")] for li in all_of(figure, "li")]
        assert [a[0] for a in answers] == ["delta", "alpha.a1_in1k", "gamma", "beta.a1_in1k"]
        fooled = [a for a in answers if a[1] == "koala"]
        assert one(figure, ".called").text == f"{len(fooled)} of 4 answer koala"
        assert len(all_of(figure, "li.fooled")) == len(fooled)
    # Generated ones come first; beta is fooled by them all, and by no real one.
    assert all(one(f, "li:last-child .what").text == "koala" for f in figures[:6])
    assert all(one(f, "li:last-child .what").text == "cock" for f in figures[6:])
    press(page, Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert page.switch_to.active_element == button


def test_everything_works_by_keyboard(page):
    press(page, Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the leaderboard"
    press(page, Keys.ENTER)
    press(page, Keys.TAB)
    assert page.switch_to.active_element == one(page, "[data-search]")
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.execute_script(outline) == "solid"
    for _ in range(5):  # two filters, then headings: #, tied, classifier
        press(page, Keys.TAB)
    assert page.switch_to.active_element.text == "Classifier"
    assert page.execute_script(outline) == "solid"
    press(page, Keys.ENTER)
    assert shown(page)[0] == "alpha.a1_in1k"
    button = one(page, "[data-class='94']")
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.SPACE)
    assert page.switch_to.active_element.text == "Close"
    press(page, Keys.ARROW_RIGHT)
    assert one(page, "#samples-title").text == "koala"
    press(page, Keys.SHIFT, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("aria-label") == "Next class"
    page.find_element(By.ID, "close").send_keys(Keys.ENTER)
    assert not one(page, "dialog").is_displayed()


def test_the_heat_map_switches_between_the_splits(page):
    row = one(page, "[data-class='94']").find_element(By.XPATH, "./ancestor::tr")
    cells = lambda: [td.text for td in all_of(row, "td")]  # noqa: E731
    assert cells() == ["10", "50", "55", "100"]
    one(page, ".switch input[value=real]").send_keys(Keys.SPACE)
    assert cells() == ["90", "50", "45", "0"]


def test_a_point_and_its_row_light_up_together(page):
    point = all_of(page, "[data-point]")[0]
    page.execute_script("arguments[0].focus()", point)
    row = page.find_element(By.ID, point.get_attribute("data-point"))
    assert "lit" in row.get_attribute("class")
    name = one(row, ".label").text
    assert point.get_attribute("aria-label").startswith(f"{name}: real ")


def test_its_tables_and_controls_have_names_and_roles(page):
    for control in all_of(page, "input, select, button"):
        if control.is_displayed() or control.get_attribute("type") == "radio":
            assert control.accessible_name, control.get_attribute("outerHTML")
    assert all(p.accessible_name for p in all_of(page, "[data-point]"))
    assert one(page, ".ranking").aria_role == "table"
    assert heading(page, "Generated").aria_role == "columnheader"
    assert one(page, ".ranking tbody th").aria_role == "rowheader"
    levels = [int(h.tag_name[1]) for h in all_of(page, "main h1, main h2, main h3, header h1")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
function luminance(colour) {
  const [r, g, b] = colour.map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function background(node) {
  for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
  }
  return [255, 255, 255];
}
const low = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode()); ) {
  const parent = node.parentElement;
  if (!node.data.trim() || parent.closest("script, style, .sr, svg")) continue;
  if (!parent.checkVisibility()) continue;
  const text = luminance(rgb(getComputedStyle(parent).color).slice(0, 3));
  const behind = luminance(background(parent));
  const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
  seen += 1;
  if (ratio < 4.5) low.push([node.data.trim(), ratio]);
}
return [seen > 100, low];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_either_scheme(browser, board, scheme):
    page = opened(browser, board, scheme=scheme)
    background = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert (sum(page.execute_script(background)) / 3 > 128) == (scheme == "light")
    one(page, "summary").click()
    assert page.execute_script(CONTRAST) == [True, []]
    one(page, "[data-class]").click()
    assert page.execute_script(CONTRAST) == [True, []]


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280])
def test_no_screen_scrolls_sideways(browser, board, width):
    page = opened(browser, board, width=width, height=844)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    ranking = one(page, ".ranking").rect
    assert ranking["x"] >= 0 and ranking["x"] + ranking["width"] <= width
    assert shown(page)[0] == "delta"
    page.execute_script("arguments[0].click()", one(page, "[data-class]"))
    assert one(page, "dialog").rect["width"] <= width
    inside = "const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth"
    assert page.execute_script(inside)


@pytest.mark.parametrize("hostile", [EVIL, "x" * 90])
def test_hostile_names_are_shown_as_text_and_do_nothing(browser, tmp_path, hostile):
    page = opened(browser, evil_site(tmp_path, hostile=hostile), width=390, height=844)
    harmless = markdown.plain(hostile)
    assert shown(page)[0] == f"{harmless}0"
    page.execute_script("arguments[0].click()", one(page, "[data-class]"))
    assert one(page, "#samples-title").text == harmless
    for control in all_of(page, "select"):
        assert all_of(control, "option")[1].get_attribute("textContent") == harmless
    assert page.execute_script("return window.hacked") is None
    assert page.get_log("browser") == []
    width = "return document.documentElement.scrollWidth"
    assert page.execute_script(width) == 390
