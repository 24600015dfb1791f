"""Bits per character of chapters or of a text: python scripts/evaluate.py --workdir runs/tiny.

--ensemble averages several runs, or steps of one: runs/small@6000. --adaptive, --learn_weights,
--mix_ngram and --exact add lines of their own after the plain score. Weights for a validation
chapter are fitted on the others: "cross-fitted". With --exact the runs may have different
tokenizers.
"""

import json
from typing import Any

from hlm_jax import cli
from hlm_jax.analysis.tables import shown


def main() -> None:
    parser = cli.run_parser(__doc__, required=False)
    add = parser.add_argument
    add(
        "--ensemble",
        nargs="+",
        default=[],
        metavar="W",
        help="runs to average (with --workdir's); W@STEP for a step of its own",
    )
    what = parser.add_mutually_exclusive_group()
    splits = ("train", "val", "test")
    what.add_argument("--split", choices=splits, help="chapters of the run's book (default: val)")
    what.add_argument("--text", metavar="FILE", help="a text file instead")
    add(
        "--adaptive",
        action="store_true",
        help="also models, and an n-gram model, that learn as they read",
    )
    add(
        "--adaptive_rate",
        type=float,
        metavar="R",
        help="learning rate of the models (default: 5e-5)",
    )
    add(
        "--learn_weights",
        action="store_true",
        help="also a log-linear mixture: the product of the runs' probabilities, each to a power "
        "fitted on validation; of one run, a power of its own",
    )
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

    places = [cli.at_step(word, args.step) for word in args.ensemble]
    places[:0] = [(args.workdir, args.step)] if args.workdir else []
    runs = [load_run(workdir, step, args.corpus) for workdir, step in places]
    run = runs[0]
    opened = [(run.workdir.resolve(), run.step) for run in runs]
    for workdir, step in dict.fromkeys(opened):
        if (times := opened.count((workdir, step))) > 1:
            cli.note(f"step {step} of {shown(workdir)} is given {times} times")
    for origin in filter(None, (run.origin for run in runs)):
        cli.note(f"the run {origin}")
    chapters = run.read_chapters(split=args.split, text=args.text)
    texts = [chapter.text for chapter in chapters]
    needed = args.mix_ngram or args.learn_weights or not args.text
    reference = run.reference if needed else cli.reference_or_note(run)
    reference = reference.with_readable_extra(cli.note) if reference else None
    ngram = learn_on = None
    asked = runs if args.text and reference else runs[1:]
    trained = cli.note_trained_on(asked, chapters, text=bool(args.text))
    weights_trained = {}
    by_tokens = not args.exact or mixture.share_tokenizer(runs)
    if args.mix_ngram or args.learn_weights:
        by_split = {k: [c.text for c in v] for k, v in run.reference.splits.items()}
        learn_on = by_split["val"] if args.learn_weights else None
        ngram = mixture.NgramMixture(by_split["train"], by_split["val"]) if args.mix_ngram else None
        if args.split not in (None, "val") or args.text:
            validation = run.reference.splits["val"]
            weights_trained = cli.note_trained_on(runs[1:], validation, weights=True)
        # Without a validation chapter the mixtures themselves refuse.
        if by_split["val"] and not mixture.can_cross_fit(texts, by_split["val"]):
            cli.note(f"no weights are fitted: {mixture.NOT_CROSS_FITTED}")
            ngram = learn_on = None
    learning_rate = 5e-5 if args.adaptive_rate is None else args.adaptive_rate
    rate = learning_rate if args.adaptive else None
    beam = 1 if args.beam is None else args.beam
    ways: dict[str, mixture.Way] = {}
    about: dict[str, float] = {}
    if by_tokens:
        ways = mixture.evaluate(runs, texts, adaptive_rate=rate, ngram=ngram, learn_on=learn_on)
    if args.exact:
        from hlm_jax.analysis.surprisal import exact as by_characters
        from hlm_jax.analysis.surprisal import progress_bar

        with progress_bar("by characters") as progress:
            exact, about = by_characters.evaluate(
                runs,
                texts,
                beam=beam,
                ngram=ngram,
                learn_on=learn_on,
                adaptive_rate=rate,
                progress=progress,
            )
        ways |= exact

    def row(way, scores, texts) -> dict[str, Any]:
        by = mixture.character_figures if "exact" in way else mixture.figures
        return by(total(scores), *(reference.baselines(texts) if reference else (None, None)))

    also = {name: row(name, way.scores, texts) for name, way in ways.items()}
    for name, way in ways.items():
        if way.weights:
            also[name] |= {"weights": way.weights, "cross_fitted": way.cross_fitted}
    also |= {"exact": also["exact"] | about} if args.exact else {}
    out: dict[str, Any] = {
        "workdir": shown(run.workdir),
        "step": run.step,
        "text": shown(args.text or args.split or "val"),
    }
    if len(runs) > 1:
        out["ensemble"] = [shown(r.workdir) for r in runs]
        out["ensemble_steps"] = [r.step for r in runs]
    out |= {"trained_on": trained} if trained else {}
    out |= {"weights_trained_on": weights_trained} if weights_trained else {}
    out |= {"init": run.meta["init"]} if "init" in run.meta else {}
    first = next(iter(ways))
    out |= {"way": first} if first else {}
    out |= also.pop(first)
    out |= {"also": also} if also else {}
    rows = []
    if args.per_chapter:
        for i, chapter in enumerate(chapters):
            place = {"number": chapter.number, "heading": shown(chapter.heading)}
            one = place | row(first, [ways[first].scores[i]], [chapter.text])
            if args.exact:
                one["exact_bits_per_char"] = ways["exact"].scores[i].bits_per_char
            rows.append(one)
        out["chapters"] = rows
    if args.json:
        print(json.dumps(out, ensure_ascii=False))
        return
    of = f"mean of {len(runs)} runs" if len(runs) > 1 else f"step {run.step}"
    of += f", {first}" if first else ""
    print(f"{out['text']}, {of}: {mixture.describe(out)}")
    for name, figures in also.items():
        print(f"  {ways[name].label(name)}: {mixture.describe(figures)}")
    for one in rows:
        print(f"  {one['number']:4d}  {mixture.describe(one)}  {one['heading']}")


if __name__ == "__main__":
    main()
