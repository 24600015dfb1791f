import collections
import csv
import itertools

import numpy as np
import pytest

from hlm_jax.analysis import books
from hlm_jax.analysis.authorship.delta import Scale, distances
from hlm_jax.analysis.stylometry import (
    Components,
    Features,
    coordinates,
    figures,
    grams,
    rolling_distances,
    slices,
    stylo,
    survey,
    units,
    ward,
    zeta,
)
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError

TEXTS = ["甲乙甲丙。", "甲乙乙丁，丁。", "丙丙甲乙！"]


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chapters_of(rng, weights, count=6, length=400, first=1):
    """Chapters of random characters, more or less of each."""
    letters = list("甲乙丙丁戊己庚辛")
    p = np.array(weights) / np.sum(weights)
    return [
        Chapter(
            first + k,
            f"第{first + k}回",
            f"第{first + k}回\n" + "".join(rng.choice(letters, length, p=p)),
        )
        for k in range(count)
    ]


@pytest.fixture(scope="module")
def two_hands():
    rng = np.random.default_rng(0)
    a = chapters_of(rng, [8, 7, 6, 5, 4, 3, 2, 1])
    b = chapters_of(rng, [5, 7, 9, 5, 4, 3, 2, 4], first=7)
    return a, b


# --- units ---


def test_a_unit_is_a_han_character_or_a_word():
    assert units("宝玉 said “Don't go” 3 次。\n完") == [
        *("宝", "玉", "said", "", "don't", "go", "", "", "次", "", "", "完")
    ]
    assert units("了。\n好", punctuation=True) == ["了", "。", "", "好"]


def test_pairs_do_not_run_over_marks_and_paragraphs():
    assert grams("宝玉笑，道\n好", 2) == ["宝玉", "玉笑", None, None, None]
    assert grams("Of the men. They", 2) == ["of the", "the men", None, None]
    assert grams("玉，道", 2, punctuation=True) == ["玉，", "，道", None]
    assert grams("宝玉", 1) == ["宝", "玉"]


def test_frequencies_by_hand():
    features = Features.of(TEXTS, 3)
    assert features.names == ("乙", "甲", "丙")  # 4, 4, 3 and 丁 2; equal ones by code point
    assert features.counts == (4, 4, 3)
    per = 10_000 * np.array([[1, 2, 1], [2, 1, 0], [1, 1, 2]]) / [[4], [5], [4]]
    assert features.frequencies(TEXTS) == pytest.approx(per)
    assert features.frequencies(["", "甲"]) == pytest.approx(np.array([[0, 0, 0], [0, 1e4, 0]]))
    assert Features.of(TEXTS, 99, 2).frequencies(["甲乙。甲乙"]).max() == 5000  # 2 of 4 units
    with pytest.raises(UserError, match="two features"):
        Features.of(["甲甲"], 5)


def test_frequencies_against_a_count_of_the_novel(edition):
    texts = [chapter.body for chapter in edition.chapters[:3]]
    for n in (1, 2):
        features = Features.of(texts, 50, n)
        for text, row in zip(texts, features.frequencies(texts), strict=True):
            total = sum(map(str.isalpha, text))
            expected = [10_000 * text.count(name) / total for name in features.names]
            # text.count does not see that 哥哥哥 has two pairs
            assert row == pytest.approx(expected, rel=0.05, abs=3)
            if n == 1:
                assert row == pytest.approx(expected)


# --- distances and components ---


def test_delta_by_hand():
    frequencies = np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 10.0]])
    z = Scale.of(frequencies).z(frequencies)
    # means 2 and 6, deviations 1 and √12
    assert z == pytest.approx(np.array([[-1, -2 / 12**0.5], [0, -2 / 12**0.5], [1, 4 / 12**0.5]]))
    got = distances(z, z, "delta")
    assert got[0, 1] == pytest.approx(1 / 2)
    assert got[0, 2] == pytest.approx((2 + 6 / 12**0.5) / 2)
    eder = distances(z, z, "eder")
    assert eder[0, 2] == pytest.approx((2 * 1 + 6 / 12**0.5 * 0.5) / 2)
    product = -1 - 8 / 12
    lengths = np.sqrt(1 + 4 / 12) * np.sqrt(1 + 16 / 12)
    assert distances(z, z, "cosine")[0, 2] == pytest.approx(1 - product / lengths)
    raw = coordinates(frequencies, Scale.of(frequencies), "manhattan")
    assert raw is frequencies


