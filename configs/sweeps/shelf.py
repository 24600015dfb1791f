"""When further texts are read, at small scale: the schedule of configs/shelf.py and changes to it.

Command:  NOVELS=A.txt,B.txt python scripts/sweep.py configs/sweeps/shelf.py --jobs 2
          With FIRST=W, also a row of two stages: W is a run on the further texts alone,
          python -m hlm_jax.train --config configs/sweeps/shelf.py --workdir W
            --config.corpus.extra=$NOVELS
Scale:    that of recipe.py for twice as many steps: 2 layers x 128 on every fourth training
          chapter, which the book alone teaches all that it can.
Result:   docs/lab/25-further-texts.md.
"""

import os

from ml_collections import ConfigDict

from configs import tiny
from configs.sweeps import recipe
from hlm_jax.config import load_config

CONFIG = recipe.CONFIG
STEPS = 1600
SMALL = [*recipe.COMMON, f"train.steps={STEPS}"]
COMMON = [*SMALL, f"corpus.extra={os.environ.get('NOVELS', 'NOVELS')}"]


def schedule(fraction: float, hold: float, end: float) -> list[str]:
    """Overrides of the share of further texts."""
    keys = {"fraction": fraction, "hold": hold, "end": end}
    return [f"corpus.extra_{name}={value}" for name, value in keys.items()]


RUNS = {
    "0.7 of the windows, falling from 30 % to 55 % of the steps": [],
    "the book alone": ["corpus.extra="],
    "0.3": schedule(0.3, 0.3, 0.55),
    "0.5": schedule(0.5, 0.3, 0.55),
    "0.9": schedule(0.9, 0.3, 0.55),
    "falling from the start to 55 %": schedule(0.7, 0.0, 0.55),
    "none from 45 % on, at once": schedule(0.7, 0.45, 0.45),
    "falling from 10 % to 30 %": schedule(0.7, 0.1, 0.3),
    "falling from 50 % to 75 %": schedule(0.7, 0.5, 0.75),
    "falling from 50 % to the end": schedule(0.7, 0.5, 1.0),
    "0.3 to the end": schedule(0.3, 1.0, 1.0),
    "800 steps": ["train.steps=800"],
    "800 steps, the book alone": ["train.steps=800", "corpus.extra="],
}
if first := os.environ.get("FIRST"):
    # As many steps in both stages together as in the others.
    RUNS["two stages"] = ["corpus.extra=", f"train.init_from={first}", f"train.steps={STEPS // 2}"]


def get_config() -> ConfigDict:
    """The first stage: half of the steps on the further texts alone, with the book's vocabulary."""
    return load_config(
        tiny.__file__, [*SMALL, *schedule(1.0, 1.0, 1.0), f"train.steps={STEPS // 2}"]
    )
