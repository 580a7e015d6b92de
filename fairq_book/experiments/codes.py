"""Which code decides what a stage stores: the module that holds its job, and all of ours that this reaches.

A job is given plain values and imports what it computes with. So what decides a number stands in the digest
of its stage, and what only asks for jobs, and keeps and shows what they make, stands in none.
"""

from __future__ import annotations

from fairq_book.experiments.code import code_digest

_STORE = "fairq_book.experiments.store"  # holds what is made, and decides nothing of it
# What is shown enters an identity by its content, whatever code read or drew it; only its fields are used.
_DATA, _SCENES = "fairq_utils.data.sources", "fairq_utils.encoders.scenes"

# Each is a module of this folder. With it stand the modules that are left out, and what only they import.
STAGES: dict[str, tuple[str, ...]] = {
    "read": (_STORE,),
    "draw": (_STORE,),
    "train": (_STORE, _DATA),
    "train_further": (_STORE, _DATA),
    "predict": (_STORE, _DATA),
    "ablate": (_STORE, _DATA),
    "survey": (_STORE, _DATA),
    "train_encoder": (_STORE, _SCENES),
    "answer": (_STORE,),
    "answer_given": (_STORE,),
}


def digests() -> dict[str, str]:
    """The digest of the code of each stage, as the files are now.

    >>> digests().keys() == STAGES.keys()
    True
    """
    return {stage: code_digest(module(stage), without=without) for stage, without in STAGES.items()}


def module(stage: str) -> str:
    """The module that holds the job of a stage.

    >>> module("predict")
    'fairq_utils.treatments.jobs.predict'
    """
    return f"{__package__}.{stage}"


# Once, with the import: that is the code which runs, whatever becomes of the files meanwhile.
CODE = digests()
