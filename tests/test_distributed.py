"""Two real processes on this machine."""

import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from hlm_jax import checkpoint
from hlm_jax.training.journal import read_metrics

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(environment, tiny, workdir, n, overrides=()):
    port = free_port()
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
    return [
        subprocess.Popen(
            [
                *command,
                "--coordinator_address",
                f"localhost:{port}",
                "--num_processes",
                str(n),
                "--process_id",
                str(i),
            ],
            cwd=environment["PYTHONPATH"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(n)
    ]


def test_two_processes_give_the_losses_of_one(environment, tiny, trained, tmp_path):
    processes = start(environment, tiny, tmp_path, 2)
    outputs = [p.communicate(timeout=150)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
    assert "ratio" in outputs[0]
    assert "step 3/12" not in outputs[1]  # only process 0 reports
    one, two = ([r for r in read_metrics(w) if "loss" in r] for w in (trained[0], tmp_path))
    assert [r["step"] for r in two] == [3, 6, 9, 12]
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-4)
    one, two = (
        [r["val_bits_per_char"] for r in read_metrics(w) if "val_bits_per_char" in r]
        for w in (trained[0], tmp_path)
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_two_processes_start_from_a_run_and_go_on_with_another_config(
    environment, tiny, trained, tmp_path
):
    begun = (f"train.init_from={trained[0]}", "train.steps=6")
    later = (f"train.init_from={trained[0]}", "train.steps=9", "train.ema_decay=0.5")
    for overrides in (begun, later):
        processes = start(environment, tiny, tmp_path, 2, overrides)
        outputs = [p.communicate(timeout=150)[0] for p in processes]
        assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
    assert "from step 6 on: train.steps 6 -> 9, train.ema_decay 0.0 -> 0.5" in outputs[0]
    scores = {r["step"]: r["val_bits_per_char"] for r in read_metrics(tmp_path) if len(r) == 3}
    before = checkpoint.read(trained[0])[2]["metrics"]["val_bits_per_char"]
    assert scores[0] == pytest.approx(before, rel=1e-5)
    names = checkpoint.array_names(tmp_path / "checkpoints" / "9" / "params")
    assert any(name.startswith("ema_params.") for name in names)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_stops_the_other_and_the_pair_resumes(environment, tiny, tmp_path, victim):
    overrides = (
        "train.steps=100000",
        "train.eval_every_steps=100000",
        "checkpoint.every_steps=20",
        "train.log_every_steps=10",
    )
    processes = start(environment, tiny, tmp_path, 2, overrides)
    for line in processes[0].stdout:
        if line.startswith("step 30/"):
            break
    processes[victim].kill()
    out, _ = processes[1 - victim].communicate(timeout=100)
    assert processes[1 - victim].returncode == 2, out
    assert "another process of this run is gone" in out
    kept = checkpoint.steps_in(tmp_path)[-1]
    assert kept >= 20
    if victim == 0:
        return
    processes = start(environment, tiny, tmp_path, 2, overrides)
    seen = []
    for line in processes[0].stdout:
        seen.append(line)
        if line.startswith(f"step {kept + 10}/"):
            break
    assert any(f"resuming from step {kept}" in line for line in seen)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=60) for process in processes] == [0, 0]


def test_a_wrong_address_is_one_line(command, tiny, tmp_path):
    done = command(
        "-m",
        "hlm_jax.train",
        "--config",
        "configs/base.py",
        "--workdir",
        tmp_path,
        *tiny,
        "--num_processes",
        2,
        "--process_id",
        0,
    )
    assert done.returncode == 2
    assert "several processes" in done.stderr.strip().splitlines()[-1]
