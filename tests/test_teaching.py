"""What teachers predict of a book: against each prediction made alone; no room for the file."""

import dataclasses
import errno
import functools
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPO
from scipy.special import softmax

from hlm_jax import config as configs
from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import loop, plan, teaching
from hlm_jax.training.material import load_material
from hlm_jax.training.plan import Plan
from hlm_jax.training.program import build_program
from hlm_jax.training.stop import StopRequest
from hlm_jax.training.teaching import Teaching

CFG = GPTConfig(
    form="qwen3",
    vocab_size=23,
    block_size=8,
    n_layer=1,
    n_head=2,
    n_embd=8,
    dropout=0.0,
    rope_theta=10000.0,
)
TOKENS = np.random.default_rng(0).integers(0, 23, 61, dtype=np.int32)


def teachers():
    """A transformer of 8 tokens and a wider one of 11, with weights large enough to predict."""
    for seed, changes in enumerate(({}, {"n_embd": 16, "block_size": 11})):
        model = GPT(dataclasses.replace(CFG, **changes))
        params = jax.jit(model.init)(jax.random.key(seed), TOKENS[None, :1])["params"]
        yield model, jax.tree.map(lambda x: np.asarray(20 * x), params)


@pytest.fixture(scope="module")
def alone():
    """How the mean of both predicts with exactly `context` tokens: (place, context) -> [V]."""
    models = [(jax.jit(model.apply), params) for model, params in teachers()]

    def predict(place, context):
        read = TOKENS[None, place + 1 - context : place + 1]
        return np.mean([softmax(apply({"params": p}, read)[0][0, -1]) for apply, p in models], 0)

    return predict


@pytest.mark.parametrize("rows", [32, 4, 1])
def test_every_prediction_has_half_a_block_or_more_before_it(alone, rows, monkeypatch):
    monkeypatch.setattr(teaching, "ROWS", rows)
    made = Teaching(list(teachers()), TOKENS, 8)
    assert made.read()
    found = made.rows_at(np.array([0, 3, 53, -1, 50]))
    assert found.dtype == np.float16
    assert found.shape == (5, 8, 23)
    assert not found[3].any()
    for row, start in ((0, 0), (1, 3), (2, 53), (4, 50)):
        for t in range(8):
            place = start + t
            # The first window is read whole. Each later one gives its second half; the last ends
            # with the text.
            ends = [7, *range(11, 60, 4), 60]
            end = next(end for end in ends if end >= place)
            expected = alone(place, 8 - (end - place))
            np.testing.assert_allclose(found[row, t], expected, atol=1e-3)


def test_they_can_be_stopped_and_read_anew(monkeypatch):
    monkeypatch.setattr(teaching, "ROWS", 4)
    made, asked = Teaching(list(teachers()), TOKENS, 8), []
    assert made.n_bytes == 61 * 23 * 2
    assert not made.read(lambda: asked.append(1) or len(asked) == 7)
    assert len(asked) == 7
    assert made.read(lambda: False)
    other = Teaching(list(teachers()), TOKENS, 8)
    other.read()
    np.testing.assert_array_equal(made.rows_at(np.arange(50)), other.rows_at(np.arange(50)))


def test_no_more_windows_at_once_than_there_is_room_for(monkeypatch):
    seen = []

    def predictions(models, weights, tokens_BT):
        seen.append(tokens_BT.shape)
        return jnp.zeros((*tokens_BT.shape, 23))

    monkeypatch.setattr(teaching, "mean_probabilities", predictions)
    for room, rows in ((8 * 23 * 4 * 3, 3), (10, 1)):
        monkeypatch.setattr(teaching, "BYTES", room)
        Teaching(list(teachers()), TOKENS, 8).read()
        assert seen.pop() == (rows, 8)


def message(call):
    with pytest.raises(UserError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_no_room_for_the_predictions_is_one_line(monkeypatch):
    made = Teaching(list(teachers()), TOKENS, 8)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2805))
    said = message(lambda: Teaching(list(teachers()), TOKENS, 8))
    assert "a temporary file of 0.0 GB (0.0 GB are free): make room, or set" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2806))
    Teaching(list(teachers()), TOKENS, 8)

    # The disk may fill up while the teachers read.
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(open, "/dev/full", "w+b"))
    assert "No space left on device" in message(made.read)

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    said = message(lambda: Teaching(list(teachers()), TOKENS, 8))
    assert "No usable temporary directory found" in said


def test_a_run_that_is_stopped_while_they_read_goes_on_later(trained, tiny, tmp_path, capsys):
    words = [word.removeprefix("--config.") for word in tiny]
    words += [f"train.teachers={trained[0]}", "train.steps=3"]
    config = configs.load_config(str(REPO / "configs/base.py"), words)
    stop = StopRequest()
    stop.request()
    assert loop.train(config, tmp_path, stop=stop).step == 0
    out = capsys.readouterr().out
    assert "the teachers read the book" in out
    assert "stopped at step 0; the same command resumes" in out
    assert loop.train(config, tmp_path).step == 3


@pytest.fixture
def run(trained, tiny):
    """(program, material) of a run of the tiny run's book, further texts too, that it teaches."""
    words = [word.removeprefix("--config.") for word in tiny]

    def build(*more):
        config = configs.load_config(
            str(REPO / "configs/base.py"), [*words, f"train.teachers={trained[0]}", *more]
        )
        material = load_material(config)
        return build_program(config, material), material

    return build


def test_a_dispatch_has_the_predictions_of_its_own_windows(run, tmp_path):
    further = tmp_path / "further.txt"
    further.write_text("第一回 别的\n" + "姑娘笑道：“这是另一本书。”\n" * 200, encoding="utf-8")
    share = "corpus.extra_fraction=0.5", "corpus.extra_hold=0.5", "corpus.extra_end=1"
    program, material = run(f"corpus.extra={further}", *share)
    assert program.teaching.read()
    windows, taught = map(np.asarray, program.load(material, 3, 6))
    starts = np.stack([material.windows.starts_at(step) for step in (3, 4, 5)])
    assert windows.shape[:2] == starts.shape == taught.shape[:2]
    assert 0 < (starts < 0).sum() < starts.size
    assert not taught[starts < 0].any()
    for m, b in zip(*np.nonzero(starts >= 0), strict=True):
        start = starts[m, b]
        window = material.windows.book_tokens[start : start + windows.shape[2]]
        np.testing.assert_array_equal(windows[m, b], window)
        (rows,) = program.teaching.rows_at(np.array([start]))
        np.testing.assert_array_equal(taught[m, b], rows)
        assert (rows != program.teaching.rows_at(np.array([start + 1]))[0]).any()


def test_predictions_bound_the_steps_of_a_dispatch(monkeypatch):
    config = configs.load_config(str(REPO / "configs/base.py"), [])
    material = dataclasses.make_dataclass("M", ["total_steps", "val_texts"])(100, [])
    assert Plan.of(config, material).steps_per_dispatch == 8
    taught = configs.load_config(str(REPO / "configs/base.py"), ["train.teachers=a"])
    for room, steps in ((2**28, 1), (64 * 256 * 5000 * 2 * 4, 4), (2**40, 8)):
        monkeypatch.setattr(plan, "TAUGHT", room)
        assert Plan.of(taught, material).steps_per_dispatch == steps
