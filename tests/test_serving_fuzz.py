"""No JSON, whatever it holds, makes the API fail: it is answered, or refused with a reason."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving import error_of, open_models, serving

FUZZ = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HEADERS = {"Content-Type": "application/json"}

numbers = st.one_of(
    st.integers(-3, 40),
    st.integers(-(2**80), 2**80),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 5e-324, 1e-40, 1e30, 1e300, -1.5, 2.0**63]),
    st.floats(allow_nan=True, allow_infinity=True),
)
texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(exclude_categories=[]), max_size=6),  # halves of surrogate pairs too
    st.sampled_from(["", "\0", "宝玉", "▁", "<|chapter|>", "<0xE5>", "😀\r\n", "龘" * 12, " "]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
prompts = st.one_of(
    texts,
    st.lists(texts, max_size=4),
    st.lists(st.integers(-1, 1510), max_size=40),
    st.lists(st.lists(st.integers(0, 1499), max_size=33), max_size=3),
    anything,
)
# Mostly what is nearly right: a wrong field hides all those that are read after it.
FIELDS = {
    "model": st.sampled_from(["tiny", None]),
    "max_tokens": st.integers(0, 3),
    "temperature": st.sampled_from([0, 0.5, 1e-40, 1e-300, 100, 5e-324]),
    "top_p": st.sampled_from([0, 1e-40, 0.5, 1]),
    "top_k": st.sampled_from([-1, 0, 1, 10**6, 2**31 - 1]),
    "min_p": st.sampled_from([0, 1e-40, 0.5, 1]),
    "repetition_penalty": st.sampled_from([0.01, 1, 1.3, 100]),
    "n": st.integers(1, 3),
    "stop": st.one_of(texts, st.lists(texts, max_size=5)),
    "seed": st.integers(-(2**64), 2**64),
    "echo": st.booleans(),
    "logprobs": st.integers(-1, 21),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "add_special_tokens": st.booleans(),
    "clean": st.booleans(),
    "copied": st.booleans(),
    "return_token_ids": st.booleans(),
    "stop_at_chapter_end": st.booleans(),
    "truncate_prompt_tokens": st.integers(0, 32),
    "best_of": st.integers(1, 2),
    "suffix": texts,
    "logit_bias": st.dictionaries(texts, numbers, max_size=1),
    "presence_penalty": numbers,
    "frequency_penalty": numbers,
    "user": texts,
}
likely = st.fixed_dictionaries(
    {"prompt": prompts}, optional={name: field for name, field in list(FIELDS.items())[:20]}
)


@pytest.fixture(scope="module")
def client(trained):
    with serving(open_models(trained[0], max_rows=2)) as client:
        yield client


def is_answered(client, path, body):
    """Sends an object; the answer is one, or a refusal with a reason. The answer."""
    data = json.dumps(body).encode()  # halves of surrogate pairs as escapes, NaN by its name
    answer = client.post(path, content=data, headers=HEADERS)
    assert answer.status_code in (200, 400, 404, 413, 429), (body, answer.status_code, answer.text)
    if answer.status_code != 200:
        assert error_of(answer)[1]
    elif answer.headers["content-type"] == "application/json":
        assert isinstance(answer.json(), dict)
    else:
        assert answer.text.endswith("data: [DONE]\n\n")
    return answer


@FUZZ
@given(body=likely)
@example(body={"prompt": "宝", "temperature": 5e-324, "max_tokens": 3, "logprobs": 20})
@example(body={"prompt": [3], "repetition_penalty": 0.01, "temperature": 1e-40, "logprobs": 1})
@example(body={"prompt": "\0\ud800"})
def test_requests_that_are_nearly_right(client, body):
    is_answered(client, "/v1/completions", body)


@FUZZ
@given(name=st.sampled_from(["prompt", *FIELDS]), value=anything, stream=st.booleans())
def test_any_value_of_one_field(client, name, value, stream):
    body = {"prompt": "宝玉", "max_tokens": 1, "stream": stream, name: value}
    is_answered(client, "/v1/completions", body)


def test_the_fuzz_reaches_every_field(client):
    for name, values in FIELDS.items():
        answer = is_answered(client, "/v1/completions", {"prompt": "宝", name: [[]]})
        assert answer.json()["error"]["param"] == name, values


@FUZZ
@given(body=st.dictionaries(texts, anything, max_size=4))
def test_any_object(client, body):
    for path in ("/v1/completions", "/tokenize", "/detokenize", "/surprisal"):
        is_answered(client, path, body)


@FUZZ
@given(prompt=anything, special=anything, tokens=st.one_of(anything, st.lists(numbers)))
def test_any_tokens(client, prompt, special, tokens):
    is_answered(client, "/tokenize", {"prompt": prompt, "add_special_tokens": special})
    is_answered(client, "/detokenize", {"tokens": tokens})


@FUZZ
@given(
    data=st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ud8e+-.019tn '), max_size=60)
)
def test_any_bytes(client, data):
    answer = client.post("/v1/completions", content=data, headers=HEADERS)
    assert error_of(answer)[0] == 400


@FUZZ
@given(text=texts.filter(lambda text: text.isprintable() or "\r" in text or "\0" in text))
def test_a_text_that_is_accepted_comes_back(client, text):
    body = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = is_answered(client, "/v1/completions", body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == text
