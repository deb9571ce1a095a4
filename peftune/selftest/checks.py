"""The table of checks, from causes to effects: the first that fails is the one to mend."""

from peftune.selftest.attention import causality, padding, writes
from peftune.selftest.check import Check
from peftune.selftest.learning import gradients, learns
from peftune.selftest.loss import accumulation, loss, ranks
from peftune.selftest.memory import memory, memory_and_generation, throughput
from peftune.selftest.reloading import reload
from peftune.selftest.tokens import end_token
from peftune.selftest.trial import Trial
from peftune.selftest.weights import base_finite, base_unchanged, targets


def learns_an_end(trial: Trial) -> bool:
    return trial.context.prepared.objective.writes


def stepped(trial: Trial) -> bool:
    """Whether `memory` made its step; where it failed and that is accepted, it did not."""
    return trial.gradients is not None


SHORT = (
    Check("targets", "the adapter is where it should be and learns", targets),
    Check("base_finite", "base weights are finite", base_finite),
    Check("end_token", "the end token is learnt", end_token, learns_an_end),
    Check("padding", "a batch does not change a row", padding),
    Check("causality", "later tokens do not change earlier ones", causality, writes),
    Check("loss", "the step's loss is that of its rows", loss),
    Check("memory", "the largest batch fits", memory),
    Check("gradients", "every adapter parameter gets a gradient", gradients, stepped),
    Check("base_unchanged", "a step leaves the base bit-identical", base_unchanged, stepped),
    Check("throughput", "seen, not judged", throughput, stepped),
)
ONLY_FULL = (
    Check("accumulation", "the step's gradient is that of its rows", accumulation),
    Check("ranks", "ranks together have the loss of one", ranks),
    Check("learns", "steps on one batch lower its loss", learns),
    Check("reload", "saved and merged give equal scores", reload),
)
WITH_GENERATION = Check("memory", "the largest batch and generation fit", memory_and_generation)


def checks(full: bool) -> list[Check]:
    """What is run by `peftune selftest` (`full`), or before every training."""
    if not full:
        # Generation follows at once, when the base is measured, longest prompts first.
        return [*SHORT]
    short = [WITH_GENERATION if check.name == "memory" else check for check in SHORT]
    return [*short, *ONLY_FULL]
