"""The Mogrifier LSTM: its arithmetic, its memory, and where it stands in for a transformer."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from serving import complete, open_models, posted, serving

from hlm_jax.measures.score import total
from hlm_jax.model import gpt, layers, mogrifier
from hlm_jax.model.generate import stream
from hlm_jax.model.gpt import GPT, GPTConfig, init_cache
from hlm_jax.model.sampling import SamplingParams
from hlm_jax.model.shape import ROUNDS
from hlm_jax.run import load_run
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.step import init_state, make_step

CFG = GPTConfig(
    "mogrifier",
    vocab_size=31,
    block_size=12,
    n_layer=2,
    n_head=1,
    n_embd=8,
    dropout=0.0,
    rope_theta=1e4,
)
TOKENS = np.random.default_rng(0).integers(0, 31, (3, 10)).astype(np.int32)


@pytest.fixture(scope="module")
def params():
    """Random weights, large enough that every gate matters."""
    drawn = jax.jit(GPT(CFG).init)(jax.random.key(0), TOKENS[:, :1])["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.asarray(rng.normal(0, 0.5, x.shape), np.float32), drawn)


def reference(params, ids):
    """Logits [T, V] of one text by the paper's equations, token after token, in float64."""
    w = jax.tree.map(np.float64, params)
    sigmoid, d = (lambda z: 1 / (1 + np.exp(-z))), CFG.n_embd

    def norm(x, scale):
        return x / np.sqrt((x * x).mean() + 1e-6) * scale

    memory = [(np.zeros(d), np.zeros(d)) for _ in range(CFG.n_layer)]
    rows = []
    for token in ids:
        residual = w["token_embedding"][token]
        for i, (h, c) in enumerate(memory):
            layer = w["lstm"][f"layer_{i}"]
            x = norm(residual, layer["norm"]["scale"])
            for k in range(ROUNDS):
                q = layer[f"round_{k}"]["kernel"]
                x, h = (x, 2 * sigmoid(x @ q) * h) if k % 2 else (2 * sigmoid(h @ q) * x, h)
            gates = x @ layer["gates_x"]["kernel"] + h @ layer["gates_h"]["kernel"] + layer["bias"]
            f, o = sigmoid(gates[:d]), sigmoid(gates[2 * d :])
            c = f * c + (1 - f) * np.tanh(gates[d : 2 * d])
            h = o * np.tanh(c)
            memory[i] = h, c
            residual = residual + h @ layer["out"]["kernel"]
        rows.append(norm(residual, w["final_norm"]["scale"]) @ w["token_embedding"].T)
    return np.array(rows)


def test_logits_are_those_of_the_equations(params):
    found, cache = jax.jit(GPT(CFG).apply)({"params": params}, TOKENS)
    assert cache is None
    expected = np.array([reference(params, row) for row in TOKENS])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected, axis=1).min() > 0.1  # every token moves them


def test_the_derivative_equals_autodiffs():
    rng = np.random.default_rng(2)
    columns = {f"round_{i}": 8 for i in range(ROUNDS)} | {"gates_x": 24, "gates_h": 24}
    weights = {name: rng.normal(0, 0.5, (8, n)).astype(np.float32) for name, n in columns.items()}
    others = [rng.normal(size=s).astype(np.float32) for s in ((24,), (5, 3, 8), (3, 8), (3, 8))]
    out = [rng.normal(size=(5, 3, 8)).astype(np.float32) for _ in range(2)]

    def plain(weights, *others):
        zeros = {name: jnp.zeros((5, 3, n)) for name, n in columns.items()}
        bias, *rest = others
        return mogrifier._scan("float32", weights, bias, zeros, *rest)[0]

    def gradients(f):
        return jax.jit(lambda *x: jax.vjp(f, *x)[1](tuple(out)))(weights, *others)

    found = gradients(lambda *x: mogrifier.recurrence("float32", *x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, gradients(plain))


def test_parameters_and_products_are_counted():
    shapes = jax.eval_shape(GPT(CFG).init, jax.random.key(0), TOKENS[:, :1])["params"]
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
    assert CFG.n_parameters == sum(sizes)
    matrices = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim == 2)
    assert CFG.flops_per_token == 6 * matrices  # the embedding is the output's


def test_its_memory_goes_on_where_a_padded_prompt_ended(params):
    model, lengths = GPT(CFG), np.array([3, 6, 4])
    apply = jax.jit(model.apply)
    whole = np.asarray(apply({"params": params}, TOKENS)[0])
    padded = np.where(np.arange(6) < lengths[:, None], TOKENS[:, :6], 0)
    memory = init_cache(CFG, 3, 12)
    logits, memory = apply({"params": params}, padded, cache=memory, last_B=lengths - 1)
    np.testing.assert_allclose(logits[:, 0], whole[range(3), lengths - 1], atol=1e-5)
    for step in range(3):
        at = lengths + step
        logits, memory = apply(
            {"params": params}, TOKENS[range(3), at][:, None], cache=memory, start=at
        )
        np.testing.assert_allclose(logits[:, 0], whole[range(3), at], atol=1e-5)


