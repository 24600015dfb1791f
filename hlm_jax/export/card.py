"""The model card, README.md of an exported folder: data, figures, licence, use and limits."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hlm_jax.book.corpus import EDITION
from hlm_jax.book.extra import extra_rows
from hlm_jax.book.splits import describe_split
from hlm_jax.book.tokenizer import SEPARATOR
from hlm_jax.errors import UserError
from hlm_jax.export.recitation import Recitation
from hlm_jax.keys import KEYS
from hlm_jax.numbers import written_numbers
from hlm_jax.rules import written
from hlm_jax.run import Run

UNKNOWN = "unknown"
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_OTHER_SCRIPTS = re.compile(r"[A-Za-zÀ-ɏͰ-ӿ\u3040-\u30ff\uac00-\ud7af]")


def check_licence(licence: str) -> str:
    """The identifier of a licence, as the Hub and SPDX write them.

    Raises:
      UserError: it is none.
    """
    if not _LICENCE.fullmatch(licence):
        raise UserError(
            f"--license {licence!r} is no identifier: give one such as mit, cc0-1.0 or other"
        )
    return licence


def card(
    run: Run, *, format: str, dtype: str, file: str, licence: str, recitation: Recitation
) -> str:
    """The text of README.md.

    Args:
      format: "hf" or "gguf".
      file: the name of the file that holds the weights.
    """
    parts = [
        _front_matter(run, format, licence),
        f"# {_inline(run.workdir.resolve().name)}\n\n{_model(run, dtype, file)}",
        f"## Data\n\n{_data(run)}",
        f"## Figures\n\n{_figures(run)}",
        f"## Recitation\n\n{_recitation(recitation)}",
        f"## Licence\n\n{_licence(run, licence)}",
        f"## Use\n\n{_use(run, format, file)}",
        f"## Limits\n\n{_limits(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def is_chinese(run: Run) -> bool:
    """Whether nearly all letters of the book's beginning, or else of the vocabulary, are Han."""
    text = run.meta["corpus"].get("opening") or ""
    if not (_HAN.search(text) or _OTHER_SCRIPTS.search(text)):
        ids = range(run.tokenizer.vocab_size)
        text = b"".join(map(run.tokenizer.token_bytes, ids)).decode("utf-8", errors="ignore")
    han, other = len(_HAN.findall(text)), len(_OTHER_SCRIPTS.findall(text))
    return han > 9 * other