def test_delta_and_cosine_against_scipy(edition):
    from scipy.spatial.distance import cdist

    texts = [chapter.body for chapter in edition.chapters[:12]]
    frequencies = Features.of(texts, 60).frequencies(texts)
    z = Scale.of(frequencies).z(frequencies)
    deviation = np.sqrt(((frequencies - frequencies.mean(axis=0)) ** 2).sum(axis=0) / 11)
    oracle = (frequencies - frequencies.mean(axis=0)) / deviation
    assert z == pytest.approx(oracle)
    assert distances(z, z, "delta") == pytest.approx(cdist(oracle, oracle, "cityblock") / 60)
    assert distances(z, z, "cosine") == pytest.approx(cdist(oracle, oracle, "cosine"), abs=1e-12)


def test_components_against_eigenvectors():
    z = np.random.default_rng(1).normal(size=(9, 5)) * [3, 1, 1, 1, 0.5]
    got = Components.of(z)
    values, vectors = np.linalg.eigh(np.cov(z.T))
    first, second = vectors[:, -1], vectors[:, -2]
    assert np.abs(got.loadings_FK.T @ np.stack([first, second], axis=1)) == pytest.approx(
        np.eye(2), abs=1e-9
    )
    assert got.explained_K == pytest.approx(values[::-1][:2] / values.sum())
    assert got.scores_NK == pytest.approx((z - z.mean(axis=0)) @ got.loadings_FK)
    assert got.project(z) == pytest.approx(got.scores_NK)
    assert (got.loadings_FK.max(axis=0) == np.abs(got.loadings_FK).max(axis=0)).all()


def test_the_tree_joins_the_nearest_first():
    points = np.array([[0.0], [0.1], [5.0], [5.3]])
    joined = ward(distances(points, points, "manhattan"))
    assert {frozenset(row[:2]) for row in joined[:2]} == {frozenset({0, 1}), frozenset({2, 3})}


# --- slices ---


