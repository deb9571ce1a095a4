"""The contract's oracle: one row at a time, in float64, with the loss written out by its definition."""

import torch

from peftune.adapters import parameter_groups
from peftune.data.order import step_rows
from peftune.data.rows import IGNORED, EncodedRow
from peftune.training.draws import row_draws
from peftune.training.dropout import dropout_from
from peftune.training.loss import model_logits
from peftune.training.neftune import embedding_noise
from peftune.training.schedule import learning_rate_factor
from tests.contract.cases import SEED, Case, Outcome, adapted_model, adapter_of


def row_loss(case: Case, logits: torch.Tensor, row: EncodedRow, smoothing: float) -> torch.Tensor:
    """Sum over a row's targets of -log p, or of its mixture with the mean over all choices.

    `logits` are those of one row: (T, V), (U, V), (L,) or (2, T).
    """
    places = {
        "causal": [(i - 1, label) for i, label in enumerate(row.labels)],
        "label": [(0, row.labels[0])],
    }.get(case.objective, list(enumerate(row.labels)))
    log_p = logits.reshape(-1, logits.shape[-1]).log_softmax(-1)
    total = logits.new_zeros(())
    for place, label in places:
        if label != IGNORED:
            chosen = -log_p[place, int(label)]
            total = total + (1 - smoothing) * chosen - smoothing * log_p[place].mean()
    return total


def targets(row: EncodedRow) -> int:
    return sum(label != IGNORED for label in row.labels)


def oracle(case: Case) -> Outcome:
    """What every layout of the case must give."""
    section, outcome = case.section, Outcome()
    model = adapted_model(case.without_layout()).double()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = parameter_groups(adapter_of(case), list(named.items()), section.learning_rate, 0.1)
    optimizer = torch.optim.AdamW(groups, eps=section.adam_epsilon)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(case.plan.total_steps):
        ids = step_rows(SEED, step, len(case.rows), case.plan.global_batch_size)
        count = sum(targets(case.rows[i]) for i in ids)
        optimizer.zero_grad()
        model.train()
        learnt = [i for i in ids if targets(case.rows[i])]
        loss = sum(float(_backward(case, model, step, i, count)) for i in learnt)
        outcome.losses.append(loss)
        outcome.targets.append(count)
        outcome.gradients.append(
            {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
        )
        norm = torch.nn.utils.clip_grad_norm_(list(named.values()), section.max_grad_norm)
        outcome.norms.append(float(norm))
        factor = learning_rate_factor(
            step, shape="cosine", warmup_steps=1, total_steps=case.plan.total_steps
        )
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        optimizer.step()
        if case.evaluates or step == case.plan.total_steps - 1:
            outcome.held_out.append(_held_out(case, model))
    outcome.adapter = {name: p.detach().clone() for name, p in named.items()}
    return outcome


def _backward(
    case: Case, model: torch.nn.Module, step: int, index: int, count: int
) -> torch.Tensor:
    """The share of one row in the step's mean loss, backpropagated."""
    row, section = case.rows[index], case.section
    batch = {**case.batching.collate([row]), "row_ids": torch.tensor([[index]])}
    draws = row_draws(SEED, step, batch)
    sizes = torch.full((1, len(row.input_ids)), len(row.input_ids))
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    with (
        embedding_noise(embedding, section.neftune_noise_alpha, sizes, draws),
        dropout_from(draws),
    ):
        logits = model_logits(model, batch, case.objective)[0]
    loss = row_loss(case, logits, row, section.label_smoothing_factor) / count
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@torch.no_grad()
def _held_out(case: Case, model: torch.nn.Module) -> float:
    model.eval()
    total = sum(
        float(
            row_loss(
                case, model_logits(model, case.batching.collate([row]), case.objective)[0], row, 0.0
            )
        )
        for row in case.rows
    )
    return total / sum(map(targets, case.rows))
