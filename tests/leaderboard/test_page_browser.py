"""The leaderboard's page in a headless browser: chromium and chromium-driver, or Chrome."""

from __future__ import annotations

import json
import math
import re
import time
from itertools import pairwise

import pytest

from makers.answers import answered, answers_frame
from makers.browser import headless
from makers.measured import save_dataset, save_result
from makers.site import EVIL, evil_site
from spurbench.classifiers.info import Mended
from spurbench.core import markdown
from spurbench.leaderboard import page as site
from spurbench.leaderboard.boards import read

pytestmark = pytest.mark.browser

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    yield from headless()


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    images = save_dataset(folder / "data", positives=6)
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
    # Another dataset, with recognition, twins, and one that had a part in it.
    for name, called, role in (
        ("good", (0.1, 0.1, 0.9, 0.05), None),
        ("chooser", (0.3, 0.4, 0.9, 0.1), "panel"),
        ("poor", (0.6, 0.7, 0.8, 0.2), None),
    ):
        frame = answers_frame((94, 565), images=20, called=called)
        answered(name, frame, role=role).write(folder / "results" / f"{name}.json")
    site.build([folder / "results"], [str(folder / "data")], folder / "board")
    return folder / "board"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A board of more rows than are drawn at once."""
    folder = tmp_path_factory.mktemp("crowd")
    frame = answers_frame((94,), images=20)
    (entry,) = read([answered("c", frame)])
    for i in range(90):
        info = entry.classifier.model_copy(
            update={"name": f"classifier {i:02d}", "weights_sha256": f"{i:064d}"}
        )
        other = entry.model_copy(update={"classifier": info})
        other.write(folder / other.folder / other.file_name)
    site.build([], [], folder)
    return folder


@pytest.fixture
def page(browser, board):
    return opened(browser, board)


def opened(
    browser,
    board,
    address="#dataset=spurbench-toy-1.0.0",
    *,
    width=1280,
    height=900,
    scheme="light",
):
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
    browser.get("about:blank")
    browser.get((board / "index.html").resolve().as_uri() + address)
    return browser


def all_of(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def shown(page):
    # At once: rows come and go as they come into sight.
    labels = "[...document.querySelectorAll('#ranking tbody .label')]"
    return page.execute_script(f"return {labels}.map((label) => label.innerText)")


def heading(page, text):
    return next(th for th in all_of(page, "#ranking thead th") if th.text.strip().startswith(text))


def until(page, condition, seconds=5):
    WebDriverWait(page, seconds, 0.05).until(lambda _: condition())


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
    one(heading(page, "Classifier"), "button").click()
    assert shown(page) == ["alpha.a1_in1k", "beta.a1_in1k", "delta", "gamma"]
    assert heading(page, "Classifier").get_attribute("aria-sort") == "ascending"
    one(heading(page, "Classifier"), "button").click()
    assert shown(page) == ["gamma", "delta", "beta.a1_in1k", "alpha.a1_in1k"]
    assert heading(page, "Classifier").get_attribute("aria-sort") == "descending"
    one(heading(page, "Real"), "button").click()
    assert shown(page) == ["beta.a1_in1k", "gamma", "alpha.a1_in1k", "delta"]
    assert len(all_of(page, "#ranking [aria-sort]")) == 1
    # Rules between tie groups are of the ranking's order only.
    assert not all_of(page, "tr.opens")
    one(heading(page, "#"), "button").click()
    assert shown(page)[0] == "delta"
    assert len(all_of(page, "tr.opens")) == 2


def test_search_and_filters_narrow_the_table_and_the_pictures(page):
    search = one(page, "#find")
    search.send_keys("GAM")
    assert shown(page) == ["gamma"]
    assert one(page, "[role=status]").text == "1 of 4 classifiers"
    until(page, lambda: len(all_of(page, "#plot-splits .point")) == 1)
    assert "by 1 classifier," in one(page, "canvas").get_attribute("aria-label")
    search.send_keys("x")
    assert shown(page) == [] and one(page, "#empty").is_displayed()
    one(page, "#clear").click()
    assert len(shown(page)) == 4
    family = one(page, "#family")
    options = [o.text for o in all_of(family, "option")]
    assert options == ["all", "convnext", "resnet", "vision_transformer"]
    all_of(family, "option")[2].click()
    assert shown(page) == ["delta", "gamma"]
    training = one(page, "#training")
    assert [o.text for o in all_of(training, "option")] == ["all", "ImageNet-1k", "unknown"]
    all_of(training, "option")[1].click()
    assert shown(page) == []
    all_of(family, "option")[0].click()
    assert shown(page) == ["alpha.a1_in1k", "beta.a1_in1k"]


def test_who_is_not_ranked_stays_below_whatever_the_order(browser, board):
    page = opened(browser, board, "#dataset=toy-1.0.0")
    assert shown(page) == ["good", "poor", "chooser"]
    for column in ("Generated", "Generated", "Classifier"):
        one(heading(page, column), "button").click()
        assert shown(page)[-1] == "chooser"
    # In the plots and the map, too; the last of the order is drawn first.
    one(heading(page, "Generated"), "button").click()
    last = "return document.querySelector('#plot-recognition .point').ariaLabel"
    until(page, lambda: page.execute_script(last).startswith("chooser: recognition"))
    row = one(page, "#ranking tr.unranked")
    assert one(row, ".badge").text.endswith("not ranked: panel: chose the images")
    assert one(row, ".rank").text == "–"


def test_a_class_shows_its_images_and_the_answers_of_those_compared(page):
    button = one(page, "[data-class='105']")
    button.click()
    dialog = one(page, "dialog")
    assert dialog.is_displayed()
    assert one(page, "#sheet-title").text == "koala"
    figures = all_of(dialog, "figure")
    assert len(figures) == 12
    for figure in figures:
        image = one(figure, "img")
        assert page.execute_script("return arguments[0].naturalWidth", image) == 32
        assert "koala" in image.get_attribute("alt")
        names = [e.text for e in all_of(figure, ".who")]
        assert names == ["delta", "alpha.a1_in1k", "gamma", "beta.a1_in1k"]
        fooled = len(all_of(figure, "li.fooled"))
        assert one(figure, ".shots p").text == f"{fooled} of 4 call it koala"
    # Generated ones come first; beta is fooled by them all, and by no real one.
    assert all(all_of(f, "li:last-child.fooled") for f in figures[:6])
    assert not any(all_of(f, "li:last-child.fooled") for f in figures[6:])
    one(dialog, "[aria-label='Remove alpha.a1_in1k']").click()
    assert [e.text for e in all_of(one(dialog, "figure"), ".who")] == names[:1] + names[2:]
    field = one(dialog, ".chooser input")
    field.send_keys("alpha.a1_in1k", Keys.TAB)
    assert len(all_of(one(dialog, "figure"), ".who")) == 4
    press(page, Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert page.switch_to.active_element == button


def test_a_class_counts_each_classifiers_answers_without_images_too(browser, board):
    page = opened(browser, board, "#dataset=toy-1.0.0&class=565")
    heads = [th.text for th in all_of(page, "dialog .numbers thead th")]
    assert heads[:5] == ["Classifier", "Generated", "Twins", "Real", "Recognition"]
    (entry,) = [e for e in read([board]) if e.classifier.name == "poor"]
    (expected,) = [c for c in entry.splits["generated"].classes if c.index == 565]
    row = next(tr for tr in all_of(page, "dialog .numbers tbody tr") if "poor" in tr.text)
    cells = [td.text.split("\n")[0] for td in all_of(row, "td")]
    assert cells[0] == f"{100 * expected.spurious_accuracy:.1f}"
    assert cells[1] == f"{100 * expected.effect.control_accuracy:.1f}"
    assert cells[3] == f"{100 * expected.recognition.accuracy:.1f}"
    assert f"of {expected.n}" in row.text
    # A square for each image, those that don't count apart.
    squares = [len(p.get_attribute("d").split("M")) - 1 for p in all_of(row, ".strip path")]
    assert sum(squares) == 20 and squares[1] + squares[0] == expected.n


def test_everything_works_by_keyboard(page):
    press(page, Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the leaderboard"
    press(page, Keys.ENTER)
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(2):  # how to read, search
        press(page, Keys.TAB)
        assert page.execute_script(outline) == "solid"
    assert page.switch_to.active_element == one(page, "#find")
    for _ in range(7):  # two filters, columns, the table, then headings: #, tied, classifier
        press(page, Keys.TAB)
        assert page.execute_script(outline) == "solid"
    assert page.switch_to.active_element.text == "Classifier"
    press(page, Keys.ENTER)
    assert shown(page)[0] == "alpha.a1_in1k"
    assert page.switch_to.active_element.text == "Classifier"
    button = one(page, "[data-class='94']")
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.SPACE)
    assert page.switch_to.active_element.text == "Close"
    press(page, Keys.ARROW_RIGHT)
    assert one(page, "#sheet-title").text == "koala"
    press(page, Keys.SHIFT, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("aria-label") == "Next class"
    page.find_element(By.ID, "close").send_keys(Keys.ENTER)
    assert not one(page, "dialog").is_displayed()


def test_the_arrow_keys_walk_through_a_plot_and_enter_shows_the_row(page):
    until(page, lambda: all_of(page, "#plot-splits .point"))
    first = one(page, "#plot-splits .point[tabindex='0']")
    page.execute_script("arguments[0].focus()", first)
    press(page, Keys.ARROW_RIGHT)
    point = page.switch_to.active_element
    assert point.get_attribute("aria-label").startswith("alpha.a1_in1k: real 50.0 percent")
    press(page, Keys.ENTER)
    assert page.switch_to.active_element.text == "alpha.a1_in1k"
    row = one(page, "#ranking tr.lit")
    assert one(row, ".label").text == "alpha.a1_in1k"
    assert row.get_attribute("data-row") == point.get_attribute("data-point")
    assert "row=" in page.current_url


def test_arrows_lead_from_a_classifier_to_what_was_mended_of_it(browser, tmp_path):
    """Where they lead, and the same in words, for those who don't see them."""
    base = answered("base", answers_frame((94, 565), images=20, called=(0.9, 0.9, 0.9, 0.1)))
    better = answered("better", answers_frame((94, 565), images=20, called=(0.2, 0.1, 0.6, 0.1)))
    mended = Mended(base=base.classifier.weights_sha256, method="spufix")
    info = better.classifier.model_copy(update={"mended": mended})
    site.build([base, better.model_copy(update={"classifier": info})], [], tmp_path)
    page = opened(browser, tmp_path, "")
    until(page, lambda: all_of(page, "#plot-recognition .point"))
    rows = {row["label"]: row for row in page.execute_script("return board().rows")}
    (arrow,) = all_of(page, "#plot-recognition path.mended")
    numbers = [float(n) for n in re.findall(r"[\d.]+", arrow.get_attribute("d"))]
    ends = [
        (rows[name]["recognition"]["value"], 100 - rows[name]["generated"]["value"])
        for name in ("base", "better")
    ]
    start, tip, barb, same, other = zip(numbers[::2], numbers[1::2], strict=True)
    for at, end in zip((start, tip), ends, strict=True):
        assert math.dist(at, end) == pytest.approx(2.9, abs=0.01)  # on the point's rim
    assert math.dist(start, tip) == pytest.approx(math.dist(*ends) - 5.8, abs=0.01)
    assert same == tip
    for at in (barb, other):
        assert math.dist(at, tip) == pytest.approx(math.sqrt(5), abs=0.01)
        assert math.dist(at, start) < math.dist(tip, start)
    said = {
        point.get_attribute("data-point"): point.get_attribute("aria-label")
        for point in all_of(page, "#plot-recognition .point")
    }
    shares = [f"{rows['base'][key]['value']:.1f}" for key in ("recognition", "generated")]
    assert said[rows["better"]["id"]].endswith(
        f"; mended from base, with {shares[0]} and {shares[1]} percent"
    )
    assert "mended" not in said[rows["base"]["id"]]
    assert "Arrows lead" in one(page, "#plot-recognition svg").get_attribute("aria-label")
    # Of a classifier that a filter hides there is nothing to start from.
    one(page, "#find").send_keys("better")
    until(page, lambda: len(all_of(page, "#plot-recognition .point")) == 1)
    assert not all_of(page, "path.mended")


