"""What every token or character costs a model: python scripts/surprisal.py --workdir runs/tiny.

Prints a summary. Tables, pages and stimuli are described in docs/surprisal.md.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from hlm_jax import cli
from hlm_jax.analysis.tables import shown


def main() -> None:
    parser = cli.run_parser(__doc__, required=False)
    add = parser.add_argument
    add("--folds", metavar="DIR", help="fold models: each chapter by one that never saw it")
    what = parser.add_mutually_exclusive_group()
    splits = ("train", "val", "test", "all")
    what.add_argument("--split", choices=splits, help="chapters of the run's book (default: val)")
    what.add_argument("--text", nargs="+", default=[], metavar="FILE", help="text files instead")
    what.add_argument("--stimuli", metavar="CSV", help="regions of the texts of a CSV file instead")
    add("--chapters", default="", metavar="3,5-7", help="only these (of all, without --split)")
    add("--unit", choices=("token", "char"), default="token", help="of a row (default: token)")
    add("--top", type=int, default=0, metavar="N", help="also the N likeliest units (default: 0)")
    add("--stride", type=int, metavar="N", help="tokens from window to window (half a block)")
    add("--out", action="append", default=[], metavar="FILE", help=".csv, .json or .parquet")
    add("--per_chapter", metavar="FILE", help="the chapters' sums, likewise")
    add("--bom", action="store_true", help="begin a CSV with a byte order mark, for Excel")
    add("--html", metavar="FILE", help="a page with the text in colours")
    add(
        "--minus", type=Path, metavar="DIR", help="another run, for the page's colours of A minus B"
    )
    add("--json", action="store_true", help="print the summary as one JSON object")
    args = parser.parse_args()
    if bool(args.workdir) == bool(args.folds):
        parser.error("give --workdir or --folds, one of them")
    if args.folds and (args.split or args.text or args.stimuli):
        parser.error("--folds scores the book: leave out --split, --text and --stimuli")
    if args.minus and not (args.html and args.workdir):
        parser.error("--minus is for --html and --workdir")
    if args.stimuli and (args.html or args.per_chapter or args.top or args.chapters):
        parser.error("--stimuli has no --html, --per_chapter, --top or --chapters")
    if args.folds and args.step != "best":
        parser.error("--step is of one run: leave it out with --folds")
    written = [*args.out, *filter(None, [args.per_chapter])]
    if args.bom and not any(path.lower().endswith(".csv") for path in written):
        parser.error("--bom is for a CSV: give --out or --per_chapter a name that ends in .csv")
    with cli.command("surprisal"):
        check_outputs(written, args.html)
        stimuli(args) if args.stimuli else surprisal(args)


def check_outputs(tables: Sequence[str], page: str | None) -> None:
    """Refuses names that cannot be written before anything is scored."""
    from hlm_jax.analysis.columns import check_output
    from hlm_jax.analysis.tables import check_place

    for path in tables:
        check_output(path)
    if page:
        check_place(page)


def page_names(first: Path, second: Path) -> list[str]:
    """The shortest ends of two paths that tell them apart; numbers where it is one folder."""
    parts = [path.resolve().parts for path in (first, second)]
    for n in range(1, max(map(len, parts)) + 1):
        names = [shown(Path(*of[-n:])) for of in parts]
        if names[0] != names[1]:
            return names
    return [f"{shown(first.resolve().name)} ({k})" for k in (1, 2)]


def surprisal(args: argparse.Namespace) -> None:
    from hlm_jax.analysis.surprisal import report

    table, rows = fold_table(args) if args.folds else run_table(args)
    found = report.summary(table, rows)
    for path in args.out:
        table.write(path, bom=args.bom)
    if args.per_chapter:
        report.chapter_table(found["chapters"]).write(args.per_chapter, bom=args.bom)
    if args.html:
        from hlm_jax.analysis.page import write
        from hlm_jax.analysis.page.heatmap import heatmap

        tables = {shown(args.workdir.resolve().name) if args.workdir else "folds": table}
        if args.minus:
            other = argparse.Namespace(**vars(args) | {"workdir": args.minus})
            own, name = page_names(args.workdir, args.minus)
            tables = {own: table, name: run_table(other)[0]}
            for line in report.warning(report.summary(tables[name])):
                cli.note(f"{name}: {line}")
        write(args.html, heatmap(tables, title=f"Surprisal: {table.documents[0].name}"))
    short = bool(args.out or args.html)
    print(
        json.dumps(found, ensure_ascii=False) if args.json else report.describe(found, short=short)
    )


def run_table(args: argparse.Namespace):
    from hlm_jax.analysis.surprisal import documents_of, surprisal_table
    from hlm_jax.measures.progress import progress_bar

    run = cli.open_run(args)
    reference = cli.reference_or_note(run) if args.text else run.reference
    documents = documents_of(
        run, split=args.split, texts=args.text, chapters=args.chapters, reference=reference
    )
    with progress_bar("scoring") as progress:
        options = {"unit": args.unit, "top": args.top, "stride": args.stride}
        table = surprisal_table(run, documents, reference=reference, progress=progress, **options)
    return table, None


def fold_table(args: argparse.Namespace):
    from hlm_jax.analysis.surprisal.crossfit import cross_fitted
    from hlm_jax.folds import open_folds
    from hlm_jax.measures.progress import progress_bar

    runs = open_folds(args.folds, corpus=args.corpus)
    with progress_bar("scoring") as progress:
        options = {"unit": args.unit, "top": args.top, "stride": args.stride}
        found = cross_fitted(runs, chapters=args.chapters, progress=progress, **options)
    return found.table, found.chapters


def stimuli(args: argparse.Namespace) -> None:
    from hlm_jax.analysis.surprisal.report import describe_regions
    from hlm_jax.analysis.surprisal.stimuli import read_stimuli, regions

    items = read_stimuli(args.stimuli)
    run = cli.open_run(args)
    reference = cli.reference_or_note(run)
    table = regions(run, items, unit=args.unit, stride=args.stride, reference=reference)
    for path in args.out:
        table.write(path, bom=args.bom)
    if args.json:
        rows = list(table.known_rows())
        print(json.dumps({"notes": table.notes, "regions": rows}, ensure_ascii=False))
    elif not args.out:
        print(describe_regions(table))


if __name__ == "__main__":
    main()
