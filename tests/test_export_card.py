"""The model card of an exported run."""

import dataclasses

import pytest

from hlm_jax.export import card
from hlm_jax.export.recitation import Recitation
from hlm_jax.run import load_run


def card_of(run, **meta):
    run = dataclasses.replace(run, meta=run.meta | meta)
    return card.card(
        run,
        format="hf",
        dtype="f32",
        file="model.safetensors",
        licence="unknown",
        recitation=Recitation((), "no time"),
    )


def test_the_card_tells_what_came_before(trained):
    run = load_run(trained[0])
    plain = card_of(run)
    assert "No licence was stated" in plain
    assert "began with" not in plain
    base = {"kind": "huggingface", "name": "qwen_base", "path": "/x/y", "step": None}
    text = card_of(run, init=base | {"seen": [], "unknown": "it may have read this book"})
    assert "began with qwen\\_base, a model of others" in text
    assert "prove nothing" in text
    assert "/x/y" not in text
    first = {"kind": "run", "name": "shelf", "corpus": {"name": "ten"}, "init": base}
    text = card_of(run, init=first | {"seen": [5, 10], "unknown": ""})
    assert "the run shelf, trained on ten." in text
    assert "qwen\\_base" in text
    assert "Held-out chapters that it had read before: 5,10. Figures on them" in text
    assert "Not everything" not in text


def test_the_card_has_the_baseline_with_further_texts(trained):
    run = load_run(trained[0])
    assert "further texts" not in card_of(run)
    metrics = run.meta["metrics"] | {"ngram_with_extra_bits_per_char": 5.8884}
    assert "| the same, with the further texts | 5.8884 |" in card_of(run, metrics=metrics)


def test_the_card_tells_of_further_texts_and_of_changes(trained):
    run = load_run(trained[0])
    assert "A language model of one book in the form" in card_of(run)
    row = {"name": "儒林外史", "path": "/x/儒林外史.txt", "sha256": "0"}
    changes = [
        {"step": 6, "key": "train.steps", "before": 6, "after": 12},
        {"step": 6, "key": "corpus.extra", "before": ["/x/儒林外史.txt"], "after": []},
    ]
    text = card_of(run, corpus=run.meta["corpus"] | {"former_extra": [row]}, changes=changes)
    assert "trained on further texts first" in text
    assert "trained on and never scored: 儒林外史\n" in text
    assert "- from step 6 on: train.steps 6 -> 12\n" in text
    assert "/x/" not in text


def test_the_card_of_a_run_without_held_out_chapters(trained):
    run = load_run(trained[0])
    assert "how it does on unseen text is not known" in card_of(run, metrics={})


@pytest.mark.parametrize(
    ("opening", "chinese"),
    [("第一回\n话说", True), ("Chapter 1\nAlice was", False), ("吾輩は猫である。", False)],
)
def test_only_a_chinese_book_is_called_chinese(trained, opening, chinese):
    run = load_run(trained[0])
    corpus = run.meta["corpus"] | {"opening": opening}
    run = dataclasses.replace(run, meta=run.meta | {"corpus": corpus})
    assert card.is_chinese(run) is chinese
    assert ("- zh\n" in card_of(run)) is chinese
