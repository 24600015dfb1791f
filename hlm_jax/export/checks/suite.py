"""All checks of one format."""

from pathlib import Path

from hlm_jax.export.checks import gguf, huggingface, llama
from hlm_jax.export.checks.material import Material, Result
from hlm_jax.run import Run


def check(run: Run, weights: str | Path, *, format: str, dtype: str) -> list[Result]:
    """Opens an export with the tools that are installed and compares it with its run.

    Args:
      weights: the file that `writer.export` returned.
      format, dtype: as the export was written.

    Raises:
      UserError: a book that was given with --corpus cannot be read.
    """
    material, weights = Material.of(run), Path(weights)
    if format == "hf":
        return huggingface.check(material, weights.parent, dtype)
    return gguf.check(material, weights, dtype) + llama.check(material, weights, dtype)
