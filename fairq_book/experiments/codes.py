"""Which code decides what a stage stores: the module that holds its job, and all of ours that this reaches.

A job is given plain values and imports what it computes with. So what decides a number stands in the digest
of its stage, and what only asks for jobs, and keeps and shows what they make, stands in none.

`digests.json` at the root of the project holds these digests, a line a stage: whoever reviews an edit sees in
it what has to be computed again. `python -m fairq_book.experiments.codes` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from fairq_book.experiments.code import code_digest
from fairq_book.root import book_root
from fairq_utils.files import write_atomically

STAGES = {
    "read": "fairq_utils.treatments.jobs.read",
    "train": "fairq_utils.treatments.jobs.train",
    "train_further": "fairq_utils.treatments.jobs.train_further",
    "predict": "fairq_utils.treatments.jobs.predict",
    "ablate": "fairq_utils.treatments.jobs.ablate",
    "survey": "fairq_utils.treatments.jobs.survey",
    "draw": "fairq_utils.encoders.jobs.draw",
    "train_encoder": "fairq_utils.encoders.jobs.train_encoder",
    "answer": "fairq_utils.encoders.jobs.answer",
    "answer_given": "fairq_utils.encoders.jobs.answer_given",
    "language": "fairq_utils.language.jobs.measure",
    "smollm2": "fairq_utils.language.jobs.smollm2",
}


def digests() -> dict[str, str]:
    """The digest of the code of each stage, as the files are now.

    >>> digests().keys() == STAGES.keys()
    True
    """
    return {stage: code_digest(module) for stage, module in STAGES.items()}


def digests_file(root: Path | None = None) -> Path:
    """Where the project holds the digests.

    >>> digests_file().name
    'digests.json'
    """
    return (root or book_root()) / "digests.json"


# Once, with the import: that is the code which runs, whatever becomes of the files meanwhile.
CODE = digests()

if __name__ == "__main__":
    write_atomically(digests_file(), (json.dumps(CODE, indent=1) + "\n").encode())
