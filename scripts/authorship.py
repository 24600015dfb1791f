"""Who wrote it: python scripts/authorship.py --text BOOK --a 1-80 --b 81-120 --out DIR.

Tells two sets of chapters apart by models that never saw the chapter they judge, beside controls,
masks and other boundaries. Without --text, --a and --b are folders or files. Writes
authorship.csv, summary.json and report.html. Config keys are set as in training.
"""

import argparse
from pathlib import Path

from hlm_jax import cli


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("--text", metavar="BOOK", help="a text, HTML or EPUB file, or a folder of them")
    add("--a", required=True, help="chapters of side A, such as 1-80; or a folder or file")
    add("--b", required=True, help="chapters of side B; or a folder or file")
    add("--unknown", action="append", default=[], metavar="FILE", help="place this too; repeatable")
    add("--folds", type=int, default=10, metavar="K", help="of the n-gram models (default: 10)")
    add("--mask", default="", help="names,punctuation,verse,headings: left out of every text")
    add("--names", metavar="FILE", help="personal names, one a line (default: who speaks)")
    words = "halves, odd/even, random, or chapters such as 1-40/41-80 (default: the first three)"
    add("--controls", nargs="*", metavar="C", help=words)
    add("--random", type=int, default=5, metavar="N", help="draws of random halves (default: 5)")
    add("--allow_editions", action="store_true", help="go on with two editions")
    add("--models", default="ngram", help="ngram, or ngram,gpt (default: ngram)")
    add("--config", default="configs/tiny.py", metavar="FILE", help="of the GPT; its default book")
    add("--gpt_folds", type=int, default=5, metavar="K", help="of the GPT models (default: 5)")
    add("--gpt_controls", type=int, default=1, metavar="N", help="halves by GPTs too (default: 1)")
    add("--out", type=Path, required=True, metavar="DIR", help="gets the three files")
    args, overrides = cli.with_overrides(parser)
    with cli.command("authorship"):
        from hlm_jax.authors import authorship

        for line in authorship(args, overrides):
            print(line)


if __name__ == "__main__":
    main()
