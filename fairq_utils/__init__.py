"""Quantize, measure and repair networks: who pays when a neural network is quantized, and why.

Each folder's index lists its public names. Asked for in its old place, what moved says where it is now.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

__version__ = "0.1.0"

_MOVED = {
    "ablations": "fairq_utils.treatments.ablations",
    "answers": "fairq_audit.predictions",
    "architectures": "fairq_utils.training.architectures",
    "archives": "fairq_utils.data.archives",
    "audit": "fairq_audit",
    "Audit": "fairq_audit",
    "auditing": "fairq_audit.auditing",
    "captions": "fairq_utils.encoders.captions",
    "census": "fairq_book.experiments.settings",
    "chapters": "fairq_book.build.notebooks",
    "claims": "fairq_book.chapters",
    "cli": "fairq_book.cli",
    "entrances": "fairq_audit.models",
    "evidence": "fairq_book.experiments.settings",
    "explorer": "fairq_book.explorer",
    "faces": "fairq_utils.data.layouts",
    "fairqat": "fairq_utils.training.fairqat",
    "figures": "fairq_book.kit.figures and fairq_book.chapters",
    "gates": "fairq_audit.gates",
    "jobs": "fairq_book.experiments.scheduling",
    "landscape": "fairq_utils.curvature",
    "linear_layers": "fairq_utils.encoders.linear_layers",
    "moths": "fairq_utils.data.moths",
    "packing": "fairq_utils.quantization",
    "paired": "fairq_audit.statistics",
    "playground": "fairq_book.playground",
    "populations": "fairq_book.experiments.populations",
    "pretrained": "fairq_utils.encoders.pretrained",
    "quantizers": "fairq_utils.quantization",
    "questions": "fairq_utils.encoders.questions",
    "report": "fairq_audit.report",
    "results": "fairq_book.results",
    "scenes": "fairq_utils.encoders.scenes",
    "stages": "fairq_utils.treatments.jobs and fairq_utils.encoders.jobs",
    "store": "fairq_book.experiments.store",
    "studies": "fairq_book.experiments.studies",
    "surveys": "fairq_utils.curvature.surveys",
    "tables": "fairq_book.kit.tables and fairq_book.chapters",
    "verdicts": "fairq_book.registry and fairq_book.pages",
    "vision_language": "fairq_utils.encoders",
}


def _has_moved(name: str) -> str:
    return f"fairq_utils.{name} has moved; expected {_MOVED[name]}: import it from there."


class _Moved(MetaPathFinder):
    """Says where a module of an earlier version is now, where Python would say that there is none."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        package, _, name = fullname.partition(".")
        if package == __name__ and name in _MOVED:
            raise ModuleNotFoundError(_has_moved(name), name=fullname)


sys.meta_path.append(_Moved())  # behind all others: it is asked only for what nobody finds


def __getattr__(name: str) -> Any:
    raise AttributeError(_has_moved(name) if name in _MOVED else f"fairq_utils has no {name!r}.")
