"""Which format a source is in: told by its columns, unless the recipe says it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from peftune.data.columns import require_column
from peftune.data.formats import FORMATS, LABEL, NATIVE, PROMPT, Conversion, Roles
from peftune.data.language_codes import column_of_language, looks_like_language
from peftune.data.mixture import Mixed
from peftune.data.section import DataSection, FormatName
from peftune.data.table import Table
from peftune.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Choice:
    """What the recipe says about the format of one source."""

    key: str
    """Beginning of its recipe keys: `data`, or an entry of a mixture."""
    section: DataSection
    format: FormatName | None
    columns: Mapping[str, str]
    roles: Roles
    roles_only: bool = False


def formatted(table: Table, choice: Choice) -> Table:
    """The table with rows in the roles of the task. Raises DataError when the format is unclear."""
    _require_mapped(table, choice)
    name = choice.format or _detected(table, choice)
    if choice.format is not None:
        _require_format(table, choice, choice.format)
    _require_clear_columns(table, choice, name)
    languages = _languages(table, choice) if name == "parallel" else ()
    template = FORMATS[name].prompt_template if choice.roles == PROMPT else None
    if _is_native(name, choice, table):
        return table
    conversion = Conversion(
        format=name,
        roles=choice.roles,
        columns=tuple(sorted(choice.columns.items())),
        languages=languages,
        roles_only=choice.roles_only,
        prompt_template=template if choice.roles_only else None,
    )
    converted = table.converted(conversion, template)
    if choice.roles_only:
        _require_roles(table, converted, choice)
    return converted


def _require_mapped(table: Table, choice: Choice) -> None:
    """A mapping to a column that is not there must not fall back to one with another name."""
    for role in filter(choice.columns.__contains__, choice.roles):
        require_column(table, f"{choice.key}.columns: {role}", choice.columns[role])


def _require_roles(table: Table, converted: Table, choice: Choice) -> None:
    """A mixture has no column but the roles, so what a source lacks is best said of the source."""
    optional = ("prompt",) if choice.section.prompt_template is not None else ()
    for role in choice.roles:
        if role not in (*converted.columns, *optional):
            raise DataError(
                f"{choice.key}.columns: {role}: no column named {choice.columns.get(role, role)!r} in "
                f"{table.place}. The columns are: {', '.join(table.columns)}."
            )


def _is_native(name: FormatName, choice: Choice, table: Table) -> bool:
    """Whether rows can stay as they are, which for large tables is worth knowing."""
    return (
        not choice.roles_only
        and name == NATIVE[choice.roles]
        and name in ("text", "classification", "token_classification")
        and all(_has(role, table.columns, choice) for role in choice.roles)
    )


def _detected(table: Table, choice: Choice) -> FormatName:
    native = NATIVE[choice.roles]
    if choice.roles[-1] in choice.columns:
        return native
    fitting = [name for name in _serving(choice.roles) if _fits(name, table, choice)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise DataError(
            f"{choice.key}.format: the columns of {table.place} ({', '.join(table.columns)}) fit "
            f"{' and '.join(fitting)}; set {choice.key}.format to one of them, or say in "
            f"{choice.key}.columns which column is which."
        )
    if choice.columns or choice.section.prompt_template is not None:
        return native
    raise DataError(_unknown_format(table, choice))


def _unknown_format(table: Table, choice: Choice) -> str:
    roles = choice.roles
    template = ", or write the prompt with data.prompt_template" * (roles == PROMPT)
    return (
        f"{choice.key}.columns: {table.place} has the columns {', '.join(table.columns)}, and this "
        f"task needs {' and '.join(roles)}, or a format that has them ({', '.join(_serving(roles))}). "
        f"Say which column is which: {choice.key}.columns: "
        f"{{{', '.join(f'{role}: COLUMN' for role in roles)}}}{template}."
    )


def _serving(roles: Roles) -> list[FormatName]:
    return [name for name, form in FORMATS.items() if roles in form.roles]


def _fits(name: FormatName, table: Table, choice: Choice) -> bool:
    if name == "parallel":
        return bool(_language_columns(table, choice))
    templated = choice.section.prompt_template is not None
    parts = FORMATS[name].parts
    return all(
        any(all(_has(c, table.columns, choice) for c in columns) for columns in part)
        or (templated and name == "prompt_completion" and part == (("prompt",),))
        for part in parts
    )


def _has(column: str, columns: Sequence[str], choice: Choice) -> bool:
    return choice.columns.get(column, column) in columns


def _require_format(table: Table, choice: Choice, name: FormatName) -> None:
    if choice.roles not in FORMATS[name].roles:
        raise DataError(
            f"{choice.key}.format: {name} rows have no {' and '.join(choice.roles)}, which this task "
            f"needs. Formats for it are: {', '.join(_serving(choice.roles))}."
        )
    if not _fits(name, table, choice):
        parts = [" or ".join(" with ".join(c) for c in part) for part in FORMATS[name].parts]
        needed = "columns named like languages" if name == "parallel" else ", ".join(parts)
        raise DataError(
            f"{choice.key}.format: {name} needs {needed}; the columns of {table.place} are: "
            f"{', '.join(table.columns)}."
        )


def _require_clear_columns(table: Table, choice: Choice, name: FormatName) -> None:
    """Refuse to choose between columns that could both be meant."""
    for part in FORMATS[name].parts:
        there = [c for c in part if all(_has(one, table.columns, choice) for one in c)]
        if len(there) > 1 and there[0] != part[0]:
            names = " and ".join(" with ".join(columns) for columns in there)
            role = part[0][0]
            raise DataError(
                f"{choice.key}.columns: {table.place} has {names}; say which one is meant, e.g. "
                f"{choice.key}.columns: {{{role}: {there[0][0]}}}."
            )


def _language_columns(table: Table, choice: Choice) -> list[str]:
    """Columns, or parts of a column `translation`, that are named like languages."""
    if "translation" in table.columns:
        _, row = next(iter(table))
        value = row.get("translation")
        return list(value) if isinstance(value, Mapping) else []
    codes = (choice.section.source_language, choice.section.target_language)
    coded = {column_of_language(code, table.columns) for code in codes if code is not None}
    found = [c for c in table.columns if c in coded or looks_like_language(c)]
    return found if len(found) > 1 else []


def _languages(table: Table, choice: Choice) -> tuple[str, str]:
    """The names of the two languages' texts in a row. Raises DataError when they are not told."""
    known, found = _language_columns(table, choice), []
    for key in ("source_language", "target_language"):
        code = choice.section.source_language if key[0] == "s" else choice.section.target_language
        if code is None:
            raise DataError(
                f"data.{key}: {table.place} has texts in {' and '.join(known)}; set it to one of them "
                "(for a model with language codes: to the code), or map prompt and completion in "
                f"{choice.key}.columns."
            )
        column = column_of_language(code, known)
        if column is None:
            raise DataError(
                f"data.{key}: {code!r}: {table.place} has texts in {' and '.join(known)}."
                f"{did_you_mean(code, known)}"
            )
        found.append(column)
    if found[0] == found[1]:
        raise DataError(f"data.target_language: {found[1]!r} is the source's language too.")
    return found[0], found[1]


def fitted(section: DataSection, table: Table, roles: Roles) -> DataSection:
    """The section as it reads rows of a formatted table: with what the format says by itself."""
    columns = {} if section.mixture else dict(section.columns)
    if table.convert is not None and roles == LABEL and "text_pair" in table.columns:
        columns = {"text_pair": "text_pair", **columns}
    template = section.prompt_template or table.prompt_template
    if section.mixture and section.prompt_template is None:
        template = None
    return section.model_copy(update={"columns": columns, "prompt_template": template})


def languages_chosen(tables: Iterable[Table]) -> bool:
    """Whether the recipe's languages decide which texts of a row are read."""
    parts = [
        table.source.tables if isinstance(table.source, Mixed) else (table,) for table in tables
    ]
    made = [one.convert for part in parts for one in part]
    return any(isinstance(one, Conversion) and bool(one.languages) for one in made)
