"""A GGUF file opened by llama.cpp itself, through llama-cpp-python where that is installed."""

from pathlib import Path

from hlm_jax.export.checks.material import Material, Result, ids_result
from hlm_jax.export.packages import installed, version

_F32 = 0  # GGML_TYPE_F32


def check(material: Material, path: Path, dtype: str) -> list[Result]:
    """The ids of every line of the texts, and the greedy text of every prompt.

    Keys and values are kept as float32; llama.cpp's default is float16. Under f16 and q8_0 the
    weights themselves are others, so that the greedy text is reported and judges nothing.
    """
    if not installed("llama_cpp"):
        return [Result(None, "llama.cpp: llama-cpp-python is not installed")]
    import llama_cpp

    who = f"llama-cpp-python {version('llama-cpp-python')}"
    block = material.run.model.cfg.block_size
    llama = llama_cpp.Llama(
        str(path), n_ctx=block, n_batch=block, type_k=_F32, type_v=_F32, verbose=False
    )
    encode = material.run.tokenizer.encode
    lines = [f"{line}\n" for text in material.texts for line in text.split("\n") if line]
    theirs = [llama.tokenize(line.encode(), add_bos=True, special=False) for line in lines]
    mine = [encode(line) for line in lines]
    ids = ids_result(who, f"every line of {material.about}", mine, theirs)
    made = []
    for prompt in material.prompts:
        tokens: list[int] = []
        for token in llama.generate(encode(prompt), temp=0.0, repeat_penalty=1.0):
            tokens.append(token)
            if len(tokens) == material.new_tokens or token == llama.token_eos():
                break
        made.append(tokens)
    text = material.greedy_result(material.run.device_params, who, made)
    return [ids, text if dtype == "f32" else Result(None, f"{text.line}; not judged for {dtype}")]
