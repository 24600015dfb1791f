import base64
import csv
import dataclasses
import itertools
import json
import math
import os
import random
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import Reader

import hlm_jax
from hlm_jax import cli
from hlm_jax.analysis.columns import NONE, Columns, check_output
from hlm_jax.analysis.speech import speech_mask
from hlm_jax.analysis.surprisal import documents_of, split_of, surprisal_table, token_names
from hlm_jax.analysis.surprisal.characters import character_scores
from hlm_jax.analysis.surprisal.copies import copies_within
from hlm_jax.analysis.surprisal.crossfit import cross_fitted
from hlm_jax.analysis.surprisal.report import describe_regions
from hlm_jax.analysis.surprisal.stimuli import Region, read_stimuli, regions
from hlm_jax.analysis.surprisal.table import COLUMNS, Document, SurprisalTable
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import Evaluator, sliding_windows
from hlm_jax.model.gpt import GPT, GPTConfig

SPOKEN = "宝玉笑道：“好妹妹，饶我罢，再不敢了！”\n黛玉道：“龘\\n。”"


@pytest.fixture(scope="module")
def run(trained):
    return hlm_jax.load_run(trained[0])


@pytest.fixture(scope="module")
def table(run):
    """Three chapters of the three splits, with everything."""
    documents = documents_of(run, chapters="4,5,10")
    return surprisal_table(run, documents, top=3, reference=run.reference)


@pytest.fixture(scope="module")
def tiny_model():
    cfg = GPTConfig(
        "gpt2",
        vocab_size=61,
        block_size=16,
        n_layer=1,
        n_head=2,
        n_embd=16,
        dropout=0.0,
        rope_theta=1e4,
    )
    model = GPT(cfg)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return model, jax.tree.map(lambda p: p * 20, params)


# --- details of tokens ---


@pytest.mark.parametrize("stride", [1, 3, 8, 11, 16])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_windows_of_any_stride_score_everything_once(length, stride):
    windows = sliding_windows(length, 16, stride)
    scored = [i for _, first, end in windows for i in range(first, end)]
    assert scored == list(range(length))
    assert all(first == 0 or first - start >= 16 - stride for start, first, _ in windows)


