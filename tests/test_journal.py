import pytest

from hlm_jax.errors import UserError
from hlm_jax.training.journal import MetricsWriter, read_metrics
from hlm_jax.training.plot import plot_losses
from hlm_jax.training.progress import Progress, duration


def test_resuming_drops_what_comes_after_the_restored_step(tmp_path):
    writer = MetricsWriter(tmp_path, start_step=0)
    for step in (1, 2, 3, 4):
        writer.write(step, loss=1.0 / step)
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a crash in the middle of a line
    writer = MetricsWriter(tmp_path, start_step=2)
    writer.write(3, loss=0.5)
    writer.close()
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.5),
    ]


def test_a_run_that_starts_anew_writes_its_step_0_once(tmp_path):
    for _ in range(2):
        writer = MetricsWriter(tmp_path, start_step=0)
        writer.write(0, loss=1.0)
        writer.close()
    assert read_metrics(tmp_path) == [{"step": 0, "loss": 1.0}]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "42 s"), (372, "6 min"), (13 * 3600 + 42 * 60, "13 h 42 min"), (12.2 * 86400, "12 days")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_lines_hold_what_they_promise_and_the_time_left_once_it_is_known(capsys, monkeypatch):
    now = iter((0.0, 10.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    progress = Progress(start_step=0, total_steps=100)
    for step in (10, 20):
        progress.line(
            step, epoch=0.5, loss=5.25, learning_rate=3e-5, tokens_per_second=1234.5, val=5.5
        )
    first, second = capsys.readouterr().out.splitlines()
    assert (
        first
        == "step 10/100  epoch 0.50  loss 5.2500  val 5.5000 bits/char  lr 3.00e-05  1,234 tokens/s"
    )
    assert second.endswith("left 80 s")


@pytest.mark.parametrize("held_out", [True, False])
def test_the_plot_is_drawn_with_and_without_held_out_chapters(tmp_path, held_out):
    records = [{"step": s, "loss": 8.0 - s} for s in range(1, 5)]
    records += (
        [{"step": 4, "val_bits_per_char": 6.0, "val_nats_per_token": 5.0}] if held_out else []
    )
    path = plot_losses(tmp_path, records, {"Kneser-Ney 5-gram": 6.1} if held_out else {})
    width = int.from_bytes(path.read_bytes()[16:20], "big")
    assert width > 1000 if held_out else width < 1000


def test_a_score_that_is_not_a_number_is_drawn_around(tmp_path):
    scores = [(2, float("nan")), (4, 6.0)]
    records = [{"step": s, "val_bits_per_char": x, "val_nats_per_token": x} for s, x in scores]
    assert plot_losses(tmp_path, records, {"Kneser-Ney 5-gram": 6.1}).stat().st_size > 5000


def test_every_change_is_a_line_in_every_panel(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, labels = [], []

    def axvline(self, x, **more):
        lines.append(x)
        labels.append(more["label"])

    monkeypatch.setattr(Axes, "axvline", axvline)
    records = [{"step": 2, "loss": 7.0, "val_bits_per_char": 6.0, "val_nats_per_token": 5.0}]
    changes = [(1, "train.steps 2 -> 3"), (2, "model.dropout 0.1 -> 0.2, " + "x" * 50)]
    plot_losses(tmp_path, records, {}, changes)
    assert lines == [1, 1, 2, 2]
    assert labels == ["another config from step 1, 2", None, None, None]
    plot_losses(tmp_path, records, {}, changes[:1])
    assert labels[4:] == ["step 1: train.steps 2 -> 3", None]


def test_a_damaged_line_in_the_middle_is_named_and_kept(tmp_path):
    text = '{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n{"step": 3, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not JSON"):
        MetricsWriter(tmp_path, start_step=3)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_tensorboard_is_on_disk_after_every_record(tmp_path):
    writer = MetricsWriter(tmp_path, start_step=0)
    (events,) = (tmp_path / "tensorboard").iterdir()
    before = events.stat().st_size
    writer.write(1, loss=2.0)
    assert events.stat().st_size > before
    writer.close()
