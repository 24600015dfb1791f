"""Lines broken at a fixed width: which are joined, and which must not be."""

import random
import re
import textwrap

import pytest

from hlm_jax.book.wraps import join_wrapped

CLAUSES = re.findall(
    r"\S+",
    "却说那日天色将晚 众人都在堂上坐着 忽听外面一声响 他便起身往园里去了 只见月色如水 竹影满地 "
    "心中自是欢喜 不知不觉走到桥边 有一个老者迎上来说道 公子从何处来 我在此等候多时了 "
    "他吃了一惊 忙问老人家如何认得我 那人笑而不答 只把袖子一拂 便不见了",
)
VERSE = ["春风吹过小桥东，几树桃花映水红。", "独坐江边人不见，一声归雁月明中。"]
LINE = "那老者听了这话半晌不语只是摇头叹气慢慢走"
HEADING = "第二回　老者桥边指迷路　公子月下遇故人"
ENGLISH = re.findall(
    r"\S+",
    "the old man came slowly down the hill and looked about him for a while before he spoke again "
    "with that quiet voice which every child in the village knew so well although nobody could say "
    "where he had lived in former years nor why he had returned at last to such a lonely place",
)
SONNET = [
    "When evening falls upon the quiet shore",
    "And all the boats are gathered in the bay,",
    "I hear the voices that I heard before",
    "And count the hours that have passed away.",
]


def chinese_paragraphs(n=60):
    draw = random.Random(1)
    return [
        "".join(
            draw.choice(CLAUSES) + draw.choice("，，，，。") for _ in range(draw.randint(0, 24))
        )
        + draw.choice(CLAUSES)
        + draw.choice("。。！？")
        for _ in range(n)
    ]


def english_paragraphs(n=40):
    draw = random.Random(2)
    return [
        " ".join(draw.choice(ENGLISH) for _ in range(draw.randint(5, 120))).capitalize() + "."
        for _ in range(n)
    ]


def wrapped(paragraph, width, first="　　", hanging=True):
    """As a typesetter breaks lines: no line begins with a mark; it hangs over the edge."""
    lines, line = [], first
    for i, char in enumerate(paragraph):
        line += char
        if len(line) >= width and not (hanging and paragraph[i + 1 : i + 2] in "，。！？"):
            lines.append(line)
            line = ""
    return [*lines, line] if line else lines


def joined(text):
    """The text with its lines joined; joining twice must change nothing more."""
    (done,), count, notes = join_wrapped([text])
    (again,), more, _ = join_wrapped([done])
    assert (again, more) == (done, 0)
    return done, count, notes