@pytest.mark.parametrize("stride", [None, 1, 5, 16])
def test_details_are_those_of_a_plain_forward_pass(tiny_model, stride):
    model, params = tiny_model
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 61, n).tolist() for n in (2, 16, 17, 18, 45)]
    seen = []
    evaluator = Evaluator(model, batch_size=3)
    found = evaluator.token_details(
        params, sequences, top=4, stride=stride, progress=lambda *at: seen.append(at)
    )
    assert seen[-1][0] == seen[-1][1] > 0
    if stride is None:
        for details, nats in zip(found, evaluator.token_nats(params, sequences), strict=True):
            np.testing.assert_array_equal(details.nats, nats)
    forward = jax.jit(lambda tokens_BT: model.apply({"params": params}, tokens_BT)[0])
    for ids, details in zip(sequences, found, strict=True):
        for start, first, end in sliding_windows(len(ids) - 1, 16, stride):
            row = ids[start:end] + [0] * (16 - (end - start))
            logits = np.asarray(forward(jnp.array([row], jnp.int32))[0], np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            for i in range(first, end):
                own = log_p[i - start]
                assert details.nats[i] == pytest.approx(-own[ids[i + 1]], abs=1e-4)
                assert details.rank[i] == 1 + (own > own[ids[i + 1]] + 1e-6).sum()
                assert details.entropy[i] == pytest.approx(-(np.exp(own) * own).sum(), abs=1e-4)
                assert details.context[i] == i - start + 1
                order = np.argsort(-own)[:4]
                assert details.top_ids[i].tolist() == order.tolist()
                np.testing.assert_allclose(details.top_logprobs[i], own[order], atol=1e-4)


def test_impossible_strides_are_refused(tiny_model):
    model, params = tiny_model
    for stride in (0, 17, -1):
        with pytest.raises(UserError, match="between 1 and the block of 16"):
            Evaluator(model).token_details(params, [[1, 2]], stride=stride)
    with pytest.raises(UserError, match="top must lie"):
        Evaluator(model).token_details(params, [[1, 2]], top=62)


# --- tables ---


def test_bits_are_those_of_the_score_to_the_last_digit(run, table):
    texts = [document.text for document in table.documents]
    ids = [[run.tokenizer.separator_id, *run.tokenizer.encode(text)] for text in texts]
    nats = np.concatenate(run.token_nats(ids)).astype(np.float64)
    np.testing.assert_array_equal(table.columns["bits"], nats / math.log(2))
    scores = run.evaluator.score(run.device_params, run.tokenizer, texts)
    for row, score in zip(table.by_chapter(), scores, strict=True):
        assert row["bits_per_char"] == pytest.approx(score.bits_per_char, rel=1e-12)
        assert row["rows"] == score.tokens


def test_columns_stand_where_the_text_does(run, table):
    assert tuple(table.columns) == (*COLUMNS, "top_1", "top_2", "top_3")
    by_number = {document.chapter: document for document in table.documents}
    assert [d.split for d in table.documents] == ["train", "test", "val"]
    at = {number: 0 for number in by_number}
    names = token_names(run.tokenizer)
    for row in table:
        text = by_number[row.chapter].text
        assert row.text == text[row.start : row.end]
        assert row.start in (at[row.chapter], at[row.chapter] - 1)  # a byte shares its character
        at[row.chapter] = row.end
        assert row.split == by_number[row.chapter].split
        assert row.paragraph == text[: row.start].count("\n") + 1
        assert 1 <= row.context_tokens <= 32
        assert row.copied_len >= 0
        likely, p = row.top_1.rsplit(":", 1)
        assert (row.rank == 1) == (likely == names[row.token_id])
        assert 2**-row.bits <= float(p) + 1e-4
    assert all(at[number] == len(document.text) for number, document in by_number.items())
    starts = [row.index for row in table if row.index == 0]
    assert len(starts) == 3
    assert table[0].context_tokens == 1
    assert table.rows[5] == table[5]._asdict() == list(table)[5]._asdict()
    assert [row.index for row in table[2:4]] == [2, 3]


def test_counts_are_summed_over_exact_spans(run, table):
    training = [chapter.text for chapter in run.reference.splits["train"]]
    unigram = KneserNey(training, order=1)
    of = {document.chapter: document.text for document in table.documents}
    five = {k: -np.log2(run.reference.baseline.probabilities(text)) for k, text in of.items()}
    one = {k: -np.log2(unigram.probabilities(text)) for k, text in of.items()}
    previous, shared = None, 0
    for row in table:
        chars = slice(row.start, row.end)
        first = (row.chapter, row.start) != previous
        previous = row.chapter, row.start
        shared += not first
        expected = five[row.chapter][chars].sum() if first else 0.0
        assert row.ngram_bits == pytest.approx(expected)
        assert row.unigram_bits == pytest.approx(one[row.chapter][chars].sum() if first else 0.0)
    assert shared > 0  # characters in bytes occur
    total = run.reference.baseline_bits_per_char(list(of.values())) * sum(map(len, of.values()))
    assert np.sum(table.columns["ngram_bits"]) == pytest.approx(total)
    # No symbol is free of cost, and all are a distribution.
    symbols = sorted({char for text in training for char in text})
    p = sum(unigram.probabilities(symbol)[0] for symbol in symbols)
    assert 0.9 < p < 1.0


def test_a_copy_is_not_the_chapter_itself(run, table):
    training = [chapter.text for chapter in run.reference.splits["train"]]
    for document, part in zip(table.documents, table.by_document(), strict=True):
        others = [text for text in training if text != document.text]
        for row in part[::50]:
            rest = document.text[row.start :]
            n = row.copied_len
            assert n == 0 or any(rest[:n] in text for text in others)
            longer = rest[: n + 1]
            assert len(longer) == n or not any(longer in text for text in others)


def test_copies_within_a_book_equal_a_search():
    rng = random.Random(0)
    for _ in range(150):
        letters = "ab\n"[: rng.randint(1, 3)]
        lengths = [rng.randint(0, 14) for _ in range(rng.randint(1, 5))]
        texts = ["".join(rng.choices(letters, k=n)) for n in lengths]
        for own, lengths_found in enumerate(copies_within(texts)):
            others = [text for i, text in enumerate(texts) if i != own]
            for i, n in enumerate(lengths_found.tolist()):
                rest = texts[own][i:]
                assert n == 0 or any(rest[:n] in other for other in others)
                assert len(rest) == n or not any(rest[: n + 1] in other for other in others)
    assert copies_within([]) == []
    assert [c.tolist() for c in copies_within(["甲乙丙", "甲乙"])] == [[2, 1, 0], [2, 1]]


def test_by_character_keeps_every_sum(table):
    chars = table.by_character()
    assert chars.unit == "char"
    assert "".join(chars.columns["text"]) == "".join(d.text for d in table.documents)
    assert tuple(chars.columns) == tuple(table.columns)
    for name in ("bits", "ngram_bits", "unigram_bits"):
        assert np.sum(chars.columns[name]) == pytest.approx(np.sum(table.columns[name]))
    tokens = {(row.chapter, row.start): row for row in reversed(list(table))}
    bits = {}
    for row in table:
        key = row.chapter, row.start
        bits[key] = bits.get(key, 0.0) + row.bits
    for row in chars:
        token = tokens.get((row.chapter, row.start))
        assert row.bits == pytest.approx(bits.get((row.chapter, row.start), 0.0))
        assert row.end == row.start + 1
        assert row.rank == (token.rank if token else NONE)
        assert row.top_2 == (token.top_2 if token else "")
        if token:
            assert (row.paragraph, row.is_speech) == (token.paragraph, token.is_speech)
    assert chars.by_character() is chars


def test_a_smaller_stride_gives_more_context(run):
    text = run.reference.splits["val"][0].text
    plain, close = (surprisal_table(run, text, stride=stride) for stride in (None, 2))
    assert plain.columns["context_tokens"][40:].min() == 17
    assert close.columns["context_tokens"][40:].min() == 31
    np.testing.assert_allclose(plain.columns["bits"][:31], close.columns["bits"][:31], atol=1e-4)
    assert not np.allclose(plain.columns["bits"], close.columns["bits"], atol=1e-4)


def test_without_the_book_columns_are_empty_and_a_note_says_so(run, tmp_path):
    table = run.surprisal(SPOKEN)
    assert len(table.notes) == 1
    assert "without the model's book" in table.notes[0]
    assert np.isnan(table.columns["ngram_bits"]).all()
    table.to_csv(tmp_path / "t.csv")
    (first, *_) = csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8", newline=""))
    assert [first[name] for name in ("unigram_bits", "ngram_bits", "split", "copied_len")] == [
        "",
        "",
        "",
        "",
    ]
    (row,) = table.by_chapter()
    assert row["ratio"] is None
    assert row["copied"] is None


def test_a_passage_is_recognised(run):
    splits = run.reference.splits
    with_book = run.surprisal(splits["val"][0].text[100:150], reference=run.reference)
    assert {row.split for row in with_book} == {"val"}
    assert split_of(splits["train"][0].text[50:90], run.reference) == "train"
    assert split_of(splits["test"][0].text, run.reference) == "test"
    for name, chapters in splits.items():
        mended = chapters[0].text.replace("，", "——", 3)
        assert split_of(mended, run.reference) == name
        assert split_of(f"{chapters[0].text}又添一行。\n", run.reference) == name
        assert split_of(chapters[0].text[:200] + "\n", run.reference) == name
    assert split_of(splits["train"][0].text[50:60], run.reference) == "train"  # short, but known
    assert split_of("海内存知己，天涯若比邻", run.reference) == ""  # too short to prove anything
    assert split_of(" \n", run.reference) == ""
    assert split_of("海内存知己，天涯若比邻。无为在歧路。", run.reference) == "outside"


def test_files_hold_the_rows(run, tmp_path):
    table = surprisal_table(run, SPOKEN, top=1)
    table.to_csv(tmp_path / "t.csv", bom=True)
    data = (tmp_path / "t.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfdoc,chapter,")
    assert b"\r" not in data
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8-sig", newline="")))
    assert len(rows) == len(table)
    seen = -1
    text = ""
    for row in rows:
        if int(row["start"]) != seen:
            text += row["text"].replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
        seen = int(row["start"])
    assert text == SPOKEN
    assert {row["is_speech"] for row in rows} == {"0", "1"}
    total = sum(float(row["bits"]) for row in rows)
    assert total == pytest.approx(float(np.sum(table.columns["bits"])), abs=1e-3)
    table.write(tmp_path / "t.json")
    loaded = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert loaded["notes"] == table.notes
    assert [row["text"] for row in loaded["rows"]] == table.columns["text"]
    assert loaded["rows"][0]["ngram_bits"] is None
    assert loaded["rows"][0]["copied_len"] is None
    with pytest.raises(UserError, match=r"\.csv, \.json or \.parquet"):
        table.write(tmp_path / "t.xls")
    with pytest.raises(UserError, match="cannot be written"):
        table.to_csv(tmp_path / "t.csv" / "u.csv")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    check_output(tmp_path / "new" / "deeper" / "t.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"\.csv, \.json or \.parquet"):
        check_output(tmp_path / "t.txt")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        check_output(tmp_path / "t.csv")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match="no permission to write"):
        check_output(tmp_path / "new" / "t.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install"):
        check_output(tmp_path / "t.parquet")


def test_parquet_is_an_extra(run, tmp_path, monkeypatch):
    table = run.surprisal(SPOKEN)
    try:
        import pyarrow.parquet
    except ImportError:
        pass
    else:
        table.to_parquet(tmp_path / "t.parquet")
        rows = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
        assert [row["text"] for row in rows] == table.columns["text"]
        assert rows[0]["ngram_bits"] is None
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install"):
        table.to_parquet(tmp_path / "u.parquet")
    assert not (tmp_path / "u.parquet").exists()


def test_a_file_of_a_text_with_every_sign(tmp_path):
    texts = ["\0", "\\", "\\n", "\n", '"', ",", "a\rb"]
    Columns({"text": texts, "x": np.array([1.0, np.nan] * 3 + [2])}).to_csv(tmp_path / "t.csv")
    rows = list(csv.reader((tmp_path / "t.csv").open(encoding="utf-8", newline="")))
    assert [row[0] for row in rows[1:]] == ["\0", "\\\\", "\\\\n", "\\n", '"', ",", "a\\rb"]
    assert [row[1] for row in rows[1:3]] == ["1.0", ""]
    with pytest.raises(ValueError, match="different lengths"):
        Columns({"a": [1], "b": []})


def test_what_cannot_be_scored_is_refused(run):
    with pytest.raises(UserError, match="text 1 is empty"):
        run.surprisal("")
    with pytest.raises(UserError, match="no unit 'word': use token or char"):
        run.surprisal("宝玉", unit="word")
    with pytest.raises(UserError, match="no text to score"):
        surprisal_table(run, [])
    with pytest.raises(UserError, match="a stride is of tokens"):
        run.surprisal("宝玉", unit="char", stride=2)


def test_the_page_of_a_table(run):
    shown = run.surprisal(SPOKEN)._repr_html_()
    assert shown.startswith("<iframe srcdoc=")


def test_exact_characters_sum_to_the_cost_of_the_text(run):
    table = run.surprisal(SPOKEN, unit="char", top=2, reference=run.reference)
    assert table.unit == "char"
    assert table.columns["text"] == list(SPOKEN)
    (scores,) = character_scores(run, [SPOKEN])
    assert np.sum(table.columns["bits"]) == pytest.approx(float(scores.bits.sum()), rel=1e-6)
    # All segmentations together are at least as likely as one of them.
    tokens = float(np.sum(run.surprisal(SPOKEN).columns["bits"]))
    assert np.sum(table.columns["bits"]) <= tokens + 0.01
    assert (np.asarray(table.columns["rank"]) >= 1).all()
    assert "exact characters" in table.notes[-1]


# --- speech ---


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("他道：“来。”去", "...^^^^."),
        ("「古『云』曰」他", "^^^^^^^."),
        ("『古「云」曰』他", "^^^^^^^."),
        ("“甲\n诗句\n诗”后", "^^^^^^^^."),
        ("“甲\n“乙\n“丙”后", "^^^^^^^^^."),
        ("“甲\n叙述\n他“乙”后", "^^.....^^^."),
        ("“甲\n叙述\n“乙”后", "^^....^^^."),
        ("“甲\n“乙”后“丙”", "^^^^^^.^^^"),
        ("后”甲“乙", "...^^"),
        ("“甲“乙”丙”丁", "^^^^^^^."),
        ("他说 'no' and \"no\"", "................."),
        ("", ""),
    ],
)
def test_speech(text, spoken):
    found = "".join("^" if one else "." for one in speech_mask(text))
    assert found == spoken[: len(text)]
    assert len(found) == len(text)


