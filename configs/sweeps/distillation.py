"""Distillation at stack.py's scale: a student of three runs of that sweep, which must be finished and in its default place.

Command:  python scripts/sweep.py configs/sweeps/distillation.py --jobs 2
"""

from configs.sweeps import stack

CONFIG, COMMON = stack.CONFIG, [*stack.COMMON, "optim.weight_decay=0.1"]
TEACHERS = ",".join(
    f"runs/sweeps/stack/{name}-seed0" for name in ("baseline", "weight_decay_0.1", "3_x_192")
)
RUNS = {
    "weight_decay 0.1": [],
    "taught, teacher_weight 0.5": [f"train.teachers={TEACHERS}"],
    "taught, teacher_weight 1": [f"train.teachers={TEACHERS}", "train.teacher_weight=1.0"],
}