def test_rows_write_what_they_write_alone_also_past_the_window(params):
    def written(prompts):
        settings = [SamplingParams(seed=k) for k in range(len(prompts))]
        blocks = stream(GPT(CFG), params, prompts, settings, max_new_tokens=20, dispatch_tokens=4)
        return np.concatenate([block.tokens for block in blocks], axis=1)

    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    both = written(prompts)
    np.testing.assert_array_equal(both[:1], written(prompts[:1]))
    ids = [*prompts[0], *both[0][:4].tolist()]
    assert len(set(both[0].tolist())) > 1
    greedy = SamplingParams(temperature=0.0)
    (block,) = stream(GPT(CFG), params, [ids], [greedy], max_new_tokens=1)
    assert block.tokens[0, 0] == reference(params, ids)[-1].argmax()


def test_dropout_is_of_the_embedding_and_of_what_every_layer_adds(params, monkeypatch):
    seen = []

    def dropout(x, rate, seed):
        seen.append((rate, None if seed is None else tuple(np.asarray(seed))))
        return layers.dropout(x, rate, seed)

    monkeypatch.setattr(gpt, "dropout", dropout)
    monkeypatch.setattr(mogrifier, "dropout", dropout)
    model = GPT(dataclasses.replace(CFG, dropout=0.5))
    plain = model.apply({"params": params}, TOKENS)[0]
    assert seen == [(0.5, None)] * CFG.n_layer
    seen.clear()
    dropped = model.apply({"params": params}, TOKENS, dropout_key=jax.random.key(0))[0]
    seeds = layers.dropout_seeds(jax.random.key(0), CFG.n_layer, [0])
    expected = [seeds.embedding, *(seeds.branches[i][0] for i in range(CFG.n_layer))]
    assert seen == [(0.5, tuple(np.asarray(seed))) for seed in expected]
    assert abs(dropped - plain).max() > 0.1


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A Mogrifier LSTM of the same text and vocabulary as the tiny run."""
    workdir = tmp_path_factory.mktemp("mogrifier") / "lstm"
    words = "model.form=mogrifier", "optim.name=muon", "optim.muon_learning_rate=0.02"
    done = train(workdir, *words)
    assert done.returncode == 0, done.stderr
    assert "model mogrifier: " in done.stdout
    return workdir


def test_it_is_measured_written_with_and_mixed_with_a_transformer(run, trained, script):
    for words in ((), ("--exact",), ("--ensemble", trained[0])):
        done = script("evaluate", "--json", "--workdir", run, *words)
        assert done.returncode == 0, done.stderr
        assert 0 < json.loads(done.stdout)["bits_per_char"] < 20
    done = script("sample", "--workdir", run, "--max_new_tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_it_is_served(run):
    model, text = load_run(run), "宝玉笑道：“林妹妹来了。”\n黛玉听了，便不言语。"
    with serving(open_models(run, max_rows=2)) as client:
        # Past the window of 32 tokens.
        body = {"max_tokens": 50, "temperature": 0, "add_special_tokens": False}
        (choice,) = complete(client, prompt=text, **body)["choices"]
        sums = posted(client, text=text)["sums"]
    assert choice["text"] == model.generate(text, max_new_tokens=50, temperature=0.0)[0]
    expected = total(model.score([text])).bits_per_char
    assert sums["bits_per_char"] == pytest.approx(expected, rel=1e-5)


def test_what_it_cannot_do_is_said_in_a_line(run, train, script, tmp_path):
    asked = {
        "neither transformers nor llama.cpp reads a Mogrifier LSTM": script(
            "export", "--format", "hf", "--workdir", run, "--out", tmp_path / "out"
        ),
        "attention=fused: a Mogrifier LSTM has no attention": train(
            tmp_path / "fused", "model.form=mogrifier", "attention=fused"
        ),
    }
    for message, done in asked.items():
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_its_training_does_not_depend_on_the_mesh_or_the_dtype():
    def losses(n_devices, dtype="float32"):
        mesh, model = make_mesh(1, jax.devices()[:n_devices]), GPT(CFG, dtype)
        optimizer = optax.sgd(0.5)
        more = {"ema_decay": 0.0, "mesh": mesh}
        step = make_step(model, optimizer, grad_accum_steps=1, **more)
        state = init_state(model, optimizer, jax.random.key(0), **more)
        windows = np.random.default_rng(0).integers(0, 31, (1, 8, 11)).astype(np.int32)
        if n_devices > 1:  # sums over the devices come after the loops over tokens
            options = {"xla_cpu_use_fusion_emitters": True}  # as outside this suite
            text = step.lower(state, windows, jax.random.key(1)).compile(options).as_text()
            bodies = re.findall(r"body=(%[\w.-]+)", text)
            parts = [part for part in text.split("\n\n") if part.split(" ")[0] in bodies]
            assert len(parts) == 2 * CFG.n_layer
            assert "all-reduce" in text
            assert not [part for part in parts if "all-reduce" in part]
        return [float(step(state, windows, jax.random.key(1))[1]["loss"][0])]

    one = losses(1)
    np.testing.assert_allclose(losses(8), one, rtol=2e-5)
    np.testing.assert_allclose(losses(1, "bfloat16"), one, rtol=2e-3)
