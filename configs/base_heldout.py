"""The reference run with held-out chapters: 64 for training, 8 for validation and 8 for the test.

Command:  python -m hlm_jax.train --config configs/base_heldout.py --workdir runs/base_heldout
Time:     as configs/base.py: for a GPU.
Result:   validation bits per character fall, turn and rise while the training loss keeps falling.
          The model learns the text by heart; use the best checkpoint. Validation chapters are 10,
          20, …, 80, test chapters 5, 15, …, 75.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.split.held_out = True
    config.train.eval_extraction = True
    return config
