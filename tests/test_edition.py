import hashlib
import re

import pytest
from conftest import REPO

from hlm_jax.book import edition
from hlm_jax.book.edition import EditionError, Mend

SHA256 = {
    1: "886623827e4219502ead860dd3629fdb8c3d59be5b529f68825be85b7d9dc63c",
    2: "c20fad691bbc9c17e2269e132c03d02af48f547a1ecdfd8ac5622d8d54f35951",
}
REASONS = {
    *("bytes", "doubled", "lost", "extra", "glyph", "word", "order"),
    *("quote", "dash", "line", "variant"),
}


@pytest.fixture(scope="module")
def raw():
    return edition.fetch(REPO / "data" / "zhiyanzhai")


@pytest.fixture(scope="module")
def cleaned(raw):
    """(text, counts) of each revision."""
    return {revision: edition.clean(raw, revision) for revision in SHA256}


@pytest.fixture(scope="module")
def text(cleaned):
    return cleaned[edition.REVISION][0]


def test_edition_has_80_plausible_chapters_and_no_commentary(text):
    chapters = re.split(r"(?m)^(?=第\S{1,4}回\u3000)", text)[1:]
    assert len(chapters) == edition.N_CHAPTERS
    assert "".join(chapters) == text
    assert not re.search("[【】]|侧批|眉批|夹批|校者注|脂批|（按|畸笏|庚辰本", text)
    assert not re.search(r"[a-zA-Z0-9<>\"'#\ue000-\uf8ff□■]", text)
    assert all(
        re.fullmatch(r"第[一二三四五六七八九十]+回\u3000\S+\u3000\S+", chapter.split("\n")[0])
        for chapter in chapters
    )
    assert all(4_000 < len(chapter) < 13_000 and chapter.endswith("\n") for chapter in chapters)
    assert not re.search(r"\n\n|\n[ \u3000]|[ \u3000]\n| ", text)
    assert chapters[0].split("\n")[1].startswith("列位看官：你道此书从何而来")


@pytest.mark.parametrize("revision", SHA256)
def test_the_text_of_a_revision_that_runs_were_trained_on_never_changes(cleaned, revision):
    text, _ = cleaned[revision]
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256[revision]


def test_the_newest_revision_is_the_one_that_is_used(raw, cleaned):
    assert max(SHA256) == edition.REVISION
    assert edition.clean(raw) == cleaned[edition.REVISION]


@pytest.mark.parametrize("revision", [0, 3, -1, "2", None])
def test_an_unknown_revision_is_one_line(revision):
    with pytest.raises(EditionError, match=r"no revision .*: use 1 to 2") as error:
        edition.clean("", revision)
    assert "\n" not in str(error.value)


def test_the_counts_name_the_rules_of_the_revision(cleaned):
    rules = {rule.__name__.strip("_") for rule in edition.RULES}
    assert set(cleaned[2][1]) == rules
    assert set(cleaned[1][1]) == rules - {"mends"}
    for _, counts in cleaned.values():
        assert counts["commentary"] == 4100
        assert counts["byte_shift"] == 253
    assert cleaned[2][1]["mends"] == 259


# --- The tables of mended places. ---


def test_every_repair_applies_and_most_are_proved_by_the_bytes_that_survived():
    rows = edition.repairs()
    proved = sum(edition.proved_by_bytes(*row) for row in rows)
    assert len(rows) == 247
    assert proved == 216
    assert edition.proved_by_bytes("其艳若何？ 加 澄塘", "其艳若何？霞映澄塘")
    assert not edition.proved_by_bytes("其艳若何？ 加 澄塘", "其艳若何？月照澄塘")


@pytest.mark.parametrize(
    ("gaps", "mended"),
    [("告诉 司司四 去", "告诉舅舅舅母去"), ("恰 当很 走来", "恰值焙茗走来")],
)
def test_the_mends_of_lost_bytes_are_proved_by_the_bytes_that_survived(gaps, mended):
    """The source closed the gaps that other damaged places still show."""
    damaged = gaps.replace(" ", "")
    rows = [(row.damaged, row.mended) for row in edition.mends() if row.reason == "bytes"]
    assert (damaged, mended) in rows
    assert len(rows) == 2
    assert edition.proved_by_bytes(gaps, mended)
    assert not edition.proved_by_bytes(damaged, mended)


