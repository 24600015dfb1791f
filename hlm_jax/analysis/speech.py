"""Which characters of a text are spoken: those between quotation marks. Needs no model.

Marks are “ ” and the corner brackets 「 」 and 『 』. Straight quotes are not read: their beginning
looks like their end.
"""

import re

import numpy as np

PAIRS = {"“": "”", "「": "」", "『": "』"}


def speech_mask(text: str) -> np.ndarray:
    """Whether each character is spoken, bool [chars]; the marks themselves are part of the speech.

    A quotation inside another belongs to the outer one. A speech may run over several paragraphs:
    the later ones have no mark before the closing one (a poem that somebody recites), or each
    begins with an opening mark anew. An opening mark without its other half speaks to the end of
    its paragraph. A closing mark without an opening one is not read.
    """
    mask = np.zeros(len(text), bool)
    for opening, closing in PAIRS.items():
        for start, end in _spans(text, opening, closing):
            mask[start:end] = True
    return mask


def _spans(text: str, opening: str, closing: str) -> list[tuple[int, int]]:
    """(start, end) of the outermost quotations between two marks."""
    spans: list[tuple[int, int]] = []
    if opening not in text:
        return spans
    start, unclosed_end = -1, -1  # of a speech that an earlier paragraph left open
    repeated = False  # whether every paragraph since then has begun with an opening mark
    for paragraph in re.finditer(r"[^\n]+", text):
        at, line = paragraph.start(), paragraph[0]
        marks = [(m[0], at + m.start()) for m in re.finditer(f"[{opening}{closing}]", line)]
        carries_on = start >= 0 and (
            not marks or marks[0][0] == closing or (repeated and marks[0][1] == at)
        )
        if start >= 0 and not carries_on:
            spans.append((start, unclosed_end))
            start = -1
        if start >= 0:
            repeated = repeated and bool(marks)
            if repeated and marks[0][0] == opening:
                marks = marks[1:]  # repeats the mark that is open
                unclosed_end = paragraph.end()
        depth = int(start >= 0)
        for mark, place in marks:
            if mark == opening:
                start = place if depth == 0 else start
                depth += 1
            elif depth:
                depth -= 1
                if depth == 0:
                    spans.append((start, place + 1))
                    start = -1
        if start >= 0 and marks:
            unclosed_end, repeated = paragraph.end(), True
    if start >= 0:
        spans.append((start, unclosed_end))
    return spans
