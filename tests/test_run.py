import dataclasses
import math
import shutil
import warnings

import numpy as np
import pytest

import hlm_jax
from hlm_jax.errors import UserError
from hlm_jax.language_model import sampling_of
from hlm_jax.model.generate import SamplingParams


@pytest.fixture(scope="module")
def run(trained):
    return hlm_jax.load_run(trained[0], step="best")


TEXT = "宝玉笑道：“好妹妹，饶我罢，再不敢了！”"


def test_a_run_trained_elsewhere_is_read_on_this_machine(run, trained):
    assert run.step in (6, 12)
    assert run.config.model.n_embd == 16
    assert isinstance(run.params["token_embedding"], np.ndarray)
    assert run.params["token_embedding"].shape == (1500, 16)
    assert run.tokenizer.decode(run.tokenizer.encode(TEXT)) == TEXT
    assert hlm_jax.load_run(str(trained[0]), step="latest").step == 12


def test_logits_follow_every_token(run):
    ids = run.tokenizer.encode(TEXT[:8])
    logits = run.logits(TEXT[:8])
    assert logits.shape == (len(ids) + 1, 1500)
    n = len(run.tokenizer.encode(TEXT[:5]))
    np.testing.assert_allclose(run.logits(TEXT[:5])[:n], logits[:n], atol=1e-5)
    with pytest.raises(UserError, match="at most 31"):
        run.logits(TEXT * 10)


def test_surprisal_sums_to_the_cost_of_the_text(run):
    found = run.surprisal(TEXT * 4)
    (score,) = run.score([TEXT * 4])
    assert sum(s.bits for s in found) == pytest.approx(score.nats / math.log(2), rel=1e-5)
    assert found[0].start == 0
    assert found[-1].end == len(TEXT * 4)
    assert all((TEXT * 4)[s.start : s.end] == s.text for s in found)
    # The first bits are those of the logits.
    logits = run.logits(TEXT[:8]).astype(np.float64)
    ids = run.tokenizer.encode(TEXT * 4)
    first = -(logits[0, ids[0]] - np.log(np.exp(logits[0]).sum())) / math.log(2)
    assert found[0].bits == pytest.approx(first, rel=1e-4)


def test_generation_from_python(run):
    words = {"num_samples": 2, "max_new_tokens": 20, "seed": 3, "temperature": 0.8}
    texts = run.generate("宝玉笑道：", **words)
    assert len(texts) == 2
    assert texts[0] != texts[1]
    assert run.generate("宝玉笑道：", **words) == texts
    hot = run.generate("宝玉笑道：", num_samples=8, max_new_tokens=60, temperature=5.0)
    assert not any("�" in text for text in hot)  # a fifth of this vocabulary's tokens are bytes
    greedy = run.generate(["宝玉笑道：", None], max_new_tokens=20, temperature=0.0)
    again = run.generate(["宝玉笑道：", None], max_new_tokens=20, temperature=0.0, seed=9)
    assert again == greedy


def test_a_run_writes_with_its_own_settings(run):
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.sample.update(temperature=0.0, top_k=7)
    assert sampling_of(config) == SamplingParams(temperature=0.0, top_k=7, top_p=0.9)
    cold = dataclasses.replace(run, sampling=sampling_of(config))
    written = cold.generate(num_samples=2, max_new_tokens=20)
    assert written[0] == written[1] == run.generate(max_new_tokens=20, temperature=0.0)[0]
    assert cold.generate(max_new_tokens=20, temperature=1.0) != written[:1]
    with pytest.raises(TypeError, match="temprature"):
        run.generate(temprature=1.0)


def test_every_stop_is_left_out_and_stops_its_own_row(run):
    words = {"max_new_tokens": 60, "seed": 1, "temperature": 1.0, "top_p": 1.0}
    free = run.complete(num_samples=3, **words)
    assert [c.finish_reason for c in free] == ["length"] * 3
    stop = free[1].text[11:13]
    stopped = run.complete(num_samples=3, stop=[stop, "no such text"], **words)
    for before, after in zip(free, stopped, strict=True):
        at = before.text.find(stop)
        assert after.text == (before.text if at < 0 else before.text[:at])
        assert after.finish_reason == ("length" if at < 0 else "stop")
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert len(after.logprobs) == len(after.tokens)
    assert stopped[1].finish_reason == "stop"
    with pytest.raises(UserError, match="stop string is empty"):
        run.generate(stop=[""])


