"""Names of languages: two letters in data sets, other codes in models."""

from collections.abc import Sequence

# ISO 639-1 and the 639-3 code that NLLB writes for it.
PAIRS = """
aa:aar af:afr am:amh ar:arb as:asm az:aze be:bel bg:bul bn:ben bs:bos ca:cat cs:ces cy:cym
da:dan de:deu el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas fi:fin fr:fra ga:gle gl:glg
gu:guj he:heb hi:hin hr:hrv hu:hun hy:hye id:ind ig:ibo is:isl it:ita ja:jpn jv:jav ka:kat
kk:kaz km:khm kn:kan ko:kor ky:kir lb:ltz lo:lao lt:lit lv:lav mg:mlg mk:mkd ml:mal mn:mon
mr:mar ms:msa mt:mlt my:mya nb:nob ne:nep nl:nld nn:nno no:nor om:orm pa:pan pl:pol ps:pus
pt:por ro:ron ru:rus rw:kin sd:snd si:sin sk:slk sl:slv sn:sna so:som sq:sqi sr:srp su:sun
sv:swe sw:swh ta:tam te:tel tg:tgk th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr ur:urd
uz:uzb vi:vie wo:wol xh:xho yi:yid yo:yor zh:zho zu:zul
"""
SHORT = {long: short for short, _, long in (pair.partition(":") for pair in PAIRS.split())}
LONG = frozenset(SHORT)
KNOWN = LONG | frozenset(SHORT.values())


def looks_like_language(column: str) -> bool:
    """Whether a column has the name of a language, e.g. `de`, `deu`, `de_DE` or `deu_Latn`.

    `id` is Indonesian, but nearly always a number of the row.
    """
    return column != "id" and _stem(column) in KNOWN


def column_of_language(code: str, columns: Sequence[str]) -> str | None:
    """The column in the language that a model calls `code`: the same name, else the same language.

    `de`, `deu`, `de_DE` and `deu_Latn` are the same language; None when no column is in it.
    """
    if code in columns:
        return code
    alike = [column for column in columns if _short(column) == _short(code)]
    return alike[0] if len(alike) == 1 else None


def _stem(code: str) -> str:
    return code.replace("-", "_").partition("_")[0].lower()


def _short(code: str) -> str:
    return SHORT.get(_stem(code), _stem(code))
