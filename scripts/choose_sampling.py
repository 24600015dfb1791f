"""Which sampling settings write most like the book: python scripts/choose_sampling.py --workdir runs/small.

Generates texts at every setting of a grid and measures repetition, recitation, and the distance of sentence lengths,
speech, names and n-grams from held-out chapters, in spreads of those chapters. The nearest setting stands first.
"""

import argparse
import itertools

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    parser.add_argument(
        "--temperatures", default="0.7,0.8,0.9,1.0", help="default: 0.7,0.8,0.9,1.0"
    )
    parser.add_argument("--top_ps", default="0.9,0.95,1.0", help="default: 0.9,0.95,1.0")
    parser.add_argument("--min_ps", default="0.0", help="default: 0.0")
    parser.add_argument("--repetition_penalties", default="1.0", help="default: 1.0")
    parser.add_argument(
        "--num_samples", type=int, default=32, help="texts at every setting (default: 32)"
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=400, help="tokens of each (default: 400)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with exit_on_user_error("choose_sampling"):
        choose(args)


def choose(args) -> None:
    from hlm_jax.errors import UserError
    from hlm_jax.measures.overlap import SPAN
    from hlm_jax.measures.style import Style
    from hlm_jax.run import load_run

    run = load_run(args.workdir, args.step)
    held_out = [chapter.text for chapter in run.chapters["val"]]
    if not held_out:
        raise UserError(
            "this run holds no chapters out that its texts could be compared with: use one of configs/tiny.py or small.py"
        )
    style = Style([chapter.text for chapter in run.chapters["train"]], held_out)
    rows = [("held-out chapters", style.human, 0.0, run.human_row)]
    try:
        grid = [
            [float(x) for x in words.split(",")]
            for words in (args.temperatures, args.top_ps, args.min_ps, args.repetition_penalties)
        ]
    except ValueError:
        raise UserError(
            "settings are numbers separated by commas, such as --temperatures 0.8,0.9"
        ) from None
    for temperature, top_p, min_p, penalty in itertools.product(*grid):
        texts = run.generate(
            num_samples=args.num_samples,
            max_new_tokens=args.max_new_tokens,
            seed=args.seed,
            temperature=temperature,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=penalty,
        )
        mean, away = style.distance(texts)
        first, *others = [run.training_text.measure(text) for text in texts]
        name = f"temperature {temperature:g}, top_p {top_p:g}"
        name += (f", min_p {min_p:g}" if min_p else "") + (
            f", penalty {penalty:g}" if penalty != 1 else ""
        )
        rows.append((name, mean, away, sum(others, first)))
    print(
        "| settings | distance | "
        + " | ".join(style.names)
        + f" | 5-grams seen | in copied spans {SPAN}+ |"
    )
    print("|" + "---|" * (len(style.names) + 4))
    for name, mean, away, novelty in sorted(rows, key=lambda row: row[2]):
        cells = [name, f"{away:.3f}", *(f"{mean[n]:.3f}" for n in style.names)]
        print(
            "| "
            + " | ".join([*cells, f"{novelty.seen_share(5):.1%}", f"{novelty.copied_share:.2%}"])
            + " |"
        )


if __name__ == "__main__":
    main()
