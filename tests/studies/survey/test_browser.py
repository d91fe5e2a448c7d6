"""The rater's page in a headless browser: chromium and chromium-driver, or Chrome."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from makers.survey import Server, links, made_survey, served
from spurbench.studies.survey.answers import grades, read_answers
from spurbench.studies.survey.design import Survey
from spurbench.studies.survey.report import summarise
from spurbench.studies.survey.store import FILE, read

pytestmark = [pytest.mark.browser, pytest.mark.slow]

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
pytest.importorskip("starlette", reason="extra serve is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver; Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def survey(tmp_path):
    made_survey(tmp_path, raters=3, images=4, repeats=2, contact="</p><script>x=1</script>")
    return tmp_path / "survey"


def opened(browser, address, *, width=900, height=900):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get("about:blank")
    browser.get_log("browser")  # forget
    browser.get(address)
    return browser


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def until(condition, page, seconds=20):
    WebDriverWait(page, seconds, 0.03).until(lambda _: condition())


def place(page):
    return one(page, "#place").text


def is_ready(page):
    """Whether the image is there, and long enough to be graded."""
    return page.execute_script("return performance.now() - shownAt > UNSEEN")


def graded(page, act):
    """Do what grades the image in sight, and wait for the next or the end."""
    until(lambda: is_ready(page), page)
    before = place(page)
    act()
    until(lambda: place(page) != before or one(page, "#done").is_displayed(), page)


def press(page, key):
    ActionChains(page).send_keys(key).perform()


def star(page, grade):
    return one(page, f".star[data-grade='{grade}']")


def touch(page, element):
    box = element.rect
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind, points in (("touchStart", [point]), ("touchEnd", [])):
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def saved(page):
    until(lambda: one(page, "#saving").text == "Everything is saved.", page)


def stored(folder, rater=0):
    answers = read(folder / FILE, Survey.read(folder).id).get(rater, [])
    return {answer.position: answer.grade for answer in answers}


def test_images_are_graded_by_key_mouse_and_thumb_and_a_reload_resumes(browser, survey):
    with served(survey) as server:
        address = f"{server.address}/r/{links(survey)[0]['token']}"
        page = opened(browser, address, width=400, height=800)
        assert "<script>x=1</script>" in one(page, "#welcome").text
        assert page.execute_script("return typeof x") == "undefined"
        one(page, "#start").click()
        assert place(page) == "Image 1 of 10"
        graded(page, lambda: press(page, "4"))
        graded(page, lambda: star(page, 2).click())
        graded(page, lambda: touch(page, star(page, 5)))
        saved(page)
        assert stored(survey) == {0: 4, 1: 2, 2: 5}
        page.refresh()
        assert place(page) == "Image 4 of 10"
        one(page, "#back").click()
        assert star(page, 5).get_attribute("aria-pressed") == "true"
        graded(page, lambda: press(page, "1"))  # another mind
        for _ in range(7):
            graded(page, lambda: press(page, "3"))
        assert one(page, "#thanks").is_displayed()
        until(lambda: one(page, "#close").is_displayed(), page)
        assert stored(survey) == {0: 4, 1: 2, 2: 1, **dict.fromkeys(range(3, 10), 3)}
        page.refresh()
        assert one(page, "#thanks").is_displayed()
        assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert page.execute_script("return localStorage.length") == 0


def test_no_tap_grades_an_image_that_was_not_seen(browser, survey):
    with served(survey) as server:
        page = opened(browser, f"{server.address}/r/{links(survey)[0]['token']}")
        one(page, "#start").click()
        until(lambda: is_ready(page), page)
        twice = "const s = document.querySelector('.star'); s.click(); s.click(); s.click();"
        page.execute_script(twice)
        assert place(page) == "Image 2 of 10"


def test_the_last_grade_suggests_nothing_for_the_next_image(browser, survey):
    """Stars up to the pointer are filled, but not before it moves."""

    def aim(grade):
        ActionChains(page).move_to_element(star(page, grade)).perform()

    def aimed():
        return "aimed" in one(page, "#stars").get_attribute("class")

    page = opened(browser, (survey / links(survey)[0]["page"]).as_uri())
    one(page, "#start").click()
    aim(2)
    aim(3)
    until(aimed, page)
    graded(page, lambda: star(page, 4).click())  # where the pointer stays
    until(lambda: is_ready(page), page)
    assert not aimed() and not page.find_elements(By.CSS_SELECTOR, ".star.full")
    aim(2)
    until(aimed, page)


def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(browser, survey):
    server = Server(survey)
    try:
        page = opened(browser, f"{server.address}/r/{links(survey)[0]['token']}")
        one(page, "#start").click()
        for grade in "123":
            graded(page, lambda grade=grade: press(page, grade))
        saved(page)
        # The images are in the browser already, as on a phone that was online a moment ago.
        page.execute_script("return Promise.all(images.map((a) => fetch(a)))")
        server.kill()
        for grade in "45":
            graded(page, lambda grade=grade: press(page, grade))
        until(lambda: "2 grades kept in this browser" in one(page, "#saving").text, page)
        assert stored(survey) == {0: 1, 1: 2, 2: 3}
        server = Server(survey, server.port)
        saved(page)
        assert stored(survey) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
        # Now the browser dies as well, with an answer that nobody has confirmed.
        server.kill()
        graded(page, lambda: press(page, "2"))
        page.get("about:blank")
        server = Server(survey, server.port)
        page.get(f"{server.address}/r/{links(survey)[0]['token']}")
        assert place(page) == "Image 7 of 10"
        saved(page)
        assert stored(survey)[5] == 2
    finally:
        server.kill()


def test_an_image_that_did_not_load_is_asked_for_again_once_the_server_answers(browser, survey):
    server = Server(survey)
    try:
        page = opened(browser, f"{server.address}/r/{links(survey)[0]['token']}")
        one(page, "#start").click()
        graded(page, lambda: press(page, "1"))
        saved(page)
        server.kill()

        def broken():
            return one(page, "#broken").is_displayed()

        for grade in "2345":  # the next image or two are in the browser already
            until(lambda: is_ready(page) or broken(), page)
            if not broken():
                press(page, grade)
        assert broken()
        server = Server(survey, server.port)
        until(lambda: is_ready(page), page)
        saved(page)
        assert not broken()
    finally:
        server.kill()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_another_sites_page_cant_post(browser, survey, tmp_path):
    """Another port of the same host: the same site, but not the same origin."""
    with served(survey) as server:
        address = f"{server.address}/r/{links(survey)[0]['token']}/answers"
        answers = '[{"position": 0, "grade": 1, "revision": 1}]'
        (tmp_path / "evil.html").write_text(
            f"<!doctype html><form method=post enctype=text/plain action='{address}'>"
            f"<input name='{answers}' value=''></form>"
        )
        other = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path))
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            page = opened(browser, f"http://127.0.0.1:{other.server_port}/evil.html")
            for mode in ("cors", "no-cors"):
                sent = (
                    "const done = arguments[arguments.length - 1];"
                    "fetch(arguments[0], {method: 'POST', body: arguments[1], mode: arguments[2],"
                    "headers: {'Content-Type': 'application/json'}})"
                    ".then((r) => done(r.type), () => done('refused'))"
                )
                assert page.execute_async_script(sent, address, answers, mode) == "refused"
            # A form is sent without asking first: it is the server that refuses it.
            page.execute_script("document.forms[0].submit()")
            until(lambda: "from another site" in one(page, "body").text, page)
        finally:
            other.shutdown()
        assert stored(survey) == {}


def test_without_a_server_answers_are_saved_as_a_file_that_the_report_reads(
    browser, survey, tmp_path
):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    address = (survey / links(survey)[1]["page"]).as_uri()
    page = opened(browser, address)
    one(page, "#start").click()
    for grade in "12345":
        graded(page, lambda grade=grade: press(page, grade))
    page.refresh()
    assert place(page) == "Image 6 of 10"
    for grade in "54321":
        graded(page, lambda grade=grade: press(page, grade))
    one(page, "#save").click()
    until(lambda: list(downloads.glob("*.json")), page)
    design = Survey.read(survey)
    answers = read_answers(survey, design, [downloads])
    assert {a.position: a.grade for a in answers[1]} == dict(enumerate(map(int, "1234554321")))
    assert set(answers) == {1}
    (file,) = downloads.glob("*.json")
    assert set(json.loads(file.read_text())) == {"schema", "survey", "token", "answers"}
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize(("width", "height"), [(360, 640), (320, 568), (740, 360), (1280, 800)])
def test_all_is_in_sight_and_large_enough_for_a_thumb(browser, survey, width, height):
    page = opened(browser, (survey / links(survey)[0]["page"]).as_uri(), width=width, height=height)
    one(page, "#start").click()
    until(lambda: is_ready(page), page)
    shape = page.execute_script(
        "return [document.documentElement.scrollWidth, ...[...document.querySelectorAll('.star')]"
        ".map((s) => s.getBoundingClientRect()).map((r) => [r.width, r.height, r.bottom])]"
    )
    assert shape[0] <= width
    assert all(w >= 44 and h >= 44 and bottom <= height for w, h, bottom in shape[1:])
    picture = one(page, "#picture").rect
    assert picture["width"] >= 150 and picture["height"] >= 150


def test_it_works_by_keyboard_and_says_what_it_is(browser, survey):
    page = opened(browser, (survey / links(survey)[0]["page"]).as_uri())
    assert not one(page, "#grading").is_displayed()
    press(page, "3")  # grades nothing yet
    tab, enter, left, right = "\ue004", "\ue007", "\ue012", "\ue014"
    press(page, tab)
    assert page.switch_to.active_element.text == "Start"
    press(page, enter)
    until(lambda: is_ready(page), page)
    names = [s.accessible_name for s in page.find_elements(By.CSS_SELECTOR, ".star")]
    assert names[0] == "1 star: not natural at all" and names[4] == "5 stars: fully natural"
    assert one(page, ".stars").aria_role == "group"
    assert one(page, ".stars").accessible_name == "How natural does this image look?"
    assert "Image 1 of 10" in one(page, "#picture").get_attribute("alt")
    press(page, tab)  # from the first star to the second
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.execute_script(outline) == "solid"
    graded(page, lambda: press(page, enter))
    assert place(page) == "Image 2 of 10"
    press(page, left)
    assert place(page) == "Image 1 of 10"
    assert star(page, 2).get_attribute("aria-pressed") == "true"
    press(page, right)
    assert place(page) == "Image 2 of 10"
    press(page, right)  # nothing is skipped
    assert place(page) == "Image 2 of 10"
    for control in page.find_elements(By.CSS_SELECTOR, "button"):
        if control.is_displayed():
            assert control.accessible_name


def test_raters_with_a_preference_are_recovered_through_the_browser(browser, tmp_path):
    """Six raters grade by what the pixels show: bright is real, dark is generated."""
    from PIL import Image

    from makers.measured import save_dataset

    def picture(split, index, i):
        return Image.new("RGB", (32, 32), (180 + i,) * 3 if split == "real" else (60 + i,) * 3)

    save_dataset(tmp_path / "data", images=6, classes=(94, 565), picture=picture)
    made_survey(tmp_path, data=tmp_path / "data", raters=6, images=6, repeats=2)
    folder = tmp_path / "survey"
    rng = random.Random(0)
    bright = (
        "const c = document.createElement('canvas').getContext('2d');"
        "c.drawImage(document.getElementById('picture'), 0, 0, 8, 8);"
        "return c.getImageData(4, 4, 1, 1).data[0] > 120"
    )

    def answer(page):
        until(lambda: is_ready(page), page)
        grade = rng.choice([3, 4, 5]) if page.execute_script(bright) else 3
        graded(page, lambda: press(page, str(grade - severity)))

    with served(folder) as server:
        for link in links(folder):
            page = opened(browser, f"{server.address}/r/{link['token']}")
            one(page, "#start").click()
            severity = rng.choice([0, 0, 1])
            for _ in range(14):
                answer(page)
            saved(page)
    design = Survey.read(folder)
    found = summarise(design, grades(design, read_answers(folder, design, [])))
    assert found.finished == 6
    assert Counter(r.pairs for r in found.raters) == {2: 6}
    interval = found.everyone.difference.raters
    assert interval.low < -1.0 < interval.high < 0
