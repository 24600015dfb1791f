"""The page of the server, used as a reader does: in Debian's chromium, against a real run.

Read, Chapters, Find and Compare are in tests/test_serving_page_reading.py.
"""

import base64
import hashlib
import json
import re
import time

import pytest
from browser import WAIT, app_of, go, hash_of, heat, written
from pages import Reader, check_script
from serving import wait_until
from starlette.testclient import TestClient

from hlm_jax.analysis.page import asset as shared
from hlm_jax.analysis.page.heatmap import SCRIPTS as READER
from hlm_jax.serving.page import SCRIPTS, asset, headers, page_html

pytest_plugins = ["browser"]


# --- the file ---


def test_the_page_is_one_file_under_a_strict_policy(models):
    text = page_html()
    reader = Reader(text)
    assert [tag for tag, _ in reader.elements if tag in ("img", "iframe", "base", "object")] == []
    assert [a.get("href") for tag, a in reader.elements if tag == "link"] == ["data:,"]
    assert not any(
        "src" in attributes or "style" in attributes for _, attributes in reader.elements
    )
    assert not any(
        name.startswith("on") for _, attributes in reader.elements for name in attributes
    )
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    (script,) = reader.scripts
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")
    answer = TestClient(app_of(models), base_url="http://127.0.0.1").get("/")
    assert answer.text == text
    policy = dict(part.split(" ", 1) for part in headers()["Content-Security-Policy"].split("; "))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for name, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name, value in headers().items():
        assert answer.headers[name] == value


def test_both_languages_are_everywhere(models):
    spans = re.findall(r'class="(en|zh)"', page_html())
    assert spans.count("en") == spans.count("zh") > 60
    assert "[[" not in page_html().partition("<body>")[2].partition("<script>")[0]
    labels = re.findall(r'data-(?:label|placeholder)="([^"]*)"', page_html())
    assert len(labels) > 15
    assert all(re.fullmatch(r"[^|]+\|[^|]*[\u4e00-\u9fff][^|]*", label) for label in labels)


def test_the_scripts_have_no_syntax_error(tmp_path):
    for name in SCRIPTS:
        check_script(asset(name), tmp_path)
    together = [shared("page.js"), *map(shared, READER), *map(asset, SCRIPTS)]
    check_script("\n".join(together), tmp_path)


def test_every_element_that_a_script_asks_for_is_there():
    there = {a["id"] for _, a in Reader(page_html()).elements if "id" in a}
    for name in ("app.js", "write.js", "chapters.js", "find.js"):
        asked = set(re.findall(r'\bat\("([a-z0-9-]+)"\)', asset(name)))
        assert asked
        assert asked <= there
    parts = set(re.findall(r'\bpart\("([a-z0-9-]+)"\)', asset("read.js")))
    assert {f"read-{part}" for part in parts} - there == {
        "read-first",
        "read-second",
        "read-sums",
    }
    assert {f"compare-{part}" for part in parts} - there == {"compare-unit"}


# --- Write ---


def test_a_text_is_written_and_its_address_writes_it_again(site, tab, models):
    go(tab, site.url, panel="write", prompt="宝玉笑道：", max_tokens=40)
    assert tab.locator("#prompt").input_value() == "宝玉笑道："
    assert tab.locator("#written .token").count() == 0  # nothing begins by itself
    tab.locator("#prompt").press("Control+Enter")
    first = written(tab)
    seed = int(hash_of(tab)["seed"])
    assert f"Seed {seed}" in tab.locator("#write-status").inner_text()
    run = next(iter(models.values())).run
    (expected,) = run.generate("宝玉笑道：", max_new_tokens=40, seed=seed)
    assert first == expected
    assert tab.locator("#recitation").inner_text().startswith("recitation: 5-grams")
    with tab.expect_download() as waiting:
        tab.click("#save")
    with open(waiting.value.path(), encoding="utf-8") as file:
        assert file.read() == "宝玉笑道：" + expected
    address = tab.url
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_selector("html[data-begun]")
    tab.click("#go")
    assert written(tab) == first


def test_escape_stops_what_is_written(site, tab, models):
    engine = next(iter(models.values())).engine
    go(tab, site.url, panel="write", prompt="黛玉", max_tokens=4000)
    tab.click("#go")
    tab.wait_for_selector("#written .token", state="attached")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#stop:disabled")
    assert "Stopped" in tab.locator("#write-status").inner_text()
    wait_until(lambda: engine.stats().active == 0, seconds=10)
    count = tab.locator("#written .token").count()
    assert 0 < count < 3900


