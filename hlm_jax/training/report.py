"""Messages printed before training (estimated duration) and after it (scores, a sample)."""

from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from hlm_jax.book.splits import describe_split
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures import extraction, overlap
from hlm_jax.model.shape import GPTConfig
from hlm_jax.pretrained import describe_base
from hlm_jax.training.hardware import step_seconds
from hlm_jax.training.history import History
from hlm_jax.training.journal import Journal
from hlm_jax.training.material import Material
from hlm_jax.training.progress import duration
from hlm_jax.training.validation import prompt_of, write_sample

LONG_RUN_SECONDS = 3600


def long_run_warning(config: ConfigDict, steps: int) -> str | None:
    """One line where `steps` steps would keep a CPU busy for over an hour; None otherwise."""
    if jax.default_backend() != "cpu":
        return None
    seconds = steps * step_seconds(GPTConfig(**config.model), config.train.batch_size)
    if seconds <= LONG_RUN_SECONDS:
        return None
    return (
        f"WARNING: no GPU in use. On this CPU the run will take about {duration(seconds)} (an "
        "estimate from the speed of a matrix product); configs/tiny.py takes minutes"
    )


def final_report(
    config: ConfigDict,
    material: Material,
    history: History,
    language_model: LanguageModel,
    journal: Journal,
) -> Iterator[str]:
    """The lines that end a training.

    Args:
      language_model: the checkpoint that a reader would load.
    """
    if material.splits["test"] and material.baseline is None:
        yield (
            "\nno chapter was looked at in training but the training chapters; score the test "
            f"chapters: python scripts/evaluate.py --workdir {journal.workdir} --split test"
        )
    elif material.baseline is None:
        yield (
            "\nno chapters are held out in this config: its loss tells nothing about new text "
            "(see configs/base_heldout.py)"
        )
    elif not history.evaluated_at:
        yield "\nvalidation chapters: there was no evaluation"
    elif history.best is None:
        yield "\nvalidation chapters: no evaluation gave a finite score"
    else:
        yield (
            f"\nvalidation chapters: {history.best:.4f} bits per character "
            f"(step {history.best_step}); Kneser-Ney 5-gram {material.baseline:.4f}; "
            f"ratio {history.best / material.baseline:.4f}"
        )
        if material.mixed_baseline is not None:
            yield (
                f"Kneser-Ney 5-gram with the further texts {material.mixed_baseline:.4f} (weight "
                f"{material.reference.mixed_weight:.2f}, fitted on the validation chapters); "
                f"ratio {history.best / material.mixed_baseline:.4f}"
            )
        if history.initial is not None and history.initial < history.best:
            yield (
                f"the model that it started from has {history.initial:.4f}, less than every "
                "checkpoint: try a lower --config.optim.learning_rate or fewer steps"
            )
        if history.best > material.baseline:
            yield (
                "counting 5-grams predicts this book better than the model does: the text is short "
                'for it, or the training was too short (README.md, "Your own book")'
            )
    if material.init:
        yield describe_base(material.init, held_out=material.holds_out)
    if material.holds_out:
        yield describe_split(material.splits, material.report["chapters"])
    prompt = prompt_of(config, material)
    text = write_sample(language_model, config, prompt).removeprefix(prompt)
    reference = material.reference
    index = reference.overlap_index
    yield f"\n{prompt}{overlap.mark(text, index)}\n"
    yield overlap.describe(index.measure(text), reference.human_overlap)
    if line := reference.describe_extra_overlap(text):
        yield line
    for split in ("train", "val"):
        if chapters := material.splits[split]:
            yield extraction.describe(split, language_model.extraction(chapters))
    if journal.seconds:
        yield (
            f"of {duration(journal.seconds)}, evaluations and samples computed "
            f"{journal.computing / journal.seconds:.1%}; logs, plots and checkpoints left the "
            f"device idle for {journal.stalled / journal.seconds:.1%}"
        )
    for name, file in (
        ("loss plot", "loss.png"),
        ("checkpoints", "checkpoints"),
        ("samples", "samples"),
        ("metrics", "metrics.jsonl"),
    ):
        yield f"{name:12s} {journal.workdir / file}"
