"""Frozen root mean square norms (Zhang and Sennrich 2019, arXiv:1910.07467), as one function that knows
its gradient: transformers computes them with six operations, and autograd with ten more.

Models have classes of their own for it. One of a few numbers shows whether a class computes what is
computed here. N is the size of a token.
"""

import inspect
from functools import cache, partial
from typing import Any, Literal

import torch

from peftune.model.devices import autocast_dtype
from peftune.model.one_kernel import in_one_kernel
from peftune.model.trial import tried

Kind = Literal["scaled", "scaled by more than one"]
"""Rounded to the model's number format and then multiplied with w, or with 1 + w and then rounded."""
KINDS: tuple[Kind, ...] = ("scaled", "scaled by more than one")
EPSILONS = ("eps", "variance_epsilon")
"""What the number is called that keeps tokens of zeros from being divided by zero."""
TRIED = 8
aten = torch.ops.aten
NARROW = (torch.bfloat16, torch.float16)


def serve(model: torch.nn.Module) -> int:
    """Let the frozen norms of a model compute here what their classes compute; their number."""
    count = 0
    for module in model.modules():
        kind = kind_of(module)
        if kind is not None:
            # On the instance: adapters and engines keep seeing the module that they know.
            vars(module)["forward"] = partial(forward, module, kind, epsilon_of(module))
            count += 1
    return count


def kind_of(module: torch.nn.Module) -> Kind | None:
    """What a module computes, if it is a frozen norm of tokens and nothing else."""
    parameters = dict(module.named_parameters())
    if [*parameters] != ["weight"] or [*module.children(), *module.buffers()]:
        return None
    norm_class: Any = type(module)
    weight, epsilon = parameters["weight"], epsilon_of(module)
    if weight.requires_grad or weight.dim() != 1 or epsilon is None or "forward" in vars(module):
        return None
    return shown_kind(norm_class, epsilon)


def epsilon_of(module: torch.nn.Module) -> Any:
    """The number that is added to the mean square, if there is any."""
    return next((vars(module)[name] for name in EPSILONS if name in vars(module)), None)


@cache
def shown_kind(norm_class: Any, epsilon: float) -> Kind | None:
    """What a class computes, if it is made of a size and a number."""
    if len(inspect.signature(norm_class.forward).parameters) != 2:
        return None
    return tried(partial(_kind_tried, norm_class, epsilon))


def _kind_tried(norm_class: Any, epsilon: float) -> Kind | None:
    """With numbers so small that `epsilon` counts."""
    norm = norm_class(TRIED, epsilon).float()
    norm.weight.copy_(torch.linspace(0.5, 1.5, TRIED))
    x = torch.linspace(-2.0, 3.0, 2 * TRIED).view(2, TRIED) * epsilon**0.5
    said = norm(x)
    ours = ((kind, compute(x, norm.weight, kind, epsilon)[0]) for kind in KINDS)
    return next((kind for kind, made in ours if torch.allclose(said, made)), None)


def forward(module: Any, kind: Kind, epsilon: float, x: torch.Tensor) -> torch.Tensor:
    """In place of the norm's forward."""
    known = x.dtype is module.weight.dtype and x.dtype in (torch.float32, *NARROW)
    if not known or autocast_dtype(x) is not None:
        made: torch.Tensor = type(module).forward(module, x)
        return made
    return _RootMeanSquareNorm.apply(x, module.weight, kind, epsilon)


def compute(
    x: torch.Tensor, weight_N: torch.Tensor, kind: Kind, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of tokens (…, N), and what each token was multiplied with, float32 (…, 1)."""
    if has_kernel(x, kind):
        normed, inverse = aten._fused_rms_norm(x, [x.shape[-1]], None, epsilon)
        return normed.mul_(weight_N), inverse
    return computed(x, weight_N, kind, epsilon)


def gradient(
    grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor, weight_N: torch.Tensor, kind: Kind
) -> torch.Tensor:
    """By the tokens (…, N)."""
    if has_kernel(x, kind):
        wanted = [True, False]
        sizes = [x.shape[-1]]
        made: torch.Tensor
        made, _ = aten._fused_rms_norm_backward(grad, x, sizes, inverse, weight_N, wanted)
        return made
    return computed_gradient(grad, x, inverse, weight_N, kind)


def has_kernel(x: torch.Tensor, kind: Kind) -> bool:
    """Whether torch has a kernel: on GPUs, and not for a weight that 1 is added to."""
    return x.is_cuda and kind == "scaled"


@in_one_kernel
def computed(
    x: torch.Tensor, weight_N: torch.Tensor, kind: Kind, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`compute` in steps."""
    wide = x.float()
    mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    inverse = mean_square.add_(epsilon).rsqrt_()
    # A copy of what was given in a narrow format is nobody else's.
    normed = wide * inverse if wide is x else wide.mul_(inverse)
    if kind == "scaled":
        return normed.to(x.dtype).mul_(weight_N), inverse
    return normed.mul_(1.0 + weight_N.float()).to(x.dtype), inverse


@in_one_kernel
def computed_gradient(
    grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor, weight_N: torch.Tensor, kind: Kind
) -> torch.Tensor:
    """`gradient` in steps."""
    scale_N = weight_N.float() if kind == "scaled" else 1.0 + weight_N.float()
    wide, grad_normed = x.float(), grad.float() * scale_N
    share = (grad_normed * wide).sum(dim=-1, keepdim=True).mul_(inverse**3).div_(-x.shape[-1])
    return grad_normed.mul_(inverse).addcmul_(wide, share).to(x.dtype)


class _RootMeanSquareNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + epsilon) · w, with the mean and the sums of gradients in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight_N: torch.Tensor, kind: Kind, epsilon: float
    ) -> torch.Tensor:
        made, inverse = compute(x, weight_N, kind, epsilon)
        ctx.save_for_backward(x, inverse, weight_N)
        ctx.kind = kind
        return made

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inverse, weight_N = ctx.saved_tensors
        return gradient(grad, x, inverse, weight_N, ctx.kind), None, None, None
