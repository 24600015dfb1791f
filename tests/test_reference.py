import pytest

from hlm_jax.book.corpus import Chapter, load_corpus, split_chapters
from hlm_jax.errors import UserError
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
