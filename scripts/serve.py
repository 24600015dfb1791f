"""Serves runs in a browser and over HTTP: python scripts/serve.py --workdir runs/tiny.

Prints the address when it is ready. docs/serving.md describes the page, the routes and the limits.
"""

import argparse
import os
from typing import Any

from hlm_jax import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip(), allow_abbrev=False)
    add = parser.add_argument
    more: dict[str, Any] = {"action": "append", "default": []}
    add("--workdir", action="append", required=True, metavar="DIR", help="a run; repeatable")
    add("--step", **more, help="best, latest or a number; one, or one for each run (default: best)")
    add("--corpus", **more, metavar="BOOK", help="where a book lies now; one, or one for each")
    add("--host", default="127.0.0.1", help="address to bind to (default: this machine alone)")
    add("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add("--allowed_host", **more, metavar="NAME", help="a further name of the server; repeatable")
    add("--cors", **more, metavar="ORIGIN", help="a site whose pages may use it; repeatable")
    add("--api_key", metavar="KEY", help="asked of every client (default: $HLM_API_KEY, if set)")
    add("--max_rows", type=int, default=8, help="texts written at the same time (default: 8)")
    args = parser.parse_args()
    if args.api_key is None:  # the environment is no part of the list of processes
        args.api_key = os.environ.get("HLM_API_KEY") or None
    with cli.command("serve"):
        serve(args)


def serve(args: argparse.Namespace) -> None:
    from hlm_jax.errors import UserError

    try:
        from hlm_jax.serving import server
    except ModuleNotFoundError as error:
        install = "EXTRAS=serve bash scripts/environment.sh"
        raise UserError(f"the package {error.name} is not installed: {install}") from None
    server.check(args.api_key, args.cors, args.max_rows)
    bound = server.bind(args.host, args.port)
    from hlm_jax.serving.app import create_app
    from hlm_jax.serving.models import served

    runs = []
    for workdir, step, corpus in server.each(args.workdir, args.step, args.corpus):
        run = cli.open_run(argparse.Namespace(workdir=workdir, step=step, corpus=corpus))
        runs.append((run, cli.reference_or_note(run)))
    models = served(runs, max_rows=args.max_rows)
    hosts = server.allowed_hosts(args.host, bound, args.allowed_host)
    app = create_app(models, allowed_hosts=hosts, cors=args.cors, api_key=args.api_key)
    if meaning := server.exposure(args.host, bound, has_key=args.api_key is not None):
        cli.note(meaning)
    address = server.address_of(bound)
    cli.note("compiling the programs of all sizes, seconds to minutes; the page already opens")
    server.serve(app, bound, lambda: print(f"ready: {address}", flush=True))


if __name__ == "__main__":
    main()
