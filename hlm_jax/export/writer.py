"""One export from beginning to end: a run to a folder with its card."""

import os
from pathlib import Path

from hlm_jax.errors import UserError
from hlm_jax.export import card as cards
from hlm_jax.export import gguf, huggingface, recitation
from hlm_jax.export.folder import check_out, new_folder
from hlm_jax.export.packages import needed
from hlm_jax.export.recitation import Recitation
from hlm_jax.run import Run

FORMATS = ("hf", "gguf")
PACKAGES = {"hf": "safetensors.numpy", "gguf": "gguf"}
DTYPES = {"hf": huggingface.DTYPES, "gguf": gguf.DTYPES}


def check(out: str | Path, *, format: str, dtype: str, licence: str) -> None:
    """Refuses what cannot be exported, before a run is opened.

    Raises:
      UserError: the folder is taken, the type or the licence is none, or a package is missing.
    """
    check_out(out)
    if dtype not in DTYPES[format]:
        raise UserError(f"--format {format} has --dtype {', '.join(DTYPES[format])}, not {dtype}")
    cards.check_licence(licence)
    needed(PACKAGES[format])


def export(
    run: Run,
    out: str | Path,
    *,
    format: str = "hf",
    dtype: str = "f32",
    licence: str = cards.UNKNOWN,
) -> Path:
    """Writes a run as a new folder, and tells what it weighs and recites in README.md.

    Args:
      format: "hf" for transformers, "gguf" for llama.cpp.
      dtype: of the weights: f32 or bf16 for hf, f32, f16 or q8_0 for gguf.
      licence: an identifier for the card; nothing is known about it here.

    Returns:
      The file with the weights.

    Raises:
      UserError: the folder is not empty or cannot be written, a package is missing, or the model
        has no such form.
    """
    check(out, format=format, dtype=dtype, licence=licence)
    if run.model.cfg.form == "mogrifier":
        raise UserError(
            "neither transformers nor llama.cpp reads a Mogrifier LSTM: export a run with "
            "model.form=gpt2 or qwen3"
        )
    name = run.workdir.resolve().name
    file = "model.safetensors" if format == "hf" else f"{name}-{dtype}.gguf"
    if format == "gguf":
        gguf.check_tokenizer(run)
    measured = _recitation(run)
    with new_folder(out) as folder:
        if format == "hf":
            huggingface.write(run, folder, dtype=dtype)
        else:
            gguf.write(run, folder / file, dtype=dtype, name=name, licence=licence)
        text = cards.card(
            run, format=format, dtype=dtype, file=file, licence=licence, recitation=measured
        )
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    return Path(os.path.expanduser(out)) / file


def _recitation(run: Run) -> Recitation:
    """What the run recites; a book that was given with --corpus is not optional."""
    try:
        return recitation.measure(run)
    except UserError as error:
        if run.corpus is not None:
            raise
        return Recitation((), f"the book is not at hand ({error})")
