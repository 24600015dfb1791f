"""Exports: what is written, what other programs read in it, and what is refused."""

import dataclasses
import json
import os
import shutil
import stat

import numpy as np
import pytest
from conftest import REPO
from test_parity import seeded_params

from hlm_jax.errors import UserError
from hlm_jax.export import folder, huggingface, recitation, weights, writer
from hlm_jax.export.checks import huggingface as checks
from hlm_jax.export.checks.material import Material
from hlm_jax.export.recitation import Recitation
from hlm_jax.model.gpt import GPT
from hlm_jax.model.names import published_weights
from hlm_jax.pretrained import load_pretrained
from hlm_jax.run import load_run

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
}
# Heads that share keys and values, and widths that follow from no rule.
QWEN3 = {
    "form": "qwen3",
    "n_layer": 2,
    "n_kv_head": 1,
    "head_dim": 16,
    "intermediate_size": 96,
    "rope_theta": 500.0,
}
ONE_FORM = pytest.mark.parametrize("run", ["qwen3"], indirect=True)


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def run(request, trained):
    """A run of either form whose weights are all random: no bias is 0 and no gain 1."""
    opened = load_run(trained[0])
    cfg = opened.model.cfg
    if request.param == "qwen3":
        cfg = dataclasses.replace(cfg, **QWEN3)
    return dataclasses.replace(opened, model=GPT(cfg), params=seeded_params(cfg))


@pytest.fixture(scope="module")
def material(run):
    return Material.of(run)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("hf")
    huggingface.write(run, out)
    return out


