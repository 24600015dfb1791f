"""Bits per character of chapters or of a text: python scripts/evaluate.py --workdir runs/tiny.

--ensemble averages several runs. --adaptive and --mix_ngram add lines of their own after the plain
score.
"""

import json
from typing import Any

from hlm_jax import cli


def main() -> None:
    parser = cli.run_parser(__doc__, required=False)
    add = parser.add_argument
    add("--ensemble", nargs="+", default=[], metavar="W", help="runs to average (with --workdir's)")
    what = parser.add_mutually_exclusive_group()
    splits = ("train", "val", "test")
    what.add_argument("--split", choices=splits, help="chapters of the run's book (default: val)")
    what.add_argument("--text", metavar="FILE", help="a text file instead")
    add("--adaptive", action="store_true", help="also a model that learns from what it has scored")
    add("--adaptive_rate", type=float, default=5e-5, help="its learning rate (default: 5e-5)")
    add("--mix_ngram", action="store_true", help="also with an n-gram model of tokens mixed in")
    add("--per_chapter", action="store_true", help="one row per chapter as well")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if not (args.workdir or args.ensemble):
        parser.error("give --workdir, or several runs with --ensemble")
    with cli.command("evaluate"):
        evaluate(args)


def evaluate(args) -> None:
    from hlm_jax.measures import mixture
    from hlm_jax.measures.score import total
    from hlm_jax.run import load_run

    workdirs = ([args.workdir] if args.workdir else []) + args.ensemble
    runs = [load_run(workdir, args.step, args.corpus) for workdir in workdirs]
    run = runs[0]
    chapters = run.read_chapters(split=args.split, text=args.text)
    texts = [chapter.text for chapter in chapters]
    needed = args.mix_ngram or not args.text
    reference = run.reference if needed else cli.reference_or_note(run)
    ngram = None
    if args.mix_ngram:
        by_split = {k: [c.text for c in v] for k, v in run.reference.splits.items()}
        ngram = mixture.NgramMixture(by_split["train"], by_split["val"])
    rate = args.adaptive_rate if args.adaptive else None
    ways = mixture.evaluate(runs, texts, adaptive_rate=rate, ngram=ngram)

    def row(score, texts) -> dict[str, Any]:
        baseline = reference.baseline_bits_per_char(texts) if reference else None
        return mixture.figures(score, baseline)

    also = {way: row(total(scores), texts) for way, scores in ways.items()}
    out: dict[str, Any] = {
        "workdir": str(run.workdir),
        "step": run.step,
        "text": args.text or args.split or "val",
    }
    out |= {"ensemble": [str(r.workdir) for r in runs]} if len(runs) > 1 else {}
    out |= also.pop("")
    out |= {"also": also} if also else {}
    rows = []
    if args.per_chapter:
        for chapter, score in zip(chapters, ways[""], strict=True):
            place = {"number": chapter.number, "heading": chapter.heading}
            rows.append(place | row(score, [chapter.text]))
        out["chapters"] = rows
    if args.json:
        print(json.dumps(out, ensure_ascii=False))
        return
    of = f"mean of {len(runs)} runs" if len(runs) > 1 else f"step {run.step}"
    print(f"{out['text']}, {of}: {mixture.describe(out)}")
    for way, figures in also.items():
        print(f"  {way}: {mixture.describe(figures)}")
    for one in rows:
        print(f"  {one['number']:4d}  {mixture.describe(one)}  {one['heading']}")


if __name__ == "__main__":
    main()
