"""A run that starts from another model: weights, shape and tokenizer come from there."""

import json
import shutil

import jax
import numpy as np
import pytest

from hlm_jax import checkpoint
from hlm_jax.run import load_run
from hlm_jax.training.journal import read_metrics

FROM = "train.init_from={}".format


@pytest.fixture(scope="module")
def begun(train, trained, tmp_path_factory):
    """A run of 6 steps that started from the finished tiny run; its workdir and output."""
    workdir = tmp_path_factory.mktemp("begun") / "run"
    other = ("model.n_embd=64", "model.vocab_size=1600", "model.form=qwen3", "model.dropout=0.3")
    done = train(workdir, FROM(trained[0]), "train.steps=6", *other)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_weights_shape_and_tokenizer_come_from_the_other_run(begun, trained):
    workdir, out = begun
    before, after = (load_run(w, "latest") for w in (trained[0], workdir))
    scores = {
        r["step"]: r["val_bits_per_char"] for r in read_metrics(workdir) if "val_bits_per_char" in r
    }
    assert scores[0] == pytest.approx(before.meta["metrics"]["val_bits_per_char"], abs=1e-6)
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    same = dict(before.config.model) | {"dropout": 0.3}
    assert dict(after.config.model) == same
    assert f"starts from {trained[0]}, step " in out
    assert "not in use, as that model has its own: model.form=qwen3 (is gpt2), " in out
    assert "tokens a character" in out


def test_the_optimizer_is_new_and_the_weights_move(begun, trained):
    workdir, _ = begun
    first, last = (checkpoint.read(w, "latest")[1] for w in (trained[0], workdir))
    moved = [
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True)
    ]
    assert 0 < max(moved) < 0.1  # six steps of at most 0.003 each
    steps = [r["learning_rate"] for r in read_metrics(workdir) if "learning_rate" in r]
    assert steps == [0.003, 0.003]


@pytest.mark.slow
def test_the_other_model_is_needed_at_the_start_alone(train, trained, begun, tmp_path):
    base, workdir = tmp_path / "base", tmp_path / "run"
    shutil.copytree(trained[0], base)
    assert train(workdir, FROM(base), "train.steps=6").returncode == 0
    shutil.rmtree(base)
    done = train(workdir, FROM(base), "train.steps=9")
    assert done.returncode == 0, done.stderr
    assert "resuming from step 6" in done.stdout
    init = checkpoint.read(workdir, 9)[2]["init"]
    assert (init["kind"], init["path"], init["seen"]) == ("run", str(base), [])


@pytest.mark.slow
def test_a_step_of_the_other_run_can_be_named(train, trained, tmp_path):
    done = train(tmp_path / "run", FROM(trained[0]), "train.init_step=6", "train.steps=3")
    assert f"starts from {trained[0]}, step 6: no chapter held out here" in done.stdout
    done = train(tmp_path / "other", FROM(trained[0]), "train.init_step=7", "train.steps=3")
    assert done.returncode == 2
    assert "no checkpoint at step 7" in done.stderr


@pytest.mark.slow
def test_windows_are_as_short_as_the_config_says(train, trained, tmp_path):
    assert train(tmp_path, FROM(trained[0]), "model.block_size=16", "train.steps=3").returncode == 0
    run = load_run(tmp_path)
    assert run.config.model.block_size == 16
    assert run.params["position_embedding"].shape[0] == 16


@pytest.mark.slow
def test_a_model_that_has_read_what_is_held_out_is_told(train, script, tmp_path):
    base, workdir = tmp_path / "base", tmp_path / "run"
    everything = ("split.held_out=false", "model.vocab_size=1950")
    assert train(base, *everything, "train.steps=2").returncode == 0
    out = train(workdir, FROM(base), "train.steps=2").stdout
    line = "that model has read chapters 5,10,15,20, held out here; figures on them prove nothing"
    assert out.count(line) == 2  # before the training, and next to the score
    assert checkpoint.read(workdir)[2]["init"]["seen"] == [5, 10, 15, 20]
    # Also where that model is two runs away, and gone.
    shutil.rmtree(base)
    out = train(tmp_path / "next", FROM(workdir), "train.steps=2").stdout
    assert line in out
    done = script("evaluate", "--workdir", tmp_path / "next", "--json")
    assert line in done.stderr
    assert json.loads(done.stdout)["init"]["seen"] == [5, 10, 15, 20]


@pytest.mark.slow
def test_a_model_whose_book_is_gone_is_not_vouched_for(train, book, tmp_path):
    own = shutil.copy(book, tmp_path / "own.txt")
    base = tmp_path / "base"
    assert train(base, f"corpus.path={own}", "train.steps=2").returncode == 0
    own.unlink()
    out = train(tmp_path / "run", FROM(base), "train.steps=2").stdout
    assert f"a text of {base} cannot be compared: " in out
    assert "where it has read chapters held out here, figures on them prove nothing" in out


@pytest.fixture(scope="module")
def held_out_elsewhere(edition, tmp_path_factory):
    """A text with the book's chapter 10, which the tiny run holds out, and other chapters."""
    path = tmp_path_factory.mktemp("texts") / "further.txt"
    chapters = [c for c in edition.chapters if c.number in (10, 41, 42)]
    path.write_text("".join(c.text[:700] + "\n" for c in chapters), encoding="utf-8")
    return path


ALONE = ("corpus.extra_fraction=1.0", "corpus.extra_hold=1", "corpus.extra_end=1")