def test_the_address_holds_what_is_shown_and_gives_it_again(browser, board):
    page = opened(browser, board, "")
    all_of(one(page, "#dataset"), "option")[0].click()
    first = shown(page)
    all_of(one(page, "#dataset"), "option")[1].click()
    assert shown(page) != first
    one(heading(page, "Generated"), "button").click()
    order = shown(page)
    one(page, "#find").send_keys("o")
    one(page, "[data-class='94']").click()
    address = page.current_url.partition("#")[2]
    page.refresh()
    assert one(page, "#sheet-title").text == "hummingbird"
    assert page.current_url.partition("#")[2] == address
    page.find_element(By.ID, "close").click()
    until(page, lambda: "class=" not in page.current_url)
    assert one(page, "#find").get_attribute("value") == "o"
    assert heading(page, "Generated").get_attribute("aria-sort") == "ascending"
    assert set(shown(page)) <= set(order)
    page.back()
    until(page, lambda: one(page, "dialog").is_displayed())
    page.forward()
    until(page, lambda: not one(page, "dialog").is_displayed())


def test_a_permalink_opens_a_classifier_with_its_entry(browser, board):
    page = opened(browser, board, "#dataset=toy-1.0.0")
    link = next(a for a in all_of(page, "#ranking .label") if a.text == "poor")
    address = link.get_attribute("href").partition("#")[2]
    page = opened(browser, board, f"#{address}")
    assert one(page, "#sheet-title").text == "poor"
    entry = one(page, "dialog a")
    assert (board / "toy-1.0.0" / entry.text).is_file()
    assert entry.get_attribute("href") == (board / "toy-1.0.0" / entry.text).resolve().as_uri()
    assert "twins without" in one(page, "#sheet-body").text