# --- stimuli ---

STIMULI = """\ufeffitem,condition,region_start,region_end,text,more
1,a,0,5,宝玉笑道：“好妹妹。”,x
1,a,5,11,宝玉笑道：“好妹妹。”,x
2,b,2,4,"凤姐，笑道",
3,b,1,3,甲\\n乙,
"""


def test_regions_of_a_text_share_its_cost(run, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(STIMULI, encoding="utf-8")
    stimuli = read_stimuli(path)
    assert [s.line for s in stimuli] == [2, 3, 4, 5]
    assert stimuli[2].text == "凤姐，笑道"
    assert stimuli[3].text == "甲\n乙"
    found = regions(run, stimuli, reference=run.reference)
    rows = found.rows
    assert [row["region"] for row in rows] == ["宝玉笑道：", "“好妹妹。”", "，笑", "\n乙"]
    text = stimuli[0].text
    whole = run.surprisal(text)
    assert rows[0]["bits"] + rows[1]["bits"] == pytest.approx(np.sum(whole.columns["bits"]))
    assert rows[0]["tokens"] + rows[1]["tokens"] == len(whole)
    assert [row["chars"] for row in rows] == [5, 6, 2, 2]
    assert rows[1]["context_tokens"] == rows[0]["tokens"] + 1
    ngram = -np.log2(run.reference.baseline.probabilities(text))
    assert rows[0]["ngram_bits"] + rows[1]["ngram_bits"] == pytest.approx(ngram.sum())
    assert rows[0]["split"] == ""  # of 11 characters
    found.write(tmp_path / "r.csv")
    back = list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8", newline="")))
    assert back[3]["region"] == "\\n乙"
    assert float(back[0]["bits_per_char"]) == pytest.approx(rows[0]["bits"] / 5, abs=1e-5)


def test_a_border_inside_a_token_is_counted(run):
    pieces = (run.tokenizer.token_bytes(token) for token in range(run.tokenizer.vocab_size))
    words = (piece.decode(errors="ignore") for piece in pieces)
    text = next(w for w in words if len(w) > 1 and len(run.surprisal(w)) == 1)
    cut = [Region("1", "a", text, 0, 1, 2), Region("1", "a", text, 1, len(text), 3)]
    whole = run.surprisal(text)
    table = regions(run, cut)
    first, second = table.rows
    assert (first["straddles"], second["straddles"]) == (1, 1)
    assert (first["tokens"], second["tokens"]) == (1, 0)
    assert (
        "1 of 2 rows have a region in which no token begins, the first in line 3"
        in (table.notes[-1])
    )
    lines = describe_regions(table).splitlines()
    assert "bits for 1 character in 1 token, 1 border inside a token: " in lines[-2]
    assert lines[-1].startswith("1 a: 0.00 bits")
    assert "in 0 tokens, 1 border inside a token: " in lines[-1]
    known = list(table.known_rows())
    assert (known[1]["context_tokens"], known[1]["ngram_bits"]) == (None, None)
    assert known[1]["tokens"] == 0
    assert first["bits"] + second["bits"] == pytest.approx(float(np.sum(whole.columns["bits"])))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("item,text\n1,x", r"line 1: no column condition, region_start, region_end"),
        ("H\n1,a,甲乙,0,3", r"line 2: no region 0 to 3 in a text of 2 characters"),
        ("H\n1,a,甲乙,0,1\n1,a,甲乙,1,1", r"line 3: no region 1 to 1"),
        ('H\n1,a,"甲\n乙",0,1\n1,a,甲乙,-1,1', r"line 4: no region -1"),
        ('\n\nH\n\n1,a,"甲\n\n乙",0,1\n\n\n1,a,甲乙,-1,1', r"line 10: no region -1"),
        ("\nitem,text\n1,x", r"line 2: no column condition"),
        ("H\n1,a,甲乙,zero,1", r"line 2: region_start and region_end must be whole numbers"),
        ("H\n1,a,,0,1", r"line 2: the text is empty"),
        ("H\n1,a,甲,乙,0,1", r"line 2: not as many values"),
        ("H\n1,a,甲", r"line 2: not as many values"),
        ("H\n", r"no rows below"),
    ],
)
def test_bad_stimuli_are_named(tmp_path, rows, message):
    path = tmp_path / "items.csv"
    rows = rows.replace("H", "item,condition,text,region_start,region_end")
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read_stimuli(path)
    assert "\n" not in str(error.value)


