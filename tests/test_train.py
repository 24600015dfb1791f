"""Training in process: what a run leaves, what it refuses, and one clear line for bad input."""

import errno
import io
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, captured

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax import train as train_command
from hlm_jax.training import loop, stop
from hlm_jax.training.journal import read_metrics


def test_a_run_leaves_what_it_promises(trained):
    workdir, printed = trained
    records = read_metrics(workdir)
    logged = [r for r in records if "loss" in r]
    assert [r["step"] for r in logged] == [3, 6, 9, 12]
    assert {"epoch", "learning_rate", "tokens_per_second", "grad_norm"} <= set(logged[0])
    assert [r["step"] for r in records if "val_bits_per_char" in r] == [6, 12]
    assert logged[-1]["loss"] < logged[0]["loss"]
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    samples = sorted(p.name for p in (workdir / "samples").iterdir())
    assert samples == ["step_000006.txt", "step_000012.txt"]
    sample = (workdir / "samples" / samples[1]).read_text(encoding="utf-8")
    opening = json.loads((workdir / "corpus.json").read_text(encoding="utf-8"))["opening"]
    assert opening.startswith("第十回")  # that of the first validation chapter
    assert sample.startswith(opening)
    assert f"\n{opening}" in printed  # the text that ends the run
    assert "held out: chapters 10, 20 for validation, chapters 5, 15 for the test" in printed
    files = {p.name for p in (workdir / "tokenizer").iterdir()}
    assert files == {"tokenizer.model", "vocab.json", "merges.txt"}
    report = json.loads((workdir / "corpus.json").read_text(encoding="utf-8"))
    assert report == checkpoint.read_meta(workdir, 12)["corpus"]
    assert list((workdir / "tensorboard").iterdir())
    poor = "counting 5-grams predicts this book better than the model does"
    for text in ("step 12/12", "Kneser-Ney 5-gram", "ratio", poor, f"{workdir}/loss.png"):
        assert text in printed


def tensorboard_tags(workdir):
    from tensorboardX.proto import event_pb2

    (file,) = (workdir / "tensorboard").iterdir()
    data, at, tags = file.read_bytes(), 0, set()
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        at += 16 + length
    return tags


def test_tensorboard_events_hold_the_metrics(trained):
    assert {"loss", "val_bits_per_char", "learning_rate"} <= tensorboard_tags(trained[0])


def test_a_finished_run_says_so(train, trained):
    done = train(trained[0])
    assert done.returncode == 0, done.stderr
    assert "this run is done: 12 of 12 steps" in done.stdout
    assert "ratio" in done.stdout


@pytest.fixture(scope="module")
def config(tiny):
    words = [word.removeprefix("--config.") for word in tiny]
    return configs.load_config(str(REPO / "configs/base.py"), words)


def test_train_returns_its_history(config, trained):
    history = loop.train(config, trained[0])
    assert (history.step, history.best_step) == (12, 12)
    assert history.best == min(
        r["val_bits_per_char"] for r in read_metrics(trained[0]) if "val_bits_per_char" in r
    )


def test_train_runs_in_a_thread(config, tmp_path):
    """A notebook's or a server's thread: Python allows no signal handlers there."""
    results = []
    thread = threading.Thread(target=lambda: results.append(loop.train(config, tmp_path / "run")))
    thread.start()
    thread.join(120)
    assert results[0].step == 12


def test_a_run_in_a_thread_stops_on_request(config, tmp_path):
    request, results = stop.StopRequest(), []
    long = config.copy_and_resolve_references()
    with long.unlocked():
        long.train.update(steps=100_000, eval_every_steps=100_000)
    words = {"stop": request}
    thread = threading.Thread(target=lambda: results.append(loop.train(long, tmp_path, **words)))
    thread.start()
    metrics = tmp_path / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert thread.is_alive()
        time.sleep(0.05)
    request.request()
    thread.join(60)
    assert results[0].step == checkpoint.steps_in(tmp_path)[-1] > 0


