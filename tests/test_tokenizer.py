import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hlm_jax.book.tokenizer import (
    SEPARATOR,
    Tokenizer,
    TokenizerError,
    train_tokenizer,
)
from hlm_jax.book.utf8 import StreamDecoder, token_automaton


def test_round_trip_of_the_whole_book(edition, tokenizer):
    text = "".join(c.text for c in edition.chapters)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) / len(text) < 0.78


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.text(
        st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("▁ 宝玉“”\n<|>0x")),
        max_size=40,
    )
)
def test_round_trip_of_any_unicode_string(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.separator_id not in ids
    assert tokenizer.char_offsets(ids)[-1:] == (
        [] if not text else [(tokenizer.char_offsets(ids)[-1][0], len(text))]
    )


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="character 1 "):
        tokenizer.encode("宝\ud800")


def test_training_is_deterministic_to_the_byte(book):
    texts = book.read_text(encoding="utf-8").splitlines()
    one, two = (train_tokenizer(texts, vocab_size=1700, character_coverage=0.98) for _ in range(2))
    assert one.model_bytes == two.model_bytes
    assert (
        train_tokenizer(texts, vocab_size=1701, character_coverage=0.98).fingerprint
        != one.fingerprint
    )


def test_options_that_the_text_needs(tokenizer):
    assert tokenizer.vocab_size == 5000
    assert tokenizer.piece(tokenizer.separator_id) == SEPARATOR
    for symbol in ("\n", "“", "”", " "):
        assert len(tokenizer.encode(symbol)) == 1
    # Quotes never join a longer token.
    assert tokenizer.encode("宝玉笑道：“")[-1:] == tokenizer.encode("“")
    assert tokenizer.decode(tokenizer.encode("，：！？（）")) == "，：！？（）"


def test_a_saved_tokenizer_opens_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.model").fingerprint == tokenizer.fingerprint


def test_offsets_give_the_text_back(tokenizer):
    text = "宝玉笑道：“龘龘▁🐉好。”\n"
    ids = tokenizer.encode(text)
    spans = tokenizer.char_offsets(ids)
    assert (
        "".join(
            text[a:b]
            for (a, b), last in zip(spans, [*[s[0] for s in spans[1:]], len(text)], strict=True)
            if last != a
        )
        == text
    )


def test_streaming_holds_back_half_characters(tokenizer):
    text = "黛玉🐉听了龘，"
    stream = StreamDecoder(tokenizer)
    parts = [stream.feed([i]) for i in tokenizer.encode(text)]
    assert "".join(parts) == text
    assert not any("�" in part for part in parts)
    assert stream.feed(tokenizer.encode("龘")[:1]) == ""


def test_the_automaton_allows_valid_utf8_and_nothing_else(tokenizer):
    allowed, after = tokenizer.utf8_automaton

    def accepts(ids):
        state = 0
        for i in ids:
            if not allowed[state, i]:
                return False
            state = after[state, i]
        return state == 0

    id_of_byte = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}

    def as_bytes(data):
        return [id_of_byte[bytes([byte])] for byte in data]

    assert accepts([tokenizer.separator_id, *tokenizer.encode("黛玉🐉听了龘，")])
    for code in [
        *range(0, 0x20000, 7),
        0x7F,
        0x80,
        0x7FF,
        0x800,
        0xD7FF,
        0xE000,
        0xFFFF,
        0x10000,
        0xFFFFF,
        0x100000,
        0x10FFFF,
    ]:
        if not 0xD800 <= code < 0xE000:
            assert accepts(as_bytes(chr(code).encode()))
    rng = np.random.default_rng(0)
    for data in rng.integers(
        0x80, 0x100, (20_000, 3), dtype=np.uint8
    ):  # Python's decoder is the judge
        try:
            data.tobytes().decode()
            valid = True
        except UnicodeDecodeError:
            valid = False
        assert accepts(as_bytes(data.tolist())) == valid
    assert not accepts(as_bytes(b"\xf4\x90\x80\x80"))
    assert not accepts(tokenizer.encode("龘")[:1])


def test_the_automaton_follows_the_bytes_of_any_token():
    tokens = [
        b"",
        b"a",
        "宝".encode(),
        "宝".encode()[:1],
        "宝".encode()[1:],
        "宝".encode()[2:] + b"a",
    ]
    allowed, after = token_automaton(tokens)
    assert allowed.shape == after.shape == (8, 6)
    # Between two characters a token may begin one, but not continue one.
    assert allowed[0].tolist() == [True, True, True, True, False, False]
    state = after[0, 3]
    assert state != 0
    # Inside a character nothing but its rest may follow; not the separator, which has no bytes.
    assert allowed[state].tolist() == [False, False, False, False, True, False]
    assert after[state, 4] == 0


def test_errors_advise(tmp_path):
    with pytest.raises(TokenizerError, match=r"--config.model.vocab_size=\d+ or less"):
        train_tokenizer(["宝玉笑道：好。"] * 3, vocab_size=5000, character_coverage=1.0)
    with pytest.raises(TokenizerError, match="too small"):
        train_tokenizer(["宝玉笑道：好。"] * 3, vocab_size=100, character_coverage=1.0)
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        Tokenizer(b"nonsense")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.load(tmp_path / "absent.model")
