"""Which values of a config do not fit together, though each is allowed alone. Imports no JAX."""

from collections.abc import Callable, Mapping
from typing import Any

from hlm_jax.numbers import chapter_numbers, written_numbers

Need = Callable[[Any, str], None]  # (what must hold, what to say where it does not)


def conflict(values: Mapping[str, Any]) -> str | None:
    """Why these values of a config, {"section.key": value}, do not fit together; None if they do.

    Each is allowed by the rule of its own key.
    """
    found: list[str] = []

    def need(condition: Any, message: str) -> None:
        if not condition:
            found.append(message)

    _heads(values, need)
    _training(values, need)
    _split(values, need)
    return found[0] if found else None


def _training(values: Mapping[str, Any], need: Need) -> None:
    batch, parts = values["train.batch_size"], values["train.grad_accum_steps"]
    need(
        values["optim.name"] != "muon" or values["optim.muon_learning_rate"] > 0,
        "optim.name=muon needs a rate for hidden matrices: "
        "set --config.optim.muon_learning_rate, for example to 0.02",
    )
    need(
        values["train.steps"] or values["train.epochs"],
        "train.epochs and train.steps are both 0, there is nothing to train: set one of them",
    )
    need(
        batch % parts == 0,
        f"train.grad_accum_steps={parts} does not divide train.batch_size={batch}: "
        f"set --config.train.batch_size to a multiple of {parts}",
    )
    need(
        values["corpus.extra_hold"] <= values["corpus.extra_end"],
        f"corpus.extra_hold={values['corpus.extra_hold']} is after corpus.extra_end="
        f"{values['corpus.extra_end']}: set --config.corpus.extra_end to as much or more",
    )
    need(
        not values["train.teachers"]
        or not values["corpus.extra"]
        or values["corpus.extra_fraction"] < 1
        or values["corpus.extra_hold"] < 1,
        "train.teachers teach the book, and with corpus.extra_fraction=1 and corpus.extra_hold=1 "
        "no window is of it: set --config.train.teachers=",
    )
    need(
        not values["train.patience"] or values["split.held_out"],
        "train.patience compares scores of held-out chapters and there are none: "
        "set --config.split.held_out=true or --config.train.patience=0",
    )
    need(
        not (values["train.corrupt_inputs"] and values["train.corrupt_final"])
        or values["train.corrupt_anneal"],
        "train.corrupt_final is reached over the last steps, and train.corrupt_anneal=0 leaves "
        "none: set --config.train.corrupt_anneal, for example to 0.2",
    )


def _heads(values: Mapping[str, Any], need: Need) -> None:
    """Refuses heads that do not share the width of the model, or keys and values, evenly."""
    heads, width = values["model.n_head"], values["model.n_embd"]
    kv_heads, head_width = values["model.n_kv_head"], values["model.head_dim"]
    qwen3 = values["model.form"] == "qwen3"
    for name in ("model.n_kv_head", "model.head_dim"):
        need(
            qwen3 or not values[name],
            f"{name} is of model.form=qwen3 only: set --config.{name}=0 or "
            "--config.model.form=qwen3",
        )
    if values["model.form"] == "mogrifier":
        need(
            values["mesh.fsdp"] == 1,
            "a Mogrifier LSTM would gather its weights at every token: set --config.mesh.fsdp=1",
        )
        need(
            not values["model.intermediate_size"],
            "model.intermediate_size is of an MLP, and a Mogrifier LSTM has none: "
            "set --config.model.intermediate_size=0",
        )
        return
    need(
        head_width or width % heads == 0,
        f"model.n_head={heads} does not divide model.n_embd={width}: "
        f"set --config.model.n_embd to a multiple of {heads}",
    )
    need(
        not kv_heads or heads % kv_heads == 0,
        f"model.n_kv_head={kv_heads} does not divide model.n_head={heads}: "
        "set --config.model.n_kv_head to a divisor",
    )
    of = "model.head_dim" if head_width else "model.n_embd / model.n_head"
    head_width = head_width or width // heads
    need(
        not qwen3 or head_width % 2 == 0,
        f"model.form=qwen3 rotates pairs: {of} = {head_width} must be even",
    )


def _split(values: Mapping[str, Any], need: Need) -> None:
    """Refuses chapters by number next to another rule of what is held out, or in two places."""
    train, test = (chapter_numbers(values[f"split.{name}"]) for name in ("train", "test"))
    if not train and not test:
        return
    both = written_numbers(set(train) & set(test))
    need(not both, f"split.train and split.test both name {both}: a chapter is in one of them")
    need(
        values["split.train_every"] == 1,
        "split.train_every thins the training chapters, and split.train or split.test name them: "
        "set --config.split.train_every=1",
    )
    need(
        not values["train.patience"],
        "train.patience compares scores of validation chapters, and with split.train or split.test "
        "there are none: set --config.train.patience=0",
    )
