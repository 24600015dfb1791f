"""What a run writes about itself: metrics.jsonl, TensorBoard events, the progress line, loss.png."""

import json
import sys
import time
from pathlib import Path

from hlm_jax.errors import UserError


class MetricsWriter:
    """Appends records to <workdir>/metrics.jsonl and TensorBoard events to <workdir>/tensorboard.

    On resume, records of steps after `start_step` are dropped, so that every step stands once.
    """

    def __init__(self, workdir: Path, *, start_step: int):
        import tensorboardX

        self.path = workdir / "metrics.jsonl"
        kept = [r for r in read_metrics(workdir) if r["step"] <= start_step]
        try:
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
            partial.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}): choose another --workdir"
            ) from error
        self._board = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start_step + 1 if start_step else None
        )

    def write(self, step: int, **values) -> None:
        """One record; numbers also go to TensorBoard."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(workdir) -> list[dict]:
    """The records of metrics.jsonl; a last line cut off by a crash is left out."""
    path = Path(workdir) / "metrics.jsonl"
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


class Progress:
    """A bar with the time left on a terminal, plain lines otherwise."""

    def __init__(self, *, start_step: int, total_steps: int):
        self._total, self._bar = total_steps, None
        if sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(
                total=total_steps,
                initial=start_step,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
            )
        self._began = self._first = (
            None  # set by the first line: what came before it was compilation
        )

    def step(self, step: int) -> None:
        if self._bar:
            self._bar.update(step - self._bar.n)

    def line(
        self,
        step: int,
        *,
        epoch: float,
        loss: float,
        learning_rate: float,
        tokens_per_second: float,
        val: float | None,
    ) -> None:
        """step, epoch, loss, validation bits/char, learning rate, tokens/s and the time left."""
        held_out = "" if val is None else f"  val {val:.4f} bits/char"
        text = f"epoch {epoch:.2f}  loss {loss:.4f}{held_out}  lr {learning_rate:.2e}  {tokens_per_second:,.0f} tokens/s"
        if self._bar:
            self._bar.set_postfix_str(text)
        else:
            left = ""
            if self._began is None:
                self._began, self._first = time.monotonic(), step
            elif step > self._first:
                left = (
                    (time.monotonic() - self._began) / (step - self._first) * (self._total - step)
                )
                left = f"  left {duration(left)}"
            self.say(f"step {step}/{self._total}  {text}{left}")

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.close()


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 6 min, 13 h 42 min, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.0f} days"


def plot_losses(workdir, floor_bits_per_char: float | None) -> Path:
    """Draws <workdir>/loss.png: training and held-out loss against the step, bits per character beside the n-gram floor, recitation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(workdir)
    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    held_out = [
        (r["step"], r["val_nats_per_token"], r["val_bits_per_char"])
        for r in records
        if "val_bits_per_char" in r
    ]
    extracted = [(r["step"], 100 * r["extracted_share"]) for r in records if "extracted_share" in r]
    panels = 1 + bool(held_out) + bool(extracted)
    figure = Figure(
        figsize=(6.4 if panels == 1 else 5 * panels, 4.2), dpi=120, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if train:
        axes[0].plot(
            *zip(*train, strict=True),
            color="#4878a8",
            linewidth=1.2,
            label="train (dropout and noise on)",
        )
    if held_out:
        steps, nats, bits = zip(*held_out, strict=True)
        axes[0].plot(
            steps, nats, color="#c44e52", marker="o", markersize=3.5, label="validation chapters"
        )
        axes[1].plot(
            steps,
            bits,
            color="#c44e52",
            marker="o",
            markersize=3.5,
            label="this model, validation chapters",
        )
        best = min(range(len(bits)), key=bits.__getitem__)
        axes[1].annotate(
            f"{bits[best]:.3f}",
            (steps[best], bits[best]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
        )
        if floor_bits_per_char is not None:
            label = f"Kneser-Ney 5-gram, {floor_bits_per_char:.3f}"
            axes[1].axhline(
                floor_bits_per_char, color="#555555", linestyle="--", linewidth=1.2, label=label
            )
        axes[1].set(xlabel="step", ylabel="bits per character", title="Held-out text")
    if extracted:
        axes[2].plot(
            *zip(*extracted, strict=True),
            color="#8172b3",
            marker="o",
            markersize=3.5,
            label="training passages given back word for word",
        )
        axes[2].set(xlabel="step", ylabel="% of 64 passages", title="Recitation", ylim=(-2, 102))
    axes[0].set(xlabel="step", ylabel="loss (nats per token)", title="Loss")
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.set_xlim(left=0)
        if ax.get_legend_handles_labels()[
            0
        ]:  # none yet where the first evaluation comes before the first log line
            ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    path = Path(workdir) / "loss.png"
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)
    return path
