"""Models to start from: runs, and folders in Hugging Face's layout, made here with random weights.

Folders are written by hand, so that most tests need no torch. Where torch and transformers are
installed, a test lets them write the folders and compares logits.
"""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.names import published_weights
from hlm_jax.model.shape import GPTConfig
from hlm_jax.pretrained import load_pretrained

tokenizers = pytest.importorskip("tokenizers")
safetensors = pytest.importorskip("safetensors.numpy")

END = "<|endoftext|>"
TEXT = "宝玉笑道：“好妹妹，Dream of the Red Chamber。”\n黛玉听了，也笑道：“你又来了！”\n"
GPT2 = GPTConfig("gpt2", 300, 24, 2, 4, 32, 0.0, 10000.0)
GROUPED = GPTConfig(
    "qwen3", 300, 24, 2, 4, 32, 0.0, 5e5, n_kv_head=2, head_dim=10, intermediate_size=48
)
SHAPES = {"gpt2": GPT2, "qwen3": GROUPED}
EVERY = pytest.mark.parametrize("form", SHAPES)
CONFIGS = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 300,
        "n_positions": 24,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 50256,  # as transformers writes by default, whatever the vocabulary
    },
    "qwen3": {
        "model_type": "qwen3",
        "vocab_size": 300,
        "max_position_embeddings": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 48,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
        "layer_types": ["full_attention", "full_attention"],
        "tie_word_embeddings": True,
    },
}


def write_tokenizer(folder, size=290):
    """A byte-level BPE like GPT-2's."""
    from tokenizers import models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT * 3], trainer)
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": END, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def random_params(cfg):
    """Parameters in which every bias and gain differs from its initial value."""
    shapes = jax.eval_shape(GPT(cfg).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes["params"])