def test_texts_of_stimuli_are_read_as_tables_are_written(tmp_path):
    texts = ["甲\n乙", "甲\\n乙", "甲\\\\\n", "C:\\d", "\\"]
    path = tmp_path / "items.csv"
    table = {"item": texts, "condition": texts, "text": texts}
    Columns(table | {"region_start": np.zeros(5, int), "region_end": np.ones(5, int)}).to_csv(path)
    assert [region.text for region in read_stimuli(path)] == texts
    head = "item,condition,text,region_start,region_end\r\n"
    path.write_bytes((head + '1,a,"甲\r\n乙\\c",1,2\r\n').encode())
    (one,) = read_stimuli(path)
    assert one.text == "甲\n乙\\c"  # one character a line end; \c is no sign


# --- folds ---


@pytest.fixture(scope="module")
def folds(run):
    """Two runs of one model, each of which holds out half of the book."""
    chapters = [c for several in run.reference.splits.values() for c in several]
    chapters.sort(key=lambda chapter: chapter.number)
    runs = []
    for k in range(2):
        one = dataclasses.replace(run)
        held_out = chapters[k::2]
        rest = [c for c in chapters if c not in held_out]
        one.__dict__["reference"] = Reference({"train": rest, "val": [], "test": held_out})
        runs.append(one)
    return runs


