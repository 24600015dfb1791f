"""What a study allows to conclude, in sentences of both languages. Rules, not judgement.

The effect is set beside that of the controls that are one stretch of a side against the next: what
they reach is drift of plot and topic, which two authors are not needed for.
"""

from collections.abc import Mapping
from typing import Any

Sentence = tuple[str, str]  # English, Chinese

FEW_CHARS = 20_000  # of training text; with fewer, n-gram models know little
HALF, NEARLY = 0.5, 0.8  # control effect / effect: from here on weak, from here on nothing


def drift_share(
    found: Mapping[str, Any], controls: Mapping[str, Any], measure: str
) -> tuple[float, str] | None:
    """The largest effect of a control in a row over the effect, and its name; None without one.

    Controls in a row are a stretch of one side, or of another book, against the next.

    Args:
      found: figures of the question by measure; `controls`: likewise by the controls' names.
    """
    effects = [
        (control[measure]["effect"], name)
        for name, control in controls.items()
        if "draws" not in control and name != "odd/even" and measure in control
    ]
    effect = found.get(measure, {}).get("effect")
    if not effects or not effect or effect <= 0:
        return None
    largest, name = max(effects)
    return largest / effect, name


def conclusions(summary: Mapping[str, Any]) -> list[Sentence]:
    """What may be said of a study, the answer first."""
    a, b = summary["a"], summary["b"]
    controls = summary["controls"]
    found = summary["both" if "both" in summary else "ngram"]
    # GPT models have fewer controls than n-grams: the largest share of either counts.
    shares = [drift_share(summary, controls, measure) for measure in ("ngram", "both")]
    share = max((one for one in shares if one), default=None)
    grammar_share = drift_share(summary, controls, "lambdag")
    lines = [_result(found, a, b)]
    if (chars := summary.get("training_chars", FEW_CHARS)) < FEW_CHARS:
        lines.append(
            (
                f"Each model was fitted on {chars:,} characters only: expect little of it.",
                f"每个模型只用了 {chars:,} 字，不可期望过高。",
            )
        )
    if found["effect_low"] <= 0:
        lines.append(
            (
                "The interval holds 0: the sides are not told apart, and nothing about authors "
                "follows, neither that they are two nor that they are one.",
                "区间包含 0：两边没有分开，既不能说明是两个作者，也不能说明是一个。",
            )
        )
        return [*lines, *NEVER]
    if share is None:
        lines.append(
            (
                "No control of one stretch against the next was made, so nothing can be concluded: "
                "drift of plot and topic alone tells most halves of one author's novel apart.",
                "没有前后两段的对照，因此不能下任何结论：单凭情节与话题的推移，"
                "同一作者的前后两半也大多分得开。",
            )
        )
        return [*lines, *NEVER]
    lines.append(_against_drift(*share))
    if grammar_share is not None:
        lines.append(_grammar(*grammar_share))
    if "boundary_maximum" in summary:
        lines.append(_boundaries(summary))
    if summary.get("clusters"):
        lines.append(_clusters(summary))
    if summary.get("editions"):
        lines.append(
            (
                f"The sides look like two editions ({'; '.join(summary['editions'][:3])}): any "
                "difference may be the editors'.",
                "两边看来出自不同版本，任何差异都可能来自编者。",
            )
        )
    return [*lines, *NEVER]


NEVER: tuple[Sentence, ...] = (
    (
        "It cannot be concluded who wrote either side, nor that each side has one author. Another "
        "time of writing, another subject, an editor who went over one part, and other sources of "
        "the digital text give differences too.",
        "不能据此断定任何一边是谁写的，也不能断定一边只有一个作者。写作年代、题材、"
        "只改动一部分的编者、电子文本的不同来源，同样会造成差异。",
    ),
    (
        "A single chapter on the wrong side is a question to its text and editions, not a finding.",
        "个别回目落到另一边，只是提示去查它的文字和版本，不是结论。",
    ),
)


def _result(found: Mapping[str, Any], a: str, b: str) -> Sentence:
    low, high = found["effect_low"], found["effect_high"]
    return (
        f"{found['correct']} of {found['chapters']} held-out texts fall on their own side "
        f"({a} against {b}; AUC {found['auc']:.4f}). The sides' means are {found['effect']:.3f} "
        f"bits per character apart (95 % interval {low:.3f} to {high:.3f}; "
        f"Cohen's d {found['cohens_d']:.2f}).",
        f"{found['chapters']} 篇未参与训练的文本中，{found['correct']} 篇落在自己一边"
        f"（{a} 对 {b}；AUC {found['auc']:.4f}）。两边均值相差每字 {found['effect']:.3f} 比特"
        f"（95% 区间 {low:.3f} 至 {high:.3f}；Cohen's d {found['cohens_d']:.2f}）。",
    )


def _against_drift(share: float, control: str) -> Sentence:
    beside = (
        f"Beside it, the control {control} is {share:.0%} as far apart by the same measure.",
        f"作为对照，{control} 的差异为其 {share:.0%}。",
    )
    if share >= NEARLY:
        words = (
            "One hand's drift of plot and topic gives as much, and nothing about authors follows.",
            "同一人单凭情节与话题的推移就能造成这样的差异，不能说明作者问题。",
        )
    elif share >= HALF:
        words = (
            "So half of the difference or more needs no second author.",
            "差异的一半以上用不着第二个作者来解释。",
        )
    else:
        words = (
            "More than half of the difference is not drift as the controls have it: the sides are "
            "two bodies of text, of which two authors are one explanation.",
            "差异的大半不是对照中那样的推移：两边是两种文本，两个作者是其中一种解释。",
        )
    return f"{beside[0]} {words[0]}", beside[1] + words[1]


def _grammar(share: float, control: str) -> Sentence:
    beyond = share < HALF
    return (
        "With function characters alone, which tell least of the plot, the control with the "
        f"largest effect ({control}) has {share:.0%} of that of the sides: "
        + ("more than half is not drift." if beyond else "half or more may be drift."),
        f"只看最不涉及情节的虚字时，效应最大的对照（{control}）为两边的 {share:.0%}："
        + ("大半不是推移。" if beyond else "一半以上可能是推移。"),
    )


def _boundaries(summary: Mapping[str, Any]) -> Sentence:
    best, local = summary["boundary_maximum"], summary["boundary_local_maximum"]
    window, inner = summary["boundary_window"], local.get("effect", "–")
    return (
        f"Of all boundaries tried, Cohen's d is largest after text {best.get('cohens_d')} and the "
        f"effect in bits after {best.get('effect')}. With {window} texts on each side, so that the "
        f"points can be compared, the effect is largest after {inner}.",
        f"在试过的各个分界中，Cohen's d 在第 {best.get('cohens_d')} 之后最大，比特差在第 "
        f"{best.get('effect')} 之后最大；若每边都取 {window} 篇使各点可比，"
        f"则在第 {inner} 之后最大。",
    )


def _clusters(summary: Mapping[str, Any]) -> Sentence:
    name, found = next(iter(summary["clusters"].items()))
    return (
        "Without being told the sides, two groups of the most frequent characters agree with "
        f"{name} in {found['agreement']:.0%} of the texts (adjusted Rand index "
        f"{found['adjusted_rand']:.2f}); the best single break in their order is after "
        f"text number {found['break_after']}.",
        f"不告知两边时，按最常用字分成的两组与 {name} 有 {found['agreement']:.0%} 相符"
        f"（调整兰德指数 {found['adjusted_rand']:.2f}）；按先后次序的最佳单一断点在第 "
        f"{found['break_after']} 篇之后。",
    )
