"""A resumed run equals an uninterrupted one, also of the real recipe and from an older version."""

import json
import shutil

import jax
import numpy as np
import pytest

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.errors import UserError
from hlm_jax.run import load_run
from hlm_jax.training import stop
from hlm_jax.training.checkpointer import Checkpointer
from hlm_jax.training.journal import read_metrics
from hlm_jax.training.loop import train as train_in_process
from hlm_jax.training.material import load_material
from hlm_jax.training.program import build_program


def weights(workdir, step="latest"):
    return jax.tree_util.tree_leaves_with_path(checkpoint.read(workdir, step)[1])


def assert_same_weights(a, b):
    for (path, x), (_, y) in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=str(path))


@pytest.fixture
def stopping(monkeypatch):
    """Makes the next trainings stop at the first dispatch that ends at this step or later."""

    def at(step):
        monkeypatch.setattr(
            stop.StopRequest, "agreed", lambda self, first, done, every: done >= step
        )

    return at


RECIPES = {  # the configs as they are, except for their size and length
    "tiny": ("configs/tiny.py", ("model.form=qwen3",)),
    "small": (
        "configs/small.py",
        ("model.form=qwen3", "model.dropout=0.0", "train.corrupt_anneal=0.5"),
    ),
    "base": ("configs/base.py", ("train.steps_per_dispatch=3", "checkpoint.every_steps=3")),
}


