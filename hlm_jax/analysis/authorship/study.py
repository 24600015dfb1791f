"""A question of authorship with everything that belongs beside its answer, by counting alone.

The controls, every masking, folds of neighbouring chapters, other boundaries, and what shows
without being told the sides. A minute for a long novel; no neural network.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.authorship import (
    Material,
    Scores,
    cross_fit,
    cross_fit_grammar,
    masks,
    measured,
)
from hlm_jax.analysis.authorship.clusters import unsupervised
from hlm_jax.analysis.authorship.conclusions import FEW_TEXTS
from hlm_jax.analysis.authorship.decisions import auc
from hlm_jax.analysis.authorship.editions import Difference, edition_differences, refuse
from hlm_jax.analysis.authorship.grammar import grammar_of
from hlm_jax.analysis.authorship.questions import (
    CONTROLS,
    Question,
    Texts,
    book_controls,
    boundaries,
    controls_of,
    deal,
    divide,
    own_border,
)

_LEAST = 5  # texts on each side of a boundary that may be compared with others
_LOCAL = 20  # texts on each side of a boundary in the curve of equal neighbourhoods
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything that was found out about two sides without a GPT.

    Attributes:
      strings: the texts as they were judged, after the mask.
      main: the scores of the question itself.
      lambda_a, lambda_b: its grammar ratios, bits per character, [N].
      summary: JSON-able; summary.json of the command.
      clusters: unsupervised() by the names of the question and of its controls in a row.
    """

    texts: Texts
    strings: tuple[str, ...]
    masked: tuple[str, ...]
    names: tuple[str, ...]
    main: Scores
    controls: Mapping[str, tuple[Scores, ...]]
    lambda_a: np.ndarray
    lambda_b: np.ndarray
    clusters: Mapping[str, dict[str, Any]]
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    summary: dict[str, Any]


