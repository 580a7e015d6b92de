"""Who pays when this model was quantized? An audit of what it predicted before and after.

>>> from fairq_audit import audit  # doctest: +SKIP
>>> print(audit("fp32.csv", "int8.csv", groups=["gender"], margin=0.02))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairq_audit.auditing import Audit, audit
    from fairq_audit.pipelines import assert_no_harm

__all__ = ["Audit", "assert_no_harm", "audit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"fairq_audit has no {name!r}.")
    # Once it is asked for: pandas takes a moment that `--help` should not.
    from fairq_audit import auditing, pipelines

    return getattr(pipelines if name == "assert_no_harm" else auditing, name)
