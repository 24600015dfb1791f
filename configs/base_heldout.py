"""The reference run with the split: trains on 64 chapters, validates on 10, 20, …, 80 and keeps 5, 15, …, 75 for the test.

Command:  python -m hlm_jax.train --config configs/base_heldout.py --workdir runs/base_heldout
Time:     as configs/base.py: for a GPU.
Result:   validation bits per character fall, turn and rise while the training loss goes on falling: the curve of learning
          by heart. The best checkpoint is the one to read.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.split.held_out = True
    config.train.eval_extraction = True
    return config
