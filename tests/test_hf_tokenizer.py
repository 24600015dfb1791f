"""Tokenizers of other models: every text back, its bytes, and refusals by their reason."""

import json
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hlm_jax import checkpoint
from hlm_jax.book.hf_tokenizer import HFTokenizer
from hlm_jax.book.tokenizer import TokenizerError
from hlm_jax.book.utf8 import StreamDecoder

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import models, normalizers, pre_tokenizers, trainers  # noqa: E402

TEXT = "宝玉笑道：“好妹妹，Dream of the Red Chamber。”\n黛玉听了，也笑道：“你又来了！”\n" * 4
END, OTHER = "<|endoftext|>", "<|im_end|>"


def byte_level(*, special=(END, OTHER), alphabet=None, size=330, normalizer=None, cut=None):
    """A byte-level BPE like GPT-2's, trained on TEXT."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = cut or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer:
        made.normalizer = normalizer
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    return made


def byte_fallback(*, normalizer=None, cut=None, fallback=True):
    """A BPE of characters with byte tokens, and ▁ for a space, as this project exports its own."""
    names = ["<unk>", "<|chapter|>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    names += [*"宝玉黛笑道：“”\n", "宝玉", "笑道", "笑道："]
    merges = [("宝", "玉"), ("笑", "道"), ("笑道", "：")]
    vocab = {name: number for number, name in enumerate(names)}
    bpe = models.BPE(vocab, merges, byte_fallback=fallback, fuse_unk=True, unk_token="<unk>")
    made = tokenizers.Tokenizer(bpe)
    made.normalizer = normalizer or normalizers.Replace(" ", "▁")
    if cut:
        made.pre_tokenizer = cut
    made.add_special_tokens(["<unk>", "<|chapter|>"])
    made.add_tokens([tokenizers.AddedToken(mark, normalized=False) for mark in "\n“”"])
    return made


def opened(made, separator=END, **more):
    return HFTokenizer(made.to_str().encode(), separator=separator, **more)


@pytest.fixture(scope="module")
def kinds():
    return {
        "byte-level": opened(byte_level()),
        "byte-fallback": opened(byte_fallback(), "<|chapter|>"),
    }


MARKS = "▁ 宝玉黛笑道：“”\n<|>0xĠ"
KINDS = pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])


@KINDS
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text(MARKS))
def test_round_trip_of_any_unicode_string(kinds, kind, any_text, marks):
    tokenizer, text = kinds[kind], marks + any_text + marks
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.separator_id not in ids
    spans = tokenizer.char_offsets(ids)
    assert [spans[0][0], spans[-1][1]] == [0, len(text)] if text else spans == []
    allowed, after = tokenizer.utf8_automaton
    state = 0
    for token in [tokenizer.separator_id, *ids]:
        assert allowed[state, token]
        state = after[state, token]
    assert state == 0


@KINDS
def test_words_are_tokens_and_the_ids_are_those_of_the_library(kinds, kind):
    tokenizer = kinds[kind]
    library = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json.decode())
    for text in ("宝玉笑道：“好。”\n", "Dream of the Red Chamber", "  龘🐉 "):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids
    assert len(tokenizer.encode("宝玉笑道：")) < 5
    assert tokenizer.format == "huggingface"


@KINDS
def test_the_name_of_a_special_token_in_a_text_is_text(kinds, kind):
    tokenizer = kinds[kind]
    for name in (END, OTHER, "<|chapter|>", "<unk>"):
        ids = tokenizer.encode(f"宝{name}玉")
        assert len(ids) > len(name) // 2
        assert tokenizer.decode(ids) == f"宝{name}玉"


def test_a_separator_that_is_not_marked_as_special_is_text_in_a_text():
    made = byte_level(special=())
    made.add_tokens(["<chapter>"])
    tokenizer = opened(made, "<chapter>")
    assert tokenizer.separator_id not in tokenizer.encode("<chapter>")
    assert tokenizer.decode(tokenizer.encode("<chapter>")) == "<chapter>"


def test_added_tokens_that_are_text_are_used():
    made = byte_level()
    made.add_tokens(["<think>", "大观园"])
    tokenizer = opened(made)
    (token,) = tokenizer.encode("大观园")
    assert tokenizer.token_bytes(token) == "大观园".encode()
    assert tokenizer.utf8_automaton[0][0, token]


def test_padding_and_special_tokens_have_no_bytes_and_are_never_drawn():
    made = byte_level()
    own = made.get_vocab_size()
    tokenizer = opened(made, vocab_size=own + 5)
    assert tokenizer.vocab_size == own + 5
    allowed, _ = tokenizer.utf8_automaton
    assert allowed.shape == (8, own + 5)
    for token in (made.token_to_id(OTHER), *range(own, own + 5)):
        assert tokenizer.token_bytes(token) == b""
        assert not allowed[:, token].any()
    assert allowed[0, tokenizer.separator_id]
    assert tokenizer.piece(own + 1) == f"<padding {own + 1}>"
    assert tokenizer.piece(tokenizer.separator_id) == END
    (first, *_) = tokenizer.encode("龘")
    assert tokenizer.piece(first).startswith("<0xE9>")
    with pytest.raises(TokenizerError, match=rf"{own} tokens and the model {own - 1}"):
        opened(made, vocab_size=own - 1)


@KINDS
def test_streaming_holds_back_half_characters(kinds, kind):
    tokenizer = kinds[kind]
    text = "黛玉🐉听了龘，"
    stream = StreamDecoder(tokenizer)
    parts = [stream.feed([i]) for i in tokenizer.encode(text)]
    assert "".join(parts) == text
    assert not any("�" in part for part in parts)


# --- files ---


@KINDS
def test_stored_bytes_and_a_saved_folder_open_again(kinds, kind, tmp_path):
    tokenizer = kinds[kind]
    meta = checkpoint.make_meta(config={}, tokenizer=tokenizer, corpus_report={}, metrics={})
    assert meta["tokenizer_format"] == "huggingface"
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == tokenizer.tokenizer_json
    stored = json.loads(json.dumps(meta))
    for again in (checkpoint.tokenizer_of(stored), HFTokenizer.load(tmp_path)):
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
        assert (again.separator, again.vocab_size) == (tokenizer.separator, tokenizer.vocab_size)
    padded = HFTokenizer.load(tmp_path, vocab_size=tokenizer.vocab_size + 1)
    assert padded.fingerprint != tokenizer.fingerprint
    padded.save(tmp_path)
    assert HFTokenizer.load(tmp_path).vocab_size == padded.vocab_size


def test_checkpoints_know_their_tokenizers(tokenizer):
    meta = checkpoint.make_meta(config={}, tokenizer=tokenizer, corpus_report={}, metrics={})
    assert meta["tokenizer_format"] == "sentencepiece"
    del meta["tokenizer_format"]  # as earlier versions wrote it
    assert checkpoint.tokenizer_of(meta).fingerprint == tokenizer.fingerprint
    with pytest.raises(checkpoint.CheckpointError, match="'tiktoken', which this version"):
        checkpoint.tokenizer_of(meta | {"tokenizer_format": "tiktoken"})
    with pytest.raises(TokenizerError, match="not a stored tokenizer"):
        checkpoint.tokenizer_of(meta | {"tokenizer_format": "huggingface"})


@pytest.mark.parametrize(
    ("settings", "config", "separator"),
    [
        ({"bos_token": OTHER, "eos_token": END}, {}, OTHER),
        ({"bos_token": {"content": OTHER}}, {"bos_token_id": 0}, OTHER),
        ({"bos_token": None, "eos_token": OTHER}, {"bos_token_id": 0}, END),
        ({"bos_token": "<s>"}, {"bos_token_id": 50256, "eos_token_id": 1}, OTHER),
        ({}, {"eos_token_id": [1, 0]}, OTHER),
        ({"bos_token": None}, {}, END),
        (None, None, END),
    ],
)
def test_what_starts_a_chapter(tmp_path, settings, config, separator):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    for name, content in (("tokenizer_config.json", settings), ("config.json", config)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    assert HFTokenizer.load(tmp_path).separator == separator


# --- refusals ---


def replaced(made, *path, value):
    """The bytes of a tokenizer.json with another value at a place."""
    spec = json.loads(made.to_str())
    place = spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(spec).encode()


def wordpiece():
    made = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, END: 1}, unk_token="[UNK]"))
    return made


def unigram(fallback):
    vocab = [("<unk>", 0.0), (END, 0.0), ("▁", -1.0), ("宝", -2.0)]
    vocab += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    made = tokenizers.Tokenizer(models.Unigram(vocab, 0, byte_fallback=fallback))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.add_special_tokens(["<unk>", END])
    return made


CUTS, NORMS = pre_tokenizers, normalizers
LEVEL = CUTS.ByteLevel(add_prefix_space=False)
SPACES = NORMS.Replace(" ", "▁")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (wordpiece, "model is WordPiece"),
        (lambda: unigram(False), "no tokens for bytes"),
        (lambda: byte_fallback(fallback=False), "no tokens for bytes"),
        (lambda: byte_level(normalizer=NORMS.Lowercase()), "Lowercase writes everything in lower"),
        (lambda: byte_level(normalizer=NORMS.NFKC()), "NFKC rewrites characters"),
        (lambda: byte_level(normalizer=NORMS.Replace("a", "b")), "Replace alters texts"),
        (
            lambda: byte_fallback(normalizer=NORMS.Sequence([NORMS.Prepend("▁"), SPACES])),
            "Prepend puts something before every text",
        ),
        (lambda: byte_level(cut=CUTS.ByteLevel(add_prefix_space=True)), "space before every text"),
        (
            lambda: byte_fallback(cut=CUTS.Metaspace(prepend_scheme="first")),
            "Metaspace puts a space before",
        ),
        (lambda: byte_level(cut=CUTS.Sequence([CUTS.Whitespace(), LEVEL])), "Whitespace drops"),
        (
            lambda: byte_level(cut=CUTS.Sequence([CUTS.Split(" ", "removed"), LEVEL])),
            "Split drops characters",
        ),
        (lambda: byte_level(alphabet=["a", "b"], size=20), "no token for the byte 0x00"),
    ],
)
def test_what_does_not_give_every_text_back_is_refused(make, reason):
    with pytest.raises(TokenizerError, match=f"tokenizer.json cannot be used: .*{reason}"):
        opened(make())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", "cannot be opened"),
        (b"\xff", "cannot be opened"),
        (b"[1]", "cannot be opened"),
        (replaced(byte_level(), "model", "end_of_word_suffix", value="</w>"), "'</w>' is no part"),
        (replaced(byte_level(), "model", "dropout", value=0.1), "BPE dropout"),
    ],
)
def test_a_file_that_is_not_read_is_refused(data, reason):
    with pytest.raises(TokenizerError, match=reason):
        HFTokenizer(data, separator=END)


def test_a_separator_must_exist(tmp_path):
    made = byte_level(special=())
    with pytest.raises(TokenizerError, match=r"no token <s>$"):
        opened(made, "<s>")
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"<\|endoftext\|>, and no bos_token or eos_token"):
        HFTokenizer.load(tmp_path)


def test_a_folder_without_its_files_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer.json cannot be read .*save_pretrained"):
        HFTokenizer.load(tmp_path)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json holds no JSON object"):
        HFTokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json is not readable JSON"):
        HFTokenizer.load(tmp_path)


def test_a_missing_library_is_named(monkeypatch):
    data = byte_level().to_str().encode()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match=r"EXTRAS=export bash scripts/environment.sh"):
        HFTokenizer(data, separator=END)


def test_a_text_that_the_tokenizer_alters_is_refused():
    tokenizer = opened(byte_level(normalizer=normalizers.NFC()))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    with pytest.raises(TokenizerError, match=r"character 2, e \(U\+0065\), becomes é .* NFC"):
        tokenizer.encode("宝玉e\u0301")
    with pytest.raises(TokenizerError, match=r"1, \uf900 \(U\+F900\), becomes \u8c48 \(U\+8C48"):
        tokenizer.encode("宝\uf900")
    with pytest.raises(TokenizerError, match="character 1 of the text is half"):
        tokenizer.encode("宝\ud800")


def test_an_added_token_that_swallows_spaces_is_refused_where_it_does():
    made = byte_level()
    made.add_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    tokenizer = opened(made)
    assert tokenizer.decode(tokenizer.encode("宝<mask>")) == "宝<mask>"
    with pytest.raises(TokenizerError, match=r"character 1,   \(U\+0020\), becomes <"):
        tokenizer.encode("宝 <mask>")


def test_unigram_with_bytes_and_other_cuts_are_read():
    tokenizer = opened(unigram(True))
    text = "宝 玉▁🐉"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    cut = CUTS.Sequence(
        [CUTS.Digits(), CUTS.Split(tokenizers.Regex(r"\p{Han}"), "isolated"), LEVEL]
    )
    tokenizer = opened(byte_level(cut=cut))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


# --- with a model ---


@pytest.fixture(scope="module")
def model(kinds):
    """A tiny GPT with random weights whose tokenizer is byte-level, with rows of padding."""
    import jax
    import jax.numpy as jnp

    from hlm_jax.language_model import LanguageModel
    from hlm_jax.model.gpt import GPT
    from hlm_jax.model.shape import GPTConfig

    made = byte_level()
    tokenizer = opened(made, vocab_size=made.get_vocab_size() + 7)
    cfg = GPTConfig("qwen3", tokenizer.vocab_size, 32, 2, 4, 32, 0.0, 1e4, n_kv_head=2, head_dim=10)
    params = GPT(cfg).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    params = jax.tree.map(lambda x: 3 * np.asarray(x), params)
    return LanguageModel(GPT(cfg), params, tokenizer)


SAMPLE = "宝玉笑道：“好龘🐉妹妹！”\n黛玉 Dream <|endoftext|>\n" * 3


def test_surprisals_sum_to_the_cost_of_the_text(model):
    table = model.surprisal(SAMPLE, top=2)
    (score,) = model.score([SAMPLE])
    rows = list(table)
    assert sum(row.bits for row in rows) == pytest.approx(score.bits_per_char * score.chars, 1e-5)
    assert (rows[0].start, rows[-1].end) == (0, len(SAMPLE))
    assert score.tokens == len(rows) == len(model.tokenizer.encode(SAMPLE))


def test_characters_cost_at_most_what_the_tokens_of_the_text_cost(model):
    text = SAMPLE[:30]
    characters = list(model.surprisal(text, unit="char"))
    (score,) = model.score([text])
    assert len(characters) == len(text)
    bits = sum(row.bits for row in characters)
    assert 0 < bits <= score.bits_per_char * score.chars * (1 + 1e-5)


def test_generated_text_is_unicode_without_padding_or_special_tokens(model):
    for completion in model.complete("宝玉", num_samples=3, max_new_tokens=60, temperature=1.5):
        assert "�" not in completion.text
        assert OTHER not in completion.text
        separator = model.tokenizer.separator_id
        assert all(model.tokenizer.token_bytes(i) or i == separator for i in completion.tokens)