def study(
    texts: Texts,
    *,
    folds: int = 10,
    masked: Sequence[str] = (),
    names: Sequence[str] | None = None,
    control_words: Sequence[str] = CONTROLS,
    draws: int = 5,
    unknown: Sequence[str] = (),
    allow_editions: bool = False,
    say: Say = lambda line: None,
) -> Study:
    """The question, its controls, its masks, its boundaries and its clusters, by counting alone.

    Args:
      folds: at most the texts of the smaller side.
      masked: kinds of masks.KINDS that are taken out before anything else.
      names: personal names; None finds them.
      control_words, draws: as questions.controls_of.
      unknown: texts that neither side is known to have written.
      allow_editions: goes on where the sides look like two editions.

    Raises:
      UserError: two editions, more folds than texts, no such mask or control.
    """
    differences = tuple(edition_differences(texts.strings, texts.is_a))
    sizes = int(texts.is_a.sum()), int((~texts.is_a).sum())
    # Chapters of one file have one editor as a rule, and a few of them cannot show another.
    unsure = texts.in_order and min(sizes) < FEW_TEXTS
    if differences and unsure:
        named = "; ".join(map(str, differences[:3]))
        say(
            f"the sides differ as editions may ({named}), but with {min(sizes)} texts on one side "
            f"(fewer than {FEW_TEXTS}) that cannot be judged"
        )
    elif not allow_editions:
        refuse(differences)
    rows = np.arange(len(texts.chapters))
    name = "/".join(texts.names)
    asked = Question(name, rows, texts.is_a, deal(texts.is_a, folds))
    controls = controls_of(texts, control_words, folds, draws=draws)
    books = book_controls(control_words, folds)
    names = tuple(masks.names_of(texts.strings) if names is None else names)
    whole = [*texts.strings, *unknown]
    masked = tuple(kind for kind in masks.KINDS if kind in masks.checked(masked))

    strings = _masked(whole, masked, names)
    material = Material(strings)
    say(f"{name}: {folds} folds of {len(rows)} texts, controls: {', '.join(controls) or 'none'}")
    main = cross_fit(material, asked, unknown=len(unknown), detail=True)
    control_scores = {
        control: tuple(cross_fit(material, one) for one in questions)
        for control, questions in controls.items()
    }
    summary: dict[str, Any] = {
        "book": texts.title,
        "a": texts.names[0],
        "b": texts.names[1],
        "folds": asked.folds,
        "mask": list(masked),
        "training_chars": main.training_chars,
        "texts_a": sizes[0],
        "texts_b": sizes[1],
        "median_chars": float(np.median([len(text) for text in texts.strings])),
        "chapters_supplied": [c.number for c in texts.chapters if c.number in texts.supplied],
        **main.figures(),
    }
    say("grammar models (after LambdaG)")
    grammar = Material([grammar_of(s) for s in _masked(whole, {*masked, "punctuation"}, names)])
    lambda_a, lambda_b = cross_fit_grammar(grammar, asked)
    summary["lambdag"] = measured(lambda_a - lambda_b, asked)
    one_sided = {"auc_of_lambda_a": lambda_a, "auc_of_lambda_b": -lambda_b}
    summary["lambdag"] |= {key: auc(score, texts.is_a) for key, score in one_sided.items()}
    summary["controls"] = {
        control: _control(questions, control_scores[control], grammar, main)
        for control, questions in controls.items()
    }
    for control, questions in controls.items():  # a control of both sides asks the question itself
        if not _of_one_side(texts, questions[0]):
            summary["controls"][control]["straddles"] = True
    for control, (others, one) in books.items():
        say(f"control: {control}")
        summary["controls"][control] = _other_book(others, one, masked)
    blocks = [divide(name, rows, texts.is_a, folds, blocks=True)]
    halves = [c for c, questions in controls.items() if _in_a_row(questions)]
    ordered = [controls[control][0] for control in halves]
    ordered_scores = [control_scores[control][0] for control in halves]
    blocks += [divide(q.name, q.rows, q.is_a, folds, blocks=True) for q in ordered]
    summary["blocks"] = {q.name: cross_fit(material, q).figures() for q in blocks}
    known = {q.name: one for q, one in zip([asked, *ordered], [main, *ordered_scores], strict=True)}
    summary["masks"] = mask_table(whole, [asked, *ordered], names, {tuple(masked): known}, say)
    if texts.in_order:
        say("boundaries")
        summary |= boundary_curves(texts, material, grammar, folds)
    clusters = _clusters(texts, strings, ordered)
    kept = ("group", "explained", "component_1", "component_2", "shares")
    summary["clusters"] = {
        key: {k: v for k, v in found.items() if k not in kept} for key, found in clusters.items()
    }
    summary["editions"] = [str(difference) for difference in differences]
    summary["editions_unsure"] = bool(differences) and unsure
    return Study(
        texts, tuple(strings[: len(rows)]), tuple(masked), names, main, control_scores,
        lambda_a, lambda_b, clusters, differences, tuple(strings[len(rows) :]), summary,
    )  # fmt: skip


def mask_table(
    whole: Sequence[str],
    questions: Sequence[Question],
    names: Sequence[str],
    known: Mapping[tuple[str, ...], Mapping[str, Scores]],
    say: Say,
) -> dict[str, dict[str, Any]]:
    """{mask: {question: figures}}: no mask, each, all, and the one asked for.

    Args:
      known: scores that were computed before, by the kinds of their mask.
    """
    rows: dict[str, tuple[str, ...]] = {"none": ()}
    rows |= {kind: (kind,) for kind in masks.KINDS}
    rows |= {"all": masks.KINDS}
    asked = next(iter(known))
    if asked not in rows.values():
        rows["+".join(asked)] = asked
    table = {}
    for label, kinds in rows.items():
        done = known.get(kinds)
        if done is None:
            say(f"mask: {label}")
            material = Material(_masked(whole, kinds, names))
            done = {one.name: cross_fit(material, one) for one in questions}
        table[label] = {name: scores.figures() for name, scores in done.items()}
    return table


