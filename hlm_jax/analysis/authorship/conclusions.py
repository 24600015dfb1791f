"""What a study allows to conclude, in sentences of both languages. Rules, not judgement.

The difference of the sides is set beside that of every stretch known of what is taken for one
side: the controls in a row, and the boundaries inside a side. What the largest of them reaches,
drift of plot and topic may explain, and two authors are not needed for.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

Sentence = tuple[str, str]  # English, Chinese

FEW_CHARS = 20_000  # of training text; with fewer, n-gram models know little
# A text of fewer characters is short for unknown.py as well: its ratio hangs on single words.
SHORT = 1_000  # characters of the median text
# With fewer, halves of a side are of four texts and their intervals are too narrow to be compared.
FEW_TEXTS = 10  # of the smaller side
CHANCE = 0.6  # AUC of function characters: from here on down they do not tell the sides apart
HALF, NEARLY = 0.45, 0.8  # of the difference: from here on weak, from here on nothing


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of one side against the next, beside what it may be compared with.

    Attributes:
      window: chapters on each side; 0 for a control.
      found, asked: figures of the stretch, and of the question; with a window, of the question's
        own boundary with as many chapters, if there is one.
    """

    name: str
    window: int
    found: Mapping[str, Any]
    asked: Mapping[str, Any]

    def share(self, unit: str = "effect") -> float:
        """How large it is beside the question, in bits ("effect") or deviations ("cohens_d")."""
        return float(self.found[unit] / self.asked[unit])

    def overlaps(self, unit: str = "effect") -> bool:
        """Whether the two intervals have values in common."""
        high, low = self.found.get(f"{unit}_high"), self.asked.get(f"{unit}_low")
        return high is not None and low is not None and bool(high >= low)


def stretches(summary: Mapping[str, Any], measure: str) -> list[Stretch]:
    """Every stretch known: controls in a row and boundaries, none across the question itself."""
    asked = summary.get(measure, {})
    if not asked or asked["effect"] <= 0:
        return []
    found = [
        Stretch(name, 0, control[measure], asked)
        for name, control in summary["controls"].items()
        if not (control.get("draws") or control.get("straddles") or name == "odd/even")
        and measure in control
    ]
    window = summary.get("boundary_window", 0)
    points = [(p, _of(p, measure)) for p in summary.get("boundary_local", ())]
    own = next((figures for p, figures in points if p.get("own") and figures), None)
    compared = own if own and own["effect"] > 0 else asked
    found += [
        Stretch(str(p["after"]), window, figures, compared)
        for p, figures in points
        if p.get("one_side") and figures
    ]
    return found


