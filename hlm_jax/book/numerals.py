"""Numerals: Chinese ones of all forms, digits, Roman ones and English words -> numbers."""

import itertools
import re
import unicodedata

_DIGITS = {
    char: value
    for value, chars in enumerate(
        (
            "〇零○",
            "一壹弌",
            "二贰貳弍两兩",
            "三叁叄參弎",
            "四肆",
            "五伍",
            "六陆陸",
            "七柒",
            "八捌",
            "九玖",
        )
    )
    for char in chars
}
_SCALES = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000, "万": 10_000}
_SCALES |= {"萬": 10_000}
_TENS = {"廿": 20, "卄": 20, "卅": 30, "丗": 30, "卌": 40}
# Every character of a Chinese numeral.
HAN = "".join(_DIGITS) + "".join(_SCALES) + "".join(_TENS)
_ROMAN = re.compile(r"M{0,3}(CM|CD|D?C{0,4})(XC|XL|L?X{0,4})(IX|IV|V?I{0,4})", re.I)
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_CARDINALS = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
_ORDINALS = """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"""
_DECADES = "twenty thirty forty fifty sixty seventy eighty ninety"
# The words of English numerals below a hundred: one, first, twenty, twentieth.
WORDS = {w: i for words in (_CARDINALS, _ORDINALS) for i, w in enumerate(words.split(), 1)}
for _i, _decade in enumerate(_DECADES.split(), 2):
    WORDS[_decade] = WORDS[_decade[:-1] + "ieth"] = 10 * _i


def parse_numeral(numeral: str) -> int | None:
    """The number that a numeral stands for, or None where it is none.

    Chinese numerals of all forms (一百二十, 一二〇, 廿一, 卅, 壹, 两), digits, Roman numerals and
    English words up to ninety-nine. Full-width digits and spaces inside are allowed.
    """
    text = re.sub(r"\s", "", unicodedata.normalize("NFKC", numeral.replace("○", "〇")))
    if not text:
        return None
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    if all(char in HAN for char in text):
        return _han_value(text)
    if _ROMAN.fullmatch(text):
        values = [_ROMAN_VALUES[char] for char in text.upper()]
        signs = [-1 if a < b else 1 for a, b in itertools.pairwise([*values, 0])]
        return sum(sign * value for sign, value in zip(signs, values, strict=True))
    words = re.split(r"[-\s]+", numeral.strip().lower())
    values = [WORDS.get(word, 0) for word in words if word != "the"]
    tens_and_ones = len(values) == 2 and values[0] >= 20 and 0 < values[1] < 10
    return sum(values) if values and all(values) and (len(values) == 1 or tens_and_ones) else None


def _han_value(text: str) -> int | None:
    if all(char in _DIGITS for char in text):  # 一二〇 is written digit by digit
        return int("".join(str(_DIGITS[char]) for char in text))
    total, section, digit = 0, 0, None
    for char in text:
        if char in _DIGITS:
            if digit:  # two digits in a row beside a scale: no numeral
                return None
            digit = _DIGITS[char]
        elif char in _TENS:
            section += _TENS[char]
        elif _SCALES[char] == 10_000:
            total, section, digit = (total + section + (digit or 0)) * 10_000, 0, None
        else:
            section += (1 if digit is None else digit) * _SCALES[char]
            digit = None
    return total + section + (digit or 0)
