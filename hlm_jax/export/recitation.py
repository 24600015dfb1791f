"""How much a run recites, as its model card tells: the figures of scripts/novelty.py."""

import dataclasses

from hlm_jax.measures.extraction import describe as describe_extraction
from hlm_jax.measures.overlap import describe as describe_overlap
from hlm_jax.run import Run

SAMPLES, TOKENS = 8, 500  # the generated texts, and tokens of each


@dataclasses.dataclass(frozen=True)
class Recitation:
    """Lines for people, or why there are none.

    Attributes:
      lines: one per figure; empty where nothing was measured.
      missing: why nothing was measured; empty where something was.
    """

    lines: tuple[str, ...]
    missing: str = ""


def measure(run: Run) -> Recitation:
    """The Recitation of a run whose book is at hand. Generates text: seconds to minutes.

    Raises:
      UserError: the book cannot be read.
    """
    reference = run.reference
    lines = [
        describe_extraction(name, run.extraction(chapters))
        for split, name in (("train", "training"), ("val", "validation"))
        if (chapters := reference.splits[split])
    ]
    texts = run.generate(num_samples=SAMPLES, max_new_tokens=TOKENS, seed=0)
    overlap = reference.overlap_index.measure_all(texts)
    words = describe_overlap(overlap, reference.human_overlap).removeprefix("recitation: ")
    lines.append(f"{SAMPLES} texts of {TOKENS} tokens: {words}")
    return Recitation(tuple(lines))
