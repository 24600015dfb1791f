"""Clients that others wrote, against a server in a process of its own."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from serving import events_of, wait_until

from hlm_jax.run import load_run
from tests.conftest import REPO

pytestmark = pytest.mark.slow
# An interpreter that has lm-eval; the project's own need not.
LM_EVAL = os.environ.get("HLM_LM_EVAL_PYTHON", sys.executable)
TASK = """
task: chapter
dataset_path: text
dataset_kwargs:
  data_files:
    test: {file}
  sample_by: document
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: bits_per_byte
"""


@contextmanager
def started(environment, *words):
    """(process, address) of scripts/serve.py when it is ready; ended hard if it still runs."""
    command = [sys.executable, str(REPO / "scripts" / "serve.py"), "--port", "0", *map(str, words)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), line + process.stderr.read()
        yield process, line.removeprefix("ready: ").strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address(environment, trained):
    with started(environment, "--workdir", trained[0], "--max_rows", 2) as (_, address):
        yield address


def test_the_openai_package(address, trained):
    import openai

    client = openai.OpenAI(base_url=address + "v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    body = {"model": "tiny", "prompt": "宝玉笑道：", "max_tokens": 24, "seed": 7, "n": 2}
    whole = client.completions.create(**body, logprobs=2, extra_body={"min_p": 0.01})
    assert [choice.finish_reason for choice in whole.choices] == ["length", "length"]
    stream = client.completions.create(
        **body, logprobs=2, extra_body={"min_p": 0.01}, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    texts, logprobs, usage = ["", ""], [[], []], None
    for event in stream:
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
            logprobs[choice.index] += choice.logprobs.token_logprobs
    assert texts == [choice.text for choice in whole.choices]
    assert logprobs == [choice.logprobs.token_logprobs for choice in whole.choices]
    assert usage == whole.usage
    run = load_run(trained[0])
    body = {"temperature": 0.0, "max_new_tokens": 24}
    greedy = client.completions.create(
        model="tiny", prompt="宝玉", max_tokens=24, temperature=0,
        extra_body={"add_special_tokens": False},
    )  # fmt: skip
    assert greedy.choices[0].text == run.generate("宝玉", **body)[0]
    with pytest.raises(openai.BadRequestError, match="best_of is not supported"):
        client.completions.create(model="tiny", prompt="a", best_of=2)
    with pytest.raises(openai.NotFoundError, match="there is no such model: use tiny"):
        client.completions.create(model="gpt-4", prompt="a")


def test_curl(address):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")

    def curl(*words):
        done = subprocess.run(["curl", "-sS", *words], capture_output=True, timeout=60, check=True)
        return done.stdout.decode()

    assert json.loads(curl(address + "health")) == {"status": "ok"}
    kind = ["-H", "Content-Type: application/json", address + "v1/completions", "-d"]
    body = {"prompt": "宝玉笑道：", "max_tokens": 20, "seed": 1}
    whole = json.loads(curl(*kind, json.dumps(body)))["choices"][0]["text"]
    events = events_of(curl("-N", *kind, json.dumps(body | {"stream": True})))
    assert "".join(event["choices"][0]["text"] for event in events) == whole
    refused = json.loads(curl(address + "v1/completions", "-d", json.dumps(body)))
    assert "Content-Type: application/json" in refused["error"]["message"]
    refused = json.loads(curl("-H", "Host: evil.example", address + "v1/models"))
    assert refused["error"]["code"] == "host_not_allowed"


def test_a_client_that_hangs_up_frees_its_rows(address):
    import httpx

    def value(name):
        lines = httpx.get(address + "metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    left = 'hlm_requests_total{route="/v1/completions",status="499"}'
    body = {"prompt": ["宝玉"] * 4, "max_tokens": 4096, "n": 16}  # takes seconds
    with httpx.stream("POST", address + "v1/completions", json=body | {"stream": True}) as answer:
        parts = answer.iter_text()  # closes the connection when it is dropped
        assert next(parts).startswith("data: ")
        assert value("hlm_rows_active") == 2
    wait_until(lambda: value("hlm_rows_active") == 0 and value(left) == 1, seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(address + "v1/completions", json=body, timeout=0.3)
    wait_until(lambda: value("hlm_rows_active") == 0 and value(left) == 2, seconds=30)
    assert value("hlm_sequences_waiting") == value("hlm_requests_in_work") == 0


def test_lm_eval_gives_the_bits_of_the_run(address, trained, environment, tmp_path):
    found = subprocess.run([LM_EVAL, "-c", "import lm_eval, tenacity"], capture_output=True)
    if found.returncode:
        pytest.skip("lm_eval[api] is not installed: HLM_LM_EVAL_PYTHON names an interpreter of it")
    run = load_run(trained[0])
    text = run.reference.splits["test"][0].text
    (tmp_path / "chapter.txt").write_text(text, encoding="utf-8")
    (tmp_path / "task").mkdir()
    task = TASK.format(file=tmp_path / "chapter.txt")
    (tmp_path / "task" / "chapter.yaml").write_text(task, encoding="utf-8")
    options = {
        "model": "tiny",
        "base_url": address + "v1/completions",
        "tokenizer_backend": "remote",
        "tokenized_requests": True,
        "max_length": 100_000,
        "max_retries": 1,
    }
    words = ["run", "--model", "local-completions", "--tasks", "chapter"]
    words += ["--model_args", ",".join(f"{name}={value}" for name, value in options.items())]
    words += ["--include_path", tmp_path / "task", "--output_path", tmp_path / "out"]
    env = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [LM_EVAL, "-m", "lm_eval", *map(str, words)],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "out").rglob("results_*.json")
    bits = json.loads(path.read_text())["results"]["chapter"]["bits_per_byte,none"]
    (score,) = run.score(text)
    assert score.tokens > 10 * run.model.cfg.block_size
    assert math.isclose(bits * len(text.encode()) / len(text), score.bits_per_char, rel_tol=1e-6)


def test_sigterm_lets_the_texts_in_work_end(environment, trained):
    import httpx

    with started(environment, "--workdir", trained[0], "--max_rows", 1) as (process, address):
        body = {"prompt": "宝玉", "max_tokens": 4096, "stream": True, "seed": 1}
        arrived, begun = [], threading.Event()

        def read():
            with httpx.stream("POST", address + "v1/completions", json=body, timeout=60) as answer:
                for part in answer.iter_text():
                    arrived.append(part)
                    begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        reader.join(60)
        assert process.wait(60) == 0
        events = events_of("".join(arrived))
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        (line,) = process.stderr.read().splitlines()
        assert line.startswith("note: compiling")
        with pytest.raises(httpx.TransportError):
            httpx.get(address + "health")


def test_a_server_that_cannot_start_says_why(command, trained, tmp_path):
    words = ["scripts/serve.py", "--workdir"]
    done = command(*words, tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("serve: error: ")
    assert done.stderr.count("\n") == 1
    done = command(*words, trained[0], "--api_key", "a b")
    assert done.returncode == 2
    hidden = "import sys; sys.modules['uvicorn'] = None; sys.argv[0] = 'serve'; "
    code = hidden + "import runpy; runpy.run_path('scripts/serve.py', run_name='__main__')"
    done = command("-c", code, "--workdir", trained[0])
    assert done.returncode == 2
    assert done.stderr == (
        "serve: error: the package uvicorn is not installed: EXTRAS=serve bash "
        "scripts/environment.sh\n"
    )


def test_another_address_and_a_key(environment, trained):
    import httpx

    env = environment | {"HLM_API_KEY": "a-key"}
    words = ["--workdir", trained[0], "--max_rows", 1, "--host", "0.0.0.0"]
    with started(env, *words) as (process, address):
        assert httpx.get(address + "health").status_code == 200
        assert httpx.get(address + "v1/models").status_code == 401
        headers = {"Authorization": "Bearer a-key"}
        assert httpx.get(address + "v1/models", headers=headers).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert (
            "bound to 0.0.0.0: other machines reach this server; whoever" in process.stderr.read()
        )
