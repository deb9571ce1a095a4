"""Which roles a task's rows play, and whether the recipe's data keys fit them; reads no data."""

from peftune.data.section import DOC_STRIDE, DataSection
from peftune.data.template import Template, parse_template
from peftune.errors import DataError, did_you_mean

TEXT_ROLES = ("text",)
LABEL_ROLES = ("text", "label")
TAG_ROLES = ("words", "tags")
SPAN_ROLES = ("context", "question", "answers")
CONVERSATION_ROLES = ("messages",)
OPTIONAL_ROLES = {
    TEXT_ROLES: (),
    LABEL_ROLES: ("text_pair",),
    TAG_ROLES: (),
    SPAN_ROLES: ("answer", "answer_start"),
    CONVERSATION_ROLES: ("tools",),
}
SHORTEST_ADVANCE = 16
"""Tokens that each window of a context must add to the one before."""


def learns_whole_text(roles: tuple[str, ...]) -> bool:
    """Whether rows are plain text; otherwise they are a prompt and the completion to learn."""
    return roles == TEXT_ROLES


def learns_labels(roles: tuple[str, ...]) -> bool:
    """Whether rows are texts with a label, or several, or a number."""
    return roles == LABEL_ROLES


def learns_tags(roles: tuple[str, ...]) -> bool:
    """Whether rows are words with a tag each."""
    return roles == TAG_ROLES


def learns_spans(roles: tuple[str, ...]) -> bool:
    """Whether rows are questions about a context that holds the answer."""
    return roles == SPAN_ROLES


def learns_conversations(roles: tuple[str, ...]) -> bool:
    """Whether rows are lists of messages."""
    return roles == CONVERSATION_ROLES


def has_prompt(roles: tuple[str, ...]) -> bool:
    """Whether a prompt is made of the columns; the other rows are taken as they stand."""
    return roles not in (TEXT_ROLES, TAG_ROLES, SPAN_ROLES, CONVERSATION_ROLES)


def known_roles(roles: tuple[str, ...]) -> tuple[str, ...]:
    """The roles that `data.columns` may name, the optional ones included."""
    return (*roles, *OPTIONAL_ROLES.get(roles, ("references",)))


def column_of(section: DataSection, name: str) -> str:
    """The column behind a role or a placeholder: the one in `data.columns`, or its own name."""
    return section.columns.get(name, name)


def prompt_template(
    section: DataSection, roles: tuple[str, ...], default: str | None
) -> Template | None:
    """The template of the prompt: the recipe's, the task's, or the bare prompt column.

    Returns None for rows that no prompt is made of. Raises DataError.
    """
    if not has_prompt(roles):
        return None
    return parse_template(section.prompt_template or default or "{prompt}")


def check_roles(section: DataSection, roles: tuple[str, ...]) -> None:
    """Raise DataError for keys of `data:` that do not fit the task or contradict each other."""
    for role in section.columns:
        if role not in known_roles(roles):
            raise DataError(
                f"data.columns: unknown role {role!r}.{did_you_mean(role, known_roles(roles))} "
                f"The roles of this task are: {', '.join(known_roles(roles))}."
            )
    _check_label_keys(section, roles)
    _check_windows(section, roles)
    _check_train_on(section, roles)
    if section.mlm_probability is not None and not learns_whole_text(roles):
        raise DataError(
            f"data.mlm_probability: {section.mlm_probability} is for task text; remove it."
        )
    if learns_whole_text(roles):
        _check_text_keys(section)
    elif learns_tags(roles) or learns_spans(roles):
        _check_columns_only(section, roles)
    elif learns_conversations(roles):
        _check_chat_keys(section)
    else:
        _check_prompt_keys(section, roles)


def _check_train_on(section: DataSection, roles: tuple[str, ...]) -> None:
    possible: tuple[str, ...] = ("completion", "all")
    if learns_conversations(roles):
        possible = ("assistant", "last", "all")
    elif not has_prompt(roles) or learns_labels(roles):
        possible = ()
    if section.train_on is not None and section.train_on not in possible:
        way_out = f"use {' or '.join(possible)}" if possible else "remove it"
        raise DataError(
            f"data.train_on: {section.train_on} is not a part of this task's rows; {way_out}."
        )


def _check_chat_keys(section: DataSection) -> None:
    if section.prompt_template is not None:
        raise DataError(
            "data.prompt_template: this task learns conversations, which the chat template writes; "
            "remove it."
        )
    if section.overlong == "split":
        raise DataError(
            "data.overlong: split would cut conversations apart; it is for task text. Use "
            "truncate_prompt, which drops the oldest turns, drop or error."
        )


def _check_label_keys(section: DataSection, roles: tuple[str, ...]) -> None:
    if section.labels and not (learns_labels(roles) or learns_tags(roles)):
        raise DataError("data.labels: this task learns no labels; remove it.")
    if section.problem_type is not None and not learns_labels(roles):
        raise DataError(
            f"data.problem_type: {section.problem_type} is for task classify; remove it."
        )
    if learns_labels(roles) and section.chat_template is not None:
        raise DataError("data.chat_template: a classifier reads plain text; remove it.")


def _check_windows(section: DataSection, roles: tuple[str, ...]) -> None:
    stride = section.doc_stride
    if stride != DOC_STRIDE and not learns_spans(roles):
        raise DataError(f"data.doc_stride: {stride} is for task extract; remove it.")
    if learns_spans(roles) and stride + SHORTEST_ADVANCE >= section.max_length:
        raise DataError(
            f"data.doc_stride: {stride} leaves no room in windows of data.max_length: "
            f"{section.max_length} tokens; lower it, or raise data.max_length."
        )


def _check_columns_only(section: DataSection, roles: tuple[str, ...]) -> None:
    """Tags and spans are read from columns, without a prompt around them."""
    reads = "words and their tags" if learns_tags(roles) else "a question and its context"
    for key in ("prompt_template", "chat_template", "source_language", "target_language"):
        if section.__dict__[key] is not None:
            raise DataError(f"data.{key}: this task reads {reads} as they are; remove it.")
    if learns_tags(roles) and section.overlong == "truncate_prompt":
        raise DataError(
            "data.overlong: truncate_prompt would lose words and their tags. Use split, drop or "
            "error."
        )
    if learns_spans(roles) and section.overlong in ("drop", "truncate_prompt"):
        raise DataError(
            f"data.overlong: {section.overlong}: this task reads long contexts in windows that "
            "overlap by data.doc_stride tokens; remove it."
        )


def _check_text_keys(section: DataSection) -> None:
    for key, value in (
        ("prompt_template", section.prompt_template),
        ("chat_template", section.chat_template),
    ):
        if value is not None:
            raise DataError(f"data.{key}: this task learns plain text without a prompt; remove it.")
    if section.overlong == "truncate_prompt":
        raise DataError(
            "data.overlong: truncate_prompt needs a prompt, and this task learns plain text. "
            "Use split, drop or error."
        )


def _check_prompt_keys(section: DataSection, roles: tuple[str, ...]) -> None:
    if section.overlong == "split":
        raise DataError(
            "data.overlong: split would cut prompts and completions apart; it is for task text. "
            "Use truncate_prompt, drop or error."
        )
    template = prompt_template(section, roles, None)
    answers = {column_of(section, role) for role in (roles[-1], "references")}
    for name in template.names if template else ():
        if column_of(section, name) in answers:
            raise DataError(
                f"data.prompt_template: {{{name}}} holds the answer, which must not stand in the "
                "prompt."
            )
