"""The bench of the server against a toy one: its arithmetic, its clients and what a soak sees."""

import asyncio
import importlib
import json
import re
import sys
import threading
import time
from pathlib import Path

import pytest

uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
from starlette.applications import Starlette  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts" / "bench"
STEP = 0.01  # seconds of a toy token


@pytest.fixture(scope="module")
def modules():
    """The modules bench_serve_load, bench_serve_soak and bench_serve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        names = ("bench_serve_load", "bench_serve_soak", "bench_serve")
        yield [importlib.import_module(name) for name in names]


load = pytest.fixture(scope="module", name="load")(lambda modules: modules[0])
soaks = pytest.fixture(scope="module", name="soaks")(lambda modules: modules[1])
bench_serve = pytest.fixture(scope="module", name="bench_serve")(lambda modules: modules[2])


class Toy:
    """A server that writes one character per STEP; its faults are switched on by name."""

    def __init__(self):
        self.faults: set[str] = set()
        self.rows = self.dispatches = self.tokens = self.compilations = 0
        routes = [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/health", lambda _: PlainTextResponse("")),
            Route("/metrics", self.metrics),
        ]
        self.app = Starlette(routes=routes)

    async def metrics(self, _):
        values = {
            'hlm_rows_active{model="a"}': self.rows,
            'hlm_sequences_waiting{model="a"}': 0,
            'hlm_dispatches_total{model="a"}': self.dispatches,
            'hlm_generated_tokens_total{model="a"}': self.tokens,
            "hlm_compilations_total": self.compilations,
        }
        if "no counter" in self.faults:
            del values["hlm_compilations_total"]
        lines = ["# HELP hlm_rows_active rows", *(f"{k} {v}" for k, v in values.items())]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def completions(self, request):
        fields = await request.json()
        if "500" in self.faults:
            return JSONResponse({"error": {"message": "broken"}}, 500)
        if not isinstance(fields.get("max_tokens"), int):
            error = {} if "no error object" in self.faults else {"error": {"message": "an integer"}}
            return JSONResponse(error, 400)
        if "compiles" in self.faults:
            self.compilations += 1
        n = fields.get("n", 1)
        if fields.get("stream"):
            written = self.written(fields["max_tokens"], n)
            return StreamingResponse(written, media_type="text/event-stream")
        choices = [{"index": i, "text": "花", "finish_reason": "stop"} for i in range(n)]
        return JSONResponse({"choices": choices[: 1 if "one choice" in self.faults else n]})

    async def written(self, tokens, n):
        self.rows += 1
        try:
            for _ in range(tokens - ("short" in self.faults)):
                await asyncio.sleep(STEP)
                self.dispatches += 1
                self.tokens += 1
                yield sse({"choices": [{"index": 0, "text": "花", "finish_reason": None}]})
            if "error in the stream" in self.faults:
                yield sse({"error": {"message": "broken"}})
            last = [{"index": i, "text": "", "finish_reason": "length"} for i in range(n)]
            usage = {"completion_tokens": tokens - ("short" in self.faults)}
            yield sse({"choices": last, "usage": usage})
            if "no end" not in self.faults:
                yield "data: [DONE]\n\n"
        finally:
            self.rows -= "keeps rows" not in self.faults


def sse(event) -> str:
    return f"data: {json.dumps(event)}\n\n"


@pytest.fixture(scope="module")
def served():
    """A toy on a free port, in a thread of its own: the toy and its address."""
    toy = Toy()
    config = uvicorn.Config(toy.app, port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield toy, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def toy(served):
    served[0].faults.clear()
    served[0].rows = 0
    return served[0]


@pytest.fixture
def run(load, served):
    """Runs an asynchronous function of a client of the toy."""

    def run(function, *words, **named):
        async def inside():
            async with load.Client(served[1]) as client:
                return await function(client, *words, **named)

        return asyncio.run(inside())

    return run


def test_a_turn_times_the_first_character_and_the_tokens(load, run, toy):
    done = run(load.turn, tokens=10, waves=1, firsts=2)
    assert len(done["first_ms"]) == 2
    assert all(1e3 * STEP <= ms < 1e3 * 8 * STEP + 500 for ms in done["first_ms"])
    assert done["one"] < 1 / STEP
    assert done["many"] > 2 * done["one"]  # the toy writes all streams at the same time
    assert done["client"] > 0


def test_a_text_of_another_length_is_not_the_same_work(load, run, toy):
    toy.faults.add("short")
    with pytest.raises(load.WrongAnswer, match="not the same work: 9 tokens, 10 asked for"):
        run(load.turn, tokens=10, waves=1, firsts=1)


def test_a_stream_is_read_whole(load, run, toy):
    text = run(lambda client: client.stream(load.fields_of("宝玉", 5)))
    assert (text.text, text.tokens, text.chunks, text.done) == ("花" * 5, 5, 5, True)
    assert STEP <= text.first < text.seconds


@pytest.mark.parametrize("fault", ["500", "error in the stream"])
def test_an_error_is_no_text(load, run, toy, fault):
    toy.faults.add(fault)
    with pytest.raises(load.WrongAnswer, match="broken"):
        run(lambda client: client.stream(load.fields_of("宝玉", 5)))


def test_dispatches_after_a_client_left_are_counted(load, run, toy):
    before = toy.dispatches
    gone = run(load.freed, tokens=400)
    assert 0 <= gone["dispatches"] == toy.dispatches - before - 3 < 390
    toy.faults.add("keeps rows")
    with pytest.raises(load.WrongAnswer, match=r"not free after 0\.1 s"):
        run(load.freed, tokens=400, seconds=0.1)


def test_a_text_that_ends_before_its_client_leaves_is_no_measure(load, run, toy):
    with pytest.raises(load.WrongAnswer, match="3 tokens ended before"):
        run(load.freed, tokens=3)


def test_metrics_are_summed_over_labels(load):
    text = '# TYPE a counter\na{m="x y"} 2\na{m="z"} 3.5 1700000000\nb 1e3\n\nb_sum{le="+Inf"} 7'
    assert load.parse_metrics(text) == {"a": 5.5, "b": 1000.0, "b_sum": 7.0}


def test_a_counter_that_is_missing_is_named(load, run, toy):
    toy.faults.add("no counter")
    with pytest.raises(load.WrongAnswer, match="tells no hlm_compilations_total"):
        run(load.Client.metrics)


def test_ratios_are_taken_within_rounds_against_the_fastest(load):
    def turn(first, one, many):
        return {"first_ms": [first, first, 9 * first], "one": one, "many": many}

    rounds = {
        "a": [turn(40, 200, 300), turn(40, 100, 100), turn(20, 100, 100)],
        "ours": [turn(10, 100, 800), turn(20, 100, 600), turn(20, 50, 500)],
        "b": [turn(20, 80, 200), turn(20, 50, 300), turn(80, 100, 100)],
    }
    out = load.compare(rounds, "ours")
    assert out["first_ms"]["rounds"] == {"a": [4, 2, 1], "b": [2, 1, 4]}
    assert {k: out["first_ms"][k] for k in ("median", "worst")} == {"median": 2, "worst": 1}
    assert (out["one"]["peer"], out["one"]["median"], out["one"]["worst"]) == ("a", 0.5, 0.5)
    assert out["many"] | {"rounds": 0} == {"peer": "b", "median": 4, "worst": 2, "rounds": 0}
    assert load.compare({"ours": rounds["ours"]}, "ours") == {}


def test_a_plan_is_the_same_for_a_seed_and_holds_every_kind(soaks):
    first, again, other = soaks.plan(300), soaks.plan(300), soaks.plan(300, seed=1)
    assert first == again != other
    kinds = {case.kind for case in first[:100]}
    assert {"stream", "n", "echo + logprobs", "client leaves", "bad request", "kwic"} <= kinds
    assert kinds | {c.kind for c in first if c.kind.startswith("/")} == {c.kind for c in first}
    for case in first:
        assert (case.kind == "bad request") == (min(case.expect) >= 400)
        if case.choices:
            prompts = case.body["prompt"]
            many = isinstance(prompts, list) and not isinstance(prompts[0], int)
            assert case.choices == case.body.get("n", 1) * (len(prompts) if many else 1)


@pytest.fixture
def soaked(soaks, run):
    good = {"prompt": "宝玉", "max_tokens": 3}
    cases = [
        soaks.Case("completion", body=good | {"n": 2}, choices=2),
        soaks.Case("stream", body=good | {"stream": True, "n": 2}, choices=2),
        soaks.Case("leaves", body=good | {"stream": True, "max_tokens": 90}, choices=1, leave=2),
        soaks.Case("leaves", body=good | {"stream": True, "max_tokens": 90}, choices=1, leave=0),
        soaks.Case("bad", body={"max_tokens": "ten"}, expect=(400,)),
        soaks.Case("/health", "/health", "GET"),
    ]

    def soaked(seconds=30.0):
        sizes = iter(range(100, 10_000))
        how = {"at_once": 3, "seconds": seconds, "memory": lambda: float(next(sizes))}
        return run(soaks.soak, cases * 5, **how)

    return soaked


def test_a_soak_of_a_sound_server(soaked, toy):
    out = soaked()
    assert out["first_errors"] == []
    assert (out["asked"], out["sent"], out["errors"]) == (30, 30, 0)
    assert out["kinds"] == {"completion": 5, "stream": 5, "leaves": 10, "bad": 5, "/health": 5}
    assert (out["compilations"], out["compiled_with"], out["rows_left"]) == (0, [], 0)
    assert out["tokens"] >= 5 * 3 + 5 * 2
    # One reading before the first request, one after each, one at the end.
    assert 100 < out["bytes"]["20%"] < out["bytes"]["60%"] < out["bytes"]["100%"] <= 131


@pytest.mark.parametrize(
    ("fault", "errors", "message"),
    [
        ("500", 25, "status 500, not"),
        ("no error object", 5, "no error object"),
        ("one choice", 5, "1 choices, not 2"),
        ("no end", 5, r"\[DONE\] False"),
        ("error in the stream", 5, "an error in the stream"),
    ],
)
def test_a_soak_counts_wrong_answers(soaked, toy, fault, errors, message):
    toy.faults.add(fault)
    out = soaked()
    # A client that leaves at once may or may not have seen the 500.
    assert errors - 5 * (fault == "500") <= out["errors"] <= errors
    assert any(re.search(message, e["error"]) for e in out["first_errors"])


def test_a_soak_sees_compilations_and_rows_that_stay(soaked, soaks, toy, monkeypatch):
    settled = soaks.settled
    monkeypatch.setattr(soaks, "settled", lambda client: settled(client, seconds=0.1))
    toy.faults |= {"compiles", "keeps rows"}
    out = soaked()
    assert out["compilations"] >= 15
    assert sum(step["compilations"] for step in out["compiled_with"]) == out["compilations"]
    assert out["rows_left"] >= 10


def test_a_soak_ends_when_its_time_is_over(soaked, toy):
    assert soaked(seconds=0.0)["sent"] == 0


@pytest.fixture
def figures(load, bench_serve):
    """What bench_serve.measure returns, made by hand."""
    ours = [
        {"first_ms": [10.0, 12.0, 70.0], "one": 100.0, "many": 400.0, "client": 0.1},
        {"first_ms": [11.0, 13.0, 14.0], "one": 100.0, "many": 250.0, "client": 0.1},
    ]
    theirs = [{"first_ms": [24.0], "one": 50.0, "many": 100.0, "client": 0.1}] * 2
    rounds = {bench_serve.OURS: ours, bench_serve.APP: theirs}
    return {
        "machine": "z80, 2 cores",
        "new_tokens": 96,
        "ready_seconds": 2.0,
        "rounds": rounds,
        "out": {bench_serve.SERVE: "ended: no fastapi"},
        "ratios": load.compare(rounds, bench_serve.OURS),
        "freed": [{"dispatches": 1.0}, {"dispatches": 1.0}, {"dispatches": 2.0}],
        "compilations": 0.0,
        "soak": {
            "asked": 1000,
            "sent": 1000,
            "seconds": 90.0,
            "errors": 0,
            "first_errors": [],
            "bytes": {"20%": 100 * 2**20, "60%": 101 * 2**20, "100%": 102 * 2**20},
            "compilations": 0.0,
            "compiled_with": [],
            "rows_left": 0.0,
        },
    }


def test_the_report_has_medians_worst_rounds_and_reasons(bench_serve, figures):
    text = bench_serve.report(figures)
    assert "| first token of an idle server, 6 streams | 12 ms | 70 ms | <= 100 ms |" in text
    assert "| tokens/s of 8 streams over one, 2 rounds | 3.25x | 2.50x | >= 3x |" in text
    assert "left is free, 3 clients | 1 | 2 | <= 1 |" in text
    assert "100, 101, 102 MiB (+2.0% since 20 %)" in text
    assert "| tokens/s, 8 streams at once | 3.25x (2.50x) | plain app |" in text
    assert "| time to the first token, idle | 1.92x (1.85x) | plain app |" in text
    assert "transformers serve is out: ended: no fastapi" in text


@pytest.mark.parametrize(
    "change",
    [
        {"soak": {"errors": 1}},
        {"soak": {"sent": 999}},
        {"soak": {"rows_left": 1.0}},
        {"compilations": 1.0},
    ],
)
def test_a_fault_in_the_soak_fails_the_command(bench_serve, figures, change):
    assert not bench_serve.failed(figures)
    more = dict(change.get("soak", {}))
    assert bench_serve.failed(figures | change | {"soak": figures["soak"] | more})
    del figures["soak"]
    assert not bench_serve.failed(figures)


def test_texts_of_an_exported_folder_have_one_length(bench_serve, tmp_path):
    settings = {"eos_token_id": 1, "max_length": 128, "top_k": 5, "top_p": 0.9, "bos_token_id": 1}
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text(json.dumps(settings))
    bench_serve.no_end_token(tmp_path)
    model = json.loads((tmp_path / "config.json").read_text())
    assert model == settings | {"eos_token_id": None}
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert (written["eos_token_id"], written["top_k"], written["top_p"]) == (None, 0, 1.0)
    assert "max_length" not in written


@pytest.mark.slow
def test_a_server_that_ends_is_one_line_and_one_that_runs_can_be_stopped(bench_serve):
    from hlm_jax.errors import UserError

    dies = bench_serve.Server("toy", [sys.executable, "-c", "raise SystemExit('no port {port}')"])
    with pytest.raises(UserError, match=r"toy ended: no port \d+"):
        dies.__enter__()
    code = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(('127.0.0.1', {port}), Handler).serve_forever()
"""
    with bench_serve.Server("toy", [sys.executable, "-c", code]) as server:
        assert server.memory() > 2**20
        with server.awake():
            assert httpx.get(f"{server.url}/health").status_code == 200
        with pytest.raises(httpx.ReadTimeout):  # stopped: it accepts and does not answer
            httpx.get(f"{server.url}/health", timeout=0.2)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", timeout=1)


@pytest.mark.slow
def test_the_plain_app_writes_what_is_asked(load, bench_serve, trained, script, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    words = ("--workdir", trained[0], "--format", "hf", "--out", tmp_path / "hf")
    assert script("export", *words).returncode == 0
    bench_serve.no_end_token(tmp_path / "hf")
    app = importlib.import_module("serve_transformers").make_app(str(tmp_path / "hf"))

    async def two():
        client = load.Client("http://toy")
        client.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://toy")
        async with client:
            return await load.streams(client, ["宝玉", "黛玉笑道"], 12)

    texts = asyncio.run(two())
    assert [text.tokens for text in texts] == [12, 12]
    assert all(text.text for text in texts)
