import dataclasses
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.checkpoint import CheckpointError
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.training.checkpointer import Checkpointer, locked
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.step import LossScale, init_state

CFG = GPTConfig(
    "gpt2", vocab_size=61, block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=0.0, rope_theta=1e4
)


@pytest.fixture(scope="module")
def state():
    """Cut over a (2, 4) mesh."""
    return init_state(
        GPT(CFG), optax.adamw(1e-3), jax.random.key(0), ema_decay=0.9, mesh=make_mesh(4)
    )


CONFIG = configs.recorded(configs.default_config())


def at(state, step):
    """The state at another step, its weights marked by it."""
    return state.replace(
        step=jnp.int32(step), params=jax.tree.map(lambda x: x + step, state.params)
    )


def meta(tokenizer, **metrics):
    return checkpoint.make_meta(
        config=CONFIG,
        tokenizer=tokenizer,
        corpus_report={"name": "book"},
        metrics=metrics,
    )


def saved(folder, state, tokenizer, scores, keep_latest=2):
    keeper = Checkpointer(folder, keep_latest=keep_latest)
    for step, score in scores.items():
        metrics = {} if score is None else {checkpoint.METRIC: score}
        keeper.save(at(state, step), meta(tokenizer, **metrics))
    keeper.close()
    return folder


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def test_latest_and_best_are_kept_also_when_validation_worsens(tmp_path, state, tokenizer):
    saved(tmp_path, state, tokenizer, {1: 7.0, 2: 6.0, 3: 6.5, 4: 6.6, 5: None, 6: float("nan")})
    assert checkpoint.steps_in(tmp_path) == [2, 5, 6]
    assert checkpoint.resolve_step(tmp_path, "best") == 2
    assert checkpoint.resolve_step(tmp_path, "latest") == 6
    assert checkpoint.resolve_step(tmp_path, "5") == 5


def test_everything_travels_with_the_weights(tmp_path, state, tokenizer):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    step, weights, found = checkpoint.read(tmp_path, "best")
    assert step == 3
    assert isinstance(weights["token_embedding"], np.ndarray)
    np.testing.assert_array_equal(
        weights["token_embedding"], state.ema_params["token_embedding"]
    )  # the average is read
    assert checkpoint.tokenizer_of(found).fingerprint == tokenizer.fingerprint
    assert found["config"] == CONFIG
    assert found["corpus"] == {"name": "book"}
    assert found["versions"]["python"] == sys.version.split()[0]
    assert {"jax", "flax", "orbax-checkpoint"} <= set(found["versions"])


@pytest.mark.parametrize(("n_devices", "fsdp"), [(1, 1), (8, 1), (8, 8)])
def test_a_checkpoint_from_one_mesh_is_restored_on_another(
    tmp_path, state, tokenizer, n_devices, fsdp
):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    mesh = make_mesh(fsdp, jax.devices()[:n_devices])
    other = init_state(GPT(CFG), optax.adamw(1e-3), jax.random.key(9), ema_decay=0.9, mesh=mesh)
    keeper = Checkpointer(tmp_path, keep_latest=2)
    found, _ = keeper.restore_latest(abstract(other))
    keeper.close()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(at(state, 3)), strict=True):
        np.testing.assert_array_equal(a, b)
    table = found.params["token_embedding"]
    assert len(table.sharding.device_set) == n_devices
    assert table.addressable_data(0).size == table.size // fsdp


