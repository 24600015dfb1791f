"""What the page tells somebody who is new to it: waiting, refusals, limits, names, languages."""

import json
import re

import pytest
from browser import WAIT, go, hash_of, heat, written
from serving import wait_until

from hlm_jax.serving.page import page_html

pytest_plugins = ["browser"]
WARMING = {"message": "the server is warming up", "code": "warming_up"}


def refusal(tab, path, status, **error):
    """The server's next answers at this path are refusals."""
    body = {"error": {"type": "x", "param": None, "code": None} | error}
    tab.route(path, lambda route: route.fulfill(json=body, status=status))


def trouble(tab):
    tab.wait_for_selector("#trouble:not([hidden])")
    return tab.locator("#trouble span.en, #trouble span.zh").filter(visible=True).inner_text()


def streamed(*events):
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def chapters_of(models):
    reference = next(iter(models.values())).run.reference
    return [chapter for split in reference.splits.values() for chapter in split]


# --- a server that is not ready, or asks for a key ---


def test_a_server_that_compiles_is_waited_for_in_one_sentence(site, tab):
    refusal(tab, "**/v1/models", 503, **WARMING)
    tab.goto(f"{site.url}#panel=write&prompt=宝玉")
    assert "The page goes on by itself." in trouble(tab)
    assert tab.locator("#prompt").input_value() == "宝玉"
    for name in ("read", "chapters", "find", "compare", "write"):
        tab.click(f"#tab-{name}")
        assert tab.locator(f"#{name}").is_visible()
    tab.locator("#prompt").press("Control+Enter")
    for button in tab.locator("main .primary").all():
        assert button.is_disabled()
    assert not [url for url in tab.asked if "completions" in url]
    tab.unroute("**/v1/models")
    tab.wait_for_selector("html[data-begun]")
    assert tab.locator("#trouble").is_hidden()
    assert tab.locator("#go").is_enabled()


def test_a_key_that_is_wrong_was_not_accepted(another, tab, models):
    locked = another(models, api_key="open-sesame")
    tab.goto(locked.url)
    tab.wait_for_selector("#key-form:not([hidden])")
    assert "This server asks for a key" in tab.locator("#key-form").inner_text()
    assert tab.locator("#trouble").is_hidden()
    tab.fill("#key", "wrong")
    tab.press("#key", "Enter")
    assert trouble(tab) == "The server did not accept this key."


# --- Write ---


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("temperature", "-3", "Temperature: a number from 0 to 100."),
        ("top_p", "1.5", "top-p: a number from 0 to 1."),
        ("max_tokens", "2.5", "Tokens: a whole number from 1 to 4,096."),
    ],
)
def test_a_setting_is_checked_before_it_is_sent(site, tab, name, value, told):
    go(tab, site.url, panel="write", **{name: value})
    tab.click("#go")
    assert trouble(tab) == told
    assert tab.locator(f"[name={name}]").evaluate("node => node === document.activeElement")
    assert not [url for url in tab.asked if "completions" in url]


def test_a_refusal_keeps_what_was_written(site, tab):
    go(tab, site.url, panel="write", prompt="宝玉", max_tokens=12, seed=3)
    tab.click("#go")
    first = written(tab)
    message = "top_p must be a number from 0 to 1, not 7"
    refusal(tab, "**/v1/completions", 400, message=message, param="top_p")
    tab.click("#go")
    assert trouble(tab) == "top-p: a number from 0 to 1."
    assert written(tab) == first
    status = tab.locator("#write-status").inner_text()
    assert status == "The request was refused. The text is the one before it."
    assert tab.locator("#back").is_disabled()  # nothing was replaced
    tab.click("#language")
    assert trouble(tab) == "top-p：应为 0 到 1 之间的数。"
    tab.unroute("**/v1/completions")
    tab.route("**/v1/completions", lambda route: route.abort())
    tab.click("#go")
    tab.wait_for_selector("#trouble:not([hidden])")
    assert written(tab) == first
    refusal(tab, "**/v1/completions", 400, message="n is too much", param="n")
    tab.click("#go")
    wait_until(lambda: trouble(tab) == "服务器答：n is too much。", seconds=10)


