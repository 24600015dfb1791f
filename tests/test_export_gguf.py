"""GGUF files, read back by the `gguf` package."""

import dataclasses

import numpy as np
import pytest
from test_export import ONE_FORM, material, run  # noqa: F401 - fixtures

from hlm_jax.export import gguf as exports
from hlm_jax.export.checks import gguf as checks
from hlm_jax.export.pieces import Kind, pieces

gguf = pytest.importorskip("gguf")
F32, F16, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "Q8_0"))


@pytest.mark.parametrize("dtype", exports.DTYPES)
def test_the_file_holds_the_run(run, material, tmp_path, dtype):  # noqa: F811
    path = tmp_path / "model.gguf"
    exports.write(run, path, dtype=dtype, name="a run", licence="mit")
    results = checks.check(material, path, dtype)
    assert all(result.passed for result in results[:3]), "\n".join(map(str, results))
    assert results[3].passed is not False, str(results[3])
    reader = gguf.GGUFReader(path)
    kinds = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert {kind for name, kind in kinds.items() if "norm" in name or "bias" in name} == {F32}
    # A row of 16 numbers does not divide into blocks of 32.
    assert kinds["token_embd.weight"] == {"f32": F32, "f16": F16, "q8_0": F16}[dtype]
    assert kinds["blk.0.ffn_down.weight"] == {"f32": F32, "f16": F16, "q8_0": Q8_0}[dtype]
    if run.model.cfg.form == "gpt2":
        assert kinds["position_embd.weight"] == F32
    assert reader.get_field("general.name").contents() == "a run"
    assert reader.get_field("general.license").contents() == "mit"
    assert reader.get_field("general.sampling.top_p").contents() == np.float32(0.9)


def test_linear_layers_are_stored_as_llama_cpp_reads_them(run):  # noqa: F811
    found = {
        name: values
        for name, (values, _) in exports.tensors(run.params, run.model.cfg, "f32").items()
    }
    block, cfg = run.params["block_0"], run.model.cfg
    np.testing.assert_array_equal(found["blk.0.ffn_down.weight"], block["mlp"]["down"]["kernel"].T)
    assert found["blk.0.attn_output.weight"].shape == (cfg.n_embd, cfg.n_head * cfg.head_width)
    if cfg.form == "qwen3":
        assert found["blk.0.attn_k.weight"].shape == (cfg.kv_heads * cfg.head_width, cfg.n_embd)


@ONE_FORM
def test_tokens_have_their_kinds(run):  # noqa: F811
    own = pieces(run.tokenizer.model_bytes)
    of_kind = {kind: [piece.text for piece in own if piece.kind == kind] for kind in Kind}
    assert of_kind[Kind.UNKNOWN] == ["<unk>"]
    assert of_kind[Kind.CONTROL] == ["<|chapter|>"]
    assert of_kind[Kind.USER_DEFINED] == ["\n", "“", "”"]
    assert of_kind[Kind.BYTE] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert len(own) == run.tokenizer.vocab_size
    normal = [piece.score for piece in own if piece.kind == Kind.NORMAL]
    assert normal == sorted(normal, reverse=True)


@ONE_FORM
def test_the_kinds_are_those_of_the_model_file(run):  # noqa: F811
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    proto = model_pb2.ModelProto.FromString(run.tokenizer.model_bytes)
    own = pieces(run.tokenizer.model_bytes)
    assert [(p.piece, p.score, p.type) for p in proto.pieces] == [
        (piece.text, piece.score, int(piece.kind)) for piece in own
    ]


@ONE_FORM
def test_the_checks_see_what_is_wrong(run, tmp_path):  # noqa: F811
    path = tmp_path / "model.gguf"
    exports.write(run, path, dtype="f16", name="x")
    params = dict(run.params) | {"token_embedding": run.params["token_embedding"] * 1.01}
    reader = gguf.GGUFReader(path)
    other = dataclasses.replace(run, params=params)
    result = checks.tensors_result(other, reader, "f16", "gguf")
    assert not result.passed
    assert "token_embd.weight holds other numbers" in result.line
    assert not checks.tensors_result(run, reader, "f32", "gguf").passed
    cfg = dataclasses.replace(run.model.cfg, block_size=64)
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, cfg=cfg))
    result = checks.metadata_result(other, reader, "gguf")
    assert f"{cfg.form}.context_length is not ours" in result.line
    del reader.fields["tokenizer.ggml.add_space_prefix"]
    result = checks.tokenizer_result(run, reader, "gguf")
    assert "tokenizer.ggml.add_space_prefix is missing" in result.line


def test_what_a_type_may_lose():
    values = np.linspace(-3, 3, 64, dtype=np.float32)
    for kind in (F32, F16, Q8_0):
        stored = gguf.quants.quantize(values, kind)
        read = gguf.quants.dequantize(stored, kind)
        assert checks.difference(values, read, kind.name) <= 1
        assert checks.difference(values, read * np.float32(1.02), kind.name) > 1
    # One block of 32 with a largest number of 127: a step is 1, so that 0.4 is lost and 0.6 is not.
    block = np.zeros(32, np.float32)
    block[0] = 127
    assert checks.difference(block, block + np.float32(0.4), "Q8_0") < 1
    assert checks.difference(block, block + np.float32(0.6), "Q8_0") > 1


def test_the_script_writes_one_file_and_its_card(trained, script, tmp_path):
    out = tmp_path / "out"
    words = ["--format", "gguf", "--dtype", "q8_0", "--out", out, "--check"]
    done = script("export", "--workdir", trained[0], *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in out.iterdir()} == {"README.md", "tiny-q8_0.gguf"}
    assert "the tokenizer of 1,500 tokens is ours" in done.stdout
    assert 'Llama("tiny-q8_0.gguf"' in (out / "README.md").read_text().replace("'", '"')
