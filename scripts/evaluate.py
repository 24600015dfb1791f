"""Bits per character of held-out chapters or any text: python scripts/evaluate.py --workdir runs/tiny --split val."""

import argparse
import json
from pathlib import Path

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--split", choices=("train", "val", "test"), help="chapters of the run's own book (default: val)")
    what.add_argument("--text", metavar="FILE", help="a text file instead")
    parser.add_argument("--per_chapter", action="store_true", help="one row per chapter as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with exit_on_user_error("evaluate"):
        evaluate(args)


def evaluate(args) -> None:
    from hlm_jax.corpus import Chapter, read_text
    from hlm_jax.errors import UserError
    from hlm_jax.evaluate import total
    from hlm_jax.run import load_run

    run = load_run(args.workdir, args.step)
    if args.text:
        chapters = [Chapter(1, Path(args.text).name, read_text(Path(args.text)))]
    else:
        chapters = run.chapters[args.split or "val"]
        if not chapters:
            raise UserError(f"this run holds no {args.split or 'val'} chapters out: use --split train or --text FILE")
    texts = [chapter.text for chapter in chapters]
    scores = run.score(texts)
    floors = [run.floor.bits(text) / len(text) for text in texts]

    def row(score, floor_bits_per_char):
        return {
            "bits_per_char": score.bits_per_char,
            "nats_per_token": score.nats_per_token,
            "tokens": score.tokens,
            "chars": score.chars,
            "ngram_bits_per_char": floor_bits_per_char,
        }

    out = {"workdir": str(args.workdir), "step": run.step, "text": args.text or args.split or "val"}
    out |= row(total(scores), run.floor.bits_per_char(texts))
    if args.per_chapter:
        out["chapters"] = [
            {"number": chapter.number, "heading": chapter.heading} | row(score, floor)
            for chapter, score, floor in zip(chapters, scores, floors, strict=True)
        ]
    if args.json:
        print(json.dumps(out, ensure_ascii=False))
        return
    print(f"{out['text']}, step {out['step']}: {_line(out)}")
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
