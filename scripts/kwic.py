"""Every occurrence of a word with its context: python scripts/kwic.py 笑道 --text BOOK.

Then how often it stands in the book, and where. Without --text, the default edition. No model is
needed. Config keys are set as in training.
"""

import argparse
from pathlib import Path

from hlm_jax import cli

REPO = Path(__file__).resolve().parent.parent


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("words", nargs="+", metavar="WORD", help="what to look for; several are found together")
    add("--text", metavar="BOOK", help="a file or a folder (default: the edition)")
    add("--only", metavar="1-80", help="only these chapters, such as 1-40,81")
    add("--width", type=int, default=15, help="characters on each side (default: 15)")
    add("--sort", choices=("left", "right", "place"), default="place", help="default: place")
    add("--regex", action="store_true", help="words are regular expressions")
    add("--chapters", action="store_true", help="also the count of every chapter")
    add("--csv", metavar="FILE", help="write the occurrences as a table")
    add("--png", metavar="FILE", help="write a picture of where they stand")
    args, overrides = cli.with_overrides(parser)
    if args.png and not args.png.lower().endswith(".png"):
        parser.error(f"--png {args.png}: the picture is a PNG, give it a name that ends in .png")
    with cli.command("kwic"):
        kwic(args, overrides)


def kwic(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax.analysis import books
    from hlm_jax.analysis.stylometry import concordance

    book = books.read_book(str(REPO / "configs/tiny.py"), overrides, args.text)
    chapters = books.select(book.chapters, args.only, "--only") if args.only else book.chapters
    search = {"width": args.width, "sort": args.sort, "regex": args.regex}
    hits = concordance.kwic(chapters, args.words, **search)
    for line in concordance.lines(hits):
        print(line)
    spread = {
        word: concordance.kwic(chapters, word, regex=args.regex, width=0)
        for word in dict.fromkeys(args.words)
    }
    for line in concordance.summary(chapters, spread, per_chapter=args.chapters):
        print(line)
    if args.csv:
        print(f"table: {concordance.write_hits(args.csv, hits)}")
    if args.png:
        print(f"picture: {concordance.draw(args.png, chapters, spread, book.name)}")


if __name__ == "__main__":
    main()
