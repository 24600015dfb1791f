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
# # Who wrote it, in ten minutes
#
# Two sets of chapters, told apart by n-gram models that never saw the chapter they judge, beside
# controls. No neural network is involved. `docs/authorship.md` describes every figure.
#
# Set `BOOK` to a text that holds both sides in one edition. The default edition ends with chapter
# 80, so without a book the question is a control: 1-40 against 41-80, two halves of one author.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import hlm_jax
from hlm_jax.analysis.authorship.questions import read_sides
from hlm_jax.analysis.authorship.study import study

book = os.environ.get("BOOK")
a, b = ("1-80", "81-120") if book else ("1-40", "41-80")
root = Path(hlm_jax.__file__).resolve().parents[1]
cache = f"corpus.cache_dir={root / 'data'}"
texts = read_sides(str(root / "configs/tiny.py"), [cache], book, a, b)
found = study(texts, folds=5, draws=2)

# %% [markdown]
# The figures of the question and of its controls. What counts is the effect beside that of the
# controls: most halves of one novel can be told apart.

# %%
for name, one in {f"{a} / {b}": found.summary, **found.summary["controls"]}.items():
    ngram = one["ngram"]
    right = f"{ngram['correct']} of {ngram['chapters']} right"
    print(f"{name:24} {right:20} AUC {ngram['auc']:.3f}  effect {ngram['effect']:+.3f} bits/char")

# %% [markdown]
# The ratio of every chapter along the book: above zero the model of side A costs fewer bits.

# %%
ratio = found.main.ratio
is_a = found.main.question.is_a
number = np.array([chapter.number for chapter in texts.chapters])[found.main.question.rows]
plt.figure(figsize=(9, 3))
for side, label in ((is_a, a), (~is_a, b)):
    plt.plot(number[side], ratio[side], "o", ms=4, label=label)
plt.axhline(0, color="grey", lw=1)
plt.xlabel("chapter")
plt.ylabel("ratio, bits/char")
plt.legend()
