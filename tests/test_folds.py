"""Fold models: every chapter held out once, everything fitted inside its fold, and resuming."""

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPO
from trainer import Trainer

from hlm_jax import checkpoint, folds, process, sides
from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import load_corpus
from hlm_jax.book.given import write_given
from hlm_jax.book.splits import evened, split_chapters
from hlm_jax.book.tokenizer import train_tokenizer
from hlm_jax.config import book_arguments, default_config
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.numbers import chapter_numbers, written_numbers
from hlm_jax.run import load_run
from hlm_jax.training.report import final_report

BASE = str(REPO / "configs/base.py")


@pytest.fixture(scope="module")
def words(tiny):
    """Overrides of a model that trains in a second."""
    return [word.removeprefix("--config.") for word in tiny]


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.setattr(process, "train", Trainer())
    return process.train


@pytest.fixture(scope="module")
def two(words, tmp_path_factory):
    """Two folds, begun and stopped before the second and finished by the same call; its lines."""
    workdir, lines = tmp_path_factory.mktemp("folds") / "two", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "train", trainer := Trainer())
        trainer.fails_at = "fold 2 of 2"
        with pytest.raises(UserError, match="asked to stop"):
            folds.train_folds(BASE, words, folds=2, workdir=workdir)
        with pytest.raises(UserError) as unfinished:
            folds.open_folds(workdir)
        trainer.fails_at = None
        folds.train_folds(BASE, words, folds=2, workdir=workdir, say=lines.append)
    assert trainer.names == ["fold 1 of 2", "fold 2 of 2"]
    return workdir, lines, str(unfinished.value)


def refusal(function, *args, **named):
    with pytest.raises(UserError) as refused:
        function(*args, **named)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- numbers ---


def test_chapter_numbers_and_their_words():
    assert chapter_numbers(" 8, 1-3 ,0") == [0, 1, 2, 3, 8]
    assert chapter_numbers("") == []
    assert written_numbers([8, 3, 1, 2, 0, 10]) == "0-3,8,10"
    for wrong in ("1-", "x", "1,,2", "3-1", "1-3,2", "100000"):
        with pytest.raises(ValueError, match=r".+"):
            chapter_numbers(wrong)


# --- folds ---


def test_every_chapter_is_held_out_once_and_all_others_are_trained_on(two):
    held = []
    for k, run in enumerate(folds.open_folds(two[0]), 1):
        splits = {name: [c.number for c in of] for name, of in run.reference.splits.items()}
        assert splits["test"] == list(range(k, 21, 2))
        assert splits["val"] == []
        assert sorted(splits["train"] + splits["test"]) == list(range(1, 21))
        held += splits["test"]
        assert (run.workdir.name, run.step) == (f"fold-{k:02d}", 12)  # the best is the latest
    assert sorted(held) == list(range(1, 21))
    record = json.loads((two[0] / "folds.json").read_text(encoding="utf-8"))
    assert record["held_out"][0] == list(range(1, 21, 2))
    assert record["book"]["chapters"] == 20


def test_a_fold_is_fitted_on_its_training_chapters_alone(two):
    vocabularies = set()
    for run in folds.open_folds(two[0]):
        texts = [chapter.text for chapter in run.reference.splits["train"]]
        fitted = train_tokenizer(texts, vocab_size=1500, character_coverage=0.98)
        assert run.tokenizer.fingerprint == fitted.fingerprint
        vocabularies.add(fitted.fingerprint)
        for chapter in run.reference.splits["test"]:
            assert run.tokenizer.decode(run.tokenizer.encode(chapter.text)) == chapter.text
    assert len(vocabularies) == 2


def test_the_scores_are_those_of_the_fold_that_did_not_see_the_chapter(two):
    rows = folds.score_folds(two[0])
    assert [row["number"] for row in rows] == list(range(1, 21))
    assert [row["fold"] for row in rows] == [k % 2 + 1 for k in range(20)]
    run = folds.open_folds(two[0])[1]
    chapter = run.reference.splits["test"][2]
    row = rows[chapter.number - 1]
    assert row["heading"] == chapter.heading
    assert row["bits"] == pytest.approx(sum(s.bits for s in run.surprisal(chapter.text)), rel=1e-5)
    counted = KneserNey([c.text for c in run.reference.splits["train"]])
    assert row["ngram_bits"] == pytest.approx(
        counted.bits_per_char([chapter.text]) * len(chapter.text)
    )
    found = folds.total(rows)
    assert found["chars"] == folds.read_record(two[0])["book"]["characters"]
    assert found["bits_per_char"] == pytest.approx(sum(r["bits"] for r in rows) / found["chars"])
    said = []
    assert folds.score_folds(two[0], say=said.append) == rows
    assert said == []  # scored once