def damage_array(folder):
    for file in (folder / "params").rglob("*"):
        if file.is_file() and file.stat().st_size > 300:
            data = bytearray(file.read_bytes())
            data[len(data) // 4 :] = b"\xff" * (len(data) - len(data) // 4)
            file.write_bytes(data)


def truncate(folder):
    for file in (folder / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def half_delete(folder):
    shutil.rmtree(folder / "params")


@pytest.mark.parametrize("harm", [damage_array, truncate, half_delete])
def test_a_damaged_latest_checkpoint_falls_back_to_the_one_before(
    tmp_path, state, tokenizer, harm, capsys
):
    saved(tmp_path, state, tokenizer, {3: 6.0, 4: 6.1})
    harm(tmp_path / "checkpoints" / "4")
    assert checkpoint.read(tmp_path, "latest")[0] == 3
    assert "4 is damaged" in capsys.readouterr().err
    keeper = Checkpointer(tmp_path, keep_latest=2)
    found, _ = keeper.restore_latest(abstract(state))
    assert int(found.step) == 3
    assert "falling back" in capsys.readouterr().err
    keeper.save(at(state, 4), meta(tokenizer))  # the step can be written again
    keeper.close()
    assert checkpoint.read(tmp_path, "4")[0] == 4
    harm(tmp_path / "checkpoints" / "3")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(tmp_path, "3")


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def restore(workdir, like):
    keeper = Checkpointer(workdir, keep_latest=2)
    try:
        return keeper.restore_latest(abstract(like))
    finally:
        keeper.close()


def test_an_error_that_is_no_damage_changes_nothing(tmp_path, state, tokenizer, monkeypatch):
    saved(tmp_path, state, tokenizer, {3: 6.0, 4: 6.1})

    def full(*_, **__):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 356515840 bytes."
        )

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", full)
    with pytest.raises(
        CheckpointError, match=r"could not be restored \(RESOURCE_EXHAUSTED.*nothing was changed"
    ):
        restore(tmp_path, state)
    assert names(tmp_path) == ["3", "4"]


def test_a_model_that_does_not_fit_changes_nothing(tmp_path, state, tokenizer):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    other = init_state(
        GPT(dataclasses.replace(CFG, n_layer=2)),
        optax.adamw(1e-3),
        jax.random.key(0),
        ema_decay=0.9,
        mesh=make_mesh(4),
    )
    with pytest.raises(CheckpointError, match="not damaged and nothing was changed"):
        restore(tmp_path, other)
    assert names(tmp_path) == ["3"]


def test_where_every_checkpoint_is_damaged_the_run_does_not_begin_anew(tmp_path, state, tokenizer):
    saved(tmp_path, state, tokenizer, {3: 6.0, 4: 6.1})
    for step in ("3", "4"):
        truncate(tmp_path / "checkpoints" / step)
    for _ in range(2):  # and not at the second start either
        with pytest.raises(
            CheckpointError, match=r"no checkpoint in .* can be read: 4 .*3 .*Nothing was changed"
        ):
            restore(tmp_path, state)
        assert names(tmp_path) == ["3", "4"]
    for step in ("3", "4"):  # as an earlier version left them
        (tmp_path / "checkpoints" / step).rename(tmp_path / "checkpoints" / f"{step}.damaged")
    with pytest.raises(CheckpointError, match=r"can be read: 3\.damaged, 4\.damaged"):
        restore(tmp_path, state)


def test_a_loss_scale_is_added_and_dropped_as_the_dtype_changes(tmp_path, state, tokenizer):
    """A run begun in bfloat16 on one card goes on in float16 on the next, and back."""
    scaled = state.replace(loss_scale=LossScale.create(64.0))
    saved(tmp_path / "plain", state, tokenizer, {3: 6.0})
    saved(tmp_path / "scaled", scaled, tokenizer, {3: 6.0})
    assert float(restore(tmp_path / "plain", scaled)[0].loss_scale.scale) == float(
        LossScale.create().scale
    )
    assert float(restore(tmp_path / "scaled", scaled)[0].loss_scale.scale) == 64.0
    found = restore(tmp_path / "scaled", state)[0]
    assert found.loss_scale is None
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(at(state, 3)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("harm", ["cut", "delete", "overwrite"])
def test_damage_is_found_in_every_file_that_a_restore_needs(tmp_path, state, tokenizer, harm):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    folder = tmp_path / "checkpoints" / "3"
    assert checkpoint.damage(folder) is None
    needed = [folder / "meta" / "metadata"]
    for item in ("params", "opt_state"):
        needed += [
            folder / item / "_METADATA",
            folder / item / "manifest.ocdbt",
            *(folder / item / "d").iterdir(),
        ]
    for file in needed:
        data = file.read_bytes()
        if harm == "delete":
            file.unlink()
        else:
            file.write_bytes(
                data[: len(data) // 2]
                + (b"" if harm == "cut" else bytes(len(data) - len(data) // 2))
            )
        assert checkpoint.damage(folder), file
        file.write_bytes(data)


def test_nothing_to_restore(tmp_path, state):
    keeper = Checkpointer(tmp_path, keep_latest=1)
    assert keeper.restore_latest(abstract(state)) is None
    keeper.close()


def test_unfinished_saves_do_not_count(tmp_path, state, tokenizer):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.steps_in(tmp_path) == [3]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, state, tokenizer, monkeypatch):
    saved(tmp_path, state, tokenizer, {3: 6.0})
    keeper = Checkpointer(tmp_path, keep_latest=2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="disk full"):
        keeper.save(at(state, 4), meta(tokenizer))
    keeper.close()
    assert checkpoint.read(tmp_path, "latest")[0] == 3


def test_requests_that_cannot_be_met(tmp_path, state, tokenizer):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoint.read(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no folder .*/nope: give the --workdir"):
        checkpoint.read(tmp_path / "nope")
    saved(tmp_path, state, tokenizer, {3: 6.0, 4: 6.1})
    with pytest.raises(CheckpointError, match=r"no checkpoint at step 9.*there is 3, 4"):
        checkpoint.read(tmp_path, 9)
    with pytest.raises(CheckpointError, match="latest, best or a number"):
        checkpoint.read(tmp_path, "newest")


def test_an_altered_tokenizer_is_refused(tokenizer, book):
    from hlm_jax.book.tokenizer import train_tokenizer

    other = train_tokenizer(
        [book.read_text(encoding="utf-8")], vocab_size=1700, character_coverage=0.98
    )
    wrong = meta(tokenizer) | {"tokenizer_fingerprint": other.fingerprint}
    with pytest.raises(CheckpointError, match="fingerprint"):
        checkpoint.tokenizer_of(json.loads(json.dumps(wrong)))


def test_a_second_holder_of_the_workdir_is_refused(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(CheckpointError, match="another trainer"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):  # free again
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="cannot write to the workdir"),
        locked(tmp_path / "file" / "run"),
    ):
        pass
