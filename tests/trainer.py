"""Trainings in this process, for tests of commands that start several of them."""

import pytest
from conftest import captured

from hlm_jax import config as configs
from hlm_jax import train
from hlm_jax.errors import UserError
from hlm_jax.training import loop
from hlm_jax.training.stop import StopRequest
from hlm_jax.training.validation import Validation


class Trainer:
    """Stands in for process.train: the same command in this process; counts its calls.

    Without samples and final report, which cost more than so short a training.

    Attributes:
      names: of the trainings that it finished.
      fails_at: the name of a training that is stopped before it begins.
      stops_in: of one that is stopped after its first steps, and has saved them.
    """

    def __init__(self):
        self.names, self.fails_at, self.stops_in = [], None, None

    def __call__(self, config, overrides, folder, *, name, report=None, **_):
        if name == self.fails_at:
            raise UserError(f"{name} was asked to stop")
        if name == self.stops_in:
            stop = StopRequest()
            stop.agreed = lambda *_: True
            loop.train(configs.load_config(config, overrides), folder, stop=stop)
            (folder / "seconds.txt").write_text("1.0\n")
            raise UserError(f"{name} was asked to stop")
        words = [f"--config.{word}" for word in overrides]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Validation, "sample", lambda *_: "")
            patch.setattr(loop, "final_report", lambda *_: iter(()))
            done = captured(train.main, ["--config", config, "--workdir", str(folder), *words])
        folder.mkdir(exist_ok=True)
        (folder / "log.txt").write_text(done.stdout, encoding="utf-8")
        (folder / "seconds.txt").write_text("2.0\n1.5\n")
        if done.returncode:
            raise UserError(done.stderr.strip())
        report(1, 2)
        self.names.append(name)
