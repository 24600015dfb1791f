"""The parts of the recipe at small scale: strong weight decay without dropout, and changes to it.

Command:  python scripts/sweep.py configs/sweeps/recipe.py --jobs 2
Scale:    2 layers x 128 on every fourth training chapter for 17 epochs: about as many weights
          per training token as configs/small.py, in a hundredth of its time.
Result:   docs/lab/10-heavy-decay.md and docs/lab/16-parts.md.
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
    "tokenizer.character_coverage=0.98",
    "model.vocab_size=2500",
    "model.dropout=0.0",
    "optim.weight_decay=1.0",
    "train.corrupt_inputs=0.2",
]
WIDER = ["model.n_layer=3", "model.n_head=6", "model.n_embd=192"]
RUNS = {
    "weight_decay 1, dropout 0": [],
    "weight_decay 0.1, dropout 0.1": ["optim.weight_decay=0.1", "model.dropout=0.1"],
    "weight_decay 0.1": ["optim.weight_decay=0.1"],
    "weight_decay 0.3": ["optim.weight_decay=0.3"],
    "weight_decay 2": ["optim.weight_decay=2.0"],
    "dropout 0.1": ["model.dropout=0.1"],
    "3 x 192": WIDER,
    "3 x 192, weight_decay 2": [*WIDER, "optim.weight_decay=2.0"],
    "3 x 192, corrupt_inputs 0.1": [*WIDER, "train.corrupt_inputs=0.1"],
    "1600 steps": ["train.steps=1600"],
    "vocab_size 5000": ["model.vocab_size=5000", "tokenizer.character_coverage=0.993"],
    "vocab_size 2150 (251 words)": ["model.vocab_size=2150"],
    "vocab_size 1900 (1 word)": ["model.vocab_size=1900"],
    "windows of 256": ["model.block_size=256", "train.batch_size=8"],
    "form gpt2": ["model.form=gpt2"],
    "ema_decay 0.98": ["train.ema_decay=0.98"],
    "constant schedule, ema_decay 0.98": ["optim.schedule=constant", "train.ema_decay=0.98"],
    "cosine schedule": ["optim.schedule=cosine"],
    "muon_learning_rate 0.04": ["optim.muon_learning_rate=0.04"],
    "muon_learning_rate 0.01": ["optim.muon_learning_rate=0.01"],
    "corrupt_anneal 0.2": ["train.corrupt_anneal=0.2"],
    "3 x 192, corrupt_anneal 0.2": [*WIDER, "train.corrupt_anneal=0.2"],
    "corrupt_inputs 0": ["train.corrupt_inputs=0.0"],
    "adamw": ["optim.name=adamw"],
    "adamw, weight_decay 3": ["optim.name=adamw", "optim.weight_decay=3.0"],
    "vocab_size 8000": ["model.vocab_size=8000", "tokenizer.character_coverage=0.993"],
}
