"""Draws bits per character against minutes of training: python docs/lab/minutes.py PNG WORKDIR…

A record of metrics.jsonl has the mean tokens per second since the last evaluation. The minutes are
those of the training steps, compilation of the first one included; evaluations, samples and saves
are left out. Only for runs that were not interrupted.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def curve(workdir: Path) -> tuple[list[float], list[float]]:
    """Minutes of training and bits per character at every evaluation of a run."""
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    tokens_per_step = config["train"]["batch_size"] * config["model"]["block_size"]
    minutes: list[float] = []
    bits: list[float] = []
    began, seconds, speed = 0, 0.0, 0.0
    for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        speed = record.get("tokens_per_second", speed)
        if "val_bits_per_char" in record:
            seconds += (record["step"] - began) * tokens_per_step / speed
            began = record["step"]
            minutes.append(seconds / 60)
            bits.append(record["val_bits_per_char"])
    return minutes, bits


def main() -> None:
    png, *workdirs = map(Path, sys.argv[1:])
    figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    for workdir in workdirs:
        minutes, bits = curve(workdir)
        (line,) = axes.plot(minutes, bits, marker="o", markersize=4, label=workdir.name)
        axes.annotate(
            f"{bits[-1]:.3f}",
            (minutes[-1], bits[-1]),
            textcoords="offset points",
            xytext=(0, 9),
            ha="center",
            color=line.get_color(),
        )
    axes.axhline(6.0462, color="#555555", linestyle="--", linewidth=1.2)
    axes.annotate(
        "Kneser-Ney 5-gram, 6.046",
        (1, 6.0462),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(0, 4),
        ha="right",
        color="#555555",
    )
    axes.set(
        xlabel="minutes of training",
        ylabel="bits per character, validation chapters",
    )
    axes.margins(x=0.06)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(png)


if __name__ == "__main__":
    main()
