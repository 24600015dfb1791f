import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hlm_jax
from hlm_jax import evaluation
from hlm_jax.analysis.surprisal import exact, hypotheses
from hlm_jax.analysis.surprisal.characters import character_scores
from hlm_jax.analysis.surprisal.hypotheses import Reader
from hlm_jax.analysis.surprisal.vocabulary import BYTES, END, Vocabulary
from hlm_jax.errors import UserError
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures import mixture
from hlm_jax.measures.mixture import NgramMixture
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.pool import Predictions, fit_weights
from hlm_jax.measures.readings import Reading
from hlm_jax.measures.score import Learner, sliding_windows
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.run import load_run

# Two ways to write a line end, one character (石) that only bytes can write, long tokens, and two
# of byte-level vocabularies, which begin or end inside a character.
PIECES = [
    b"",
    b"",
    b"\n",
    b"\n",
    *"红 楼 梦 红楼 楼梦 红楼梦".encode().split(),
    b"\xe7",
    b"\x9f",
    b"\xb3",
    "楼".encode() + b"\xe7",
    b"\x9f\xb3" + "红".encode(),
]
TEXT = "红楼梦\n石红楼红梦楼梦红楼梦\n楼梦"


class Pieces:
    """A tokenizer of a few tokens; token 1 is the separator, token 0 has no bytes either."""

    separator_id, vocab_size, fingerprint = 1, len(PIECES), "pieces"

    def token_bytes(self, token):
        return PIECES[token]

    def encode(self, text):
        """The longest token first."""
        data, ids = text.encode(), []
        while data:
            ids.append(
                max(
                    range(2, len(PIECES)), key=lambda i: data.startswith(PIECES[i]) * len(PIECES[i])
                )
            )
            data = data[len(PIECES[ids[-1]]) :]
        return ids


def small_model(form):
    cfg = GPTConfig(
        form,
        vocab_size=len(PIECES),
        block_size=4,
        n_layer=2,
        n_head=2,
        n_embd=8,
        dropout=0.0,
        rope_theta=1e4,
    )
    model = GPT(cfg)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return LanguageModel(model, jax.tree.map(lambda p: p * 6.0, params), Pieces())


@pytest.fixture(scope="module")
def models():
    return {form: small_model(form) for form in ("gpt2", "qwen3", "mogrifier")}


@pytest.fixture
def model(models):
    return models["qwen3"]


@pytest.fixture
def wide(monkeypatch):
    """Room for all hypotheses at once: few calls, and one compiled program."""
    monkeypatch.setattr(hypotheses, "WIDTH", 32)
    monkeypatch.setattr(hypotheses, "BLOCKS", 256)


def coverings(text, *, whole=False):
    """All coverings of a text, or all token sequences that are exactly it."""
    found, waiting = [], [((), text.encode())]
    while waiting:
        ids, rest = waiting.pop()
        for token, piece in enumerate(PIECES):
            if piece and rest.startswith(piece) and len(piece) < len(rest):
                waiting.append(((*ids, token), rest[len(piece) :]))
            elif piece and (piece == rest if whole else piece.startswith(rest)):
                found.append((*ids, token))
    return found


def by_brute_force(model, text):
    """P(s) for every beginning s of a text."""
    found = []
    for end in range(1, len(text) + 1):
        rows = [[Pieces.separator_id, *ids] for ids in coverings(text[:end])]
        found.append(sum(math.exp(-nats.sum(dtype=np.float64)) for nats in model.token_nats(rows)))
    return np.array(found)


def bits_of(probabilities):
    return -np.diff(np.log2(probabilities), prepend=0.0)


