"""Functions of a few steps for each number, which a GPU computes in one kernel instead of one a step."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def in_one_kernel(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, compiled where its first tensor is on a GPU.

    Numbers are rounded where the code says so. What is compiled is for any number of tokens, once a
    second number of them is seen.
    """

    @wraps(function)
    def compute(*args: P.args, **kwargs: P.kwargs) -> T:
        first: Any = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]  # type: ignore[index]
        if first.is_cuda and can_compile():
            made: T = compiled(function)(*args, **kwargs)
            return made
        return function(*args, **kwargs)

    return compute


@cache
def compiled(function: Callable[..., Any]) -> Any:
    """By torch's compiler, which takes a second to import; here, because as many processes as a machine
    has cores would take longer to start than a few kernels to compile."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    return torch.compile(function, fullgraph=True, options={"emulate_precision_casts": True})


@cache
def can_compile() -> bool:
    """Whether this machine has what compiling for its GPU needs; says so where it has not."""
    try:
        compiled(_twice)(torch.ones(2, device="cuda"))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        first_line = str(error).strip().partition("\n")[0]
        print(
            f"warning: torch.compile does not work here ({first_line}), so norms and activations take "
            "several kernels each; it needs a C compiler and Python's headers.",
            file=sys.stderr,
        )
        return False
    return True


def _twice(x: torch.Tensor) -> torch.Tensor:
    return x + x