def test_a_stop_string_never_shows_while_it_is_undecided(run):
    words = {"max_new_tokens": 48, "seed": 1, "temperature": 1.0}
    whole = run.generate(num_samples=1, **words)[0]
    for at in range(4, 12):
        stop = whole[at : at + 6]
        parts = [new[0] for new in run.stream([None], stop=[stop], **words)]
        assert "".join(parts) == whole[: whole.index(stop)]


def test_a_text_stops_where_its_chapter_ends(run):
    end = run.tokenizer.separator_id
    params = dict(run.params)
    # A model of which the separator is the likeliest token from the start.
    loud = dict(params, token_embedding=params["token_embedding"].copy())
    loud["token_embedding"][end] *= 100
    model = dataclasses.replace(run, params=loud)
    prompts = [None, "宝玉"]
    free = model.complete(prompts, max_new_tokens=30, temperature=1.0, seed=2)
    at = [c.tokens.index(end) if end in c.tokens else None for c in free]
    assert any(place is not None for place in at)
    ended = model.complete(
        prompts, max_new_tokens=30, temperature=1.0, seed=2, stop_at_chapter_end=True
    )
    for before, after, place in zip(free, ended, at, strict=True):
        assert after.finish_reason == ("length" if place is None else "stop")
        assert after.tokens == (before.tokens if place is None else before.tokens[: place + 1])