def test_every_chapter_is_scored_by_the_model_that_never_saw_it(run, folds):
    found = cross_fitted(folds, chapters="1-4")
    assert [d.chapter for d in found.table.documents] == [1, 2, 3, 4]
    assert set(found.table.columns["split"]) == {"test"}
    for row, part in zip(found.chapters, found.table.by_document(), strict=True):
        (document,) = part.documents
        owner = folds[0] if row["chapter"] % 2 else folds[1]
        expected = owner.reference.baseline_bits_per_char(document.text)
        assert row["ngram_bits_per_char"] == pytest.approx(expected)
        assert row["bits_per_char"] == pytest.approx(row["bits_per_char_out"])
        assert row["memorised"] == pytest.approx(0.0, abs=1e-6)  # both runs are one model here
    close = cross_fitted(folds, chapters="2", stride=2).chapters[0]
    assert close["bits_per_char_out"] == found.chapters[1]["bits_per_char_out"]
    assert close["bits_per_char"] != close["bits_per_char_out"]
    with pytest.raises(UserError, match="both hold out chapter"):
        cross_fitted([folds[0], folds[0]])


def test_memorised_is_what_training_on_a_chapter_saves(run, folds):
    """The folds are two different models: each chapter has one that saw it and one that did not."""
    changed = dataclasses.replace(folds[1], params=jax.tree.map(lambda p: p * 0.5, folds[1].params))
    changed.__dict__["reference"] = folds[1].reference
    rows = cross_fitted([folds[0], changed], chapters="1,2").chapters
    texts = [c.text for c in run.reference.splits["train"] if c.number in (1, 2)]
    plain = [s.bits_per_char for s in run.score(texts)]
    other = [s.bits_per_char for s in changed.score(texts)]
    assert rows[0]["memorised"] == pytest.approx(plain[0] - other[0], rel=1e-4)
    assert rows[1]["memorised"] == pytest.approx(other[1] - plain[1], rel=1e-4)


