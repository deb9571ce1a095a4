"""Keys that nothing reads, as the recipe alone tells."""

from collections.abc import Callable

from peftune.data.roles import (
    has_prompt,
    learns_conversations,
    learns_labels,
    learns_spans,
    learns_tags,
    learns_whole_text,
    prompt_template,
)
from peftune.data.section import Split
from peftune.model.location import is_local
from peftune.objectives import OBJECTIVES
from peftune.recipe import Recipe
from peftune.tasks import TASKS
from peftune.unread.rule import Unread


def _rows(kind: Callable[[tuple[str, ...]], bool], is_so: bool = True) -> Callable[[Recipe], bool]:
    """Whether the rows of the recipe's task are, or are not, of a kind."""
    return lambda recipe: kind(TASKS[recipe.task].roles) is is_so


def _is_templated(recipe: Recipe) -> bool:
    """Whether a template of the recipe writes prompts of which the role `prompt` is no part."""
    roles = TASKS[recipe.task].roles
    own = recipe.data.prompt_template is not None and roles[0] == "prompt"
    template = prompt_template(recipe.data, roles, None) if own else None
    return template is not None and "prompt" not in template.names and not recipe.data.mixture


def _chats(recipe: Recipe) -> bool:
    conversations = learns_conversations(TASKS[recipe.task].roles)
    return conversations or recipe.data.chat_template is not None


def _judges_text(recipe: Recipe) -> bool:
    """Whether texts are generated for the test rows."""
    return bool(TASKS[recipe.task].metrics)


def _settles_long_rows(recipe: Recipe) -> bool:
    """Whether no row can be too long to be kept, so that there is nothing to accept."""
    roles, policy = TASKS[recipe.task].roles, recipe.data.overlong
    cut = policy == "truncate_prompt" and learns_labels(roles)
    return learns_spans(roles) or policy in ("drop", "split") or cut


def _trains_vectors_only(recipe: Recipe) -> bool:
    """(IA)³ trains factors, and a new head beside them where the task needs one."""
    learnt = TASKS[recipe.task].objectives.values()
    heads = any(not OBJECTIVES[name].generates for name in learnt)
    return recipe.adapter.method == "ia3" and not heads


def _named_twice(split: Split) -> Callable[[Recipe], bool]:
    return lambda recipe: bool(recipe.data.files(split))