@pytest.fixture
def all_optimisations():
    """The programs that users run: two of them may differ in the order of their sums."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.usefixtures("all_optimisations")
def test_a_resumed_run_equals_an_uninterrupted_one(train, tmp_path, recipe, stopping):
    config, more = RECIPES[recipe]
    more = (*more, "dtype=bfloat16") if recipe != "base" else more
    for name, stops in (("whole", (99,)), ("parts", (4, 99))):
        for at in stops:
            stopping(at)
            done = train(tmp_path / name, *more, config=config)
            assert done.returncode == 0, done.stderr
    assert "resuming from step" in done.stdout
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (
        [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in read_metrics(w)]
        for w in (tmp_path / "whole", tmp_path / "parts")
    )
    assert whole == parts
    saved = checkpoint.read(tmp_path / "whole")[2]["config"]
    assert saved["optim"]["name"] == ("adamw" if recipe == "base" else "muon")
    assert bool(saved["train"]["ema_decay"]) == (recipe == "small")


def old_config(folder, **changes):
    saved = configs.upgrade(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    flat = configs.flatten(saved)
    flat |= {"corpus.path": str(folder / "book.txt"), "corpus.cache_dir": str(folder / "data")}
    flat |= changes
    words = [f"{k}={','.join(v) if isinstance(v, list | tuple) else v}" for k, v in flat.items()]
    return configs.load_config("configs/base.py", words)


def test_a_run_of_version_0_1_0_opens_and_resumes(run_of_0_1_0, tmp_path, capsys):
    """Bit for bit on the machine that wrote the fixture; elsewhere float32 rounds differently."""
    folder = shutil.copytree(run_of_0_1_0, tmp_path / "run")
    history = train_in_process(old_config(folder), folder)
    assert "resuming from step 6" in capsys.readouterr().out
    assert history.step == 12
    assert checkpoint.steps_in(folder) == [6, 12]
    expected = np.load(folder / "weights_at_step_12.npz")
    reached = {"/".join(key.key for key in path): x for path, x in weights(folder)}
    assert reached.keys() == set(expected.keys())
    for name, value in reached.items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-5, err_msg=name)
    records = read_metrics(folder)
    assert [r["step"] for r in records if "loss" in r] == [3, 6, 9, 12]
    assert records[-1]["val_bits_per_char"] == pytest.approx(7.8049, abs=1e-3)


def test_a_run_on_an_earlier_revision_of_the_edition_is_told_how_to_go_on(run_of_0_1_0, tmp_path):
    folder = shutil.copytree(run_of_0_1_0, tmp_path / "run")
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    saved["corpus"]["path"] = ""
    (folder / "config.json").write_text(json.dumps(saved), encoding="utf-8")
    config = old_config(folder, **{"corpus.path": "", "corpus.revision": 2})
    with pytest.raises(UserError, match=r"or go on with --config\.corpus\.revision=1$"):
        train_in_process(config, folder)


def test_a_run_whose_book_is_cut_otherwise_today_is_not_resumed(run_of_0_1_0, tmp_path):
    folder = shutil.copytree(run_of_0_1_0, tmp_path / "run")
    path = folder / "checkpoints" / "6" / "meta" / "metadata"
    meta = json.loads(path.read_text(encoding="utf-8"))
    assert meta["corpus"]["chapters"] == 20
    meta["corpus"]["chapters"] = 19  # as if version 0.1.0 had cut the same text so
    path.write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(UserError, match=r"cut into 20 chapters .*, not into 19 .* earlier version"):
        train_in_process(old_config(folder), folder)
    with pytest.raises(UserError, match=r"earlier version of hlm_jax cut it"):
        _ = load_run(folder, corpus=folder / "book.txt").reference


def test_every_array_of_version_0_1_0_is_restored_as_it_was_saved(run_of_0_1_0):
    import tensorstore

    params = run_of_0_1_0 / "checkpoints" / "6" / "params"
    _, found, meta = checkpoint.read(run_of_0_1_0, 6)
    for path, value in jax.tree_util.tree_leaves_with_path(found):
        name = ".".join(["ema_params", *(key.key for key in path)])
        store = {"driver": "ocdbt", "base": f"file://{params}/", "path": f"{name}/"}
        saved = tensorstore.open({"driver": "zarr", "kvstore": store}, open=True).result()
        np.testing.assert_array_equal(value, saved.read().result(), err_msg=name)
    assert meta["config"]["train"]["grad_accum_steps"] == 1  # it was called accumulate_steps
    assert "embedding_dropout" not in meta["config"]["model"]


def test_the_optimizer_of_version_0_1_0_is_restored_as_it_was_saved(run_of_0_1_0, tmp_path):
    import tensorstore

    folder = shutil.copytree(run_of_0_1_0, tmp_path / "run")
    config = old_config(folder)
    program = build_program(config, load_material(config))
    with Checkpointer(folder, keep_latest=2) as checkpointer:
        state, meta = checkpointer.restore_latest(program.abstract_state)
    item = folder / "checkpoints" / "6" / "opt_state"
    saved = []
    for name in checkpoint.array_names(item):
        store = {"driver": "ocdbt", "base": f"file://{item}/", "path": f"{name}/"}
        array = tensorstore.open({"driver": "zarr", "kvstore": store}, open=True).result()
        saved.append(np.asarray(array.read().result()))
    restored = [np.asarray(x) for x in jax.tree.leaves(state.opt_state)]
    assert len(restored) == len(saved) == 20

    def contents(arrays):
        return sorted((str(x.dtype), x.shape, x.tobytes()) for x in arrays)

    assert contents(restored) == contents(saved)
    assert int(state.step) == 6
    assert meta["versions"]["hlm-jax"] == "0.1.0"


def test_another_text_under_the_same_training_chapters_is_refused(run_of_0_1_0, tmp_path):
    folder = shutil.copytree(run_of_0_1_0, tmp_path / "run")
    book = folder / "book.txt"
    text = book.read_text(encoding="utf-8")
    at = text.index("第十回")
    book.write_text(text[:at] + text[at:].replace("山", "水", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"begun with another text.*--config\.corpus\.path"):
        train_in_process(old_config(folder), folder)


@pytest.mark.parametrize(("first", "second"), [("bfloat16", "float16"), ("float16", "bfloat16")])
def test_a_run_goes_on_where_auto_means_another_dtype(
    train, tmp_path, stopping, monkeypatch, first, second
):
    from hlm_jax.training import program

    def resolve(dtype):
        monkeypatch.setattr(program, "resolve_dtype", lambda _: (dtype, "as on another GPU"))

    resolve(first)
    stopping(6)
    assert train(tmp_path, "dtype=auto").returncode == 0
    resolve(second)
    stopping(99)
    done = train(tmp_path, "dtype=auto")
    assert done.returncode == 0, done.stderr
    assert "resuming from step 6" in done.stdout
    steps = [r["step"] for r in read_metrics(tmp_path) if "loss" in r]
    assert steps == [3, 6, 9, 12]
    assert not list((tmp_path / "checkpoints").glob("*.damaged"))


def test_a_device_without_room_loses_nothing(train, tmp_path, stopping, monkeypatch):
    stopping(6)
    assert train(tmp_path).returncode == 0
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    records = read_metrics(tmp_path)

    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", full)
    done = train(tmp_path)
    assert done.returncode == 2
    assert "could not be restored (RESOURCE_EXHAUSTED" in done.stderr
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before
    assert read_metrics(tmp_path) == records
