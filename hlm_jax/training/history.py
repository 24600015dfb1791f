"""What a run's evaluations showed so far: the newest scores, the best one, and when to give up."""

import dataclasses
import math
from typing import Any

from hlm_jax.checkpoint import METRIC


@dataclasses.dataclass(frozen=True)
class History:
    """Frozen: every evaluation makes a new one. A score that is not a number is never the best.

    Attributes:
      step: steps done.
      newest: the values of the newest evaluation, by name.
      evaluated_at: the step of that evaluation; 0 before the first.
      best: lowest validation bits per character; None before the first finite score.
      best_step: the step of the best score.
      evaluations_since_best: evaluations after it, or in all where there is none.
      stopped_early: whether `train.patience` ended the run.
      initial: validation bits per character of the model that the run started from, or None.
    """

    step: int = 0
    newest: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluated_at: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    initial: float | None = None

    def ended(self, total_steps: int) -> bool:
        """Whether nothing is left to train."""
        return self.step >= total_steps or self.stopped_early

    def at(self, step: int) -> "History":
        """The same evaluations, `step` steps done."""
        return dataclasses.replace(self, step=step)

    def after(self, step: int, values: dict[str, float], patience: int) -> "History":
        """The history with the evaluation of `step`; stops early after `patience` worse ones."""
        score = values[METRIC]
        new = dataclasses.replace(self, step=step, newest=dict(values), evaluated_at=step)
        if math.isfinite(score) and (self.best is None or score < self.best):
            return dataclasses.replace(new, best=score, best_step=step, evaluations_since_best=0)
        worse = self.evaluations_since_best + 1
        stopped = bool(patience) and worse >= patience
        return dataclasses.replace(new, evaluations_since_best=worse, stopped_early=stopped)

    def resumed(self, patience: int) -> "History":
        """The history of a run that goes on, with a patience that may be another than before."""
        stopped = bool(patience) and self.evaluations_since_best >= patience
        return dataclasses.replace(self, stopped_early=self.stopped_early and stopped)

    def as_metrics(self) -> dict[str, Any]:
        """What a checkpoint of this step holds.

        Where the newest score belongs to an earlier step it is left out: the checkpoint must not be
        ranked by it.
        """
        metrics: dict[str, Any] = dict(self.newest)
        if self.evaluated_at != self.step:
            metrics.pop(METRIC, None)
        if self.best is not None:
            metrics |= {f"best_{METRIC}": self.best, "best_step": self.best_step}
        if self.evaluated_at:
            metrics["evaluations_since_best"] = self.evaluations_since_best
        if self.stopped_early:
            metrics["stopped_early"] = True
        if self.initial is not None:
            metrics[f"initial_{METRIC}"] = self.initial
        return metrics

    @classmethod
    def from_metrics(cls, step: int, metrics: dict[str, Any]) -> "History":
        """The history that `as_metrics` of this version or of 0.1.0 wrote into a checkpoint."""
        metrics = dict(metrics)
        best, best_step = metrics.pop(f"best_{METRIC}", None), metrics.pop("best_step", None)
        worse = metrics.pop("evaluations_since_best", None)
        stopped = metrics.pop("stopped_early", False)
        initial = metrics.pop(f"initial_{METRIC}", None)
        # Which step an older score belongs to matters no more once it is not this one.
        evaluated_at = step if METRIC in metrics else -1 if worse is not None else 0
        return cls(step, metrics, evaluated_at, best, best_step, worse or 0, stopped, initial)
