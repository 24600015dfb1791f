"""authorship.csv and summary.json of a study, and what GPT models add to it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis.authorship import Ratios, masks, measured
from hlm_jax.analysis.authorship.decisions import BAND, calibrated
from hlm_jax.analysis.authorship.neural import masked_ratio
from hlm_jax.analysis.authorship.study import Study
from hlm_jax.analysis.tables import write_csv, write_text

COLUMNS = (
    *("chapter", "side", "fold", "chars", "bits_a", "bits_b", "llr_bits_per_char", "ngram_llr"),
    *("delta_a", "delta_b", "lambda_a", "lambda_b", "both_llr", "probability_a", "flags"),
)


def add_gpt(study: Study, gpt: Ratios, controls: Mapping[str, Ratios]) -> dict[str, Any]:
    """The summary with `gpt` and `both`, for the question and for the controls that have models.

    `both` is the mean of the two ratios, so that nothing is fitted to mix them.

    Args:
      gpt: the ratios of the question.
      controls: the ratios of controls by their names.
    """
    question = gpt.question
    summary = dict(study.summary)
    summary["gpt"] = measured(gpt.ratio, question)
    summary["both"] = measured(mixed(study.main.ratio, gpt.ratio), question)
    summary["gpt_folds"] = question.folds
    summary["controls"] = {name: dict(found) for name, found in summary["controls"].items()}
    for name, ratios in controls.items():
        ngram = study.controls[name][0].ratio
        summary["controls"][name]["gpt"] = measured(ratios.ratio, ratios.question)
        summary["controls"][name]["both"] = measured(mixed(ngram, ratios.ratio), ratios.question)
    rows = {"none": (), **{kind: (kind,) for kind in masks.KINDS}, "all": masks.KINDS}
    summary["gpt_masks"] = {
        label: {
            name: measured(masked_ratio(one, study.strings, kinds, study.names), one.question)
            for name, one in {"/".join(study.texts.names): gpt, **controls}.items()
        }
        for label, kinds in rows.items()
    }
    return summary


def mixed(ngram: np.ndarray, gpt: np.ndarray) -> np.ndarray:
    """The mean of two ratios, [N]."""
    return (ngram + gpt) / 2


def flags_of(study: Study, ratio: np.ndarray, p: np.ndarray) -> list[str]:
    """What is to be said of each text, such as "wrong;doubtful"; "" for nothing."""
    found = []
    for k, chapter in enumerate(study.texts.chapters):
        words = []
        if (ratio[k] > 0) != study.texts.is_a[k]:
            words.append("wrong")
        if abs(p[k] - 0.5) < BAND:
            words.append("doubtful")
        if chapter.number in study.texts.supplied:
            words.append("supplied")
        found.append(";".join(words))
    return found


def write_table(path: Path, study: Study, gpt: Ratios | None = None) -> None:
    """authorship.csv: one row for each text.

    bits_a, bits_b and llr_bits_per_char are the GPT models' where there are any, else the n-gram
    models'. Ratios are in bits per character, above 0 for A.
    """
    main, texts = study.main, study.texts
    shown: Ratios = gpt or main
    both = None if gpt is None else mixed(main.ratio, gpt.ratio)
    score = main.ratio if both is None else both
    p = calibrated(score, texts.is_a, shown.question.fold)
    flags = flags_of(study, score, p)
    rows: list[Sequence[Any]] = []
    for k, chapter in enumerate(texts.chapters):
        rows.append(
            (
                chapter.number if texts.in_order else chapter.heading,
                "a" if texts.is_a[k] else "b",
                int(main.question.fold[k]) + 1,
                int(main.chars[k]),
                *(float(x[k]) for x in (shown.bits_a, shown.bits_b, shown.ratio, main.ratio)),
                *(float(x[k]) for x in (main.delta_a, main.delta_b)),
                *(float(x[k]) for x in (study.lambda_a, study.lambda_b)),
                None if both is None else float(both[k]),
                float(p[k]),
                flags[k],
            )
        )
    write_csv(path, COLUMNS, rows)


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """summary.json; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(summary), ensure_ascii=False, indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
