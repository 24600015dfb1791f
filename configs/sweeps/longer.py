"""How a run of 36 epochs keeps from learning by heart, on decayed.py's recipe but 3 x 192: decay, and how much noise is left at its end.

Command:  python scripts/sweep.py configs/sweeps/longer.py --jobs 2
"""

from configs.sweeps import decayed

CONFIG = decayed.CONFIG
COMMON = [
    *decayed.COMMON,
    "model.vocab_size=2150",
    "model.n_layer=3",
    "model.n_head=3",
    "model.n_embd=192",
    "optim.weight_decay=2.5",
    "train.corrupt_anneal=0.2",
    "train.corrupt_final=0.1",
    "train.steps=1800",
    "train.eval_every_steps=200",
    "checkpoint.every_steps=200",
]
RUNS = {
    "weight_decay 2.5, noise 0.2 to 0.1": [],
    "noise 0.2 to none": ["train.corrupt_final=0.0"],
    "weight_decay 1.5": ["optim.weight_decay=1.5"],
    "weight_decay 1.5, noise 0.2 to none": ["optim.weight_decay=1.5", "train.corrupt_final=0.0"],
    "weight_decay 4": ["optim.weight_decay=4.0"],
}
