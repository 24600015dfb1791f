"""How near a text is to the book's language, by counts that need no model: repetition, sentences, speech, names, n-grams.

Every measure is one number of a text of about 500 characters. Real chapters give each a mean and a spread; what counts for
generated text is how many spreads its mean lies away. Characters only; knows nothing of models.
"""

import collections
import re

import numpy as np

from hlm_jax.errors import UserError

PIECE = 500  # characters; several measures depend on the length, so that all texts are cut alike
NAMES = """
宝玉 黛玉 宝钗 凤姐 贾母 王夫人 贾政 贾琏 贾珍 贾蓉 湘云 探春 迎春 惜春 元春 李纨 秦氏 尤氏 邢夫人 薛姨妈 薛蟠 袭人 晴雯 平儿
鸳鸯 紫鹃 麝月 莺儿 香菱 刘姥姥 妙玉 秦钟 贾环 赵姨娘 贾赦 贾芸 贾兰 雨村 士隐 周瑞 林之孝 焦大 茗烟 尤二姐 尤三姐 司棋 金钏 玉钏
宝琴 岫烟
""".split()  # noqa: SIM905
_SENTENCE = re.compile(r"[^。！？…\n]+[。！？…]*")
_LOOP = re.compile(r"(.{1,12}?)\1{2,}", re.DOTALL)


def pieces(text: str) -> list[str]:
    """The text cut into pieces of PIECE characters; a rest shorter than half a piece is left out."""
    cut = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    return [piece for piece in cut if len(piece) >= PIECE // 2]


class Style:
    """Measures of texts, and their distance from real chapters.

    Args:
      reference: texts whose n-grams and names are the book's (training chapters).
      human: real texts that were not trained on; they give the mean and the spread of every measure.
    """

    def __init__(self, reference, human):
        self._log_p = [_log_shares(reference, n) for n in (1, 2)]
        rows = np.array(
            [[*self.measure(piece).values()] for text in human for piece in pieces(text)]
        )
        self.names = tuple(self.measure("").keys())
        self.human, self.spread = (
            dict(zip(self.names, rows.mean(0), strict=True)),
            dict(zip(self.names, rows.std(0), strict=True)),
        )

    def measure(self, text: str) -> dict[str, float]:
        """{measure: value} of one piece."""
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

    def distance(self, texts) -> tuple[dict[str, float], float]:
        """(the mean of every measure over the texts' pieces, the mean of their distances from real chapters in spreads).

        Raises:
          UserError: every text is shorter than half a piece.
        """
        rows = [self.measure(piece) for text in texts for piece in pieces(text)]
        if not rows:
            raise UserError(
                f"no text has {PIECE // 2} characters to be measured: ask for more with --max_new_tokens"
            )
        mean = {name: float(np.mean([row[name] for row in rows])) for name in self.names}
        # A measure that never varies in real text, such as loops, still has a scale: a hundredth.
        away = [
            abs(mean[name] - self.human[name]) / max(self.spread[name], 0.01) for name in self.names
        ]
        return mean, float(np.mean(away))


def _distinct(text: str, n: int) -> float:
    """Distinct n-grams / n-grams (Li et al. 2016)."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def _closed(text: str) -> float:
    """Share of opened quotation marks that are closed before the next one opens; an end of the text inside speech is no fault."""
    marks = re.sub("[^“”]", "", text)
    opened = marks.count("“") - marks.endswith("“")
    return len(re.findall("“”", marks)) / opened if opened > 0 else 1.0


def _log_shares(texts, n: int) -> dict[str, float]:
    counts = collections.Counter(
        text[i : i + n] for text in texts for i in range(len(text) - n + 1)
    )
    total = counts.total() + 1
    return {gram: float(np.log2(total / count)) for gram, count in counts.items()} | {
        "": float(np.log2(total))
    }


def _cost(text: str, log_p: dict[str, float], n: int) -> float:
    """Mean bits of the text's n-grams under their shares in the reference; one that it lacks counts as seen once."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return float(np.mean([log_p.get(gram, log_p[""]) for gram in grams])) if grams else 0.0
