"""Looks at a book before it is trained on: python scripts/book.py BOOK.

Prints how it was read, its chapters, what was left out and what looks wrong. BOOK is a file or a
folder; without it, the default edition. Config keys are set as in training.
"""

import argparse
import json
import shlex
from typing import Any

from hlm_jax import cli


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        description=first,
        allow_abbrev=False,
        epilog="Config keys: --config.corpus.heading=PATTERN, --config.corpus.convert=t2s, …",
    )
    add = parser.add_argument
    add("book", nargs="?", default="", help="a text, HTML or EPUB file, or a folder of them")
    add("--config", default="configs/tiny.py", metavar="FILE", help="default: configs/tiny.py")
    add("--write", metavar="DIR", help="write the chapters as files, to correct them by hand")
    add("--json", action="store_true", help="print one JSON object")
    add(
        "--settings",
        action="store_true",
        help="print only the config keys that suit the book's length, as words for training",
    )
    args, overrides = cli.with_overrides(parser, None)
    with cli.command("book"):
        look(args, overrides)


def look(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax import config as configs
    from hlm_jax.book import corpus, report
    from hlm_jax.book.fitting import fitting_settings
    from hlm_jax.book.tokenizer import TokenizerError
    from hlm_jax.measures.leakage import find_leakage, problems

    if args.book:
        overrides = [*overrides, f"corpus.path={args.book}"]
    config = configs.load_config(args.config, overrides)
    book = corpus.load_corpus(**config.corpus, strict=False)
    splits = corpus.split_chapters(book.chapters, **config.split)
    book.report["warnings"] += problems(find_leakage(splits))
    settings: dict[str, Any] = {}
    per_character = None
    texts = [chapter.text for chapter in splits["train"]]
    try:
        tokenizer, settings = fitting_settings(
            texts,
            vocab_size=config.model.vocab_size,
            character_coverage=config.tokenizer.character_coverage,
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
            steps=config.train.steps,
        )
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        per_character = round(tokens / sum(map(len, texts)), 4)
    except TokenizerError as error:
        book.report["warnings"].append(str(error))
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    if args.settings:
        print(" ".join(words))
        return
    if args.json:
        print(json.dumps(report.as_json(book, splits, per_character, settings), ensure_ascii=False))
    else:
        given = [f"--config.{word}" for word in overrides]
        train = shlex.join(["bash", "scripts/quickstart.sh", *given])
        advice = [f"train on it: {train}"] if per_character else []
        if words:
            advice.append(f"which sets, for a book of this length: {' '.join(words)}")
        print(report.full(book, splits, per_character, advice))
    if args.write:
        folder = corpus.write_chapters(book, args.write)
        cli.note(f"wrote {len(book.chapters)} files; use --config.corpus.path={folder}")


if __name__ == "__main__":
    main()
