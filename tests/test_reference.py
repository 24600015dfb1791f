import numpy as np
import pytest

from hlm_jax.book.corpus import Chapter, load_corpus, split_chapters
from hlm_jax.book.extra import extra_report, load_extra
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Mixture
from hlm_jax.measures.reference import Reference

SPLIT = {"held_out": True, "train_every": 1}


def corpus_of(path, cache_dir="data"):
    return {
        "path": str(path),
        "edition": "zhiyanzhai",
        "cache_dir": str(cache_dir),
        "convert": "",
        "parts": 20,
    }


@pytest.fixture(scope="module")
def recorded(book):
    return load_corpus(**corpus_of(book)).report


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_opening_a_reference_leaves_no_file_behind(book, recorded, here):
    reference = Reference.open(corpus_of(book), SPLIT, recorded)
    assert {name: len(chapters) for name, chapters in reference.splits.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }
    assert list(here.iterdir()) == []


def test_the_book_may_have_moved(book, recorded, here, tmp_path):
    moved = tmp_path / "moved.txt"
    moved.write_bytes(book.read_bytes())
    reference = Reference.open(corpus_of(moved), SPLIT, recorded)
    assert reference.splits == Reference.open(corpus_of(book), SPLIT, recorded).splits


@pytest.mark.parametrize("change", [b"", b"\xe7\x8e\x89"], ids=["missing", "another text"])
def test_what_is_not_the_text_is_refused_in_one_line(book, recorded, here, tmp_path, change):
    path = tmp_path / "other.txt"
    if change:
        path.write_bytes(book.read_bytes() + change)
    with pytest.raises(UserError) as error:
        Reference.open(corpus_of(path), SPLIT, recorded)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith("--corpus BOOK")
    assert str(path) in message


def test_an_edition_that_cannot_be_fetched_is_one_line_too(here, recorded, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError) as error:
        Reference.open(corpus_of(""), SPLIT, recorded)
    assert "\n" not in str(error.value)
    assert "--corpus BOOK" in str(error.value)
    assert "--config" not in str(error.value)
    assert list(here.iterdir()) == []


@pytest.fixture(scope="module")
def splits(edition):
    chapters = [Chapter(c.number, c.heading, c.text[:1500]) for c in edition.chapters[:40]]
    return split_chapters(chapters, held_out=True)


def test_the_baseline_is_fitted_on_the_training_chapters(splits):
    reference = Reference(splits)
    train, val = splits["train"][0].text, splits["val"][0].text
    assert reference.baseline_bits_per_char([train]) < 3
    assert 5 < reference.baseline_bits_per_char([val]) < 9
    assert reference.baseline_bits_per_char([train, val]) == pytest.approx(
        (reference.baseline.bits(train) + reference.baseline.bits(val)) / (len(train) + len(val))
    )


def test_the_human_overlap_is_that_of_held_out_chapters(splits):
    human = Reference(splits).human_overlap
    assert human.chars == sum(len(chapter.text) for chapter in splits["val"])
    assert human.copied_fraction < 0.05
    assert 0.5 < human.seen_fraction(2) < 1


def test_a_run_that_trains_on_all_chapters_holds_some_out_for_the_human_overlap(splits):
    chapters = [chapter for of_split in splits.values() for chapter in of_split]
    chapters.sort(key=lambda chapter: chapter.number)
    everything = Reference(split_chapters(chapters, held_out=False))
    assert everything.human_overlap == Reference(splits).human_overlap
    # The index itself holds all chapters.
    text = splits["val"][0].text[:200]
    assert everything.overlap_index.measure(text).copied_fraction == 1.0
    assert Reference(splits).overlap_index.measure(text).copied_fraction < 0.2


def test_a_short_book_is_split_for_the_human_overlap_and_one_chapter_has_none():
    chapters = [Chapter(number, "", "宝玉笑道。") for number in range(1, 10)]
    human = Reference(split_chapters(chapters, held_out=False)).human_overlap
    assert human is not None
    assert human.chars == 5  # one chapter of the nine
    assert Reference(split_chapters(chapters[:1], held_out=False)).human_overlap is None


