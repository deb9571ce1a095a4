import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.template import parse_template
from peftune.errors import DataError


def test_values_are_put_in_and_their_spans_are_known() -> None:
    template = parse_template("Q: {question} {{x}}\nC: {context} again {question}")
    text, spans = template.render({"question": "why?", "context": "because"})
    assert text == "Q: why? {x}\nC: because again why?"
    assert [text[start:end] for start, end in spans] == ["why?", "because", "why?"]
    assert template.names == ("question", "context")


def test_values_are_not_templates() -> None:
    text, _ = parse_template("{a}").render({"a": "{b} {{c}}"})
    assert text == "{b} {{c}}"


@given(st.text(), st.text(), st.text())
def test_spans_hold_exactly_the_values(before: str, first: str, second: str) -> None:
    literal = before.replace("{", "{{").replace("}", "}}")
    text, spans = parse_template(literal + "{a}{b}").render({"a": first, "b": second})
    assert text == before + first + second
    assert [text[start:end] for start, end in spans] == [first, second]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{a.b}",
            "{a.b} is not a plain column name in braces. Write {{ or }} for a literal brace.",
        ),
        (
            "{a[0]}",
            "{a[0]} is not a plain column name in braces. Write {{ or }} for a literal brace.",
        ),
        ("{}", "{} is not a plain column name in braces. Write {{ or }} for a literal brace."),
        ("{0}", "{0} is not a plain column name in braces. Write {{ or }} for a literal brace."),
        (
            "{a!r}",
            "{a!r} is not a plain column name in braces. Write {{ or }} for a literal brace.",
        ),
        (
            "{a:>9}",
            "{a:>9} is not a plain column name in braces. Write {{ or }} for a literal brace.",
        ),
        (
            "{a:{b}}",
            "{a:{b}} is not a plain column name in braces. Write {{ or }} for a literal brace.",
        ),
        ("{a", "expected '}' before end of string. Write {{ or }} for a literal brace."),
        (
            "a} {b}",
            "single '}' encountered in format string. Write {{ or }} for a literal brace.",
        ),
        (
            "Summarize this.",
            "names no column, so every prompt would be the same. Put a column name in braces.",
        ),
    ],
)
def test_anything_but_plain_names_is_refused(template: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_template(template)
    assert str(caught.value) == f"data.prompt_template: {message}"
