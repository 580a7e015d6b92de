"""Open models, run them over images or rows of a table, and make the tables that an audit compares."""

from fairq_audit.models.base import AuditModel
from fairq_audit.models.inputs import read_inputs
from fairq_audit.models.open import open_model
from fairq_audit.models.own import OwnModels
from fairq_audit.models.tables import group_columns, predictions_of, to_audit

__all__ = [
    "AuditModel",
    "OwnModels",
    "group_columns",
    "open_model",
    "predictions_of",
    "read_inputs",
    "to_audit",
]