def test_columns_are_chosen(browser, board):
    page = opened(browser, board, "#dataset=toy-1.0.0", width=1024)
    assert "Family" not in [th.text for th in all_of(page, "#ranking thead th")]
    one(page, ".menu summary").click()
    box = next(e for e in all_of(page, "#columns label") if e.text == "Family")
    one(box, "input").click()
    assert one(page, "#ranking td.family").text == "resnet"
    one(page, "#columns button").click()
    assert not all_of(page, "#ranking td.family")


def test_only_rows_in_sight_are_drawn_and_all_on_paper(browser, crowd):
    page = opened(browser, crowd, "")
    table = one(page, "#ranking")
    assert table.get_attribute("aria-rowcount") == "91"
    assert 20 <= len(shown(page)) <= 60
    page.execute_script("document.getElementById('ranking-scroll').scrollTop = 1e6")
    until(page, lambda: "classifier 89" in shown(page))
    until(page, lambda: "classifier 00" not in shown(page))
    last = one(page, "#ranking tbody:last-child tr:last-child")
    assert last.get_attribute("aria-rowindex") == "91"
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert len(shown(page)) == 90


def test_without_its_script_the_page_is_a_table(browser, board):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = opened(browser, board)
        text = one(page, "body").text
        assert "delta" in text and "chooser not ranked: panel" in text
        assert not one(page, "#find").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_its_tables_and_controls_have_names_and_roles(page):
    until(page, lambda: all_of(page, "#plot-splits .point"))
    for control in all_of(page, "input, select, button"):
        if control.is_displayed() or control.get_attribute("type") == "radio":
            assert control.accessible_name, control.get_attribute("outerHTML")
    assert all(p.accessible_name for p in all_of(page, ".point"))
    assert one(page, "#ranking").aria_role == "table"
    assert heading(page, "Generated").aria_role == "columnheader"
    assert one(page, "#ranking tbody th").aria_role == "rowheader"
    levels = [
        int(h.tag_name[1]) for h in all_of(page, "header h1, main h2, main h3") if h.is_displayed()
    ]
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
return [seen > 80, low];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_either_scheme(browser, board, scheme):
    page = opened(browser, board, scheme=scheme)
    background = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert (sum(page.execute_script(background)) / 3 > 128) == (scheme == "light")
    for summary in all_of(page, "[data-board]:not([hidden]) summary, #tests summary"):
        summary.click()
    assert page.execute_script(CONTRAST) == [True, []]
    page.execute_script("arguments[0].click()", one(page, "[data-class]"))
    assert page.execute_script(CONTRAST) == [True, []]


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280])
def test_no_screen_scrolls_sideways(browser, board, width):
    page = opened(browser, board, width=width, height=844)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    ranking = one(page, "#ranking").rect
    assert ranking["x"] >= 0 and ranking["x"] + ranking["width"] <= width
    assert shown(page)[0] == "delta"
    page.execute_script("arguments[0].click()", one(page, "[data-class]"))
    assert one(page, "dialog").rect["width"] <= width
    inside = "const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth"
    assert page.execute_script(inside)


@pytest.mark.parametrize("hostile", [EVIL, "x" * 90])
def test_hostile_names_are_shown_as_text_and_do_nothing(browser, tmp_path, hostile):
    page = opened(browser, evil_site(tmp_path, hostile=hostile), "", width=390, height=844)
    harmless = markdown.plain(hostile)
    assert shown(page)[0] == f"{harmless}0"
    page.execute_script("arguments[0].click()", one(page, "[data-class]"))
    assert one(page, "#sheet-title").text == harmless
    for name in ("family", "training"):
        option = all_of(page, f"#{name} option")[1]
        assert option.get_attribute("textContent") == harmless
    assert page.execute_script("return window.hacked") is None
    assert page.get_log("browser") == []
    width = "return document.documentElement.scrollWidth"
    assert page.execute_script(width) == 390
