"""Bits per character of chapters or of a text: python scripts/evaluate.py --workdir runs/tiny.

--ensemble averages several runs, or steps of one: runs/small@6000. --adaptive, --learn_weights,
--mix_ngram and --exact add lines of their own after the plain score. Weights for a validation
chapter are fitted on the others: "cross-fitted". With --exact the runs may have different
tokenizers.
"""

import json

from hlm_jax import cli


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
    add("--adaptive_rate", type=float, metavar="R", help="learning rate (default: 5e-5)")
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
        from hlm_jax import evaluation
        from hlm_jax.run import load_run

        places = [cli.at_step(word, args.step) for word in args.ensemble]
        places[:0] = [(args.workdir, args.step)] if args.workdir else []
        runs = [load_run(workdir, step, args.corpus) for workdir, step in places]
        for run in runs:
            if run.origin:
                cli.note(f"the run {run.origin}")
        rate = 5e-5 if args.adaptive_rate is None else args.adaptive_rate
        beam = 1 if args.beam is None else args.beam
        found = evaluation.evaluate(
            runs,
            split=args.split,
            text=args.text,
            adaptive_rate=rate if args.adaptive else None,
            learn_weights=args.learn_weights,
            mix_ngram=args.mix_ngram,
            beam=beam if args.exact else None,
            per_chapter=args.per_chapter,
        )
        print(json.dumps(found, ensure_ascii=False) if args.json else evaluation.describe(found))


if __name__ == "__main__":
    main()
