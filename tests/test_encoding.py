import time

import opencc
import pytest
from conftest import REPO

from hlm_jax.book.encoding import decode
from hlm_jax.book.errors import CorpusError

PROSE = (
    "第一回　甄士隐梦幻识通灵　贾雨村风尘怀闺秀\n"
    "列位看官：你道此书从何而来？说起根由虽近荒唐，细按则深有趣味。待在下将此来历注明，方使阅者了然不惑。\n"
    "原来女娲氏炼石补天之时，于大荒山无稽崖炼成高经十二丈、方经二十四丈顽石三万六千五百零一块。\n"
    "娲皇氏只用了三万六千五百块，只单单剩了一块未用，便弃在此山青埂峰下。谁知此石自经锻炼之后，灵性已通。\n"
)
CLASSICAL = "子曰學而時習之不亦說乎有朋自遠方來不亦樂乎人不知而不慍不亦君子乎有子曰其為人也孝弟"
TRADITIONAL = opencc.OpenCC("s2t").convert(PROSE).replace("峯", "峰")
POEM = "床前明月光\n疑是地上霜\n举头望明月\n低头思故乡\n"
KOREAN = (
    "옛날 어느 마을에 가난한 나무꾼이 살고 있었습니다. 그는 날마다 산에 올라가 나무를 하여\n"
    "장에 내다 팔았습니다. 하루는 사슴 한 마리가 달려와 숨겨 달라고 하였습니다.\n"
)
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива.\n"
FRENCH = "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte…\n"
GERMAN = "Als Gregor Samsa aus unruhigen Träumen erwachte, lag er auf seinem Rücken.\n"


def is_refused(data, *words):
    with pytest.raises(CorpusError) as error:
        decode(data, "book.txt")
    message = str(error.value)
    assert message.startswith("book.txt: ")
    assert "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "big5"]
)
@pytest.mark.parametrize("length", [21, 160, 9_000])  # 21: the heading alone
def test_encodings_are_recognised(codec, length):
    text = (PROSE * 50)[:length]
    if codec == "big5":
        text = (TRADITIONAL * 50)[:length]
    read = decode(text.encode(codec), "book.txt")
    assert read.text == text
    assert read.notes == ()
    names = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le", "big5": "cp950"}
    assert read.encoding == names.get(codec, codec)


@pytest.mark.parametrize("text", [CLASSICAL, POEM, TRADITIONAL])
def test_classical_texts_poems_and_traditional_signs_are_chinese_in_gb18030_and_gbk(text):
    for codec in ("gb18030", "gbk"):
        assert decode(text.encode(codec), "book.txt").text == text


def test_big5_is_read_with_the_signs_that_makers_added():
    plain = TRADITIONAL
    hong_kong = plain + "佢哋嘅墻"  # 嘅, 哋: in Hong Kong's table alone
    read = decode(hong_kong.encode("big5hkscs"), "book.txt")
    assert (read.text, read.encoding, read.notes) == (hong_kong, "big5hkscs", ())
    box = plain + "╔═╗▓"  # F9F9 to F9FE: Eten's, which Microsoft took over
    assert decode(box.encode("cp950"), "book.txt").text == box
    both = plain.encode("cp950") + "嘅".encode("big5hkscs") + "€".encode("cp950")
    assert decode(both, "book.txt").text == plain + "嘅€"
    numbered = plain.encode("big5") + b"\xc6\xa1\xc6\xa2"  # ① ②, which Python's cp950 reads as kana
    assert decode(numbered, "book.txt").text == plain + "①②"


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (KOREAN, "euc_kr", "euc_kr"),
        (KOREAN + "똠방각하", "cp949", "cp949"),
        (JAPANESE, "shift_jis", "shift_jis"),
        (JAPANESE + "①", "cp932", "cp932"),
        (JAPANESE, "euc_jp", "euc_jp"),
        (JAPANESE, "iso2022_jp", "iso2022_jp"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (FRENCH, "cp1252", "cp1252"),  # … is 0x85, which is no line end here
        (GERMAN, "latin-1", "latin-1"),
    ],
)
def test_other_languages_are_read_as_themselves_and_named(text, codec, name):
    read = decode(text.encode(codec), "book.txt")
    assert (read.text, read.encoding) == (text, name)
    assert len(read.notes) == 1
    assert read.notes[0].startswith(f"book.txt: read as {name} (")


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Μῆνιν ἄειδε θεὰ και η γυναίκα είπε στον άντρα της ότι θέλει να πάει.\n", "cp1253"),
        ("Když se Řehoř Samsa jednoho rána probudil z nepokojných snů, shledal.\n", "cp1250"),
        ("Litwo! Ojczyzno moja! ty jesteś jak zdrowie; Ile cię trzeba cenić.\n", "iso8859-2"),
        ("בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו\n", "cp1255"),
        ("กาลครั้งหนึ่งนานมาแล้ว มีเด็กหญิงคนหนึ่งอาศัยอยู่ในหมู่บ้าน\n", "cp874"),
    ],
)
def test_encodings_that_are_not_known_are_refused_and_not_read_as_others(text, codec):
    is_refused((text * 3).encode(codec, "ignore"), "not text in", "save it as UTF-8")