def test_every_row_of_the_mends_has_a_known_reason_and_changes_something():
    for row in edition.mends():
        kind, colon, remark = row.reason.partition(": ")
        assert kind in REASONS, row
        assert (kind == "variant") == (row.damaged == row.mended) == bool(colon and remark), row
        assert list(row.chapters) == sorted(row.chapters), row


def test_the_variants_were_looked_at_and_stand_in_the_text(cleaned):
    variants = [row.damaged for row in edition.mends() if row.damaged == row.mended]
    assert len(variants) == 29
    for text, _ in cleaned.values():
        assert all(text.count(variant) == 1 for variant in variants)


def test_a_mended_reading_replaces_the_damaged_one(cleaned):
    (old, _), (new, _) = cleaned[1], cleaned[2]
    for row in edition.mends():
        if row.damaged not in row.mended:
            assert row.damaged not in new
        assert row.mended in new
    assert edition._mends(old)[0] == new
    with pytest.raises(EditionError, match=r"mends\.tsv: '胔' should stand in the chapters \[9"):
        edition._mends(new)  # nothing is left to mend


TWO_CHAPTERS = "第一回　甲　乙\n歇歇。歇歇。风姐\n第二回　丙　丁\n风姐风姐\n"


@pytest.mark.parametrize(
    ("row", "count", "mended"),
    [
        (Mend((1,), "歇歇。歇歇。", "歇歇。", "doubled"), 1, TWO_CHAPTERS.replace("歇歇。", "", 1)),
        (Mend((1, 2, 2), "风姐", "凤姐", "glyph"), 3, TWO_CHAPTERS.replace("风", "凤")),
        (Mend((2,), "丙　丁", "丙　戊", "glyph"), 1, TWO_CHAPTERS.replace("丁", "戊")),
        (Mend((2,), "风姐风姐", "风姐风姐", "variant: 凤姐"), 0, TWO_CHAPTERS),
    ],
)
def test_a_row_mends_every_place_that_it_names(row, count, mended):
    assert edition.apply_mends(TWO_CHAPTERS, [row]) == (mended, count)


@pytest.mark.parametrize(
    "chapters",
    [(1,), (2,), (1, 2), (1, 1, 2), (1, 2, 2, 2), (0, 1, 2, 2)],
)
def test_a_row_that_does_not_fit_the_text_stops_the_cleaning(chapters):
    with pytest.raises(EditionError, match=r"'风姐' should stand in .* it stands in \[1, 2, 2\]"):
        edition.apply_mends(TWO_CHAPTERS, [Mend(chapters, "风姐", "凤姐", "glyph")])


def test_rows_apply_in_order():
    rows = [Mend((1, 2, 2), "风姐", "凤姐", "glyph"), Mend((2,), "凤姐凤姐", "凤姐", "doubled")]
    text, n = edition.apply_mends(TWO_CHAPTERS, rows)
    assert text.endswith("丁\n凤姐\n")
    assert n == 4


@pytest.mark.parametrize(
    "passage",
    [
        # Mended from the bytes.
        "尤氏等送至大厅，只见灯烛辉煌，众小厮都在丹墀侍立",
        "乳名宝钗，生得肌骨莹润，举止娴雅",
        "囊中尚有一把鸳鸯剑，乃吾家传代之宝",
        "谁按着你的头，叫你必定说这些字样呢？",
    ],
)
def test_repaired_passages_read_as_the_novel_does_in_every_revision(cleaned, passage):
    assert all(passage in text for text, _ in cleaned.values())