def test_a_book_in_a_folder_that_is_closed_to_the_reader_is_one_line(tmp_path, monkeypatch):
    from pathlib import Path

    def closed(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", closed)
    place = {"path": str(tmp_path / "book.txt"), "edition": "zhiyanzhai", "cache_dir": "data"}
    with pytest.raises(UserError, match=r"Permission denied.*--corpus BOOK"):
        Reference.open(
            place | {"convert": "", "parts": 20}, {"held_out": True}, {"sha256": "0" * 64}
        )


# --- further texts ---


@pytest.fixture(scope="module")
def extra_file(edition, tmp_path_factory):
    path = tmp_path_factory.mktemp("extra") / "后文.txt"
    path.write_text(
        "".join(c.text[:1500] + "\n" for c in edition.chapters[40:70]), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def extra(extra_file):
    return load_extra([str(extra_file)], convert="", drop_brackets="", parts=20)


@pytest.fixture(scope="module")
def with_extra(splits, extra):
    return Reference(splits, extra)


def test_the_mixed_baseline_is_of_the_book_and_of_all_texts(with_extra, splits, extra):
    train, val = ([chapter.text for chapter in splits[name]] for name in ("train", "val"))
    alone, everything = KneserNey(train), KneserNey([*train, *(c.text for c in extra[0].chapters)])
    p, q = (np.concatenate([m.probabilities(t) for t in val]) for m in (alone, everything))
    weight = with_extra.mixed_weight
    assert 0 < weight < 1
    assert with_extra.mixed_bits_per_char(val) == pytest.approx(
        -np.log2((1 - weight) * p + weight * q).mean(), rel=1e-12
    )
    # No other weight costs less.
    costs = [-np.log2((1 - w) * p + w * q).mean() for w in np.linspace(0, 1, 101)]
    assert with_extra.mixed_bits_per_char(val) <= min(costs) + 1e-5
    assert abs(weight - np.argmin(costs) / 100) <= 0.01
    assert with_extra.mixed_bits_per_char(val) < with_extra.baseline_bits_per_char(val)
    text = splits["test"][0].text
    assert with_extra.mixed_bits_per_char(text) == with_extra.mixed_bits_per_char([text])
    assert with_extra.baselines([text]) == (
        with_extra.baseline_bits_per_char(text),
        with_extra.mixed_bits_per_char(text),
    )


def test_a_mixture_of_two_models_is_a_distribution_over_all_of_unicode():
    texts, others = ["宝玉笑道：好。宝玉道：好。"], ["黛玉笑道：不好。"]
    mixed = Mixture(KneserNey(texts), KneserNey(texts + others), ["宝玉笑道：好。", "黛玉笑道。"])
    assert 0 < mixed.weight < 1
    # Each model has its own unknown characters: 黛 and 不 are such of the first alone.
    characters = sorted({char for text in texts + others for char in text})
    unknown = 0x110000 - 0x800 - len(characters)
    for context in ("", "宝玉", "黛玉笑", "龘宝"):
        total = sum(mixed.probabilities(context + char)[-1] for char in characters)
        total += mixed.probabilities(context + "龘")[-1] * unknown
        assert total == pytest.approx(1.0, abs=1e-12)


def test_there_is_no_mixed_baseline_without_further_texts_or_validation_chapters(splits, extra):
    chapters = [chapter for of_split in splits.values() for chapter in of_split]
    everything = split_chapters(chapters, held_out=False)
    for reference in (
        Reference(splits),
        Reference(everything, extra),
    ):
        assert reference.mixed_baseline is None
        assert reference.mixed_weight is None
        assert reference.mixed_bits_per_char("宝玉") is None
        assert reference.baselines(["宝玉"])[1] is None
        assert reference.baselines(["宝玉"])[0] > 0


def test_what_is_copied_from_a_further_text_is_named(with_extra, splits, extra):
    chapter = extra[0].chapters[2]
    text = splits["val"][0].text[:50] + chapter.text[100:160] + splits["val"][0].text[50:80]
    measured = with_extra.extra_overlap_index.measure(text)
    longest = max(measured.longest, key=lambda span: span.end - span.start)
    assert chapter.text[100:160] in text[longest.start : longest.end]
    assert with_extra.extra_place(longest.chapter) == "后文, chapter 43"
    line = with_extra.describe_extra_overlap(text)
    length = longest.end - longest.start
    assert line.startswith(
        "recitation of the further texts: copied spans of 15+ "
        f"{measured.copied_fraction:.1%} of the characters (held-out chapters "
    )
    assert line.endswith(f"longest {length} (后文, chapter 43)")
    # The figures of the book do not know the further texts.
    assert with_extra.overlap_index.measure(text) == Reference(splits).overlap_index.measure(text)
    assert with_extra.human_overlap == Reference(splits).human_overlap


def test_places_go_through_all_further_texts(splits, extra_file, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("从来没有人写过这样的句子，谁也不曾见它。\n", encoding="utf-8")
    texts = load_extra([str(extra_file), str(short)], convert="", drop_brackets="", parts=20)
    reference = Reference(splits, texts)
    line = reference.describe_extra_overlap("没有人写过这样的句子，谁也不曾见它")
    assert line.endswith("longest 17 (short, chapter 1)")
    assert reference.describe_extra_overlap("XYZ").endswith("no character of it is in them")


def test_without_further_texts_nothing_is_said_of_them(splits):
    reference = Reference(splits)
    assert reference.extra == []
    assert reference.extra_overlap_index is None
    assert reference.extra_human_overlap is None
    assert reference.describe_extra_overlap("宝玉") == ""


def test_further_texts_are_read_when_they_are_asked_for(book, recorded, here, extra_file, extra):
    place = corpus_of(book)
    rows = extra_report(extra)
    gone = [rows[0] | {"path": str(extra_file) + ".gone"}]
    reference = Reference.open(place, SPLIT, recorded | {"extra": gone})
    assert reference.baseline_bits_per_char("宝玉") > 0
    with pytest.raises(UserError, match=r"^corpus\.extra: .*\.gone"):
        reference.mixed_bits_per_char("宝玉")
    told = []
    assert reference.with_readable_extra(told.append).mixed_bits_per_char("宝玉") is None
    (note,) = told
    assert note.startswith("no 5-gram with the further texts: corpus.extra: ")
    for name in ("extra", "former_extra"):  # that it reads, and that it has read before
        reference = Reference.open(place, SPLIT, recorded | {name: rows})
        assert reference.with_readable_extra(told.append) is reference
        assert [text.chapters for text in reference.extra] == [text.chapters for text in extra]
    assert len(told) == 1
    assert list(here.iterdir()) == []


def test_a_further_text_that_has_changed_is_refused(book, recorded, extra_file, extra, tmp_path):
    changed = tmp_path / "changed.txt"
    changed.write_text(extra_file.read_text(encoding="utf-8") + "又。\n", encoding="utf-8")
    rows = [row | {"path": str(changed)} for row in extra_report(extra)]
    reference = Reference.open(corpus_of(book), SPLIT, recorded | {"extra": rows})
    with pytest.raises(UserError, match=r"changed\.txt is not the text that was trained on"):
        _ = reference.extra