def lines_of(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize("width", [22, 30, 36, 40])
@pytest.mark.parametrize("layout", ["indented", "blank lines", "double spaced", "four spaces"])
def test_chinese_paragraphs_come_back(width, layout):
    paragraphs = chinese_paragraphs()
    texts, between = [], "\n"
    for i, paragraph in enumerate(paragraphs):
        first = "　　" if layout in ("indented", "double spaced") else ""
        first = "    " if layout == "four spaces" else first
        texts += wrapped(paragraph, width, first, hanging=i % 2 == 0 or width != 22)
        if layout == "blank lines":
            texts.append("")
    if layout == "double spaced":
        between = "\n\n"
    done, count, notes = joined(between.join(texts) + "\n")
    assert lines_of(done) == paragraphs
    words = "characters were joined into paragraphs"
    assert notes == [f"note: lines of {width} {words} ({count:,} joins)"]
    assert count == sum(bool(text) for text in texts) - len(paragraphs)


def test_verse_and_headings_of_a_wrapped_chinese_book_stay():
    texts, right = [], []
    for i, paragraph in enumerate(chinese_paragraphs()):
        texts += wrapped(paragraph, 30)
        right.append(paragraph)
        if i % 10 == 0:
            texts += [HEADING, *("　　　　" + line for line in VERSE)]
            right += [HEADING, *VERSE]
    assert lines_of(joined("\n".join(texts))[0]) == right


def test_indentation_that_every_line_has_tells_no_paragraph():
    paragraphs = chinese_paragraphs()
    texts = [
        "　　" + line.strip() for paragraph in paragraphs for line in wrapped(paragraph, 32, "　　")
    ]
    done, _, notes = joined("\n\n".join(texts))
    assert notes[-1].endswith("of the joins follow the end of a sentence and may be wrong")
    right = sum(line in paragraphs for line in lines_of(done))
    assert right > 0.9 * len(paragraphs)


@pytest.mark.parametrize(
    "lines",
    [
        ["　　" + paragraph for paragraph in chinese_paragraphs()],
        VERSE * 40,
        [VERSE[0] + VERSE[1]] * 40,  # 32 characters each
        [VERSE[0] + VERSE[1][:-1], VERSE[1] + VERSE[0][:-1]] * 40,
        [f"第{n}回　老者桥边指点迷路　公子月下巧遇故人" for n in "一二三四五六七八九十"] * 5,
        ["张三李四王五赵六钱七孙八周九吴十郑一王二刘"] * 40,
        [LINE[:n] + "，" + LINE[n:] + "。" for n in range(3, 15)] * 5,
        [part for p in chinese_paragraphs(300) if 70 < len(p) < 130 for part in (p[:30], p[30:])],
        ["春眠不觉晓", "处处闻啼鸟"] * 40,
        SONNET * 20,
        [" ".join(paragraph.split()[:60]) for paragraph in english_paragraphs()],
        ["안녕하세요 저는 오늘 아침에 학교에 갔습니다 그리고"] * 50,
    ],
    ids=[
        "paragraphs",
        "verse",
        "long verse",
        "open verse",
        "contents",
        "names",
        "proverbs",
        "with longer lines",
        "short verse",
        "sonnet",
        "en",
        "ko",
    ],
)
def test_lines_that_are_not_wrapped_stay(lines):
    text = "\n".join(lines) + "\n"
    assert join_wrapped([text])[:2] == ([text], 0)


def test_a_heading_or_paragraph_below_a_full_or_nearly_full_line_stays():
    texts = [line for paragraph in chinese_paragraphs() for line in wrapped(paragraph, 30, "")]
    full = "他又说了一回话，吃了两杯茶，便叫人取了灯来送他们回家去。"
    assert len(full) == 28
    for end in (
        f"{full[:-1]}罢了。\n第二回 老者指路",
        f"第二回 {full[:-1]}\n老者指路",
        f"{full[1:]}又。\n老者指路",
    ):
        assert joined("\n".join([*texts, end]))[0].endswith("\n" + end)


def test_speech_below_a_full_line_begins_a_paragraph():
    texts = []
    for i, paragraph in enumerate(chinese_paragraphs()):
        texts += wrapped(f"“{paragraph}”" if i % 2 else paragraph, 30, "")
    end = "他又说了一回话，吃了两杯茶，便叫人取了灯来送他们回家去罢了。\n“老者指路。”"
    assert joined("\n".join([*texts, end]))[0].endswith("\n" + end)


def test_verse_in_a_book_of_uneven_lines_stays():
    draw = random.Random(4)
    texts, right = [], []
    for paragraph in english_paragraphs():
        lines, words = [""], paragraph.split()
        width = draw.randint(54, 66)
        for word in words:
            if len(lines[-1]) + len(word) >= width:
                lines.append("")
                width = draw.randint(54, 66)
            lines[-1] = f"{lines[-1]} {word}".strip()
        texts += ["\n".join(lines), "\n".join(f"{line} of the night" for line in SONNET)]
        right += [paragraph, *(f"{line} of the night" for line in SONNET)]
    done = lines_of(joined("\n\n".join(texts))[0])
    assert sum(line in done for line in right) > 0.97 * len(right)


@pytest.mark.parametrize("width", [65, 72, 78])
@pytest.mark.parametrize("blank", [True, False])
def test_english_paragraphs_verse_and_letters_come_back(width, blank):
    texts, right = [], []
    for i, paragraph in enumerate(english_paragraphs()):
        texts.append(textwrap.fill(paragraph, width, initial_indent="" if blank else "  "))
        right.append(paragraph)
        if blank and i % 8 == 0:
            texts += ["CHAPTER IV.", "\n".join(SONNET), "    " + "\n    ".join(SONNET)]
            texts += ["MY DEAR NIECE,", "Yours, very sincerely,\n        M. GARDINER."]
            right += ["CHAPTER IV.", *SONNET, *SONNET, "MY DEAR NIECE,"]
            right += ["Yours, very sincerely,", "M. GARDINER."]
    done, count, notes = joined(("\n\n" if blank else "\n").join(texts) + "\n")
    assert lines_of(done) == right
    assert f"({count:,} joins)" in notes[0]


@pytest.mark.parametrize(
    ("a", "b", "right"),
    [
        ("some-", "thing", "something"),  # "something" stands elsewhere
        ("well-", "known", "well-known"),  # and so does "well-known"
        ("odd-", "ity", "odd-ity"),  # neither is known: the hyphen stays
        ("left--", "and", "left--and"),
        ("left", "and", "left and"),
    ],
)
def test_a_word_at_the_end_of_a_line(a, b, right):
    known = "There is something in it and he is well-known."
    prose = [textwrap.fill(paragraph, 60) for paragraph in english_paragraphs()]
    line = f"it was very c{'o' * (45 - len(a))}ld {a}"  # 60 characters
    text = "\n\n".join([known, *prose, f"{line}\n{b} then he went away from here again."])
    assert f" {right} then he went" in joined(text)[0]


def test_a_list_below_a_full_line_stays():
    prose = [textwrap.fill(paragraph, 60) for paragraph in english_paragraphs()]
    full = "He named the three things that he wanted from the village:"
    text = "\n\n".join([*prose, f"{full}\n1. bread from the baker\n2. wine"])
    assert f"{full}\n1. bread from the baker\n2. wine" in joined(text)[0]


def test_short_files_of_one_book_are_judged_together():
    paragraphs = chinese_paragraphs()
    texts = ["\n".join(wrapped(paragraph, 30)) for paragraph in paragraphs]
    done, _, notes = join_wrapped(texts)
    assert [text.strip() for text in done] == paragraphs
    assert len(notes) == 1


def test_broken_lines_of_no_one_width_are_noted():
    draw = random.Random(3)
    text = "".join(chinese_paragraphs())
    lines = []
    while text:
        n = draw.randint(22, 60)
        lines.append(text[:n])
        text = text[n:]
    done, count, notes = join_wrapped(["\n".join(lines)])
    assert (done, count) == (["\n".join(lines)], 0)
    assert notes == ["most lines end inside a sentence but at no one width; they were left"]
