"""Which sampling settings write most like the book: python scripts/choose_sampling.py --workdir W.

Generates texts at every setting of a grid. Measures repetition, recitation, and the distance of
sentence lengths, speech, names and n-grams from held-out chapters, in spreads of those chapters.
The nearest setting comes first.
"""

import itertools
from typing import Any

from hlm_jax import cli

GRID = {
    "temperature": "0.7,0.8,0.9,1.0",
    "top_p": "0.9,0.95,1.0",
    "min_p": "0.0",
    "repetition_penalty": "1.0",
}
PLURALS = {"repetition_penalty": "repetition_penalties"}


def main() -> None:
    parser = cli.run_parser(__doc__)
    add = parser.add_argument
    for name, default in GRID.items():
        flag = f"--{PLURALS.get(name, name + 's')}"
        add(flag, dest=name, default=default, help=f"default: {default}")
    add("--num_samples", type=int, default=32, help="texts at every setting (default: 32)")
    add("--max_new_tokens", type=int, default=400, help="tokens of each (default: 400)")
    add("--seed", type=int, default=0, help="the same seed gives the same texts (default: 0)")
    args = parser.parse_args()
    with cli.command("choose_sampling"):
        choose(args)


def choose(args) -> None:
    from hlm_jax.errors import UserError
    from hlm_jax.measures.overlap import SPAN
    from hlm_jax.measures.style import Style

    try:
        grid = [[float(x) for x in getattr(args, name).split(",")] for name in GRID]
    except ValueError:
        raise UserError(
            "settings are numbers separated by commas, such as --temperatures 0.8,0.9"
        ) from None
    run = cli.open_run(args)
    held_out = [chapter.text for chapter in run.read_chapters(split="val")]
    style = Style([chapter.text for chapter in run.reference.splits["train"]], held_out)
    index = run.reference.overlap_index
    human = index.measure_all(held_out)
    rows = [("held-out chapters", style.human, 0.0, human)]
    many = {"num_samples": args.num_samples, "max_new_tokens": args.max_new_tokens}
    for values in itertools.product(*grid):
        setting: dict[str, Any] = dict(zip(GRID, values, strict=True))
        texts = run.generate(seed=args.seed, **many, **setting)
        mean, away = style.distance(texts)
        temperature, top_p, min_p, penalty = values
        name = f"temperature {temperature:g}, top_p {top_p:g}"
        name += f", min_p {min_p:g}" if min_p else ""
        name += f", penalty {penalty:g}" if penalty != 1 else ""
        rows.append((name, mean, away, index.measure_all(texts)))
    head = ("settings", "distance", *style.names, "5-grams seen", f"in copied spans {SPAN}+")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, mean, away, overlap in sorted(rows, key=lambda row: row[2]):
        cells = [name, f"{away:.3f}", *(f"{mean[n]:.3f}" for n in style.names)]
        cells += [f"{overlap.seen_fraction(5):.1%}", f"{overlap.copied_fraction:.2%}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
