"""One training run: the wiring of everything else, the loop, and its bookkeeping. Resumes what its workdir holds."""

import concurrent.futures
import contextlib
import json
import math
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.book import corpus
from hlm_jax.book import windows as data
from hlm_jax.book.tokenizer import StreamDecoder, train_tokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.score import Evaluator, encode, scores, total
from hlm_jax.model.generate import Strategy, extracted_tokens, generator, spread_windows
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.run import load_run
from hlm_jax.training import optim
from hlm_jax.training import step as train_step
from hlm_jax.training.journal import MetricsWriter, Progress, duration, plot_losses
from hlm_jax.training.report import final_report, long_run_warning
from hlm_jax.training.stop import StopRequest, leave_broken_group


def train(config, workdir: Path) -> None:
    """Trains as `config` says, in `workdir`; resumes what is there.

    Raises:
      UserError: anything the user can mend, before or during training; what was saved stays.
    """
    if (
        jax.config.jax_compilation_cache_dir is None
    ):  # not set by the environment: beside the runs, shared by them
        jax.config.update(
            "jax_compilation_cache_dir", str((workdir.parent / ".jax_cache").resolve())
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    main_process = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        if main_process:
            stack.enter_context(checkpoint.locked(workdir))
        try:
            Trainer(config, workdir, main_process).run()
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            leave_broken_group(workdir, error)


class Trainer:
    """One run from start to final report; the loop and its bookkeeping."""

    def __init__(self, config, workdir: Path, main_process: bool):
        self.config, self.workdir, self.main_process = config, workdir, main_process
        self._refuse_other_config()
        book = corpus.load_corpus(**config.corpus)
        self.say(corpus.describe(book.report))
        self.book, self.splits = book, corpus.split_chapters(book.chapters, **config.split)
        training_texts = [chapter.text for chapter in self.splits["train"]]
        self.tokenizer = train_tokenizer(
            training_texts, vocab_size=config.model.vocab_size, **config.tokenizer
        )
        tokens = data.token_stream(self.tokenizer, self.splits["train"])
        block, batch = config.model.block_size, config.train.batch_size
        self.windows = data.Windows(tokens, block_size=block, batch_size=batch, seed=config.seed)
        self.total_steps = config.train.steps or math.ceil(
            config.train.epochs * self.windows.steps_per_epoch
        )
        self.floor = None
        self.val_texts = [chapter.text for chapter in self.splits["val"]]
        self.val_sequences = encode(self.tokenizer, self.val_texts)
        half = min(50, block // 2)
        sequences = (
            [self.tokenizer.encode(chapter.text) for chapter in self.splits["train"]]
            if config.train.eval_extraction
            else []
        )
        self.extraction_windows = spread_windows(sequences, half, 64)
        if self.val_texts:
            self.floor = KneserNey(training_texts).bits_per_char(self.val_texts)

        self.mesh = train_step.make_mesh(config.mesh.fsdp)
        devices, parts = self.mesh.size, config.train.accumulate_steps
        if batch % (devices * parts):
            by = f"{devices} devices" + (f" x {parts} accumulation steps" if parts > 1 else "")
            raise UserError(
                f"train.batch_size={batch} is not divisible by {by}: set --config.train.batch_size to a multiple of {devices * parts}"
            )
        # Training multiplies in the device's fast type; evaluation and samples in float32, as every later reader does.
        dtype, reason = train_step.resolve_dtype(config.dtype)
        self.model = GPT(GPTConfig(**config.model))
        attention, why = train_step.resolve_attention(
            config.attention, self.model.cfg, dtype, batch
        )
        trained = GPT(self.model.cfg, dtype, attention)
        self.dtype = dtype
        optimizer, self.learning_rate = optim.make_optimizer(
            **config.optim, total_steps=self.total_steps, product_dtype=dtype
        )
        ema_decay = config.train.ema_decay
        root = jax.random.key(config.seed)
        self.dropout_key = jax.random.fold_in(root, 1)
        self._init = lambda: train_step.init_state(
            trained, optimizer, jax.random.fold_in(root, 0), ema_decay=ema_decay, mesh=self.mesh
        )
        teachers = self._teachers(dtype)
        self.teacher_params = [params for _, params in teachers]
        self.train_steps = train_step.make_train_step(
            trained,
            optimizer,
            accumulate_steps=parts,
            ema_decay=ema_decay,
            mesh=self.mesh,
            corruption=train_step.corruption_schedule(
                rate=config.train.corrupt_inputs,
                final=config.train.corrupt_final,
                anneal=config.train.corrupt_anneal,
                total_steps=self.total_steps,
            ),
            teachers=tuple(teacher for teacher, _ in teachers),
            teacher_weight=config.train.teacher_weight,
        )
        self.evaluator = Evaluator(self.model, batch_size=max(1, min(64, 4096 // block)))
        self.say(
            f"model {config.model.form}: {configs.count_parameters(config.model):,} parameters; {len(tokens):,} training tokens; "
            f"{self.total_steps:,} steps of {batch} x {block} = {self.total_steps / self.windows.steps_per_epoch:.1f} epochs; "
            f"{devices} {jax.devices()[0].device_kind} device{'s' if devices > 1 else ''}\n"
            f"products in {dtype} ({reason}), attention {attention} ({why})"
        )
        if main_process:
            self.tokenizer.save(workdir / "tokenizer")
        self.checkpointer = checkpoint.Checkpointer(
            workdir, keep_latest=config.checkpoint.keep_latest
        )
        self.metrics = {}  # of the newest evaluation, and the best one so far
        self.painter_job = None
        self.seconds = self.stalled = self.computing = (
            0.0  # of this process's loop: all, nothing computed, evaluation and samples
        )

    def _teachers(self, dtype: str):
        """The models that this run learns from beside the text, and their weights, whole on every device."""
        teachers, block = [], self.config.model.block_size
        for workdir in self.config.train.teachers:
            run = load_run(workdir)
            if (
                run.tokenizer.fingerprint != self.tokenizer.fingerprint
            ):  # one of other training chapters, too, may know the held-out ones
                raise UserError(
                    f"train.teachers: {workdir} was trained with another text, split or tokenizer than this run"
                )
            if run.model.cfg.block_size < block:
                raise UserError(
                    f"train.teachers: {workdir} reads {run.model.cfg.block_size} tokens, this run's windows have {block}"
                )
            whole = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
            params = jax.tree.map(
                lambda x: jax.make_array_from_callback(x.shape, whole, lambda i, x=x: x[i]),
                run.params,
            )  # noqa: B023
            teachers.append((GPT(run.model.cfg, dtype), params))
        return teachers

    def say(self, text: str) -> None:
        if self.main_process:
            print(text, flush=True)

    def _refuse_other_config(self) -> None:
        path = self.workdir / "config.json"
        now = configs.to_json(self.config)
        if path.exists():
            changed = configs.differences(json.loads(path.read_text(encoding="utf-8")), now)
            if changed:
                raise UserError(
                    f"{self.workdir} holds a run with another config ({'; '.join(changed)}): use another --workdir"
                )

    def _record_config(self) -> None:
        """Only once training begins: a run that failed on its corpus binds nobody to its config."""
        if self.main_process:
            text = json.dumps(configs.to_json(self.config), ensure_ascii=False, indent=2) + "\n"
            (self.workdir / "config.json").write_text(text, encoding="utf-8")

    # --- the run ---

    def run(self) -> None:
        state = self._start_state()
        start = int(state.step)
        if start >= self.total_steps or self.metrics.get("stopped_early"):
            self.say(f"this run is done: {start} of {self.total_steps} steps")
            self._close()
            self._report()
            return
        if start:
            self.say(f"resuming from step {start}")
        if warning := long_run_warning(self.config, self.total_steps - start):
            self.say(warning)
        self._record_config()
        self.writer = MetricsWriter(self.workdir, start_step=start) if self.main_process else None
        self.progress = (
            Progress(start_step=start, total_steps=self.total_steps) if self.main_process else None
        )
        with StopRequest() as stop:
            state = self._loop(state, start, stop)
        if self.writer:
            self.writer.close()
            self.progress.close()
        self._close()
        if stop.requested and int(state.step) < self.total_steps:
            self.say(f"stopped at step {int(state.step)}; the same command resumes")
            return
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("end of training")
        self._report()

    def _start_state(self):
        state = self._init()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
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

    def _dispatches(self, start: int) -> list[int]:
        """The steps at which dispatches end: a fixed grid, so that a resumed run is cut where an uninterrupted one is."""
        train = self.config.train
        size = math.gcd(train.steps_per_dispatch, self.config.checkpoint.every_steps)
        if self.splits["val"]:
            size = math.gcd(size, train.eval_every_steps)
        return [*range(start // size * size + size, self.total_steps, size), self.total_steps]

    def _load(self, first: int, end: int):
        """The windows of steps first..end on the devices, [K, B, T + 1]; each process reads only its own rows."""
        rows = self.config.train.batch_size // jax.process_count()
        share = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        chunk = np.stack([self.windows.batch_at(step, share) for step in range(first, end)])
        layout = jax.sharding.PartitionSpec(None, train_step.BATCH_AXES)
        return jax.make_array_from_process_local_data(
            jax.sharding.NamedSharding(self.mesh, layout), chunk
        )

    def _loop(self, state, start: int, stop):
        ends = self._dispatches(start)
        pending = None
        self.began, self.began_step = time.monotonic(), start
        first_began = self.began
        # While the device computes, one thread cuts the next windows and another draws the plot.
        with (
            concurrent.futures.ThreadPoolExecutor(1) as reader,
            concurrent.futures.ThreadPoolExecutor(1) as self.painter,
        ):
            upcoming = reader.submit(self._load, start, ends[0])
            for i, done in enumerate(ends):
                first = ends[i - 1] if i else start
                state, new = self.train_steps(
                    state, upcoming.result(), self.dropout_key, *self.teacher_params
                )
                if i + 1 < len(ends):
                    upcoming = reader.submit(self._load, done, ends[i + 1])
                if (
                    pending
                ):  # the dispatch before is done by now: reading it does not hold up the device
                    self._read(*pending)
                pending = first, new
                stopping = stop.agreed(first, done, self.config.train.log_every_steps)
                if self.progress:
                    self.progress.step(done)
                must_evaluate = self._due(self.config.train.eval_every_steps, done) and bool(
                    self.splits["val"]
                )
                must_save = self._due(self.config.checkpoint.every_steps, done) or must_evaluate
                if must_evaluate or must_save or stopping:
                    self._read(*pending)
                    pending = None
                    idle = (
                        time.monotonic()
                    )  # nothing is left to compute: what is not device work from here on is a stall
                    computing = (
                        self._evaluate(state, done)
                        if must_evaluate
                        else self._plot_and_sample(state, done)
                        if must_save
                        else 0.0
                    )
                    self._save(state, done, wait=stopping or done == self.total_steps)
                    self.began, self.began_step = time.monotonic(), done
                    self.computing += computing
                    if done < self.total_steps:  # the last save has nothing left to hold up
                        self.stalled += self.began - idle - computing
                if stopping or self.metrics.get("stopped_early"):
                    break
        if self.painter_job:
            self.painter_job.result()  # raises what went wrong while drawing
        self.seconds = time.monotonic() - first_began
        return state

    def _due(self, every_steps: int, done: int) -> bool:
        return done % every_steps == 0 or done == self.total_steps

    def _read(self, first: int, metrics) -> None:
        """Waits for a dispatch's metrics, checks every step and logs those that are due."""
        metrics = {name: np.asarray(values) for name, values in metrics.items()}
        for i, (loss, grad_norm) in enumerate(
            zip(metrics["loss"].tolist(), metrics["grad_norm"].tolist(), strict=True)
        ):
            done = first + i + 1
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                if not metrics["skipped"][i] or metrics["loss_scale"][i] <= 1.0:
                    self._refuse(done, loss, grad_norm)
                continue  # float16 overflowed: the step was skipped and the loss scale halved
            if self._due(self.config.train.log_every_steps, done):
                self._log(
                    done,
                    loss,
                    grad_norm,
                    {}
                    if self.dtype != "float16"
                    else {"loss_scale": float(metrics["loss_scale"][i])},
                )

    def _refuse(self, done: int, loss: float, grad_norm: float) -> None:
        with contextlib.suppress(UserError):
            self.checkpointer.wait()
        saved = checkpoint.steps_in(self.workdir)
        first = (done - 1) * self.config.train.batch_size
        raise UserError(
            f"the loss is {loss} and the gradient norm {grad_norm} at step {done} (batch {done - 1}: windows {first} to "
            f"{first + self.config.train.batch_size - 1}); the last good checkpoint is {f'step {saved[-1]}' if saved else 'none'}. "
            "Try a lower --config.optim.learning_rate, more --config.optim.warmup_steps or a smaller --config.optim.grad_clip_norm, "
            "in another --workdir"
        )

    def _log(self, step: int, loss: float, grad_norm: float, more: dict) -> None:
        if not self.main_process:
            return
        tokens = (
            (step - self.began_step) * self.config.train.batch_size * self.config.model.block_size
        )
        speed = tokens / (time.monotonic() - self.began)
        epoch, rate = step / self.windows.steps_per_epoch, float(self.learning_rate(step - 1))
        self.writer.write(
            step,
            epoch=epoch,
            loss=loss,
            grad_norm=grad_norm,
            learning_rate=rate,
            tokens_per_second=speed,
            **more,
        )
        val = self.metrics.get("val_bits_per_char")
        self.progress.line(
            step, epoch=epoch, loss=loss, learning_rate=rate, tokens_per_second=speed, val=val
        )

    def _reading_params(self, state):
        """The weights to evaluate and sample with, as arrays of this process's first device."""

        params = state.params if state.ema_params is None else state.ema_params
        return train_step.local_copy(params, self.mesh)

    def _evaluate(self, state, step: int) -> float:
        """Scores, plots and samples; the seconds of device work in it."""
        params = self._reading_params(state)
        began = time.monotonic()
        score = total(scores(self.evaluator.token_nats(params, self.val_sequences), self.val_texts))
        values = {
            "val_nats_per_token": score.nats_per_token,
            "val_bits_per_char": score.bits_per_char,
        }
        if len(self.extraction_windows):
            lengths = extracted_tokens(self.model, params, self.extraction_windows)
            values |= {
                "extracted_share": float((lengths == self.extraction_windows.shape[1] // 2).mean()),
                "extracted_tokens": float(lengths.mean()),
            }
        computing = time.monotonic() - began
        best = self.metrics.get("best_val_bits_per_char", math.inf)
        self.metrics = self.metrics | values | {"ngram_bits_per_char": self.floor}
        if score.bits_per_char < best:
            self.metrics |= {
                "best_val_bits_per_char": score.bits_per_char,
                "best_step": step,
                "evaluations_since_best": 0,
            }
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
                self.progress.say(
                    f"stopping early: no better validation score in {patience} evaluations"
                )
        return computing + self._plot_and_sample(state, step, params)

    def _plot_and_sample(self, state, step: int, params=None) -> float:
        """Seconds of device work, as _evaluate."""
        params = (
            self._reading_params(state) if params is None else params
        )  # every process takes part in gathering them
        if not self.main_process:
            return 0.0
        if self.painter_job:
            self.painter_job.result()
        self.painter_job = self.painter.submit(plot_losses, self.workdir, self.floor)
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        began = time.monotonic()
        text = self._sample(params)
        computing = time.monotonic() - began
        (folder / f"step_{step:06d}.txt").write_text(text + "\n", encoding="utf-8")
        return computing

    def _sample(self, params) -> str:
        sample = self.config.sample
        strategy = Strategy(temperature=sample.temperature, top_p=sample.top_p)
        prompt = self.tokenizer.encode(sample.prompt) or [self.tokenizer.separator_id]
        ids = generator(self.model, strategy).generate(
            params,
            [prompt[-(self.config.model.block_size - 1) :]],
            sample.max_new_tokens,
            self.config.seed,
            self.tokenizer.utf8_automaton,
        )
        return sample.prompt + StreamDecoder(self.tokenizer).feed(ids[0])

    def _save(self, state, step: int, *, wait: bool) -> None:
        metrics = dict(self.metrics)
        if not self._due(self.config.train.eval_every_steps, step):
            # The newest score belongs to an earlier step: this one must not be ranked by it.
            metrics.pop(checkpoint.METRIC, None)
        meta = checkpoint.make_meta(
            config=configs.to_json(self.config),
            tokenizer=self.tokenizer,
            corpus_report=self.book.report,
            metrics=metrics,
        )
        self.checkpointer.save(state, meta, wait=wait)

    def _close(self) -> None:
        self.checkpointer.close()

    def _report(self) -> None:
        run = load_run(self.workdir)  # every process takes part in reading a checkpoint
        if not self.main_process:
            return
        for line in final_report(run, self.metrics, self.floor):
            self.say(line)
        if self.seconds:
            self.say(
                f"of {duration(self.seconds)}, evaluations and samples computed {self.computing / self.seconds:.1%}; logs, plots and "
                f"checkpoints left the device idle for {self.stalled / self.seconds:.1%}"
            )
        for what, where in (
            ("loss plot", "loss.png"),
            ("checkpoints", "checkpoints"),
            ("samples", "samples"),
            ("metrics", "metrics.jsonl"),
        ):
            self.say(f"{what:12s} {self.workdir / where}")