def _of(point: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    return point if measure == "ngram" else point.get(measure)


def largest(summary: Mapping[str, Any], measure: str, unit: str = "effect") -> Stretch | None:
    """The stretch with the largest share of the question's difference; None where none is known."""
    known = [
        one
        for one in stretches(summary, measure)
        if (one.found.get(unit) is not None and (one.asked.get(unit) or 0) > 0)
    ]
    return max(known, key=lambda one: one.share(unit), default=None)


def worthless(summary: Mapping[str, Any]) -> list[Sentence]:
    """Why nothing may be concluded from texts such as these, whatever the figures."""
    found: list[Sentence] = []
    if (chars := summary.get("median_chars", SHORT)) < SHORT:
        found.append(
            (
                f"WARNING: the texts are short (the median has {chars:,.0f} characters, and fewer "
                f"than {SHORT:,} are too few): the figures hang on single words.",
                f"警告：文本过短（中位数 {chars:,.0f} 字，不足 {SHORT:,} 字），"
                "数字可能只取决于个别词语。",
            )
        )
    fewest = min(summary.get("texts_a", FEW_TEXTS), summary.get("texts_b", FEW_TEXTS))
    if fewest < FEW_TEXTS:
        found.append(
            (
                f"WARNING: the smaller side has {fewest} texts, and fewer than {FEW_TEXTS} are too "
                "few: drift inside it cannot be measured, nor can editions be told apart.",
                f"警告：较小的一边只有 {fewest} 回，不足 {FEW_TEXTS} 回：无法测出其内部的渐变，"
                "也无法判断版本。",
            )
        )
    return found


def conclusions(summary: Mapping[str, Any]) -> list[Sentence]:
    """What may be said of a study; first of all what may not."""
    found = summary["both" if "both" in summary else "ngram"]
    lines = [FIRST, _result(found, summary["a"], summary["b"])]
    if (chars := summary.get("training_chars", FEW_CHARS)) < FEW_CHARS:
        lines.append(
            (
                f"Each model was fitted on {chars:,} characters only: expect little of it.",
                f"每个模型只用了 {chars:,} 字，不可期望过高。",
            )
        )
    warnings = worthless(summary)
    lines += warnings
    if found["effect_low"] <= 0:
        lines.append(
            (
                "The interval holds 0: the sides are not told apart, and nothing about authors "
                "follows, neither that they are two nor that they are one.",
                "区间包含 0：两边没有分开，既不能说明是两个作者，也不能说明是一个。",
            )
        )
        return [*lines, *NEVER]
    if warnings:
        lines.append(("So nothing about authors follows.", "因此不能说明作者问题。"))
        return [*lines, *_editions(summary), *NEVER]
    if not (stretches(summary, "ngram") or stretches(summary, "both")):
        lines.append(
            (
                "No stretch of one side against the next is known, so nothing can be concluded: "
                "drift of plot and topic alone tells most halves of one author's novel apart.",
                "没有同一边前后两段的对照，因此不能下任何结论：单凭情节与话题的渐变，"
                "同一作者的前后两半也大多分得开。",
            )
        )
        return [*lines, *_editions(summary), *NEVER]
    lines += _drift(summary)
    if "boundary_maximum" in summary:
        lines.append(_boundaries(summary))
    if summary.get("clusters"):
        lines.append(_clusters(summary))
    return [*lines, *_editions(summary), *NEVER]


FIRST: Sentence = (
    "It cannot be concluded from this who wrote either side.",
    "不能据此断定任何一边是谁写的。",
)
NEVER: tuple[Sentence, ...] = (
    (
        "Nor does it follow that each side has one author. Another time of writing, another "
        "subject, an editor who went over one part, and other sources of the digital text give "
        "differences too.",
        "也不能断定一边只有一个作者。写作年代、题材、只改动一部分的编者、电子文本的不同来源，"
        "同样会造成差异。",
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
        f"{found['chapters']} 回未参与训练的文本中，{found['correct']} 回落在自己一边"
        f"（{a} 对 {b}；AUC {found['auc']:.4f}）。两边均值相差每字 {found['effect']:.3f} 比特"
        f"（95% 区间 {low:.3f} 至 {high:.3f}；Cohen's d {found['cohens_d']:.2f}）。",
    )


_WORDS: dict[str, Sentence] = {
    "all": (
        "Drift of plot and topic may explain all or nearly all of it.",
        "情节与话题的渐变可能解释其全部或几乎全部。",
    ),
    "open": (
        "The two cannot be told apart in size: drift of plot and topic may explain all of it.",
        "两者大小无从区分：情节与话题的渐变可能解释其全部。",
    ),
    "part": (
        "Drift of plot and topic may explain that part.",
        "情节与话题的渐变可能解释这一部分。",
    ),
    "less": (
        "The larger part is more than any stretch known here shows.",
        "其大半超出这里已知的任何一段。",
    ),
}


def _level(share: float, overlap: bool) -> str:
    if share >= NEARLY:
        return "all"
    if overlap:
        return "open"
    return "part" if share >= HALF else "less"


def _drift(summary: Mapping[str, Any]) -> list[Sentence]:
    """The largest stretches in bits, in deviations and of function characters, and a verdict."""
    lines, levels = [], []
    measures = [m for m in ("ngram", "both") if m in summary]
    for unit, scale in (
        ("effect", ("In bits per character", "以每字比特计")),
        ("cohens_d", ("In Cohen's d", "以 Cohen's d 计")),
    ):
        known = [one for m in measures if (one := largest(summary, m, unit))]
        if known:  # GPT models have fewer controls than n-grams: the largest of either counts
            one = max(known, key=lambda stretch: stretch.share(unit))
            lines.append(_beside(one, unit, scale))
            levels.append(_level(one.share(unit), one.overlaps(unit)))
    chance = False
    if grammar := summary.get("lambdag"):
        chance = grammar["auc"] < CHANCE or grammar["effect_low"] <= 0
        scale = (
            "Of function characters alone, which tell least of the plot, in bits per character",
            "只看最不涉及情节的虚字，以每字比特计",
        )
        if chance:
            lines.append(
                (
                    f"The methods disagree: function characters alone are at chance "
                    f"(AUC {grammar['auc']:.2f}), so the difference is one of plot, names or "
                    "editing as far as can be seen.",
                    f"各方法不一致：只看虚字与随机无异（AUC {grammar['auc']:.2f}），"
                    "所见差异可能只是情节、人名或编辑所致。",
                )
            )
        else:
            in_d = (
                "Of function characters alone, in Cohen's d",
                "只看虚字，以 Cohen's d 计",
            )
            for unit, words in (("effect", scale), ("cohens_d", in_d)):
                if one := largest(summary, "lambdag", unit):
                    lines.append(_beside(one, unit, words))
                    levels.append(_level(one.share(unit), one.overlaps(unit)))
    lines.append(_taken_for_granted(summary))
    lines.append(_verdict(levels, chance))
    return lines


def _name(one: Stretch) -> Sentence:
    if one.window:
        return (
            f"the boundary after chapter {one.name} ({one.window} chapters on each side)",
            f"第 {one.name} 回之后的分界（每边 {one.window} 回）",
        )
    return f"the control {one.name}", f"对照 {one.name}"


def _beside(one: Stretch, unit: str, scale: Sentence) -> Sentence:
    """One stretch and the question on one scale, with both intervals."""
    digits = 2 if unit == "cohens_d" else 3

    def value(figures: Mapping[str, Any]) -> str:
        text = f"{figures[unit]:.{digits}f}"
        low, high = figures.get(f"{unit}_low"), figures.get(f"{unit}_high")
        return text if low is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"

    share, overlap = one.share(unit), one.overlaps(unit)
    own = one.window and one.asked.get("own")
    with_as_many = (
        (" at the question's own boundary with as many", "本题分界（每边回数相同）的")
        if own
        else (" of the question", "本题的")
    )
    words = _WORDS[_level(share, overlap)]
    between = (
        ("the 95 % intervals overlap", "两个 95% 区间重叠")
        if overlap
        else ("the 95 % intervals do not overlap", "两个 95% 区间不重叠")
    )
    english, chinese = _name(one)
    return (
        f"{scale[0]}, the largest of all stretches taken for one author's is {english}: "
        f"{value(one.found)} against {value(one.asked)}{with_as_many[0]}, {share:.0%}; "
        f"{between[0]}. {words[0]}",
        f"{scale[1]}，在视为一人所作的各段中，最大的是{chinese}：{value(one.found)}，"
        f"为{with_as_many[1]} {value(one.asked)} 的 {share:.0%}；{between[1]}。{words[1]}",
    )


def _taken_for_granted(summary: Mapping[str, Any]) -> Sentence:
    a, b = summary["a"], summary["b"]
    return (
        "Every such comparison takes for granted that one author wrote both of its parts; inside "
        f"{b}, as inside {a}, that belongs to what is asked.",
        f"每个这样的对照都预先假定其前后两段出自一人；而 {b}（以及 {a}）是否出自一人，"
        "本身就在所问之内。",
    )


def _verdict(levels: list[str], chance: bool) -> Sentence:
    if chance:
        return (
            "So nothing about authors follows.",
            "因此不能说明作者问题。",
        )
    levels = ["all" if level == "open" else level for level in levels]
    if levels and all(level == "less" for level in levels):
        return (
            "So by every scale the sides are further apart than any stretch known here: two bodies "
            "of text, of which two authors are one explanation.",
            "因此按每种尺度，两边的差异都超过这里已知的任何一段：两边是两种文本，"
            "两个作者是其中一种解释。",
        )
    if "all" in levels and len(set(levels)) > 1:
        return (
            "The scales do not agree. By the most cautious of them drift may explain the "
            "difference, and its size alone says nothing about authors.",
            "几种尺度不一致：按最谨慎的一种，差异可能出于渐变，单凭其大小不能说明作者问题。",
        )
    if "all" in levels:
        return (
            "So drift of plot and topic gives as much, and nothing about authors follows.",
            "因此情节与话题的渐变就能造成这样的差异，不能说明作者问题。",
        )
    return (
        "So about half of the difference needs no second author, and what is left is a question, "
        "not an answer.",
        "因此约一半的差异用不着第二个作者来解释；余下的只是问题，不是答案。",
    )


def _boundaries(summary: Mapping[str, Any]) -> Sentence:
    best, local = summary["boundary_maximum"], summary["boundary_local_maximum"]
    window, none = summary["boundary_window"], "–"
    d, bits = best.get("cohens_d", none), best.get("effect", none)
    near_d, near_bits = local.get("cohens_d", none), local.get("effect", none)
    others = [p["cohens_d"] for p in summary.get("boundary_local", ()) if not p.get("own")]
    own = [p["cohens_d"] for p in summary.get("boundary_local", ()) if p.get("own")]
    beside = ("", "")
    if own and others:
        beside = (
            f" (d {own[0]:.2f} at the question's own, at most {max(others):.2f} elsewhere)",
            f"（本题分界 d {own[0]:.2f}，其他至多 {max(others):.2f}）",
        )
    return (
        f"Of all boundaries tried, Cohen's d is largest after chapter {d} and the difference in "
        f"bits after chapter {bits}. With {window} chapters on each side, so that the points can "
        f"be compared, d is largest after chapter {near_d}{beside[0]} and bits after chapter "
        f"{near_bits}.",
        f"在试过的各个分界中，Cohen's d 在第 {d} 回之后最大，比特差在第 {bits} 回之后最大；"
        f"若每边都取 {window} 回使各点可比，d 在第 {near_d} 回之后最大{beside[1]}，"
        f"比特差在第 {near_bits} 回之后最大。",
    )


def _clusters(summary: Mapping[str, Any]) -> Sentence:
    name, found = next(iter(summary["clusters"].items()))
    after = found.get("break_after_chapter", found["break_after"])
    return (
        "Without being told the sides, two groups of the most frequent characters agree with "
        f"{name} in {found['agreement']:.0%} of the texts (adjusted Rand index "
        f"{found['adjusted_rand']:.2f}); the best single break in their order is after "
        f"chapter {after}.",
        f"不告知两边时，按最常用字分成的两组与 {name} 有 {found['agreement']:.0%} 相符"
        f"（调整兰德指数 {found['adjusted_rand']:.2f}）；按先后次序的最佳单一断点在第 "
        f"{after} 回之后。",
    )


def _editions(summary: Mapping[str, Any]) -> list[Sentence]:
    if not (differences := summary.get("editions")):
        return []
    named = "; ".join(differences[:3])
    if summary.get("editions_unsure"):
        return [
            (
                f"The sides differ as editions may ({named}), but with so few texts that cannot "
                "be judged.",
                "两边有类似版本差异之处，但回数太少，无法判断。",
            )
        ]
    return [
        (
            f"The sides look like two editions ({named}): any difference may be the editors'.",
            "两边看来出自不同版本，任何差异都可能来自编者。",
        )
    ]
