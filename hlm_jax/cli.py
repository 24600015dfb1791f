"""What the scripts share: opening a run, prompts, sampling flags, figures without a book."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hlm_jax.errors import UserError, exit_on_user_error

if TYPE_CHECKING:  # JAX loads when a run is opened, so that help and usage errors are quick
    from hlm_jax.book.chapters import Chapter
    from hlm_jax.measures.reference import Reference
    from hlm_jax.run import Run

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def run_parser(description: str | None, *, required: bool = True) -> argparse.ArgumentParser:
    """A parser with --workdir, --step and --corpus; `description` is a script's docstring."""
    first = (description or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("--workdir", required=required, type=_path, metavar="DIR", help="the run's folder")
    add("--step", default="best", help="best, latest or a number (default: best)")
    add(
        "--corpus",
        type=_path,
        metavar="BOOK",
        help="the run's book, where it is no longer in the place that the training recorded",
    )
    return parser


def with_overrides(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """(arguments, "section.key=value" words) of a command line that takes --config.section.key.

    Usage errors exit with code 2.
    """
    words = sys.argv[1:] if argv is None else argv
    overrides = [word for word in words if word.startswith("--config.")]
    # argparse never sees them: it takes an unknown word that has a space in it for a positional.
    args, rest = parser.parse_known_args([word for word in words if word not in overrides])
    if rest:
        parser.error(
            f"unrecognized argument {rest[0]!r}: --help names all flags; config keys are set as "
            "--config.section.key=value"
        )
    return args, [word.removeprefix("--config.") for word in overrides]


def add_sampling(parser: argparse.ArgumentParser, *, num_samples: int, max_new_tokens: int) -> None:
    """Adds the flags of generation; every default of how to draw is the run's own."""
    add = parser.add_argument
    n, most = num_samples, max_new_tokens
    add("--num_samples", type=int, default=n, help=f"texts of each prompt (default: {n})")
    add("--max_new_tokens", type=int, default=most, help=f"tokens of each (default: {most})")
    add("--temperature", type=float, help="0 always takes the likeliest token (default: the run's)")
    add("--top_k", type=int, help="draw among the k likeliest; 0: all (default: the run's)")
    add("--top_p", type=float, help="draw among the likeliest that sum to p (default: the run's)")
    add("--min_p", type=float, help="drop tokens below min_p x the likeliest (default: the run's)")
    add(
        "--repetition_penalty",
        type=float,
        help="above 1 avoids what was written (default: the run's)",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same texts (default: 0)")


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Adds --prompt (repeatable) and --prompt_file."""
    add = parser.add_argument
    add("--prompt", action="append", help="text to continue; repeatable; none: begin a chapter")
    add("--prompt_file", metavar="FILE", help="a file with the text to continue; - is the input")


def prompts_of(args: argparse.Namespace) -> list[str | None]:
    """The prompts of a command line; [None] begins a chapter.

    The line end that editors put at the end of a file is no part of the prompt.

    Raises:
      UserError: the file cannot be read or is empty.
    """
    prompts: list[str] = list(args.prompt or [])
    try:
        if args.prompt_file == "-":
            prompts.append(sys.stdin.read().rstrip("\r\n"))
        elif args.prompt_file:
            from hlm_jax.book.files import read_text

            prompts.append(read_text(args.prompt_file).rstrip("\n"))
        "".join(prompts).encode()  # bytes that are no UTF-8 arrive as lone surrogates
    except UnicodeError:
        raise UserError(
            "a prompt is not text in UTF-8; save it in a file, for --prompt_file"
        ) from None
    return [*prompts] or [None]


def sampling_given(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling flags that were given, and the seed; the rest is the run's own."""
    given = {name: getattr(args, name) for name in SAMPLING}
    return {name: value for name, value in given.items() if value is not None} | {"seed": args.seed}


def at_step(word: str, step: str) -> tuple[str, str]:
    """(workdir, step) of "W" or "W@STEP"; `step` where the word names none.

    A folder whose own name has an @ is taken as it is.

    Raises:
      UserError: nothing before or behind the @.
    """
    workdir, at, own = word.rpartition("@")
    if not at or os.path.isdir(os.path.expanduser(word)):
        return word, step
    if not (workdir and own):
        raise UserError(f"{word!r} is no run: write W@STEP with a workdir and a step, or W alone")
    return workdir, own


def open_run(args: argparse.Namespace) -> "Run":
    """The run that --workdir, --step and --corpus name."""
    from hlm_jax.run import load_run

    run = load_run(args.workdir, args.step, args.corpus)
    if run.origin:
        note(f"the run {run.origin}")
    return run


def reference_or_note(run: "Run") -> "Reference | None":
    """The run's book, or None and one line on stderr that tells what is left out and why.

    A book that was given with --corpus is not optional. Of further texts that are gone a line tells
    as well.
    """
    try:
        return run.reference.with_readable_extra(note)
    except UserError as error:
        if run.corpus is not None:
            raise
        note(f"no 5-gram and no copied spans to compare with: {error}")
        return None


def note_trained_on(
    runs: "Sequence[Run]",
    chapters: "Sequence[Chapter]",
    *,
    weights: bool = False,
    text: bool = False,
) -> dict[str, list[int]]:
    """{workdir: numbers of the chapters that it was trained on} of runs.

    Says them aloud, and where that is not known.

    Args:
      runs: all to be asked; not the one whose own split chose the chapters.
      chapters: what is scored.
      weights: weights of the runs are fitted on the chapters instead.
      text: the one chapter is a text of the user's, whose number says nothing.
    """
    from hlm_jax.analysis.surprisal import split_of
    from hlm_jax.analysis.tables import shown
    from hlm_jax.numbers import written_numbers

    what = "what weights are fitted on" if weights else "what is scored"
    found = {}
    asked = {shown(run.workdir): run for run in runs}  # several steps of a run are asked once
    for name, run in asked.items():
        further = ""
        try:
            reference = run.reference
            numbers = [c.number for c in chapters if split_of(c.text, reference) == "train"]
            if text and not numbers:
                further = reference.extra_source(chapters[0].text)
                numbers = [chapters[0].number] if further else []
        except UserError as error:
            note(f"not known whether {name} was trained on {what}: {error}")
            continue
        if not numbers:
            continue
        found[name] = numbers
        which = f"{'chapters' if len(numbers) > 1 else 'chapter'} {written_numbers(numbers)}"
        whole = "the text that is scored" if text else f"{which} of {what}"
        whole += f" ({further})" if further else ""
        if weights:
            note(
                f"the weights favour {name}, which learned from {which} of {what}; the bits stay "
                "valid for unseen chapters"
            )
        else:
            note(
                f"TRAINED ON: {name} learned from {whole}; the bits are then no measure of an "
                "unseen text"
            )
    return found


def note(text: str) -> None:
    """A line on stderr that is no error."""
    print(f"note: {text}", file=sys.stderr, flush=True)


@contextmanager
def command(name: str) -> Iterator[None]:
    """Ends a command on a UserError with one line and code 2; warnings are notes of one line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        note(str(message))

    with warnings.catch_warnings(), exit_on_user_error(name):
        warnings.showwarning = show
        warnings.simplefilter("always", UserWarning)
        yield


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))