def _front_matter(run: Run, format: str, licence: str) -> str:
    tags = ["hlm-jax", run.model.cfg.form]
    lines = ["language:", "- zh"] if is_chinese(run) else []
    lines += [
        f"license: {licence}",
        f"library_name: {'transformers' if format == 'hf' else 'gguf'}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _model(run: Run, dtype: str, file: str) -> str:
    cfg = run.model.cfg
    form = {"gpt2": "GPT-2", "qwen3": "Qwen3"}[cfg.form]
    return (
        f"A language model of {_of_what(run)} in the form of {form}: "
        f"{cfg.n_parameters:,} parameters, {cfg.n_layer} layers, {cfg.n_head} heads, width "
        f"{cfg.n_embd}, {cfg.vocab_size:,} tokens, {cfg.block_size} positions.\n"
        f"`{file}` holds the weights of step {run.step} as {dtype}.\n"
        "It writes on; it follows no instructions and answers no questions.\n"
        "It was trained and exported by hlm-jax."
    )


def _of_what(run: Run) -> str:
    if "init" in run.meta:
        return "a book, begun from another model,"
    if extra_rows(run.meta["corpus"]):
        return "a book, trained on further texts first,"
    return "one book"


def _data(run: Run) -> str:
    report = run.meta["corpus"]
    lines = [
        f"- book: {_book(run)}",
        f"- source: {_source(report['source'])}",
        f"- {report['characters']:,} characters in {report['chapters']} chapters, "
        f"sha256 {report['sha256']}",
    ]
    if convert := run.config.corpus.convert:
        lines.append(f"- converted by OpenCC's {convert}")
    if extra := extra_rows(report):
        names = ", ".join(_inline(row["name"]) for row in extra)
        lines.append(f"- further texts, trained on and never scored: {names}")
    for change in run.meta.get("changes", ()):
        if not KEYS[change["key"]].rule.is_path:
            key, before, after = (change[name] for name in ("key", "before", "after"))
            lines.append(
                f"- from step {change['step']} on: {key} {written(before)} -> {written(after)}"
            )
    lines.append(f"- {_splits(run)}")
    init = run.meta.get("init")
    lines += ["", *_beginning(init)] if init else []
    return "\n".join(lines)


def _book(run: Run) -> str:
    """The name of the book, where it is known here."""
    return _named(run.meta["corpus"]["name"])


def _named(name: str) -> str:
    if name != EDITION:
        return _inline(name)
    return f"《红楼梦》 (Dream of the Red Chamber), chapters 1 to 80, edition {name}"


def _source(source: Mapping[str, Any]) -> str:
    """Where the book came from, without the folders of the machine that read it."""
    known = dict(source)
    if path := known.get("path"):
        known["path"] = Path(path).name
    return ", ".join(f"{name} {_inline(value)}" for name, value in known.items() if value)


def _splits(run: Run) -> str:
    try:
        return describe_split(run.reference.splits, run.meta["corpus"]["chapters"])
    except UserError:
        split = run.config.split
        if split.test or split.train:
            test = f"held out: {split.test}" if split.test else "held out: nothing by number"
            return test + (f"; trained on: {split.train}" if split.train else "")
        return (
            "held out: of ten chapters the 5th for the test and the 10th for validation"
            if split.held_out
            else "held out: nothing"
        )


def _beginning(init: Mapping[str, Any]) -> list[str]:
    """What the models that a run began with may have seen, the nearest first."""
    lines = []
    model: Mapping[str, Any] | None = init
    while model:
        name = _inline(model["name"])
        if model["kind"] == "run":
            of = _named(model["corpus"]["name"])
            lines.append(f"The training began with the run {name}, trained on {of}.")
        else:
            lines.append(f"The training began with {name}, a model of others.")
        model = model.get("init")
    if seen := init.get("seen"):
        lines.append(
            f"Held-out chapters that it had read before: {written_numbers(seen)}. Figures on them "
            "prove nothing about unseen text."
        )
    if init.get("unknown"):
        lines.append(
            "Not everything that it had read before is known; a public model has probably read a "
            "known book. Then figures on held-out chapters prove nothing about unseen text."
        )
    return lines


def _figures(run: Run) -> str:
    metrics = run.meta["metrics"]
    bits, ngram = metrics.get("val_bits_per_char"), metrics.get("ngram_bits_per_char")
    if bits is None:
        return "No validation chapter was held out: how it does on unseen text is not known."
    lines = ["| validation chapters | bits per character |", "|---|---|"]
    lines.append(f"| this model | {bits:.4f} |")
    if ngram is not None:
        lines.append(f"| character 5-gram (Kneser-Ney) of the training chapters | {ngram:.4f} |")
        more = metrics.get("ngram_with_extra_bits_per_char")
        lines += [f"| the same, with the further texts | {more:.4f} |"] if more else []
        lines += ["", f"Ratio {bits / ngram:.4f}; below 1 is better than counting."]
    return "\n".join(lines)


def _recitation(recitation: Recitation) -> str:
    if not recitation.lines:
        return f"Not measured: {_inline(recitation.missing)}."
    return "\n".join(f"- {line}" for line in recitation.lines)


def _licence(run: Run, licence: str) -> str:
    """What is and is not known about rights."""
    said = (
        "No licence was stated for these weights when they were exported."
        if licence == UNKNOWN
        else f"Whoever exported these weights states the licence `{licence}`."
    )
    about = (
        "The novel is in the public domain. Its digital edition was fetched from the package above,"
        " whose own terms hold for that text."
        if not run.config.corpus.path
        else "Whether the book is in the public domain, and on which terms its digital text may be "
        "used, is not known to the program that wrote this card."
    )
    if extra_rows(run.meta["corpus"]) or "init" in run.meta:
        about += "\nNothing is known here about the rights in further texts, or in a model before."
    return f"{said}\n{about}\nA model of one book can recite parts of it: see Recitation."


def _use(run: Run, format: str, file: str) -> str:
    prompt = _prompt(run)
    if format == "hf":
        code = [
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'folder = "."  # this folder; nothing is downloaded',
            "tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)",
            "model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)",
            f'inputs = tokenizer({prompt!r}, return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**inputs)[0]))",
            "```",
        ]
    else:
        code = [
            "```python",
            "from llama_cpp import Llama  # pip install llama-cpp-python",
            "",
            f"model = Llama({file!r}, n_ctx={run.model.cfg.block_size})",
            f'print(model.create_completion({prompt!r}, max_tokens=100)["choices"][0]["text"])',
            "```",
        ]
    lines = [
        *code,
        "",
        "Prompt it with text as the book has it, such as the beginning of a sentence or of a "
        "speech, without instructions.",
    ]
    if run.tokenizer.format == "sentencepiece":
        lines.append(
            f"`{SEPARATOR}` stands before every chapter: alone, as a prompt, it begins one. The "
            "model writes it where a chapter ends, and generation stops there."
        )
    if run.config.corpus.convert:
        lines.append(f"Convert prompts with OpenCC's {run.config.corpus.convert} as the book was.")
    return "\n".join(lines)


def _prompt(run: Run) -> str:
    """The first words of the recorded beginning of a chapter, or a speech's beginning."""
    opening = run.meta["corpus"].get("opening") or ""
    words = opening.strip().splitlines()
    return words[-1][:20] if words else "宝玉笑道：" if is_chinese(run) else "The"


def _limits(run: Run) -> str:
    block = run.model.cfg.block_size
    lines = [
        f"- It reads at most {block} tokens; longer text must be cut by the reader.",
        "- It was trained to continue a book: its names and views are those of what it has read.",
    ]
    if run.tokenizer.format == "sentencepiece":
        lines.append(
            "- A literal ▁ in a text is read as a space, and the name of a special token as that "
            "token."
        )
    return "\n".join(lines)


def _inline(value: Any) -> str:
    """A value on one line that Markdown takes as text."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(str(value).split()))
