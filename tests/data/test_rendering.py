import pytest

from peftune.data.examples import Example
from peftune.data.rendering import Rendered, join, render_plain


@pytest.mark.parametrize(
    ("prompt", "completion", "joined"),
    [
        ("Summary:", "Tom", ("Summary:", " Tom")),
        ("Summary: ", "Tom", ("Summary:", " Tom")),
        ("Summary:  ", " Tom", ("Summary:", " Tom")),
        ("Summary:", " Tom", ("Summary:", " Tom")),
        ("Summary:\n", "Tom", ("Summary:\n", "Tom")),
        ("Summary:\n ", "Tom", ("Summary:\n", "Tom")),
        ("Summary:\t", "Tom", ("Summary:\t", "Tom")),
        ("Summary:", "\nTom", ("Summary:", "\nTom")),
        ("", "Tom", ("", "Tom")),
    ],
)
def test_blanks_at_the_seam_belong_to_the_completion(
    prompt: str, completion: str, joined: tuple[str, str]
) -> None:
    assert join(prompt, completion) == joined


def test_a_field_ends_with_the_prompt() -> None:
    example = Example(4, "ask  ", "answer", ("answer",), "ask  ", ((0, 5),))
    assert render_plain(example) == Rendered(4, "ask answer", "ask", ((3, 10),), ((0, 3),))
    assert render_plain(example, whole=True).learnt == ((0, 10),)
