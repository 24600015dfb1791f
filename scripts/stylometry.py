"""Stylometry of a book by counting: python scripts/stylometry.py BOOK --a 1-80 --b 81-120.

Writes tables (CSV) and pictures (PNG), described in docs/stylometry.md. Without BOOK, the default
edition. No model is needed. Config keys are set as in training.
"""

import argparse
from pathlib import Path

from hlm_jax import cli

REPO = Path(__file__).resolve().parent.parent


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("book", nargs="?", help="a text, HTML or EPUB file, or a folder (default: the edition)")
    add("--chapters", metavar="1-80", help="only these, such as 1-40,81 (default: all)")
    add("--a", metavar="1-80", help="a set of chapters, for rolling distances and Zeta")
    add("--b", metavar="81-120", help="the set to compare it with")
    add("--features", type=int, default=150, help="the most frequent n-grams (default: 150)")
    add("--ngrams", type=int, choices=(1, 2), default=1, help="single units or pairs (default: 1)")
    measures = ("delta", "cosine", "eder", "manhattan")
    add("--distance", choices=measures, default="delta", help="default: delta")
    add("--slice", type=int, default=5000, help="units of a rolling slice (default: 5000)")
    add("--step", type=int, default=1000, help="units from slice to slice (default: 1000)")
    add("--segment", type=int, default=2000, help="units of a segment of Zeta (default: 2000)")
    add("--milestones", metavar="80", help="chapters after which the curve has an upright line")
    add("--punctuation", action="store_true", help="count the editor's marks too")
    add("--out", type=Path, metavar="DIR", default="stylometry", help="default: stylometry")
    add("--stylo", type=Path, metavar="DIR", help="also write the book for R's stylo")
    args, overrides = cli.with_overrides(parser)
    with cli.command("stylometry"):
        stylometry(args, overrides)


def stylometry(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax.analysis import books
    from hlm_jax.analysis.stylometry import survey

    book = books.read_book(str(REPO / "configs/tiny.py"), overrides, args.book)
    chapters = books.select(book.chapters, args.chapters) if args.chapters else book.chapters
    sets = {
        side: books.select(book.chapters, words, f"--{side}")
        for side, words in (("a", args.a), ("b", args.b))
        if words
    }
    stones = books.select(chapters, args.milestones, "--milestones") if args.milestones else []
    settings = survey.Settings(
        features=args.features,
        n=args.ngrams,
        measure=args.distance,
        size=args.slice,
        step=args.step,
        segment=args.segment,
        punctuation=args.punctuation,
        milestones=tuple(chapter.number for chapter in stones),
    )
    found = survey.Survey(chapters, settings, **sets)
    survey.write_tables(found, args.out)
    survey.draw(found, args.out)
    for line in survey.lines(found):
        print(line)
    print(f"tables and pictures: {args.out}")
    if args.stylo:
        print(f"for R's stylo: {survey.write_stylo(found, args.stylo).parent}")


if __name__ == "__main__":
    main()