BY_RECIPE: tuple[Unread[Recipe], ...] = (
    Unread(
        ("model.revision",),
        lambda recipe: is_local(recipe.model),
        "a local folder has no branches, tags or commits",
    ),
    Unread(
        ("data.columns", "data.format"),
        lambda recipe: (
            bool(recipe.data.mixture) and not (recipe.data.validation or recipe.data.test)
        ),
        "each source of data.mixture says it for itself, and there are no other files",
        "set it in the entries of data.mixture",
    ),
    Unread(
        ("data.columns.prompt",),
        _is_templated,
        "data.prompt_template writes the prompt and does not name {prompt}",
    ),
    Unread(
        ("data.splits.validation",),
        _named_twice("validation"),
        "data.validation names the rows",
        "remove one of the two",
    ),
    Unread(
        ("data.splits.test",),
        _named_twice("test"),
        "data.test names the rows",
        "remove one of the two",
    ),
    Unread(
        (
            "data.splits.validation",
            "data.validation",
            "data.validation_fraction",
            "data.max_validation_samples",
        ),
        lambda recipe: recipe.train.eval_steps is None,
        "no step computes a validation loss",
        "set train.eval_steps, or remove it",
    ),
    Unread(
        ("data.labels",),
        lambda recipe: not _rows(learns_labels)(recipe) and not _rows(learns_tags)(recipe),
        "this task learns no labels",
    ),
    Unread(("data.problem_type",), _rows(learns_labels, False), "it is for task classify"),
    Unread(
        ("data.prompt_template",),
        _rows(learns_conversations),
        "this task learns conversations, which the chat template writes",
    ),
    Unread(
        ("data.prompt_template", "data.chat_template"),
        _rows(learns_whole_text),
        "this task learns plain text without a prompt",
    ),
    Unread(
        (
            "data.prompt_template",
            "data.chat_template",
            "data.source_language",
            "data.target_language",
        ),
        _rows(learns_tags),
        "this task reads words and their tags as they are",
    ),
    Unread(
        (
            "data.prompt_template",
            "data.chat_template",
            "data.source_language",
            "data.target_language",
        ),
        _rows(learns_spans),
        "this task reads a question and its context as they are",
    ),
    Unread(("data.chat_template",), _rows(learns_labels), "a classifier reads plain text"),
    Unread(
        ("data.train_on",),
        lambda recipe: (
            (not has_prompt(TASKS[recipe.task].roles) and not _rows(learns_conversations)(recipe))
            or _rows(learns_labels)(recipe)
        ),
        "this task's rows have no parts to choose from",
    ),
    Unread(("data.mlm_probability",), _rows(learns_whole_text, False), "it is for task text"),
    Unread(
        ("data.overlong",),
        _rows(learns_spans),
        "this task reads long contexts in windows that overlap by data.doc_stride tokens",
    ),
    Unread(("data.doc_stride",), _rows(learns_spans, False), "it is for task extract"),
    Unread(
        tuple(
            f"data.accept.{fault}" for fault in ("control_token", "template", "history", "no_end")
        ),
        lambda recipe: not _chats(recipe),
        "no chat template writes these rows",
    ),
    Unread(
        ("data.accept.unknown_label",),
        lambda recipe: not _rows(learns_labels)(recipe) and not _rows(learns_tags)(recipe),
        "this task learns no labels",
    ),
    Unread(("data.accept.untokenized_word",), _rows(learns_tags, False), "it is for task tag"),
    Unread(
        tuple(
            f"data.accept.{fault}" for fault in ("long_question", "misplaced_answer", "cut_answer")
        ),
        _rows(learns_spans, False),
        "it is for task extract",
    ),
    Unread(
        ("data.accept.no_target",),
        lambda recipe: _rows(learns_labels)(recipe) or _rows(learns_tags)(recipe),
        "a label is always something to learn",
    ),
    Unread(
        ("data.accept.overlong",),
        _settles_long_rows,
        "no row is refused for its length in this run",
    ),
    Unread(
        ("train.weight_decay",),
        _trains_vectors_only,
        "(IA)³ trains vectors, which have no weight decay",
    ),
    Unread(
        ("train.warmup_steps",),
        lambda recipe: (recipe.train.warmup_steps or 0) > (recipe.train.max_steps or 2**63),
        "the run ends before the warmup does",
        "lower it, or raise train.max_steps",
    ),
    Unread(
        ("train.load_best_model_at_end", "train.early_stopping_patience"),
        lambda recipe: recipe.train.eval_steps is None,
        "no step computes a validation loss",
        "set train.eval_steps, or remove it",
    ),
    Unread(
        ("train.save_total_limit",),
        lambda recipe: not (recipe.train.save_steps or recipe.train.save_every_minutes),
        "no checkpoints are saved",
        "set train.save_steps, or remove it",
    ),
    Unread(
        ("resume.allow",),
        lambda recipe: recipe.resume.checkpoint is None,
        "nothing is resumed",
        "set resume.checkpoint: auto, or remove it",
    ),
    Unread(
        ("train.run_name",),
        lambda recipe: not recipe.train.report_to,
        "no tracker gets it",
        "set train.report_to, or remove it",
    ),
    Unread(
        ("evaluation.max_new_tokens", "evaluation.num_beams"),
        lambda recipe: not _judges_text(recipe),
        "no text is generated in this task",
    ),
    Unread(
        ("evaluation.shown_samples",),
        _rows(learns_whole_text),
        "the test rows of this task have no answers to show",
    ),
    Unread(("evaluation.max_answer_tokens",), _rows(learns_spans, False), "it is for task extract"),
    Unread(
        ("export.merge_base",),
        lambda recipe: not recipe.export.merge,
        "no merged model is written",
        "set export.merge: true, or remove it and give it to `peftune merge`",
    ),
    Unread(
        ("export.merge_base",),
        lambda recipe: recipe.export.merge and recipe.quantization is None,
        "it is for quantized runs, and without quantization there is one base only",
    ),
)
