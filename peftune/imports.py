"""What the libraries below load although nothing here uses it."""

import sys


def leave_out_scipy() -> None:
    """Let transformers find no scipy, before its models are loaded; everyone else still does.

    It would load scipy.optimize, 33 MB, for the losses of object detection. It keeps the answer to
    whether there is such a package.
    """
    from transformers.utils import is_scipy_available

    if "scipy" not in sys.modules:
        # What stands as None among the modules is not found: importlib.util.find_spec.
        sys.modules["scipy"] = None  # type: ignore[assignment]
        is_scipy_available.cache_clear()
        is_scipy_available()
        del sys.modules["scipy"]
