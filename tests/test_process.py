"""Signals to a command that trains in processes of its own; a shell script stands for training."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hlm_jax import process, sweep
from hlm_jax.errors import UserError

SAVES = """#!/bin/sh
trap 'touch "$0.saved"; exit 0' TERM
echo "step 1000/4000  "
touch "$0.started"
while sleep 0.05; do i=$((i + 1)); [ $i -lt 400 ] || exit 1; done
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "training"
    path.write_text(SAVES)
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def stop_once_started(script, *numbers):
    def stop():
        while not script.with_name("training.started").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        for number in numbers or [signal.SIGTERM]:
            os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()


def test_a_signal_is_passed_on_to_a_training_in_another_thread(script, tmp_path, capsys):
    stop_once_started(script)
    found = []

    def train():
        try:
            process.train("a.py", [], tmp_path / "run", name="a")
        except UserError as error:
            found.append(str(error))

    thread = threading.Thread(target=train)
    with process.passing_on():
        thread.start()
        thread.join()
        with pytest.raises(UserError, match="b was asked to stop"):  # none is started any more
            process.train("b.py", [], tmp_path / "other", name="b")
    assert found == ["the training of a was asked to stop; the same command goes on with it"]
    assert script.with_name("training.saved").exists()
    assert not (tmp_path / "other").exists()
    assert "stopping …" in capsys.readouterr().err
    with process.passing_on() as passed:  # the next command begins anew
        assert passed == []


def test_a_training_can_be_stopped_after_an_error_of_its_report(script, tmp_path):
    """`chain.py | head` closes the output; the command then waits for the training."""
    stop_once_started(script)

    def report(_steps, _of):
        raise BrokenPipeError

    began = time.monotonic()
    with pytest.raises(BrokenPipeError):
        process.train("a.py", [], tmp_path / "run", name="a", report=report, every=0.1)
    assert time.monotonic() - began < 10
    assert script.with_name("training.saved").exists()


def test_a_sweep_that_is_stopped_while_it_scores_says_so(tmp_path, monkeypatch):
    def run_one(job, _free):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"name": job, "seed": 0}

    monkeypatch.setattr(sweep, "run_one", run_one)
    monkeypatch.setattr(sweep, "write_results", lambda *_: None)
    seen = []
    with pytest.raises(UserError, match="the sweep was asked to stop"):
        sweep.run(["a", "b", "c"], tmp_path, at_once=1, report=lambda row: seen.append(row["name"]))
    assert seen == ["a"]


def test_under_nohup_a_training_is_not_told_that_the_terminal_closed(script, tmp_path, monkeypatch):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sent = []
    send = subprocess.Popen.send_signal
    monkeypatch.setattr(
        subprocess.Popen, "send_signal", lambda self, n: (sent.append(n), send(self, n))
    )
    try:
        stop_once_started(script, signal.SIGHUP, signal.SIGTERM)
        with pytest.raises(UserError, match="a was asked to stop"):
            process.train("a.py", [], tmp_path / "run", name="a")
    finally:
        signal.signal(signal.SIGHUP, former)
    assert sent == [signal.SIGTERM]


def test_a_report_is_of_this_attempt_alone(script, tmp_path):
    log = tmp_path / "run" / "log.txt"
    log.parent.mkdir()
    log.write_text("step 1500/4000  \n")
    told = []

    def report(*steps):
        told.append(steps)

    stop_once_started(script)
    with pytest.raises(UserError, match="a was asked to stop"):
        process.train("a.py", [], tmp_path / "run", name="a", report=report, every=0.1)
    assert set(told) == {(1000, 4000)}


def test_the_time_left_counts_down_between_two_steps(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = [process.Job(name, tmp_path / name, "a.py", ()) for name in "ab"]
    clock, said = process._Clock(jobs), []
    for seconds, part in ((60, 0.25), (120, 0.25), (600, 0.25), (1200, 0.5)):
        now[0] = seconds
        said.append(clock.left(part))
    # 60 s for an eighth of all; no step is seen for longer than that gave; a quarter after 1200 s.
    assert said == ["; 7 min left", "; 6 min left", "", "; 60 min left"]


def test_what_is_said_of_a_training_that_begins_and_of_one_that_goes_on(tmp_path, monkeypatch):
    def train(_config, _words, folder, **_):
        process.make_folder(folder)
        (folder / "seconds.txt").write_text("3")

    monkeypatch.setattr(process, "train", train)
    (tmp_path / "a/checkpoints").mkdir(parents=True)
    jobs = [process.Job(name, tmp_path / name, "a.py", ()) for name in "ab"]
    said = []
    process.train_all(jobs, {}, said.append)
    assert said[0] == f"a: goes on in {tmp_path / 'a'}; its output goes to log.txt"
    assert said[2] == f"b: trains in {tmp_path / 'b'}; its output goes to log.txt"
