"""report.html of a study: the answer in words, its figures beside the controls, the evidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis import page
from hlm_jax.analysis.authorship import Ratios
from hlm_jax.analysis.authorship.conclusions import conclusions
from hlm_jax.analysis.authorship.decisions import calibrated
from hlm_jax.analysis.authorship.evidence_report import STYLE, evidence_part
from hlm_jax.analysis.authorship.files import flags_of, mixed
from hlm_jax.analysis.authorship.questions import CONTROLS
from hlm_jax.analysis.authorship.study import Study
from hlm_jax.analysis.authorship.unknown import Verdict
from hlm_jax.analysis.page import Html, both, escape

_MASK_WORDS = {
    "none": "无",
    "names": "人名",
    "punctuation": "标点",
    "verse": "诗词",
    "headings": "回目",
    "all": "全部",
}
_MASKS = {english: both(english, chinese) for english, chinese in _MASK_WORDS.items()}
_FLAGS = {
    "wrong": both("wrong", "落在另一边"),
    "doubtful": both("doubtful", "存疑"),
    "supplied": both("supplied", "补配"),
}
_LABELS = {
    "ngram": both("n-grams", "n 元模型"),
    "gpt": both("GPT", "GPT"),
    "both": both("both", "两者平均"),
    "lambdag": both("function characters (after LambdaG)", "虚字语法（仿 LambdaG）"),
    "delta": both("Burrows' Delta", "Burrows' Delta"),
}


def report(
    study: Study,
    summary: Mapping[str, Any],
    *,
    gpt: Ratios | None = None,
    verdicts: Sequence[Verdict] = (),
) -> str:
    """The whole page.

    Args:
      summary: of the study, or with what GPT models add to it.
      gpt: the ratios of GPT models, whose evidence is shown instead of the n-grams'.
    """
    parts = [
        *(f"<p>{both(*sentence)}</p>" for sentence in conclusions(summary)),
        _heading("The question beside its controls", "问题与对照"),
        _question_table(summary),
        _heading("The texts", "各回"),
        _curve(study, gpt),
        _agreement(study, gpt),
        _text_table(study, gpt),
        _heading("What remains under masks", "遮去之后"),
        _mask_table(summary),
        _boundary_charts(summary),
        _heading("The evidence in the text", "文本中的证据"),
        evidence_part(study, gpt or study.main),
        _heading("Without being told the sides", "不告知两边时"),
        _cluster_part(study),
        _unknown(verdicts),
        _method(study, summary),
        _provenance(summary),
    ]
    title = both(f"Who wrote it: {study.texts.title}", f"谁写的：{study.texts.title}")
    return page.document(title, "\n".join(filter(None, parts)), style=STYLE)


def write_report(path: Path, html: str) -> None:
    """Writes the page in one go."""
    page.write(path, html)


def _heading(english: str, chinese: str) -> str:
    return f"<h2>{both(english, chinese)}</h2>"


def _whole(text: str) -> Html:
    """A cell that is not broken into lines."""
    return Html(f'<span style="white-space:nowrap">{escape(text)}</span>')


def _interval(found: Mapping[str, Any]) -> Html:
    low, high = found["effect_low"], found["effect_high"]
    return _whole(f"{found['effect']:.3f} [{low:.3f}, {high:.3f}]")


def _question_table(summary: Mapping[str, Any]) -> Html:
    head = [
        both("sides", "两边"),
        both("measure", "方法"),
        both("right", "正确"),
        "AUC",
        both("effect [95 % interval]", "效应 [95% 区间]"),
        "Cohen's d",
        both("permutation p", "置换 p"),
    ]
    more = [*head[:2], "c@1", "F0.5u", "Brier"]
    name = f"{summary['a']}/{summary['b']}"
    every = [(name, kind, summary[kind]) for kind in _LABELS if kind in summary]
    for control, found in summary["controls"].items():
        draws = found.get("draws")
        label = both(f"{draws} random halves", f"{draws} 次随机对半") if draws else control
        label = both("odd/even", "奇数/偶数") if control == "odd/even" else label
        every += [(label, kind, found[kind]) for kind in _LABELS if kind in found]
    for control, found in summary["blocks"].items():
        label = both(f"{control} *", f"{control} *")
        every += [(label, kind, found[kind]) for kind in _LABELS if kind in found]
    note = both(
        "The effect is the difference of the sides' means: bits per character for the ratios, "
        "z-score units for Delta. Compare it with that of the controls in the same line of work; "
        "accuracy alone proves nothing. *: neighbouring texts held out together. Random halves: "
        "the mean of the draws and their range. A small permutation p stands on controls of one "
        "author too: it says that the difference is no accident of the draw, nothing of authors.",
        "效应是两边均值之差：比值以每字比特计，Delta 以 z 分计。请与同一方法的对照相比；"
        "单看正确率不能说明问题。* 相邻各回一同留出。随机对半：各次的平均与范围。"
        "同一作者的对照也会有很小的置换 p：它只说明差异不是偶然，不说明作者。",
    )
    measures = [
        [_whole(label), _LABELS[kind], *(found[key] for key in ("c_at_1", "f_05_u", "brier"))]
        for label, kind, found in every
        if "c_at_1" in found
    ]
    title = both("Measures of calibrated probabilities", "校准概率的度量")
    return Html(
        page.table(head, [_row(*one) for one in every])
        + f'<p class="muted">{note}</p><h3>{title}</h3>{page.table(more, measures)}'
    )


def _row(name: str, kind: str, found: Mapping[str, Any]) -> list[Any]:
    right = _whole(f"{found['correct']:.4g} / {found['chapters']:.0f}")
    value = found.get("cohens_d")
    auc, d = f"{found['auc']:.4f}", f"{value:.2f}" if value is not None else ""
    return [_whole(name), _LABELS[kind], right, auc, _interval(found), d, found["permutation_p"]]


def _ratio(study: Study, gpt: Ratios | None) -> np.ndarray:
    return study.main.ratio if gpt is None else mixed(study.main.ratio, gpt.ratio)


def _curve(study: Study, gpt: Ratios | None) -> str:
    texts = study.texts
    xs = [chapter.number for chapter in texts.chapters]
    scores = {"ngram": study.main.ratio, "lambdag": study.lambda_a - study.lambda_b}
    scores |= {} if gpt is None else {"gpt": gpt.ratio}
    curves: dict[str, list[tuple[float, float]]] = {
        _LABELS[kind]: list(zip(xs, ratio.tolist(), strict=True)) for kind, ratio in scores.items()
    }
    places = np.flatnonzero(np.diff(texts.is_a.astype(int)) != 0)
    marks = {(xs[i] + xs[i + 1]) / 2: f"{xs[i]} | {xs[i + 1]}" for i in places[:6]}
    return page.line_chart(
        curves,
        x_label=both("text", "回"),
        y_label=both("bits per character for A", "支持前一边的每字比特"),
        names={c.number: f"{c.number} {c.heading}"[:40] for c in texts.chapters},
        marks=marks,
    )


def _agreement(study: Study, gpt: Ratios | None) -> str:
    if gpt is None:
        return ""
    points = [
        (float(x), float(y), str(chapter.number), study.texts.names[0 if of_a else 1])
        for x, y, chapter, of_a in zip(
            study.main.ratio, gpt.ratio, study.texts.chapters, study.texts.is_a, strict=True
        )
    ]
    return page.scatter(
        points,
        x_label=both("n-gram ratio, bits per character", "n 元比值（每字比特）"),
        y_label=both("GPT ratio, bits per character", "GPT 比值（每字比特）"),
        diagonal=True,
    )


def _text_table(study: Study, gpt: Ratios | None) -> str:
    """The texts nearest to the other side, the most doubtful first."""
    ratio, texts = _ratio(study, gpt), study.texts
    fold = study.main.question.fold if gpt is None else gpt.question.fold
    p = calibrated(ratio, texts.is_a, fold)
    flags = flags_of(study, ratio, p)
    toward = np.where(texts.is_a, ratio, -ratio)
    rows = [
        [
            texts.chapters[k].number,
            _whole(texts.chapters[k].heading[:30]),
            _whole(texts.names[0 if texts.is_a[k] else 1]),
            float(ratio[k]),
            float(study.main.delta[k]),
            float(p[k]),
            Html(";".join(_FLAGS.get(word, word) for word in flags[k].split(";"))),
        ]
        for k in np.argsort(toward, kind="stable")[:10]
    ]
    head: list[str] = [
        "",
        both("text", "回"),
        both("side", "边"),
        both("ratio", "比值"),
        "Delta B − A",
    ]
    head += [both("probability of A", "属前一边的概率"), both("flags", "标记")]
    words = both("The ten texts that speak least for their own side", "最不支持自己一边的十回")
    note = ""
    if numbers := [c.number for c in texts.chapters if c.number in texts.supplied]:
        english, chinese = " and ".join(map(str, numbers)), "、".join(map(str, numbers))
        note = both(
            f"Chapters {english} (supplied): early manuscripts lack them, and they were supplied "
            "from other editions. What is found in them may be an edition's.",
            f"第 {chinese} 回（补配）：早期抄本缺，由别本补入；其中所见可能属于版本。",
        )
        note = f"<p>{note}</p>"
    return f"<h3>{words}</h3>{page.table(head, rows)}{note}"


def _mask_table(summary: Mapping[str, Any]) -> Html:
    head: list[str] = [
        both("left out", "遮去"),
        both("sides", "两边"),
        both("right", "正确"),
        "AUC",
    ]
    head += [both("effect", "效应"), "Cohen's d", both("Delta: AUC", "Delta：AUC")]
    gpt = summary.get("gpt_masks")
    head += [both("GPT: AUC", "GPT：AUC"), both("GPT: effect", "GPT：效应")] if gpt else []
    rows = []
    for label, found in summary["masks"].items():
        for name, figures in found.items():
            one = figures["ngram"]
            row = [
                Html("+".join(_MASKS.get(word, word) for word in label.split("+"))),
                _whole(name),
                _whole(f"{one['correct']} / {one['chapters']}"),
                f"{one['auc']:.4f}",
            ]
            row += [_interval(one), f"{one['cohens_d']:.2f}", f"{figures['delta']['auc']:.4f}"]
            if gpt:
                scored = gpt.get(label, {}).get(name)
                row += [f"{scored['auc']:.4f}", _interval(scored)] if scored else ["", ""]
            rows.append(row)
    return page.table(head, rows)


def _boundary_charts(summary: Mapping[str, Any]) -> str:
    if not summary.get("boundary"):
        return ""
    charts = [_heading("Other boundaries", "其他分界")]
    window = summary["boundary_window"]
    for unit, label in (
        ("effect", both("effect, bits per character", "效应（每字比特）")),
        ("cohens_d", both("Cohen's d", "Cohen's d")),
    ):
        curves = {
            both("all texts on each side", "每边全部"): summary["boundary"],
            both(f"{window} chapters on each side", f"每边 {window} 回"): summary["boundary_local"],
        }
        charts.append(
            page.line_chart(
                {name: [(p["after"], p[unit]) for p in points] for name, points in curves.items()},
                x_label=both("last chapter before the boundary", "分界前的最后一回"),
                y_label=label,
                height=240,
            )
        )
    return "".join(charts)


def _cluster_part(study: Study) -> str:
    found = next(iter(study.clusters.values()))
    texts = study.texts
    points = [
        (float(x), float(y), str(chapter.number), texts.names[0 if of_a else 1])
        for x, y, chapter, of_a in zip(
            found["component_1"], found["component_2"], texts.chapters, texts.is_a, strict=True
        )
    ]
    shares = [f"{share:.0%}" for share in found["shares"]]
    chart = page.scatter(
        points,
        x_label=both(f"first component ({shares[0]})", f"第一主成分（{shares[0]}）"),
        y_label=both(f"second component ({shares[-1]})", f"第二主成分（{shares[-1]}）"),
    )
    head = [
        both("texts", "回"),
        both("two groups agree", "两组相符"),
        both("adjusted Rand", "调整兰德指数"),
        both("best break after chapter", "最佳断点在第几回后"),
        both("it explains", "其解释"),
        "p",
        both("the sides' own break explains", "两边分界解释"),
    ]
    rows = [
        [
            key,
            f"{one['agreement']:.0%}",
            f"{one['adjusted_rand']:.2f}",
            one["break_after_chapter"],
            f"{one['break_explains']:.1%}",
            one["break_p"],
            f"{one['true_break_explains']:.1%}" if one["true_break_explains"] > 0 else "",
        ]
        for key, one in study.clusters.items()
    ]
    note = both(
        "Two means and principal components of the z-scores of the most frequent characters; the "
        "break uses the order of the texts but not the sides.",
        "最常用字 z 分的两类聚类与主成分；断点只用各回的先后次序，不用两边的归属。",
    )
    return f"<p>{note}</p>{page.table(head, rows)}{chart}"


def _unknown(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    head: list[str] = ["", both("characters", "字数"), both("ratio", "比值"), "Delta B − A"]
    head += [both("probability of A", "属前一边的概率"), both("in words", "说明")]
    rows = [[v.name, v.chars, v.ratio, v.delta, v.probability, v.words] for v in verdicts]
    return _heading("Texts of unknown authors", "作者未知的文本") + page.table(head, rows)


def _provenance(summary: Mapping[str, Any]) -> str:
    """What to cite: the files, the command, the date and the version."""
    if not (found := summary.get("provenance")):
        return ""
    rows: list[list[Any]] = []
    for source in found["sources"]:
        label = both("file", "文件")
        rows.append([label, source["file"]])
        rows.append([both("sha256 of the clean text", "整理后文本的 sha256"), source["sha256"]])
        size = both(
            f"{source['chars']:,} characters in {source['chapters']} chapters",
            f"{source['chars']:,} 字，{source['chapters']} 回",
        )
        rows.append([both("length", "长度"), size])
    words = [
        f"--{key}" + ("" if value is True else f" {_words(value)}")
        for key, value in found["arguments"].items()
        if value not in (None, "", [], False) and key != "out"
    ]
    if found["arguments"].get("controls") is None:
        words.append(f"--controls {' '.join(CONTROLS)}")
    words += [f"--config.{word}" for word in found["config_overrides"]]
    rows.append([both("arguments", "参数"), " ".join(words)])
    rows.append(
        [
            both("mask", "遮去"),
            Html(", ".join(_MASKS[kind] for kind in summary["mask"]) or _MASKS["none"]),
        ]
    )
    rows.append([both("date", "日期"), found["date"]])
    rows.append(["hlm_jax", found["hlm_jax"]])
    head: list[str] = ["", ""]
    return _heading("To cite this", "引用信息") + page.table(head, rows)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _method(study: Study, summary: Mapping[str, Any]) -> str:
    masked = "、".join(_MASK_WORDS[kind] for kind in study.masked) or "无"
    words = both(
        f"{summary['folds']} folds; every text is judged by models that did not see it. Both "
        f"n-gram models of a fold are fitted on {summary['training_chars']:,} characters; "
        "vocabulary, most frequent characters and z-scores come from the training texts. "
        f"Masked: {', '.join(study.masked) or 'nothing'}; {len(study.names)} names are known. "
        "How each figure is computed: docs/authorship.md.",
        f"{summary['folds']} 折；每回都由没有见过它的模型评判。每折两个 n 元模型各用 "
        f"{summary['training_chars']:,} 字；字表、最常用字、z 分都只取自训练文本。"
        f"遮去：{masked}；已知人名 {len(study.names)} 个。"
        "算法见 docs/authorship.md。",
    )
    return f"{_heading('How', '方法')}<p>{words}</p>"
