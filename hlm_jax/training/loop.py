"""One training run, told in order: read, build, restore, then step, evaluate, save, write."""

import dataclasses
import functools
import os
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.training.checkpointer import Checkpointer, locked
from hlm_jax.training.hardware import keep_compiled_programs
from hlm_jax.training.history import History
from hlm_jax.training.journal import Dispatch, Journal
from hlm_jax.training.material import Material, load_material
from hlm_jax.training.plan import Plan, prefetched
from hlm_jax.training.program import Program, build_program
from hlm_jax.training.record import meta_of, naming_the_last_good, record, restore
from hlm_jax.training.report import final_report, long_run_warning
from hlm_jax.training.start import Start
from hlm_jax.training.stop import StopRequest, leaving_a_broken_group
from hlm_jax.training.validation import Validation


def train(config: ConfigDict, workdir: str | Path, *, stop: StopRequest | None = None) -> History:
    """Trains by `config` in `workdir`, or resumes what is there.

    May be called in process, in a notebook or in a thread.

    Args:
      stop: `stop.request()` in another thread makes the run save and return. In the main thread
        SIGTERM, SIGHUP and Ctrl-C do the same; an ignored SIGHUP, as under nohup, does not.

    Returns:
      What the evaluations showed, and the steps done.

    Raises:
      UserError: anything the user can mend, before or during training. What was saved stays.
    """
    configs.check(config)
    config = configs.settled(config)
    workdir = Path(os.path.expanduser(workdir))
    keep_compiled_programs(workdir)
    with locked(workdir), leaving_a_broken_group(workdir), Journal(workdir) as journal:
        start = Start.of(workdir, config)
        config = start.config
        material = load_material(config, start)
        journal.say(material.describe())
        program = build_program(config, material)
        journal.say(program.description)
        validation = Validation(config, material, program.model)
        plan, meta = Plan.of(config, material), meta_of(start, material)
        # Signals stay noted until the checkpointer has closed: a second one loses no save.
        with (
            stop or StopRequest() as stop,
            Checkpointer(workdir, keep_latest=config.checkpoint.keep_latest) as checkpointer,
            naming_the_last_good(material, checkpointer),
        ):
            state, history = restore(workdir, start, checkpointer, program, material)
            if not history.ended(plan.total_steps):
                _begin(start, material, program, journal, history)
            else:
                journal.say(_done(config, history, plan.total_steps))
            if start.base and plan.eval_every_steps:
                with journal.pause(0), journal.computes():
                    values = validation.run(program.reading_params(state))
                journal.evaluation(0, values)
                history = dataclasses.replace(history, initial=values[checkpoint.METRIC])
            spans = iter(()) if history.stopped_early else plan.spans(history.step)
            if program.teaching and not history.ended(plan.total_steps):
                journal.say("the teachers read the book")
                with journal.pause(history.step), journal.computes():
                    # Processes that stop one by one would wait for one another.
                    alone = jax.process_count() == 1
                    if not program.teaching.read(lambda: alone and stop.requested):
                        spans = iter(())
            batches = prefetched(spans, lambda span: program.load(material, *span))
            pending: Dispatch | None = None  # with state and history, all that changes
            for (first, done), loaded in batches:
                state, metrics = program.step(state, loaded)
                journal.steps(pending)  # that dispatch has finished: reading it blocks nothing
                pending = first, metrics
                journal.dispatched(done)
                stopping = stop.agreed(first, done, config.train.log_every_steps)
                if not (plan.pauses_at(done) or stopping):
                    continue
                journal.steps(pending)
                pending, history = None, history.at(done)
                with journal.pause(done):
                    params = program.reading_params(state)
                    if plan.evaluates_at(done):
                        with journal.computes():
                            values = validation.run(params)
                        journal.evaluation(done, values)
                        history = history.after(done, values, config.train.patience)
                    # The save comes first: a sample or a plot that fails loses nothing.
                    checkpointer.save(state, meta(history))
                    if plan.pauses_at(done):
                        journal.pictures(done, functools.partial(validation.sample, params))
                if stopping or history.stopped_early:
                    break
            batches.close()
        journal.close()
        _report(config, material, validation, history, journal)
        return history


def _begin(
    start: Start, material: Material, program: Program, journal: Journal, history: History
) -> None:
    """Announces the run, records what it is and opens its journal."""
    config = start.config
    if history.step:
        journal.say(f"resuming from step {history.step}")
    for line in start.describe(material.stage_totals):
        journal.say(line)
    if warning := long_run_warning(config, material.total_steps - history.step):
        journal.say(warning)
    if jax.process_index() == 0:
        record(journal.workdir, config, material)
    journal.begin(
        start_step=history.step,
        total_steps=material.total_steps,
        log_every_steps=config.train.log_every_steps,
        tokens_per_step=config.train.batch_size * config.model.block_size,
        epoch_of=lambda step: material.windows.epochs(step)[0],
        learning_rate=program.learning_rate,
        baselines=material.baselines,
        changes=start.changes_by_step(),
        with_loss_scale=program.dtype == "float16",
        val_bits_per_char=history.newest.get(checkpoint.METRIC),
    )


def _done(config: ConfigDict, history: History, total_steps: int) -> str:
    """That nothing is left to train, and how to go on all the same."""
    if history.stopped_early:
        more = "it stopped early; --config.train.patience=0 goes on"
    else:
        key = "steps" if config.train.steps else "epochs"
        more = f"a larger --config.train.{key} goes on"
    return f"this run is done: {history.step} of {total_steps} steps ({more})"


def _report(
    config: ConfigDict,
    material: Material,
    validation: Validation,
    history: History,
    journal: Journal,
) -> None:
    """Prints how to go on, or what came of the run."""
    if not history.ended(material.total_steps):
        journal.say(f"stopped at step {history.step}; the same command resumes")
        return
    if history.stopped_early:
        worse = history.evaluations_since_best
        journal.say(f"stopped early: no better validation score in {worse} evaluations")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("end of training")
    _, params, _ = checkpoint.read(journal.workdir)  # every process takes part in reading
    if jax.process_index() == 0:
        best = validation.language_model(params)
        for line in final_report(config, material, history, best, journal):
            journal.say(line)
