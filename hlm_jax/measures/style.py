"""How near a text is to the book's language, by counts that need no model.

Repetition, sentences, speech, names, n-grams: every measure is one number of a text of about 500
characters. Real chapters give each measure a mean and a standard deviation. The distance of
generated text is the number of standard deviations between its mean and theirs. Characters only;
knows nothing of models.
"""

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np

from hlm_jax.errors import UserError

EXCERPT = 500  # characters; several measures depend on the length, so all texts are cut alike
NAMES = """
宝玉 黛玉 宝钗 凤姐 贾母 王夫人 贾政 贾琏 贾珍 贾蓉 湘云 探春 迎春 惜春 元春 李纨 秦氏 尤氏 邢夫人
薛姨妈 薛蟠 袭人 晴雯 平儿 鸳鸯 紫鹃 麝月 莺儿 香菱 刘姥姥 妙玉 秦钟 贾环 赵姨娘 贾赦 贾芸 贾兰 雨村
士隐 周瑞 林之孝 焦大 茗烟 尤二姐 尤三姐 司棋 金钏 玉钏 宝琴 岫烟
""".split()  # noqa: SIM905
_SENTENCE = re.compile(r"[^。！？…\n]+[。！？…]*")
_LOOP = re.compile(r"(.{1,12}?)\1{2,}", re.DOTALL)


def excerpts(text: str) -> list[str]:
    """The text cut every EXCERPT characters; a rest shorter than half of that is left out."""
    cut = [text[i : i + EXCERPT] for i in range(0, len(text), EXCERPT)]
    return [excerpt for excerpt in cut if len(excerpt) >= EXCERPT // 2]


class Style:
    """Measures of texts, and their distance from real chapters.

    Args:
      reference: texts whose n-grams are the book's (training chapters).
      human: real texts that were not trained on; they give every measure's mean and deviation.
    """

    def __init__(self, reference: Sequence[str], human: Iterable[str]):
        self._log_p = [_gram_bits(reference, n) for n in (1, 2)]
        rows = [self.measure(excerpt) for text in human for excerpt in excerpts(text)]
        self.names = tuple(self.measure("").keys())
        columns = {name: np.array([row[name] for row in rows]) for name in self.names}
        self.human = {name: float(values.mean()) for name, values in columns.items()}
        self.spread = {name: float(values.std()) for name, values in columns.items()}

    def measure(self, text: str) -> dict[str, float]:
        """{measure: value} of one text."""
        sentences = [len(s.strip("“”‘’ ")) for s in _SENTENCE.findall(text)] or [0]
        return {
            "distinct 2-grams": _distinct(text, 2),
            "distinct 4-grams": _distinct(text, 4),
            "in loops": sum(len(m[0]) for m in _LOOP.finditer(text)) / max(1, len(text)),
            "sentence length": float(np.mean(sentences)),
            "its spread": float(np.std(sentences)),
            "speeches per 100": 100 * text.count("“") / max(1, len(text)),
            "speeches closed": _closed(text),
            "names per 100": 100 * sum(text.count(name) for name in NAMES) / max(1, len(text)),
            "1-gram bits": _cost(text, self._log_p[0], 1),
            "2-gram bits": _cost(text, self._log_p[1], 2),
        }

    def distance(self, texts: Iterable[str]) -> tuple[dict[str, float], float]:
        """How far texts are from real chapters.

        Returns:
          ({measure: its mean over the texts}, mean distance from real chapters over all measures,
          in standard deviations).

        Raises:
          UserError: every text is shorter than EXCERPT / 2.
        """
        rows = [self.measure(excerpt) for text in texts for excerpt in excerpts(text)]
        if not rows:
            raise UserError(
                f"no text has {EXCERPT // 2} characters to be measured: "
                "ask for more with --max_new_tokens"
            )
        mean = {name: float(np.mean([row[name] for row in rows])) for name in self.names}
        # A measure that hardly varies in real text, such as loops, gets a scale of 0.01.
        away = [
            abs(mean[name] - self.human[name]) / max(self.spread[name], 0.01) for name in self.names
        ]
        return mean, float(np.mean(away))


def _grams(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _distinct(text: str, n: int) -> float:
    """Distinct n-grams / n-grams (Li et al. 2016)."""
    grams = _grams(text, n)
    return len(set(grams)) / max(1, len(grams))


def _closed(text: str) -> float:
    """Fraction of opened quotation marks that are closed before the next one opens.

    A text that ends right after an opening mark is not at fault.
    """
    marks = re.sub("[^“”]", "", text)
    opened = marks.count("“") - marks.endswith("“")
    return len(re.findall("“”", marks)) / opened if opened > 0 else 1.0


def _gram_bits(texts: Sequence[str], n: int) -> dict[str, float]:
    """{n-gram: -log2 of its frequency}; the key "" holds the cost of an n-gram never seen."""
    counts = collections.Counter(gram for text in texts for gram in _grams(text, n))
    total = counts.total() + 1
    bits = {gram: float(np.log2(total / count)) for gram, count in counts.items()}
    return bits | {"": float(np.log2(total))}


def _cost(text: str, log_p: dict[str, float], n: int) -> float:
    """Mean bits of the text's n-grams under the reference; an unknown one counts as seen once."""
    grams = _grams(text, n)
    return float(np.mean([log_p.get(gram, log_p[""]) for gram in grams])) if grams else 0.0
