# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a checkpoint
#
# A run's folder holds all that is needed to read its model: weights, tokenizer, config and the
# record of its book. No GPU is needed, whatever trained it.
#
# Set `WORKDIR` to the folder of a run; without it `runs/tiny` of this repository is read, which
# `bash scripts/quickstart.sh` makes.

# %%
import os
from pathlib import Path

import numpy as np

import hlm_jax

root = Path(hlm_jax.__file__).resolve().parents[1]
run = hlm_jax.load_run(os.environ.get("WORKDIR", root / "runs/tiny"))
run

# %% [markdown]
# The config of the training, and what the run knows of its book.

# %%
print(run.config.model)
print(run.meta["corpus"]["chapters"], "chapters;", run.step, "steps")

# %% [markdown]
# The weights are numpy arrays under the names of the modules.

# %%
for name, value in run.params.items():
    if not isinstance(value, dict):
        print(name, value.shape, value.dtype)
print("block_0:", list(run.params["block_0"]))

# %% [markdown]
# ## Which tokens are near to each other
#
# Cosines between rows of the token embedding.

# %%
embedding = run.params["token_embedding"]
unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)


def near(text, n=8):
    """The n tokens whose embeddings are nearest to that of the first token of a text."""
    token = run.tokenizer.encode(text)[0]
    order = np.argsort(-unit @ unit[token])[1 : n + 1]
    return [(run.tokenizer.decode([i]), round(float(unit[token] @ unit[i]), 2)) for i in order]


near("宝玉")

# %% [markdown]
# ## What comes next
#
# `logits` gives the scores of every token after every prefix of a text.

# %%
text = "宝玉笑道：“"
row = run.logits(text)[-1]
p = np.exp(row - row.max())
p /= p.sum()
for i in np.argsort(-p)[:8]:
    print(f"{p[i]:.3f} {run.tokenizer.decode([int(i)])!r}")

# %%
print(text + run.generate(text, max_new_tokens=60)[0])

# %% [markdown]
# ## What the model is held against
#
# Bits per character of the validation chapters, beside those of the 5-gram of the training
# chapters.

# %%
chapters = [chapter.text for chapter in run.read_chapters(split="val")]
bits = sum(score.nats for score in run.score(chapters)) / np.log(2) / sum(map(len, chapters))
print(f"{bits:.3f} bits/char, the 5-gram {run.reference.baseline_bits_per_char(chapters):.3f}")