@pytest.fixture(scope="module")
def read_and_dropped(train, held_out_elsewhere, tmp_path_factory):
    """A run that holds nothing out, read a further text, and went on without it."""
    workdir = tmp_path_factory.mktemp("base") / "run"
    words = ("split.test=11", "split.held_out=false", "train.steps=2", *ALONE)
    words = (*words, "model.vocab_size=1900")
    done = train(workdir, *words, f"corpus.extra={held_out_elsewhere}", "split.train=1-9")
    assert done.returncode == 0, done.stderr
    done = train(workdir, *words, "train.steps=4", "split.train=1-9")
    assert "from step 2 on: corpus.extra " in done.stdout, done.stderr
    return workdir


@pytest.mark.slow
def test_a_further_text_of_before_is_not_forgotten(train, read_and_dropped, tmp_path):
    meta = checkpoint.read(read_and_dropped)[2]
    assert "extra" not in meta["corpus"]
    assert [row["name"] for row in meta["corpus"]["former_extra"]] == ["further"]
    run = load_run(read_and_dropped)
    assert "further, chapter" in run.reference.describe_extra_overlap(
        run.reference.extra[0].chapters[0].text
    )
    out = train(tmp_path, FROM(read_and_dropped), "train.init_step=latest", "train.steps=2").stdout
    assert "that model has read chapters 5,10, held out here" in out  # 10 in the further text
    assert "with the further texts" in out  # the second baseline counts what the base has read
    assert [r["name"] for r in checkpoint.read(tmp_path)[2]["corpus"]["former_extra"]] == [
        "further"
    ]


@pytest.mark.slow
def test_a_gone_further_text_hides_nothing_else(train, held_out_elsewhere, tmp_path):
    own = shutil.copy(held_out_elsewhere, tmp_path / "own.txt")
    base = tmp_path / "base"
    words = ("split.held_out=false", "model.vocab_size=1950", "train.steps=2", *ALONE)
    assert train(base, *words, f"corpus.extra={own}").returncode == 0
    own.unlink()
    out = train(tmp_path / "run", FROM(base), "train.steps=2").stdout
    assert "that model has read chapters 5,10,15,20, held out here" in out


@pytest.mark.slow
def test_a_teacher_that_has_read_what_is_held_out_is_refused(train, trained, tmp_path):
    teacher = tmp_path / "teacher"
    words = (FROM(trained[0]), "train.steps=2")
    assert train(teacher, *words, "split.held_out=false").returncode == 0
    done = train(tmp_path / "run", *words, f"train.teachers={teacher}")
    assert done.returncode == 2
    assert f"{teacher} has read chapters 5,10,15,20, held out here: leave it out" in done.stderr


def test_the_shape_that_the_config_names_stays_too(train, begun, trained):
    other = ("model.n_embd=64", "model.vocab_size=1600", "model.form=qwen3", "model.dropout=0.3")
    words = (FROM(trained[0]), *other, "train.steps=6")
    assert "this run is done" in train(begun[0], *words).stdout
    done = train(begun[0], *words, "model.n_layer=7")
    assert done.returncode == 2
    assert "(model.n_layer: 1 -> 7); its shape came from" in done.stderr
    done = train(begun[0], *other, "train.steps=6")
    assert f"(train.init_from: {trained[0]} -> '')" in done.stderr


def test_an_exported_run_starts_another_one(train, trained, tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    from hlm_jax.export.huggingface import write

    before = load_run(trained[0])
    folder = tmp_path / "exported"
    folder.mkdir()
    write(before, folder)
    done = train(tmp_path / "run", FROM(folder), "train.steps=6")
    assert done.returncode == 0, done.stderr
    assert "may have read this book" in done.stdout
    records = read_metrics(tmp_path / "run")
    score = before.meta["metrics"]["val_bits_per_char"]
    assert records[0]["val_bits_per_char"] == pytest.approx(score, abs=1e-4)
    after = load_run(tmp_path / "run")
    assert after.tokenizer.format == "huggingface"
    text = "宝玉笑道：“好。”\n"
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
    assert after.generate("宝玉", max_new_tokens=5)[0]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["vocab_size"] == 1500
    shutil.rmtree(folder)
    done = train(tmp_path / "run", FROM(folder), "train.steps=9")
    assert "resuming from step 6" in done.stdout, done.stderr


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/12"])
def test_a_folder_inside_a_run_is_told_from_the_run(train, trained, tmp_path, inside):
    done = train(tmp_path / "run", FROM(trained[0] / inside))
    assert done.returncode == 2
    assert f"lies in the run {trained[0]}: name that" in done.stderr


@pytest.mark.slow
def test_a_beginning_that_was_better_is_told_at_the_end(train, trained, tmp_path):
    words = (FROM(trained[0]), "train.steps=6", "optim.learning_rate=0.5")
    before = load_run(trained[0]).meta["metrics"]["val_bits_per_char"]
    line = f"the model that it started from has {before:.4f}, less than every checkpoint"
    assert line in train(tmp_path, *words).stdout
    assert line in train(tmp_path, *words).stdout  # also when there is nothing left to do


@pytest.mark.parametrize("what", ["missing", "empty", "file", "folds"])
def test_no_model_is_one_line(train, tmp_path, what):
    folder = tmp_path / "base"
    if what == "file":
        folder.write_text("")
    elif what != "missing":
        folder.mkdir()
    if what == "folds":
        (folder / "folds.json").write_text("{}")
    done = train(tmp_path / "run", FROM(folder))
    assert done.returncode == 2
    assert str(folder) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
