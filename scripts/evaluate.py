"""Bits per character of held-out chapters or any text: python scripts/evaluate.py --workdir runs/tiny --split val.

Several runs are averaged with --ensemble; --adaptive and --mix_ngram add lines of their own beside the plain score.
"""

import argparse
import json
from pathlib import Path

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", help="the run's folder")
    parser.add_argument(
        "--ensemble",
        nargs="+",
        default=[],
        metavar="W",
        help="runs whose probabilities are averaged (with --workdir's)",
    )
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="chapters of the run's own book (default: val)",
    )
    what.add_argument("--text", metavar="FILE", help="a text file instead")
    parser.add_argument(
        "--adaptive",
        action="store_true",
        help="also score a model that goes on learning from what it has scored",
    )
    parser.add_argument(
        "--adaptive_rate", type=float, default=5e-5, help="its learning rate (default: 5e-5)"
    )
    parser.add_argument(
        "--mix_ngram",
        action="store_true",
        help="also mix in an n-gram model of tokens, its weight fitted on validation",
    )
    parser.add_argument("--per_chapter", action="store_true", help="one row per chapter as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if not (args.workdir or args.ensemble):
        parser.error("give --workdir, or several runs with --ensemble")
    with exit_on_user_error("evaluate"):
        evaluate(args)


def evaluate(args) -> None:
    import numpy as np

    from hlm_jax.book.corpus import Chapter, read_text
    from hlm_jax.errors import UserError
    from hlm_jax.measures.ngram import KneserNey
    from hlm_jax.measures.score import encode, fit_weight, mix, scores, total
    from hlm_jax.run import load_run

    runs = [
        load_run(workdir, args.step)
        for workdir in ([args.workdir] if args.workdir else []) + args.ensemble
    ]
    run = runs[0]
    for other in runs[1:]:
        if other.tokenizer.fingerprint != run.tokenizer.fingerprint:
            raise UserError(
                f"{other.workdir} has another tokenizer than {run.workdir}: their tokens' probabilities cannot be averaged"
            )
    if args.text:
        chapters = [Chapter(1, Path(args.text).name, read_text(Path(args.text)))]
    else:
        chapters = run.chapters[args.split or "val"]
        if not chapters:
            raise UserError(
                f"this run holds no {args.split or 'val'} chapters out: use --split train or --text FILE"
            )
    texts = [chapter.text for chapter in chapters]
    floors = [run.floor.bits(text) / len(text) for text in texts]
    floor = run.floor.bits_per_char(texts)

    def nats_of(texts, adaptive=False):
        """The ensemble's nats of every token of every text."""
        sequences = encode(run.tokenizer, texts)
        if adaptive:
            found = [
                r.evaluator.adaptive_token_nats(
                    r.device_params, sequences, learning_rate=args.adaptive_rate
                )
                for r in runs
            ]
        else:
            found = [r.evaluator.token_nats(r.device_params, sequences) for r in runs]
        return mix(found, [1 / len(runs)] * len(runs))

    ways = {"": nats_of(texts)}
    if args.adaptive:
        ways["adaptive"] = nats_of(texts, adaptive=True)
    if args.mix_ngram:
        validation = [chapter.text for chapter in run.chapters["val"]]
        if not validation:
            raise UserError(
                "this run holds no validation chapters out, on which the n-gram model's weight could be fitted"
            )
        training = [run.tokenizer.encode(chapter.text) for chapter in run.chapters["train"]]
        ngram = KneserNey(training, alphabet_size=run.tokenizer.vocab_size)
        of = lambda texts: [
            -np.log(ngram.probabilities(run.tokenizer.encode(text))) for text in texts
        ]  # noqa: E731
        on_val = args.split in (None, "val") and not args.text
        for way in list(ways):
            val_nats = ways[way] if on_val else nats_of(validation, adaptive=bool(way))
            weight = fit_weight(val_nats, of(validation))
            name = " + ".join(filter(None, [way, f"n-gram of tokens (weight {weight:.3f})"]))
            ways[name] = mix([ways[way], of(texts)], [1 - weight, weight])

    def row(score, floor_bits_per_char):
        return {
            "bits_per_char": score.bits_per_char,
            "nats_per_token": score.nats_per_token,
            "tokens": score.tokens,
            "chars": score.chars,
            "ngram_bits_per_char": floor_bits_per_char,
        }

    by_way = {way: scores(nats, texts) for way, nats in ways.items()}
    out = {"workdir": str(run.workdir), "step": run.step, "text": args.text or args.split or "val"}
    out |= {"ensemble": [str(r.workdir) for r in runs]} if len(runs) > 1 else {}
    out |= row(total(by_way[""]), floor)
    out |= (
        {"also": {way: row(total(found), floor) for way, found in by_way.items() if way}}
        if len(by_way) > 1
        else {}
    )
    if args.per_chapter:
        out["chapters"] = [
            {"number": chapter.number, "heading": chapter.heading} | row(score, chapter_floor)
            for chapter, score, chapter_floor in zip(chapters, by_way[""], floors, strict=True)
        ]
    if args.json:
        print(json.dumps(out, ensure_ascii=False))
        return
    print(
        f"{out['text']}, "
        + (f"mean of {len(runs)} runs" if len(runs) > 1 else f"step {out['step']}")
        + f": {_line(out)}"
    )
    for way, found in out.get("also", {}).items():
        print(f"  {way}: {_line(found)}")
    for chapter in out.get("chapters", []):
        print(f"  {chapter['number']:4d}  {_line(chapter)}  {chapter['heading']}")


def _line(row) -> str:
    ratio = row["bits_per_char"] / row["ngram_bits_per_char"]
    return (
        f"{row['bits_per_char']:.4f} bits/char (5-gram {row['ngram_bits_per_char']:.4f}, ratio {ratio:.4f}), "
        f"{row['nats_per_token']:.4f} nats/token, {row['tokens']:,} tokens, {row['chars']:,} characters"
    )


if __name__ == "__main__":
    main()
