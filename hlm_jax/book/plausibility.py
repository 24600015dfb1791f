"""How much a text looks like text of a script: by its frequent characters."""

import collections
import functools
import re


def score_of(text: str, script: str) -> float:
    """How much a text looks like its script, -5 to 1: the mean over the non-ASCII characters."""
    text = re.sub(r"(\W)\1{2,}", r"\1", text)  # ━━━━━ above a title says no more than ━
    counts = collections.Counter(text)
    if script == "any":
        return max(_mean(counts, script, ascii=0.8) for script in _SCRIPTS)
    if script == "latin":
        return _latin(text)
    score = _mean(counts, script)
    high = sum(n for char, n in counts.items() if char > "\x7f")
    if script == "cyrillic":  # much of it is the same dozen letters, and it stands in words
        plain = sum(n for char, n in counts.items() if char.isascii() and char.isalpha())
        return score if score > (0.5 if high >= 60 else 0.2) and high > plain else -1.0
    if script == "japanese":
        kana = sum(n for char, n in counts.items() if "\u3041" <= char <= "\u30fe")
        return score if kana > high / 10 else -1.0
    return score


def _mean(counts: collections.Counter[str], script: str, ascii: float | None = None) -> float:
    weights = weights_of(script)
    total, number = 0.0, 0
    for char, count in counts.items():
        if " " <= char <= "~" or char in "\t\n\r\f\v":
            if ascii is None:
                continue
            weight = ascii
        else:
            weight = weights.get(char, -1.0)
        total += count * weight
        number += count
    return total / number if number else -1.0


def sum_of(text: str, script: str) -> float:
    weights = weights_of(script)
    return sum(weights.get(char, -1.0) for char in text if char > "\x7f")


_ACCENTED = "àâäãåæçèéêëìîïíñòóôöõøùúûüýßÀÂÄÅÆÇÈÉÊËÎÏÍÑÓÔÖØÚÛÜœŒ"
_LATIN = re.compile(  # signs and accents where they make sense; [^ … ] is also the text's edge
    f"(?<=[A-Za-z])[{_ACCENTED}]+|[{_ACCENTED}]+(?=[A-Za-z])"
    "|(?<![^\\s'’(])[àÀéÉôÔóÓòèåÅöÖ](?![^\\s,.])"
    "|(?<![^\\w\\s.,;:!?\"')…”’»–—-])[’‘“”»…–—\xa0°§](?![^\\s\\w.,;:!?\"')«»’”—-])"
    "|(?<!\\w)[«“‘„—–…¿¡£§©](?![^\\s\\w.«»’”\xa0])"
)
_LANGUAGES = (  # the accented letters of each; Czech or Turkish read as cp1252 fits none
    "àâçèéêëîïôùûüœæ",
    "äöüßé",
    "áéíóúñü",
    "áâãàçéêíóôõú",
    "àèéìíîòóùú",
    "æøåéèêòóôöäü",
    "áðéíóúýþæö",
    "éëïóöèüáç",
    "äöõü",
    "àçèéíïòóúü",
)


def _latin(text: str) -> float:
    """The score of text in Latin letters: accents stand beside plain letters, of one language."""
    letters = collections.Counter(char.lower() for char in text if char > "\x7f" and char.isalpha())
    high = len(text) - len(text.encode("ascii", "ignore"))
    plain = len(re.findall("[A-Za-z]", text))
    accents = letters.total()
    if not high or high > plain or accents > 0.4 * plain:
        return -1.0
    sense = sum(map(len, _LATIN.findall(text))) / high
    known = 1.0
    if accents > max(2, plain / 40):  # a few foreign names may be of any language
        known = max(sum(letters[char] for char in language) for language in _LANGUAGES) / accents
    return 1 - 3 * (1 - sense) - 5 * (1 - known)