def test_what_is_not_text_is_refused():
    noise = bytes((i * i * 7 + i // 3) % 256 for i in range(3_000))
    program = b"\x7fELF\2\1\1" + bytes(200) + noise
    for data in (noise, program, bytes(range(128, 256)) * 40, b"\1\2\3 text" * 100):
        is_refused(data, "not text in")


def test_text_that_was_misread_before_it_was_saved_as_utf8_is_refused():
    for codec in ("utf-8", "gb18030"):
        is_refused(PROSE.encode(codec).decode("latin-1").encode(), f"{codec} that was read as")


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "cp950"])
@pytest.mark.parametrize("bad", [b"\xff", b"?", b"\0", b""])
@pytest.mark.parametrize("at", [510, 511, 512])
def test_one_damaged_byte_costs_a_few_characters_and_a_note(codec, bad, at):
    text = TRADITIONAL * 4 if codec == "cp950" else PROSE * 4
    data = text.encode(codec)
    read = decode(data[:at] + bad + data[at + 1 :], "book.txt")
    assert (read.encoding in ("cp950", "big5hkscs")) if codec == "cp950" else read.encoding == codec
    first = next(i for i, (a, b) in enumerate(zip(text, read.text, strict=False)) if a != b)
    assert any(read.text.endswith(text[first + more :]) for more in range(8))
    if codec != "cp950":  # in Big5 an altered byte may make another character of Big5
        assert len(read.notes) == 1
        assert "1 damaged byte at offset " in read.notes[0]


def test_a_note_names_the_place():
    data = "甲乙\n丙丁\n".encode() + b"\xe4" + (PROSE * 40).encode()
    assert decode(data, "book.txt").notes == (
        "book.txt: 1 damaged byte at offset 14 (line 3) left out; encoding utf-8",
    )
    begun = decode("甲乙\n丙丁".encode("utf-16") + b"\x01", "b").notes
    assert begun == ("b: 1 damaged byte at offset 12 (line 2) left out; encoding utf-16-le",)
    replaced = decode((PROSE + "宝\ufffd玉").encode(), "b")
    assert replaced.text == PROSE + "宝玉"
    assert f"offset {len((PROSE + '宝').encode()):,} (line 5)" in replaced.notes[0]


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "utf-16-le"])
def test_a_last_character_that_is_cut_is_left_out(codec):
    read = decode(PROSE.rstrip("\n").encode(codec)[:-1], "book.txt")
    assert read.text == PROSE.rstrip("\n")[:-1]
    assert read.encoding == codec
    assert len(read.notes) == 1


def test_a_lost_byte_in_gbk_does_not_turn_the_rest_into_other_characters():
    line = PROSE.replace("\n", "")  # nothing sets the decoder right before the end
    data = (line * 6).encode("gb18030")
    for at in (300, 301, 901):
        read = decode(data[:at] + data[at + 1 :], "book.txt")
        assert read.text.endswith(line * 3)
        assert "1 damaged byte" in read.notes[0]


def test_utf16_that_lacks_a_byte_is_refused():
    data = (PROSE * 30).encode("utf-16")
    is_refused(data[:3_001] + data[3_002:], "utf-16-le that lacks a byte")


def test_a_block_of_nul_is_one_place():
    read = decode((PROSE + "\0" * 500 + PROSE).encode(), "b")
    assert read.text == PROSE * 2
    assert "1 damaged place at offset" in read.notes[0]


def test_more_damage_than_one_place_in_10000_characters_is_refused():
    text = PROSE * 120  # some 23,000 characters: two places are tolerated
    for codec in ("utf-8", "gb18030"):
        data = bytearray(text.encode(codec))
        places = [i for i, byte in enumerate(data) if byte == 0x0A][:3]
        for at in places[:2]:
            data[at] = 0xFF
        assert (
            f"2 damaged places, the first at offset {places[0]:,} (line 1)"
            in (decode(bytes(data), "b").notes[0])
        )
        data[places[2]] = 0xFF
        is_refused(bytes(data), "3 damaged places", f"offset {places[0]:,}", codec)
    is_refused("宝\ufffd玉笑道：好妹妹，你且坐一坐再去罢。\ufffd".encode(), "2 damaged places")


def test_every_line_end_is_lf():
    text = "甲\r\n乙\r丙\u2028丁\u2029戊\x85己\x0c庚\x0b辛\ufeff\n"
    assert decode(text.encode(), "b").text == "甲\n乙\n丙\n丁\n戊\n己\n庚\n辛\n"
    assert decode(b"Chapter I.\rIt was so.\r\x1a", "b").text == "Chapter I.\nIt was so.\n"


def test_an_english_text_with_one_damaged_byte_is_read():
    read = decode(b"It was the best of times, it was \x90the worst of times.\n" * 1, "b")
    assert read.text == "It was the best of times, it was the worst of times.\n"
    assert "offset 33 (line 1)" in read.notes[0]


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5"])
def test_a_book_is_read_fast(codec):
    text = TRADITIONAL if codec == "big5" else PROSE
    data = text.encode(codec, "ignore") * (1_000_000 // len(text.encode(codec, "ignore")))
    decode(text.encode(codec, "ignore"), "b")
    begin = time.process_time()
    decode(data, "b")
    assert time.process_time() - begin < 1.0  # about 0.1 s


@pytest.mark.parametrize("codec", ["gb18030", "cp950", "big5hkscs", "utf-16-be"])
def test_a_novel_is_the_same_in_every_encoding(codec):
    file = REPO.parent / "shared" / "data" / "novels" / "儒林外史.txt"
    if not file.exists():
        pytest.skip("needs the novels beside the repository")
    text = file.read_text(encoding="utf-8")[:60_000]
    if codec in ("cp950", "big5hkscs"):
        text = opencc.OpenCC("s2t").convert(text).encode(codec, "ignore").decode(codec)
    read = decode(text.encode(codec), "b")
    assert (read.text, read.notes) == (text, ())
