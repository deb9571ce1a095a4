"""The recipe: all sections together, loaded from YAML plus overrides, with errors users can act on."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from peftune.adapters import AdapterSection
from peftune.checkpoint.section import Resume, ResumeSection
from peftune.data.section import DataSection
from peftune.engines.section import RanksSection
from peftune.errors import RecipeError, did_you_mean
from peftune.evaluation.section import EvaluationSection
from peftune.export.section import ExportSection
from peftune.foreign_names import FOREIGN_NAMES
from peftune.model.section import ModelSection
from peftune.quantization import QuantizationSection
from peftune.recipe_file import Source, Tree, read_recipe, source_of, with_overrides
from peftune.section import Section
from peftune.selftest.section import SelftestSection
from peftune.tasks import TASKS
from peftune.training.section import TrainSection


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(
            f"{name!r} is not a task.{did_you_mean(name, TASKS)} The tasks are: {', '.join(TASKS)}"
        )
    return name


class Recipe(Section):
    """One run, as a person writes it. Whatever changes the numbers stands here."""

    task: Annotated[str, AfterValidator(_known_task), Field(json_schema_extra={"enum": [*TASKS]})]
    """What the model learns to do."""

    output_dir: str
    """Folder for everything the run writes: new, empty, or with `resume` that of a run that stopped."""

    overwrite_output_dir: bool = False
    """Replace an earlier run of peftune in `output_dir`."""

    resume: Resume = ResumeSection()

    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Data order, adapter initialisation and dropout are functions of this number and the step."""

    model: ModelSection
    data: DataSection
    adapter: AdapterSection
    quantization: QuantizationSection | None = None
    train: TrainSection
    selftest: SelftestSection = SelftestSection()
    evaluation: EvaluationSection = EvaluationSection()
    export: ExportSection = ExportSection()
    ranks: RanksSection = RanksSection()

    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """Where the values came from."""
        return self._source

    def __eq__(self, other: object) -> bool:
        """Recipes are equal when their values are, wherever these came from."""
        return isinstance(other, Recipe) and dict(self) == dict(other)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read, override and validate a recipe.

    Raises RecipeError whose message has one line for each problem found.
    """
    file = read_recipe(Path(path))
    tree = with_overrides(file.tree, overrides or [])
    source = source_of(Path(path), file, overrides or [])
    try:
        recipe = Recipe.model_validate(tree)
        recipe._source = source
        return recipe
    except ValidationError as error:
        problems = [_message(details, tree, source) for details in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(problems))) from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of the recipe, for completion and checks in editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _message(details: ErrorDetails, tree: Tree, source: Source) -> str:
    key = _typed_key(details, tree)
    dotted, problem = ".".join(key), _problem(details, key)
    return f"{source.place(key)}{dotted}: {problem}" if dotted else f"{source.place(key)}{problem}"


def _typed_key(details: ErrorDetails, tree: Tree) -> tuple[str, ...]:
    """pydantic's location without the union tags, which the user never typed."""
    key: list[str] = []
    branch: Any = tree
    last = len(details["loc"]) - 1
    for position, part in enumerate(details["loc"]):
        absent = position == last and details["type"] in ("missing", "extra_forbidden")
        inside = isinstance(branch, dict) and part in branch
        in_list = isinstance(branch, list) and isinstance(part, int)
        if inside or in_list:
            branch = branch[part]
        if inside or in_list or absent:
            key.append(str(part))
    if details["type"] == "union_tag_invalid":
        key.append(details["ctx"]["discriminator"].strip("'"))
    return tuple(key)


def _problem(details: ErrorDetails, key: tuple[str, ...]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return _unknown_key(key)
        case "missing":
            return "required, but not set."
        case "value_error":
            return f"{context['error']}."
        case "float_type" | "int_type" if isinstance(value, str) and _is_number(value):
            number = _as_yaml_number(value, whole=kind == "int_type")
            return f"{value!r} is text in YAML, not a number; write {number}."
        case "union_tag_invalid":
            known = context["expected_tags"]
            return f"{context['tag']!r} is not one of {known}.{_closest(context['tag'], known)}"
        case "union_tag_not_found":
            return f"needs the key {context['discriminator'].strip(chr(39))}."
        case "literal_error":
            return f"{value!r} is not one of {context['expected']}.{_closest(value, context['expected'])}"
    return f"{value!r}: {details['msg'][0].lower()}{details['msg'][1:]}."


def _closest(value: Any, choices: str) -> str:
    return did_you_mean(str(value), choices.replace("'", "").replace(" or ", ", ").split(", "))


def _unknown_key(key: tuple[str, ...]) -> str:
    leaf, known = key[-1], list(recipe_keys())
    if ".".join(key) in known:
        return f"not a key of this method; it belongs to {' and '.join(_methods_with(*key))}."
    if leaf in FOREIGN_NAMES:
        return f"unknown key. peftune calls it {FOREIGN_NAMES[leaf]}."
    elsewhere = [name for name in known if name.split(".")[-1] == leaf]
    if elsewhere:
        return f"unknown key. It belongs to {elsewhere[0]}."
    return f"unknown key.{did_you_mean('.'.join(key), known)}"


def _methods_with(section: str, key: str) -> Iterator[str]:
    """The methods of a section, as `method` names them, that have this key."""
    for variant in _sections_in(Recipe.model_fields[section].annotation):
        if key in variant.model_fields:
            yield from get_args(variant.model_fields["method"].annotation)


def recipe_keys(section: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """Every key of the recipe, dotted, sections before their keys."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for nested in _sections_in(field.annotation):
            yield from recipe_keys(nested, f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _as_yaml_number(text: str, whole: bool) -> str:
    """The spelling that YAML 1.1 reads as a number: with a point, and a sign in the exponent."""
    if whole and float(text).is_integer():
        return str(int(float(text)))
    mantissa, exponent_mark, exponent = text.lower().partition("e")
    if not exponent_mark:
        return text
    signed = exponent if exponent[0] in "+-" else f"+{exponent}"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{signed}"
