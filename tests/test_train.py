"""Training from the command line: results, interruption, refusals, and one clear line for every bad input."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hlm_jax import checkpoint
from hlm_jax.training.journal import read_metrics


def weights(workdir, step="latest"):
    import jax

    return jax.tree_util.tree_leaves_with_path(checkpoint.read(workdir, step)[1])


def assert_same_weights(a, b):
    for (path, x), (_, y) in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=str(path))


def test_a_run_leaves_what_it_promises(trained):
    workdir, printed = trained
    records = read_metrics(workdir)
    logged = [r for r in records if "loss" in r]
    assert [r["step"] for r in logged] == [3, 6, 9, 12]
    assert {"epoch", "learning_rate", "tokens_per_second", "grad_norm"} <= set(logged[0])
    assert [r["step"] for r in records if "val_bits_per_char" in r] == [6, 12]
    assert logged[-1]["loss"] < logged[0]["loss"]
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (workdir / "samples").iterdir()) == [
        "step_000006.txt",
        "step_000012.txt",
    ]
    assert (
        (workdir / "samples" / "step_000012.txt")
        .read_text(encoding="utf-8")
        .startswith("宝玉笑道：")
    )
    assert {p.name for p in (workdir / "tokenizer").iterdir()} == {
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
    }
    assert list((workdir / "tensorboard").iterdir())
    assert "step 12/12" in printed
    assert "Kneser-Ney 5-gram" in printed
    assert "ratio" in printed
    assert f"{workdir}/loss.png" in printed


def test_tensorboard_events_hold_the_metrics(trained):
    from tensorboardX.proto import event_pb2

    (file,) = (trained[0] / "tensorboard").iterdir()
    data, at, tags = file.read_bytes(), 0, set()
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        at += 16 + length
    assert {"loss", "val_bits_per_char", "learning_rate"} <= tags


def test_a_finished_run_says_so(train, trained):
    done = train(trained[0])
    assert done.returncode == 0
    assert "this run is done: 12 of 12 steps" in done.stdout
    assert "ratio" in done.stdout


def start(environment, tiny, workdir, *overrides):
    words = [*tiny, *(f"--config.{word}" for word in overrides)]
    command = [
        sys.executable,
        "-m",
        "hlm_jax.train",
        "--config",
        "configs/base.py",
        "--workdir",
        str(workdir),
        *words,
    ]
    repo = environment["PYTHONPATH"]
    return subprocess.Popen(
        command,
        cwd=repo,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, text, timeout=90):
    end = time.monotonic() + timeout
    seen = ""
    while time.monotonic() < end:
        line = process.stdout.readline()
        seen += line
        if text in line:
            return seen
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"{text!r} not printed:\n{seen}")


LONG = (
    "train.steps=5000",
    "train.eval_every_steps=100000",
    "train.log_every_steps=20",
    "checkpoint.every_steps=40",
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_0_and_the_resumed_run_equals_an_uninterrupted_one(
    environment, tiny, train, tmp_path, number, request
):
    # The total number of steps enters no schedule here (it is constant), so that a run of 5000 can be compared at any step.
    process = start(environment, tiny, tmp_path / "a", *LONG)
    wait_for(process, "step 60/5000")
    assert b"GLIBC_TUNABLES=glibc.malloc" in Path(f"/proc/{process.pid}/environ").read_bytes()
    second = train(tmp_path / "a", *LONG)
    assert second.returncode == 2
    assert "another trainer is running" in second.stderr
    process.send_signal(number)
    began = time.monotonic()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert time.monotonic() - began < 15
    assert "the same command resumes" in out
    stopped = checkpoint.steps_in(tmp_path / "a")[-1]
    assert stopped >= 60
    if number == signal.SIGINT:
        return
    # Resume, stop again by signal later, and compare with a run that went through.
    process = start(environment, tiny, tmp_path / "a", *LONG)
    out = wait_for(process, f"step {(stopped // 20 + 3) * 20}/5000")
    assert f"resuming from step {stopped}" in out
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    last = checkpoint.steps_in(tmp_path / "a")[-1]
    whole = train(tmp_path / "b", *LONG[1:], f"train.steps={last}")
    assert whole.returncode == 0, whole.stderr
    assert checkpoint.steps_in(tmp_path / "b")[-1] == last
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    steps = [r["step"] for r in read_metrics(tmp_path / "a") if "loss" in r]
    assert steps == sorted(set(steps))


def test_kill_9_loses_at_most_the_steps_since_the_last_save(environment, tiny, tmp_path):
    process = start(environment, tiny, tmp_path, *LONG)
    wait_for(process, "step 100/5000")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    kept = checkpoint.steps_in(tmp_path)
    assert kept[-1] >= 40
    process = start(environment, tiny, tmp_path, *LONG)
    wait_for(process, f"resuming from step {kept[-1]}")
    wait_for(process, f"step {kept[-1] + 20}/5000")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_another_config_on_the_same_workdir_is_refused_with_the_keys(train, trained):
    done = train(trained[0], "optim.learning_rate=0.5", "seed=3")
    assert done.returncode == 2
    assert "seed: 0 -> 3" in done.stderr
    assert "optim.learning_rate: 0.003 -> 0.5" in done.stderr
    assert "checkpoint.keep_latest" not in done.stderr
    assert train(trained[0], "checkpoint.keep_latest=5").returncode == 0


def test_another_tokenizer_is_refused_by_name(train, trained, tmp_path, book):
    import shutil

    workdir = tmp_path / "copy"
    shutil.copytree(trained[0], workdir)
    path = workdir / "checkpoints" / "12" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["tokenizer_fingerprint"] = "f" * 64
    path.write_text(json.dumps(meta))
    done = train(workdir)
    assert done.returncode == 2
    assert "tokenizer ffffffffffff" in done.stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    train, tmp_path
):
    done = train(
        tmp_path,
        "optim.learning_rate=1e30",
        "optim.warmup_steps=9",
        "checkpoint.every_steps=1",
        "train.eval_every_steps=100",
    )
    assert done.returncode == 2
    assert "step" in done.stderr
    assert "windows" in done.stderr
    assert "--config.optim.learning_rate" in done.stderr
    kept = checkpoint.steps_in(tmp_path)
    named = (
        f"the last good checkpoint is step {kept[-1]}"
        if kept
        else "the last good checkpoint is none"
    )
    assert named in done.stderr


def test_patience_stops_early(train, tmp_path):
    # Nothing is learned at rate 0, so that no evaluation after the first is better.
    done = train(
        tmp_path,
        "optim.learning_rate=0.0",
        "train.eval_every_steps=2",
        "train.patience=2",
        "train.steps=40",
    )
    assert done.returncode == 0, done.stderr
    assert "stopping early" in done.stdout
    assert [r["step"] for r in read_metrics(tmp_path) if "val_bits_per_char" in r] == [2, 4, 6]
    assert (
        "this run is done"
        in train(
            tmp_path,
            "optim.learning_rate=0.0",
            "train.eval_every_steps=2",
            "train.patience=2",
            "train.steps=40",
        ).stdout
    )


def test_a_run_learns_from_teachers(train, trained, tmp_path):
    teacher = f"train.teachers={trained[0]}"
    done = train(tmp_path / "student", teacher, "train.teacher_weight=0.5", "model.n_layer=1")
    assert done.returncode == 0, done.stderr
    assert train(tmp_path / "alone", "model.n_layer=1").returncode == 0
    assert json.loads((tmp_path / "student" / "config.json").read_text())["train"]["teachers"] == [
        str(trained[0])
    ]
    first = [
        next(r["loss"] for r in read_metrics(tmp_path / name) if "loss" in r)
        for name in ("student", "alone")
    ]
    assert first[0] != first[1]


def test_a_run_corrupts_its_inputs_and_ends_on_clean_ones(train, trained, tmp_path):
    def losses(workdir, *overrides):
        if overrides:
            done = train(workdir, *overrides)
            assert done.returncode == 0, done.stderr
        return [r["loss"] for r in read_metrics(workdir) if "loss" in r]

    clean = losses(trained[0])
    noisy = losses(tmp_path / "noisy", "train.corrupt_inputs=0.5")
    annealed = losses(tmp_path / "annealed", "train.corrupt_inputs=0.5", "train.corrupt_anneal=0.5")
    kept = losses(
        tmp_path / "kept",
        "train.corrupt_inputs=0.5",
        "train.corrupt_anneal=0.5",
        "train.corrupt_final=0.5",
    )
    assert kept == pytest.approx(noisy, rel=1e-5)
    assert (
        len(clean) == len(noisy) == len(annealed) == 4
    )  # steps 3, 6, 9, 12: the rate falls from the seventh on
    assert noisy[0] != pytest.approx(clean[0], rel=1e-5)
    assert annealed[:2] == pytest.approx(noisy[:2], rel=1e-5)
    assert annealed[3] != pytest.approx(noisy[3], rel=1e-5)


def test_a_long_run_on_a_cpu_is_announced(environment, tiny, tmp_path):
    process = start(environment, tiny, tmp_path, "train.steps=2000000000")
    seen = wait_for(process, "WARNING")
    assert "configs/tiny.py" in seen
    assert "days" in seen
    process.kill()
    process.wait()


def test_epochs_decide_the_steps_unless_steps_are_set(train, tmp_path):
    done = train(tmp_path, "train.steps=0", "train.epochs=1", "train.eval_every_steps=1000")
    assert done.returncode == 0, done.stderr
    assert "= 1.0 epochs" in done.stdout or "= 1.1 epochs" in done.stdout


def config_error(command, *words, config="configs/base.py"):
    done = command("-m", "hlm_jax.train", *(["--config", config] if config else []), *words)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    return lines[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config.model.n_haed=4"],
            "unknown config key 'model.n_haed'; did you mean model.n_head?",
        ),
        (["--config.n_head=4"], "did you mean model.n_head?"),
        (["--config.model.n_head=four"], "--config.model.n_head is a whole number, not 'four'"),
        (["--config.model.dropout=much"], "--config.model.dropout is a number"),
        (["--config.split.held_out=perhaps"], "--config.split.held_out is true or false"),
        (["--config.split.held_out", "false"], "unrecognized argument 'false'"),
        (["--config.split.held_out"], "needs a value: write --config.split.held_out=VALUE"),
        (["--config.model={}"], "is a section and cannot be replaced"),
        (["--config.model.n_head=7"], "model.n_head=7 does not divide model.n_embd=768"),
        (["--config.model.dropout=1.5"], "must lie in [0, 1)"),
        (["--config.train.corrupt_anneal=1.5"], "train.corrupt_anneal=1.5 must lie in [0, 1]"),
        (["--config.train.teacher_weight=2"], "train.teacher_weight=2.0 must lie in [0, 1]"),
        (["--config.train.batch_size=0"], "train.batch_size=0 must be at least 1"),
        (["--config.train.accumulate_steps=3"], "does not divide train.batch_size=64"),
        (["--config.train.epochs=0"], "there is nothing to train"),
        (["--config.model.form=gpt5"], "use gpt2 or qwen3"),
        (["stray"], "unrecognized argument 'stray'"),
    ],
)
def test_bad_config_is_one_line_and_exit_code_2(command, words, message):
    assert message in config_error(command, *words, "--print_config")


def test_missing_config_is_one_line_and_exit_code_2(command):
    assert "--config" in config_error(command, config=None)
    assert "did you mean tiny.py?" in config_error(command, config="configs/tinny.py")


def test_print_config_resolves_and_counts(command):
    done = command(
        "-m",
        "hlm_jax.train",
        "--config",
        "configs/base.py",
        "--print_config",
        "--config.train.batch_size=32",
    )
    assert done.returncode == 0
    assert "batch_size: 32" in done.stdout
    assert "parameters: 89,092,608" in done.stdout


BAD_RUNS = {
    "missing corpus": (["corpus.path=absent.txt"], "absent.txt: no such file"),
    "empty corpus": (["corpus.path={empty}"], "the file is empty"),
    "text shorter than a block": (["model.block_size=100000"], "fewer than two blocks of 100000"),
    "vocabulary too large": (["model.vocab_size=50000"], "set --config.model.vocab_size="),
    "vocabulary too small": (["model.vocab_size=300"], "raise --config.model.vocab_size"),
    "batch not dividing devices": (
        ["train.batch_size=7"],
        "train.batch_size=7 is not divisible by 8 devices",
    ),
    "unknown schedule": (["optim.schedule=stairs"], "use constant, cosine or linear"),
    "a teacher that may know held-out chapters": (
        ["train.teachers={trained}", "split.train_every=2"],
        "was trained with another text, split or tokenizer than this run",
    ),
    "a teacher of shorter windows": (
        ["train.teachers={trained}", "model.block_size=33"],
        "reads 32 tokens, this run's windows have 33",
    ),
    "no teacher": (["train.teachers={empty}"], "no checkpoint in"),
    "unknown dtype": (["dtype=int4"], "use auto, float32, bfloat16 or float16"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_runs_are_one_line_and_leave_the_workdir_free(case, tiny, trained, tmp_path, capsys):
    from hlm_jax import train

    overrides, message = BAD_RUNS[case]
    (tmp_path / "empty.txt").write_text("")
    words = [
        f"--config.{word.format(empty=tmp_path / 'empty.txt', trained=trained[0])}"
        for word in overrides
    ]
    with pytest.raises(SystemExit) as stop:
        train.main(
            ["--config", "configs/base.py", "--workdir", str(tmp_path / "run"), *tiny, *words]
        )
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unwritable_workdir(tiny, tmp_path, capsys):
    from hlm_jax import train

    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        train.main(
            ["--config", "configs/base.py", "--workdir", str(tmp_path / "file" / "run"), *tiny]
        )
    assert stop.value.code == 2
    assert "cannot write to the workdir" in capsys.readouterr().err


def test_a_write_that_fails_in_the_middle_of_a_save_is_one_line(environment, tiny, tmp_path):
    """A limit on the size of files stands for a disk that fills up: the writing thread gets an error from the system."""
    words = [
        *tiny,
        "--config.train.steps=4",
        "--config.checkpoint.every_steps=2",
        "--config.train.eval_every_steps=50",
    ]
    training = [
        sys.executable,
        "-m",
        "hlm_jax.train",
        "--config",
        "configs/base.py",
        "--workdir",
        str(tmp_path / "run"),
        *words,
    ]
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 58; exec {shlex.join(training)}"],
        cwd=environment["PYTHONPATH"],
        env=environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr.strip().splitlines()[-1]
    assert checkpoint.steps_in(tmp_path / "run") == []


def test_help_and_config_are_answered_without_loading_jax(command):
    code = (
        "import sys; from hlm_jax import train\n"
        "try: train.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('jax loaded:', 'jax' in sys.modules)"
    )
    for words in (
        ["--help"],
        ["--config", "configs/tiny.py", "--print_config"],
        ["--config", "absent.py"],
        ["--nonsense"],
    ):
        assert "jax loaded: False" in command("-c", code, *words).stdout


def test_glibc_is_told_to_keep_memory_once_and_never_against_the_user(monkeypatch):
    from hlm_jax.train import keep_memory

    started = []
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    keep_memory()
    assert not started
    monkeypatch.delenv("GLIBC_TUNABLES")
    keep_memory()
    assert started == [(sys.executable, sys.orig_argv)]
    assert "hugetlb=1" in os.environ["GLIBC_TUNABLES"]
    keep_memory()  # as the command started anew does
    assert len(started) == 1


def test_compiled_programs_are_kept_beside_the_runs(train, tmp_path):
    clean = {"JAX_COMPILATION_CACHE_DIR": ""}
    done = train(tmp_path / "run", "train.steps=2", "train.eval_every_steps=100", env=clean)
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / ".jax_cache").iterdir())


def test_works_from_another_folder(command, tiny, tmp_path, environment):
    repo = environment["PYTHONPATH"]
    done = command(
        "-m",
        "hlm_jax.train",
        "--config",
        os.path.join(repo, "configs/tiny.py"),
        "--print_config",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
