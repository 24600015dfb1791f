"""The command that looks at a book before training, and settings that suit its length."""

import json
import random
import re
import resource

import pytest

from hlm_jax.book.fitting import fitting_settings

CHARS = "话说那日宝玉往潇湘馆来只见凤尾森龙吟细黛在里面叹了一声不觉滚下泪" * 3 + "，，，。。"


def body(n):
    """Five lines of their own for every chapter."""
    draw = random.Random(n)
    return "".join("".join(draw.choices(CHARS, k=40)) + "。\n" for _ in range(5))


@pytest.fixture
def novel(tmp_path):
    path = tmp_path / "novel.txt"
    table = "目录\n" + "".join(f"第{n}回 题目\n" for n in range(1, 13))
    text = "".join(f"第{n}回 题目\n第{n}段。{body(n)}" for n in range(1, 13) if n != 7)
    path.write_text("书名&amp;\n" + table + text, encoding="gb18030")
    return path


def test_the_report_of_a_book_is_one_json_object(script, novel):
    done = script("book", novel, "--json")
    assert done.returncode == 0
    out = json.loads(done.stdout)
    assert out["encoding"] == "gb18030"
    assert [c["number"] for c in out["chapters"]] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    tenth = out["chapters"][9]
    assert (tenth["heading"], tenth["split"]) == ("第11回 题目", "val")
    assert tenth["first"] == f"第11段。{body(11)}"[:40]
    assert tenth["chars"] == len(f"第11回 题目\n第11段。{body(11)}")
    assert [part["what"] for part in out["dropped"]] == [
        "table of contents",
        "before the first chapter",
    ]
    assert out["dropped"][1] == {"what": "before the first chapter", "chars": 4, "first": "书名&"}
    assert any("no chapter 7" in warning for warning in out["warnings"])
    assert 0.2 < out["tokens_per_character"] < 1.5
    assert out["settings"]["model.vocab_size"] < 5000


def test_the_report_for_people_names_the_same(script, novel):
    done = script("book", novel)
    assert done.returncode == 0
    for words in (
        "read as gb18030",
        "left out: table of contents",
        "held out: chapter 11 for validation, chapter 5 for the test",
        "warning: gap: no chapter 7",
        "第11回 题目",
        "tokens per character",
        f"bash scripts/quickstart.sh --config.corpus.path={novel}",
        "  cleaning: html_entities 1",
    ):
        assert words in done.stdout
    shown = re.findall(r"(?m)^chapter (\d+): (.+)$", done.stdout)
    assert len(shown) == 3  # paragraphs, in the book's order
    assert [int(n) for n, _ in shown] == sorted(int(n) for n, _ in shown)
    assert all(line.replace("&amp;", "&") in novel.read_text("gb18030") for _, line in shown)


def test_config_keys_are_set_as_in_training(script, novel):
    done = script("book", novel, "--json", "--config.corpus.heading=^第1.?回")
    assert [c["number"] for c in json.loads(done.stdout)["chapters"]] == [1, 10, 11, 12]
    done = script("book", novel, "--config.corpus.headin=x")
    assert (done.returncode, "did you mean corpus.heading?" in done.stderr) == (2, True)
    done = script("book", novel, "--config.corpus.heading=^nothing")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no line matches" in done.stderr


def test_settings_are_words_for_training(script, novel):
    words = script("book", novel, "--settings").stdout.split()
    keys = [word.split("=")[0].removeprefix("--config.") for word in words]
    intervals = ["train.eval_every_steps", "checkpoint.every_steps"]
    coverage = "tokenizer.character_coverage"
    assert keys == [coverage, "model.vocab_size", "train.steps", *intervals]
    fixed = ["--config.train.steps=500", "--config.model.vocab_size=450"]
    words = script("book", novel, "--settings", *fixed).stdout.split()
    assert [word.split("=")[0] for word in words] == [
        f"--config.{key}" for key in (coverage, *intervals)
    ]


def test_a_run_of_a_given_number_of_steps_is_evaluated_several_times(script, novel):
    words = script("book", novel, "--settings", "--config.train.steps=60").stdout.split()
    assert words[-2:] == [
        "--config.train.eval_every_steps=10",
        "--config.checkpoint.every_steps=10",
    ]
    fixed = ["--config.train.steps=60", "--config.train.eval_every_steps=30"]
    words = script("book", novel, "--settings", *fixed).stdout.split()
    assert not any("eval_every_steps" in word for word in words)
    words = script("book", novel, "--settings", "--config.train.steps=1200").stdout
    assert "every_steps" not in words


@pytest.mark.parametrize("last", [True, False])
def test_a_config_value_may_hold_spaces_and_stand_anywhere(script, novel, tmp_path, last):
    spaced = novel.rename(tmp_path / "my novel.txt")
    heading = "--config.corpus.heading=^第1.?回 题目 *$"
    words = [spaced, heading] if last else [heading, spaced]
    for given in (words, [f"--config.corpus.path={spaced}", heading]):
        done = script("book", "--json", *given)
        assert done.returncode == 0, done.stderr
        assert [c["number"] for c in json.loads(done.stdout)["chapters"]] == [1, 10, 11, 12]


def test_a_book_is_looked_at_from_any_folder(script, novel, monkeypatch):
    monkeypatch.chdir(novel.parent)
    done = script("book", novel.name)
    assert done.returncode == 0, done.stderr
    assert "scripts/quickstart.sh --config.corpus.path=novel.txt" in done.stdout


