"""Which roles a task's rows play, and whether the recipe's data keys fit them; reads no data."""

from peftune.data.section import DataSection
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
    _check_train_on(section, roles)
    _check_overlong(section, roles)
    if learns_spans(roles):
        _check_windows(section)
    if has_prompt(roles):
        _check_prompt(section, roles)


def _check_train_on(section: DataSection, roles: tuple[str, ...]) -> None:
    chats = learns_conversations(roles)
    possible = ("assistant", "last", "all") if chats else ("completion", "all")
    if section.train_on is not None and section.train_on not in possible:
        raise DataError(
            f"data.train_on: {section.train_on} is not a part of this task's rows; use "
            f"{' or '.join(possible)}."
        )


def _check_overlong(section: DataSection, roles: tuple[str, ...]) -> None:
    """Refuse a policy that would take apart what belongs together."""
    policy, problem = section.overlong, ""
    if policy == "split" and learns_conversations(roles):
        problem = (
            "would cut conversations apart; it is for task text. Use truncate_prompt, which drops the "
            "oldest turns, drop or error"
        )
    elif policy == "split" and has_prompt(roles):
        problem = (
            "would cut prompts and completions apart; it is for task text. Use truncate_prompt, drop "
            "or error"
        )
    elif policy == "truncate_prompt" and learns_whole_text(roles):
        problem = "needs a prompt, and this task learns plain text. Use split, drop or error"
    elif policy == "truncate_prompt" and learns_tags(roles):
        problem = "would lose words and their tags. Use split, drop or error"
    if problem:
        raise DataError(f"data.overlong: {policy} {problem}.")


def _check_windows(section: DataSection) -> None:
    stride = section.doc_stride
    if stride + SHORTEST_ADVANCE >= section.max_length:
        raise DataError(
            f"data.doc_stride: {stride} leaves no room in windows of data.max_length: "
            f"{section.max_length} tokens; lower it, or raise data.max_length."
        )


def _check_prompt(section: DataSection, roles: tuple[str, ...]) -> None:
    template = prompt_template(section, roles, None)
    answers = {column_of(section, role) for role in (roles[-1], "references")}
    for name in template.names if template else ():
        if column_of(section, name) in answers:
            raise DataError(
                f"data.prompt_template: {{{name}}} holds the answer, which must not stand in the "
                "prompt."
            )
