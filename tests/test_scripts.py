import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hlm_jax import checkpoint
from hlm_jax.run import load_run

REPO = Path(__file__).resolve().parent.parent


def test_sample(script, trained):
    words = ("--prompt", "宝玉笑道：", "--num_samples", 2, "--max_new_tokens", 40, "--seed", 4)
    done = script("sample", "--workdir", trained[0], *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("宝玉笑道：") >= 2
    assert "--- 2 ---" in done.stdout
    assert done.stdout.count("recitation: 5-grams from the training text") == 2
    assert script("sample", "--workdir", trained[0], *words).stdout == done.stdout
    # The second sample is what the next seed writes alone.
    words = ("--prompt", "宝玉笑道：", "--max_new_tokens", 40, "--seed", 5)
    alone = script("sample", "--workdir", trained[0], *words).stdout
    assert alone.removeprefix("宝玉笑道：") in done.stdout


@pytest.mark.slow
def test_sample_as_a_command(command, script, trained):
    words = ("--workdir", trained[0], "--prompt", "宝玉笑道：", "--max_new_tokens", 20)
    done = command("scripts/sample.py", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == script("sample", *words).stdout


def test_a_prompt_from_a_file_or_the_input(script, trained, tmp_path, monkeypatch):
    words = ("--workdir", trained[0], "--max_new_tokens", 20)
    expected = script("sample", *words, "--prompt", "宝玉笑道：").stdout
    (tmp_path / "prompt.txt").write_text("宝玉笑道：\n", encoding="utf-8")  # as editors do
    given = script("sample", *words, "--prompt_file", tmp_path / "prompt.txt")
    assert given.stdout == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("宝玉笑道："))
    assert script("sample", *words, "--prompt_file", "-").stdout == expected
    done = script("sample", *words, "--prompt_file", tmp_path / "absent.txt")
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_a_text_ends_before_its_stop_string(script, trained):
    words = ("--workdir", trained[0], "--prompt", "宝玉笑道：", "--max_new_tokens", 60)
    whole = (
        script("sample", *words).stdout.split("\nrecitation")[0].replace("⟦", "").replace("⟧", "")
    )
    stop = whole[20:22]
    done = script("sample", *words, "--stop", stop, "--stop", "never")
    text = done.stdout.split("\nrecitation")[0].replace("⟦", "").replace("⟧", "")
    assert text == whole[: whole.index(stop, 5)]


def test_a_prompt_longer_than_the_block_is_read_by_its_end(script, trained):
    done = script(
        "sample",
        "--workdir",
        trained[0],
        "--prompt",
        "宝玉笑道" * 20,
        "--max_new_tokens",
        5,
        "--num_samples",
        3,
    )
    assert done.returncode == 0, done.stderr
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: the prompt has ")
    assert note.endswith("it goes on from the last 16")


def test_an_error_while_a_text_is_written_begins_on_a_line_of_its_own(
    script, trained, monkeypatch, capsys
):
    from hlm_jax.errors import UserError
    from hlm_jax.run import Run

    def broken(self, prompts, **_):
        yield ["宝玉" for _ in prompts]
        raise UserError("the device is gone")

    monkeypatch.setattr(Run, "stream", broken)
    done = script("sample", "--workdir", trained[0])
    assert done.returncode == 2
    assert done.stdout.endswith("\n")
    assert done.stderr == "sample: error: the device is gone\n"


def test_a_text_is_read_without_the_book(script, trained, tmp_path):
    """sample and evaluate --text need a checkpoint alone; what is left out is named."""
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    for step in checkpoint.steps_in(workdir):
        folder = workdir / "checkpoints" / str(step)
        meta = json.loads((folder / "meta" / "metadata").read_text())
        meta["config"]["corpus"]["path"] = str(tmp_path / "gone.txt")
        (folder / "meta" / "metadata").write_text(json.dumps(meta))
        checkpoint.write_checksums(folder)
    done = script("sample", "--workdir", workdir, "--prompt", "宝玉", "--max_new_tokens", 5)
    assert done.returncode == 0, done.stderr
    assert "recitation: not measured" in done.stdout
    (note,) = done.stderr.splitlines()
    assert "gone.txt: no such file" in note
    assert "--corpus BOOK" in note
    (tmp_path / "text.txt").write_text("宝玉笑道：“好妹妹。”\n" * 9, encoding="utf-8")
    words = ("evaluate", "--workdir", workdir, "--text", tmp_path / "text.txt")
    done = script(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ngram_bits_per_char"] is None
    assert "5-gram" not in script(*words).stdout
    done = script("evaluate", "--workdir", workdir)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--corpus BOOK" in done.stderr


def test_the_book_can_be_given_anew(script, trained, book, tmp_path):
    moved = shutil.copy(book, tmp_path / "moved.txt")
    expected = script("evaluate", "--workdir", trained[0], "--json").stdout
    given = script("evaluate", "--workdir", trained[0], "--corpus", moved, "--json")
    assert given.stdout == expected
    moved.write_text(book.read_text(encoding="utf-8").replace("宝玉", "宝王"), encoding="utf-8")
    for name in ("evaluate", "sample"):
        done = script(name, "--workdir", trained[0], "--corpus", moved)
        assert done.returncode == 2
        assert "is not the text that the run was trained on" in done.stderr


def test_a_text_goes_the_way_of_the_corpus(script, trained, tmp_path):
    lines = ["宝玉笑道：“好妹妹，饶我罢。”", "黛玉听了，便不言语。"] * 5
    scores = []
    for number, text in enumerate(("\n".join(lines), "\n\n".join("　　" + x for x in lines))):
        path = tmp_path / f"{number}.txt"
        path.write_text(text, encoding="utf-8")
        done = script("evaluate", "--workdir", trained[0], "--text", path, "--json")
        scores.append(json.loads(done.stdout)["bits_per_char"])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("prompt", ["Dream 🐉 ▁", "龘"])
def test_prompts_of_unseen_characters_work_by_bytes(script, trained, prompt):
    done = script("sample", "--workdir", trained[0], "--prompt", prompt, "--max_new_tokens", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(prompt)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--top_p", "3"], "--top_p must be a number between 0 and 1"),
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
        "--learn_weights",
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    powered = out["also"]["log-linear"]
    assert len(powered["weights"]) == 1
    assert powered["cross_fitted"] is True
    assert powered["bits_per_char"] < out["bits_per_char"]  # hardly trained, it is too sure
    assert {"bits_per_char", "nats_per_token", "tokens", "chars", "ngram_bits_per_char"} <= set(out)
    assert len(out["chapters"]) == 2
    assert out["chars"] == sum(c["chars"] for c in out["chapters"])
    bits = sum(c["bits_per_char"] * c["chars"] for c in out["chapters"]) / out["chars"]
    assert out["bits_per_char"] == pytest.approx(bits)
    # The same figures as training printed.
    assert f"{out['bits_per_char']:.4f}" in printed
    assert f"{out['ngram_bits_per_char']:.4f}" in printed


@pytest.mark.slow
def test_evaluate_an_ensemble_adaptively_and_with_ngrams(script, train, trained, tmp_path):
    workdir, _ = trained
    other = tmp_path / "other"
    assert train(other, "seed=1").returncode == 0

    def evaluated(*words):
        done = script("evaluate", *words, "--step", "latest", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    one, two = (evaluated("--workdir", w)["bits_per_char"] for w in (workdir, other))
    done = script("evaluate", "--ensemble", workdir, workdir, "--learn_weights")
    assert "step 12 of" in done.stderr
    assert "is given 2 times" in done.stderr
    plain, pooled = done.stdout.splitlines()
    assert f"mean of 2 runs: {one:.4f} bits/char" in plain
    assert re.match(r"  log-linear \(weights (-?\d\.\d{3}), \1, cross-fitted\): ", pooled)
    found = evaluated("--workdir", workdir, "--learn_weights")["also"]["log-linear"]
    assert found["bits_per_char"] < one
    assert len(found["weights"]) == 1
    out = evaluated(
        "--workdir", workdir, "--ensemble", other, "--adaptive", "--mix_ngram", "--split", "test"
    )
    assert [Path(w).name for w in out["ensemble"]] == ["tiny", "other"]
    steps = evaluated("--ensemble", f"{workdir}@6", workdir, "--learn_weights")
    assert steps["ensemble_steps"] == [6, 12]
    assert list(steps["also"]) == ["log-linear"]
    assert len(steps["also"]["log-linear"]["weights"]) == 2
    assert steps["also"]["log-linear"]["cross_fitted"]
    assert (
        evaluated("--ensemble", workdir, other)["bits_per_char"] < (one + two) / 2
    )  # probabilities averaged: Jensen
    assert list(out["also"]) == [
        "adaptive",
        "n-gram of tokens",
        "adaptive + n-gram of tokens",
    ]
    for found in out["also"].values():  # an all but untrained model gains from everything
        assert found["bits_per_char"] < out["bits_per_char"]
    other_tokenizer = tmp_path / "tokenizer"
    assert train(other_tokenizer, "model.vocab_size=1550", "train.steps=1").returncode == 0
    done = script("evaluate", "--ensemble", workdir, other_tokenizer)
    assert done.returncode == 2
    assert "has another tokenizer than" in done.stderr
    assert script("evaluate", "--adaptive").returncode == 2
    done = script("evaluate", "--ensemble", f"{workdir}@7")
    assert done.returncode == 2
    assert "no checkpoint at step 7" in done.stderr


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
    assert out["found"]["copied_share"] == pytest.approx(60 / 101)  # its last line gets an end
    assert out["human"]["copied_share"] < 0.1
    assert "⟦" in script("novelty", "--workdir", workdir, "--text", path).stdout


def test_weights_that_cannot_be_cross_fitted_are_left_out_with_a_note(script, trained, tmp_path):
    """A text that stands in every validation chapter."""
    workdir, text = trained[0], tmp_path / "text.txt"
    chapters = [chapter.text for chapter in load_run(workdir).reference.splits["val"]]
    found = next(
        char
        for char in chapters[0]
        if char.strip() and all(f"{char}\n" in chapter for chapter in chapters)
    )
    text.write_text(found, encoding="utf-8")
    words = ["--text", text, "--ensemble", f"{workdir}@6", workdir]
    why = "every validation chapter contains, or is contained in, a scored text\n"
    for options in (["--mix_ngram"], ["--learn_weights"], ["--mix_ngram", "--learn_weights"]):
        done = script("evaluate", *words, *options, "--json")
        assert done.returncode == 0, done.stderr
        assert f"note: no weights are fitted: {why}" in done.stderr
        assert "also" not in json.loads(done.stdout)
    # Another text leaves nothing out.
    text.write_text(f"{found}龘龘龘", encoding="utf-8")
    done = script("evaluate", *words, "--mix_ngram", "--learn_weights", "--json")
    assert "no weights" not in done.stderr
    assert len(json.loads(done.stdout)["also"]) == 2


def test_weights_that_favour_a_run_that_learned_from_validation_are_noted(
    script, trained, tmp_path, monkeypatch
):
    """The second run's book is as if it held out nothing that the first one validates on."""
    validation = load_run(trained[0]).reference.splits["val"]
    text = tmp_path / "text.txt"
    text.write_text("龘龘宝玉笑道龘龘", encoding="utf-8")
    words = ["--text", text, "--mix_ngram", "--ensemble", trained[0], trained[0], "--json"]
    assert "weights_trained_on" not in json.loads(script("evaluate", *words).stdout)
    learned = [chapter.text for chapter in validation]
    monkeypatch.setattr(
        "hlm_jax.analysis.surprisal.split_of",
        lambda text, _: "train" if text in learned else None,
    )
    done = script("evaluate", *words)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    numbers = [chapter.number for chapter in validation]
    assert list(out["weights_trained_on"].values()) == [numbers]
    assert "trained_on" not in out
    assert "TRAINED ON" not in done.stderr
    assert re.search(
        "note: the weights favour .*tiny, which learned from chapters .* of what weights are "
        "fitted on; the bits stay valid for unseen chapters\n",
        done.stderr,
    )


def test_a_run_with_half_a_step_is_refused(script, trained):
    for word in ("@6", f"{trained[0]}@", "@"):
        done = script("evaluate", "--ensemble", trained[0], word)
        assert done.returncode == 2
        message = f"{word!r} is no run: write W@STEP with a workdir and a step, or W alone"
        assert done.stderr == f"evaluate: error: {message}\n"


SWEEP = """
CONFIG = "configs/base.py"
COMMON = {words!r}
RUNS = {{"baseline": [], "dropout 0.3, alone": ["model.dropout=0.3"], "never": ["no.such.key=1"]}}
"""


@pytest.mark.slow
def test_sweep(script, tiny, tmp_path):
    path, workdir = tmp_path / "demo.py", tmp_path / "sweep"
    text = SWEEP.format(words=[word.removeprefix("--config.") for word in tiny])
    path.write_text(text, encoding="utf-8")
    done = script("sweep", path, "--workdir", workdir)
    assert done.returncode == 2  # before anything is trained
    assert "unknown config key 'no.such.key'" in done.stderr
    assert not workdir.exists()
    done = script("sweep", path, "--runs", "absent", "--workdir", workdir)
    assert done.returncode == 2
    assert "has no run 'absent': there is baseline; dropout 0.3, alone" in done.stderr

    path.write_text(text.replace(', "never": ["no.such.key=1"]', ""), encoding="utf-8")
    done = script("sweep", path, "--seeds", 2, "--jobs", 2, "--workdir", workdir)
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

    # Once more: nothing is trained again; a run under other overrides is refused.
    seconds = (workdir / "baseline-seed0" / "seconds.txt").read_text()
    again = script(
        "sweep", path, "--runs", "dropout 0.3, alone", "--seeds", 2, "--workdir", workdir
    )
    assert again.stdout == done.stdout
    assert (workdir / "baseline-seed0" / "seconds.txt").read_text() == seconds
    path.write_text(
        path.read_text(encoding="utf-8").replace("model.dropout=0.3", "model.dropout=0.4"),
        encoding="utf-8",
    )
    for finished in (True, False):  # nor does half a training go on with them
        if not finished:
            (workdir / "dropout_0.3_alone-seed0" / "row.json").unlink()
        done = script("sweep", path, "--workdir", workdir)
        assert done.returncode == 2
        assert (
            "holds run 'dropout 0.3, alone' with another config (model.dropout: 0.3 -> 0.4)"
            in done.stderr
        )


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["training", "sweep"])
def test_a_sweep_says_when_a_training_was_asked_to_stop(asked, tiny, tmp_path, environment):
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
    os.kill(training if asked == "training" else sweep.pid, signal.SIGTERM)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert not Path(f"/proc/{training}").exists()  # none is left behind
    line = "the training of 'baseline' was asked to stop; the same command goes on with it"
    assert f"sweep: {line}" in errors
    assert not (workdir / "baseline-seed0" / "row.json").exists()  # half a training is no row
    assert list((workdir / "baseline-seed0" / "checkpoints").iterdir())


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


def test_evaluate_says_that_a_text_is_of_a_training_chapter(script, trained, tmp_path):
    """A split of the run's own needs no such word."""
    path = tmp_path / "text.txt"
    chapter = load_run(trained[0]).reference.splits["train"][1]
    path.write_text(chapter.text, encoding="utf-8")
    steps = ["--ensemble", trained[0], f"{trained[0]}@6"]
    done = script("evaluate", *steps, "--text", path, "--json")
    assert list(json.loads(done.stdout)["trained_on"]) == [json.loads(done.stdout)["workdir"]]
    line = "learned from the text that is scored; the bits are then no measure of an unseen text\n"
    assert done.stderr.count(line) == 1
    done = script("evaluate", "--workdir", trained[0], "--split", "train", "--json")
    assert "trained_on" not in json.loads(done.stdout)


def test_inspect(script, trained):
    out = script("inspect_checkpoint", "--workdir", trained[0], "--step", "12").stdout
    assert "step 12 (kept: 6, 12)" in out
    assert "block_0/attention/qkv/kernel" in out
    assert "16 x 48" in out
    assert "val_bits_per_char" in out
    assert '"n_embd": 16' in out


def test_a_prompt_that_is_not_utf8_is_one_line(script, trained, monkeypatch):
    words = ("--workdir", trained[0], "--max_new_tokens", 4)
    for errors in ("strict", "surrogateescape"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8", errors))
        done = script("sample", *words, "--prompt_file", "-")
        assert done.returncode == 2
        assert done.stderr.startswith("sample: error: a prompt is not text in UTF-8")
        assert done.stderr.count("\n") == 1


def test_quickstart_samples_the_workdir_that_it_trains(tmp_path):
    """The script with a Python that prints its words instead of training."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(REPO / "scripts" / "quickstart.sh", scripts)
    (scripts / "environment.sh").write_text("set -euo pipefail\nPYTHON=echo\n")
    common = ["bash", scripts / "quickstart.sh"]
    for words, workdir in (
        (["--workdir", "runs/mine", "--config.seed=1"], f"{tmp_path}/runs/mine"),
        (["--config.seed=1", "--workdir=/runs/mine"], "/runs/mine"),
        (["--config.seed=1"], "runs/given"),
    ):
        env = os.environ | {"WORKDIR": "runs/given"}
        done = subprocess.run(
            [*common, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        train, _, _, sample = done.stdout.splitlines()
        assert train.endswith(
            f"hlm_jax.train --config configs/tiny.py --workdir {workdir} --config.seed=1"
        )
        assert f"scripts/sample.py --workdir {workdir} " in sample
    done = subprocess.run(common, env=os.environ | {"WORKDIR": ""}, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].endswith("--workdir runs/tiny")


def test_quickstart_of_another_book_fits_its_settings_and_continues_one_of_its_chapters(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(REPO / "scripts" / "quickstart.sh", scripts)
    python = tmp_path / "python"  # notes its words; answers as book.py and as the reader of a file
    python.write_text(
        f"""#!/usr/bin/env bash
printf '%s|' "$@" >>{tmp_path}/calls; echo >>{tmp_path}/calls
case "$*" in
  *--settings*) echo --config.train.steps=60 --config.model.vocab_size=700 ;;
  *corpus.json) printf 'CHAPTER X\nIt was,\n' ;;
esac
"""
    )
    python.chmod(0o755)
    (scripts / "environment.sh").write_text(
        f'set -euo pipefail\ncd "$(dirname "${{BASH_SOURCE[0]}}")/.."\nPYTHON={python}\n'
    )
    here = tmp_path / "my books"
    here.mkdir()
    (here / "a book's.txt").write_text("")
    env = os.environ | {"WORKDIR": ""}
    book = f"--config.corpus.path={here}/a book's.txt"
    calls = []
    for word in ("a book's.txt", "--config.corpus.path=a book's.txt"):
        words = [word, "--config.train.steps=70"]
        subprocess.run(["bash", scripts / "quickstart.sh", *words], env=env, cwd=here, check=True)
        calls.append((tmp_path / "calls").read_text().split("|\n")[:-1])
        (tmp_path / "calls").unlink()
    assert calls[0] == calls[1]
    assert calls[0] == [
        f"scripts/book.py|--settings|{book}|--config.train.steps=70",
        "-m|hlm_jax.train|--config|configs/tiny.py|--workdir|runs/a book's"
        f"|--config.train.steps=60|--config.model.vocab_size=700|{book}|--config.train.steps=70",
        '-c|import json, sys; print(json.load(open(sys.argv[1], encoding="utf-8"))["opening"])'
        "|runs/a book's/corpus.json",
        "scripts/sample.py|--workdir|runs/a book's|--prompt|CHAPTER X\nIt was,"
        "|--max_new_tokens|200|--seed|1",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.corpus.path="], "write --config.corpus.path=BOOK"),
        (["--config.corpus.path", "book.txt"], "write --config.corpus.path=BOOK"),
        (["absent.txt"], "'absent.txt': no such book"),
        ([""], "'': no such book"),
        (["book.txt", "book.txt"], "give the book once"),
        (["--workdir"], "--workdir needs a folder"),
        (["--workdir="], "--workdir needs a folder"),
    ],
)
def test_a_wrong_quickstart_is_one_line_before_anything_is_set_up(tmp_path, words, message):
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPO / "scripts" / "quickstart.sh", tmp_path / "scripts")
    (tmp_path / "scripts" / "environment.sh").write_text("PYTHON=echo; echo set up\n")
    (tmp_path / "book.txt").write_text("")
    command = ["bash", "scripts/quickstart.sh", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("quickstart: error: ")
    assert message in done.stderr


def test_quickstart_tells_its_usage():
    command = ["bash", REPO / "scripts" / "quickstart.sh", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "bash scripts/quickstart.sh BOOK" in done.stdout
    assert "set -euo" not in done.stdout


def test_the_environment_is_set_up_without_training(tmp_path):
    """Executed it tells what to do next; sourced it is silent."""
    for name in ("setup.py", "requirements.lock", "scripts/environment.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/usr/bin/env bash\n")
    python.chmod(0o755)
    command = ["bash", tmp_path / "scripts" / "environment.sh"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "scripts/book.py BOOK" in done.stdout
    command = ["bash", "-c", "source scripts/environment.sh"]
    assert not subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