def test_the_field_that_shares_its_name_with_a_button_is_sent(site, tab):
    bodies = []
    event = {"choices": [{"text": "好", "finish_reason": "stop", "logprobs": None}], "seed": 1}

    def answer(route):
        bodies.append(route.request.post_data_json)
        route.fulfill(body=streamed(event), status=200)

    tab.route("**/v1/completions", answer)
    go(tab, site.url, panel="write", stop="道")
    tab.click("#go")
    wait_until(lambda: "Finished" in tab.locator("#write-status").inner_text(), seconds=10)
    assert [body["stop"] for body in bodies] == [["道"]]


# --- Read ---


def test_a_long_chapter_is_not_read_by_character(site, tab, models):
    first, second = chapters_of(models)[:2]
    listed = [
        {"number": c.number, "heading": c.heading, "split": "val", "chars": chars}
        for c, chars in ((first, 5001), (second, 5000))
    ]
    tab.route("**/chapters?*", lambda route: route.fulfill(json={"chapters": listed}))
    go(tab, site.url, panel="read", ch=first.number, unit="char")
    heat(tab)
    assert tab.locator("#read-unit").input_value() == "token"
    assert tab.locator("#read-unit option[value=char]").is_disabled()
    assert "at most 5,000 characters" in tab.locator("#read-limit").inner_text()
    assert "5,000" in tab.locator("#read-unit").get_attribute("title")
    assert "unit" not in hash_of(tab)
    tab.select_option("#read-of", str(second.number))
    tab.wait_for_selector("#read-limit", state="hidden")
    assert tab.locator("#read-unit option[value=char]").is_enabled()


def test_a_place_wins_over_a_resting_mouse(site, tab, models):
    number = chapters_of(models)[0].number
    go(tab, site.url, panel="read", ch=number, at=4)
    heat(tab)
    box = tab.locator("#read-text span").nth(30).bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    details = tab.locator("#read-details")
    placed = details.inner_text()
    tab.mouse.move(x, y)
    wait_until(lambda: details.inner_text() != placed, seconds=10)
    pointed = details.inner_text()
    tab.evaluate("location.hash = location.hash.replace(/at=\\d+/, 'at=9')")
    wait_until(lambda: details.inner_text() != pointed, seconds=10)
    tab.evaluate("scrollBy(0, 1)")
    tab.wait_for_timeout(300)  # in which a browser tells what lies below the mouse
    chosen = tab.locator("#read-text .on").inner_text().replace("\n", "↵")
    assert tab.locator("#read-details .unit").inner_text() == chosen
    tab.mouse.move(x + box["width"] / 3, y + 1)
    wait_until(lambda: details.inner_text() == pointed, seconds=10)


def test_a_text_of_another_script_is_told(site, tab):
    strange = "寶釵聽說這話龘靐齉爩鱻麤灪籲爨驫"
    go(tab, site.url, panel="read", text=strange)
    heat(tab)
    assert "unknown to the model" in tab.locator("#read-status").inner_text()
    go(tab, site.url, panel="read", text="宝玉笑道，")
    heat(tab)
    assert tab.locator("#read-status").inner_text() == ""


def test_a_long_text_is_not_in_the_address(site, tab):
    go(tab, site.url, panel="read", text="宝玉")
    heat(tab)
    assert "keeps what you see" in tab.locator("footer").inner_text()
    tab.fill("#read-words", "宝玉笑道。" * 301)
    tab.click("#read-form button[type=submit]")
    tab.wait_for_selector("#read-dropped:not([hidden])")
    heat(tab)
    assert "does not keep your text" in tab.locator("footer").inner_text()
    assert "text" not in hash_of(tab)
    tab.click("#tab-find")
    assert "keeps what you see" in tab.locator("footer").inner_text()


def test_what_an_address_names_in_vain_is_told(site, tab, models):
    go(tab, site.url, panel="read", ch=999)
    heat(tab)
    told = trouble(tab)
    assert told.startswith("The book has no chapter “999”: chapter ")
    assert re.search(r"chapter (\d+) is shown", told)[1] == hash_of(tab)["ch"]
    go(tab, site.url, panel="write", model="nobody")
    assert trouble(tab) == f"No model “nobody” is served here: this is {next(iter(models))}."
    go(tab, site.url, panel="compare", first="nobody")
    assert trouble(tab).startswith("No model “nobody” is served here")


