"""Say: a claim held against a table, with words that the data choose."""

from fairq_utils.claims.audits import (
    audit_card,
    audit_equivalence,
    audit_flips,
    audit_gap,
    audit_gates,
    audit_groups,
    audit_power,
    audit_untested,
    audit_verdict,
)
from fairq_utils.claims.curvature import (
    along_the_way,
    bound_tells_who_is_hurt,
    eigenvalues_reached,
    how_far_out,
    how_tight,
    larger_for_minorities,
    sharpened_for_minorities,
    sharpens,
    steep_where_hard,
    training_flattens,
    where_it_costs,
    who_is_compared,
)
from fairq_utils.claims.disparity import (
    Payers,
    answers_collapse,
    at_the_narrowest,
    contrast_elsewhere,
    grid_matters,
    size_or_difficulty,
    violation_grows,
    who_is_there,
    who_pays,
)
from fairq_utils.claims.encoders import (
    copies,
    differs_in_kind,
    groups_oppose,
    lost_and_won,
    no_consistent_change,
    retrieval,
    significant_but_small,
    what_rounds,
    who_was_trained,
)
from fairq_utils.claims.logits import (
    loss_falls_on,
    temperature_explains,
    towards_the_boundary,
    variance_falls,
    variance_stands,
    what_a_factor_mends,
    what_statistics_mend,
    who_flips,
)
from fairq_utils.claims.repair import (
    accuracy_comes_back,
    advice,
    at_what_price,
    baselines,
    choices,
    holds_on_test,
    repairs,
    training_is_less_fair,
    which_part_repairs,
)
from fairq_utils.claims.wording import Prose, Verdict, Word, percent, points, together, word_for
from fairq_utils.claims.zero_bin import (
    halves_sum,
    held_against,
    layer_by_layer,
    length_or_smallness,
    small_weights_are_needed,
    what_is_added,
    what_is_taken_apart,
    zero_bins,
)
