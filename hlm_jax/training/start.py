"""What a run begins from: nothing, another model, or its own newest checkpoint.

A run that goes on may do so with other values of some keys (`resume` in hlm_jax/keys.py). Its
checkpoints carry every such change with its step.
"""

import dataclasses
import filecmp
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.book.windows import Share
from hlm_jax.errors import UserError
from hlm_jax.keys import KEYS, RECORDED, SHAPE
from hlm_jax.model.shape import Params
from hlm_jax.pretrained import Pretrained, load_pretrained
from hlm_jax.rules import written
from hlm_jax.training.objective import corruption_schedule
from hlm_jax.training.optim import make_schedule


@dataclasses.dataclass(frozen=True)
class Change:
    """A key with another value from `step` on."""

    step: int
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key} {written(self.before)} -> {written(self.after)}"


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins from.

    Attributes:
      config: the run's, with the shape of the model that it goes on with.
      step: of the checkpoint that it goes on from; 0 for a new run.
      changes: what changed since step 0, the oldest first.
      tokenizer: of the checkpoint or of the other model; None where it is to be trained.
      base: the other model, for a new run; None otherwise.
      init: what is known of the other model (pretrained.Pretrained.about), or None.
      asked: {key: value} of the shape that the config names, where another model has another one.
      report: the corpus report of the checkpoint; empty for a new run.
    """

    config: ConfigDict
    step: int = 0
    changes: tuple[Change, ...] = ()
    tokenizer: BaseTokenizer | None = None
    base: Pretrained | None = None
    init: Mapping[str, Any] | None = None
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, workdir: Path, config: ConfigDict) -> "Start":
        """What `workdir` and `config` say; reads no book.

        Raises:
          UserError: the workdir holds a run that this config cannot go on with, or train.init_from
            is no model that fits.
        """
        found = newest_meta(workdir)
        if found is None:
            start = cls._new(config)
            refuse_other_config(workdir, start.config)
            return start
        step, meta = found
        saved, asked = meta["config"], meta.get("asked", {})
        if saved["train"]["init_from"]:
            if config.train.init_from:
                _refuse_other_shape(workdir, config, asked)
            config = _with_shape(config, configs.flatten(saved))
        refuse_other_config(workdir, config)
        refuse_changes(workdir, saved, config)
        now = configs.changes(saved, configs.recorded(config))
        new = [Change(step, key, *pair) for key, pair in now.items()]
        return cls(
            config,
            step,
            (*changes_in(meta), *(change for change in new if KEYS[change.key].resume == RECORDED)),
            checkpoint.tokenizer_of(meta),
            init=meta.get("init"),
            asked=asked,
            report=meta["corpus"],
        )

    @classmethod
    def _new(cls, config: ConfigDict) -> "Start":
        if not config.train.init_from:
            return cls(config)
        base = load_pretrained(config.train.init_from, config.train.init_step)
        base = base.shortened(min(base.cfg.block_size, config.model.block_size))
        shape = {f"model.{name}": value for name, value in dataclasses.asdict(base.cfg).items()}
        values = configs.flatten(config)
        return cls(
            _with_shape(config, shape),
            tokenizer=base.tokenizer,
            base=base,
            init=base.about,
            asked={name: values[name] for name in SHAPE},
        )

    @property
    def params(self) -> Params | None:
        """The weights of the other model, for a new run."""
        return self.base.params if self.base else None

    @property
    def new_changes(self) -> list[Change]:
        """Those that this start makes."""
        return [change for change in self.changes if change.step == self.step]

    def history(self) -> list[tuple[int, dict[str, Any]]]:
        """(first step, values by key) of the config before the first change, and after each."""
        values = configs.flatten(configs.recorded(self.config))
        stages = []
        for step in sorted({change.step for change in self.changes}, reverse=True):
            stages.append((step, values))
            # Of two changes of a key at one step, the older one has the value from before.
            at_step = [change for change in self.changes if change.step == step]
            values = values | {change.key: change.before for change in reversed(at_step)}
        return [(0, values), *reversed(stages)]

    def changes_by_step(self) -> list[tuple[int, str]]:
        """(step, words) of all changes, those of one step together."""
        steps = sorted({change.step for change in self.changes})
        return [
            (step, ", ".join(str(change) for change in self.changes if change.step == step))
            for step in steps
        ]

    def describe(self, totals: Sequence[int]) -> list[str]:
        """Lines that tell what changes from this step on, and what becomes of the learning rate.

        Args:
          totals: how many steps the run had in every stage of `history`.
        """
        if self.base:
            return self._unused()
        if not self.new_changes:
            return []
        lines = [f"from step {self.step} on: {', '.join(map(str, self.new_changes))}"]
        (_, old), (_, new) = self.history()[-2:]
        pairs = list(zip((old, new), totals[-2:], strict=True))
        before, now = (_rates(values, total) for values, total in pairs)
        last = totals[-1]
        if before(self.step) != now(self.step) or before(last) != now(last):
            lines.append(
                f"learning rate: {before(self.step):.3g} at this step by the schedule of before, "
                f"{now(self.step):.3g} from here on, {now(last - 1):.3g} at the last step, {last}"
            )
        for name, part in (("further texts", _share), ("replaced input tokens", _noise)):
            was, becomes = (part(values, total, self.step) for values, total in pairs)
            if abs(was - becomes) > 1e-6:
                lines.append(
                    f"{name}: {was:.1%} at this step by the schedule of before, {becomes:.1%} from "
                    "here on"
                )
        return lines

    def _unused(self) -> list[str]:
        """A line on the keys of the section `model` that another model decides."""
        values = configs.flatten(self.config)
        unused = [
            f"{name}={written(asked)} (is {written(values[name])})"
            for name, asked in self.asked.items()
            if asked != values[name]
        ]
        return [f"not in use, as that model has its own: {', '.join(unused)}"] if unused else []


def _rates(values: Mapping[str, Any], total: int):
    """step -> learning rate of AdamW, a float."""
    schedule = make_schedule(
        schedule=values["optim.schedule"],
        peak=values["optim.learning_rate"],
        warmup_steps=values["optim.warmup_steps"],
        final_fraction=values["optim.final_fraction"],
        total_steps=total,
    )
    return lambda step: float(schedule(step))


def share_of(values: Mapping[str, Any], total: int) -> Share | None:
    """What further texts have of the windows, by the config's values; None without."""
    if not values["corpus.extra"]:
        return None
    hold, end = (values[f"corpus.extra_{name}"] * total for name in ("hold", "end"))
    return Share(values["corpus.extra_fraction"], hold, end)