def test_another_token_is_chosen_and_written_on_from(site, tab):
    go(tab, site.url, panel="write", prompt="宝玉", seed=4, max_tokens=30)
    tab.click("#go")
    first = written(tab)
    token = tab.locator("#written .token").nth(3)
    before = "".join(tab.locator("#written .token").all_text_contents()[:3])
    token.click()
    choices = tab.locator("#token-details .choices button:enabled:not(.hit)")
    other = choices.first.locator(".word").inner_text()
    choices.first.click()
    wait_until(lambda: tab.locator("#prompt").input_value() != "宝玉")
    written(tab)
    start = tab.locator("#prompt").input_value()
    assert start == "宝玉" + before + other
    tab.click("#back")
    assert "".join(tab.locator("#written .token").all_text_contents()) == first
    assert tab.locator("#prompt").input_value() == "宝玉"
    tab.locator("#written").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#written .token.on").count() == 1
    assert tab.locator("#token-details .hit").count() == 1


def test_copied_spans_are_marked_with_their_chapter(site, tab, models):
    run = next(iter(models.values())).run
    chapter = run.reference.splits["train"][0]
    copied = chapter.text[30:60]
    body = {"index": 0, "text": f"甲{copied}乙", "finish_reason": "length", "logprobs": None}
    body["copied"] = [[1, 31, chapter.number]]
    body["logprobs"] = {
        "tokens": ["甲" + copied[:5], copied[5:], "乙"],
        "token_logprobs": [-1, -2, -3],
        "top_logprobs": [{"<0xE5>": -1, "甲": -2}, {}, {}],
        "text_offset": [0, 6, 31],
    }
    events = f"data: {json.dumps({'choices': [body], 'seed': 1})}\n\ndata: [DONE]\n\n"
    asked = []

    def answer(route):
        asked.append(route.request.post_data_json)
        route.fulfill(body=events, status=200)

    tab.route("**/v1/completions", answer)
    go(tab, site.url, panel="write")
    tab.click("#go")
    assert written(tab) == f"甲{copied}乙"
    assert asked[0]["copied"]
    assert "return_token_ids" not in asked[0]  # the page has no use for them
    assert "".join(tab.locator("#written .copied").all_text_contents()) == copied
    assert (
        tab.locator("#written .copied")
        .first.get_attribute("title")
        .endswith(f"chapter {chapter.number}")
    )
    tab.locator("#written .token").nth(1).click()
    assert "30 characters copied from" in tab.locator("#token-details").inner_text()
    tab.locator("#written .token").first.click()
    assert tab.locator("#token-details button", has_text="<0xE5>").is_disabled()
    tab.locator("#written .token").nth(1).click()
    tab.click("#token-details a")
    heat(tab)
    assert chapter.heading in tab.locator("#read-place").inner_text()


def test_a_prompt_longer_than_the_block_is_read_by_its_end(site, tab, models):
    run = next(iter(models.values())).run
    # A box of a form has no \r; all else is cleaned as scripts/sample.py does it.
    long = run.reference.splits["val"][0].text[:200] + "\n\n　　宝玉\t笑道：  \n\n"
    go(tab, site.url, panel="write", prompt=long, seed=1, max_tokens=20)
    tab.click("#go")
    text = written(tab)
    with pytest.warns(UserWarning, match="goes on from the last 16"):
        (expected,) = run.generate(long, max_new_tokens=20, seed=1)
    assert text == expected
    assert "goes on from the last 16" in tab.locator("#write-status").inner_text()


# --- the frame ---


def test_tabs_languages_and_themes(site, tab):
    go(tab, site.url)
    tab.locator("#tab-write").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#tab-read").get_attribute("aria-selected") == "true"
    assert tab.locator("#read").is_visible()
    assert tab.locator("#write").is_hidden()
    tab.keyboard.press("End")
    assert hash_of(tab)["panel"] == "compare"
    tab.keyboard.press("ArrowRight")
    assert hash_of(tab)["panel"] == "write"
    assert tab.locator("#prompt").get_attribute("placeholder").startswith("such as")
    tab.click("#language")
    assert tab.locator("#prompt").get_attribute("placeholder").startswith("例如")
    assert tab.locator("#tab-write").inner_text() == "写作"
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") != paper
    tab.reload()
    tab.wait_for_selector("html[data-begun]")
    assert tab.locator("#tab-write").inner_text() == "写作"
    assert tab.locator("html").get_attribute("data-theme") == "dark"