def test_the_folder_is_what_transformers_expects(run, exported):
    assert {path.name for path in exported.iterdir()} == FILES
    config = json.loads((exported / "config.json").read_text())
    cfg, separator = run.model.cfg, run.tokenizer.separator_id
    assert config["model_type"] == cfg.form
    assert config["vocab_size"] == cfg.vocab_size
    assert config["tie_word_embeddings"] is True
    assert {config[f"{name}_token_id"] for name in ("bos", "eos", "pad")} == {separator}
    if cfg.form == "qwen3":
        assert config["num_key_value_heads"] == 1
        assert config["head_dim"] == 16
        assert config["intermediate_size"] == 96
        assert config["rope_theta"] == 500
    settings = json.loads((exported / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["clean_up_tokenization_spaces"] is False
    assert settings["bos_token"] == settings["eos_token"] == settings["pad_token"] == "<|chapter|>"
    assert settings["unk_token"] == "<unk>"
    ends = json.loads((exported / "generation_config.json").read_text())
    assert ends["max_length"] == cfg.block_size
    assert (ends["temperature"], ends["top_k"], ends["top_p"]) == (1.0, 0, 0.9)
    assert (exported / "tokenizer.model").read_bytes() == run.tokenizer.model_bytes


def test_a_run_that_writes_greedily_is_exported_so(run):
    greedy = dataclasses.replace(run, sampling=dataclasses.replace(run.sampling, temperature=0.0))
    assert huggingface.generation_config(greedy)["do_sample"] is False
    draws = dataclasses.replace(run, sampling=dataclasses.replace(run.sampling, min_p=0.1, top_k=3))
    assert huggingface.generation_config(draws)["min_p"] == 0.1
    assert huggingface.generation_config(draws)["top_k"] == 3


def test_the_matrix_of_the_output_is_stored_once(run, exported):
    from safetensors.numpy import load_file

    stored = load_file(exported / "model.safetensors")
    assert sum(x.size for x in stored.values()) == run.model.cfg.n_parameters
    assert not any("lm_head" in name for name in stored)
    for name, values in published_weights(run.params, run.model.cfg).items():
        np.testing.assert_array_equal(stored[name], values)


def test_half_of_the_bytes_in_bfloat16(run, exported, tmp_path):
    huggingface.write(run, tmp_path, dtype="bf16")
    whole, half = ((path / "model.safetensors").stat().st_size for path in (exported, tmp_path))
    assert whole / 2 < half < whole / 2 + 4096  # and the names
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    read = weights.as_read(run.params, "bf16")["token_embedding"]
    error = np.abs(read - run.params["token_embedding"]) / np.abs(run.params["token_embedding"])
    assert 0 < error.max() <= 2.0**-8


def test_transformers_reads_it_as_it_is(material, exported):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    results = checks.check(material, exported, "f32")
    assert [result.passed for result in results] == [True] * 6, "\n".join(map(str, results))


@ONE_FORM
def test_transformers_reads_bfloat16(run, material, tmp_path):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    huggingface.write(run, tmp_path, dtype="bf16")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    as_read = weights.as_read(run.params, "bf16")
    assert checks.logits_result(material, as_read, theirs, "it").passed
    assert not checks.logits_result(material, run.params, theirs, "it").passed


@ONE_FORM
def test_the_checks_see_what_is_wrong(material, exported, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    stored = load_file(broken / "model.safetensors")
    missing = "model.layers.1.self_attn.q_norm.weight"
    del stored[missing]
    save_file(stored, broken / "model.safetensors", metadata={"format": "pt"})
    words = json.loads((broken / "tokenizer.json").read_text(encoding="utf-8"))
    words["model"]["merges"] = words["model"]["merges"][::-1]
    (broken / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    alone, keys, logits, ids, *_ = checks.check(material, broken, "f32")
    assert [alone.passed, keys.passed, logits.passed, ids.passed] == [False] * 4
    assert missing in str(keys)
    assert str(logits).startswith("FAILED")


@ONE_FORM
def test_another_greedy_text_is_told_from_a_tie(run, material):
    greedy = material.greedy(run.device_params)
    assert material.greedy_result(run.device_params, "it", greedy).passed
    worst = material.logits(
        run.device_params, np.array([run.tokenizer.encode(material.prompts[0])], np.int32)
    )[0, -1].argmin()
    other = [[int(worst), *greedy[0][1:]], *greedy[1:]]
    result = material.greedy_result(run.device_params, "it", other)
    assert not result.passed
    assert f"{len(greedy) - 1} of {len(greedy)}" in str(result)


def test_the_own_reader_opens_the_export(run, exported):
    pytest.importorskip("tokenizers")
    opened = load_pretrained(str(exported), "best")
    for name, values in published_weights(run.params, run.model.cfg).items():
        np.testing.assert_array_equal(published_weights(opened.params, opened.cfg)[name], values)
    text = run.reference.splits["val"][0].text
    assert opened.tokenizer.encode(text) == run.tokenizer.encode(text)
    assert opened.tokenizer.separator_id == run.tokenizer.separator_id


def test_a_tokenizer_of_others_goes_out_as_it_came_in(run, exported, tmp_path):
    pytest.importorskip("tokenizers")
    opened = load_pretrained(str(exported), "best")
    other = dataclasses.replace(run, tokenizer=opened.tokenizer)
    out = tmp_path / "out"
    out.mkdir()
    huggingface.write(other, out)
    assert {path.name for path in out.iterdir()} == FILES - {"tokenizer.model"}
    assert (out / "tokenizer.json").read_bytes() == (exported / "tokenizer.json").read_bytes()
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["bos_token"] == "<|chapter|>"
    with pytest.raises(UserError, match=r"convert_hf_to_gguf.py"):
        writer.export(other, tmp_path / "gguf", format="gguf")
    assert not (tmp_path / "gguf").exists()


def test_the_script_exports_and_checks(trained, script, tmp_path):
    workdir, _ = trained
    out = tmp_path / "new" / "out"
    done = script(
        "export",
        "--workdir",
        workdir,
        "--format",
        "hf",
        "--out",
        out,
        "--license",
        "mit",
        "--check",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in out.iterdir()} == FILES | {"README.md"}
    # As other files of this process: safetensors' are its owner's alone.
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    (tmp_path / "plain").write_text("")
    assert modes == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(out.parent.stat().st_mode)
    assert "ok     tokenizers" in done.stdout
    assert "FAILED" not in done.stdout
    assert not list(out.parent.glob(".*"))
    text = (out / "README.md").read_text(encoding="utf-8")
    head = text.split("---\n")[1]
    assert "license: mit\n" in head
    assert "- zh\n" in head
    assert "library_name: transformers\n" in head
    metrics = load_run(workdir).meta["metrics"]
    assert f"| this model | {metrics['val_bits_per_char']:.4f} |" in text
    assert f"{metrics['ngram_bits_per_char']:.4f}" in text
    assert "extraction, training chapters: 0.0% of" in text
    assert "extraction, validation chapters: " in text
    assert "copied spans of 15+" in text
    assert "book.txt" in text
    assert str(tmp_path) not in text
    assert str(load_run(workdir).config.corpus.path) not in text
    again = script("export", "--workdir", workdir, "--format", "hf", "--out", out)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "is not empty" in again.stderr


def test_a_failed_check_ends_with_code_1(trained, script, tmp_path, monkeypatch):
    from hlm_jax.export.checks import suite
    from hlm_jax.export.checks.material import Result

    monkeypatch.setattr(suite, "check", lambda *_, **__: [Result(False, "it"), Result(None, "x")])
    monkeypatch.setattr(recitation, "measure", lambda _: Recitation(("none",)))
    words = ["--workdir", trained[0], "--format", "hf", "--out", tmp_path / "out", "--check"]
    done = script("export", *words)
    assert done.returncode == 1
    assert "FAILED it\nnote   x\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--format", "hf", "--dtype", "q8_0"], "--format hf has --dtype f32, bf16, not q8_0"),
        (["--format", "gguf", "--dtype", "bf16"], "--format gguf has --dtype f32, f16, q8_0"),
        (["--format", "hf", "--license", "no such one"], "is no identifier"),
        (["--format", "hf", "--step", "77"], "no checkpoint at step 77"),
        (["--format", "hf", "--corpus", "absent.txt"], "absent.txt"),
    ],
)
def test_mistakes_are_one_line(trained, script, tmp_path, words, reason):
    done = script("export", "--workdir", trained[0], "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format", "package"), [("hf", "safetensors"), ("gguf", "gguf")])
