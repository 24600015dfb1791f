"""The reference run: a GPT-2 of 89,092,608 parameters on all 80 chapters, 2000 epochs.

Command:  python -m hlm_jax.train --config configs/base.py --workdir runs/base
Time:     for a GPU. The run it repeats took 13 h 42 min on one 25 GB RTX 6000, in float32. On a CPU it would take weeks;
          the command says how long before it starts.
Result:   a model that has learned the book by heart: it writes in its style and recites it. Nothing is held out, so no
          figure here says how well it would do on new text; for that, configs/base_heldout.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "dtype": "auto",  # of matrix products in training: the fastest that the device has (see docs/performance.md)
            "attention": "auto",  # xla or fused; auto measures where a fused kernel exists
            "mesh": {
                "fsdp": 1
            },  # devices that share the weights and optimizer state; the others repeat them
            "corpus": {
                "path": "",  # a text file or a folder of chapter files; empty for the edition
                "edition": "zhiyanzhai",
                "cache_dir": "data",
                "convert": "",  # an OpenCC configuration such as t2s
                "parts": 20,  # for a book without chapter headings
            },
            "split": {
                "held_out": False,  # True: test chapters 5, 15, …; validation 10, 20, …
                "train_every": 1,  # N: only every Nth training chapter
            },
            "tokenizer": {
                # Tokens per character of the validation chapters: 1.0 -> .824, .998 -> .784, .995 -> .774, .993 -> .772,
                # .99 -> .772: rarer characters are better spelled in bytes than given pieces that words could have.
                "character_coverage": 0.993,
            },
            "model": {
                "form": "gpt2",  # or qwen3
                "vocab_size": 5000,
                "block_size": 256,
                "n_layer": 12,
                "n_head": 12,
                "n_embd": 768,
                "dropout": 0.1,  # of embeddings, attention weights and both residual branches
                "embedding_dropout": -1.0,  # of embeddings alone; -1: dropout's
                "rope_theta": 10000.0,  # qwen3 only
            },
            "optim": {
                "name": "adamw",  # or muon
                "learning_rate": 3e-5,
                "muon_learning_rate": 0.0,  # muon only: the rate of hidden matrices
                "schedule": "constant",  # or cosine, linear
                "warmup_steps": 0,
                "final_fraction": 0.0,  # where cosine and linear end, as a share of the rate
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0.01,  # matrices only
                "grad_clip_norm": 1.0,  # 0: no clipping
            },
            "train": {
                "batch_size": 64,
                "epochs": 2000,
                "steps": 0,  # when set, wins over epochs
                "accumulate_steps": 1,
                "corrupt_inputs": 0.0,  # share of the input tokens replaced by random ones
                "corrupt_anneal": 0.0,  # over this last share of the steps it moves linearly to corrupt_final
                "corrupt_final": 0.0,
                "teachers": (),  # workdirs of trained runs; what they predict together is a share of every target
                "teacher_weight": 0.5,  # that share
                "steps_per_dispatch": 8,  # taken down to a divisor of the evaluation and checkpoint intervals
                "ema_decay": 0.0,  # 0: no average of the weights is kept
                "eval_every_steps": 1000,
                "eval_extraction": False,  # at evaluations also: how much training text greedy decoding gives back
                "log_every_steps": 50,
                "patience": 0,  # evaluations without a better validation score before stopping; 0: never
            },
            "checkpoint": {
                "every_steps": 1000,
                "keep_latest": 2,
            },
            "sample": {
                "prompt": "宝玉笑道：",
                "max_new_tokens": 200,
                "temperature": 1.0,  # these two: the nearest to real chapters of those tried (docs/generalisation.md)
                "top_p": 0.9,
            },
        }
    )
