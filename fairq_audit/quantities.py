"""What a gate may be about, and the words of a verdict."""

QUANTITIES = {
    "overall_drop": "accuracy lost over all rows",
    "worst_group_drop": "the largest accuracy lost by a group",
    "group_drop[NAME]": "the accuracy lost by one group",
    "contrast": "how much more the other groups lost than the largest",
    "fvo_increase": "by how much the gap between the best and the worst group rose",
    "fvo_after": "that gap after",
    "flip_rate": "the share of rows whose prediction changed",
    "worst_recall_drop": "the largest recall lost by a class in a group",
    "recall_drop[CLASS]": "the largest recall that a class lost in a group",
    "fpr_rise[CLASS]": "the largest rise, in a group, of the others that are taken for the class",
    "precision_drop[CLASS]": "the largest loss, in a group, of how often the class is said rightly",
    "selection_rate_ratio[CLASS]": "the lowest share of a group taken for the class, over the highest",
    "equalized_odds_increase": "by how much the larger of the gaps of recall and of false positives rose",
    "calibration_rise": "the largest rise, in a group, of how far confidence is from accuracy",
    "verdict": "harm, no_harm, equivalent or cannot_tell",
}
VERDICTS = {
    "harm": "harm shown",
    "no_harm": "no harm found",
    "equivalent": "equivalent",
    "cannot_tell": "cannot tell",
}
