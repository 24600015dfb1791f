"""Draws loss.png from the records of metrics.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TRAIN, HELD_OUT, BASELINE, RECITED = "#4878a8", "#c44e52", "#555555", "#8172b3"
CHANGED = "#999999"
LABEL = 36  # characters of a change that a legend shows


def plot_losses(
    workdir: Path,
    records: list[dict[str, Any]],
    baselines: Mapping[str, float],
    changes: Sequence[tuple[int, str]] = (),
) -> Path:
    """Draws <workdir>/loss.png and returns its path.

    Panels: training and held-out loss in nats per token, bits per character of the validation
    chapters next to the n-gram baselines, and the extracted training passages where measured.

    Args:
      baselines: {name: bits per character on the validation chapters}.
      changes: (step, words): a vertical line in every panel where a run went on otherwise.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: a cold import takes seconds
    from matplotlib.figure import Figure

    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    held_out = [
        (r["step"], r["val_nats_per_token"], r["val_bits_per_char"])
        for r in records
        if "val_bits_per_char" in r
    ]
    extracted = [(r["step"], 100 * r["extracted_share"]) for r in records if "extracted_share" in r]
    panels = 1 + bool(held_out) + bool(extracted)
    width = 6.4 if panels == 1 else 5 * panels
    figure = Figure(figsize=(width, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    dots = {"marker": "o", "markersize": 3.5}
    if train:
        steps, losses = zip(*train, strict=True)
        label = "train (dropout and noise on)"
        axes[0].plot(steps, losses, color=TRAIN, linewidth=1.2, label=label)
    if held_out:
        steps, nats, bits = zip(*held_out, strict=True)
        axes[0].plot(steps, nats, color=HELD_OUT, label="validation chapters", **dots)
        label = "this model, validation chapters"
        axes[1].plot(steps, bits, color=HELD_OUT, label=label, **dots)
        best = int(np.argmin(np.nan_to_num(bits, nan=np.inf)))
        place = steps[best] / max(1, records[-1]["step"])
        axes[1].annotate(
            f"{bits[best]:.3f}",
            (steps[best], bits[best]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
        )
        for line, (name, bits_per_char) in zip(("--", "-."), baselines.items(), strict=False):
            label = f"{name}, {bits_per_char:.3f}"
            axes[1].axhline(
                bits_per_char, color=BASELINE, linestyle=line, linewidth=1.2, label=label
            )
        axes[1].set(xlabel="step", ylabel="bits per character", title="Held-out text")
    if extracted:
        steps, percent = zip(*extracted, strict=True)
        label = "training passages given back word for word"
        axes[2].plot(steps, percent, color=RECITED, label=label, **dots)
        axes[2].set(xlabel="step", ylabel="% of 64 passages", title="Recitation", ylim=(-2, 102))
    axes[0].set(xlabel="step", ylabel="loss (nats per token)", title="Loss")
    for number, (step, _) in enumerate(changes):
        for ax in axes:
            words = _changed(changes) if ax is axes[0] and number == 0 else None
            ax.axvline(step, color=CHANGED, linestyle=":", linewidth=1.2, label=words)
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.set_xlim(left=0)
        # No line yet where the first evaluation comes before the first log line.
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    path = Path(workdir) / "loss.png"
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)
    return path


def _changed(changes: Sequence[tuple[int, str]]) -> str:
    """The legend's line for all changes, which cover no curve then; short words are shown."""
    (step, words), *others = changes
    if not others and len(words) <= LABEL:
        return f"step {step}: {words}"
    return f"another config from step {', '.join(str(step) for step, _ in changes)}"
