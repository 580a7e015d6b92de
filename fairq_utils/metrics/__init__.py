"""Who is served how well: accuracies, gaps, and their changes, with intervals."""

from fairq_utils.metrics.changes import (
    accuracy_intervals,
    compare,
    contrast,
    fairness_violation_under_equality,
    mean_intervals,
)
from fairq_utils.metrics.groups import (
    Collapse,
    calibration,
    collapse,
    correct_answers,
    example_metrics,
    fairness_violation,
    flip_rate,
    flipped,
    group_metrics,
    overall_accuracy,
    worst_group,
)
from fairq_utils.metrics.populations import equivalence_test, paired_test, sign_consistency
from fairq_utils.metrics.ranking import (
    max_skew,
    min_skew,
    ndkl,
    recall_at_k,
    recall_disparity,
    retrieval_ranks,
)

__all__ = [
    "Collapse",
    "accuracy_intervals",
    "calibration",
    "collapse",
    "compare",
    "contrast",
    "correct_answers",
    "equivalence_test",
    "example_metrics",
    "fairness_violation",
    "fairness_violation_under_equality",
    "flip_rate",
    "flipped",
    "group_metrics",
    "max_skew",
    "mean_intervals",
    "min_skew",
    "ndkl",
    "overall_accuracy",
    "paired_test",
    "recall_at_k",
    "recall_disparity",
    "retrieval_ranks",
    "sign_consistency",
    "worst_group",
]
