"""What only a process of its own can show: signals, kills, full disks, what is imported."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_resume import assert_same_weights
from test_train import tensorboard_tags

from hlm_jax import checkpoint
from hlm_jax.training.journal import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def optimised(environment):
    """With all of XLA's optimisations, as users have them."""
    return {k: v for k, v in environment.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}


LONG = (
    "train.steps=5000",
    "train.eval_every_steps=100000",
    "train.log_every_steps=20",
    "checkpoint.every_steps=40",
)


def training(tiny, workdir, *overrides):
    words = [*tiny, *(f"--config.{word}" for word in overrides)]
    command = [sys.executable, "-m", "hlm_jax.train", "--config", "configs/base.py"]
    return [*command, "--workdir", str(workdir), *words]


def start(environment, tiny, workdir, *overrides):
    # Under nohup this process ignores SIGHUP, and what it starts would as well.
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            training(tiny, workdir, *overrides),
            cwd=environment["PYTHONPATH"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGHUP, former)


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


def test_signals_and_kills_lose_nothing(optimised, tiny, train, tmp_path):
    """SIGTERM, SIGHUP and Ctrl-C save and exit with 0; a kill loses the steps since the last save.

    The resumed run equals an uninterrupted one. The schedule is constant, so the total number of
    steps changes nothing and runs can be compared at any step.
    """
    stopped = 0
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT):
        process = start(optimised, tiny, tmp_path / "a", *LONG)
        out = wait_for(process, f"step {(stopped // 20 + 3) * 20}/5000")
        assert not stopped or f"resuming from step {stopped}" in out
        if not stopped:
            tunables = Path(f"/proc/{process.pid}/environ").read_bytes()
            assert b"GLIBC_TUNABLES=glibc.malloc" in tunables
            assert "loss" in tensorboard_tags(tmp_path / "a")  # while the run goes on
            second = train(tmp_path / "a", *LONG)
            assert second.returncode == 2
            assert "another trainer is running" in second.stderr
        process.send_signal(number)
        if number == signal.SIGTERM:  # once more while the checkpoint is written
            time.sleep(0.02)
            process.send_signal(number)
        began = time.monotonic()
        out, _ = process.communicate(timeout=30)
        if number == signal.SIGKILL:
            assert checkpoint.steps_in(tmp_path / "a")[-1] >= stopped
        else:
            assert process.returncode == 0, out
            assert time.monotonic() - began < 15
            assert "the same command resumes" in out
        stopped = checkpoint.steps_in(tmp_path / "a")[-1]
    whole = start(optimised, tiny, tmp_path / "b", *LONG[1:], f"train.steps={stopped}")
    assert whole.wait(timeout=60) == 0
    assert checkpoint.steps_in(tmp_path / "b")[-1] == stopped
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    steps = [r["step"] for r in read_metrics(tmp_path / "a") if "loss" in r]
    assert steps == list(range(20, stopped + 1, 20))


def test_a_write_that_fails_in_the_middle_of_a_save_is_one_line(environment, tiny, tmp_path):
    """A limit on the size of files acts as a full disk: the writing thread gets a system error."""
    words = ("train.steps=4", "checkpoint.every_steps=2", "train.eval_every_steps=50")
    command = shlex.join(training(tiny, tmp_path / "run", *words))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 58; exec {command}"],
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
        "for words in (['--help'], ['--config', 'configs/tiny.py', '--print_config'],"
        " ['--config', 'configs/tiny.py', '--help_config'], ['--config', 'absent.py'], ['--no']):\n"
        "    try: train.main(words)\n"
        "    except SystemExit: pass\n"
        "import hlm_jax\n"
        "print('jax loaded:', 'jax' in sys.modules)"
    )
    assert "jax loaded: False" in command("-c", code).stdout


def test_reading_works_where_fcntl_is_missing(command, trained):
    """As on Windows."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import hlm_jax\n"
        f"run = hlm_jax.load_run({str(trained[0])!r})\n"
        "print(len(run.generate('宝玉', max_new_tokens=3)), run.logits('宝玉').shape[1])"
    )
    done = command("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1500"]
