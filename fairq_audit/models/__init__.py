"""Open models, run them over images, and make the tables that an audit compares."""

from fairq_audit.models.base import Auditable
from fairq_audit.models.open import load_model
from fairq_audit.models.own import OwnModels
from fairq_audit.models.tables import group_columns, predictions_of, to_audit

__all__ = [
    "Auditable",
    "OwnModels",
    "group_columns",
    "load_model",
    "predictions_of",
    "to_audit",
]
