"""How much of a text is recitation: python scripts/novelty.py --workdir runs/tiny [--text FILE].

Next to every figure is that of real chapters that the training text lacks. Copied spans are shown
in ⟦ ⟧.
"""

import dataclasses
import json

from hlm_jax import cli


def main() -> None:
    parser = cli.run_parser(__doc__)
    add = parser.add_argument
    add("--text", metavar="FILE", help="measure this text instead of generated ones")
    cli.add_prompts(parser)
    cli.add_sampling(parser, num_samples=8, max_new_tokens=500)
    add("--show", type=int, default=1, help="texts to print, copied spans marked (default: 1)")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with cli.command("novelty"):
        novelty(args)


def novelty(args) -> None:
    from hlm_jax.measures import overlap
    from hlm_jax.measures.extraction import describe

    run = cli.open_run(args)
    reference = run.reference.with_readable_extra(cli.note)
    index, human = reference.overlap_index, reference.human_overlap
    prompts = cli.prompts_of(args)
    if args.text:
        texts = [chapter.text for chapter in run.read_chapters(text=args.text)]
    else:
        texts = run.generate(
            prompts,
            num_samples=args.num_samples,
            max_new_tokens=args.max_new_tokens,
            **cli.sampling_given(args),
        )
    measured = index.measure_all(texts)
    splits = {name: reference.splits[name] for name in ("train", "val")}
    extractions = {name: run.extraction(c) for name, c in splits.items() if c}
    rows = {args.text or f"{len(texts)} generated texts": measured}
    rows |= {"held-out chapters": human} if human else {}
    if args.json:
        summaries = [overlap.summary(one) for one in rows.values()]
        out = {"workdir": str(args.workdir), "step": run.step, "found": summaries[0]}
        out |= {"human": summaries[1] if human else None}
        out["spans"] = [dataclasses.asdict(span) for span in measured.spans]
        out["extraction"] = {name: dataclasses.asdict(e) for name, e in extractions.items()}
        print(json.dumps(out, ensure_ascii=False))
        return
    print(overlap.table(rows) + "\n")
    for name, extraction in extractions.items():
        print(describe(name, extraction))
    if line := reference.describe_extra_overlap("\n".join(texts)):
        print(line)
    for number, text in enumerate(texts[: args.show], start=1):
        longest = max(
            index.measure(text).longest, key=lambda span: span.end - span.start, default=None
        )
        where = f", longest copied span {longest.end - longest.start} characters" if longest else ""
        print(f"\n--- {number} of {len(texts)}{where} ---")
        begun = prompts[(number - 1) // args.num_samples] if not args.text else None
        print((begun or "") + overlap.mark(text, index))


if __name__ == "__main__":
    main()
