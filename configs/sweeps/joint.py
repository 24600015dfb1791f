"""What the useful options of recipe.py do together, at the same scale; the baseline is the best of them alone.

Command:  python scripts/sweep.py configs/sweeps/joint.py --jobs 2
"""

from configs.sweeps import recipe

CONFIG, COMMON = recipe.CONFIG, [*recipe.COMMON, "train.corrupt_inputs=0.2"]
RUNS = {
    "corrupt_inputs 0.2": [],
    "and embedding_dropout 0.3": ["model.embedding_dropout=0.3"],
    "3 x 192 for 350 steps (as much compute)": [
        "model.n_layer=3",
        "model.n_head=6",
        "model.n_embd=192",
        "train.steps=350",
        "train.eval_every_steps=50",
        "checkpoint.every_steps=50",
    ],
    "2 x 80 for 1500 steps (as much compute)": ["model.n_embd=80", "train.steps=1500"],
    "and vocab_size 2500": ["model.vocab_size=2500", "tokenizer.character_coverage=0.98"],
    "corrupt_inputs 0.3": ["train.corrupt_inputs=0.3"],
}
