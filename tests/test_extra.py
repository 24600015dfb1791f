"""Further texts: how they are read, refused, told of, and what a run trained on them shows."""

import json
import random
import re
import shutil

import opencc
import pytest

from hlm_jax import checkpoint
from hlm_jax.book.corpus import Chapter, clean_text, split_chapters, write_chapters
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.extra import describe_extra, extra_report, load_extra
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import find_held_out, held_out_problems, refuse_held_out
from tests.books import HEADINGS, book, written


def load(*paths, convert="", drop_brackets="", parts=20):
    words = [str(path) for path in paths]
    return load_extra(words, convert=convert, drop_brackets=drop_brackets, parts=parts)


def prose(seed, length):
    """Random Chinese characters in paragraphs: no 24-gram of two seeds is the same."""
    characters = [chr(code) for code in range(0x4E00, 0x5E00)] + list("，。\n") * 200
    return "".join(random.Random(seed).choices(characters, k=length))


# --- reading ---


def test_further_texts_are_cleaned_like_a_book_and_keep_their_order(tmp_path):
    plain = written(tmp_path / "b.txt", book(*HEADINGS))
    dirty = book(*HEADINGS[:5]).replace("黛玉", "黛玉【此批】")
    dirty = written(tmp_path / "a.txt", dirty.replace("话说", "　　话说").replace("\n", "\r\n\r\n"))
    first, second = load(plain, dirty, drop_brackets="【】")
    assert [first.name, second.name] == ["b", "a"]
    assert [len(text.chapters) for text in (first, second)] == [12, 5]
    assert [c.text for c in second.chapters] == [c.text for c in first.chapters[:5]]


def test_a_further_text_is_converted_as_the_book_is(tmp_path):
    path = written(tmp_path / "a.txt", "寶玉說話，黛玉聽見。\n" * 40)
    assert "宝玉说话，黛玉听见。" in load(path, convert="t2s")[0].chapters[0].text


@pytest.mark.parametrize("text", ["宝玉笑道：好。", "宝玉笑道：好。\n黛玉不语。\n"])
def test_a_short_text_is_no_mistake(tmp_path, text):
    (short,) = load(written(tmp_path / "a.txt", text))
    assert "".join(chapter.text for chapter in short.chapters) == clean_text(text)
    assert short.problem == ""
    assert not any("too short" in line or "held out" in line for line in short.report["warnings"])


def test_warnings_about_what_is_held_out_do_not_concern_a_further_text(tmp_path):
    (few,) = load(written(tmp_path / "a.txt", book(*HEADINGS[:5])))
    assert len(few.chapters) == 5
    assert few.report["warnings"] == []
    (gap,) = load(written(tmp_path / "b.txt", book(*HEADINGS[:6], *HEADINGS[8:])))
    assert any(line.startswith("gap: no chapter 7") for line in gap.report["warnings"])