def boundary_curves(
    texts: Texts, material: Material, grammar: Material, folds: int
) -> dict[str, Any]:
    """The effect at every tenth boundary: with all texts, and with as many on each side.

    The first curve compares sides of different sizes by models of different sizes; the second has
    _LOCAL texts before and after each boundary, so its points can be compared; its points have
    function characters ("lambdag") as well.

    Every point says whether its texts are all of one side (one_side), and whether it is the
    boundary between the sides (own).
    """
    window = max(2, min(_LOCAL, len(texts.chapters) // 6))
    border = own_border(texts)
    if border and (smaller := min(border, len(texts.chapters) - border)) >= _LEAST:
        window = min(window, smaller)
    kept: tuple[str, ...] = ("correct", "chapters", "auc", "effect", "effect_low", "effect_high")
    kept += ("cohens_d", "cohens_d_low", "cohens_d_high")
    curves: dict[str, Any] = {}
    for label, size in (("boundary", None), ("boundary_local", window)):
        points = []
        for number, one in boundaries(texts, folds, window=size):
            found = cross_fit(material, one).figures()["ngram"]
            own = bool(border) and number == texts.chapters[border - 1].number
            point: dict[str, Any] = {"after": number, "own": own}
            point |= {"one_side": _of_one_side(texts, one)} | {key: found[key] for key in kept}
            if size is not None:
                bare = measured(cross_fit(grammar, one).ratio, one)
                point["lambdag"] = {"own": own} | {key: bare[key] for key in kept}
            points.append(point)
        curves[label] = points
        curves[f"{label}_maximum"] = {
            key: max(points, key=lambda point: point[key])["after"]
            for key in ("effect", "cohens_d", "auc")
            if points
        }
    return curves | {"boundary_window": window}


def _control(
    questions: Sequence[Question], scores: Sequence[Scores], grammar: Material, main: Scores
) -> dict[str, Any]:
    """The figures of one control; of several draws their mean, range and share as large as ours."""
    if len(questions) == 1:
        grammar_ratio = cross_fit(grammar, questions[0]).ratio
        return scores[0].figures() | {"lambdag": measured(grammar_ratio, questions[0])}
    found: dict[str, Any] = {"draws": len(questions)}
    asked = main.figures()
    for kind in ("ngram", "delta"):
        every = [one.figures()[kind] for one in scores]
        effects = np.array([one["effect"] for one in every])
        found[kind] = {
            key: float(np.mean([one[key] for one in every]))
            for key in ("accuracy", "correct", "chapters", "auc", "cohens_d", "permutation_p")
        }
        found[kind] |= {
            "effect": float(effects.mean()),
            "effect_low": float(effects.min()),
            "effect_high": float(effects.max()),
            "as_large_p": float(
                (1 + (effects >= asked[kind]["effect"]).sum()) / (1 + len(effects))
            ),
        }
    return found


def _other_book(strings: Sequence[str], one: Question, masked: Sequence[str]) -> dict[str, Any]:
    """The figures of the halves of another book, with the names that are found in it."""
    names = masks.names_of(strings)
    found = cross_fit(Material(_masked(strings, masked, names)), one)
    bare = _masked(strings, {*masked, "punctuation"}, names)
    ratio = cross_fit(Material([grammar_of(text) for text in bare]), one).ratio
    figures = found.figures() | {"lambdag": measured(ratio, one)}
    return figures | {"other_book": True, "training_chars": found.training_chars}


def _clusters(
    texts: Texts, strings: Sequence[str], ordered: Sequence[Question]
) -> dict[str, dict[str, Any]]:
    whole = [*range(len(texts.chapters))]
    found = {"/".join(texts.names): unsupervised([strings[i] for i in whole], texts.is_a)}
    for one in ordered:
        if len(one.rows) >= 8:
            found[one.name] = unsupervised([strings[i] for i in one.rows], one.is_a)
    rows = {one.name: one.rows for one in ordered}
    for name, group in found.items():
        last = rows.get(name, np.arange(len(texts.chapters)))[group["break_after"] - 1]
        group["break_after_chapter"] = texts.chapters[last].number
    return found


def _masked(strings: Sequence[str], kinds: Collection[str], names: Sequence[str]) -> list[str]:
    return [masks.mask(s, kinds, names=names) if kinds else s for s in strings]


def _of_one_side(texts: Texts, question: Question) -> bool:
    """Whether all texts of a question belong to one of the sides."""
    return len(set(texts.is_a[question.rows].tolist())) == 1


def _in_a_row(questions: Sequence[Question]) -> bool:
    """Whether a control is one stretch of the book against a later one."""
    q = questions[0]
    return len(questions) == 1 and bool(q.rows[q.is_a].max() < q.rows[~q.is_a].min())
