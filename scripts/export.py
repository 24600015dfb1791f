"""Writes a run for other tools: python scripts/export.py --workdir runs/tiny --format hf --out DIR.

hf is a folder that transformers opens offline, gguf a file for llama.cpp. --check opens what was
written with the tools that are installed and compares ids, logits and texts with the run's.
"""

from hlm_jax import cli


def main() -> None:
    parser = cli.run_parser(__doc__)
    add = parser.add_argument
    add("--format", required=True, choices=("hf", "gguf"), help="for transformers, or llama.cpp")
    add("--out", required=True, metavar="DIR", help="a new or empty folder to write")
    add(
        "--dtype",
        default="f32",
        choices=("f32", "bf16", "f16", "q8_0"),
        help="of the weights; hf: f32 or bf16, gguf: f32, f16 or q8_0 (default: f32)",
    )
    add("--license", default="unknown", metavar="ID", help="for the model card (default: unknown)")
    add("--check", action="store_true", help="open it with what is installed, and compare")
    args = parser.parse_args()
    with cli.command("export"):
        export(args)


def export(args) -> None:
    from hlm_jax.export import writer

    how = {"format": args.format, "dtype": args.dtype}
    writer.check(args.out, licence=args.license, **how)
    run = cli.open_run(args)
    weights = writer.export(run, args.out, licence=args.license, **how)
    for path in sorted(weights.parent.iterdir()):
        print(f"{path.stat().st_size:13,} bytes  {path}")
    if args.check:
        from hlm_jax.export.checks import suite

        results = suite.check(run, weights, **how)
        for result in results:
            print(result)
        if any(result.passed is False for result in results):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
