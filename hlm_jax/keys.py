"""Every config key with its default, its rule and one line of help.

The defaults are those of the reference run, configs/base.py. `config` uses this table to load,
check and print configs, in the order of the table.
"""

import dataclasses
from typing import Any

from hlm_jax.rules import (
    Rule,
    brackets,
    chapters,
    choice,
    conversion,
    number,
    path,
    paths,
    pattern,
    text,
    truth,
    whole,
)

# 256 bytes, <unk>, the separator, the newline, “ and ”, the sign of a space, and one character.
SMALLEST_VOCABULARY = 263


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key: the reference run's value, what is allowed, and what it does in one line."""

    default: Any
    rule: Rule
    line: str


KEYS: dict[str, Key] = {
    "seed": Key(0, whole(low=0, high=2**32 - 1), "Decides weights, windows, dropout and samples."),
    "dtype": Key(
        "auto",
        choice("auto", "float32", "bfloat16", "float16"),
        "Type of matrix products in training. auto: the device's fastest.",
    ),
    "attention": Key(
        "auto",
        choice("auto", "xla", "fused"),
        "auto: the faster one. fused: one kernel, on a GPU of 8.0 or more.",
    ),
    "mesh.fsdp": Key(
        1,
        whole(low=1),
        "Devices that share the weights; further devices repeat them.",
    ),
    "corpus.path": Key(
        "", path(optional=True), "A text, HTML or EPUB file, or a folder. Empty: the edition."
    ),
    "corpus.edition": Key(
        "zhiyanzhai",
        choice("zhiyanzhai", otherwise=", or --config.corpus.path=BOOK.txt for another book"),
        "The edition that is fetched when corpus.path is empty.",
    ),
    "corpus.revision": Key(
        2, whole(low=1, high=2), "Revision of the edition's text. Runs of version 0.1 read 1."
    ),
    "corpus.cache_dir": Key("data", path(), "Folder that keeps the fetched edition."),
    "corpus.convert": Key("", conversion(), "Conversion of the text's characters."),
    "corpus.heading": Key("", pattern(), "Matches the book's heading lines. Empty: detect them."),
    "corpus.drop_brackets": Key(
        "", brackets(), "Brackets whose content, a commentary, is left out of the book."
    ),
    "corpus.parts": Key(20, whole(low=10), "Equal parts of a book that has no chapters."),
    "split.held_out": Key(
        False,
        truth(),
        "true: of ten chapters the 5th is for tests, the 10th for validation.",
    ),
    "split.train_every": Key(1, whole(low=1), "N: trains on every Nth training chapter only."),
    "split.train": Key("", chapters(), "Chapters that are trained on. Empty: all but split.test."),
    "split.test": Key(
        "", chapters(), "Chapters held out for the test, in place of split.held_out's."
    ),
    # Tokens per character of the validation chapters: 1.0 -> .824, .998 -> .784, .995 -> .774,
    # .993 -> .772, .99 -> .772. Tokens for rare characters would displace more useful words.
    "tokenizer.character_coverage": Key(
        0.993,
        number(low=0.98, high=1),
        "Fraction of the text whose characters get tokens; the rest is bytes.",
    ),
    "tokenizer.chapters": Key(
        "", chapters(), "Chapters that the vocabulary is fitted on. Empty: the training's."
    ),
    "model.form": Key("gpt2", choice("gpt2", "qwen3"), "Architecture: that of GPT-2 or of Qwen3."),
    "model.vocab_size": Key(
        5000,
        whole(low=SMALLEST_VOCABULARY),
        "Tokens in the vocabulary, bytes and special tokens included.",
    ),
    "model.block_size": Key(256, whole(low=2), "Tokens that the model reads at once."),
    "model.n_layer": Key(12, whole(low=1), "Transformer blocks."),
    "model.n_head": Key(12, whole(low=1), "Attention heads; divides model.n_embd."),
    "model.n_embd": Key(768, whole(low=1), "Width of the model."),
    "model.dropout": Key(
        0.1, number(low=0, below=1), "Of embeddings, attention weights and residual branches."
    ),
    "model.rope_theta": Key(
        10000.0, number(above=0), "Base of the rotary position angles (qwen3 only)."
    ),
    "optim.name": Key(
        "adamw", choice("adamw", "muon"), "muon moves hidden matrices by Muon, the rest by AdamW."
    ),
    "optim.learning_rate": Key(3e-5, number(low=0), "Peak rate of AdamW."),
    "optim.muon_learning_rate": Key(0.0, number(low=0), "Peak rate of Muon."),
    "optim.schedule": Key(
        "constant", choice("constant", "cosine", "linear"), "Rate after the warm-up."
    ),
    "optim.warmup_steps": Key(0, whole(low=0), "Steps in which the rate rises to its peak."),
    "optim.final_fraction": Key(
        0.0, number(low=0, high=1), "cosine and linear: the last rate, as a fraction of the peak."
    ),
    "optim.b1": Key(0.9, number(low=0, below=1), "AdamW: decay of the mean gradient."),
    "optim.b2": Key(0.999, number(low=0, below=1), "AdamW: decay of the mean squared gradient."),
    "optim.eps": Key(1e-8, number(above=0), "AdamW: added to the root of the squared gradient."),
    "optim.weight_decay": Key(0.01, number(low=0), "Weight decay, of matrices only."),
    "optim.grad_clip_norm": Key(1.0, number(low=0), "Largest norm of the gradient. 0: no limit."),
    "train.batch_size": Key(64, whole(low=1), "Windows in a step, of all devices together."),
    "train.epochs": Key(2000, whole(low=0), "Times that the training text is read."),
    "train.steps": Key(
        0, whole(low=0, high=2**31 - 1), "Optimizer steps. 0: train.epochs decides."
    ),
    "train.grad_accum_steps": Key(
        1, whole(low=1), "Parts that a batch is computed in, to save memory."
    ),
    "train.corrupt_inputs": Key(
        0.0, number(low=0, below=1), "Fraction of input tokens replaced by random ones. 0: none."
    ),
    "train.corrupt_anneal": Key(
        0.0,
        number(low=0, high=1),
        "Last fraction of the steps, in which it moves to train.corrupt_final.",
    ),
    "train.corrupt_final": Key(
        0.0, number(low=0, below=1), "Fraction of input tokens replaced at the last step."
    ),
    "train.teachers": Key(
        (), paths(), "Workdirs of runs whose mean prediction is part of every target."
    ),
    "train.teacher_weight": Key(
        0.5, number(low=0, high=1), "Weight of the teachers' prediction in a target."
    ),
    "train.steps_per_dispatch": Key(
        8, whole(low=1), "Steps in one device call; reduced to a divisor of the intervals."
    ),
    "train.ema_decay": Key(
        0.0, number(low=0, below=1), "Decay of the weights' moving average. 0: none is kept."
    ),
    "train.eval_every_steps": Key(1000, whole(low=1), "Steps between evaluations."),
    "train.eval_extraction": Key(
        False, truth(), "Evaluations also measure how much training text is recited."
    ),
    "train.log_every_steps": Key(50, whole(low=1), "Steps between log lines."),
    "train.patience": Key(
        0, whole(low=0), "Stops after this many evaluations without a better one. 0: never."
    ),
    "checkpoint.every_steps": Key(1000, whole(low=1), "Steps between checkpoints."),
    "checkpoint.keep_latest": Key(
        2, whole(low=1), "Newest checkpoints that are kept, in addition to the best one."
    ),
    "sample.prompt": Key(
        "", text(), "Beginning of the samples. Empty: that of a chapter of the book."
    ),
    "sample.max_new_tokens": Key(200, whole(low=1), "Length of the samples in tokens."),
    # Of the temperatures and top_p that were tried, these write most like real chapters.
    "sample.temperature": Key(1.0, number(low=0), "0 takes the likeliest token."),
    "sample.top_k": Key(0, whole(low=0), "Only the k likeliest tokens. 0: all."),
    "sample.top_p": Key(
        0.9,
        number(low=0, high=1),
        "Only the likeliest tokens, up to this total probability. 1: all.",
    ),
    "sample.min_p": Key(
        0.0,
        number(low=0, high=1),
        "Only tokens of at least this fraction of the largest probability.",
    ),
    "sample.repetition_penalty": Key(
        1.0, number(above=0), "Divides the logits of tokens that occurred. 1: no change."
    ),
}

# Keys of version 0.1.0 under the names of today.
RENAMED = {"train.accumulate_steps": "train.grad_accum_steps"}
# Keys of version 0.1.0 that are gone, and what to do about it.
REMOVED = {"model.embedding_dropout": "was removed: model.dropout is also the embeddings' rate"}
# Keys that version 0.1.0 did not have, with the values that mean what its runs did.
ADDED = {
    "corpus.revision": 1,
    "sample.top_k": 0,
    "sample.min_p": 0.0,
    "sample.repetition_penalty": 1.0,
    "split.train": "",
    "split.test": "",
    "tokenizer.chapters": "",
}
# Keys that may change when a run is resumed: they change no figure that it computes. The content
# of corpus.path is checked by its sha256.
FREE_ON_RESUME = (
    "checkpoint.",
    "corpus.cache_dir",
    "corpus.path",
    "mesh.",
    "sample.",
    "train.log_every_steps",
)
