"""The panels Read, Chapters, Find and Compare of the page, used as a reader does in chromium."""

import dataclasses
import re

import pytest
from browser import go, hash_of, heat, written
from serving import wait_until

pytest_plugins = ["browser"]


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
    with open(waiting.value.path(), encoding="utf-8-sig") as file:
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
        with open(waiting.value.path(), encoding="utf-8-sig") as file:
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
    with open(waiting.value.path(), encoding="utf-8-sig") as file:
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
