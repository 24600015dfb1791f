"""The page of the server, used as a reader does: in Debian's chromium, against a real run."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import threading
import time
import urllib.parse

import pytest
import uvicorn
from pages import Reader, check_script
from serving import two_models, wait_until
from starlette.testclient import TestClient

from hlm_jax.analysis.page import asset as shared
from hlm_jax.analysis.page.heatmap import SCRIPTS as READER
from hlm_jax.serving.app import create_app
from hlm_jax.serving.page import SCRIPTS, asset, headers, page_html

WAIT = 20_000  # milliseconds that a test waits for the page


class Site:
    """A server at a port of its own; `close` with force ends it as a broken process ends."""

    def __init__(self, app, *, lifespan="off"):
        self.app = app
        config = uvicorn.Config(app, port=0, log_level="error", lifespan=lifespan)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_until(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"

    def close(self, *, force=True):
        self._server.force_exit, self._server.should_exit = force, True
        self._thread.join()


@pytest.fixture(scope="module")
def models(trained):
    return two_models(trained[0])


@pytest.fixture(scope="module")
def site(models):
    site = Site(app_of(models), lifespan="on")
    wait_until(lambda: all(one.ready for one in models.values()))
    yield site
    site.close(force=False)


def app_of(models, **options):
    return create_app(models, allowed_hosts=["127.0.0.1"], **options)


@pytest.fixture
def another(site):
    """Starts further servers of the warm models; they end with the test."""
    begun = []

    def begin(models, **options):
        begun.append(Site(app_of(models, **options)))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, site):
    """A tab that has nothing; what it asked for and complained of is checked at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text))
    yield page
    context.close()
    ours = re.compile(r"(http://127\.0\.0\.1:\d+/|blob:|data:)")
    assert all(ours.match(url) for url in page.asked), page.asked
    failures = ("Failed to load resource",)  # an answer of 4xx, which some tests provoke
    assert [c for c in page.complaints if not c.startswith(failures)] == []


def go(page, url, **words):
    """Opens the page, fresh, at an address."""
    page.goto("about:blank")
    page.goto(f"{url}#{urllib.parse.urlencode(words)}")
    page.wait_for_selector("html[data-begun]")


def written(page):
    """The text below the prompt, when the server has finished."""
    page.wait_for_selector("#written .token")
    page.wait_for_selector("#stop:disabled")
    return "".join(page.locator("#written .token").all_text_contents())


def hash_of(page):
    return dict(urllib.parse.parse_qsl(page.url.partition("#")[2]))


def heat(page, panel="read"):
    page.wait_for_selector(f"#{panel}-text span")
    page.wait_for_selector(f"#{panel}-box:not([aria-busy])")
    return page.locator(f"#{panel}-text").inner_text()


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
    tab.wait_for_selector("#written .token")
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
    tab.route("**/v1/completions", lambda route: route.fulfill(body=events, status=200))
    go(tab, site.url, panel="write")
    tab.click("#go")
    assert written(tab) == f"甲{copied}乙"
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


@pytest.mark.slow
def test_a_prompt_longer_than_the_block_is_read_by_its_end(site, tab, models):
    run = next(iter(models.values())).run
    long = run.reference.splits["val"][0].text[:200]
    go(tab, site.url, panel="write", prompt=long, seed=1, max_tokens=20)
    tab.click("#go")
    text = written(tab)
    with pytest.warns(UserWarning, match="goes on from the last 16"):
        (expected,) = run.generate(long, max_new_tokens=20, seed=1)
    assert text == expected
    assert "goes on from the last 16" in tab.locator("#write-status").inner_text()


# --- Read, Chapters, Find, Compare ---


def test_a_chapter_is_read_at_a_place(site, tab, models):
    run = next(iter(models.values())).run
    chapter = run.reference.splits["val"][0]
    go(tab, site.url, panel="read", ch=chapter.number, by="rank", at=40)
    heat(tab)
    assert chapter.heading in tab.locator("#read-place").inner_text()
    assert "".join(tab.locator("#read-text span").all_text_contents()) == chapter.text
    assert tab.locator("#read-text .on").count() == 1
    assert tab.locator("#read-details dd").count() > 6
    assert tab.locator("#read-details ol li").count() == 5
    assert "not trained on this text" in tab.locator("#read-warnings").inner_text()
    tab.locator("#read-text").focus()
    tab.keyboard.press("ArrowRight")
    assert int(hash_of(tab)["at"]) > 38
    tab.keyboard.press("n")
    wait_until(lambda: hash_of(tab)["ch"] == str(chapter.number + 1), seconds=20)
    heat(tab)
    tab.wait_for_selector("#read-warnings .warning")
    with tab.expect_download() as waiting:
        tab.click("#read-csv")
    with open(waiting.value.path(), encoding="utf-8") as file:
        assert file.readline().startswith(
            "doc,chapter,paragraph,index,start,end,text,token_id,bits"
        )
    tab.go_back()
    wait_until(lambda: hash_of(tab)["ch"] == str(chapter.number), seconds=20)


def test_a_text_of_ones_own_is_read(site, tab):
    text = "<b>宝玉</b>笑道：“你来了，坐。”"
    go(tab, site.url, panel="read")
    heat(tab)
    tab.click("#read-own summary")
    tab.fill("#read-words", text)
    tab.click("#read-form button[type=submit]")
    tab.wait_for_selector("#read-text span:has-text('<b>'), #read-text span:has-text('<')")
    assert "".join(tab.locator("#read-text span").all_text_contents()) == text + "\n"
    assert hash_of(tab)["text"] == text
    tab.select_option("#read-unit", "char")
    tab.wait_for_selector("#read-text span:text-is('宝')")


