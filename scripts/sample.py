"""Writes on from a prompt: python scripts/sample.py --workdir runs/tiny --prompt 宝玉笑道： --num_samples 3.

Spans copied from the training text stand in ⟦ ⟧, and a line after each text says how much of it is recitation.
"""

import argparse
import sys

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    parser.add_argument(
        "--prompt",
        action="append",
        help="text to continue; may be given several times; left out: begin a chapter",
    )
    parser.add_argument(
        "--num_samples", type=int, default=1, help="continuations of each prompt (default: 1)"
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=300, help="tokens to write (default: 300)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help="0 always takes the likeliest token (default: the run's own)",
    )
    parser.add_argument(
        "--top_k",
        type=int,
        default=0,
        help="draw among the k likeliest tokens; 0: all (default: 0)",
    )
    parser.add_argument(
        "--top_p",
        type=float,
        help="draw among the likeliest that sum to p (default: the run's own)",
    )
    parser.add_argument(
        "--min_p",
        type=float,
        default=0.0,
        help="drop tokens below min_p x the likeliest (default: 0)",
    )
    parser.add_argument(
        "--repetition_penalty",
        type=float,
        default=1.0,
        help="above 1 avoids what was said (default: 1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same text (default: 0)"
    )
    args = parser.parse_args()
    with exit_on_user_error("sample"):
        sample(args)


def sample(args) -> None:
    from hlm_jax.errors import UserError
    from hlm_jax.measures.overlap import Marker, describe, mark
    from hlm_jax.run import load_run

    if args.num_samples < 1:
        raise UserError(f"--num_samples must be at least 1, not {args.num_samples}")
    run = load_run(args.workdir, args.step)
    prompts = [prompt for prompt in args.prompt or [None] for _ in range(args.num_samples)]
    several = len(prompts) > 1
    parts = run.stream(
        prompts,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        temperature=run.config.sample.temperature if args.temperature is None else args.temperature,
        top_k=args.top_k,
        top_p=run.config.sample.top_p if args.top_p is None else args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
    )
    try:
        book, reason = run.training_text, ""
    except (
        UserError
    ) as error:  # a checkpoint alone is enough to write with, but not to know what is copied
        book, reason = None, f"recitation: not measured ({error})"

    def after(text: str) -> str:
        return "\n" + (describe(book.measure(text), run.human_row) if book else reason)

    # The first text streams; the others are written beside it and shown after it.
    texts = [""] * len(prompts)
    marker = Marker(book) if book else None
    print(_title(0, several) + (prompts[0] or ""), end="")
    for new in parts:
        sys.stdout.write(marker.feed(new[0]) if marker else new[0])
        sys.stdout.flush()
        texts = [text + part for text, part in zip(texts, new, strict=True)]
    print((marker.flush() if marker else "") + after(texts[0]))
    for number, (prompt, text) in enumerate(zip(prompts[1:], texts[1:], strict=True), start=1):
        print(
            "\n"
            + _title(number, several)
            + (prompt or "")
            + (mark(text, book) if book else text)
            + after(text)
        )


def _title(number: int, several: bool) -> str:
    return f"--- {number + 1} ---\n" if several else ""


if __name__ == "__main__":
    main()
