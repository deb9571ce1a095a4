"""Language codes of translation models: said once in the recipe, written into every row."""

from typing import TYPE_CHECKING, Any

from peftune.data.section import DataSection
from peftune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Their tokenizers put a code beside each text, and their decoders start from the target's.
CODED = ("NllbTokenizer", "MBartTokenizer", "MBart50Tokenizer")


def has_codes(tokenizer: Any) -> bool:
    """Whether the tokenizer writes a code of the language beside each text."""
    return type(tokenizer).__name__.removesuffix("Fast") in CODED


def set_languages(tokenizer: Any, section: DataSection, choose_texts: bool = False) -> None:
    """Tell the tokenizer which languages it reads and writes.

    `choose_texts` says that the keys have chosen the two texts of each row, which is use enough for
    a model without codes. Raises DataError for a code the tokenizer does not have, when a model that
    needs codes gets none, and when one that has no codes gets some for nothing.
    """
    codes = {
        "source_language": section.source_language,
        "target_language": section.target_language,
    }
    coded = has_codes(tokenizer)
    if choose_texts and not coded:
        return
    for key, code in codes.items():
        if (code is not None) != coded:
            raise DataError(
                f"data.{key}: this model's tokenizer needs the code of a language, e.g. "
                f"{_known_codes(tokenizer)[0]}."
                if coded
                else f"data.{key}: {code!r}, but this model's tokenizer has no language codes; "
                "remove it and name the languages in data.prompt_template."
            )
        if code is not None and code not in _known_codes(tokenizer):
            known = _known_codes(tokenizer)
            raise DataError(
                f"data.{key}: this model's tokenizer has no language {code!r}."
                f"{did_you_mean(code, known)}"
            )
    if coded:
        tokenizer.src_lang, tokenizer.tgt_lang = codes.values()


def _known_codes(tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    named = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token}
    added = (str(token) for token in tokenizer.added_tokens_decoder.values())
    return sorted(token for token in added if "_" in token and token not in named)


def forced_first_token(tokenizer: Any, section: DataSection) -> int | None:
    """The token that generation must start with: the target's language code, where there is one."""
    if section.target_language is None or not has_codes(tokenizer):
        return None
    return int(tokenizer.convert_tokens_to_ids(section.target_language))
