"""The supervision's page in a headless browser."""

from __future__ import annotations

import threading

import pytest

from makers.browser import headless
from makers.discovered import save_discovery
from spurbench.discovery.supervise.app import serve
from spurbench.discovery.supervise.labels import FILE, Labels

pytestmark = pytest.mark.browser

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    yield from headless()


@pytest.fixture
def page(browser, tmp_path):
    """The page of a discovery, as anna sees it, and the labels that it leaves."""
    folder = save_discovery(tmp_path / "found")
    addresses, opened = [], threading.Event()

    def announce(address):
        addresses.append(address)
        opened.set()

    # uvicorn ends with the process; nobody else knows the port.
    threading.Thread(target=serve, args=(folder, 0, announce), daemon=True).start()
    assert opened.wait(60)
    browser.set_window_size(1280, 900)
    browser.get(addresses[0])
    browser.execute_script("localStorage.setItem('person', 'anna')")
    browser.refresh()
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "#pictures figure"))
    return browser, Labels(folder / FILE)


def wait(browser, until):
    return WebDriverWait(browser, 60).until(until)


def press(browser, key):
    browser.execute_script("document.activeElement.blur()")
    ActionChains(browser).send_keys(key).perform()


def title(browser):
    return browser.find_element(By.ID, "title").text


def test_components_are_labelled_by_key(page):
    browser, labels = page
    press(browser, "y")
    wait(browser, lambda _: [v.verdict for v in labels.verdicts()] == ["yes"])
    for field, word in (("feature", "red flower"), ("noun", "flower")):
        browser.find_element(By.ID, field).send_keys(word, Keys.TAB)
        wait(browser, lambda _, f=field, w=word: getattr(labels.verdicts()[0], f) == w)
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda b: title(b) == "hummingbird: component 2")
    assert browser.find_element(By.ID, "feature").get_attribute("value") == ""
    press(browser, "u")
    wait(browser, lambda _: len(labels.verdicts()) == 2)
    press(browser, "o")
    wait(browser, lambda b: title(b) == "koala: component 1")
    press(browser, Keys.ARROW_LEFT)
    press(browser, Keys.ARROW_LEFT)
    wait(browser, lambda b: title(b) == "hummingbird: component 1")
    chosen = browser.find_element(By.CSS_SELECTOR, "#verdict [aria-pressed=true]")
    assert chosen.get_attribute("data-verdict") == "yes"
    said = labels.verdicts()
    assert [(v.person, v.component, v.verdict) for v in said] == [
        ("anna", 1, "yes"),
        ("anna", 2, "unsure"),
    ]


def test_words_without_a_verdict_are_said_not_to_be_kept(page):
    browser, labels = page
    browser.find_element(By.ID, "feature").send_keys("red flower", Keys.TAB)
    wait(browser, lambda b: "kept once" in b.find_element(By.ID, "said").text)
    assert not labels.verdicts()
    press(browser, "y")
    wait(browser, lambda _: [v.feature for v in labels.verdicts()] == ["red flower"])


def test_boxes_are_drawn_and_removed_by_mouse(page):
    browser, labels = page
    drawn = browser.find_element(By.CSS_SELECTOR, ".drawn")
    size = drawn.size["width"]
    chain = ActionChains(browser).move_to_element_with_offset(drawn, -size // 4, -size // 4)
    chain.click_and_hold().move_by_offset(size // 2, size // 4).release().perform()
    (mark,) = wait(browser, lambda _: labels.marks())
    box = mark.boxes[0]
    shares = (box.left, box.top, box.right, box.bottom)
    assert shares == pytest.approx((0.25, 0.25, 0.75, 0.5), abs=0.03)
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".box:not(.new)"))[0].click()
    wait(browser, lambda _: not labels.marks())
    browser.find_element(By.CSS_SELECTOR, "figcaption button").click()
    (mark,) = wait(browser, lambda _: labels.marks())
    assert mark.boxes == () and mark.person == "anna"


def test_nothing_is_kept_before_somebody_is_named_and_others_agreement_is_shown(page):
    browser, labels = page
    name = browser.find_element(By.ID, "person")
    press(browser, "n")
    wait(browser, lambda _: labels.verdicts())
    name.clear()
    name.send_keys(Keys.ENTER)
    press(browser, "y")
    wait(browser, lambda b: "who labels" in b.find_element(By.ID, "said").text)
    name.send_keys("bo", Keys.ENTER)
    wait(browser, lambda b: not b.find_elements(By.CSS_SELECTOR, "#verdict [aria-pressed=true]"))
    press(browser, "y")
    wait(browser, lambda _: len(labels.verdicts()) == 2)
    browser.find_element(By.CSS_SELECTOR, "#agreement summary").click()
    shown = wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "#agreement td"))
    assert [cell.text for cell in shown] == ["anna and bo", "1", "0 %", "0.00"]


def test_the_page_loads_nothing_from_elsewhere_and_logs_no_error(page):
    browser, _ = page
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => new URL(e.name).hostname)"
    )
    assert set(loaded) == {"127.0.0.1"}
    pictures = browser.find_elements(By.CSS_SELECTOR, "main img")
    assert len(pictures) == 5
    assert all(
        browser.execute_script("return arguments[0].naturalWidth", image) for image in pictures
    )
