"""Pretraining: python -m hlm_jax.train --config configs/base.py [--workdir runs/base] [--config.section.key=value …].

The writing face of the project: the command line, the wiring of everything else, and the loop. Started again on the same
workdir, a run resumes by itself. JAX is imported only once the command is known to make sense.
"""

import argparse
import contextlib
import json
import math
import signal
import sys
import time
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.errors import UserError, exit_on_user_error

LONG_RUN_SECONDS = 3600


def parse_args(argv):
    """(arguments, config overrides) of a command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m hlm_jax.train",
        description="Pretrain a GPT on one book. Started again on the same workdir, it resumes.",
        epilog="Any key of the config can be set: --config.train.steps=100 --config.corpus.path=BOOK.txt",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, such as configs/tiny.py")
    parser.add_argument("--workdir", metavar="DIR", help="where the run is kept (default: runs/<config name>)")
    parser.add_argument("--print_config", action="store_true", help="print the resolved config and the parameter count, and exit")
    parser.add_argument("--distributed", action="store_true", help="several processes: ask the cluster (SLURM, Kubernetes, …) who we are")
    parser.add_argument("--coordinator_address", metavar="HOST:PORT", help="several processes: where process 0 listens")
    parser.add_argument("--num_processes", type=int, metavar="N", help="several processes: how many")
    parser.add_argument("--process_id", type=int, metavar="I", help="several processes: this one's number, from 0")
    args, rest = parser.parse_known_args(argv)
    overrides = []
    for word in rest:
        if not word.startswith("--config."):
            parser.error(f"unrecognized argument {word!r}; config keys are set as --config.section.key=value")
        overrides.append(word.removeprefix("--config."))
    args.workdir = Path(args.workdir or Path("runs") / Path(args.config).stem)
    return args, overrides


def main(argv=None) -> None:
    args, overrides = parse_args(argv)
    with exit_on_user_error("hlm_jax.train"):
        config = configs.load_config(args.config, overrides)
        if args.print_config:
            print(config)
            print(f"parameters: {configs.count_parameters(config.model):,}")
            return
        _init_processes(args)
        train(config, args.workdir)


def _init_processes(args) -> None:
    if not (args.distributed or args.coordinator_address or args.num_processes):
        return
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # lets CPU processes reduce; no effect on GPUs
    try:
        jax.distributed.initialize(args.coordinator_address, args.num_processes, args.process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"several processes: {str(error).splitlines()[0]}") from error


def train(config, workdir: Path) -> None:
    """Trains as `config` says, in `workdir`; resumes what is there.

    Raises:
      UserError: anything the user can mend, before or during training; what was saved stays.
    """
    import jax

    from hlm_jax import checkpoint

    main_process = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        if main_process:
            stack.enter_context(checkpoint.locked(workdir))
        Trainer(config, workdir, main_process).run()


class Trainer:
    """One run from start to final report; the loop and its bookkeeping."""

    def __init__(self, config, workdir: Path, main_process: bool):
        import jax

        from hlm_jax import checkpoint, corpus, data, optim, train_step
        from hlm_jax.evaluate import Evaluator
        from hlm_jax.model import GPT, GPTConfig
        from hlm_jax.ngram import KneserNey
        from hlm_jax.tokenizer import train_tokenizer

        self.config, self.workdir, self.main_process = config, workdir, main_process
        self._refuse_other_config()
        book = corpus.load_corpus(**config.corpus)
        self.say(corpus.describe(book.report))
        self.book, self.splits = book, corpus.split_chapters(book.chapters, **config.split)
        training_texts = [chapter.text for chapter in self.splits["train"]]
        self.tokenizer = train_tokenizer(training_texts, vocab_size=config.model.vocab_size, **config.tokenizer)
        tokens = data.token_stream(self.tokenizer, self.splits["train"])
        block, batch = config.model.block_size, config.train.batch_size
        self.windows = data.Windows(tokens, block_size=block, batch_size=batch, seed=config.seed)
        self.total_steps = config.train.steps or math.ceil(config.train.epochs * self.windows.steps_per_epoch)
        self.floor = None
        if self.splits["val"]:
            floor = KneserNey(training_texts)
            self.floor = floor.bits_per_char([chapter.text for chapter in self.splits["val"]])

        self.mesh = train_step.make_mesh()
        devices, parts = self.mesh.size, config.train.accumulate_steps
        if batch % (devices * parts):
            by = f"{devices} devices" + (f" x {parts} accumulation steps" if parts > 1 else "")
            raise UserError(
                f"train.batch_size={batch} is not divisible by {by}: set --config.train.batch_size to a multiple of {devices * parts}"
            )
        # Training multiplies in the device's fast type; evaluation and samples in float32, as every later reader does.
        dtype, reason = train_step.resolve_dtype(config.dtype)
        self.model = GPT(GPTConfig(**config.model))
        trained = GPT(self.model.cfg, dtype)
        optimizer, self.learning_rate = optim.make_optimizer(**config.optim, total_steps=self.total_steps)
        ema_decay = config.train.ema_decay
        root = jax.random.key(config.seed)
        self.dropout_key = jax.random.fold_in(root, 1)
        self._init = lambda: train_step.init_state(self.model, optimizer, jax.random.fold_in(root, 0), ema_decay=ema_decay, mesh=self.mesh)
        self.train_step = train_step.make_train_step(trained, optimizer, accumulate_steps=parts, ema_decay=ema_decay, mesh=self.mesh)
        self.evaluator = Evaluator(self.model, batch_size=max(1, min(64, 4096 // block)))
        self.say(
            f"model {config.model.form}: {configs.count_parameters(config.model):,} parameters; {len(tokens):,} training tokens; "
            f"{self.total_steps:,} steps of {batch} x {block} = {self.total_steps / self.windows.steps_per_epoch:.1f} epochs; "
            f"{devices} {jax.devices()[0].device_kind} device{'s' if devices > 1 else ''}, {dtype} ({reason})"
        )
        if main_process:
            self.tokenizer.save(workdir / "tokenizer")
        self.checkpointer = checkpoint.Checkpointer(workdir, keep_latest=config.checkpoint.keep_latest)
        self.metrics = {}  # of the newest evaluation, and the best one so far

    def say(self, text: str) -> None:
        if self.main_process:
            print(text, flush=True)

    def _refuse_other_config(self) -> None:
        path = self.workdir / "config.json"
        now = configs.to_json(self.config)
        if path.exists():
            changed = configs.differences(json.loads(path.read_text(encoding="utf-8")), now)
            if changed:
                raise UserError(f"{self.workdir} holds a run with another config ({'; '.join(changed)}): use another --workdir")

    def _record_config(self) -> None:
        """Only once training begins: a run that failed on its corpus binds nobody to its config."""
        if self.main_process:
            text = json.dumps(configs.to_json(self.config), ensure_ascii=False, indent=2) + "\n"
            (self.workdir / "config.json").write_text(text, encoding="utf-8")

    # --- the run ---

    def run(self) -> None:
        import jax

        from hlm_jax.metrics import MetricsWriter, Progress

        state = self._start_state()
        start = int(state.step)
        if start >= self.total_steps or self.metrics.get("stopped_early"):
            self.say(f"this run is done: {start} of {self.total_steps} steps")
            self._close()
            self._report(state)
            return
        if start:
            self.say(f"resuming from step {start}")
        self._warn_if_long(start)
        self._record_config()
        self.writer = MetricsWriter(self.workdir, start_step=start) if self.main_process else None
        self.progress = Progress(start_step=start, total_steps=self.total_steps) if self.main_process else None
        with _StopRequest() as stop:
            state = self._loop(state, start, stop)
        if self.writer:
            self.writer.close()
            self.progress.close()
        self._close()
        if stop.requested and int(state.step) < self.total_steps:
            self.say(f"stopped at step {int(state.step)}; the same command resumes")
            return
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("end of training")
        self._report(state)

    def _start_state(self):
        import jax

        state = self._init()
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        restored = self.checkpointer.restore_latest(abstract)
        if restored is None:
            return state
        state, meta = restored
        if meta["tokenizer_fingerprint"] != self.tokenizer.fingerprint:
            raise UserError(
                f"the checkpoint in {self.workdir} was made with tokenizer {meta['tokenizer_fingerprint'][:12]}, this corpus and config "
                f"give {self.tokenizer.fingerprint[:12]}: the text or the SentencePiece version changed; use another --workdir"
            )
        self.metrics = meta["metrics"]
        return state

    def _loop(self, state, start: int, stop):
        import jax

        train = self.config.train
        rows = self.config.train.batch_size // jax.process_count()
        share = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        sharding = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec("data"))
        pending = None
        began, began_step = time.monotonic(), start
        for step in range(start, self.total_steps):
            batch = jax.make_array_from_process_local_data(sharding, self.windows.batch_at(step, share))
            state, new = self.train_step(state, batch, self.dropout_key)
            if pending:  # the step before is done by now: reading it does not hold up the device
                self._check_finite(*pending)
            pending = step, new
            done = step + 1
            last = done == self.total_steps
            must_log = done % train.log_every_steps == 0 or last
            must_evaluate = bool(self.splits["val"]) and (done % train.eval_every_steps == 0 or last)
            must_save = done % self.config.checkpoint.every_steps == 0 or last or must_evaluate
            stopping = self._agree(stop.requested) if must_log or jax.process_count() == 1 else False
            if self.progress:
                self.progress.step(done)
            if not (must_log or must_evaluate or must_save or stopping):
                continue
            loss, grad_norm = self._check_finite(*pending)
            pending = None
            if must_log:
                speed = (done - began_step) * train.batch_size * self.config.model.block_size / (time.monotonic() - began)
                self._log(done, loss, grad_norm, speed)
            if must_evaluate:
                self._evaluate(state, done)
            elif must_save and not self.splits["val"]:
                self._plot_and_sample(state, done)
            if must_save or stopping:
                self._save(state, wait=last or stopping)
            if must_log or must_evaluate or must_save:
                began, began_step = time.monotonic(), done
            if stopping or self.metrics.get("stopped_early"):
                break
        return state

    def _agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all must leave the loop at the same step."""
        import jax

        if jax.process_count() == 1:
            return stop
        import numpy as np
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.array(stop)).any())

    def _check_finite(self, step: int, metrics) -> tuple[float, float]:
        loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return loss, grad_norm
        from hlm_jax import checkpoint

        with contextlib.suppress(UserError):
            self.checkpointer.wait()
        saved = checkpoint.steps_in(self.workdir)
        first = step * self.config.train.batch_size
        raise UserError(
            f"the loss is {loss} and the gradient norm {grad_norm} at step {step + 1} (batch {step}: windows {first} to "
            f"{first + self.config.train.batch_size - 1}); the last good checkpoint is {f'step {saved[-1]}' if saved else 'none'}. "
            "Try a lower --config.optim.learning_rate, more --config.optim.warmup_steps or a smaller --config.optim.grad_clip_norm, "
            "in another --workdir"
        )

    def _log(self, step: int, loss: float, grad_norm: float, tokens_per_second: float) -> None:
        if not self.main_process:
            return
        epoch = step / self.windows.steps_per_epoch
        rate = float(self.learning_rate(step - 1))
        self.writer.write(step, epoch=epoch, loss=loss, grad_norm=grad_norm, learning_rate=rate, tokens_per_second=tokens_per_second)
        val = self.metrics.get("val_bits_per_char")
        self.progress.line(step, epoch=epoch, loss=loss, learning_rate=rate, tokens_per_second=tokens_per_second, val=val)

    def _reading_params(self, state):
        """The weights to evaluate and sample with, as arrays of this process's first device."""
        import jax

        params = state.params if state.ema_params is None else state.ema_params
        return jax.tree.map(lambda x: x.addressable_data(0), params)

    def _evaluate(self, state, step: int) -> None:
        from hlm_jax.evaluate import total

        texts = [chapter.text for chapter in self.splits["val"]]
        score = total(self.evaluator.score(self._reading_params(state), self.tokenizer, texts))
        best = self.metrics.get("best_val_bits_per_char", math.inf)
        values = {"val_nats_per_token": score.nats_per_token, "val_bits_per_char": score.bits_per_char}
        self.metrics = self.metrics | values | {"ngram_bits_per_char": self.floor}
        if score.bits_per_char < best:
            self.metrics |= {"best_val_bits_per_char": score.bits_per_char, "best_step": step, "evaluations_since_best": 0}
        else:
            self.metrics["evaluations_since_best"] += 1
        patience = self.config.train.patience
        if patience and self.metrics["evaluations_since_best"] >= patience:
            self.metrics["stopped_early"] = True
        if self.main_process:
            self.writer.write(step, **values)
            self.progress.say(
                f"step {step}: validation {score.bits_per_char:.4f} bits/char; Kneser-Ney 5-gram {self.floor:.4f} on the same chapters"
            )
            if self.metrics.get("stopped_early"):
                self.progress.say(f"stopping early: no better validation score in {patience} evaluations")
        self._plot_and_sample(state, step)

    def _plot_and_sample(self, state, step: int) -> None:
        if not self.main_process:
            return
        from hlm_jax.metrics import plot_losses

        plot_losses(self.workdir, self.floor)
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step_{step:06d}.txt").write_text(self._sample(self._reading_params(state)) + "\n", encoding="utf-8")

    def _sample(self, params) -> str:
        from hlm_jax.sampling import Strategy, generator

        sample = self.config.sample
        strategy = Strategy(temperature=sample.temperature, top_p=sample.top_p)
        prompt = self.tokenizer.encode(sample.prompt) or [self.tokenizer.separator_id]
        ids = generator(self.model, strategy).generate(
            params, [prompt[-(self.config.model.block_size - 1) :]], sample.max_new_tokens, self.config.seed
        )
        return sample.prompt + self.tokenizer.decode(ids[0])

    def _save(self, state, *, wait: bool) -> None:
        from hlm_jax import checkpoint

        metrics = dict(self.metrics)
        if self.splits["val"] and metrics.get("best_step") is not None:
            fresh = int(state.step) % self.config.train.eval_every_steps == 0 or int(state.step) == self.total_steps
            if not fresh:  # the score belongs to an earlier step: this one must not be ranked by it
                metrics.pop("val_bits_per_char", None)
        meta = checkpoint.make_meta(
            config=configs.to_json(self.config), tokenizer=self.tokenizer, corpus_report=self.book.report, metrics=metrics
        )
        self.checkpointer.save(state, meta, wait=wait)

    def _close(self) -> None:
        self.checkpointer.close()

    def _report(self, state) -> None:
        if not self.main_process:
            return
        if self.splits["val"]:
            best, floor = self.metrics["best_val_bits_per_char"], self.floor
            self.say(
                f"\nvalidation chapters: {best:.4f} bits per character (step {self.metrics['best_step']}); "
                f"Kneser-Ney 5-gram {floor:.4f}; ratio {best / floor:.4f}"
            )
        else:
            self.say("\nno chapters are held out in this config: its loss says nothing about new text (see configs/base_heldout.py)")
        self.say(f"\n{self._sample(self._reading_params(state))}\n")
        for what, where in (("loss plot", "loss.png"), ("checkpoints", "checkpoints"), ("samples", "samples"), ("metrics", "metrics.jsonl")):
            self.say(f"{what:12s} {self.workdir / where}")

    def _warn_if_long(self, start: int) -> None:
        import jax

        if jax.default_backend() != "cpu":
            return
        seconds = (self.total_steps - start) * self._estimate_step_seconds()
        if seconds > LONG_RUN_SECONDS:
            from hlm_jax.metrics import duration

            self.say(
                f"WARNING: no GPU in use. On this CPU the run will take about {duration(seconds)} (an estimate from the speed of a "
                "matrix product); configs/tiny.py takes minutes"
            )

    def _estimate_step_seconds(self) -> float:
        """From 6 FLOP per weight and token, at 60 % of the speed of a matrix product measured here."""
        import jax
        import jax.numpy as jnp

        size = 1024
        product = jax.jit(jnp.dot)
        x = jnp.ones((size, size), jnp.float32)
        product(x, x).block_until_ready()
        began = time.monotonic()
        for _ in range(5):
            product(x, x).block_until_ready()
        flops = 5 * 2 * size**3 / (time.monotonic() - began)
        tokens = self.config.train.batch_size * self.config.model.block_size
        return 6 * configs.count_parameters(self.config.model) * tokens / (0.6 * flops)


class _StopRequest:
    """Notes the first SIGTERM or Ctrl-C, so that the loop can save and leave; a second Ctrl-C interrupts at once."""

    requested = False

    def __enter__(self):
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number, _frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping: saving a checkpoint …", file=sys.stderr, flush=True)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