# --- Find, Compare ---


def test_a_search_is_sent_once(site, tab):
    go(tab, site.url, panel="find")
    assert "Type one or more words" in tab.locator("#find-status").inner_text()
    held = []
    tab.route("**/kwic?*", lambda route: held.append(route))
    tab.fill("#words", "宝.")
    tab.check("#regex")
    wait_until(lambda: tab.wait_for_timeout(20) or held, seconds=10)
    tab.click("#find-form .primary")
    tab.wait_for_timeout(200)
    assert len(held) == 1
    tab.fill("#words", "黛.")
    tab.click("#find-form .primary")
    wait_until(lambda: tab.wait_for_timeout(20) or len(held) == 2, seconds=10)
    assert held[0].request.failure  # it was cancelled
    held[1].continue_()
    tab.wait_for_selector("#hits-table tbody tr")
    tab.fill("#width", "1000")
    tab.click("#find-form .primary")
    assert trouble(tab) == "width: a whole number from 0 to 100."
    assert len(held) == 2


def test_a_model_is_not_compared_with_itself(site, tab, models):
    go(tab, site.url, panel="compare", first=next(iter(models)), second=next(iter(models)))
    assert trouble(tab) == "Choose two different models."
    assert not [url for url in tab.asked if url.endswith("/compare")]
    tab.select_option("#compare-second", list(models)[1])
    heat(tab, "compare")
    assert tab.locator("#trouble").is_hidden()


# --- files, languages, narrow screens ---


def test_a_file_is_named_by_what_is_in_it(site, tab, models):
    model, number = next(iter(models)), chapters_of(models)[0].number
    go(tab, site.url, panel="read", ch=number)
    heat(tab)
    with tab.expect_download() as waiting:
        tab.click("#read-csv")
    assert waiting.value.suggested_filename.endswith(f"-chapter-{number}-surprisal.csv")
    with open(waiting.value.path(), "rb") as file:
        assert file.read(6) == b"\xef\xbb\xbfdoc"
    go(tab, site.url, panel="find", words="宝/玉 道")
    tab.wait_for_selector("#hits-table tbody tr")
    with tab.expect_download() as waiting:
        tab.click("#find-csv")
    name = re.sub(r"[^\w.@-]+", "_", model)
    assert waiting.value.suggested_filename == f"{name[:40]}-宝_玉_道.csv"


@pytest.mark.parametrize(
    ("locale", "kept", "word"),
    [("zh-CN", None, "写作"), ("zh-TW", "en", "Write"), ("de-DE", None, "Write")],
)
def test_the_first_visit_speaks_the_language_of_the_browser(browser, site, locale, kept, word):
    context = browser.new_context(locale=locale)
    context.set_default_timeout(WAIT)
    if kept:
        context.add_init_script(f"localStorage.setItem('hlm-lang', '{kept}')")
    page = context.new_page()
    go(page, site.url, panel="write")
    assert page.locator("#tab-write").inner_text() == word
    context.close()


def test_titles_are_in_both_languages(site, tab):
    titles = re.findall(r'data-title="([^"]*)"', page_html())
    assert len(titles) > 8
    assert all(re.fullmatch(r"[^|]+\|[^|]*[\u4e00-\u9fff][^|]*", title) for title in titles)
    go(tab, site.url, panel="write")
    label = tab.locator("label[data-title]", has_text="top-p")
    assert label.get_attribute("title").startswith("only the likeliest tokens")
    tab.click("#language")
    assert label.get_attribute("title").startswith("只在")


def test_a_narrow_screen_says_that_the_curve_goes_on(site, tab):
    tab.set_viewport_size({"width": 390, "height": 800})
    go(tab, site.url, panel="chapters")
    tab.wait_for_selector("#curve svg")
    assert tab.locator("#curve-hint").is_visible()
    go(tab, site.url, panel="find", words="道")
    tab.wait_for_selector("#hits-table tbody tr")
    for side, to in (("left", "right"), ("right", "left")):
        context = tab.locator(f"#hits-table .{side} div").first
        mask = context.evaluate("node => getComputedStyle(node).maskImage")
        assert mask.startswith(f"linear-gradient(to {to}, rgba(0, 0, 0, 0)")