def test_slices_against_counting(two_hands):
    texts = [chapter.body for chapter in two_hands[0]]
    for n in (1, 2):
        features = Features.of(texts, 6, n)
        found = slices(features, texts, 150, 70)
        whole = "".join(texts)
        assert [one.start for one in found] == list(range(0, len(whole) - 149, 70))
        for one in found[::5]:
            piece = whole[one.start : one.start + 150]
            pairs = collections.Counter(
                piece[i : i + n]
                for i in range(150 - n + 1)
                if (one.start + i) // 400 == (one.start + i + n - 1) // 400  # inside a chapter
            )
            expected = [10_000 * pairs[name] / 150 for name in features.names]
            assert one.frequencies_F == pytest.approx(expected)
            assert (one.first, one.last) == (one.start // 400, (one.start + 149) // 400)
            assert one.place == pytest.approx((one.start + 75) / 400)
    with pytest.raises(UserError, match="smaller --slice"):
        slices(features, texts, 10_000, 70)


def test_a_slice_is_not_compared_with_its_own_text(two_hands):
    a, b = two_hands
    texts = [chapter.body for chapter in (*a, *b)]
    features = Features.of(texts, 8)
    frequencies = features.frequencies(texts)
    scale, found = Scale.of(frequencies), slices(features, texts, 400, 100)
    members = np.arange(12) < 6
    got = rolling_distances(found, frequencies, scale, members)
    for one, value in zip(found, got, strict=True):
        others = [i for i in range(6) if not one.first <= i <= one.last]
        profile = scale.z(frequencies)[others].mean(axis=0)
        expected = np.abs(scale.z(one.frequencies_F[None])[0] - profile).mean()
        assert value == pytest.approx(expected)
    alone = rolling_distances(found[:1], frequencies, scale, np.arange(12) == 0)
    assert np.isnan(alone[0])


# --- Zeta ---


def test_zeta_by_hand():
    a = ["甲甲乙丙", "甲乙乙乙"]  # segments of two: 甲甲, 乙丙, 甲乙, 乙乙
    b = ["丙丙丙丙", "丙乙丙丙"]  # 丙丙, 丙丙, 丙乙, 丙丙
    got = {one.name: one for one in zeta(a, b, segment=2, least=1)}
    assert got["甲"].zeta == pytest.approx(2 / 4 + 4 / 4)
    assert got["乙"].zeta == pytest.approx(3 / 4 + 3 / 4)
    assert got["丙"].zeta == pytest.approx(1 / 4 + 0 / 4)
    assert (got["丙"].share_a, got["丙"].share_b) == (0.25, 1.0)
    assert (got["甲"].per_a, got["甲"].per_b) == (pytest.approx(3750), 0)
    assert [one.name for one in zeta(a, b, segment=2, least=4)][-1] == "丙"
    assert {one.name for one in zeta(a, b, segment=2, least=4)} == {"乙", "丙"}
    mirrored = {one.name: one.zeta for one in zeta(b, a, segment=2, least=1)}
    assert mirrored == pytest.approx({name: 2 - one.zeta for name, one in got.items()})


def test_zeta_leaves_no_text_out():
    text = "".join(chr(0x4E00 + i) for i in range(999))
    got = zeta([text], ["甲" * 50], segment=100, least=1)
    assert len(got) == 1000
    assert sum(one.share_a for one in got) == pytest.approx(999 / 10)
    with pytest.raises(UserError, match="one has none"):
        zeta([text], ["。"])


# --- R's stylo ---


def read_table(text):
    """What R's read.table() makes of a text: white space between fields, quoted strings, row names
    where the header is one field shorter; a backslash keeps a quotation mark after it."""
    rows = []
    for line in text.splitlines():
        fields, i = [], 0
        while i < len(line):
            if line[i].isspace():
                i += 1
            elif line[i] == '"':
                end, field = i + 1, ""
                while line[end] != '"':
                    end += line[end : end + 2] == '\\"'
                    field += line[end]
                    end += 1
                fields.append(field)
                i = end + 1
            else:
                end = next((k for k in range(i, len(line)) if line[k].isspace()), len(line))
                fields.append(line[i:end])
                i = end
        rows.append(fields)
    assert all(len(row) == len(rows[0]) + 1 for row in rows[1:])
    return rows[0], [row[0] for row in rows[1:]], np.array([row[1:] for row in rows[1:]], float)


def test_the_table_for_stylo_reads_back():
    names = ["了", '"', "\\", "#", "of the", "don't"]
    table = np.arange(12.0).reshape(2, 6) / 7
    samples, features, values = read_table(stylo.table_text(["A_001", "B_002"], names, table))
    assert samples == ["A_001", "B_002"]
    kept = [name != "\\" for name in names]
    assert features == [name for name in names if name != "\\"]
    assert values == pytest.approx(table.T[kept], rel=1e-6)


def test_the_folder_for_stylo(tmp_path, two_hands):
    a, b = two_hands
    chapters = [*a, *b]
    features = Features.of([chapter.body for chapter in chapters], 5000)
    groups = ["A"] * 6 + ["B"] * 6
    folder = stylo.write_stylo(tmp_path / "stylo", chapters, groups, features).parent
    names = sorted(path.name for path in (folder / "corpus").iterdir())
    assert names[:1] + names[-1:] == ["A_001.txt", "B_012.txt"]
    samples, rows, values = read_table((folder / stylo.TABLE).read_text(encoding="utf-8"))
    assert [f"{name}.txt" for name in samples] == names
    assert values.sum(axis=0) == pytest.approx(np.full(12, 100))  # percent of all characters
    # each character is a word of the text file, and no heading is in it
    words = (folder / "corpus" / names[0]).read_text(encoding="utf-8").split()
    assert collections.Counter(words) == collections.Counter(a[0].body.strip())
    assert values[rows.index("甲"), 0] == pytest.approx(100 * words.count("甲") / len(words))
    stylo.write_stylo(folder, chapters, groups, features)  # again, over its own files
    with pytest.raises(UserError, match="has other files"):
        stylo.write_stylo(folder, a[:2], groups[:2], features)


# --- the whole ---


def test_a_survey_tells_two_hands_apart(two_hands, tmp_path):
    a, b = two_hands
    settings = survey.Settings(features=8, size=400, step=50, segment=10, milestones=(6,))
    found = survey.Survey([*a, *b], settings, a, b)
    survey.write_tables(found, tmp_path)
    lines = survey.lines(found)
    assert lines[0].startswith("12 chapters; 8 features, 100% of the text; Burrows' Delta")
    assert any(line.startswith("Zeta, single, preferred by A: 甲") for line in lines)

    near = read(tmp_path / "rolling.csv")
    assert all(row["first_chapter"] <= row["last_chapter"] for row in near[:4])
    inside = [r for r in near if int(r["last_chapter"]) <= 6 or int(r["first_chapter"]) >= 7]
    right = [
        (float(r["distance_a"]) < float(r["distance_b"])) == (int(r["last_chapter"]) <= 6)
        for r in inside
    ]
    assert np.mean(right) > 0.9
    matrix = read(tmp_path / "distances.csv")
    got = np.array([[float(row[str(n)]) for n in range(1, 13)] for row in matrix])
    assert got == pytest.approx(found.distances_NN, rel=1e-5)
    frequencies = read(tmp_path / "frequencies.csv")
    assert float(frequencies[0]["甲"]) == pytest.approx(10_000 * a[0].body.count("甲") / 400)
    assert [row["set"] for row in read(tmp_path / "pca.csv")] == ["A"] * 6 + ["B"] * 6


def test_what_a_survey_refuses(two_hands):
    a, b = two_hands
    every, settings = [*a, *b], survey.Settings(size=100, step=100)
    for chapters, sets, message in [
        (a[:2], ((), ()), "at least 3"),
        (every, (a, ()), "give both sets"),
        (every, (a, [*b, a[0]]), "chapters 1 stand in both"),
        (a, (a[:3], b), "7-12 of --a or --b are not among"),
    ]:
        with pytest.raises(UserError, match=message):
            survey.Survey(chapters, settings, *sets)
    with pytest.raises(UserError, match="milestone 99"):
        survey.Survey(a, survey.Settings(size=100, milestones=(99,)))


def test_numbers_stand_for_characters_without_a_font(monkeypatch):
    monkeypatch.setattr(figures, "cjk_font", lambda: None)
    figures._tell.cache_clear()
    with pytest.warns(UserWarning, match="Noto Sans CJK"):
        assert figures.shown(["宝", "the"]) == ["1", "2"]
    assert figures.shown(["of", "the"]) == ["of", "the"]
    assert figures.drawable("红楼梦 hlm") == "hlm"


def test_chapters_by_words(two_hands):
    a, _ = two_hands
    assert [c.number for c in books.select(a, "1-2, 5")] == [1, 2, 5]
    for words, message in [("", "give numbers"), ("1-9", "no chapter 7-9"), ("x", "'x' is no")]:
        with pytest.raises(UserError, match=message):
            books.select(a, words, "--a")


def test_the_command(script, book, tmp_path):
    out, folder = tmp_path / "out", tmp_path / "stylo"
    words = ["--a", "1-10", "--b", "11-20", "--slice", 500, "--step", 250, "--milestones", 10]
    done = script("stylometry", book, *words, "--out", out, "--stylo", folder)
    assert done.returncode == 0, done.stderr
    assert "Zeta, pairs, preferred by B:" in done.stdout
    assert len(read(out / "rolling.csv")) > 10
    for name in ("dendrogram", "pca", "rolling", "zeta-1", "zeta-2"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    samples, _, _ = read_table((folder / stylo.TABLE).read_text(encoding="utf-8"))
    assert samples[0] == "A_001"
    for more, message in [
        (["--a", "1-10"], "give both sets"),
        (["--features", "1"], "ask for two or more"),
        (["--slice", "999999"], "smaller --slice"),
        (["--chapters", "1-99"], "it has 1-20"),
    ]:
        done = script("stylometry", book, *more, "--out", tmp_path / "no")
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "no").exists()
    assert list(itertools.chain(out.glob(".*"))) == []  # no partial file is left
