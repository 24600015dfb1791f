"""Which chapters that a run holds out the models that it learns from have read.

These are the model that it starts from, its teachers, and those that they learned from themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hlm_jax import checkpoint
from hlm_jax.book.corpus import Chapter, Corpus
from hlm_jax.book.extra import extra_rows, load_extra
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import REFUSE_HELD, find_held_out
from hlm_jax.measures.reference import Reference
from hlm_jax.numbers import written_numbers
from hlm_jax.training.start import changes_in

Splits = Mapping[str, Sequence[Chapter]]


def with_seen(init: Mapping[str, Any], splits: Splits, sha256: str) -> dict[str, Any]:
    """What is recorded of the model that a run starts from, with `seen` and `unknown` added.

    `seen` are the numbers of the held-out chapters that it has read. `unknown` tells what cannot be
    compared with them; it is empty where everything was.

    Args:
      init: Pretrained.about; one that has both keys is returned as it is.
      splits: of the run that starts from it.
      sha256: of the run's book.
    """
    if "seen" in init:
        return dict(init)
    seen, unknown = read_by(init, splits, sha256)
    return {**init, "seen": sorted(seen), "unknown": "; ".join(unknown)}


def refuse_knowing_teachers(workdirs: Sequence[str], splits: Splits, sha256: str) -> list[str]:
    """Refuses teachers that have read a held-out chapter.

    Needed where a run's tokenizer is not trained on its own chapters; then an equal tokenizer does
    not prove that a teacher has the same split.

    Returns:
      Warnings: what cannot be compared.

    Raises:
      UserError: it names the teacher and the chapters.
    """
    warnings = []
    for workdir in workdirs:
        about = {"kind": "run", "path": workdir, "step": "best"}
        seen, unknown = read_by(about, splits, sha256)
        if seen:
            raise UserError(
                f"train.teachers: {workdir} has read {_chapters(seen)}, held out here: leave it out"
            )
        warnings += [f"train.teachers: {reason}" for reason in unknown]
    return warnings


def read_by(model: Mapping[str, Any], splits: Splits, sha256: str) -> tuple[set[int], list[str]]:
    """(numbers of the held-out chapters that a model has read, what cannot be compared).

    Args:
      model: `kind`, `path` and `step` of Pretrained.about.
      splits, sha256: as with_seen.
    """
    if model["kind"] != "run":
        return set(), [
            f"{model['name']} may have read this book, as public models have read most public texts"
        ]
    try:
        step = checkpoint.resolve_step(model["path"], model["step"])
        meta = checkpoint.read_meta(model["path"], step)
    except checkpoint.CheckpointError:
        return set(), [f"what {model['path']} has read is not known, as its checkpoint is gone"]
    held = {chapter.number for name in ("val", "test") for chapter in splits[name]}
    seen: set[int] = set()
    unknown = []
    for texts in _texts_of(meta):
        try:
            found = find_held_out(texts(), splits)
        except UserError as error:
            unknown.append(f"a text of {model['path']} cannot be compared: {error}")
        else:
            seen |= {one.chapter.number for one in found if one.fraction >= REFUSE_HELD}
    for teacher in _ever(meta, "train", "teachers"):
        about = {"kind": "run", "path": teacher, "step": "best"}
        more, reasons = read_by(about, splits, sha256)
        seen, unknown = seen | more, unknown + reasons
    if init := meta.get("init"):
        if meta["corpus"]["sha256"] == sha256:  # chapters have the same numbers there
            seen |= held & set(init.get("seen", ()))
        more, reasons = read_by(init, splits, sha256)
        seen, unknown = seen | more, unknown + reasons
    return seen, unknown


def _texts_of(meta: Mapping[str, Any]) -> Iterator[Any]:
    """Functions that read the training chapters of a run, and each of its further texts."""
    config, report = meta["config"], meta["corpus"]

    def book() -> list[Corpus]:
        section = {**config["corpus"], "extra": []}
        reference = Reference.open(section, config["split"], report)
        return [Corpus(report["name"], tuple(reference.splits["train"]), report)]

    yield book
    known = {row["sha256"] for row in extra_rows(report)}
    for path in _ever(meta, "corpus", "extra"):

        def further(path: str = path) -> list[Corpus]:
            keys = config["corpus"]
            (text,) = load_extra(
                [path],
                convert=keys["convert"],
                drop_brackets=keys["drop_brackets"],
                parts=keys["parts"],
            )
            if text.report["sha256"] not in known:
                raise UserError(f"{path} has changed since")
            return [text]

        yield further


def _ever(meta: Mapping[str, Any], section: str, name: str) -> list[str]:
    """All paths that a key of a run has had."""
    values = [meta["config"][section][name]]
    for change in changes_in(meta):
        if change.key == f"{section}.{name}":
            values += [change.before, change.after]
    return list(dict.fromkeys(path for value in values for path in value if path))


def _chapters(numbers: set[int]) -> str:
    return f"{'chapter' if len(numbers) == 1 else 'chapters'} {written_numbers(numbers)}"
