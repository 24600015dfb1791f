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
# # Surprisal of a passage
#
# How many bits each token of a passage cost the model, given all that stands before it.
# `docs/surprisal.md` describes every column.
#
# Set `WORKDIR` to the folder of a run; without it `runs/tiny` of this repository is read, which
# `bash scripts/quickstart.sh` makes.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import hlm_jax
from hlm_jax.analysis.surprisal import documents_of, surprisal_table

root = Path(hlm_jax.__file__).resolve().parents[1]
run = hlm_jax.load_run(os.environ.get("WORKDIR", root / "runs/tiny"))

# %% [markdown]
# The passage is the beginning of a chapter that the model has not been trained on. A cell that
# ends in a table shows it as a heat map.

# %%
chapter = run.read_chapters(split="val")[0]
passage = chapter.text[:300]
table = run.surprisal(passage, top=3, reference=run.reference)
table

# %% [markdown]
# Rows are named tuples. The bits add up to the cost of the text.

# %%
for row in sorted(table, key=lambda row: -row.bits)[:8]:
    print(f"{row.bits:5.1f} bits  rank {row.rank:4d}  {row.text!r}")
print(f"{sum(table.columns['bits']) / len(passage):.3f} bits/char")

# %% [markdown]
# ## Beside the 5-gram
#
# What counting expects, for the same characters. Above the line the model was the more surprised.

# %%
model, ngram = (np.array(table.columns[name], float) for name in ("bits", "ngram_bits"))
plt.figure(figsize=(5, 5))
plt.scatter(ngram, model, s=10)
limit = max(model.max(), ngram.max())
plt.plot([0, limit], [0, limit], color="grey", lw=1)
plt.xlabel("5-gram, bits")
plt.ylabel("model, bits")
print(f"correlation {np.corrcoef(model, ngram)[0, 1]:.2f}")

# %% [markdown]
# ## Narration and speech
#
# Bits per character inside and outside quotation marks, over a whole held-out chapter.

# %%
documents = documents_of(run, chapters=str(chapter.number))
whole = surprisal_table(run, documents, reference=run.reference).by_character()
speech = np.array(whole.columns["is_speech"], bool)
bits = np.array(whole.columns["bits"], float)
for name, inside in (("speech", speech), ("narration", ~speech)):
    if inside.any():
        print(f"{name}: {bits[inside].mean():.3f} bits/char")