def test_logprobs_are_those_of_the_model(run):
    (done,) = run.complete("宝玉笑道：", max_new_tokens=6, seed=1, temperature=0.5, top_logprobs=3)
    ids = run.tokenizer.encode("宝玉笑道：")
    tokens = np.array([[*ids, *done.tokens]])
    logits = np.asarray(run._apply(run.params, tokens)[0], np.float64)[0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for i, token in enumerate(done.tokens):
        row = log_p[len(ids) - 1 + i]
        assert done.logprobs[i] == pytest.approx(row[token], abs=1e-4)
        assert [pair[0] for pair in done.top[i]] == np.argsort(-row)[:3].tolist()
        assert done.top[i][0][1] == pytest.approx(row.max(), abs=1e-4)


def test_twenty_temperatures_are_one_program(run):
    from hlm_jax.model import generate

    run.generate("宝玉", max_new_tokens=4)
    before = generate.program.cache_info().misses
    for i in range(20):
        run.generate("宝玉", max_new_tokens=4, temperature=0.5 + i / 20, top_k=i, top_p=1 - i / 40)
    assert generate.program.cache_info().misses == before


def test_a_prompt_longer_than_the_block_is_read_by_its_last_tokens(run):
    long = TEXT * 10
    with pytest.warns(UserWarning, match=r"goes on from the last 16"):
        ids = run.encode_prompt(long)
    assert ids == run.tokenizer.encode(long)[-16:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(run.encode_prompt(TEXT[:12])) < 31


def test_texts_to_score_go_the_way_of_the_corpus(run):
    plain, indented = run.score([TEXT + "\n" + TEXT, "　　" + TEXT + "\n\n　　" + TEXT])
    assert plain == indented


def test_one_text_is_not_a_list_of_characters(run):
    assert run.score(TEXT) == run.score([TEXT])
    one = run.reference.baseline_bits_per_char
    assert one(TEXT) == one([TEXT])


def test_a_run_shows_itself_in_one_line(run, trained):
    assert repr(run) == f"<Run: gpt2, 27,824 parameters, step {run.step} of {trained[0]}>"
    assert "load_run" in dir(hlm_jax)


def test_prompts_go_the_way_of_the_corpus(run):
    assert run.encode_prompt("　　宝玉笑道：") == run.encode_prompt("宝玉笑道：")
    traditional = dataclasses.replace(run, convert="t2s")
    assert traditional.encode_prompt("寶玉笑道：") == run.encode_prompt("宝玉笑道：")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.generate([]), "no prompt was given"),
        (lambda run: run.generate(num_samples=0), "num_samples must be at least 1, not 0"),
        (lambda run: run.generate(max_new_tokens=0), "--max_new_tokens must be at least 1"),
        (lambda run: run.generate(""), "the prompt is empty"),
        (lambda run: run.generate(" 　"), "the prompt is empty"),
        (lambda run: run.score([""]), "is empty"),
        (lambda run: run.generate(temperature=float("nan")), "--temperature must be"),
    ],
)
def test_impossible_requests_are_one_clear_line(run, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(run)
    assert "\n" not in str(error.value)


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_reading_never_writes(trained, tmp_path, monkeypatch):
    """A colleague's run, without write access, from a folder that stays empty."""
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = snapshot(tmp_path)
    run = hlm_jax.load_run(workdir)
    run.generate("宝玉", max_new_tokens=4)
    run.score([run.reference.splits["val"][0].text])
    assert run.reference.human_overlap is not None
    assert run.extraction(run.reference.splits["val"], prefixes=2).prefixes == 2
    assert snapshot(tmp_path) == before
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def test_the_book_of_a_run_is_checked(run, trained, book, tmp_path):
    assert len(run.reference.splits["val"]) == 2
    changed = dataclasses.replace(run, meta=run.meta | {"corpus": {"sha256": "0" * 64}})
    with pytest.raises(UserError, match=r"is not the text.*--corpus BOOK"):
        _ = changed.reference
    moved = shutil.copy(book, tmp_path / "moved.txt")
    again = hlm_jax.load_run(trained[0], corpus=moved)
    assert again.reference.baseline_bits_per_char(["宝玉"]) > 0


def test_the_place_of_the_book_is_recorded_absolutely(run, book):
    from pathlib import Path

    assert run.config.corpus.path == str(book)
    assert Path(run.config.corpus.cache_dir).is_absolute()


def test_a_run_of_version_0_1_0_is_read(run_of_0_1_0, monkeypatch):
    monkeypatch.chdir(run_of_0_1_0)  # it recorded the relative path book.txt
    run = hlm_jax.load_run(run_of_0_1_0)
    (score, *_) = run.score([run.reference.splits["val"][0].text])
    assert score.bits_per_char == pytest.approx(7.9, abs=0.2)
    assert run.generate(run.config.sample.prompt, max_new_tokens=5)


def test_what_could_begin_a_stop_string_is_shown_where_the_text_ends(run):
    words = {"max_new_tokens": 24, "seed": 1, "temperature": 1.0}
    (whole,) = run.generate(**words)
    stop = whole[-2:] + "龘"  # begins with the text's end, and never comes
    parts = [new[0] for new in run.stream([None], stop=[stop], **words)]
    assert "".join(parts) == whole
    assert len(parts[-1]) >= 2
    (done,) = run.complete(stop=stop, **words)
    assert (done.text, done.finish_reason) == (whole, "length")


def test_generation_ends_when_every_row_has_stopped(run, monkeypatch):
    from hlm_jax import language_model

    blocks = []

    def counted(*args, stream=language_model.stream, **words):
        for block in stream(*args, **words):
            blocks.append(block)
            yield block

    monkeypatch.setattr(language_model, "stream", counted)
    words = {"num_samples": 2, "max_new_tokens": 100, "temperature": 0.0}
    first = run.generate(**words)[0][0]
    assert len(blocks) == math.ceil(100 / 16)
    blocks.clear()
    assert run.generate(stop=first, **words) == ["", ""]
    assert len(blocks) == 1
    blocks.clear()
    parts = run.stream([None], max_new_tokens=100)
    next(parts)
    parts.close()
    assert len(blocks) == 1


def test_a_stream_is_checked_before_its_first_text(run):
    for words, error in (
        ({"max_new_tokens": 0}, UserError),
        ({"max_new_tokens": 4, "top_p": 7}, UserError),
        ({"max_new_tokens": 4, "temprature": 1.0}, TypeError),
    ):
        with pytest.raises(error):
            run.stream([None], **words)
    assert len(next(run.stream("宝玉", max_new_tokens=4))) == 1  # one prompt, not two characters


def test_a_split_that_does_not_exist(run):
    with pytest.raises(UserError, match="no split 'dev': use train, val, test"):
        run.read_chapters(split="dev")
