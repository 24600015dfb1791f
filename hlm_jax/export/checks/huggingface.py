"""A folder of transformers opened by `tokenizers` and by transformers itself, offline."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hlm_jax.export.checks.material import Material, Result, ids_result
from hlm_jax.export.packages import installed, version
from hlm_jax.export.weights import as_read

# Of a logit, and of the largest logit where that is more: float32 has 7 digits.
TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 2e-6


def check(material: Material, folder: Path, dtype: str) -> list[Result]:
    """Checks a folder that `export.huggingface` wrote."""
    results = [_tokenizers(material, folder)]
    if installed("torch", "transformers"):
        return results + _transformers(material, folder, dtype)
    return [*results, Result(None, "transformers: not installed, or torch is not")]


def _tokenizers(material: Material, folder: Path) -> Result:
    if not installed("tokenizers"):
        return Result(None, "tokenizers: not installed")
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    mine = [material.run.tokenizer.encode(text) for text in material.texts]
    ids = [theirs.encode(text, add_special_tokens=False).ids for text in material.texts]
    return ids_result(f"tokenizers {version('tokenizers')}", material.about, mine, ids)


def _transformers(material: Material, folder: Path, dtype: str) -> list[Result]:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is first imported
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    who = f"transformers {transformers.__version__}"
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    model, loading = loaded
    wrong = {name: sorted(keys) for name, keys in loading.items() if keys}
    keys = Result(not wrong, f"{who}: {wrong or 'no missing, unexpected or mismatched keys'}")
    params = jax.device_put(as_read(material.run.params, dtype), jax.local_devices()[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return [
        keys,
        logits_result(material, params, model, who),
        _ids(material, tokenizer, who),
        material.greedy_result(params, who, _greedy(material, model)),
        _pipeline(material, folder, who),
    ]


def logits_result(material: Material, params: Any, model: Any, who: str) -> Result:
    """Whether a model of transformers computes the run's logits."""
    import torch

    windows = material.windows()
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(windows, dtype=torch.long)).logits.float().numpy()
    mine = material.logits(params, windows)
    most = float(np.abs(theirs - mine).max())
    allowed = max(TOLERANCE, RELATIVE_TOLERANCE * float(np.abs(mine).max()))
    line = f"{who}: logits of {windows.size:,} tokens differ by {most:.1e} at most"
    return Result(most <= allowed, f"{line} ({allowed:.0e} is allowed)")


def _ids(material: Material, tokenizer: Any, who: str) -> Result:
    """Whole texts as users call it; a tokenizer of others is asked for no special tokens."""
    own = material.run.tokenizer
    more = {} if own.format == "sentencepiece" else {"add_special_tokens": False}
    theirs = [tokenizer(text, **more)["input_ids"] for text in material.texts]
    mine = [own.encode(text) for text in material.texts]
    result = ids_result(who, material.about, mine, theirs)
    back = sum(
        tokenizer.decode(ids) == text for ids, text in zip(theirs, material.texts, strict=True)
    )
    line = f"{result.line}; {back:,} decode to the text"
    return Result(bool(result.passed) and back == len(theirs), line)


def _greedy(material: Material, model: Any) -> list[list[int]]:
    import torch

    made = []
    for prompt in material.prompts:
        ids = torch.tensor([material.run.tokenizer.encode(prompt)], dtype=torch.long)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            repetition_penalty=1.0,
            max_length=None,
            max_new_tokens=material.new_tokens,
        )
        made.append(material.ended(out[0, ids.shape[1] :].tolist()))
    return made


def _pipeline(material: Material, folder: Path, who: str) -> Result:
    """The pipeline as users call it: no argument but the folder and a prompt."""
    import torch
    import transformers

    torch.manual_seed(0)
    write = transformers.pipeline("text-generation", model=str(folder), device="cpu")
    prompt = material.prompts[0]
    text = write(prompt)[0]["generated_text"]
    line = f'{who}: pipeline("text-generation") writes {len(text) - len(prompt)} characters'
    return Result(text.startswith(prompt), line)
