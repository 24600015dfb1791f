"""How much of a generated or given text is recitation: python scripts/novelty.py --workdir runs/tiny [--text FILE].

Beside every figure stands the human row: real chapters that the training text lacks. Copied spans are shown in ⟦ ⟧.
"""

import argparse
import json
from pathlib import Path

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    parser.add_argument(
        "--text", metavar="FILE", help="measure this text instead of generated ones"
    )
    parser.add_argument(
        "--prompt", help="what the generated texts continue (default: each begins a chapter)"
    )
    parser.add_argument("--num_samples", type=int, default=8, help="texts to generate (default: 8)")
    parser.add_argument(
        "--max_new_tokens", type=int, default=500, help="tokens of each (default: 500)"
    )
    parser.add_argument(
        "--temperature", type=float, help="default: the run's own, config.sample.temperature"
    )
    parser.add_argument("--top_p", type=float, help="default: the run's own, config.sample.top_p")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same texts (default: 0)"
    )
    parser.add_argument(
        "--show", type=int, default=1, help="texts to print, copied spans marked (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with exit_on_user_error("novelty"):
        novelty(args)


def novelty(args) -> None:
    import dataclasses

    import numpy as np

    from hlm_jax.book.corpus import read_text
    from hlm_jax.errors import UserError
    from hlm_jax.measures.overlap import ORDERS, SPAN, mark
    from hlm_jax.run import describe_extraction, load_run

    run = load_run(args.workdir, args.step)
    if args.text:
        texts = [read_text(Path(args.text))]
    else:
        if args.num_samples < 1:
            raise UserError(f"--num_samples must be at least 1, not {args.num_samples}")
        texts = run.generate(
            args.prompt,
            num_samples=args.num_samples,
            max_new_tokens=args.max_new_tokens,
            seed=args.seed,
            temperature=run.config.sample.temperature
            if args.temperature is None
            else args.temperature,
            top_p=run.config.sample.top_p if args.top_p is None else args.top_p,
        )
    first, *others = [run.training_text.measure(text) for text in texts]
    found, human = sum(others, first), run.human_row
    extraction = {split: run.extraction(split) for split in ("train", "val") if run.chapters[split]}

    def row(novelty):
        lengths = novelty.longest_lengths()
        return {
            "chars": novelty.chars,
            "seen": {n: novelty.seen_share(n) for n in ORDERS},
            "copied_share": novelty.copied_share,
            "longest_per_500": {
                "median": float(np.median(lengths)),
                "p90": float(np.percentile(lengths, 90)),
                "max": int(lengths.max()),
            },
        }

    what = args.text or f"{len(texts)} generated texts"
    rows = {what: row(found)} | ({"held-out chapters": row(human)} if human else {})
    if args.json:
        copied = [{"start": s.start, "end": s.end, "chapter": s.chapter} for s in found.spans]
        out = {
            "workdir": str(args.workdir),
            "step": run.step,
            "found": rows[what],
            "human": rows.get("held-out chapters"),
            "spans": copied,
        }
        out["extraction"] = {split: dataclasses.asdict(e) for split, e in extraction.items()}
        print(json.dumps(out, ensure_ascii=False))
        return
    print(
        f"n-grams that stand in the training text, characters in copied spans of {SPAN}+, longest copied span per 500 characters\n"
    )
    print(
        "| text | characters | "
        + " | ".join(f"{n}-grams" for n in ORDERS)
        + f" | in spans {SPAN}+ | longest: median, 90 %, max |"
    )
    print("|" + "---|" * (len(ORDERS) + 4))
    for name, r in rows.items():
        longest = r["longest_per_500"]
        cells = [
            name,
            f"{r['chars']:,}",
            *(f"{share:.1%}" for share in r["seen"].values()),
            f"{r['copied_share']:.2%}",
        ]
        print(
            "| "
            + " | ".join(
                [*cells, f"{longest['median']:.0f}, {longest['p90']:.0f}, {longest['max']}"]
            )
            + " |"
        )
    print()
    for split, e in extraction.items():
        print(describe_extraction(split, e))
    for number, text in enumerate(texts[: args.show], start=1):
        longest = max(
            run.training_text.measure(text).longest,
            key=lambda span: span.end - span.start,
            default=None,
        )
        where = (
            f", longest copied span {longest.end - longest.start} characters (chapter {longest.chapter})"
            if longest
            else ""
        )
        print(
            f"\n--- {number} of {len(texts)}{where} ---\n{args.prompt or ''}{mark(text, run.training_text)}"
        )


if __name__ == "__main__":
    main()