# --- the command ---


def test_the_command(script, trained, tmp_path):
    workdir = ["--workdir", trained[0]]
    done = script("surprisal", *workdir, "--chapters", "4,10")
    assert done.returncode == 0, done.stderr
    assert "TRAINED ON: the model and its 5-gram learned from chapter 4" in done.stdout
    assert done.stdout.count("most surprising") == 1
    assert "chapter 10 (val): " in done.stdout
    out, per = tmp_path / "s.csv", tmp_path / "c.csv"
    done = script("surprisal", *workdir, "--out", out, "--per_chapter", per, "--json", "--top", 2)
    found = json.loads(done.stdout)
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert len(rows) == found["rows"]
    assert sum(float(row["bits"]) for row in rows) == pytest.approx(found["bits"], abs=0.01)
    assert [row["chapter"] for row in csv.DictReader(per.open(encoding="utf-8"))] == ["10", "20"]
    assert found["trained_on"] == []
    bits = [unit["bits"] for unit in found["surprising"]]
    assert bits == sorted(bits, reverse=True)
    assert max(float(row["bits"]) for row in rows) == pytest.approx(bits[0], abs=1e-5)


def test_the_page_of_two_runs(script, trained, tmp_path):
    page, words = tmp_path / "p.html", ["--workdir", trained[0], "--chapters", "4"]
    done = script("surprisal", *words, "--html", page, "--minus", trained[0])
    assert done.returncode == 0, done.stderr
    assert "TRAINED ON" in done.stdout
    assert "TRAINED ON" in done.stderr  # of the second model
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert script("surprisal", *words, "--minus", trained[0]).returncode == 2