def _share(values: Mapping[str, Any], total: int, step: int) -> float:
    share = share_of(values, total)
    return share.before(step + 1) - share.before(step) if share else 0.0


def _noise(values: Mapping[str, Any], total: int, step: int) -> float:
    schedule = corruption_schedule(
        rate=values["train.corrupt_inputs"],
        final=values["train.corrupt_final"],
        anneal=values["train.corrupt_anneal"],
        total_steps=total,
    )
    return float(schedule(step)) if schedule else 0.0


def _with_shape(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    return configs.replaced(config, {name: values[name] for name in SHAPE})


def _refuse_other_shape(workdir: Path, config: ConfigDict, asked: Mapping[str, Any]) -> None:
    """Refuses another shape than the config named when the run began, though neither is in use."""
    values = configs.flatten(config)
    changed = [
        f"{name}: {written(before)} -> {written(values[name])}"
        for name, before in asked.items()
        if values[name] != before
    ]
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config ({'; '.join(changed)}); its shape came "
            "from the model of train.init_from and stays: leave these keys as they were"
        )


def newest_meta(workdir: Path) -> tuple[int, dict[str, Any]] | None:
    """(step, meta) of the newest checkpoint whose meta can be read; None without one."""
    for step in reversed(checkpoint.steps_in(workdir)):
        try:
            return step, checkpoint.read_meta(workdir, step)
        except checkpoint.CheckpointError:
            continue  # restoring the arrays will report the damage
    return None


def changes_in(meta: Mapping[str, Any]) -> tuple[Change, ...]:
    """The changes that a checkpoint's meta records."""
    return tuple(Change(**change) for change in meta.get("changes", ()))


def refuse_other_config(workdir: Path, config: ConfigDict) -> None:
    """Refuses a config that makes another run than the one recorded in config.json.

    Raises:
      UserError: it names the keys.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        raise UserError(
            f"{path} is not JSON: delete it, the checkpoints hold the config as well"
        ) from None
    refuse_changes(workdir, saved, config)


def refuse_changes(workdir: Path, saved: Mapping[str, Any], config: ConfigDict) -> None:
    """Refuses a config with which the run of `workdir` cannot go on.

    Args:
      saved: the recorded config of the run.

    Raises:
      UserError: it names the keys.
    """
    now = configs.recorded(config)
    if changed := configs.differences(saved, now, resuming=True):
        raise UserError(
            f"{workdir} holds a run {_other_book(saved, config)}with another config "
            f"({'; '.join(changed)}): use another --workdir{_older_text(changed)}"
        )
    limits = configs.changes(saved, now).get("optim.grad_clip_norm", (1, 1))
    if not all(limits):
        raise UserError(
            f"{workdir} holds a run with optim.grad_clip_norm={limits[0]}: a limit cannot be added "
            "or removed, as the optimizer's state would have another form; change it to another "
            "number, such as 1e9 for hardly any limit"
        )


def _other_book(saved: Mapping[str, Any], config: ConfigDict) -> str:
    """ "of another book (old, not new), " where the recorded book is another file; else ""."""
    paths = configs.upgrade(saved)["corpus"]["path"], config.corpus.path
    before, now = (os.path.realpath(path) if path else "" for path in paths)
    both_files = os.path.isfile(before) and os.path.isfile(now)
    if before == now or (both_files and filecmp.cmp(before, now, shallow=False)):
        return ""
    default = "the default edition"
    return f"of another book ({before or default}, not {now or default}), "


def _older_text(changed: list[str]) -> str:
    """How to go on with a run that was trained on an earlier revision of the edition."""
    earlier = [line for line in changed if line.startswith("corpus.revision: ")]
    if not earlier:
        return ""
    return f", or go on with --config.corpus.revision={earlier[0].split()[1]}"