def test_the_same_path_twice_is_refused_however_it_is_written(tmp_path, monkeypatch):
    path = written(tmp_path / "a.txt", book(*HEADINGS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.txt").symlink_to(path)
    for other in (path, "a.txt", "./a.txt", "link.txt"):
        with pytest.raises(CorpusError, match=r"^corpus\.extra names .* twice: give every text o"):
            load(path, other)


def test_the_same_text_in_two_files_is_refused_and_both_are_named(tmp_path):
    first = written(tmp_path / "a.txt", book(*HEADINGS))
    layout = book(*HEADINGS).replace("\n", "\r\n\r\n　　")
    second = written(tmp_path / "b.txt", layout)
    with pytest.raises(CorpusError) as error:
        load(first, second)
    assert str(error.value) == (
        f"corpus.extra: {first} and {second} are the same text: give one of them"
    )


@pytest.mark.parametrize("content", [None, "", " \n\n　"], ids=["missing", "empty", "blank"])
def test_a_text_that_is_missing_or_empty_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "a.txt"
    if content is not None:
        written(path, content)
    with pytest.raises(CorpusError) as error:
        load(path)
    assert str(error.value).startswith("corpus.extra: ")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_path_does_not_stand_for_the_edition():
    with pytest.raises(CorpusError, match="an empty path"):
        load("")


# --- the report ---


def test_the_report_says_what_was_read_and_is_json(tmp_path, monkeypatch):
    path = written(tmp_path / "a.txt", book(*HEADINGS))
    monkeypatch.chdir(tmp_path)
    texts = load("a.txt")
    (row,) = extra_report(texts)
    assert json.loads(json.dumps(row)) == row
    assert row == {
        "name": "a",
        "path": str(path),
        "sha256": texts[0].report["sha256"],
        "chapters": 12,
        "characters": sum(len(chapter.text) for chapter in texts[0].chapters),
        "warnings": [],
    }


def test_two_lines_for_the_terminal():
    def row(name, *warnings):
        return {"name": name, "chapters": 40, "characters": 700_000, "warnings": list(warnings)}

    assert describe_extra([]) == ""
    assert describe_extra([row("a", "note: it is fine"), row("b")]) == (
        "further texts: 2, 1,400,000 characters in 80 chapters, trained on at first and never "
        "scored"
    )
    lines = describe_extra([row("a", "note: fine", "gap: no chapter 7"), row("b", "b: x", "y")])
    assert lines.splitlines()[1] == "  warning: b: x (1 more in corpus.json)"


# --- held-out chapters in further texts ---


def another_edition(chapter, seed):
    """The chapter in other words: one character of 15 is another one, as between editions."""
    draw = random.Random(seed)
    body = [chr(draw.randrange(0x4E00, 0x5E00)) if draw.random() < 1 / 15 else c for c in chapter]
    return "".join(body)


@pytest.fixture(scope="module")
def splits(edition):
    chapters = [Chapter(c.number, c.heading, c.text[:4000]) for c in edition.chapters[:20]]
    return split_chapters(chapters, held_out=True)


@pytest.fixture(scope="module")
def other_edition(edition, tmp_path_factory):
    """A file of another edition of the first twenty chapters."""
    path = tmp_path_factory.mktemp("extra") / "other edition.txt"
    parts = [
        f"{c.heading}\n{another_edition(c.body[:4000], c.number)}\n" for c in edition.chapters[:20]
    ]
    return written(path, "".join(parts))


def test_an_edition_of_the_book_is_refused_by_chapter_and_passes_without_these(
    splits, other_edition, tmp_path
):
    (text,) = load(other_edition)
    found = find_held_out([text], splits)
    assert [(one.place.number, one.chapter.number) for one in found] == [
        (5, 5),
        (10, 10),
        (15, 15),
        (20, 20),
    ]
    with pytest.raises(UserError) as error:
        refuse_held_out(found)
    message = str(error.value)
    assert re.fullmatch(
        re.escape(str(other_edition)) + r" holds held-out chapters of the book: its chapters 5, "
        r"10, 15, 20 hold the chapters of these numbers, \d+% to \d+% of each word for word; "
        r"leave them out of corpus\.extra: python scripts/book\.py '.*other edition\.txt' --write "
        r"DIR writes one file per chapter; delete those files and give DIR",
        message,
    )
    # As the message says.
    folder = write_chapters(text, tmp_path / "chapters")
    for number in (5, 10, 15, 20):
        (file,) = folder.glob(f"{number:03d} *")
        file.unlink()
    (left,) = load(folder)
    assert len(left.chapters) == 16
    assert find_held_out([left], splits) == ()


def test_another_script_and_other_variants_hide_nothing(splits, other_edition, tmp_path):
    text = opencc.OpenCC("s2t").convert(other_edition.read_text(encoding="utf-8"))
    (traditional,) = load(written(tmp_path / "a.txt", text))
    with pytest.raises(UserError, match="its chapters 5, 10, 15, 20 hold"):
        refuse_held_out(find_held_out([traditional], splits))


def test_other_books_and_further_chapters_of_the_same_novel_pass(edition, splits, tmp_path):
    random_book = "".join(f"{heading}\n{prose(n, 3000)}\n" for n, heading in enumerate(HEADINGS))
    rest = "".join(chapter.text for chapter in edition.chapters[20:60])
    texts = load(written(tmp_path / "a.txt", random_book), written(tmp_path / "b.txt", rest))
    found = find_held_out(texts, splits)
    refuse_held_out(found)
    assert held_out_problems(found) == []


def test_a_folder_with_a_file_for_each_chapter_is_to_be_copied_without_them(
    edition, splits, other_edition, tmp_path
):
    folder = write_chapters(load(other_edition)[0], tmp_path / "chapters")
    with pytest.raises(UserError, match=r"give a copy of that folder without their files$"):
        refuse_held_out(find_held_out(load(folder), splits))


def test_gaps_in_a_further_text_are_in_the_report_alone(tmp_path):
    path = written(tmp_path / "b.txt", book(*HEADINGS[:6], *HEADINGS[8:]))
    rows = extra_report(load(path))
    assert any(line.startswith("gap: no chapter 7") for line in rows[0]["warnings"])
    assert "warning" not in describe_extra(rows)


def test_where_nothing_is_held_out_an_edition_is_welcome(edition, other_edition):
    splits = split_chapters(edition.chapters[:20], held_out=False)
    assert find_held_out(load(other_edition), splits) == ()


# --- a run ---


@pytest.fixture(scope="module")
def extra_file(edition, tmp_path_factory):
    """Forty short chapters of the novel that the tiny book lacks."""
    path = tmp_path_factory.mktemp("further") / "more.txt"
    return written(path, "".join(c.text[:700] + "\n" for c in edition.chapters[20:60]))


@pytest.fixture(scope="module")
def run_with_extra(train, extra_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "extra"
    done = train(workdir, f"corpus.extra={extra_file}")
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.slow
def test_scores_stand_beside_both_baselines(run_with_extra, script):
    workdir, _ = run_with_extra
    done = script("evaluate", "--workdir", workdir, "--json", "--per_chapter")
    row = json.loads(done.stdout)
    assert row["ngram_with_extra_bits_per_char"] < row["ngram_bits_per_char"]
    for chapter in row["chapters"]:
        assert chapter["ngram_with_extra_bits_per_char"] > 0
    said = script("evaluate", "--workdir", workdir).stdout
    for name in ("ngram_bits_per_char", "ngram_with_extra_bits_per_char"):
        assert f"{row[name]:.4f}, ratio {row['bits_per_char'] / row[name]:.4f}" in said


@pytest.mark.slow
def test_a_text_from_a_further_text_was_trained_on(run_with_extra, edition, script, tmp_path):
    workdir, _ = run_with_extra
    path = written(tmp_path / "passage.txt", edition.chapters[22].text[100:500])
    done = script("evaluate", "--workdir", workdir, "--text", path, "--json")
    assert "learned from the text that is scored (more, chapter 23)" in done.stderr
    assert list(json.loads(done.stdout)["trained_on"].values()) == [[1]]
    path = written(tmp_path / "other.txt", edition.chapters[70].text[100:500])
    done = script("evaluate", "--workdir", workdir, "--text", path, "--json")
    assert "TRAINED ON" not in done.stderr
    assert "trained_on" not in json.loads(done.stdout)


@pytest.mark.slow
def test_a_further_text_that_is_gone_costs_one_note(run_with_extra, extra_file, script, tmp_path):
    workdir, _ = run_with_extra
    kept = tmp_path / "kept.txt"
    shutil.move(extra_file, kept)
    try:
        done = script("evaluate", "--workdir", workdir, "--json")
    finally:
        shutil.move(kept, extra_file)
    assert done.returncode == 0
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: no 5-gram with the further texts: corpus.extra: ")
    assert str(extra_file) in note
    row = json.loads(done.stdout)
    assert "ngram_with_extra_bits_per_char" not in row
    assert row["ngram_bits_per_char"] > 0


def test_a_run_without_further_texts_has_no_figure_of_them(trained, script):
    row = json.loads(script("evaluate", "--workdir", trained[0], "--json").stdout)
    assert "ngram_with_extra_bits_per_char" not in row


def test_training_refuses_an_edition_of_its_book(train, edition, tmp_path):
    chapters = [f"{c.heading}\n{c.body[:700]}\n" for c in edition.chapters[:20]]
    path = written(tmp_path / "edition.txt", "".join(chapters))
    done = train(tmp_path / "run", f"corpus.extra={path}")
    assert done.returncode == 2
    assert "holds held-out chapters of the book: its chapters 5, 10, 15, 20 hold" in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.fixture(scope="module")
def two_texts(edition, tmp_path_factory):
    """Two texts of the same name in two folders."""
    chapters = [chapter.text[:900] + "\n" for chapter in edition.chapters[30:38]]
    folder = tmp_path_factory.mktemp("two")
    paths = []
    for name, texts in (("a", chapters[:4]), ("b", chapters[4:])):
        (folder / name).mkdir()
        paths.append(folder / name / "text.txt")
        paths[-1].write_text("".join(texts), encoding="utf-8")
    return paths


@pytest.mark.slow
def test_a_run_with_further_texts_goes_on_also_where_they_are_gone_at_the_end(
    train, two_texts, tmp_path
):
    paths = [shutil.copy(path, tmp_path / f"{path.parent.name}.txt") for path in two_texts]
    texts = "corpus.extra=" + ",".join(map(str, two_texts))
    early = ("corpus.extra_hold=0.3", "corpus.extra_end=0.5")
    workdir = tmp_path / "run"
    done = train(workdir, texts, *early, "train.steps=6")
    assert done.returncode == 0, done.stderr
    assert "further texts: 2" in done.stdout
    # The same texts: nothing changes, and the share ended at step 6 of 12.
    done = train(workdir, texts, *early, "train.steps=12")
    assert done.returncode == 0, done.stderr
    assert "from step 6 on: train.steps 6 -> 12" in done.stdout
    two_texts[1].unlink()
    try:
        done = train(workdir, texts, *early, "train.steps=12", "train.log_every_steps=2")
        assert "this run is done" in done.stdout, done.stderr
        # Longer, so that windows of it would be read again.
        done = train(workdir, texts, *early, "train.steps=40")
        assert done.returncode == 2
        assert "leave --config.corpus.extra out" in done.stderr
        assert checkpoint.steps_in(workdir)[-1] == 12
        done = train(workdir, "train.steps=13")
        assert done.returncode == 0, done.stderr
        assert "a further text of before is left out of comparisons" in done.stdout
    finally:
        shutil.copy(paths[1], two_texts[1])


def test_a_changed_further_text_is_refused(train, two_texts, tmp_path):
    own = shutil.copy(two_texts[0], tmp_path / "own.txt")
    words = (f"corpus.extra={own}", "corpus.extra_end=1", "train.steps=6")
    assert train(tmp_path / "run", *words).returncode == 0
    own.write_text(own.read_text(encoding="utf-8").replace("一", "二"), encoding="utf-8")
    done = train(tmp_path / "run", *words, "checkpoint.keep_latest=3")
    assert done.returncode == 2
    assert f"{own} is not the text that the run was trained on" in done.stderr


def test_a_further_text_that_would_never_be_read_is_refused(train, trained, two_texts, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    done = train(workdir, f"corpus.extra={two_texts[0]}", "train.steps=18")
    assert done.returncode == 2
    assert "corpus.extra is never trained on: its share of the windows ends" in done.stderr
