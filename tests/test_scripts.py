import json

import pytest


@pytest.fixture(scope="module")
def script(command):
    return lambda name, *words: command(f"scripts/{name}.py", *words)


def test_sample(script, trained):
    workdir, _ = trained
    words = ("--workdir", workdir, "--prompt", "宝玉笑道：", "--num_samples", 2, "--max_new_tokens", 40, "--seed", 4)
    done = script("sample", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("宝玉笑道：") >= 2
    assert "--- 2 ---" in done.stdout
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
    for name in ("sample", "evaluate", "inspect_checkpoint"):
        done = script(name, "--workdir", tmp_path)
        assert done.returncode == 2
        assert "no checkpoint in" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_evaluate_json(script, trained):
    workdir, printed = trained
    done = script("evaluate", "--workdir", workdir, "--split", "val", "--per_chapter", "--json", "--step", "latest")
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