def test_what_a_command_says(two, words, script):
    workdir, lines, unfinished = two
    assert lines[0].startswith("2 folds of book: 14,")
    assert lines[1] == f"  fold 1 holds out 10 chapters: {','.join(map(str, range(1, 21, 2)))}"
    assert lines[3].startswith("1 to train: about ")  # fold 1 is finished
    assert lines[4].startswith("fold 2 of 2: trains in ")
    assert lines[5].startswith("fold 2 of 2: step 1 of 2; ")
    assert lines[5].endswith(" s left")
    assert lines[6:] == ["fold 2 of 2: trained in 4 s"]
    assert "fold-02 not finished" in unfinished
    assert f"python scripts/folds.py --config {BASE} --folds 2 --workdir {workdir}" in unfinished
    log = (workdir / "fold-01/log.txt").read_text(encoding="utf-8")
    assert "held out: chapters 1, 3, …, 19 for the test (as split.test names them; " in log
    options = [f"--config.{word}" for word in words]
    done = script("folds", "--config", BASE, "--folds", 2, "--workdir", workdir, *options)
    assert done.returncode == 0, done.stderr
    assert "to train" not in done.stdout
    found = folds.total(folds.score_folds(workdir))
    assert f"the book: {found['bits_per_char']:.4f} bits/char (5-gram " in done.stdout
    done = script("evaluate", "--workdir", workdir / "fold-02", "--split", "test", "--json")
    rows = [row for row in folds.score_folds(workdir) if row["fold"] == 2]
    assert json.loads(done.stdout)["bits_per_char"] == pytest.approx(
        folds.total(rows)["bits_per_char"]
    )


def test_the_final_report_of_a_run_with_test_chapters_alone(edition):
    splits = split_chapters(edition.chapters, held_out=True, test="3,5-7")
    material = SimpleNamespace(
        baseline=None,
        mixed_baseline=None,
        init=None,
        holds_out=True,
        splits=splits,
        report={"chapters": 80},
    )
    lines = final_report(None, material, None, None, SimpleNamespace(workdir="runs/a"))
    assert "score the test chapters: python scripts/evaluate.py --workdir runs/a --split" in next(
        lines
    )
    assert next(lines).startswith("held out: chapters 3, 5, 6, 7 for the test (as split.test")


def test_a_prologue_is_held_out_too(words, tmp_path):
    path = tmp_path / "book.txt"
    body = "".join(chr(0x4E00 + (37 * i * i) % 4000) for i in range(400))
    text = f"楔子\n{body}\n" + "".join(f"第{n}回\n{body[n:] * 2}\n" for n in range(1, 12))
    path.write_text(text, encoding="utf-8")
    parts = [f"corpus.path={path}"]
    assert "held-out text stands in training" in refusal(
        folds.plan_folds, BASE, [*words, *parts], folds=4
    )
    bodies = [body[n * 30 : n * 30 + 30] for n in range(12)]
    text = "".join(
        f"{f'第{n}回' if n else '楔子'}\n" + "，".join(bodies[n]) * 12 + "\n" for n in range(12)
    )
    path.write_text(text, encoding="utf-8")
    plan = folds.plan_folds(BASE, [*words, *parts], folds=4)
    assert plan.held_out == ((0, 4, 8), (1, 5, 9), (2, 6, 10), (3, 7, 11))


def test_other_folds_in_the_same_folder_are_refused(two, words, trainer, book, tmp_path):
    workdir = two[0]

    def again(*more, count=2):
        return refusal(folds.train_folds, BASE, [*words, *more], folds=count, workdir=workdir)

    assert "(folds: 2 -> 4): use another --workdir" in again(count=4)
    assert "(train.steps: 12 -> 3)" in again("train.steps=3")
    other = tmp_path / "other.txt"
    other.write_text(book.read_text(encoding="utf-8").replace("宝玉", "贾母"), encoding="utf-8")
    assert "the book: sha256" in again(f"corpus.path={other}")
    assert trainer.names == []


