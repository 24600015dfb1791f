"""A run goes on with another config: more steps, another batch, other rates, an average."""

import json
import shutil

import jax
import numpy as np
import pytest

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.training import material as materials
from hlm_jax.training.history import History
from hlm_jax.training.journal import read_metrics
from hlm_jax.training.material import load_material, stages_of
from hlm_jax.training.optim import make_schedule
from hlm_jax.training.start import Change, Start


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the finished tiny run, 12 steps."""
    return shutil.copytree(trained[0], tmp_path / "run")


def went_on(train, workdir, *words):
    done = train(workdir, *words)
    assert done.returncode == 0, done.stderr
    assert "resuming from step 12" in done.stdout
    return done.stdout


def meta(workdir, step="latest"):
    return checkpoint.read(workdir, step)[2]


def test_a_finished_run_says_how_to_go_on(train, trained):
    out = train(trained[0]).stdout
    assert "this run is done: 12 of 12 steps (a larger --config.train.steps goes on)" in out


def test_a_longer_run_equals_one_that_was_long_from_the_start(train, finished, tmp_path):
    out = went_on(train, finished, "train.steps=18")
    assert "from step 12 on: train.steps 12 -> 18" in out
    assert "learning rate" not in out  # it is constant
    assert train(tmp_path / "long", "train.steps=18").returncode == 0
    for a, b in zip(
        *(jax.tree.leaves(checkpoint.read(w, 18)[1]) for w in (finished, tmp_path / "long")),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert meta(finished, 12).get("changes") == []
    (change,) = meta(finished, 18)["changes"]
    assert change == {"step": 12, "key": "train.steps", "before": 12, "after": 18}
    recorded = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert recorded["train"]["steps"] == 18
    assert "this run is done: 18 of 18" in train(finished, "train.steps=18").stdout


def test_a_decaying_rate_rises_to_what_the_longer_schedule_has(train, tmp_path, monkeypatch):
    drawn = []

    def plot(workdir, records, baselines, changes):
        drawn.append(list(changes))

    monkeypatch.setattr("hlm_jax.training.journal.plot_losses", plot)
    linear = ("optim.schedule=linear", "optim.warmup_steps=2")
    assert train(tmp_path, *linear).returncode == 0
    out = went_on(train, tmp_path, *linear, "train.steps=24")
    rate = make_schedule(
        schedule="linear", peak=0.003, warmup_steps=2, final_fraction=0.0, total_steps=24
    )
    assert (
        f"learning rate: 0 at this step by the schedule of before, {float(rate(12)):.3g} from "
        f"here on, {float(rate(23)):.3g} at the last step, 24" in out
    )
    logged = {r["step"]: r["learning_rate"] for r in read_metrics(tmp_path) if "loss" in r}
    assert logged[15] == pytest.approx(float(rate(14)))
    assert drawn[0] == []
    assert drawn[-1] == [(12, "train.steps 12 -> 24")]


def test_every_kind_of_change_is_recorded_with_its_step(train, finished):
    words = (
        "train.steps=14",
        "train.batch_size=16",
        "train.ema_decay=0.5",
        "model.dropout=0.3",
        "optim.weight_decay=0.2",
        "optim.learning_rate=0.001",
        "optim.b2=0.95",
        "train.grad_accum_steps=2",
    )
    free = ("train.patience=5", "train.eval_every_steps=7", "sample.top_k=3")
    went_on(train, finished, *words, *free)
    found = {c["key"]: (c["step"], c["after"]) for c in meta(finished)["changes"]}
    assert found.keys() == {word.split("=")[0] for word in words}
    assert found["model.dropout"] == (12, 0.3)
    assert {step for step, _ in found.values()} == {12}
    # Then without an average, from the step reached.
    out = train(finished, *words[:2], *words[3:], "train.steps=16").stdout
    assert "from step 14 on: train.steps 14 -> 16, train.ema_decay 0.5 -> 0.0" in out
    names = checkpoint.array_names(finished / "checkpoints" / "16" / "params")
    assert not any(name.startswith("ema_params") for name in names)
    assert [c["step"] for c in meta(finished)["changes"]] == [12] * 8 + [14] * 2


@pytest.mark.slow
def test_the_best_step_of_before_stays_when_going_on_makes_it_worse(train, finished):
    best = checkpoint.resolve_step(finished, "best")
    went_on(train, finished, "train.steps=30", "optim.learning_rate=1.0")
    assert checkpoint.steps_in(finished) == [best, 24, 30]
    assert checkpoint.resolve_step(finished, "best") == best
    metrics = meta(finished)["metrics"]
    assert (metrics["best_step"], metrics["evaluations_since_best"]) == (best, 3)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model.n_embd=32", "model.n_embd: 16 -> 32"),
        ("model.block_size=16", "model.block_size: 32 -> 16"),
        ("tokenizer.character_coverage=0.99", "tokenizer.character_coverage: 0.98 -> 0.99"),
        ("split.held_out=false", "split.held_out: true -> false"),
        ("optim.name=muon", "optim.name: adamw -> muon"),
        ("optim.grad_clip_norm=0", "a limit cannot be added or removed"),
        ("train.init_from=elsewhere", "train.init_from: '' -> "),
    ],
)
def test_what_makes_it_another_run_is_refused(train, finished, word, line):
    more = ("optim.muon_learning_rate=0.1",) if "muon" in word else ()
    before = sorted(finished.rglob("*"))
    done = train(finished, word, "train.steps=18", *more)
    assert done.returncode == 2
    assert line in done.stderr
    assert sorted(finished.rglob("*")) == before


def test_the_tokenizer_of_the_checkpoint_is_used(train, finished, monkeypatch):
    def newer(*_, **__):
        raise AssertionError("the tokenizer was trained again")

    monkeypatch.setattr(materials, "train_tokenizer", newer)
    went_on(train, finished, "train.steps=13")


@pytest.mark.slow
def test_windows_go_on_where_the_smaller_batch_stopped(train, finished, tiny):
    went_on(train, finished, "train.steps=14", "train.batch_size=16")
    words = [word.removeprefix("--config.") for word in tiny]
    config = configs.load_config(
        "configs/base.py", [*words, "train.steps=14", "train.batch_size=16"]
    )
    start = Start.of(finished, config)
    assert (start.step, start.new_changes) == (14, [])
    whole = load_material(configs.replaced(config, {"train.batch_size": 8})).windows
    ours = load_material(config, start).windows
    np.testing.assert_array_equal(ours.batch_at(11), whole.batch_at(11))
    np.testing.assert_array_equal(
        ours.batch_at(12), np.concatenate([whole.batch_at(12), whole.batch_at(13)])
    )


def test_a_longer_schedule_brings_further_texts_and_noise_back_and_says_so():
    values = {"corpus.extra": ("x",), "train.steps": 40, "train.corrupt_inputs": 0.2}
    values |= {"train.corrupt_anneal": 0.5, "train.corrupt_final": 0.0}
    config = configs.replaced(configs.default_config(), values)
    start = Start(config, 12, (Change(12, "train.steps", 12, 40),))
    lines = start.describe([12, 40])
    assert lines[0] == "from step 12 on: train.steps 12 -> 40"
    assert "further texts: 0.0% at this step by the schedule of before, 66.5% from here on" in lines
    noise = "replaced input tokens: 0.0% at this step by the schedule of before, 20.0% from here on"
    assert noise in lines


def test_epochs_are_counted_over_all_stages():
    values = {"train.batch_size": 4, "train.steps": 0, "train.epochs": 10, "corpus.extra": []}
    later = values | {"train.batch_size": 8}
    more = later | {"train.epochs": 20}
    stages, totals = stages_of([(0, values), (12, later), (20, more)], windows_per_epoch=10)
    assert [(s.first, s.batch_size) for s in stages] == [(0, 4), (12, 8), (20, 8)]
    # 48 windows in 12 steps, then 8 a step.
    assert totals == [25, 12 + 7, 20 + 11]


def test_the_history_of_a_config_is_told_backwards():
    config = configs.default_config()
    changes = (
        Change(10, "train.steps", 100, 200),
        Change(10, "model.dropout", 0.2, 0.1),
        Change(20, "train.steps", 200, 0),
    )
    history = Start(config, 20, changes).history()
    assert [(step, v["train.steps"], v["model.dropout"]) for step, v in history] == [
        (0, 100, 0.2),
        (10, 200, 0.1),
        (20, 0, 0.1),
    ]


@pytest.mark.slow
def test_a_run_that_stopped_early_goes_on_without_patience(train, tmp_path):
    still = ("optim.learning_rate=0.0", "train.eval_every_steps=2", "train.steps=14")
    out = train(tmp_path, *still, "train.patience=2").stdout
    assert "stopped early" in out
    again = train(tmp_path, *still, "train.patience=2").stdout
    assert "this run is done: 6 of 14 steps (it stopped early; --config.train.patience=0" in again
    out = train(tmp_path, *still, "train.patience=0").stdout
    assert "resuming from step 6" in out
    assert checkpoint.steps_in(tmp_path)[-1] == 14
    assert meta(tmp_path)["changes"] == []  # patience is free


@pytest.mark.parametrize(("patience", "stopped"), [(2, True), (3, False), (0, False), (1, True)])
def test_an_early_stop_holds_as_long_as_patience_says_so(patience, stopped):
    history = History(step=6, evaluations_since_best=2, stopped_early=True)
    assert history.resumed(patience).stopped_early is stopped


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_of_a_changed_run_loses_nothing(train, finished):
    went_on(train, finished, "train.steps=18")
    folder = finished / "checkpoints"
    (data,) = (folder / "18" / "params").glob("d/*")
    data.write_bytes(data.read_bytes()[:-40])
    done = train(finished, "train.steps=24")
    assert done.returncode == 2
    assert "start the same command again, the run goes on from step 12" in done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["12", "18.damaged"]
    out = train(finished, "train.steps=24").stdout
    assert "from step 12 on: train.steps 12 -> 24" in out
    assert checkpoint.steps_in(finished)[-1] == 24
