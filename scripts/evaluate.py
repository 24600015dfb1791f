"""Bits per character of chapters or of a text: python scripts/evaluate.py --workdir runs/tiny.

--ensemble averages several runs. --adaptive, --mix_ngram and --exact add lines of their own after
the plain score. With --exact the runs may have different tokenizers.
"""

import json
from typing import Any

from hlm_jax import cli
from hlm_jax.analysis.tables import shown


def main() -> None:
    parser = cli.run_parser(__doc__, required=False)
    add = parser.add_argument
    add("--ensemble", nargs="+", default=[], metavar="W", help="runs to average (with --workdir's)")
    what = parser.add_mutually_exclusive_group()
    splits = ("train", "val", "test")
    what.add_argument("--split", choices=splits, help="chapters of the run's book (default: val)")
    what.add_argument("--text", metavar="FILE", help="a text file instead")
    add("--adaptive", action="store_true", help="also a model that learns from what it has scored")
    add("--adaptive_rate", type=float, metavar="R", help="its learning rate (default: 5e-5)")
    add("--mix_ngram", action="store_true", help="also with an n-gram model mixed in")
    add("--exact", action="store_true", help="also by characters, summed over all segmentations")
    add("--beam", type=int, metavar="N", help="of --exact: more is slower and nearer (default: 1)")
    add("--per_chapter", action="store_true", help="one row per chapter as well")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if not (args.workdir or args.ensemble):
        parser.error("give --workdir, or several runs with --ensemble")
    if args.adaptive_rate is not None and not args.adaptive:
        parser.error("--adaptive_rate is for --adaptive")
    if args.beam is not None and not args.exact:
        parser.error("--beam is for --exact")
    with cli.command("evaluate"):
        evaluate(args)


def evaluate(args) -> None:
    from hlm_jax.measures import mixture
    from hlm_jax.measures.score import total
    from hlm_jax.run import load_run

    workdirs = ([args.workdir] if args.workdir else []) + args.ensemble
    runs = [load_run(workdir, args.step, args.corpus) for workdir in workdirs]
    run = runs[0]
    for origin in filter(None, (run.origin for run in runs)):
        cli.note(f"the run {origin}")
    chapters = run.read_chapters(split=args.split, text=args.text)
    texts = [chapter.text for chapter in chapters]
    needed = args.mix_ngram or not args.text
    reference = run.reference if needed else cli.reference_or_note(run)
    reference = reference.with_readable_extra(cli.note) if reference else None
    ngram = None
    if args.mix_ngram:
        by_split = {k: [c.text for c in v] for k, v in run.reference.splits.items()}
        ngram = mixture.NgramMixture(by_split["train"], by_split["val"])
    trained = trained_on(runs, chapters)
    given = 5e-5 if args.adaptive_rate is None else args.adaptive_rate
    rate = given if args.adaptive else None
    beam = 1 if args.beam is None else args.beam
    ways: dict[str, Any] = {}
    about: dict[str, float] = {}
    if not args.exact or mixture.share_tokenizer(runs):
        ways = mixture.evaluate(runs, texts, adaptive_rate=rate, ngram=ngram)
    elif args.adaptive:
        cli.note("no adaptive score: the runs have different tokenizers")
    if args.exact:
        from hlm_jax.analysis.surprisal import characters, progress_bar

        with progress_bar("by characters") as progress:
            exact, about = characters.evaluate(
                runs, texts, beam=beam, ngram=ngram, progress=progress
            )
        ways |= exact

    def row(way, scores, texts) -> dict[str, Any]:
        by = mixture.character_figures if way.startswith("exact") else mixture.figures
        return by(total(scores), *(reference.baselines(texts) if reference else (None, None)))

    also = {way: row(way, scores, texts) for way, scores in ways.items()}
    also |= {"exact": also["exact"] | about} if args.exact else {}
    out: dict[str, Any] = {
        "workdir": shown(run.workdir),
        "step": run.step,
        "text": shown(args.text or args.split or "val"),
    }
    out |= {"ensemble": [shown(r.workdir) for r in runs]} if len(runs) > 1 else {}
    out |= {"trained_on": trained} if trained else {}
    out |= {"init": run.meta["init"]} if "init" in run.meta else {}
    first = next(iter(ways))
    out |= {"way": first} if first else {}
    out |= also.pop(first)
    out |= {"also": also} if also else {}
    rows = []
    if args.per_chapter:
        for i, chapter in enumerate(chapters):
            place = {"number": chapter.number, "heading": shown(chapter.heading)}
            more = {"exact_bits_per_char": ways["exact"][i].bits_per_char} if args.exact else {}
            rows.append(place | row(first, [ways[first][i]], [chapter.text]) | more)
        out["chapters"] = rows
    if args.json:
        print(json.dumps(out, ensure_ascii=False))
        return
    of = f"mean of {len(runs)} runs" if len(runs) > 1 else f"step {run.step}"
    of += f", {first}" if first else ""
    print(f"{out['text']}, {of}: {mixture.describe(out)}")
    for way, figures in also.items():
        print(f"  {way}: {mixture.describe(figures)}")
    for one in rows:
        print(f"  {one['number']:4d}  {mixture.describe(one)}  {one['heading']}")


def trained_on(runs, chapters) -> dict[str, list[int]]:
    """{workdir: numbers of the scored chapters that it was trained on} of the other runs.

    Says them aloud, and where that is not known.
    """
    from hlm_jax.analysis.surprisal import split_of
    from hlm_jax.errors import UserError
    from hlm_jax.numbers import written_numbers

    found = {}
    for run in runs[1:]:
        try:
            reference = run.reference
        except UserError as error:
            name = shown(run.workdir)
            cli.note(f"not known whether {name} was trained on what is scored: {error}")
            continue
        numbers = [c.number for c in chapters if split_of(c.text, reference) == "train"]
        if numbers:
            found[shown(run.workdir)] = numbers
            which = f"{'chapters' if len(numbers) > 1 else 'chapter'} {written_numbers(numbers)}"
            cli.note(
                f"TRAINED ON: {shown(run.workdir)} learned from {which} of what is scored; the "
                "mean's bits there are no measure of an unseen text"
            )
    return found


if __name__ == "__main__":
    main()