def test_a_missing_package_is_named_before_the_run_is_opened(
    script, tmp_path, monkeypatch, format, package
):
    import sys

    for name in (package, f"{package}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    words = ["--workdir", tmp_path / "absent", "--format", format, "--out", tmp_path / "out"]
    done = script("export", *words)
    assert done.returncode == 2
    assert f"the package {package} is not installed: EXTRAS=export bash" in done.stderr


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "out"

    def fail():
        with folder.new_folder(out) as partial:
            (partial / "first").write_text("1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with folder.new_folder(out) as partial:
        (partial / "first").write_text("1")
        assert list(out.iterdir()) == []
    assert [path.name for path in out.iterdir()] == ["first"]
    with pytest.raises(UserError, match="not empty"), folder.new_folder(out):
        pass
    with pytest.raises(UserError, match="is a file"):
        folder.check_out(out / "first")
    with (
        pytest.raises(UserError, match="cannot be written"),
        folder.new_folder(out / "first" / "x"),
    ):
        pass


@pytest.mark.slow
def test_an_export_needs_neither_torch_nor_transformers(trained, command, tmp_path):
    code = (
        "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'transformers']); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = ["scripts/export.py", "--workdir", trained[0], "--out", tmp_path / "out"]
    done = command("-c", code, *words, "--format", "hf", "--check")
    assert done.returncode == 0, done.stderr
    assert "note   transformers: not installed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gpt2", "qwen3"])
def test_transformers_4_reads_it_too(trained, train, command, tmp_path, form):
    pytest.importorskip("torch")
    older = REPO / ".venv" / "transformers-4"
    if not older.is_dir():
        pytest.skip("pip install --target .venv/transformers-4 'transformers==4.57.*'")
    workdir = trained[0]
    if form == "qwen3":
        workdir = tmp_path / "qwen3"
        done = train(workdir, *(f"model.{name}={value}" for name, value in QWEN3.items()))
        assert done.returncode == 0, done.stderr
    path = f"{older}{os.pathsep}{REPO}"
    words = ["--workdir", workdir, "--format", "hf", "--out", tmp_path / "out", "--check"]
    done = command("scripts/export.py", *words, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok     transformers 4.57.") == 5


def test_without_the_book_the_card_says_so(trained, tmp_path):
    run = load_run(trained[0])
    gone = dataclasses.replace(run, config=run.config.copy_and_resolve_references())
    gone.config.unlock()
    gone.config.corpus.path = str(tmp_path / "gone.txt")
    huggingface_out = writer.export(gone, tmp_path / "out").parent
    text = (huggingface_out / "README.md").read_text(encoding="utf-8")
    assert "Not measured: the book is not at hand" in text
    assert "of ten chapters the 5th for the test and the 10th for validation" in text
    material = Material.of(gone)
    assert "texts that the run wrote" in material.about
    assert len(material.prompts) == 20


def test_a_run_of_an_older_version_is_exported(run_of_0_1_0, tmp_path):
    run = load_run(run_of_0_1_0)
    writer.export(run, tmp_path / "out")
    opened = load_pretrained(str(tmp_path / "out"), "best")
    for name, values in published_weights(run.params, run.model.cfg).items():
        np.testing.assert_array_equal(published_weights(opened.params, opened.cfg)[name], values)
    assert "Not measured" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
