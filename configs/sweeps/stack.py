"""What still pays on top of corrupted inputs and a small vocabulary, at recipe.py's scale; the baseline is the best of joint.py.

Command:  python scripts/sweep.py configs/sweeps/stack.py --jobs 2
"""

from configs.sweeps import recipe

CONFIG, COMMON = (
    recipe.CONFIG,
    [
        *recipe.COMMON,
        "train.corrupt_inputs=0.2",
        "tokenizer.character_coverage=0.98",
        "model.vocab_size=2500",
    ],
)
RUNS = {
    "baseline": [],
    "embedding_dropout 0.3": ["model.embedding_dropout=0.3"],
    "dropout 0": ["model.dropout=0.0"],
    "dropout 0.2": ["model.dropout=0.2"],
    "weight_decay 0.1": ["optim.weight_decay=0.1"],
    "1600 steps": ["train.steps=1600"],
    "3 x 192": ["model.n_layer=3", "model.n_head=6", "model.n_embd=192"],
}
