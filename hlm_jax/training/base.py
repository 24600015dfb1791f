"""What the model that a run starts from may have seen of the chapters that the run holds out."""

from collections.abc import Mapping, Sequence
from typing import Any

from hlm_jax import checkpoint
from hlm_jax.book.corpus import Chapter, Corpus
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import REFUSE_HELD, find_held_out
from hlm_jax.measures.reference import Reference
from hlm_jax.numbers import written_numbers

Splits = Mapping[str, Sequence[Chapter]]


def with_seen(init: Mapping[str, Any], splits: Splits) -> dict[str, Any]:
    """What is recorded of the other model, with `seen` and `unknown` added.

    `seen` are the numbers of the held-out chapters that stand in the texts that it was trained on.
    `unknown` tells why nobody can say of further texts; it is empty where all were compared.

    Args:
      init: Pretrained.about; one that has both keys is returned as it is.
      splits: of the run that starts from it.
    """
    if "seen" in init:
        return dict(init)
    seen: set[int] = set()
    unknown = []
    model: Mapping[str, Any] | None = init
    while model is not None:
        if model["kind"] != "run":
            unknown.append(
                f"{model['name']} may have read this book, as public models have read most public "
                "texts"
            )
            break
        try:
            texts = _texts_of(model)
        except UserError as error:
            unknown.append(f"the texts of {model['path']} cannot be compared: {error}")
        else:
            found = find_held_out(texts, splits)
            seen |= {one.chapter.number for one in found if one.fraction >= REFUSE_HELD}
        model = model["init"]
    return {**init, "seen": sorted(seen), "unknown": "; ".join(unknown)}


def _texts_of(run: Mapping[str, Any]) -> list[Corpus]:
    """The training chapters of a run as one text, and its further texts."""
    meta = checkpoint.read_meta(run["path"], run["step"])
    config = meta["config"]
    reference = Reference.open(config["corpus"], config["split"], meta["corpus"])
    chapters = tuple(reference.splits["train"])
    return [Corpus(meta["corpus"]["name"], chapters, meta["corpus"]), *reference.extra]


def describe_base(init: Mapping[str, Any], splits: Splits) -> str:
    """One line: what a run starts from, and whether its held-out figures prove anything.

    Args:
      init: as with_seen returns it.
    """
    step = "" if init["step"] is None else f", step {init['step']}"
    began = f"starts from {init['path']}{step}"
    if not (splits["val"] or splits["test"]):
        return began
    if init["seen"]:
        which = "chapter" if len(init["seen"]) == 1 else "chapters"
        known = f"that model has read {which} {written_numbers(init['seen'])}, held out here"
        return f"{began}: {known}; figures on them prove nothing"
    if init["unknown"]:
        return f"{began}: {init['unknown']}; figures on the held-out chapters may prove nothing"
    return f"{began}: no chapter held out here stands in the texts that it was trained on"
