"""Who pays when this model was quantized? An audit of what it predicted before and after.

>>> from fairq_audit import audit  # doctest: +SKIP
>>> print(audit("fp32.csv", "int8.csv", groups=["gender"], margin=0.02))  # doctest: +SKIP
"""

from fairq_audit.auditing import Audit, audit

__all__ = ["Audit", "audit"]
