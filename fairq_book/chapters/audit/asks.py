"""What the chapter on auditing asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairq_book.chapters.audit import models
from fairq_book.experiments import settings
from fairq_book.experiments.parameters import parameter
from fairq_utils.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Asks:
    """Two tables of predictions, or a network and what is done to it, and what the audit holds them to."""

    before: str = parameter(
        "", "predictions before, CSV or Parquet; empty to quantize the book's own network"
    )
    after: str = parameter("", "predictions after")
    groups: Sequence[str] = parameter(("group",), "columns that name groups; several are crossed as well")
    margin: float = parameter(0.02, "the smallest drop that matters, a fraction")
    fail_if: Sequence[str] = parameter(("worst_group_drop > 0.02", "fvo_increase > 0.03"), "gates")
    decide_on: str = parameter(
        "lower", "which end of the interval a gate is held to: lower, estimate or upper"
    )
    out: str = parameter(
        "", "a folder for the report and its tables, new or that of an earlier audit; empty for none"
    )
    seed: int = parameter(0, "of the network's training")
    treatment: str = parameter("int4", "what is done to it: any of `fairq treatments` that does not train")

    def predictions(self, setting: str = "", **of_study: Any) -> dict[str, Any]:
        """What `fairq_audit.audit` compares: the files, or the network of a study before and after."""
        if bool(self.before) != bool(self.after):
            given, lacking = ("before", "after") if self.before else ("after", "before")
            raise BadInput(
                f"{given} is {getattr(self, given)!r} and {lacking} is empty; expected two files of "
                "predictions, or neither."
            )
        if self.before:
            return {"before": self.before, "after": self.after}
        (study,) = settings.studies_of(setting, seeds=[self.seed], **of_study)
        return models.of_study(study, self.treatment, groups=self.groups)