def write_config(folder, form, **changes):
    config = {k: v for k, v in (CONFIGS[form] | changes).items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_weights(folder, weights, name="model.safetensors"):
    arrays = {key: np.ascontiguousarray(x) for key, x in weights.items()}
    safetensors.save_file(arrays, folder / name)


@pytest.fixture
def folder(tmp_path):
    """Writes a folder in Hugging Face's layout, in this form: its path."""

    def write(form, **changes):
        write_tokenizer(tmp_path)
        write_config(tmp_path, form, **changes)
        write_weights(tmp_path, published_weights(random_params(SHAPES[form]), SHAPES[form]))
        return tmp_path

    return write


def assert_equal_trees(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# --- what is read ---


@EVERY
def test_a_folder_gives_shape_weights_and_tokenizer(folder, form):
    path = folder(form)
    found = load_pretrained(str(path))
    assert found.cfg == SHAPES[form]
    assert_equal_trees(found.params, random_params(found.cfg))
    assert found.tokenizer.vocab_size == 300
    assert found.tokenizer.separator == END
    assert found.tokenizer.decode(found.tokenizer.encode(TEXT)) == TEXT
    assert found.about == json.loads(json.dumps(found.about))
    assert (found.about["kind"], found.about["step"]) == ("huggingface", None)
    assert found.about["path"] == str(path)


@EVERY
def test_half_types_and_parts_are_read(folder, form):
    path = folder(form)
    params = random_params(SHAPES[form])
    weights = published_weights(params, SHAPES[form])
    for dtype in (np.float16, ml_dtypes.bfloat16):
        write_weights(path, {name: x.astype(dtype) for name, x in weights.items()})
        rounded = jax.tree.map(lambda x, to=dtype: x.astype(to).astype(np.float32), params)
        assert_equal_trees(load_pretrained(path).params, rounded)
    (path / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, of_part in parts.items():
        write_weights(path, {name: weights[name] for name in of_part}, part)
    places = {name: part for part, of_part in parts.items() for name in of_part}
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_equal_trees(load_pretrained(path).params, params)
    index.write_text(json.dumps({"weight_map": places | {"lm_head.weight": "b.safetensors"}}))
    with pytest.raises(UserError, match=r"b.safetensors lacks the weight lm_head.weight"):
        load_pretrained(path)
    index.write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        load_pretrained(path)


def test_settings_of_transformers_4_and_5_mean_the_same(folder):
    path = folder("qwen3")
    old = {"rope_parameters": "absent", "rope_theta": 5e5, "rope_scaling": None}
    for changes in (old, old | {"layer_types": "absent", "head_dim": 10}):
        write_config(path, "qwen3", **changes)
        assert load_pretrained(path).cfg == GROUPED
    write_config(path, "qwen3", rope_parameters="absent")
    assert load_pretrained(path).cfg.rope_theta == 10000.0


def test_widths_that_follow_from_the_rule_are_not_recorded(folder):
    path = folder("gpt2", n_inner=128, activation_function="gelu_pytorch_tanh")
    assert load_pretrained(path).cfg == GPT2
    cfg = GPTConfig("qwen3", 300, 24, 2, 4, 32, 0.0, 5e5)
    write_config(path, "qwen3", num_key_value_heads=4, head_dim=8, intermediate_size=128)
    write_weights(path, published_weights(random_params(cfg), cfg))
    assert load_pretrained(path).cfg == cfg


@EVERY
def test_a_shorter_window_gives_the_same_logits(folder, form):
    found = load_pretrained(folder(form))
    short = found.shortened(10)
    assert short.cfg == dataclasses.replace(found.cfg, block_size=10)
    ids = jnp.arange(10)[None]
    logits = [GPT(one.cfg).apply({"params": one.params}, ids)[0] for one in (found, short)]
    np.testing.assert_array_equal(*logits)
    assert sum(x.size for x in jax.tree.leaves(short.params)) == short.cfg.n_parameters
    with pytest.raises(UserError, match=r"reads at most 10 tokens .*model.block_size"):
        short.shortened(11)


@EVERY
def test_logits_are_those_of_transformers(tmp_path, form):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = {k: v for k, v in CONFIGS[form].items() if k not in ("model_type", "bos_token_id")}
    kind = {"gpt2": transformers.GPT2Config, "qwen3": transformers.Qwen3Config}[form]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(kind(**config))
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += 0.1 * torch.randn_like(weight)
    for dtype, more in ((torch.float32, {}), (torch.bfloat16, {"max_shard_size": "40KB"})):
        path = tmp_path / str(dtype)
        theirs.to(dtype).save_pretrained(path, **more)
        write_tokenizer(path)
        assert (path / "model.safetensors.index.json").exists() == bool(more)
        found = load_pretrained(path)
        ids = [found.tokenizer.separator_id, *found.tokenizer.encode(TEXT)][: found.cfg.block_size]
        again = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        with torch.no_grad():
            expected = again.eval()(torch.tensor([ids])).logits.numpy()
        logits, _ = GPT(found.cfg).apply({"params": found.params}, jnp.asarray([ids]))
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert np.abs(expected).max() > 1


def test_a_run_gives_its_own(trained):
    from hlm_jax.run import load_run

    workdir, _ = trained
    found, run = load_pretrained(str(workdir), "6"), load_run(workdir, 6)
    assert found.cfg == run.model.cfg
    assert_equal_trees(found.params, run.params)
    assert found.tokenizer.fingerprint == run.tokenizer.fingerprint
    about = json.loads(json.dumps(found.about))
    assert about == found.about
    assert (about["kind"], about["step"], about["init"]) == ("run", 6, None)
    assert about["corpus"]["sha256"] == run.meta["corpus"]["sha256"]
    with pytest.raises(UserError, match="no checkpoint at step 7"):
        load_pretrained(str(workdir), "7")


@EVERY
def test_what_this_project_exports_is_read_back(tokenizer, tmp_path, form):
    from hlm_jax.export import huggingface
    from hlm_jax.language_model import LanguageModel

    cfg = dataclasses.replace(SHAPES[form], vocab_size=tokenizer.vocab_size)
    model = LanguageModel(GPT(cfg), random_params(cfg), tokenizer)
    huggingface.write(model, tmp_path)
    found = load_pretrained(tmp_path)
    assert found.cfg == cfg
    assert_equal_trees(found.params, model.params)
    assert found.tokenizer.separator_id == tokenizer.separator_id
    for text in (TEXT, "▁ a▁\n", "<|chapter|> <unk>", "龘🐉\x01"):
        assert found.tokenizer.encode(text) == tokenizer.encode(text)
    for token in range(tokenizer.vocab_size):
        assert found.tokenizer.token_bytes(token) == tokenizer.token_bytes(token)


def test_a_folder_is_read_without_torch(folder):
    code = (
        "import sys; from hlm_jax.pretrained import load_pretrained; "
        f"load_pretrained({str(folder('gpt2'))!r}); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    env = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


# --- what is refused ---

NO_SCALING = "rotary positions of its own"


@pytest.mark.parametrize(
    ("form", "changes", "reason"),
    [
        ("gpt2", {"model_type": "llama"}, "model_type=llama: gpt2 and qwen3 are read"),
        ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings=false"),
        ("gpt2", {"activation_function": "relu"}, 'activation_function="relu": only .*"gelu_new"'),
        ("gpt2", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06: only .* 1e-05"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=false"),
        (
            "gpt2",
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx=true",
        ),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn=true"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention=true"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("gpt2", {"n_head": 5}, "n_head=5, which does not divide n_embd=32"),
        ("gpt2", {"n_layer": "absent"}, "n_layer=null: it must be a number"),
        ("gpt2", {"n_embd": "32"}, 'n_embd="32": it must be a number'),
        ("gpt2", {"n_positions": 25}, r"wpe.weight has the shape \[24, 32\], .* needs \[25, 32\]"),
        ("gpt2", {"n_layer": 3}, r"transformer.h.2.ln_1.weight is missing"),
        (
            "gpt2",
            {"n_layer": 1},
            r"transformer.h.1.attn.c_attn.bias has no place .* 1 layers \(12 such",
        ),
        ("gpt2", {"vocab_size": 280}, "290 tokens and the model 280"),
        ("qwen3", {"tie_word_embeddings": False}, "tie_word_embeddings=false"),
        ("qwen3", {"tie_word_embeddings": "absent"}, "tie_word_embeddings=false"),
        ("qwen3", {"hidden_act": "gelu"}, 'hidden_act="gelu"'),
        ("qwen3", {"rms_norm_eps": 1e-5}, "rms_norm_eps=1e-05"),
        ("qwen3", {"attention_bias": True}, "attention_bias=true"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window=true"),
        (
            "qwen3",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layers of the type sliding_attention: only full_attention",
        ),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, NO_SCALING),
        ("qwen3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, NO_SCALING),
        (
            "qwen3",
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            NO_SCALING,
        ),
        ("qwen3", {"rope_parameters": {"rope_theta": "x"}}, 'rope_theta="x": it must be'),
        ("qwen3", {"num_key_value_heads": 3}, "the second must divide the first"),
        ("qwen3", {"head_dim": 9}, "the third be even"),
        ("qwen3", {"head_dim": "absent"}, "head_dim=null"),
        ("qwen3", {"intermediate_size": 64}, r"up_proj.weight has the shape \[48, 32\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, form, changes, reason):
    path = folder(form, **changes)
    with pytest.raises(UserError, match=reason) as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_folders_are_refused(tmp_path, folder):
    with pytest.raises(UserError, match=r"gpt2: no such folder; .*hf download NAME"):
        load_pretrained("gpt2")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"neither a run .*checkpoints.* nor .*config.json"):
        load_pretrained(empty)
    (empty / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not readable JSON"):
        load_pretrained(empty)
    (empty / "config.json").write_text('{"seed": 0}')
    with pytest.raises(UserError, match=r"no config.json with a model_type"):
        load_pretrained(empty)
    (empty / "folds.json").write_text("{}")
    with pytest.raises(UserError, match="holds fold models: name one of them"):
        load_pretrained(empty)


def test_missing_and_damaged_files_are_named(folder):
    path = folder("gpt2")
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"model.safetensors cannot be read \("):
        load_pretrained(path)
    weights.unlink()
    with pytest.raises(UserError, match=r"neither model.safetensors nor model.safetensors.index"):
        load_pretrained(path)
    (path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model.bin is not read.*save_pretrained"):
        load_pretrained(path)
    table = published_weights(random_params(GPT2), GPT2)
    write_weights(path, table | {"transformer.wte.weight": np.zeros((300, 32), np.int8)})
    with pytest.raises(UserError, match=r"wte.weight is of the type I8: float32, float16"):
        load_pretrained(path)
    weights.write_bytes(whole)
    (path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json cannot be read .*AutoTokenizer"):
        load_pretrained(path)


def test_a_missing_library_is_named(folder, monkeypatch):
    path = folder("gpt2")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match=r"EXTRAS=export bash scripts/environment.sh"):
        load_pretrained(path)
