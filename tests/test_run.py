import dataclasses
import json
import math

import numpy as np
import pytest

import hlm_jax
from hlm_jax.book.corpus import Chapter
from hlm_jax.errors import UserError
from hlm_jax.run import describe_extraction


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
    np.testing.assert_allclose(
        run.logits(TEXT[:5])[: len(run.tokenizer.encode(TEXT[:5]))],
        logits[: len(run.tokenizer.encode(TEXT[:5]))],
        atol=1e-5,
    )
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
    texts = run.generate("宝玉笑道：", num_samples=2, max_new_tokens=20, seed=3, temperature=0.8)
    assert len(texts) == 2
    assert texts[0] != texts[1]
    assert (
        run.generate("宝玉笑道：", num_samples=2, max_new_tokens=20, seed=3, temperature=0.8)
        == texts
    )
    hot = run.generate("宝玉笑道：", num_samples=8, max_new_tokens=60, temperature=5.0)
    assert not any("�" in text for text in hot)  # a fifth of this vocabulary's pieces are bytes
    greedy = run.generate(["宝玉笑道：", None], max_new_tokens=20, temperature=0.0)
    assert run.generate(["宝玉笑道：", None], max_new_tokens=20, temperature=0.0, seed=9) == greedy


def test_the_corpus_of_a_run_is_checked(run):
    assert len(run.chapters["val"]) == 2
    changed = hlm_jax.run.Run(
        run.workdir,
        run.step,
        run.config,
        run.params,
        run.tokenizer,
        json.loads(json.dumps(run.meta)),
    )
    changed.meta["corpus"]["sha256"] = "0"
    with pytest.raises(UserError, match="not the text"):
        _ = changed.chapters


def test_importing_the_package_does_not_load_jax(command):
    done = command("-c", "import sys, hlm_jax; print('jax' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_recitation_of_a_book_too_short_to_measure_it_on(run):
    short = dataclasses.replace(run)
    short.__dict__["chapters"] = {"train": [Chapter(1, "", "宝玉笑道")], "val": [], "test": []}
    assert short.human_row is None
    found = short.extraction("train")
    assert found.prefixes == 0
    assert "none has 32 tokens" in describe_extraction("train", found)
    assert run.human_row.chars == sum(len(chapter.text) for chapter in run.chapters["val"])
    assert run.extraction("val", prefixes=3).prefixes == 3