_SCRIPTS = ("chinese", "japanese", "korean", "cyrillic")
_PUNCTUATION = "，。：；！？、“”‘’「」『』《》〈〉（）【】〔〕—…·‧•～－．\u3000　［］"
_HAN = (
    "不了一道人来是的有子得他个我说去在见这你家之上下也里只日大到那此中又出生老儿时如事小自知好看两要与"
    "将心便就今为三何二无头王天公回门过起相可前着做把著问后十官身正曰太还夫叫走年话些听多行都先女已然玉"
    "以娘当么进却分面才方明们打地处手同而四亲几其且没吃言意笑若死等外所金成名酒至宝开众书想张甚住姐于坐"
    "爷主马口山房因真再命用罢间少声和钱请怎从氏父边作教母内取银安府气五师李往文发贾夜未白会必长县东君别"
    "送忙西乃弟喜花情敢风月对定云万难路曾放拿入元能牙本被兄神百妇黄水故闻使拜连衣位高尽报向朝诗者船许令"
    "早样尚眼士婆哥带州妈吾妻随应仙非千虽理原字世望待各姓倒周寻数直郎首重平管半思次杨香杀色法惊即礼留军"
    "光肯物怕己信动火觉学急卿收点干八果龙客似但谢告城春归哭秀飞常谁南凤须孙江红清实接晚陈般差兵解受姑并"
    "落刘守哪欲虎武写奶认满既传齐细奉关合第赵岂六件臣空及堂通莫忽更晓爹立求计快恩依新京贵买饭复司七领国"
    "任欢性青转句德经苦答语付观商罪则服兴店员岁睡茶指交足乐九种部力体现加化度感工它她系电很给海矣焉哉乎"
    "汝尔為谓民秋雪來個說見這裏裡隻兒時兩與將爲無頭門過問後還話聽當麼進卻們處親幾沒喫寶開衆眾書張於爺馬罷"
    "間聲錢請從邊內銀氣師發賈會長縣東別風對雲萬難婦黃聞連盡報詩許樣帶媽隨應雖尋數楊殺驚禮軍動覺學點幹龍"
    "謝歸飛誰鳳須孫紅實陳並劉寫認滿傳齊細關趙豈曉計貴買飯復領國歡轉經語觀則興員歲樂種體現電給爾謂序章卷"
)
_HANGUL = (
    "이다는을의가에고하은지를한로도나아사자어인기서리대있그것시으일들라수정해만스과부보게제구니장면었여"
    "상마오와거주전내안말없조연성우적동모물생치원소였무비까음든신간데했신방러경실저위때국요공세문바유중"
    "람강할던교미려더개속르남못녀려두살식않같집통반관종진계회분화명결발알달난산김박당본노또왕심백천임"
)
_CYRILLIC = "оеаинтсрвлкм"


@functools.cache
def weights_of(script: str) -> dict[str, float]:
    """Weight of each character: 1 frequent, 0.1 in the first level of its standard, -5 damage."""
    frequent, usual = "", ""
    if script == "chinese":
        frequent = _HAN
        usual = _rows("gb2312", 0xB0, 0xD7, 0xA1) + _rows("big5", 0xA4, 0xC6, 0x40)
    elif script == "japanese":
        frequent = "".join(map(chr, range(0x3041, 0x30FF)))
        usual = _rows("euc_jp", 0xB0, 0xCF, 0xA1)
    elif script == "korean":
        frequent, usual = _HANGUL, _rows("euc_kr", 0xB0, 0xC8, 0xA1)
    elif script == "cyrillic":
        frequent, usual = _CYRILLIC, "".join(map(chr, range(0x430, 0x450))) + "ёЁ«»„№\xa0"
    for row in (0xA1, 0xA2, 0xA3, 0xA6, 0xA8, 0xA9):  # ※ ① Ａ α ā ━, in Chinese and elsewhere
        usual += _rows("gb2312", row, row, 0xA1)
    usual += _rows("big5", 0xA1, 0xA3, 0x40)
    weights = dict.fromkeys(usual, 0.1)
    weights |= dict.fromkeys(frequent, 1.0)
    weights |= dict.fromkeys(_PUNCTUATION, 0.6)
    if script == "cyrillic":
        weights |= dict.fromkeys(map(chr, range(0x410, 0x430)), -0.3)
    controls = map(chr, (*range(9), *range(14, 26), *range(28, 32), 0x7F, *range(0x80, 0xA0)))
    weights |= dict.fromkeys(controls, -5.0)
    weights |= dict.fromkeys(map(chr, range(0xE000, 0xF900)), -3.0)  # nobody's characters
    weights["\ufffd"] = -5.0
    weights["\ufeff"] = 0.0
    return weights


def _rows(codec: str, first: int, last: int, column: int) -> str:
    """The characters of a standard's rows: lead bytes `first` to `last`."""
    columns = [c for c in range(column, 0xFF) if not 0x7F <= c <= 0xA0]
    return b"".join(bytes((row, c)) for row in range(first, last + 1) for c in columns).decode(
        codec, "ignore"
    )