def test_a_book_is_given_once(script, novel):
    done = script("book", novel, "--config.corpus.path=other.txt")
    assert (done.returncode, "give the book once" in done.stderr) == (2, True)
    for word in ("", "--config.corpus.path="):  # a variable that is not set
        done = script("book", word)
        assert (done.returncode, "the name of the book is empty" in done.stderr) == (2, True)


def test_chapters_are_written_to_correct_them_by_hand(script, novel, tmp_path):
    done = script("book", novel, "--write", tmp_path / "chapters")
    assert done.returncode == 0
    assert "train on it" not in done.stdout  # it is not corrected yet
    for name in ("python scripts/book.py", "bash scripts/quickstart.sh"):
        assert f"{name} {tmp_path / 'chapters'}" in done.stderr
    again = json.loads(script("book", tmp_path / "chapters", "--json").stdout)
    before = json.loads(script("book", novel, "--json").stdout)
    assert again["chapters"] == before["chapters"]
    assert again["sha256"] == before["sha256"]
    done = script("book", tmp_path / "absent.txt", "--write", tmp_path / "chapters")
    assert (done.returncode, "is not empty" in done.stderr) == (2, True)  # before it is read


def test_a_book_that_stands_twice_is_named(script, tmp_path):
    lines = [f"第{n}回 题目\n" + f"第{n}段，{n}人，{n}事。" * 30 + "\n" for n in range(1, 12)]
    (tmp_path / "twice.txt").write_text("".join(lines * 2), encoding="utf-8")
    warnings = json.loads(script("book", tmp_path / "twice.txt", "--json").stdout)["warnings"]
    assert any("repeat chapters 1 to 11" in warning for warning in warnings)
    assert any("jump back" in warning for warning in warnings)
    assert "remove chapters 12 to 22" in warnings[-1]  # training ends with this line
    shown = script("book", tmp_path / "twice.txt").stdout
    assert "train on it" not in shown
    assert shown.splitlines()[-1] == f"error: training refuses this: {warnings[-1]}"
    assert f"warning: {warnings[-1]}" not in shown


def test_a_file_that_is_no_book_is_one_line(script, tmp_path):
    (tmp_path / "book.pdf").write_bytes(b"%PDF-1.7 \x00\x01")
    for path in (tmp_path / "book.pdf", tmp_path / "absent.txt"):
        done = script("book", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1


def test_a_short_contents_list_is_looked_at_without_an_error(script, tmp_path):
    text = "简介。\n" + "".join(f"第{n}回 题目\n" for n in range(1, 41))
    (tmp_path / "contents.txt").write_text(text, encoding="utf-8")
    out = json.loads(script("book", tmp_path / "contents.txt", "--json").stdout)
    assert not any(c["heading"] for c in out["chapters"])
    assert any("too short" in warning for warning in out["warnings"])


def seconds():
    """Of processors, by the processes that have ended: others that are busy do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


COUNTING = """
import collections, sys
text = open(sys.argv[1], encoding="utf-8").read()
for _ in range(10):
    collections.Counter(text[i : i + 3] for i in range(len(text)))
"""


@pytest.mark.slow
def test_a_book_of_a_megabyte_is_read_before_it_is_counted_ten_times(command, edition, tmp_path):
    """Side by side in turns: a slow or busy machine slows both. On an idle one, 0.6 against 1."""
    text = "".join(chapter.text for chapter in edition.chapters)[:340_000]
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    (tmp_path / "counting.py").write_text(COUNTING, encoding="utf-8")
    reading, counting = [], []
    for _ in range(3):
        start = seconds()
        done = command("scripts/book.py", tmp_path / "book.txt", "--json")
        between = seconds()
        counted = command(tmp_path / "counting.py", tmp_path / "book.txt")
        reading.append(between - start)
        counting.append(seconds() - between)
        assert done.returncode == counted.returncode == 0
    assert min(reading) < min(counting), (reading, counting)


@pytest.mark.parametrize(("chars", "smaller"), [(2_000, True), (300_000, False)])
def test_settings_suit_the_length_of_the_book(edition, chars, smaller):
    text = "".join(chapter.text for chapter in edition.chapters)[:chars]
    tokenizer, settings = fitting_settings(
        [text],
        vocab_size=3000,
        character_coverage=0.993,
        block_size=128,
        batch_size=16,
        steps=1200,
        eval_every_steps=200,
    )
    assert ("model.vocab_size" in settings) == smaller
    assert tokenizer.vocab_size == settings.get("model.vocab_size", 3000)
    if smaller:
        assert settings["train.steps"] == 60
        # Most tokens are characters and short words, not sentences.
        assert 0.6 < len(tokenizer.encode(text)) / len(text) < 1.2


def test_two_blocks_fit_into_a_short_book():
    text = body(1) + body(2)
    more = {"vocab_size": 3000, "character_coverage": 1.0, "batch_size": 16, "steps": 60}
    more["eval_every_steps"] = 10
    tokenizer, settings = fitting_settings([text], block_size=128, **more)
    tokens, block_size = len(tokenizer.encode(text)) + 1, settings["model.block_size"]
    assert 2 * block_size < tokens <= 4 * block_size
    _, settings = fitting_settings([text], block_size=128, fixed=["model.block_size"], **more)
    assert "model.block_size" not in settings
