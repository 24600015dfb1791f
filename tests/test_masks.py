"""What is taken out of a text before its authorship is judged."""

import numpy as np
import pytest

from hlm_jax.analysis.authorship.masks import KINDS, NAME, mask, masked_positions, names_of
from hlm_jax.errors import UserError

TEXT = "第一回 甄士隐梦幻识通灵\n宝玉笑道：「林妹妹来了。」贾宝玉又问。\n"
POEM = "春梦随云散，飞花逐水流。寄言众儿女，何必觅闲愁。"


def test_each_mask():
    assert mask(TEXT, ()) == TEXT
    assert mask(TEXT, ["headings"]) == "宝玉笑道：「林妹妹来了。」贾宝玉又问。\n"
    assert mask(TEXT, ["punctuation"]) == "第一回甄士隐梦幻识通灵宝玉笑道林妹妹来了贾宝玉又问"
    names = ["宝玉", "贾宝玉", "士隐"]
    assert mask(TEXT, ["names"], names=names) == (
        f"第一回 甄{NAME}梦幻识通灵\n{NAME}笑道：「林妹妹来了。」{NAME}又问。\n"
    )
    assert mask(f"因吟道：「{POEM}」众人笑了。", ["verse"]) == "因吟道：「」众人笑了。"
    everything = mask(f"{TEXT}因吟道：「{POEM}」众人笑了。\n", KINDS, names=names)
    assert everything == f"{NAME}笑道林妹妹来了{NAME}又问因吟道众人笑了"


def test_a_name_inside_what_is_left_out_leaves_no_mark():
    assert NAME not in mask("第一回 士隐\n话说。", ["names", "headings"], names=["士隐"])


def test_words_of_other_scripts_stay_apart():
    text = "Chapter 1\nShe said, “No”; he went."
    assert mask(text, ["punctuation"]) == "Chapter 1 She said No he went "


def test_positions_are_those_that_the_mask_changes():
    left_out, replaced = masked_positions(TEXT, KINDS, names=["宝玉"])
    kept = "".join(c for c, out in zip(TEXT, left_out, strict=True) if not out)
    assert kept == "宝玉笑道林妹妹来了贾宝玉又问"
    assert [TEXT[start:end] for start, end in replaced] == ["宝玉", "宝玉"]
    assert left_out.dtype == bool
    assert left_out.shape == (len(TEXT),)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="'rhymes': use names, punctuation"):
        mask(TEXT, ["rhymes"])


def test_names_are_those_who_speak(tmp_path):
    lines = [
        "潘金莲笑道：「来了。」",
        "西门庆道：「好。」",
        "他道：「不好。」",
        "大家忙笑道：「是。」",
    ]
    found = names_of(["\n".join(lines * 8)])
    assert found == ["潘金莲", "西门庆"], "他 and 大家 are no names"
    assert names_of(["\n".join(lines)]) == [], "once is no evidence"
    path = tmp_path / "names.txt"
    path.write_text("宝玉\n林黛玉\n", encoding="utf-8")
    assert names_of((), path) == ["林黛玉", "宝玉"], "the longest first"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError):
        names_of((), path)


def test_the_novel_has_its_own_list(edition):
    names = names_of([chapter.text for chapter in edition.chapters])
    assert {"宝玉", "刘姥姥", "秋纹"} <= set(names), "秋纹 speaks and is not in the list"
    assert np.all([len(name) <= 3 for name in names])
