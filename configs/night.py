"""For two CPU cores and a night: models that teach one another, small.py's form at width 512.

Command:  python -m hlm_jax.train --config configs/night.py --workdir runs/night
          python scripts/chain.py --config configs/lstm.py configs/night.py --links 8 \\
            --workdir runs/chain
Time:     the eight links take seven to eight hours of two CPU cores with bfloat16 products, by the
          time of a step of small.py and its width: an estimate. In as many sittings as wanted.
Result:   not yet measured.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    config = small.get_config()
    config.model.update(n_head=8, n_embd=512)
    config.train.update(steps=8000)
    return config