@pytest.mark.parametrize(
    "passage",
    [
        "我告诉舅舅舅母去。”说到“欺负”两个字上",
        "便抽身躲了过去。恰值焙茗走来，见那丫头在门前",
        "赶早打扫两间下房，让他们去歇歇。”\n说话时，已摆了茶果上来",
        "滴不尽相思血泪抛红豆，\n开不完春柳春花满画楼，\n睡不稳纱窗风雨黄昏后，",
        "窗隔疏灯描远近，篱筛破月锁玲珑。",
        "酒未敌腥还用菊，性防积冷定须姜。\n于今落釜成何益，月浦空余禾黍香。",
        "大相矛盾了。诸公不知，待蠢物将原委说明，大家方知。",
        "竟是荳字别致，便换作“荳童”。",
        "写道是：\n姽婳将军林四娘，玉为肌骨铁为肠，",
        "孰料鸠鸩恶其高，鹰鸷翻遭罦罬；薋葹妒其臭，茝兰竟被芟鉏！",
        "许你们这样鬼鬼祟祟的干什么故事？",
        "把银子都花的像淌海水似的！",
        "说不尽这太平景象，富贵风流。——此时自己回想当初在大荒山中",
        "那绛珠仙子道：‘他是甘露之惠，我并无此水可还。",
        "却是茗烟按着一个女孩子，也干那警幻所训之事",
    ],
)
def test_mended_passages_read_as_the_novel_does_since_revision_2(cleaned, passage):
    assert passage in cleaned[2][0]
    assert passage not in cleaned[1][0]


# --- The rules alone. ---


@pytest.mark.parametrize(
    ("raw", "rule", "clean"),
    [
        ("宝玉【甲：妙【又：极】。】笑道", "commentary", "宝玉笑道"),
        ("贤袭人【庚辰侧批：当得起。】娇嗔箴宝玉", "commentary", "贤袭人娇嗔箴宝玉"),
        ("前一段。\n批语之末。】\n后一段。", "commentary", "前一段。\n\n后一段。"),
        ("名……，（按：此处有缺文。）内曾", "editorial_notes", "名……，内曾"),
        ("他道：”好。“\n", "quotes", "他道：“好。”\n"),
        ('他道："好。"便去', "quotes", "他道：“好。”便去"),
        ("你──好", "glyphs", "你——好"),
        ("　　段一。　　段二。\n\n\n段三。\n", "spacing", "段一。\n段二。\n段三。\n"),
    ],
)
def test_each_rule_alone(raw, rule, clean):
    text, count = getattr(edition, f"_{rule}")(raw)
    assert text == clean
    assert count >= 1


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("commentary", "宝玉笑道（低声）：“好。”"),
        ("editorial_notes", "宝玉（二人）按着次序，音乐大作。"),
        ("quotes", "他道：“他说：‘好。’”便去。"),
        ("glyphs", "你——好，皇后"),
        ("spacing", "却说。\n宝玉道：“好。”\n"),
        ("strange_characters", "却说‘宝玉’，［收尾·飞鸟］……——\n"),
    ],
)
def test_a_rule_leaves_other_text_alone(rule, text):
    assert getattr(edition, f"_{rule}")(text) == (text, 0)


def test_unbalanced_commentary_and_strange_characters_stop_the_cleaning():
    with pytest.raises(EditionError, match="unbalanced"):
        edition._commentary("宝玉【甲戌侧批：妙")
    with pytest.raises(EditionError, match=r"U\+25A1"):
        edition._strange_characters("贾□")


# --- Fetching. ---


def test_cache_works_offline_and_without_cache_two_lines_say_what_to_do(tmp_path, monkeypatch, raw):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EditionError) as error:
        edition.fetch(tmp_path / "zhiyanzhai")
    assert len(str(error.value).splitlines()) == 2
    assert "--config.corpus.path=BOOK.txt" in str(error.value)
    assert edition.fetch(REPO / "data" / "zhiyanzhai") == raw


def test_a_damaged_download_is_refused():
    with pytest.raises(EditionError, match="sha256"):
        edition._verify(b"something else", edition.MEMBER_SHA256, "book")


def test_a_damaged_cache_is_not_read(tmp_path, raw):
    path = tmp_path / "source.txt"
    assert edition.read_source(path) is None
    data = (REPO / "data" / "zhiyanzhai" / "source.txt").read_bytes()
    path.write_bytes(data)
    assert edition.read_source(path) == raw
    path.write_bytes(data[:-1])
    assert edition.read_source(path) is None


@pytest.mark.parametrize("write_cache", [True, False])
def test_a_fetched_edition_is_written_only_where_asked(tmp_path, monkeypatch, raw, write_cache):
    data = (REPO / "data" / "zhiyanzhai" / "source.txt").read_bytes()
    monkeypatch.setattr(edition, "_download", lambda cached: data)
    assert edition.fetch(tmp_path / "zhiyanzhai", write_cache=write_cache) == raw
    written = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert written == (["source.txt"] if write_cache else [])