def test_a_terminal_that_is_gone_loses_nothing(config, tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(sys, "stdout", Gone())
    assert loop.train(config, tmp_path).step == 12
    assert checkpoint.steps_in(tmp_path)[-1] == 12


def test_the_book_is_read_once(train, tmp_path, monkeypatch):
    from hlm_jax.book import corpus

    calls, real = [], corpus.load_corpus
    monkeypatch.setattr(corpus, "load_corpus", lambda **words: calls.append(1) or real(**words))
    assert train(tmp_path).returncode == 0
    assert len(calls) == 1


def test_the_save_comes_before_the_sample(train, tmp_path, monkeypatch):
    from hlm_jax.training.validation import Validation

    def fail(*_):
        raise RuntimeError("no sample")

    monkeypatch.setattr(Validation, "sample", fail)
    with pytest.raises(RuntimeError, match="no sample"):
        train(tmp_path)
    assert checkpoint.steps_in(tmp_path) == [6]


def test_another_config_on_the_same_workdir_is_refused_with_the_keys(train, trained):
    done = train(trained[0], "optim.learning_rate=0.5", "seed=3", "model.n_layer=2")
    assert done.returncode == 2
    assert "(seed: 0 -> 3; model.n_layer: 1 -> 2)" in done.stderr
    assert train(trained[0], "checkpoint.keep_latest=5").returncode == 0


def test_a_run_of_another_book_is_refused_with_both_names(train, trained, book, tmp_path):
    other = tmp_path / "other.txt"
    shutil.copy(book, other)
    done = train(trained[0], f"corpus.path={other}", "seed=3")
    assert "holds a run with another config (seed: 0 -> 3)" in done.stderr  # the same book, moved
    other.write_text(book.read_text(encoding="utf-8") + "完。\n", encoding="utf-8")
    done = train(trained[0], f"corpus.path={other}", "seed=3")
    assert done.returncode == 2
    assert f"holds a run of another book ({book}, not {other}), with another config" in done.stderr


def test_checkpoints_alone_are_enough_to_refuse_another_config(train, trained, tmp_path):
    shutil.copytree(trained[0] / "checkpoints", tmp_path / "checkpoints")
    done = train(tmp_path, "split.train_every=2")
    assert done.returncode == 2
    assert "split.train_every: 1 -> 2" in done.stderr
    assert "this run is done" in train(tmp_path).stdout


def test_a_damaged_config_file_is_one_line(train, trained, tmp_path):
    shutil.copytree(trained[0] / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_text("")
    done = train(tmp_path)
    assert done.returncode == 2
    assert "config.json is not JSON: delete it" in done.stderr


def test_a_sample_that_cannot_be_written_is_a_warning(train, tmp_path):
    (tmp_path / "samples").write_text("a file where a folder should be")
    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING: the sample of step") == 2
    assert checkpoint.steps_in(tmp_path) == [6, 12]


def test_the_same_book_in_another_place_is_the_same_run(train, trained, book, tmp_path):
    moved = shutil.copy(book, tmp_path / "book.txt")
    done = train(trained[0], f"corpus.path={moved}")
    assert done.returncode == 0, done.stderr
    assert "this run is done" in done.stdout


def test_an_altered_tokenizer_is_refused(train, trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "copy")
    folder = workdir / "checkpoints" / "12"
    path = folder / "meta" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_fingerprint": "f" * 64}))
    checkpoint.write_checksums(folder)
    done = train(workdir)
    assert done.returncode == 2
    assert "does not match its fingerprint: the file was altered" in done.stderr


DIVERGING = ("optim.learning_rate=1e30", "train.log_every_steps=1", "train.steps_per_dispatch=1")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(
    train, tmp_path
):
    more = ("optim.warmup_steps=12", "checkpoint.every_steps=1", "train.eval_every_steps=100")
    done = train(tmp_path, *DIVERGING, *more)
    assert done.returncode == 2
    (kept,) = [step for step in checkpoint.steps_in(tmp_path)][-1:]
    assert f"the last good checkpoint is step {kept}." in done.stderr
    assert "windows" in done.stderr
    assert "--config.optim.learning_rate" in done.stderr
    finite = [np.isfinite(x).all() for x in flat_weights(tmp_path, kept)]
    assert all(finite)


def flat_weights(workdir, step):
    import jax

    return jax.tree.leaves(checkpoint.read(workdir, step)[1])


def test_an_evaluation_that_is_not_finite_is_survived(train, tmp_path):
    """The weights explode at step 1; the evaluation after it comes before the next loss."""
    done = train(tmp_path, *DIVERGING, "train.eval_every_steps=1", "checkpoint.every_steps=1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the loss is nan" in done.stderr


def test_patience_stops_early(train, tmp_path):
    # Nothing is learned at rate 0, so no evaluation after the first is better.
    words = ("optim.learning_rate=0.0", "train.eval_every_steps=2", "train.patience=2")
    done = train(tmp_path, *words, "train.steps=40")
    assert done.returncode == 0, done.stderr
    assert "stopped early" in done.stdout
    assert [r["step"] for r in read_metrics(tmp_path) if "val_bits_per_char" in r] == [2, 4, 6]
    assert "this run is done" in train(tmp_path, *words, "train.steps=40").stdout


def losses(workdir):
    return [r["loss"] for r in read_metrics(workdir) if "loss" in r]


def test_a_run_learns_from_teachers(train, trained, tmp_path):
    done = train(tmp_path, f"train.teachers={trained[0]}", "train.teacher_weight=0.5")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["train"]["teachers"] == [str(trained[0])]
    # With the same seed the first batch is the same: only the targets differ.
    assert losses(tmp_path)[0] != pytest.approx(losses(trained[0])[0], rel=1e-4)


@pytest.mark.slow
def test_a_run_corrupts_its_inputs_and_ends_on_clean_ones(train, trained, tmp_path):
    def run(name, *overrides):
        done = train(tmp_path / name, *overrides)
        assert done.returncode == 0, done.stderr
        return losses(tmp_path / name)

    clean, half = losses(trained[0]), ("train.corrupt_inputs=0.5", "train.corrupt_anneal=0.5")
    annealed = run("annealed", *half)
    kept = run("kept", *half, "train.corrupt_final=0.5")
    assert len(clean) == len(annealed) == 4  # steps 3, 6, 9, 12: the rate falls after the sixth
    assert kept[0] != pytest.approx(clean[0], rel=1e-5)
    assert annealed[:2] == pytest.approx(kept[:2], rel=1e-5)
    assert annealed[3] != pytest.approx(kept[3], rel=1e-5)


def test_epochs_decide_the_steps_unless_steps_are_set(train, tmp_path):
    done = train(tmp_path, "train.steps=0", "train.epochs=1", "train.eval_every_steps=1000")
    assert done.returncode == 0, done.stderr
    assert "= 1.0 epochs" in done.stdout or "= 1.1 epochs" in done.stdout


def test_a_long_run_on_a_cpu_is_announced(train, tmp_path, monkeypatch):
    monkeypatch.setattr(stop.StopRequest, "agreed", lambda *_: True)
    done = train(tmp_path, "train.steps=2000000000")
    (warning,) = [line for line in done.stdout.splitlines() if "WARNING" in line]
    assert "configs/tiny.py" in warning
    assert "days" in warning


BAD_RUNS = {
    "missing corpus": (["corpus.path=absent.txt"], "absent.txt: no such file"),
    "empty corpus": (["corpus.path={empty}"], "the file is empty"),
    "text shorter than a block": (
        ["model.block_size=100000"],
        "fewer than two blocks of 100000",
    ),
    "vocabulary too large": (["model.vocab_size=50000"], "set --config.model.vocab_size="),
    "vocabulary too small": (["model.vocab_size=300"], "raise --config.model.vocab_size"),
    "batch not dividing devices": (
        ["train.batch_size=7"],
        "train.batch_size=7 is not divisible by 8 devices",
    ),
    "a teacher that may know held-out chapters": (
        ["train.teachers={trained}", "split.train_every=2"],
        "was trained with another text, split or tokenizer than this run",
    ),
    "a teacher of shorter windows": (
        ["train.teachers={trained}", "model.block_size=33"],
        "reads 32 tokens, this run's windows have 33",
    ),
    "no teacher": (["train.teachers={empty}"], "name a run's workdir"),
    "a book that stands twice": (["corpus.path={twice}"], "remove chapters 22 to 41"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_runs_are_one_line_and_leave_the_workdir_free(case, train, trained, book, tmp_path):
    overrides, message = BAD_RUNS[case]
    (tmp_path / "empty.txt").write_text("")
    text = book.read_text(encoding="utf-8")
    # A chapter stands between the copies, so that no copy is held out together with its source.
    between = "第二十一回 题目\n" + "黛玉听了，便不言语，只管看书。\n" * 40
    (tmp_path / "twice.txt").write_text(text + between + text, encoding="utf-8")
    places = {"empty": tmp_path / "empty.txt", "twice": tmp_path / "twice.txt"}
    words = [word.format(trained=trained[0], **places) for word in overrides]
    done = train(tmp_path / "run", *words)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unwritable_workdir(train, tmp_path):
    (tmp_path / "file").write_text("")
    done = train(tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot write to the workdir" in done.stderr


def test_a_file_system_without_locks_is_warned_of(train, trained, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    done = train(trained[0])
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stderr
    assert "is not locked: its file system has no locks" in done.stderr


def test_a_system_without_locks_is_warned_of(train, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    done = train(trained[0])
    assert done.returncode == 0, done.stderr
    assert "is not locked: this system has no file locks" in done.stderr


def test_a_home_folder_in_a_path_is_expanded(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    args, _ = train_command.parse_args(["--config", "configs/base.py", "--workdir", "~/run"])
    assert args.workdir == tmp_path / "run"


def started_as(monkeypatch, *words):
    started = []
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    return started


def test_glibc_is_told_to_keep_memory_once_and_never_against_the_user(monkeypatch):
    started = started_as(monkeypatch, "-u", "-m", "hlm_jax.train", "--config", "x.py")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    train_command.keep_memory()
    assert not started
    monkeypatch.delenv("GLIBC_TUNABLES")
    train_command.keep_memory()
    assert started == [(sys.executable, sys.orig_argv)]
    assert "hugetlb=1" in os.environ["GLIBC_TUNABLES"]
    train_command.keep_memory()  # as the command started anew does
    assert len(started) == 1


@pytest.mark.parametrize(
    "words", [("-m", "ipykernel_launcher", "-f", "x.json"), ("/usr/bin/ipython",), ("notebook.py",)]
)
def test_the_process_of_a_caller_is_never_replaced(monkeypatch, words):
    """In a notebook `%run -m hlm_jax.train` runs this module as __main__ inside the kernel."""
    started = started_as(monkeypatch, *words)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    train_command.keep_memory()
    assert not started


def test_compiled_programs_are_kept_next_to_the_runs(tmp_path):
    import jax

    from hlm_jax.training.hardware import keep_compiled_programs

    before = jax.config.jax_compilation_cache_dir
    keep_compiled_programs(tmp_path / "run")
    assert jax.config.jax_compilation_cache_dir == before  # the environment named a folder
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        keep_compiled_programs(tmp_path / "run")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".jax_cache")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_print_config_resolves_and_counts():
    base = str(REPO / "configs/base.py")
    words = ["--config", base, "--print_config", "--config.train.batch_size=32"]
    done = captured(train_command.main, words)
    assert done.returncode == 0, done.stderr
    assert "batch_size: 32" in done.stdout
    assert "repetition_penalty: 1.0" in done.stdout
    assert "3e-05" in done.stdout
    assert "parameters: 89,092,608" in done.stdout


def test_help_config_lists_every_key():
    done = captured(
        train_command.main, ["--config", str(REPO / "configs/base.py"), "--help_config"]
    )
    assert done.returncode == 0, done.stderr
    for key in configs.flatten(configs.default_config()):
        assert key in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "configs/base.py", "stray"], "unrecognized argument 'stray'"),
        (["--config", "configs/base.py", "--config.split.held_out", "false"], "argument 'false'"),
        ([], "--config"),
        (["--config", "configs/base.py", "--process_id", "1"], "--process_id needs"),
        (["--config", "configs/tinny.py"], "did you mean tiny.py?"),
    ],
)
def test_bad_command_lines_are_one_line_and_exit_code_2(words, message, monkeypatch):
    monkeypatch.chdir(REPO)
    done = captured(train_command.main, words)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


def test_the_command_works_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--config", os.path.relpath(REPO / "configs/tiny.py"), "--print_config"]
    assert captured(train_command.main, words).returncode == 0
    assert not list(Path(tmp_path).iterdir())