@pytest.mark.parametrize(
    ("more", "count", "message"),
    [
        ([], 1, "1 folds: give 2 to 20, the book's number of chapters"),
        ([], 21, "21 folds"),
        (["split.test=3"], 3, "leave split.train, split.test and tokenizer.chapters empty"),
        (["tokenizer.chapters=3"], 3, "folds decide which chapters are held out"),
        (["train.teachers=a"], 3, "train.teachers may have read the chapters of a fold"),
        (["train.init_from=a"], 3, "train.init_from names a model that has read the chapters"),
        (["train.patience=2"], 3, "set --config.train.patience=0"),
        (["no.key=2"], 3, "unknown config key"),
    ],
)
def test_what_makes_no_folds_is_refused_before_anything_is_written(
    more, count, message, words, trainer, tmp_path
):
    line = refusal(
        folds.train_folds, BASE, [*words, *more], folds=count, workdir=tmp_path / "folds"
    )
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_folds_says_how_to_train_them(tmp_path):
    assert "python scripts/folds.py --config" in refusal(folds.open_folds, tmp_path)
    (tmp_path / "folds.json").write_text("{", encoding="utf-8")
    assert "is not JSON" in refusal(folds.open_folds, tmp_path)
    for content in ("{}", "[1]", "3", '{"folds": 2}'):
        (tmp_path / "folds.json").write_text(content, encoding="utf-8")
        assert "is no record of folds: delete it" in refusal(folds.open_folds, tmp_path)


def test_damaged_scores_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "open_folds", lambda _: [SimpleNamespace(workdir=tmp_path)])
    for content in ("{", "{}", "[1]", '[{"fold": 1}]'):
        (tmp_path / "scores.json").write_text(content, encoding="utf-8")
        assert "scores.json holds no scores: delete it" in refusal(folds.score_folds, tmp_path)


# --- named chapters, and two sides ---


def test_training_on_named_chapters(words, trainer, book, tmp_path):
    folder = tmp_path / "named"
    named = {"workdir": folder, "train": [3, 4, 5, 8], "test": [1, 9], "vocabulary": [3, 4, 5, 6]}
    assert folds.train_on(BASE, words, **named) == folder
    assert folds.train_on(BASE, words, **named) == folder
    assert trainer.names == ["named"]
    run = load_run(folder)
    splits = run.reference.splits
    assert [[c.number for c in splits[s]] for s in ("train", "test")] == [[3, 4, 5, 8], [1, 9]]
    everything = run.reference.open(run.config.corpus, {"held_out": False}, run.meta["corpus"])
    texts = [c.text for c in everything.splits["train"] if c.number in (3, 4, 5, 6)]
    fitted = train_tokenizer(texts, vocab_size=1500, character_coverage=0.98)
    assert run.tokenizer.fingerprint == fitted.fingerprint
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "; 4 of 20 chapters are trained on" in log
    line = refusal(folds.train_on, BASE, words, **named | {"test": [1]})
    assert "holds another training (split.test: 1,9 -> 1)" in line
    other = {"workdir": tmp_path / "other", "train": [1, 2]}
    assert "both name 2" in refusal(folds.train_on, BASE, words, **other, test=[2])
    for more, message in (
        ({"test": [21]}, "split.test=21: the book has no chapter 21; it has 1-20"),
        ({"test": [3], "vocabulary": [1, 3]}, "tokenizer.chapters=1,3 names 3, held out"),
        ({"test": [], "vocabulary": [1, 21]}, "tokenizer.chapters=1,21: the book has no chapter"),
    ):
        assert message in refusal(folds.train_on, BASE, words, **other, **more)
    assert not list((tmp_path / "other").glob("checkpoints*"))
    text = book.read_text(encoding="utf-8").replace("宝玉", "贾母")
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    words = [*words, f"corpus.path={tmp_path / 'book.txt'}"]
    assert "(the book: sha256 " in refusal(folds.train_on, BASE, words, **named)


def test_sides_are_evened_by_whole_chapters_spread_over_the_larger():
    lengths = {n: 100 + 7 * (n * n % 11) for n in range(1, 41)}
    a, b = evened(range(1, 31), range(31, 41), lengths)
    assert b == list(range(31, 41))
    chars = [sum(lengths[n] for n in side) for side in (a, b)]
    assert abs(chars[0] - chars[1]) < 10
    assert set(a) < set(range(1, 31))
    gaps = [after - before for before, after in itertools.pairwise(a)]
    assert max(gaps) <= 6
    assert evened(b, a, lengths) == (b, a)
    assert evened([1], [2, 3], dict.fromkeys((1, 2, 3), 9))[0] == [1]