def test_the_curve_opens_a_chapter(site, tab):
    go(tab, site.url, panel="chapters")
    tab.wait_for_selector("#curve svg .column")
    wait_until(lambda: "Scored" not in tab.locator("#chapters-status").inner_text(), seconds=60)
    assert tab.locator("#curve .legend").inner_text().split() == [
        "model",
        "5-gram",
        "trained",
        "on",
    ]
    tab.click("#chapters-more summary")
    assert tab.locator("#chapters-table tbody tr").count() == 20
    for button, head in (("#chapters-csv", "number,heading"), ("#chapters-svg", "<?xml")):
        with tab.expect_download() as waiting:
            tab.click(button)
        with open(waiting.value.path(), encoding="utf-8") as file:
            assert file.readline().startswith(head)
    tab.locator("#curve a").nth(6).click()
    heat(tab)
    assert tab.locator("#read-place").inner_text().startswith("第七回")
    assert hash_of(tab)["panel"] == "read"


def test_words_are_found_sorted_and_opened(site, tab, models):
    run = next(iter(models.values())).run
    go(tab, site.url, panel="find")
    tab.fill("#words", "道")
    tab.press("#words", "Enter")
    tab.wait_for_selector("#hits-table tbody tr")
    total = sum(c.text.count("道") for chapters in run.reference.splits.values() for c in chapters)
    assert f"{total} occurrences" in tab.locator("#find-status").inner_text()
    assert tab.locator("#hits-table tbody tr").count() == min(total, 100)
    assert "Juilland's D" in tab.locator("#spread").inner_text()
    assert tab.locator("#spread svg rect").count() > 3
    before = tab.locator("#hits-table tbody").inner_text()
    tab.select_option("#sort", "right")
    wait_until(lambda: tab.locator("#hits-table tbody").inner_text() != before, seconds=20)
    rights = tab.locator("#hits-table td.right").all_text_contents()
    assert rights == sorted(rights, key=lambda text: text.replace("↵", "\n"))
    assert hash_of(tab) | {"model": ""} == {
        "panel": "find",
        "model": "",
        "words": "道",
        "sort": "right",
    }
    with tab.expect_download() as waiting:
        tab.click("#find-csv")
    with open(waiting.value.path(), encoding="utf-8") as file:
        assert len(file.readlines()) == total + 1
    place = tab.locator("#hits-table td.place a").first
    chapter, offset = place.inner_text().split(":")
    place.click()
    heat(tab)
    tab.wait_for_selector("#read-text .on")
    assert "道" in tab.locator("#read-text .on").inner_text()
    assert hash_of(tab)["ch"] == chapter
    assert int(hash_of(tab)["at"]) <= int(offset)
    tab.go_back()
    tab.wait_for_selector("#find:not([hidden])")
    tab.fill("#words", "，")
    tab.press("#words", "Enter")
    tab.wait_for_selector("#more:not([hidden])")
    tab.click("#more")
    tab.wait_for_selector("#hits-table tbody tr:nth-child(200)")
    assert "the first 200 are shown" in tab.locator("#find-status").inner_text()
    tab.fill("#words", "寶玉")
    tab.press("#words", "Enter")
    tab.click("#spread button")
    tab.wait_for_selector("#hits-table tbody tr")
    assert tab.locator("#words").input_value() == "宝玉"


@pytest.mark.slow
def test_a_bad_expression_is_a_sentence(site, tab):
    go(tab, site.url, panel="find", words="(", regex="true")
    tab.wait_for_selector("#trouble:not([hidden])")
    assert "is no regular expression" in tab.locator("#trouble").inner_text()


def test_two_models_are_compared(site, tab, models):
    a, b = models
    go(tab, site.url, panel="compare", ch=3)
    heat(tab, "compare")
    rows = tab.locator("#compare-sums tbody tr").all_inner_texts()
    assert [a in rows[0], b in rows[1], "A − B" in rows[2]] == [True] * 3
    assert tab.locator("#compare-colourings button[aria-pressed=true]").inner_text() == "A minus B"
    values = [float(re.search(r"-?\d+\.\d{3}", row)[0]) for row in rows]
    assert values[2] == pytest.approx(values[0] - values[1], abs=2e-3)
    tab.locator("#compare-text span").nth(4).click()
    assert tab.locator("#compare-details h3").count() == 2


@pytest.mark.slow
def test_one_model_says_how_to_start_two(another, tab, models):
    alone = another(dict(list(models.items())[:1]))
    go(tab, alone.url, panel="compare")
    assert "--workdir A --workdir B" in tab.locator("#compare-one").inner_text()
    assert tab.locator("#compare-form").is_hidden()


@pytest.mark.slow
def test_without_the_book_what_is_left_works(another, tab, models):
    name, one = next(iter(models.items()))
    bookless = another({name: dataclasses.replace(one, reference=None)})
    go(tab, bookless.url, panel="read", text="宝玉笑道")
    assert heat(tab).startswith("宝玉笑道")
    assert "not at hand" in tab.locator("#read-nobook").inner_text()
    go(tab, bookless.url, panel="chapters")
    tab.wait_for_selector("#curve p")
    assert "not at hand" in tab.locator("#curve").inner_text()
    go(tab, bookless.url, panel="write", prompt="宝玉", max_tokens=8)
    tab.click("#go")
    assert written(tab)


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
    tab.wait_for_selector("#written .token")
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
    assert "key" in tab.locator("#trouble").inner_text()
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
