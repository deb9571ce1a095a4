"""Keys that nothing reads, as the data, the model or the number of steps tell."""

from dataclasses import dataclass

from peftune.data.section import Split
from peftune.objectives import Objective
from peftune.plan import Plan
from peftune.recipe import Recipe
from peftune.unread.rule import Unread


@dataclass(frozen=True)
class Opened:
    """What is known once the data was looked at."""

    recipe: Recipe
    splits: frozenset[Split]
    """Those that have rows of their own."""

    @property
    def validates(self) -> bool:
        """Whether there are validation rows, also rows that are set aside."""
        return "validation" in self.splits or self.recipe.data.validation_fraction is not None


@dataclass(frozen=True)
class Learning:
    """What is known once the model was looked at."""

    objective: Objective
    is_encoder_decoder: bool


BY_DATA: tuple[Unread[Opened], ...] = (
    Unread(
        ("train.eval_steps",),
        lambda known: not known.validates,
        "it needs validation rows, and the data has none",
        "name a file in data.validation, set data.validation_fraction, or remove it",
    ),
    Unread(
        (
            "data.max_test_samples",
            "evaluation.max_new_tokens",
            "evaluation.num_beams",
            "evaluation.max_answer_tokens",
            "evaluation.shown_samples",
        ),
        lambda known: "test" not in known.splits,
        "the data has no test rows",
        "name a file in data.test, or remove it",
    ),
    Unread(
        ("train.per_device_eval_batch_size",),
        lambda known: "test" not in known.splits and known.recipe.train.eval_steps is None,
        "nothing is evaluated: the data has no test rows, and train.eval_steps is not set",
    ),
    Unread(
        ("data.accept.overlap",),
        lambda known: "test" not in known.splits and not known.validates,
        "there are no validation or test rows to overlap with",
    ),
)

BY_MODEL: tuple[Unread[Learning], ...] = (
    Unread(
        ("data.chat_template",),
        lambda known: known.objective.name == "seq2seq",
        "an encoder-decoder reads plain prompts",
    ),
    Unread(
        ("data.train_on",),
        lambda known: known.objective.name == "seq2seq",
        "an encoder-decoder reads prompts and learns completions, and nothing else",
    ),
    Unread(
        ("data.mlm_probability",),
        lambda known: known.objective.name == "causal",
        "a decoder learns every token and nothing is hidden from it",
    ),
    Unread(
        ("data.labels",),
        lambda known: known.objective.name == "value",
        "what is learnt are numbers, not labels",
    ),
    Unread(
        ("train.label_smoothing_factor",),
        lambda known: known.objective.name in ("labels", "value"),
        "it spreads the target over labels of which one is right, which this data has not",
    ),
    Unread(
        ("train.label_smoothing_factor",),
        lambda known: known.objective.name == "span",
        "it would spread the target over all tokens of a window, its padding included",
    ),
    Unread(
        ("train.neftune_noise_alpha",),
        lambda known: known.is_encoder_decoder,
        "encoder and decoder share the embeddings that would get the noise",
        "remove it, or train a decoder",
    ),
)

BY_PLAN: tuple[Unread[Plan], ...] = (
    Unread(
        ("train.warmup_steps",),
        lambda plan: plan.warmup_steps > plan.total_steps,
        "the run ends before the warmup does",
        "lower it, or train longer; `peftune plan` prints the number of steps",
    ),
)