def test_two_runs_whose_folders_have_one_name_are_two(script, trained, train, tmp_path):
    other, page = tmp_path / "tiny", tmp_path / "p.html"
    assert train(other, "seed=1", "train.steps=2").returncode == 0
    done = script(
        *("surprisal", "--workdir", trained[0], "--chapters", "4", "--html", page),
        *("--minus", other),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(Reader(page.read_text(encoding="utf-8")).scripts[0])
    names = [f"{folder.parent.name}/tiny" for folder in (trained[0], other)]
    assert data["models"] == names
    (part,) = data["pages"]
    columns = json.loads(zlib.decompress(base64.b64decode(part["z"])))["m"]
    assert columns[0]["b"] != columns[1]["b"]
    assert f"note: {names[1]}: TRAINED ON" in done.stderr


def test_a_text_that_is_copied_in_part_is_named_on_the_page(script, trained, run, tmp_path):
    text, page = tmp_path / "part.txt", tmp_path / "p.html"
    new = "".join(chr(0x5000 + i) for i in range(316))
    text.write_text(run.reference.splits["train"][0].text[100:200] + new, encoding="utf-8")
    done = script("surprisal", "--workdir", trained[0], "--text", text, "--html", page)
    assert done.returncode == 0, done.stderr
    line = "PARTLY TRAINED ON: 24% of part.txt stands word for word in the training chapters"
    assert line in done.stdout
    shown = page.read_text(encoding="utf-8")
    assert f'<p class="warning">{line}' in shown
    (part,) = json.loads(Reader(shown).scripts[0])["pages"]
    assert part["copied"] == [pytest.approx(0.24, abs=0.01)]


def test_a_name_that_is_not_utf_8_is_written_all_the_same(script, trained, tmp_path):
    text, out = os.fsencode(tmp_path) + b"/\xb9\xfe.txt", tmp_path / "s.csv"
    try:
        Path(os.fsdecode(text)).write_text("海内存知己，天涯若比邻。", encoding="utf-8")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    words = ["--workdir", trained[0], "--text", os.fsdecode(text)]
    done = script("surprisal", *words, "--out", out, "--html", tmp_path / "p.html")
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8").splitlines()[1].startswith("\ufffd\ufffd.txt,1,")
    done = script("evaluate", *words, "--per_chapter")
    assert done.returncode == 0
    done.stdout.encode()


def test_the_command_on_files(script, trained, run, tmp_path):
    known, new = tmp_path / "known.txt", tmp_path / "new.txt"
    known.write_text(run.reference.splits["train"][0].text, encoding="utf-8")
    new.write_text("　　海内存知己，\r\n\r\n天涯若比邻。", encoding="utf-8")
    done = script("surprisal", "--workdir", trained[0], "--text", new, known)
    assert "TRAINED ON" in done.stdout
    assert "new.txt (split not known)" in done.stdout
    assert "known.txt (train)" in done.stdout
    out = tmp_path / "s.json"
    alone = script("surprisal", "--workdir", trained[0], "--text", new).stdout
    assert "  new.txt (split not known)" in alone
    assert "chapter 1" not in alone
    done = script("surprisal", "--workdir", trained[0], "--text", new, "--out", out)
    assert done.returncode == 0
    texts = [row["text"] for row in json.loads(out.read_text(encoding="utf-8"))["rows"]]
    starts = [row["start"] for row in json.loads(out.read_text(encoding="utf-8"))["rows"]]
    unique = [t for t, s, b in zip(texts, starts, [-1, *starts], strict=False) if s != b]
    assert "".join(unique) == "海内存知己，\n天涯若比邻。\n"  # cleaned as a book is


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chapters", "999"], "999"),
        (["--split", "train", "--chapters", "10"], "chapter 10 is in the split val"),
        (["--stride", "0"], "the stride must lie between 1 and the block of 32"),
        (["--text", "no.txt"], "no.txt"),
        (["--out", "x.xls"], "ends in .csv, .json or .parquet"),
        (["--per_chapter", "pc.txt"], "ends in .csv, .json or .parquet"),
        (["--out", "README.md/x.csv"], "README.md/x.csv: cannot be written"),
        (["--html", "docs"], "docs: cannot be written"),
    ],
)
def test_errors_of_the_command_are_one_line(script, trained, words, message, monkeypatch):
    if words[0] in ("--out", "--per_chapter", "--html"):
        monkeypatch.setattr(cli, "open_run", None)  # refused before anything is opened
    done = script("surprisal", "--workdir", trained[0], *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--workdir", "a", "--folds", "b"],
        ["--folds", "b", "--split", "all"],
        ["--folds", "b", "--step", "latest"],
        ["--workdir", "a", "--bom"],
        ["--workdir", "a", "--bom", "--out", "x.json"],
    ],
)
def test_usage_errors(script, words):
    done = script("surprisal", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_stimuli_command(script, trained, tmp_path):
    path, out = tmp_path / "items.csv", tmp_path / "r.csv"
    path.write_text(STIMULI, encoding="utf-8")
    words = ["--workdir", trained[0], "--stimuli", path]
    done = script("surprisal", *words)
    assert done.stdout.splitlines()[-1].startswith("3 b: ")
    found = json.loads(script("surprisal", *words, "--json", "--unit", "char").stdout)
    assert {row["tokens"] for row in found["regions"]} == {None}
    assert script("surprisal", *words, "--out", out, "--bom").returncode == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbfitem,condition,")


def test_a_table_in_memory_needs_no_model():
    documents = [Document("甲", 1, "甲乙"), Document("甲", 2, "丙")]
    columns = {"doc": ["甲"] * 3, "bits": np.array([1.0, 2.0, 4.0]), "index": np.array([0, 1, 0])}
    columns |= {"rank": np.array([1, 2, 3]), "entropy_bits": np.ones(3)}
    characters = {"ngram_bits": np.array([2.0, 2.0, 2.0]), "copied_len": np.zeros(3, np.int32)}
    table = SurprisalTable("char", columns, documents, characters | {"is_speech": np.zeros(3)})
    assert [row["ratio"] for row in table.by_chapter()] == [0.75, 2.0]
    assert [len(part) for part in table.by_document()] == [2, 1]
    assert list(itertools.accumulate(row.bits for row in table)) == [1.0, 3.0, 7.0]
    assert repr(table) == "<SurprisalTable: 3 rows, one a char; 7.0 bits over 3 characters>"
