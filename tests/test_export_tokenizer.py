"""The exported tokenizer.json in the `tokenizers` library: ids and texts as ours."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from hlm_jax.export.tokenizer import tokenizer_json

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def other(tokenizer):
    return tokenizers.Tokenizer.from_str(tokenizer_json(tokenizer).decode())


def test_the_whole_book_has_our_ids(edition, tokenizer, other):
    text = "".join(c.text for c in edition.chapters)
    assert other.encode(text).ids == tokenizer.encode(text)
    for chapter in edition.chapters[:3]:
        assert other.decode(other.encode(chapter.text).ids) == chapter.text


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"], exclude_characters="▁"),
            st.sampled_from("宝玉笑道 “”\n　，<0x>龘"),
        ),
        max_size=40,
    )
)
def test_any_text_has_our_ids(tokenizer, other, text):
    ids = other.encode(text).ids
    assert ids == tokenizer.encode(text)
    assert other.decode(ids) == text


def test_the_two_known_differences(tokenizer, other):
    assert other.encode("<|chapter|>宝玉").ids[0] == tokenizer.separator_id
    assert tokenizer.separator_id not in tokenizer.encode("<|chapter|>宝玉")
    assert other.decode(other.encode("宝▁玉").ids) == "宝 玉"
    assert tokenizer.decode(tokenizer.encode("宝▁玉")) == "宝▁玉"


def test_the_file_adds_no_token_and_names_the_special_ones(tokenizer):
    whole = json.loads(tokenizer_json(tokenizer))
    assert whole["post_processor"] is None
    special = {token["content"]: token["special"] for token in whole["added_tokens"]}
    assert special == {"<unk>": True, "<|chapter|>": True, "\n": False, "“": False, "”": False}
    for token in whole["added_tokens"]:
        assert whole["model"]["vocab"][token["content"]] == token["id"]
