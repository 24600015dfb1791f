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
    step,
    text,
    truth,
    whole,
)

# 256 bytes, <unk>, the separator, the newline, “ and ”, the sign of a space, and one character.
SMALLEST_VOCABULARY = 263

FREE, RECORDED, FIXED = "free", "recorded", "fixed"


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key.

    Attributes:
      default: the reference run's value.
      rule: what is allowed.
      line: what the key does.
      resume: what happens when a run is resumed with another value. FREE: it changes no figure of
        the run and is not recorded. RECORDED: the run goes on with it, and its checkpoints tell
        from which step. FIXED: refused, the run would be another one.
    """

    default: Any
    rule: Rule
    line: str
    resume: str = FIXED


KEYS: dict[str, Key] = {
    "seed": Key(0, whole(low=0, high=2**32 - 1), "Decides weights, windows, dropout and samples."),
    "dtype": Key(
        "auto",
        choice("auto", "float32", "bfloat16", "float16"),
        "Type of matrix products in training. auto: the device's fastest.",
        RECORDED,
    ),
    "attention": Key(
        "auto",
        choice("auto", "xla", "fused"),
        "auto: the faster one. fused: one kernel, on a GPU of 8.0 or more.",
        FREE,
    ),
    "mesh.fsdp": Key(
        1, whole(low=1), "Devices that share the weights; further devices repeat them.", FREE
    ),
    "corpus.path": Key(
        "", path(optional=True), "A text, HTML or EPUB file, or a folder. Empty: the edition.", FREE
    ),
    "corpus.edition": Key(
        "zhiyanzhai",
        choice("zhiyanzhai", otherwise=", or --config.corpus.path=BOOK.txt for another book"),
        "The edition that is fetched when corpus.path is empty.",
    ),
    "corpus.revision": Key(
        2, whole(low=1, high=2), "Revision of the edition's text. Runs of version 0.1 read 1."
    ),
    "corpus.cache_dir": Key("data", path(), "Folder that keeps the fetched edition.", FREE),
    "corpus.convert": Key("", conversion(), "Conversion of the text's characters."),
    "corpus.heading": Key("", pattern(), "Matches the book's heading lines. Empty: detect them."),
    "corpus.drop_brackets": Key(
        "", brackets(), "Brackets whose content, a commentary, is left out of the book."
    ),
    "corpus.parts": Key(20, whole(low=10), "Equal parts of a book that has no chapters."),
    "corpus.extra": Key(
        (), paths(), "Further texts, trained on at first and never scored.", RECORDED
    ),
    "corpus.extra_fraction": Key(
        0.7,
        number(above=0, high=1),
        "Fraction of a batch's windows that are of corpus.extra at first.",
        RECORDED,
    ),
    "corpus.extra_hold": Key(
        0.3,
        number(low=0, high=1),
        "Fraction of the steps after which corpus.extra_fraction falls.",
        RECORDED,
    ),
    "corpus.extra_end": Key(
        0.55,
        number(low=0, high=1),
        "Fraction of the steps from which on the book is alone.",
        RECORDED,
    ),
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
    "model.form": Key(
        "gpt2",
        choice("gpt2", "qwen3", "mogrifier"),
        "GPT-2's, Qwen3's, or a Mogrifier LSTM, for a mixture.",
    ),
    "model.vocab_size": Key(
        5000,
        whole(low=SMALLEST_VOCABULARY),
        "Tokens in the vocabulary, bytes and special tokens included.",
    ),
    "model.block_size": Key(256, whole(low=2), "Tokens that the model reads at once."),
    "model.n_layer": Key(12, whole(low=1), "Transformer blocks, or layers of an LSTM."),
    "model.n_head": Key(
        12, whole(low=1), "Attention heads; divides model.n_embd where model.head_dim is 0."
    ),
    "model.n_embd": Key(768, whole(low=1), "Width of the model."),
    "model.n_kv_head": Key(
        0, whole(low=0), "Heads of keys and values (qwen3 only). 0: as model.n_head."
    ),
    "model.head_dim": Key(
        0, whole(low=0), "Width of a head (qwen3 only). 0: model.n_embd / model.n_head."
    ),
    "model.intermediate_size": Key(
        0, whole(low=0), "Width inside an MLP. 0: 4 x n_embd (gpt2), 8/3 x n_embd (qwen3)."
    ),
    "model.dropout": Key(
        0.1,
        number(low=0, below=1),
        "Of embeddings, attention weights and residual branches.",
        RECORDED,
    ),
    "model.rope_theta": Key(
        10000.0, number(above=0), "Base of the rotary position angles (qwen3 only)."
    ),
    "optim.name": Key(
        "adamw", choice("adamw", "muon"), "muon moves hidden matrices by Muon, the rest by AdamW."
    ),
    "optim.learning_rate": Key(3e-5, number(low=0), "Peak rate of AdamW.", RECORDED),
    "optim.muon_learning_rate": Key(0.0, number(low=0), "Peak rate of Muon.", RECORDED),
    "optim.muon_steps": Key(
        5,
        whole(low=3, high=5),
        "Newton-Schulz steps of Muon; 5 are Jordan's, 3 take less time.",
        RECORDED,
    ),
    "optim.schedule": Key(
        "constant", choice("constant", "cosine", "linear"), "Rate after the warm-up.", RECORDED
    ),
    "optim.warmup_steps": Key(
        0, whole(low=0), "Steps in which the rate rises to its peak.", RECORDED
    ),
    "optim.final_fraction": Key(
        0.0,
        number(low=0, high=1),
        "cosine and linear: the last rate, as a fraction of the peak.",
        RECORDED,
    ),
    "optim.b1": Key(0.9, number(low=0, below=1), "AdamW: decay of the mean gradient.", RECORDED),
    "optim.b2": Key(
        0.999, number(low=0, below=1), "AdamW: decay of the mean squared gradient.", RECORDED
    ),
    "optim.eps": Key(
        1e-8, number(above=0), "AdamW: added to the root of the squared gradient.", RECORDED
    ),
    "optim.weight_decay": Key(0.01, number(low=0), "Weight decay, of matrices only.", RECORDED),
    "optim.grad_clip_norm": Key(
        1.0, number(low=0), "Largest norm of the gradient. 0: no limit.", RECORDED
    ),
    "train.batch_size": Key(
        64, whole(low=1), "Windows in a step, of all devices together.", RECORDED
    ),
    "train.epochs": Key(2000, whole(low=0), "Times that the training text is read.", RECORDED),
    "train.steps": Key(
        0, whole(low=0, high=2**31 - 1), "Optimizer steps. 0: train.epochs decides.", RECORDED
    ),
    "train.init_from": Key(
        "",
        path(optional=True),
        "Run or transformers folder to start from: weights, shape, tokenizer.",
    ),
    "train.init_step": Key("best", step(), "The checkpoint of the run that train.init_from names."),
    "train.grad_accum_steps": Key(
        1, whole(low=1), "Parts that a batch is computed in, to save memory.", RECORDED
    ),
    "train.corrupt_inputs": Key(
        0.0,
        number(low=0, below=1),
        "Fraction of input tokens replaced by random ones. 0: none.",
        RECORDED,
    ),
    "train.corrupt_anneal": Key(
        0.0,
        number(low=0, high=1),
        "Last fraction of the steps, in which it moves to train.corrupt_final.",
        RECORDED,
    ),
    "train.corrupt_final": Key(
        0.0, number(low=0, below=1), "Fraction of input tokens replaced at the last step.", RECORDED
    ),
    "train.teachers": Key(
        (),
        paths(),
        "Workdirs of runs whose mean prediction is part of the targets.",
        RECORDED,
    ),
    "train.teacher_weight": Key(
        0.5, number(low=0, high=1), "Weight of the teachers' prediction in a target.", RECORDED
    ),
    "train.steps_per_dispatch": Key(
        8, whole(low=1), "Steps in one device call; reduced to a divisor of the intervals.", FREE
    ),
    "train.ema_decay": Key(
        0.0,
        number(low=0, below=1),
        "Decay of the weights' moving average. 0: none is kept.",
        RECORDED,
    ),
    "train.eval_every_steps": Key(1000, whole(low=1), "Steps between evaluations.", FREE),
    "train.eval_extraction": Key(
        False, truth(), "Evaluations also measure how much training text is recited.", FREE
    ),
    "train.log_every_steps": Key(50, whole(low=1), "Steps between log lines.", FREE),
    "train.patience": Key(
        0, whole(low=0), "Stops after this many evaluations without a better one. 0: never.", FREE
    ),
    "checkpoint.every_steps": Key(1000, whole(low=1), "Steps between checkpoints.", FREE),
    "checkpoint.keep_latest": Key(
        2, whole(low=1), "Newest checkpoints that are kept, in addition to the best one.", FREE
    ),
    "sample.prompt": Key(
        "", text(), "Beginning of the samples. Empty: that of a chapter of the book.", FREE
    ),
    "sample.max_new_tokens": Key(200, whole(low=1), "Length of the samples in tokens.", FREE),
    # Of the temperatures and top_p that were tried, these write most like real chapters.
    "sample.temperature": Key(1.0, number(low=0), "0 takes the likeliest token.", FREE),
    "sample.top_k": Key(0, whole(low=0), "Only the k likeliest tokens. 0: all.", FREE),
    "sample.top_p": Key(
        0.9,
        number(low=0, high=1),
        "Only the likeliest tokens, up to this total probability. 1: all.",
        FREE,
    ),
    "sample.min_p": Key(
        0.0,
        number(low=0, high=1),
        "Only tokens of at least this fraction of the largest probability.",
        FREE,
    ),
    "sample.repetition_penalty": Key(
        1.0, number(above=0), "Divides the logits of tokens that occurred. 1: no change.", FREE
    ),
}

# Keys of version 0.1.0 under the names of today.
RENAMED = {"train.accumulate_steps": "train.grad_accum_steps"}
# Keys that are gone, and what to do about it.
REMOVED = {
    "model.embedding_dropout": "was removed: model.dropout is also the embeddings' rate",
    "optim.cycles": "was removed: cycles of the rate gained nothing",
    "train.mtp_weight": "was removed: the token after the next taught the model nothing",
}
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
# Keys that change no figure that a run computes; with other values it is the same experiment. The
# content of corpus.path is checked by its sha256.
WITHOUT_EFFECT = (
    "checkpoint.",
    "corpus.cache_dir",
    "corpus.path",
    "mesh.",
    "sample.",
    "train.log_every_steps",
)
# Keys that a run with train.init_from takes from the other model, whatever the config says.
SHAPE = tuple(name for name in KEYS if name.startswith("model.") and name != "model.dropout")