def test_a_server_that_goes_away_is_a_sentence(another, tab, models):
    leaving = another(models)
    go(tab, leaving.url, panel="write", prompt="宝玉", max_tokens=4000)
    tab.click("#go")
    # The first token may be a part of a character: it has no text, so it is not visible.
    tab.wait_for_selector("#written .token", state="attached")
    leaving.close()
    tab.wait_for_selector("#trouble:not([hidden])")
    assert "The server does not answer" in tab.locator("#trouble").inner_text()
    assert "Broken off" in tab.locator("#write-status").inner_text()
    assert tab.locator("#written .token").count() > 0  # what came is kept
    tab.click("#trouble button")
    assert tab.locator("#trouble").is_hidden()
    tab.click("#tab-find")
    tab.fill("#words", "道")
    tab.press("#words", "Enter")
    tab.wait_for_selector("#trouble:not([hidden])")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ("data: {}\n\n", "The server does not answer"),
        ('data: {"error": {"message": "the server failed"}}\n\n', "The server failed."),
    ],
    ids=["silence", "error"],
)
def test_an_answer_that_breaks_off_is_told(site, tab, events, told):
    tab.route("**/v1/completions", lambda route: route.fulfill(body=events, status=200))
    go(tab, site.url, panel="write")
    tab.click("#go")
    tab.wait_for_selector("#trouble:not([hidden])")
    assert told in tab.locator("#trouble").inner_text()
    assert "Broken off" in tab.locator("#write-status").inner_text()


def test_a_key_is_asked_for_and_sent(another, tab, models):
    locked = another(models, api_key="open-sesame")
    tab.goto(f"{locked.url}#panel=write")
    tab.wait_for_selector("#key-form:not([hidden])")
    assert tab.locator("#trouble").is_hidden()
    tab.fill("#key", "wrong")
    tab.press("#key", "Enter")
    time.sleep(0.2)
    assert tab.locator("#key-form").is_visible()
    tab.fill("#key", "open-sesame")
    tab.press("#key", "Enter")
    tab.wait_for_selector("html[data-begun]")
    assert tab.locator("#key-form").is_hidden()
    assert tab.locator("#trouble").is_hidden()
    tab.reload()
    tab.wait_for_selector("html[data-begun]")
    assert "open-sesame" not in tab.url


@pytest.mark.slow
def test_a_server_that_warms_up_is_waited_for(site, tab):
    body = {"error": {"message": "the server is warming up", "type": "server_error"}}
    tab.route("**/v1/models", lambda route: route.fulfill(json=body, status=503), times=1)
    tab.goto(f"{site.url}#panel=find&words=道")
    tab.wait_for_selector("#trouble:not([hidden])")
    assert "The server is warming up" in tab.locator("#trouble").inner_text()
    tab.wait_for_selector("#hits-table tbody tr")
    assert tab.locator("#trouble").is_hidden()


@pytest.mark.parametrize(("status", "words"), [(429, "try again"), (503, "try again")])
def test_a_busy_server_asks_to_wait(site, tab, status, words):
    go(tab, site.url, panel="write")
    body = {"error": {"message": "busy", "type": "x", "param": None, "code": None}}
    tab.route("**/v1/completions", lambda route: route.fulfill(json=body, status=status))
    tab.click("#go")
    tab.wait_for_selector("#trouble:not([hidden])")
    assert words in tab.locator("#trouble").inner_text()
    tab.click("#language")
    assert "稍候再试" in tab.locator("#trouble").inner_text()


@pytest.mark.parametrize(
    ("theme", "lang", "width"),
    [
        ("light", "en", 1280),
        pytest.param("dark", "zh", 390, marks=pytest.mark.slow),
        pytest.param("dark", "en", 1280, marks=pytest.mark.slow),
        pytest.param("light", "zh", 390, marks=pytest.mark.slow),
    ],
)
def test_everybody_can_use_it(site, browser, theme, lang, width):
    """axe-core finds nothing serious, and nothing scrolls sideways, in every panel."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": width, "height": 800})
    context.set_default_timeout(WAIT)
    kept = f"localStorage.setItem('hlm-lang','{lang}');localStorage.setItem('hlm-theme','{theme}')"
    context.add_init_script(kept)
    page = context.new_page()
    for words, shown in (
        ({"panel": "write", "prompt": "宝玉", "seed": 1, "max_tokens": 20}, "#go"),
        ({"panel": "read", "ch": 1, "at": 20}, "#read-text .on"),
        ({"panel": "chapters"}, "#curve svg"),
        ({"panel": "find", "words": "道"}, "#hits-table tbody tr"),
        ({"panel": "compare", "ch": 5}, "#compare-text span"),
    ):
        go(page, site.url, **words)
        page.wait_for_selector(shown)
        if words["panel"] == "write":
            page.click("#go")
            written(page)
            page.locator("#written .token").first.click()
        found = axe.run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious]
        assert told == [], words
        assert page.evaluate("document.documentElement.scrollWidth") <= width, words
    context.close()
