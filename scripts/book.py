"""Looks at a book before it is trained on: python scripts/book.py BOOK.

Prints how it was read, its chapters, what was left out and what looks wrong. BOOK is a file or a
folder; without it, the default edition. Config keys are set as in training.
"""

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from hlm_jax import cli

REPO = Path(__file__).resolve().parent.parent


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        description=first,
        allow_abbrev=False,
        epilog="Config keys: --config.corpus.heading=PATTERN, --config.corpus.convert=t2s, …",
    )
    add = parser.add_argument
    add("book", nargs="?", help="a text, HTML or EPUB file, or a folder of them")
    tiny = str(REPO / "configs/tiny.py")
    add("--config", default=tiny, metavar="FILE", help="default: configs/tiny.py")
    add("--write", metavar="DIR", help="write the chapters as files, to correct them by hand")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument(
        "--settings",
        action="store_true",
        help="print only the config keys that suit the book's length, as words for training",
    )
    how.add_argument(
        "--stats",
        metavar="FILE.csv",
        help="write each chapter's figures as a table, and nothing else (docs/stylometry.md)",
    )
    args, overrides = cli.with_overrides(parser)
    if args.book and any(word.startswith("corpus.path=") for word in overrides):
        parser.error("give the book once: as BOOK or as --config.corpus.path")
    if args.book == "" or "corpus.path=" in overrides:
        parser.error("the name of the book is empty")
    if args.stats and args.write:
        parser.error("give --stats and --write one after the other")
    with cli.command("book"):
        look(args, overrides + ([f"corpus.path={args.book}"] if args.book else []))


def look(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax import config as configs
    from hlm_jax.book import corpus, report
    from hlm_jax.book.fitting import fitting_settings
    from hlm_jax.book.splits import split_chapters
    from hlm_jax.errors import UserError
    from hlm_jax.measures.leakage import find_leakage, problems, refuse

    config = configs.load_config(args.config, overrides)
    if args.write and list(Path(os.path.expanduser(args.write)).glob("*")):
        raise UserError(f"--write: {args.write} is not empty: give a new folder")
    book = corpus.load_corpus(**configs.book_arguments(config), strict=False)
    if args.stats:
        from hlm_jax.analysis.stylometry.statistics import write_statistics

        print(f"{len(book.chapters)} chapters: {write_statistics(args.stats, book.chapters)}")
        return
    splits = split_chapters(book.chapters, **config.split)
    texts = [chapter.text for chapter in splits["train"]]
    warnings = book.report["warnings"]
    leakage = find_leakage(splits)
    warnings += problems(leakage)
    refusal, per_character = book.problem, None
    settings: dict[str, Any] = {}
    try:
        tokenizer, settings = fitting_settings(
            texts,
            vocab_size=config.model.vocab_size,
            character_coverage=config.tokenizer.character_coverage,
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
            steps=config.train.steps,
            eval_every_steps=config.train.eval_every_steps,
            fixed=[word.split("=")[0] for word in overrides],
        )
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        per_character = round(tokens / sum(map(len, texts)), 4)
        refuse(leakage)
    except UserError as error:  # training ends with it; looking goes on
        refusal = refusal or str(error)
    if refusal and refusal not in warnings:
        warnings.append(refusal)
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    if args.settings:
        print(" ".join(words))
    elif args.json:
        print(json.dumps(report.as_json(book, splits, per_character, settings), ensure_ascii=False))
    else:
        advice = []
        if refusal:
            warnings.remove(refusal)
            advice = [f"error: training refuses this: {refusal}"]
        elif not args.write:
            given = [f"--config.{word}" for word in overrides]
            advice = [f"train on it: {call('bash', 'quickstart.sh', *given)}"]
            if words:
                advice.append(f"which sets, for a book of this length: {' '.join(words)}")
        print(report.full(book, splits, per_character, advice))
    if args.write:
        folder = str(corpus.write_chapters(book, args.write))
        cli.note(
            f"wrote {len(book.chapters)} files: correct them; look again: "
            f"{call('python', 'book.py', folder)}; then train on them: "
            f"{call('bash', 'quickstart.sh', folder)}"
        )


def call(program: str, script: str, *words: str) -> str:
    """How a script is called from the current folder."""
    return shlex.join([program, os.path.relpath(REPO / "scripts" / script), *words])


if __name__ == "__main__":
    main()
