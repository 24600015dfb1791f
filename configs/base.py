"""The reference run: a GPT-2 of 89,092,608 parameters on all 80 chapters, 2000 epochs.

Command:  python -m hlm_jax.train --config configs/base.py --workdir runs/base
Time:     for a GPU. The original run took 13 h 42 min on a 25 GB RTX 6000, in float32. On a CPU it
          would take weeks; the command prints an estimate before it starts.
Result:   a model that has learned the book by heart. It writes in the book's style and recites it.
          No chapters are held out, so no figure of this run tells how well it predicts new text;
          configs/base_heldout.py does.
Keys:     python -m hlm_jax.train --config configs/base.py --help_config
"""

from ml_collections import ConfigDict

from hlm_jax.config import default_config


def get_config() -> ConfigDict:
    return default_config()
