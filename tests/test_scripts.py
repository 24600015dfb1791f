import contextlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    """Runs the main() of scripts/NAME.py in this process, whose JAX is started and has compiled; what `command` would return."""

    def run(name, *words):
        path = Path(__file__).parent.parent / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"script_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        code = 0
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            try:
                module.main()
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run


def test_sample(script, command, trained):
    workdir, _ = trained
    words = (
        "--workdir",
        workdir,
        "--prompt",
        "宝玉笑道：",
        "--num_samples",
        2,
        "--max_new_tokens",
        40,
        "--seed",
        4,
    )
    done = command("scripts/sample.py", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("宝玉笑道：") >= 2
    assert "--- 2 ---" in done.stdout
    assert done.stdout.count("recitation: 5-grams from the training text") == 2
    assert script("sample", *words).stdout == done.stdout


@pytest.mark.parametrize("prompt", ["Dream 🐉 ▁", "龘"])
def test_prompts_of_unseen_characters_work_by_bytes(script, trained, prompt):
    done = script("sample", "--workdir", trained[0], "--prompt", prompt, "--max_new_tokens", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(prompt)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "宝玉笑道" * 20], "this model reads at most 31"),
        (["--top_p", "3"], "--top_p must lie between"),
        (["--num_samples", "0"], "--num_samples must be at least 1"),
        (["--max_new_tokens", "0"], "--max_new_tokens must be at least 1"),
        (["--step", "7"], "no checkpoint at step 7"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_requests_for_samples(script, trained, words, message):
    done = script("sample", "--workdir", trained[0], *words)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


def test_no_checkpoint_in_the_workdir(script, tmp_path):
    for name in ("sample", "evaluate", "inspect_checkpoint", "novelty"):
        done = script(name, "--workdir", tmp_path)
        assert done.returncode == 2
        assert "no checkpoint in" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_evaluate_json(script, trained):
    workdir, printed = trained
    done = script(
        "evaluate",
        "--workdir",
        workdir,
        "--split",
        "val",
        "--per_chapter",
        "--json",
        "--step",
        "latest",
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert {"bits_per_char", "nats_per_token", "tokens", "chars", "ngram_bits_per_char"} <= set(out)
    assert len(out["chapters"]) == 2
    assert out["chars"] == sum(c["chars"] for c in out["chapters"])
    bits = sum(c["bits_per_char"] * c["chars"] for c in out["chapters"]) / out["chars"]
    assert out["bits_per_char"] == pytest.approx(bits)
    # The same figures as training printed.
    assert f"{out['bits_per_char']:.4f}" in printed
    assert f"{out['ngram_bits_per_char']:.4f}" in printed


def test_evaluate_an_ensemble_adaptively_and_with_ngrams(script, train, trained, tmp_path):
    workdir, _ = trained
    other = tmp_path / "other"
    assert train(other, "seed=1").returncode == 0

    def evaluated(*words):
        done = script("evaluate", *words, "--step", "latest", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    one, two = (evaluated("--workdir", w)["bits_per_char"] for w in (workdir, other))
    same = evaluated("--ensemble", workdir, workdir)["bits_per_char"]
    assert same == pytest.approx(one)
    out = evaluated(
        "--workdir", workdir, "--ensemble", other, "--adaptive", "--mix_ngram", "--split", "test"
    )
    assert [Path(w).name for w in out["ensemble"]] == ["tiny", "other"]
    assert (
        evaluated("--ensemble", workdir, other)["bits_per_char"] < (one + two) / 2
    )  # probabilities averaged: Jensen
    adaptive, mixed, both = out["also"].values()
    assert [name.split(" (")[0] for name in out["also"]] == [
        "adaptive",
        "n-gram of tokens",
        "adaptive + n-gram of tokens",
    ]
    for found in (adaptive, mixed, both):  # an all but untrained model gains from everything
        assert found["bits_per_char"] < out["bits_per_char"]
    other_tokenizer = tmp_path / "tokenizer"
    assert train(other_tokenizer, "model.vocab_size=1550", "train.steps=1").returncode == 0
    done = script("evaluate", "--ensemble", workdir, other_tokenizer)
    assert done.returncode == 2
    assert "has another tokenizer than" in done.stderr
    assert script("evaluate", "--adaptive").returncode == 2


def test_novelty(script, trained, tmp_path, book):
    workdir, printed = trained
    done = script("novelty", "--workdir", workdir, "--num_samples", 2, "--max_new_tokens", 60)
    assert done.returncode == 0, done.stderr
    assert "| held-out chapters |" in done.stdout
    assert "extraction, train chapters: 0.0% of 64 greedy continuations" in done.stdout
    assert "extraction, val chapters:" in done.stdout
    # A run's final report has the line of its sample and what can be extracted.
    assert "recitation: 5-grams from the training text" in printed
    assert "extraction, train chapters: 0.0% of 64" in printed
    path = tmp_path / "text.txt"
    path.write_text("龘" * 40 + book.read_text(encoding="utf-8")[60:120], encoding="utf-8")
    out = json.loads(script("novelty", "--workdir", workdir, "--text", path, "--json").stdout)
    assert out["spans"] == [{"start": 40, "end": 100, "chapter": 1}]
    assert out["found"]["copied_share"] == pytest.approx(0.6)
    assert out["human"]["copied_share"] < 0.1
    assert "⟦" in script("novelty", "--workdir", workdir, "--text", path).stdout


SWEEP = """
CONFIG = "configs/base.py"
COMMON = {words!r}
RUNS = {{"baseline": [], "dropout 0.3, alone": ["model.dropout=0.3"], "never": ["no.such.key=1"]}}
"""


def test_sweep(command, tiny, tmp_path):
    path, workdir = tmp_path / "demo.py", tmp_path / "sweep"
    text = SWEEP.format(words=[word.removeprefix("--config.") for word in tiny])
    path.write_text(text, encoding="utf-8")
    done = command("scripts/sweep.py", path, "--workdir", workdir)
    assert done.returncode == 2  # before anything is trained
    assert "unknown config key 'no.such.key'" in done.stderr
    assert not workdir.exists()
    done = command("scripts/sweep.py", path, "--runs", "absent", "--workdir", workdir)
    assert done.returncode == 2
    assert "has no run 'absent': there is baseline; dropout 0.3, alone" in done.stderr

    path.write_text(text.replace(', "never": ["no.such.key=1"]', ""), encoding="utf-8")
    done = command("scripts/sweep.py", path, "--seeds", 2, "--jobs", 2, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line)
        for line in (workdir / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(row["name"], row["seed"]) for row in rows] == [
        ("baseline", 0),
        ("dropout 0.3, alone", 0),
        ("baseline", 1),
        ("dropout 0.3, alone", 1),
    ]
    for row in rows:
        assert row["steps"] == 12
        assert row["best"] <= row["last"]
        assert sum(bits for *_, bits in row["chapters"]) == pytest.approx(
            row["best"] * sum(chars for _, chars, _ in row["chapters"])
        )
    table = (workdir / "table.md").read_text(encoding="utf-8")
    assert table in done.stdout
    by_name = {
        name: sum(row["best"] for row in rows if row["name"] == name) / 2
        for name in ("baseline", "dropout 0.3, alone")
    }
    assert f"| {by_name['dropout 0.3, alone'] - by_name['baseline']:+.4f} [" in table
    assert (workdir / "table.png").stat().st_size > 5000

    # Once more: what is there is read, nothing is trained again; a run under other overrides is refused.
    seconds = (workdir / "baseline-seed0" / "seconds.txt").read_text()
    again = command(
        "scripts/sweep.py", path, "--runs", "dropout 0.3, alone", "--seeds", 2, "--workdir", workdir
    )
    assert again.stdout == done.stdout
    assert (workdir / "baseline-seed0" / "seconds.txt").read_text() == seconds
    path.write_text(
        path.read_text(encoding="utf-8").replace("model.dropout=0.3", "model.dropout=0.4"),
        encoding="utf-8",
    )
    done = command("scripts/sweep.py", path, "--workdir", workdir)
    assert done.returncode == 2
    assert "holds run 'dropout 0.3, alone' with other overrides" in done.stderr


def test_a_sweep_says_when_a_training_was_asked_to_stop(tiny, tmp_path, environment):
    path, workdir = tmp_path / "demo.py", tmp_path / "sweep"
    words = [word.removeprefix("--config.") for word in (*tiny, "--config.train.steps=100000")]
    path.write_text(
        f"CONFIG = 'configs/base.py'\nCOMMON = {words!r}\nRUNS = {{'baseline': []}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "scripts/sweep.py", path, "--workdir", workdir]
    sweep = subprocess.Popen(
        command,
        cwd=Path(__file__).parent.parent,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = workdir / "baseline-seed0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size):
        assert sweep.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # Field 4 of /proc/PID/stat is the parent: the training is the sweep's only child.
    parents = {
        int(stat.parent.name): int(stat.read_text().rsplit(")", 1)[1].split()[1])
        for stat in Path("/proc").glob("[0-9]*/stat")
    }
    (training,) = (pid for pid, parent in parents.items() if parent == sweep.pid)
    os.kill(training, signal.SIGTERM)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 2
    assert (
        "the training of 'baseline' was asked to stop; the same command goes on with it" in errors
    )
    assert not (workdir / "baseline-seed0" / "row.json").exists()  # half a training is no row
    assert list((workdir / "baseline-seed0" / "checkpoints").iterdir())


def test_the_reference_script_goes_on_where_it_was_stopped(tiny, tmp_path, environment):
    results, runs, repo = tmp_path / "results", tmp_path / "runs", Path(__file__).parent.parent
    results.mkdir()
    (results / "bench.json").write_text("{}")  # kept: the bench has tests of its own
    words = [*tiny, "--config.train.steps=30", "--config.checkpoint.every_steps=15"]
    env = environment | {
        "RESULTS": str(results),
        "RUNS": str(runs),
        "EXTRAS": "test",
    }  # what is installed already
    command = ["bash", "scripts/reference.sh", *words]
    more = {
        "cwd": repo,
        "env": env,
        "stdout": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    first = subprocess.Popen(command, **more)
    for line in first.stdout:
        if line.startswith("step 3/30"):
            os.killpg(first.pid, signal.SIGTERM)  # as timeout does
            break
    rest = first.stdout.read()
    assert first.wait(120) == 0
    assert "; the same command resumes" in rest
    assert not (results / "base" / "time.txt").exists()
    second = subprocess.Popen(command, **more)
    printed, _ = second.communicate(timeout=240)
    assert second.returncode == 0
    assert "resuming from step" in printed
    assert printed.splitlines()[-1] == f"results in {results}"
    for name in ("base", "base_heldout"):
        shown = results / name
        assert {path.name for path in shown.iterdir()} == {
            "loss.png",
            "metrics.jsonl",
            "output.txt",
            "samples.txt",
            "time.txt",
        }
        assert json.loads((shown / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 30
        assert shown.joinpath("samples.txt").read_text().count("recitation:") == 3
    assert "commands: 2" in (results / "base" / "time.txt").read_text()
    assert "commands: 1" in (results / "base_heldout" / "time.txt").read_text()
    assert (results / "bench.json").read_text() == "{}"


def test_choose_sampling(script, trained):
    words = (
        "--workdir",
        trained[0],
        "--num_samples",
        2,
        "--max_new_tokens",
        600,
        "--top_ps",
        "0.9",
    )
    done = script(
        "choose_sampling", *words, "--temperatures", "0.01,1.0", "--repetition_penalties", "1.0,1.2"
    )
    assert done.returncode == 0, done.stderr
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
    ]
    found = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert rows[0][0] == "held-out chapters"
    assert len(found) == 5
    distances = [float(row[1]) for row in rows]
    assert distances == sorted(distances)  # the nearest stands first
    assert distances[1] > 0
    greedy, free = found["temperature 0.01, top_p 0.9"], found["temperature 1, top_p 0.9"]
    assert float(greedy["distinct 2-grams"]) < float(free["distinct 2-grams"])
    assert float(found["temperature 0.01, top_p 0.9, penalty 1.2"]["distinct 2-grams"]) > float(
        greedy["distinct 2-grams"]
    )
    done = script("choose_sampling", *words, "--temperatures", "warm")
    assert done.returncode == 2
    assert "settings are numbers separated by commas" in done.stderr


def test_evaluate_a_text(script, trained, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("宝玉笑道：“好妹妹。”\n" * 20, encoding="gb18030")
    out = json.loads(script("evaluate", "--workdir", trained[0], "--text", path, "--json").stdout)
    assert out["chars"] == 240
    done = script("evaluate", "--workdir", trained[0], "--text", tmp_path / "absent")
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_inspect(script, trained):
    out = script("inspect_checkpoint", "--workdir", trained[0], "--step", "12").stdout
    assert "step 12 of" in out
    assert "block_1/attention/qkv/kernel" in out
    assert "16 x 48" in out
    assert "val_bits_per_char" in out
    assert '"n_embd": 16' in out
