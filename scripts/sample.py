"""Writes on from a prompt: python scripts/sample.py --workdir runs/tiny --prompt 宝玉笑道：.

Spans copied from the training text are set in ⟦ ⟧, and a line after each text tells how much of it
is recitation.
"""

from hlm_jax import cli


def main() -> None:
    parser = cli.run_parser(__doc__)
    cli.add_prompts(parser)
    cli.add_sampling(parser, num_samples=1, max_new_tokens=300)
    add = parser.add_argument
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before TEXT; repeatable",
    )
    add("--stop_at_chapter_end", action="store_true", help="end a text where its chapter ends")
    args = parser.parse_args()
    with cli.command("sample"):
        sample(args)


def sample(args) -> None:
    from hlm_jax.errors import UserError
    from hlm_jax.measures.overlap import Marker, describe, mark

    if args.num_samples < 1:
        raise UserError(f"--num_samples must be at least 1, not {args.num_samples}")
    prompts = [prompt for prompt in cli.prompts_of(args) for _ in range(args.num_samples)]
    run = cli.open_run(args)
    reference = cli.reference_or_note(run)
    parts = run.stream(
        prompts,
        max_new_tokens=args.max_new_tokens,
        stop=args.stop,
        stop_at_chapter_end=args.stop_at_chapter_end,
        **cli.sampling_given(args),
    )
    texts = next(parts)  # an error in the request comes before anything is printed

    def title(number: int) -> str:
        heading = f"--- {number + 1} ---\n" if len(prompts) > 1 else ""
        return heading + (prompts[number] or "")

    def recitation(text: str) -> str:
        if reference is None:
            return "recitation: not measured, the book is not at hand"
        line = describe(reference.overlap_index.measure(text), reference.human_overlap)
        return "\n".join(filter(None, [line, reference.describe_extra_overlap(text)]))

    # The first text streams; the others are written at the same time and shown after it.
    marker = Marker(reference.overlap_index) if reference else None
    print(title(0), end="")
    try:
        print(marker.feed(texts[0]) if marker else texts[0], end="", flush=True)
        for new in parts:
            print(marker.feed(new[0]) if marker else new[0], end="", flush=True)
            texts = [text + part for text, part in zip(texts, new, strict=True)]
    finally:  # an error begins on a line of its own
        print(marker.flush() if marker else "", flush=True)
    print(recitation(texts[0]))
    for number, text in enumerate(texts[1:], start=1):
        marked = mark(text, reference.overlap_index) if reference else text
        print(f"\n{title(number)}{marked}\n{recitation(text)}")


if __name__ == "__main__":
    main()