def test_the_sides_of_a_fold_share_vocabulary_steps_and_size(words, trainer, tmp_path):
    given = {"a": range(1, 13), "b": range(13, 20), "workdir": tmp_path / "sides"}
    parts = [[1, 5, 9, 13, 20]]
    pairs = sides.train_sides(BASE, words, folds=parts, **given)
    assert sides.train_sides(BASE, words, folds=parts, **given) == pairs
    assert trainer.names == ["fold 1 of 1, side A", "fold 1 of 1, side B"]
    for pair, held in zip(pairs, parts, strict=True):
        a, b = load_run(pair.a), load_run(pair.b)
        assert a.tokenizer.fingerprint == b.tokenizer.fingerprint
        assert a.step == b.step == 12
        assert [c.number for c in a.reference.splits["test"]] == held
        assert [c.number for c in a.reference.splits["train"]] == list(pair.train_a)
        assert not set(pair.train_a + pair.train_b) & set(held)
        assert set(pair.train_b) <= set(range(13, 20))
        assert abs(pair.chars_a - pair.chars_b) < 0.1 * pair.chars_b
        assert pair.chars_a == sum(len(c.text) for c in a.reference.splits["train"])
    plan = {"folds": parts, "workdir": tmp_path}
    for more, change, message in (
        ([], {"b": range(12, 20)}, "chapters 12 are on both sides"),
        ([], {"b": [13]}, "fold 1 holds a whole side out"),
        (["train.steps=0"], {}, "set --config.train.steps"),
    ):
        args = given | plan | change
        assert message in refusal(sides.train_sides, BASE, [*words, *more], **args)


def test_chapters_that_a_program_made_are_taken_as_they_are(tmp_path):
    chapters = [
        Chapter(7, "", "第二回　第三回\n\n  宝玉\u3000\n&amp;\n\n"),
        Chapter(3, "x", "第一回\n目录"),
    ]
    path = write_given(chapters, tmp_path / "new" / "texts")
    assert path.name == "texts.chapters.json"
    settings = book_arguments(default_config()) | {"path": str(path), "convert": "s2t"}
    book = load_corpus(**settings)
    assert list(book.chapters) == chapters
    assert (book.name, book.report["chapters"], book.report["cut_by"]) == ("texts", 2, "given")
    for rows, message in (
        ([[1, "", "a"], [1, "", "b"]], "two of one number"),
        ([], "no chapters"),
        ([[1, "", " \n"]], "chapter 1 has no text"),
        ([[1, "a"]], "no chapters as hlm_jax writes them"),
    ):
        path.write_text(json.dumps({"chapters": rows}), encoding="utf-8")
        assert message in refusal(load_corpus, **settings)
    path.unlink()
    assert "cannot be read" in refusal(load_corpus, **settings)


# --- processes ---


@pytest.mark.slow
def test_a_signal_lets_the_training_save_and_the_same_command_goes_on(words, environment, tmp_path):
    more = ["train.steps=4000", "checkpoint.every_steps=4000", "train.log_every_steps=20"]
    options = [f"--config.{word}" for word in [*words, *more]]
    command = ["scripts/folds.py", "--config", BASE, "--folds", "2", "--workdir", tmp_path]

    def start():
        return subprocess.Popen(
            [sys.executable, *map(str, command), *options],
            cwd=REPO,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def wait_for(path: Path, text: str, running):
        deadline = time.monotonic() + 120
        while not (path.exists() and text in path.read_text(encoding="utf-8")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    log = tmp_path / "fold-01/log.txt"
    running = start()
    wait_for(log, "step 20/4000", running)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "folds: the training of fold 1 of 2 was asked to stop; the same" in errors
    assert "stopped at step" in log.read_text(encoding="utf-8")
    running = start()
    wait_for(log, "resuming from step", running)
    running.send_signal(signal.SIGINT)
    assert "asked to stop" in running.communicate(timeout=60)[1]
    assert process.seconds(tmp_path / "fold-01") > 1


def test_a_run_and_a_folder_of_folds_are_told_apart(trained, tmp_path):
    workdir, _ = trained
    with pytest.raises(UserError, match="is one run"):
        folds.open_folds(workdir)
    (tmp_path / "folds.json").write_text("{}")
    with pytest.raises(UserError, match="holds fold models"):
        checkpoint.resolve_step(tmp_path, "best")
