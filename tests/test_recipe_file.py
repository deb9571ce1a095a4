"""Reading a recipe's YAML: safe, small, and every key with the line it stands on."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftune.errors import RecipeError
from peftune.recipe_file import (
    MAX_BYTES,
    MAX_DEPTH,
    RecipeFile,
    parse_override,
    read_recipe,
    source_of,
    with_overrides,
)

TEXT = """\
# A comment counts as a line.
task: summarize

model:
  dtype: float32
train: {max_steps: 6,
  optim: adamw_torch}
adapter:
  rank_pattern:
    down_proj: 8
  "r": 4
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str) -> str:
    """What the error says after the file's name."""
    path = written(folder, text)
    with pytest.raises(RecipeError) as refused:
        read_recipe(path)
    return str(refused.value).removeprefix(str(path))


def test_values_and_lines(tmp_path: Path) -> None:
    tree, lines, marked = read_recipe(written(tmp_path, TEXT))
    assert tree == {
        "task": "summarize",
        "model": {"dtype": "float32"},
        "train": {"max_steps": 6, "optim": "adamw_torch"},
        "adapter": {"rank_pattern": {"down_proj": 8}, "r": 4},
    }
    assert marked == set()
    assert lines == {
        ("task",): 2,
        ("model",): 4,
        ("model", "dtype"): 5,
        ("train",): 6,
        ("train", "max_steps"): 6,
        ("train", "optim"): 7,
        ("adapter",): 8,
        ("adapter", "rank_pattern"): 9,
        ("adapter", "rank_pattern", "down_proj"): 10,
        ("adapter", "r"): 11,
    }


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
    ids=["byte order mark", "Windows line ends"],
)
def test_what_windows_editors_write_reads_the_same(encode: Any, tmp_path: Path) -> None:
    expected = read_recipe(written(tmp_path, TEXT))
    assert read_recipe(written(tmp_path, encode(TEXT))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: a is set twice (first on line 1)."),
        ("a:\n  b: 1\n  b: 2\n", ":3: a.b is set twice (first on line 2)."),
        ("a: {b: 1, b: 1}\n", ":1: a.b is set twice (first on line 1)."),
        ("a:\n  b: 1\n'a':\n  c: 1\n", ":3: a is set twice (first on line 1)."),
        ("a:\n  b:\n    c: 1\n    c: 2\n", ":4: a.b.c is set twice (first on line 3)."),
    ],
)
def test_a_key_twice_is_refused_wherever_it_stands(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == message


def test_one_name_in_two_sections_is_no_duplicate(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, "a: {r: 1}\nb: {r: 2}\nr: 3\n"))[1][("b", "r")] == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &x 1\n", 1),
        ("a: 1\nb: &x {c: 2}\n", 2),
        ("a:\n  - &x 1\n", 2),
        ("&x a: 1\n", 1),
        ("a: 1\n\nb: *x\n", 3),
    ],
)
def test_anchors_and_aliases_are_refused(text: str, line: int, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == (
        f":{line}: anchors and aliases (& and *) are not allowed in a recipe; write the value out."
    )


@pytest.mark.parametrize(
    "text", ["a: 'x & y * z'\n", "a: x&y\n", "a: 2*3 # &c *d\n", "a: |\n  &b *c\n"]
)
def test_the_signs_inside_text_are_only_text(text: str, tmp_path: Path) -> None:
    assert isinstance(read_recipe(written(tmp_path, text))[0]["a"], str)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_nesting_is_allowed_down_to_the_limit(opening: str, closing: str, tmp_path: Path) -> None:
    """The file's own mapping is the first level."""
    inner = MAX_DEPTH - 1
    read_recipe(written(tmp_path, f"a: {opening * inner}1{closing * inner}\n"))
    deeper = f"a: {opening * MAX_DEPTH}1{closing * MAX_DEPTH}\n"
    assert refusal(tmp_path, "# one\n" + deeper) == f":2: nested deeper than {MAX_DEPTH} levels."


def test_many_flat_lists_are_not_deep(tmp_path: Path) -> None:
    text = "".join(f"k{index}: [[1], {{a: 2}}]\n" for index in range(200))
    assert len(read_recipe(written(tmp_path, text))[0]) == 200


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    comment = "a: 1 #" + "x" * MAX_BYTES
    assert read_recipe(written(tmp_path, comment[:MAX_BYTES]))[0] == {"a": 1}
    assert refusal(tmp_path, comment[: MAX_BYTES + 1]) == (
        ": 1,000,001 bytes; a recipe has at most 1,000,000. Data belongs in data.path."
    )


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!mine 1"]
)
def test_tags_that_make_objects_are_refused(tag: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, f"a: 1\nb: {tag}\n").startswith(
        ":2: tags (!!) and merge keys (<<) are not allowed"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", ":2: not valid YAML: "),
        ("a: 1\n\tb: 2\n", ":2: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", ":2: not valid YAML: "),
        ("a: 1\n? [b]\n: c\n", ":2: not valid YAML: "),
        ("a: 2024-13-01\n", ": not valid YAML: "),
        ("a: \x07\n", ": not valid YAML: "),
    ],
)
def test_what_yaml_does_not_take_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    refused = refusal(tmp_path, text)
    assert refused.startswith(message)
    assert "\n" not in refused


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe file"):
        read_recipe(tmp_path)


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.text("ab1 :-\n[]{},'\"#?|>!<.=%~", max_size=60))
def test_any_text_is_a_recipe_or_an_error_in_one_line(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), text)
    try:
        tree, _, _ = read_recipe(path)
    except RecipeError as error:
        assert str(error).startswith(f"{path}:")
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(tree, dict)


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("train.learning_rate=2e-4", ("train", "learning_rate"), 2e-4),
        ("train.learning_rate=1E5", ("train", "learning_rate"), 1e5),
        ("train.learning_rate=1.e-3", ("train", "learning_rate"), 1e-3),
        ("train.learning_rate=-2e+4", ("train", "learning_rate"), -2e4),
        ("train.run_name='2e-4'", ("train", "run_name"), "2e-4"),
        ("train.eval_steps=null", ("train", "eval_steps"), None),
        ("train.eval_steps=", ("train", "eval_steps"), None),
        ("export.merge=false", ("export", "merge"), False),
        ("adapter.target_modules=[q_proj, v_proj]", ("adapter", "target_modules"), ["q_proj", "v_proj"]),
        ("data.columns={completion: summary}", ("data", "columns"), {"completion": "summary"}),
        ("data.columns.completion=summary", ("data", "columns", "completion"), "summary"),
        ("data.prompt_template='a=b: {c}'", ("data", "prompt_template"), "a=b: {c}"),
        ("output_dir=/a b/c=d", ("output_dir",), "/a b/c=d"),
        ('data.prompt_template="{a}\\n{b}"', ("data", "prompt_template"), "{a}\n{b}"),
        ("data.prompt_template='{a}\n\n{b}'", ("data", "prompt_template"), "{a}\n{b}"),
    ],
)  # fmt: skip
def test_an_override_is_read_as_yaml(argument: str, key: tuple[str, ...], value: Any) -> None:
    parsed = parse_override(argument)
    assert parsed == (key, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("argument", ["", "seed", "=3", "--seed=3", "3=4", "train-lr=1", "a b=1"])
def test_what_is_no_assignment_is_no_override(argument: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_override(argument)
    assert str(refused.value) == f"{argument!r}: an override looks like section.key=value."


@pytest.mark.parametrize("value", ["[1", "{a: b", "'x", "!!python/name:os.system", "a: b: c"])
def test_an_override_that_is_no_yaml_is_refused(value: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_override(f"data.path={value}")
    assert str(refused.value) == f"{f'data.path={value}'!r}: the value is not valid YAML."


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("adapter={r: 4, method: lora, r: 8}", "adapter.r"),
        ("data.columns={text: a, text: a}", "data.columns.text"),
        ("data.mixture=[{train: a}, {train: b, weight: 1, train: c}]", "data.mixture.1.train"),
    ],
)
def test_a_key_twice_in_an_override_is_refused(argument: str, key: str) -> None:
    """YAML itself would keep the last one without a word."""
    with pytest.raises(RecipeError) as refused:
        parse_override(argument)
    assert str(refused.value) == f"{argument!r}: {key} is set twice."


def test_a_key_twice_in_an_entry_of_a_list_is_refused(tmp_path: Path) -> None:
    text = "data:\n  mixture:\n    - train: a\n    - train: b\n      train: c\n"
    assert refusal(tmp_path, text) == ":5: data.mixture.1.train is set twice (first on line 4)."


def test_only_the_comment_behind_a_value_marks_a_default(tmp_path: Path) -> None:
    text = (
        "a: 1  # default\nb: '# default'\nc: 2  # not default\nd: [1, 2] # default\n"
        "e: {f: 3}  # default\ng: 'x\n\n  # default'\nh: null # default\ni: 4\n# default\n"
        "j:  # default\n  k: 5\n"
    )
    marked = read_recipe(written(tmp_path, text)).marked
    assert marked == {("a",), ("d",), ("e",), ("h",)}


def test_overrides_replace_add_and_follow_each_other() -> None:
    tree = {"seed": 1, "train": {"optim": "adamw_torch", "max_steps": 5}, "quantization": None}
    overrides = ["train.max_steps=6", "train.run_name=x", "quantization.method=bnb-nf4", "seed=2"]
    assert with_overrides(tree, [*overrides, "seed=3"]) == {
        "seed": 3,
        "train": {"optim": "adamw_torch", "max_steps": 6, "run_name": "x"},
        "quantization": {"method": "bnb-nf4"},
    }


def test_overrides_leave_the_original_alone() -> None:
    tree = {"train": {"max_steps": 5}}
    with_overrides(tree, ["train.max_steps=6", "train.seed=1", "seed=2"])
    assert tree == {"train": {"max_steps": 5}}


@pytest.mark.parametrize("value", [3, "text", [1], True])
def test_nothing_can_be_set_below_a_value(value: Any) -> None:
    with pytest.raises(RecipeError) as refused:
        with_overrides({"seed": value}, ["seed.first=1"])
    assert str(refused.value) == f"'seed.first=1': seed is not a section, it is {value!r}."


def test_overridden_keys_lose_their_lines_and_so_does_what_is_in_them() -> None:
    lines = {
        ("seed",): 1,
        ("train",): 2,
        ("train", "max_steps"): 3,
        ("data",): 4,
        ("data", "columns"): 5,
        ("data", "columns", "completion"): 6,
    }
    file = RecipeFile({}, lines, frozenset({("seed",), ("train", "max_steps")}))
    source = source_of(Path("r.yaml"), file, ["train.max_steps=1", "data.columns={}"])
    assert source.lines == {("seed",): 1, ("train",): 2, ("data",): 4}
    assert source.marked == {("seed",)}
    assert source.place(("seed",)) == "r.yaml:1: "
    assert source.place(("train", "max_steps")) == "r.yaml: "
