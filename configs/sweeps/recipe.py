"""Screening of the recipe at small scale: every option alone, against the same model without it.

Command:  python scripts/sweep.py configs/sweeps/recipe.py --jobs 2
Scale:    2 layers x 128 on every fourth training chapter for 20 epochs: about as many weights per training token, and as many
          epochs, as the first configs/small.py had, in a hundredth of its time.
"""

CONFIG = "configs/tiny.py"
COMMON = [
    "split.train_every=4",
    "model.n_layer=2",
    "model.n_head=4",
    "model.n_embd=128",
    "train.steps=800",
    "train.eval_every_steps=100",
    "checkpoint.every_steps=100",
]
RUNS = {
    "baseline": [],
    "a quarter of the steps": [
        "train.steps=200",
        "train.eval_every_steps=50",
        "checkpoint.every_steps=50",
    ],
    "half of the steps": [
        "train.steps=400",
        "train.eval_every_steps=50",
        "checkpoint.every_steps=50",
    ],
    "corrupt_inputs 0.1": ["train.corrupt_inputs=0.1"],
    "corrupt_inputs 0.2": ["train.corrupt_inputs=0.2"],
    "dropout 0": ["model.dropout=0.0"],
    "dropout 0.3": ["model.dropout=0.3"],
    "embedding_dropout 0.3": ["model.embedding_dropout=0.3"],
    "adamw": ["optim.name=adamw"],
    "weight_decay 0.1": ["optim.weight_decay=0.1"],
    "ema_decay 0.98": ["train.ema_decay=0.98"],
}