@pytest.mark.parametrize("form", ["gpt2", "qwen3", "mogrifier"])
def test_a_large_beam_is_exact_also_across_windows(models, wide, form):
    model, text = models[form], TEXT[:10]  # up to 14 tokens, in windows of 4
    assert any(len(sliding_windows(len(ids), 4)) > 3 for ids in coverings(text))
    expected = by_brute_force(model, text)
    (found,) = character_scores(model, [text], beam=10**6, least=0.0)
    np.testing.assert_allclose(found.bits, bits_of(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.bound, -np.log2(expected), rtol=1e-5)
    assert not found.neglected.any()
    assert not found.merged.any()


def test_a_small_beam_is_a_lower_bound_and_says_what_it_dropped(model, wide):
    text = TEXT[:10]
    p = by_brute_force(model, text)
    (dropping,) = character_scores(model, [text], beam=10**6, least=0.3)
    held = 2**-dropping.bound
    assert (held <= p * (1 + 1e-5)).all()
    assert held[-1] < 0.999 * p[-1]
    # Everything that is missing was dropped somewhere.
    assert (p <= (held + np.cumsum(dropping.neglected * held)) * (1 + 1e-5)).all()
    (merging,) = character_scores(model, [text], beam=1, least=0.0)
    assert not merging.neglected.any()
    assert merging.merged.max() > 1e-3  # there is something to merge
    assert (2**-merging.bound <= p * (1 + 1e-5)).all()
    assert merging.read < character_scores(model, [text], beam=10**6, least=0.0)[0].read
    # Merged hypotheses are not lost: their weight stays in the estimate.
    assert merging.bits.sum() < merging.bound[-1]


def test_exact_bits_are_at_most_the_tokens_bits(model, wide):
    """A text as a beginning is at least as likely as one token sequence that is this text."""
    texts = [TEXT[:9], "梦红楼", "石"]
    found = character_scores(model, texts, beam=10**6, least=0.0)
    rows = [[1, *Pieces().encode(text)] for text in texts]
    for one, nats in zip(found, model.token_nats(rows), strict=True):
        assert one.bits.sum() <= nats.sum() / math.log(2) + 1e-4


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("form", ["qwen3", "mogrifier"])
def test_the_next_characters_are_a_distribution_for_every_beam(models, form, beam):
    """The beam at s depends on s alone: what follows may not change it."""
    model = models[form]
    alphabet = "红楼梦\n石"
    for context in ("", "红", "红楼", "石红楼梦"):
        texts = [context + char for char in alphabet]
        found = character_scores(model, texts, beam=beam, least=0.05, top=9)
        p = np.array([2 ** -one.bits[-1] for one in found])
        listed = [dict(one.top[-1]) for one in found]
        assert all(one == listed[0] for one in listed)
        top = listed[0]
        assert sum(top.values()) == pytest.approx(1.0, abs=1e-5)
        assert list(top.values()) == sorted(top.values(), reverse=True)
        for char, own in zip(alphabet[:4], p, strict=False):
            assert top[char] == pytest.approx(own, rel=1e-4)
        assert p[4] <= top[BYTES] * (1 + 1e-5)  # one of the texts that bytes can write
        assert END in top
        entropy = -sum(q * math.log2(q) for q in top.values() if q)
        order = sorted((q for c, q in top.items() if c != BYTES), reverse=True)
        for char, one in zip(alphabet, found, strict=True):
            assert one.entropy_bits[-1] == pytest.approx(entropy, rel=1e-5)
            if char != "石":
                assert order[one.rank[-1] - 1] == pytest.approx(top[char])


@pytest.mark.parametrize("form", ["qwen3", "mogrifier"])
def test_texts_read_together_and_alone_have_the_same_scores(models, monkeypatch, form):
    monkeypatch.setattr(hypotheses, "BLOCKS", 64)  # no compilations for more slots
    model = models[form]
    texts = [TEXT, "梦", TEXT[3:] * 3, *(TEXT[i:] for i in range(1, 15))]
    together = character_scores(model, texts)
    assert [len(one.bits) for one in together] == [len(text) for text in texts]
    for text, one in zip(texts[:3], together, strict=False):
        (alone,) = character_scores(model, [text])
        np.testing.assert_allclose(one.bits, alone.bits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(one.rank, alone.rank)


def test_a_cache_that_fills_up_changes_nothing(model):
    """Nodes of a long sequence equal plain scoring, though slots are moved and added on the way."""
    rng = np.random.default_rng(0)
    columns = np.arange(2, len(PIECES))
    nodes = [[], []]
    reader = Reader(
        model.model,
        model.device_params,
        columns,
        texts=2,
        width=1,
        slots=8,
        live=lambda text: nodes[text],
    )
    ids = rng.integers(2, len(PIECES), (2, 40)).tolist()
    rows = [[1, *row] for row in ids]
    p = np.zeros((2, 40))
    for step in range(40):
        requests = [(t, (nodes[t][-1] if step else None, rows[t][step])) for t in (0, 1)]
        for text, node in enumerate(reader.read(requests)):
            p[text, step] = node.p[ids[text][step] - 2]
            nodes[text] = [*nodes[text][-3:], node]  # older ones may be forgotten
    for text, nats in enumerate(model.token_nats(rows)):
        np.testing.assert_allclose(-np.log(p[text]), nats, rtol=1e-4, atol=1e-5)


def test_the_vocabulary_finds_the_tokens_of_every_prefix():
    vocabulary = Vocabulary(Pieces())
    sorted_pieces = [PIECES[token] for token in vocabulary.tokens]
    assert sorted_pieces == sorted(piece for piece in PIECES if piece)
    for prefix, (first, equal, after) in vocabulary.prefixes.items():
        assert {i for i, x in enumerate(sorted_pieces) if x.startswith(prefix)} == {
            *range(first, after)
        }
        assert {i for i, x in enumerate(sorted_pieces) if x == prefix} == {*range(first, equal)}
    after = [vocabulary.characters[n] for n in vocabulary.next_characters(3)]
    place = sorted_pieces.index("红楼梦".encode())
    assert after[place] == "楼"
    first = [vocabulary.characters[n] for n in vocabulary.next_characters(0)]
    assert first[sorted_pieces.index(b"\xe7")] == BYTES
    assert first[sorted_pieces.index("楼".encode() + b"\xe7")] == "楼"


def test_bad_input_is_refused(model):
    with pytest.raises(UserError, match="text 2 is empty"):
        character_scores(model, ["红", ""])
    with pytest.raises(UserError, match="beam must be at least 1"):
        character_scores(model, ["红"], beam=0)
    assert character_scores(model, []) == []


def test_progress_is_told_and_distributions_can_be_left_out(model):
    told = []
    (found,) = character_scores(
        model, [TEXT], distributions=False, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (len(TEXT), len(TEXT))
    assert told == sorted(told)
    assert not found.rank.size
    assert found.top == []


# --- a trained run ---


@pytest.fixture(scope="module")
def run(trained):
    return hlm_jax.load_run(trained[0])


def test_a_trained_run_costs_less_by_characters_than_by_tokens(run):
    texts = [chapter.text[:150] for chapter in run.read_chapters(split="val")]
    found = character_scores(run, texts)
    exact = sum(one.bits.sum() for one in found)
    by_tokens = sum(score.nats for score in run.score(texts)) / math.log(2)
    assert exact <= by_tokens + 0.01 * len("".join(texts))
    for one, text in zip(found, texts, strict=True):
        assert one.bits.shape == one.neglected.shape == one.rank.shape == (len(text),)
        assert (one.rank >= 1).all()
        assert one.neglected.max() < 0.05


# --- mixtures of characters ---


def read_by(models, texts, alphabet, expected):
    """Readings of texts of which every model expects the same everywhere, {character: p}."""
    readings = []
    for text in texts:
        nats = [-np.log([p[char] for char in text]) for p in models]
        rows = [
            np.log([[*(p[char] for char in alphabet), 1 - sum(p[c] for c in alphabet)]] * len(text))
            for p in models
        ]
        symbols = np.array([(alphabet + char).index(char) for char in text])
        readings.append(Reading(nats, Predictions(rows, symbols, len(alphabet))))
    return readings if expected else [Reading(one.nats, None) for one in readings]


@pytest.mark.parametrize("adaptive", [False, True])
def test_characters_of_models_and_ngrams_are_a_log_linear_mixture(adaptive):
    """What has no column of its own has a part of what the rest has."""
    models = [
        {"a": 0.5, "b": 0.2, "x": 0.1, "y": 0.1, "z": 0.06, "q": 0.03, "w": 0.01},
        {"a": 0.1, "b": 0.3, "x": 0.3, "y": 0.1, "z": 0.02, "q": 0.16, "w": 0.02},
    ]
    alphabet, validation = "abxy", ["xyxxy", "yyxwx"]
    ngram = NgramMixture(["abcabcabcabd", "xyxyxyab", "xyz"] * 5, validation)
    other = read_by(models, validation, alphabet, True)
    named = {"other": other, "validation": validation, "alphabet": alphabet, "adaptive": adaptive}

    def ways(text):
        own = read_by(models, [text], alphabet, True)
        return mixture.evaluate_characters(own, [text], learn=True, ngram=ngram, **named)

    costs, first = {}, "adaptive exact" if adaptive else "exact"
    for char in "abzq龘":
        models[0].setdefault(char, 1e-9)
        models[1].setdefault(char, 1e-9)
        found = ways(char)
        for name, way in found.items():
            costs.setdefault(name, {})[char] = np.exp(-way.scores[0].nats)
    assert list(costs) == [first, f"{first} + log-linear", f"{first} + character 5-gram"]
    assert costs[first]["a"] == pytest.approx(0.3)
    counts = KneserNey(ngram.training).probabilities
    weights = fit_weights([of.expected for of in other])
    rests = 0.1, 0.2
    p = [
        np.array([*(model[char] for char in alphabet), rest])
        for model, rest in zip(models, rests, strict=True)
    ]
    pooled = p[0] ** weights[0] * p[1] ** weights[1]
    pooled /= pooled.sum()
    name = f"{first} + log-linear"
    assert costs[name]["a"] == pytest.approx(pooled[0], rel=2e-3)
    assert costs[name]["b"] == pytest.approx(pooled[1], rel=2e-3)
    # Of the rest, a character has the mean of its parts of the models' rests.
    assert costs[name]["z"] == pytest.approx(pooled[4] * (0.6 + 0.1) / 2, rel=5e-3)
    assert costs[name]["q"] == pytest.approx(pooled[4] * (0.3 + 0.8) / 2, rel=5e-3)
    assert costs[name]["z"] + costs[name]["q"] <= pooled[4]
    name = f"{first} + character 5-gram"
    rest = 1 - sum(counts(char)[0] for char in alphabet)
    counted = [[counts(char)[0] / rest] * (2 if adaptive else 1) for char in "zq"]
    parts = [0.6, 0.1, *counted[0]], [0.3, 0.8, *counted[1]]
    z, q = costs[name]["z"], costs[name]["q"]
    assert z / q == pytest.approx(np.mean(parts[0]) / np.mean(parts[1]), rel=1e-2)
    assert 0 < costs[name]["龘"] < 1e-6


def test_what_a_mixture_by_characters_needs():
    (own,) = read_by([{"a": 0.5, "b": 0.4}], ["ab"], "ab", False)
    assert list(mixture.evaluate_characters([own], ["ab"])) == ["exact"]
    for ngram, learn_on in ((NgramMixture(["ab"], []), None), (None, [])):
        with pytest.raises(UserError, match="no validation chapters are held out"):
            mixture.fitted_on(["ab"], ngram, learn_on)
    assert mixture.fitted_on(["ab"], None, None) == []
    assert mixture.fitted_on(["ab"], NgramMixture(["ab"], ["b", "c"]), None) == ["b", "c"]


def test_exact_scores_of_models_and_an_ngram_model_are_a_distribution(models):
    """What may follow one text: the characters of the vocabulary have less than 1 together."""
    members = [models["qwen3"], models["mogrifier"]]
    validation = ["红楼红楼梦", "石红梦楼梦", "梦红楼\n"]
    ngram = NgramMixture([TEXT, TEXT[3:]], validation)
    texts = [f"梦梦楼{char}" for char in "红楼梦\n石"]
    costs = {}
    for text in texts:
        told = []
        ways, about = exact.evaluate(
            members,
            [text[:-1], text],
            ngram=ngram,
            learn_on=validation,
            adaptive_rate=0.01,
            progress=lambda *at, told=told: told.append(at),
        )
        assert told == sorted(told)
        assert told[-1] == (84, 84)  # both models read all 21 characters twice
        for name, way in ways.items():
            before, whole = way.scores
            costs.setdefault(name, []).append(np.exp(before.nats - whole.nats))
        assert set(about) == {"neglected", "merged"}
    firsts = "exact", "adaptive exact"
    more = "", " + log-linear", " + character 5-gram"
    assert list(costs) == [first + word for first in firsts for word in more]
    for way, p in costs.items():
        if not way.startswith("adaptive"):  # such a model has read the first text of the two
            assert 0.3 < sum(p) <= 1.001
    static, learning = (costs[f"{first} + character 5-gram"] for first in firsts)
    assert static != pytest.approx(learning, rel=1e-3)
    alone, _ = exact.evaluate(members[:1], texts[:1])
    assert list(alone) == ["exact"]


def test_what_is_expected_of_characters_is_what_they_cost(model):
    alphabet = ["红", "楼", "\n"]
    (found,) = character_scores(model, [TEXT], alphabet=alphabet, distributions=False)
    assert found.rank.shape == (0,)
    assert found.expected.shape == (len(TEXT), 4)
    np.testing.assert_allclose(np.exp(found.expected.astype(float)).sum(axis=1), 1, rtol=5e-3)
    for row, char, bits in zip(found.expected, TEXT, found.bits, strict=True):
        if char in alphabet:
            assert -row[alphabet.index(char)] == pytest.approx(bits * math.log(2), rel=2e-3)
        else:  # a part of the rest
            assert -row[3] <= bits * math.log(2) + 2e-3


# --- a model that learns as it reads ---


@pytest.mark.parametrize("form", ["qwen3", "mogrifier"])
def test_what_comes_teaches_nothing_about_what_was_before(models, form):
    """Texts with one beginning have one cost there, wherever the steps fall."""
    ends = ["红楼梦", "石红石\n", "\n", "楼梦" * 5]
    found = [character_scores(models[form], [TEXT + end], adaptive_rate=0.02)[0] for end in ends]
    for one in found[1:]:
        np.testing.assert_allclose(one.bits[: len(TEXT)], found[0].bits[: len(TEXT)], rtol=1e-5)
    # The model has learned by then, and differs from one that stays as it is.
    (static,) = character_scores(models[form], [TEXT])
    half = models[form].model.cfg.block_size // 2
    np.testing.assert_allclose(found[0].bits[:half], static.bits[:half], rtol=1e-5)
    assert not np.allclose(found[0].bits[half : len(TEXT)], static.bits[half:], rtol=1e-2)


@pytest.mark.parametrize("form", ["qwen3", "mogrifier"])
def test_a_rate_of_zero_learns_nothing(models, form):
    texts = [TEXT, "梦楼红石" * 3]
    learning = character_scores(models[form], texts, adaptive_rate=0.0)
    for one, other in zip(learning, character_scores(models[form], texts), strict=True):
        np.testing.assert_allclose(one.bits, other.bits, rtol=1e-4)


def test_a_model_that_learns_gives_probabilities_that_sum_to_one(model):
    (found,) = character_scores(model, [TEXT], adaptive_rate=0.02, top=20)
    for char, bits, top in zip(TEXT, found.bits, found.top, strict=True):
        assert sum(p for _, p in top) == pytest.approx(1, abs=1e-4)
        # What bytes alone can write shares one place in the list.
        assert dict(top)[BYTES if char == "石" else char] >= 2**-bits * (1 - 1e-4)


def test_every_token_is_learned_once_and_the_next_text_goes_on(model, monkeypatch):
    """Half a block of the text's own tokens each, a text's last step has the rest.

    Without 石: what follows it changes the two bytes before, of which one then is learned twice.
    """
    windows = []
    read = Learner.read

    def noted(self, window, first, **named):
        windows.append((list(window), first))
        return read(self, window, first, **named)

    monkeypatch.setattr(Learner, "read", noted)
    texts = [(TEXT + "梦\n" + TEXT[::-1]).replace("石", ""), "梦\n红"]
    alone = character_scores(model, texts[1:], adaptive_rate=0.02)[0]
    windows.clear()
    _, second = character_scores(model, texts, adaptive_rate=0.02)
    learned = [token for window, first in windows for token in window[1 + first :]]
    assert learned == [token for text in texts for token in model.tokenizer.encode(text)]
    half, counts = model.model.cfg.block_size // 2, [len(model.tokenizer.encode(x)) for x in texts]
    new = [len(window) - 1 - first for window, first in windows]
    assert new == [min(half, count - at) for count in counts for at in range(0, count, half)]
    assert all(len(window) <= model.model.cfg.block_size + 1 for window, _ in windows)
    assert abs(second.bits[0] - alone.bits[0]) > 1e-3


def test_progress_of_texts_that_are_read_one_after_another(model):
    told = []
    character_scores(
        model, [TEXT, TEXT], adaptive_rate=0.02, progress=lambda *done: told.append(done)
    )
    assert told == sorted(told)
    assert told[-1] == (2 * len(TEXT), 2 * len(TEXT))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--beam", "2"], "--beam is for --exact"),
        (["--adaptive_rate", "1e-4"], "--adaptive_rate is for --adaptive"),
        (["--exact", "--beam", "0"], "beam must be at least 1, not 0"),
        (["--adaptive", "--adaptive_rate", "nan"], "a number from 0 on, not nan"),
        (["--adaptive", "--adaptive_rate", "inf"], "a number from 0 on, not inf"),
        (["--adaptive", "--adaptive_rate=-1e-5"], "a number from 0 on, not -1e-05"),
        (["--adaptive", "--adaptive_rate", "1e30"], "no number: choose another step"),
        (["--text", "~nobody-of-this-name/text.txt"], "~nobody-of-this-name/text.txt"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(script, trained, words, why):
    done = script("evaluate", "--workdir", trained[0], *words)
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.parametrize("run", ["~nobody-of-this-name/run", f"{'a' * 300}", "~nobody/run@3"])
@pytest.mark.parametrize("flag", ["--workdir", "--ensemble"])
def test_a_run_that_cannot_be_is_refused_in_one_line(script, flag, run):
    done = script("evaluate", flag, run)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_ensemble_says_which_run_was_trained_on_what_is_scored(script, train, trained, tmp_path):
    """The text stands in a chapter that the first run holds out and the second one learned from."""
    other, text = tmp_path / "other", tmp_path / "text.txt"
    held_out = load_run(trained[0]).reference.splits["val"][0].text
    text.write_text(held_out.split("\n")[1][:60], encoding="utf-8")
    words = ["split.held_out=false", "split.test=1", "train.steps=2", "model.vocab_size=1700"]
    assert train(other, *words).returncode == 0
    ensemble = ["--text", text, "--workdir", trained[0], "--ensemble"]
    done = script("evaluate", *ensemble, other, "--exact", "--json")
    assert done.returncode == 0, done.stderr
    assert "TRAINED ON: " in done.stderr
    assert list(json.loads(done.stdout)["trained_on"].values()) == [[1]]
    same = script("evaluate", *ensemble, trained[0], "--json")
    assert "trained_on" not in json.loads(same.stdout)
    # Where no weights are fitted, no run is said to be favoured by them.
    splits = load_run(trained[0]).reference.splits
    text.write_text("".join(chapter.text for chapter in splits["val"]), encoding="utf-8")
    done = script("evaluate", *ensemble, other, "--exact", "--learn_weights", "--json")
    assert "no weights are fitted" in done.stderr
    assert "the weights favour" not in done.stderr
    assert "weights_trained_on" not in json.loads(done.stdout)


def test_of_a_run_whose_book_is_gone_it_is_not_known_what_it_learned_from(
    trained, tmp_path, capsys
):
    """Of the first run as well, whose own split chooses no text of the user's."""
    run, text = load_run(trained[0]), tmp_path / "text.txt"
    text.write_text("宝玉笑道：好妹妹，饶我罢。", encoding="utf-8")
    run.config.corpus.path = str(tmp_path / "gone.txt")
    row = evaluation.evaluate([run], text=str(text))
    assert row["ngram_bits_per_char"] is None
    assert (
        f"not known whether {trained[0]} was trained on what is scored" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_evaluate_exact(script, train, trained, tmp_path):
    """Runs of two tokenizers, mixed by characters; the n-gram model of characters beside them."""
    text = tmp_path / "text.txt"
    text.write_text("宝玉笑道：“好妹妹，饶我罢。”黛玉听了，", encoding="utf-8")
    other = tmp_path / "other"
    assert train(other, "model.vocab_size=1550", "train.steps=2").returncode == 0

    def evaluated(*words):
        done = script("evaluate", *words, "--text", text, "--exact", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    alone = evaluated("--workdir", trained[0])
    exact = alone["also"]["exact"]
    assert exact["bits_per_char"] <= alone["bits_per_char"] + 0.01
    assert exact["chars"] == alone["chars"]
    assert 0 <= exact["neglected"] < 0.05
    assert exact["bound_bits_per_char"] >= exact["bits_per_char"] - 0.01
    both = evaluated("--workdir", trained[0], "--ensemble", other)
    assert both["way"] == "exact"
    assert "also" not in both
    second = evaluated("--workdir", other)["also"]["exact"]["bits_per_char"]
    assert both["bits_per_char"] < (exact["bits_per_char"] + second) / 2
    learning = evaluated("--workdir", trained[0], "--ensemble", other, "--adaptive")
    assert learning["bits_per_char"] == pytest.approx(both["bits_per_char"], rel=1e-6)
    assert list(learning["also"]) == ["adaptive exact"]
    assert not {"tokens", "nats_per_token"} & learning["also"]["adaptive exact"].keys()
    done = script("evaluate", "--ensemble", trained[0], other, "--text", text)
    assert done.returncode == 2
    assert "--exact" in done.stderr
    done = script("evaluate", "--workdir", trained[0], "--text", text, "--exact", "--per_chapter")
    assert "  exact: " in done.stdout
    assert f", exact {exact['bits_per_char']:.4f}" in done.stdout.splitlines()[-1]
    assert "neglected" in done.stdout
