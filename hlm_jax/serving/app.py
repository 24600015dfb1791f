"""The routes of the API as an ASGI application; docs/serving.md describes them for users."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hlm_jax.errors import UserError
from hlm_jax.serving.book import name_of
from hlm_jax.serving.completions import completions
from hlm_jax.serving.engine import Busy
from hlm_jax.serving.gate import Cors, Gate, HostGate, Measured, not_ready, safe_headers
from hlm_jax.serving.http import Fields, Limits, Refusal, read_object, without_paths
from hlm_jax.serving.metrics import Metrics, Reading, compilations
from hlm_jax.serving.models import Cancelled, Jobs, Served, chosen
from hlm_jax.serving.requests import read_ids

LEFT = 499  # the status, in the metrics alone, of a request whose client has left


def create_app(
    models: Mapping[str, Served],
    *,
    allowed_hosts: Collection[str],
    cors: Sequence[str] = (),
    api_key: str | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """The application. As it starts it warms the models up; it closes them as it ends.

    Args:
      models: by name; the first answers requests that name none.
      allowed_hosts: names and addresses, without a port, under which it answers.
      cors: origins of other sites' pages that may use it.
      api_key: asked for by every route except the page and /health.

    Its `state.warmed` may be set to what is told, once, that the models are warm (None) or what
    kept them from it.
    """
    from hlm_jax.serving.reading import routes as reading_routes

    limits = limits or Limits()
    routes = [
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/tokenizer_info", tokenizer_info),
        *reading_routes(),
    ]
    compilations()  # counts from here on
    counts = Metrics(lambda: _readings(app))
    safe = safe_headers(cors)
    paths = [route.path for route in routes]
    middleware = [
        Middleware(Measured, metrics=counts, routes=paths, headers=safe),
        Middleware(HostGate, allowed=allowed_hosts, cors=cors),
    ]
    if cors:
        middleware.append(
            Middleware(
                Cors,
                allow_origins=list(cors),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            )
        )
    middleware.append(Middleware(Gate, key=api_key, most=limits.requests))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm(app))
        async with contextlib.AsyncExitStack() as ending:  # from the last to the first, each
            ending.push_async_callback(asyncio.to_thread, app.state.jobs.close)
            ending.push_async_callback(asyncio.wait_for, warming, None)
            for served in models.values():  # one that still warms up ends soon
                ending.push_async_callback(asyncio.to_thread, served.engine.close)
            try:
                yield
            finally:
                app.state.draining = True

    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            Refusal: _refused,
            UserError: _user_error,
            HTTPException: _http_error,
            ClientDisconnect: _left,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.models, app.state.limits = dict(models), limits
    app.state.jobs, app.state.metrics = Jobs(limits.jobs), counts
    app.state.warmed, app.state.begin, app.state.safe_headers = _ignore, int(time.time()), safe
    app.state.draining = app.state.ended = False
    app.state.in_work, app.state.requests = 0, set()
    return app


def _ignore(_: BaseException | None) -> None:
    """Nobody waits for the models to be warm."""


async def _warm(app: Starlette) -> None:
    try:
        for served in app.state.models.values():
            await asyncio.to_thread(served.warm, lambda: app.state.draining)
    except Exception as error:  # told to the owner, who ends the server
        if not (app.state.draining and isinstance(error, Busy | Cancelled)):
            app.state.warmed(error)
        return
    if not app.state.draining:
        # What lives as long as the server is not searched for garbage again: with a book at hand
        # such a search takes longer than several dispatches.
        gc.collect()
        gc.freeze()
        app.state.warmed(None)


def _readings(app: Starlette) -> list[Reading]:
    """The values of this moment."""
    stats = {name: served.engine.stats() for name, served in app.state.models.items()}
    rows = {name: one.active for name, one in stats.items()}
    waiting = {name: one.waiting for name, one in stats.items()}
    dispatches = {name: one.dispatches for name, one in stats.items()}
    tokens = {name: one.tokens for name, one in stats.items()}
    made = {"": compilations().total}
    return [
        Reading("hlm_rows_active", "Texts that the engine writes", rows),
        Reading("hlm_sequences_waiting", "Texts that wait for a row", waiting),
        Reading("hlm_dispatches", "Dispatches of the engine", dispatches, total=True),
        Reading("hlm_drawn_tokens", "Tokens drawn, unanswered ones too", tokens, total=True),
        Reading("hlm_requests_in_work", "Requests in work", {"": app.state.in_work}),
        Reading("hlm_jobs_pending", "Scores and tables to compute", {"": app.state.jobs.pending}),
        Reading("hlm_compilations", "Programs made ready by XLA", made, total=True),
    ]


# --- routes ---


async def health(request: Request) -> Response:
    """200 when requests are answered, else 503."""
    refusal = not_ready(request.app)
    return refusal.response() if refusal else JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """The text format of Prometheus."""
    text = request.app.state.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def list_models(request: Request) -> Response:
    """The models, in the order of the command line."""
    models = [_model(request, served) for served in request.app.state.models.values()]
    return JSONResponse({"object": "list", "data": models})


async def one_model(request: Request) -> Response:
    """One model by its name."""
    served = chosen(request.app.state.models, request.path_params["name"])
    return JSONResponse(_model(request, served))


def _model(request: Request, served: Served) -> dict[str, Any]:
    run = served.run
    cfg, sampling, limits = run.model.cfg, run.sampling, request.app.state.limits
    book = None if served.reference is None else name_of(served)
    return {
        "id": served.name,
        "object": "model",
        "created": request.app.state.begin,
        "owned_by": "hlm_jax",
        "max_model_len": cfg.block_size,  # vLLM's name
        "block_size": cfg.block_size,
        "form": cfg.form,
        "parameters": cfg.n_parameters,
        "vocab_size": cfg.vocab_size,
        "step": run.step,
        "origin": without_paths(run.origin),
        "book": book,
        "max_tokens": limits.max_tokens,
        "max_prompt_chars": limits.body // 4,  # so many fit a request, whatever they are
        "sampling": {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
        },
    }


async def tokenize(request: Request) -> Response:
    """{"prompt", "add_special_tokens", "model"} -> {"tokens", "count", "max_model_len"}.

    A prompt that is the separator's name alone is the separator: so clients learn its id.
    """
    fields = Fields(await read_object(request))
    served = chosen(request.app.state.models, fields.text("model", most=500, default=None))
    text = fields.text("prompt", most=request.app.state.limits.body)
    add_separator = fields.flag("add_special_tokens", default=True)
    fields.done()
    tokenizer = served.run.tokenizer
    separator = tokenizer.separator_id
    if text == served.names[separator]:
        ids = [separator]
    else:
        ids = await asyncio.to_thread(tokenizer.encode, text)
        ids = [separator, *ids] if add_separator else ids
    block = served.run.model.cfg.block_size
    return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": block})


async def detokenize(request: Request) -> Response:
    """{"tokens", "model"} -> {"prompt"}; a separator is written by its name."""
    fields = Fields(await read_object(request))
    served = chosen(request.app.state.models, fields.text("model", most=500, default=None))
    given = fields.take("tokens")
    fields.done()
    if not isinstance(given, list):
        raise fields.wrong("tokens", "a list of token ids", given)
    ids = read_ids(given, served, "tokens")
    tokenizer = served.run.tokenizer
    named = (tokenizer.token_bytes(token) or served.names[token].encode() for token in ids)
    return JSONResponse({"prompt": b"".join(named).decode("utf-8", errors="replace")})


async def tokenizer_info(request: Request) -> Response:
    """What clients that tokenize over HTTP must know; of the first model unless ?model= names one.

    The separator begins every text and ends the one before it: it is bos and eos.
    """
    fields = Fields.of_query(request)
    served = chosen(request.app.state.models, fields.text("model", most=500, default=None))
    fields.done()
    tokenizer = served.run.tokenizer
    separator = served.names[tokenizer.separator_id]
    return JSONResponse(
        {
            "tokenizer_class": tokenizer.format,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "bos_token": separator,
            "eos_token": separator,
            "bos_token_id": tokenizer.separator_id,
            "eos_token_id": tokenizer.separator_id,
            "model_max_length": served.run.model.cfg.block_size,
        }
    )


# --- errors ---


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _user_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return Refusal.of(error).response()


async def _http_error(request: Request, error: Exception) -> Response:
    """No such route, or another method."""
    assert isinstance(error, HTTPException)
    message = "there is no such route: docs/serving.md lists them"
    if error.status_code == 405:
        message = f"{request.url.path} does not answer {request.method}"
    return Refusal(error.status_code, message, headers=error.headers).response()


async def _left(request: Request, _: Exception) -> Response:
    """Nobody reads this answer."""
    request.scope["client_left"] = True
    return Response(status_code=LEFT)


async def _failed(request: Request, _: Exception) -> Response:
    """A bug of this project: starlette raises it again, and uvicorn logs its traceback."""
    message = "the server failed on this request; its log tells why"
    # Starlette sends this answer itself, past Measured.
    return Refusal(500, message, headers=request.app.state.safe_headers).response()
