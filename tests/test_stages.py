"""What decides a stored number stands in the digest of its stage, and no edit elsewhere changes that."""

import ast
import pickle
import pickletools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairq_book.experiments import codes, populations, scheduling, studies
from fairq_book.experiments.code import PACKAGES, code_digest, code_files
from fairq_book.experiments.store import Store
from fairq_utils.data.moths import MothSettings
from fairq_utils.encoders.mini import MiniClassifier
from fairq_utils.encoders.questions import EvaluationSet
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment
from tests.conftest import ROOT

NETWORKS = {"train", "train_further", "predict", "ablate"}
ENCODERS = {"train_encoder", "answer", "answer_given"}
RESTORED = {"train_further", "predict", "ablate", "survey"}
LANGUAGE = {"language"}
TEXTS = {"language", "smollm2"}
CURVATURE = {"survey"} | TEXTS
# The stages that reach each module of the two folders of jobs.
JOBS = {
    "fairq_utils/treatments/jobs/read.py": {"read"},
    "fairq_utils/treatments/jobs/train.py": {"train"},
    "fairq_utils/treatments/jobs/train_further.py": {"train_further"},
    "fairq_utils/treatments/jobs/predict.py": {"predict", "ablate"},
    "fairq_utils/treatments/jobs/ablate.py": {"ablate"},
    "fairq_utils/treatments/jobs/survey.py": {"survey"},
    "fairq_utils/treatments/jobs/here.py": NETWORKS,
    "fairq_utils/treatments/jobs/restore.py": RESTORED,
    "fairq_utils/encoders/jobs/draw.py": {"draw"},
    "fairq_utils/encoders/jobs/train_encoder.py": {"train_encoder"},
    "fairq_utils/encoders/jobs/answer.py": {"answer", "answer_given"},
    "fairq_utils/encoders/jobs/answer_given.py": {"answer_given"},
    "fairq_utils/language/jobs/measure.py": LANGUAGE,
    "fairq_utils/language/jobs/smollm2.py": {"smollm2"},
}
REACHED = sorted(
    {str(path.relative_to(ROOT)) for module in codes.STAGES.values() for path in code_files(module).values()}
)


def functions(file: str) -> list[ast.FunctionDef]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.fixture
def changed(monkeypatch):
    """The stages whose digest another source of a file changes."""

    def ask(file: str, source: str) -> set[str]:
        read = Path.read_text
        before = codes.digests()
        try:
            with monkeypatch.context() as edited:
                edited.setattr(
                    Path,
                    "read_text",
                    lambda self, **how: source if self == ROOT / file else read(self, **how),
                )
                code_digest.cache_clear()
                after = codes.digests()
        finally:
            code_digest.cache_clear()
        return {stage for stage in codes.STAGES if before[stage] != after[stage]}

    return ask


def test_every_module_of_the_folders_of_jobs_is_listed_here():
    of_stages = {Path(*module.split(".")).parent for module in codes.STAGES.values()}
    found = {str(folder / path.name) for folder in of_stages for path in (ROOT / folder).glob("*.py")}
    assert {file for file in found if not file.endswith("__init__.py")} == JOBS.keys()


@pytest.mark.parametrize(
    ("file", "place"),
    [
        pytest.param(file, place, id=f"{file}-{function.name}")
        for file in JOBS
        for place, function in enumerate(functions(file))
    ],
)
def test_a_line_more_in_any_function_changes_the_stages_that_reach_it_and_no_other(changed, file, place):
    lines = (ROOT / file).read_text(encoding="utf-8").split("\n")
    lines.insert(functions(file)[place].body[-1].lineno - 1, "    pass")
    assert changed(file, "\n".join(lines)) == JOBS[file]


@pytest.mark.parametrize("file", REACHED)
def test_words_change_no_stage(changed, file):
    source = (ROOT / file).read_text(encoding="utf-8")
    told_otherwise = "# Why, once more.\n" + source.replace('"""\n', ' And more."""\n')
    assert told_otherwise.count("And more.") >= 2
    assert changed(file, told_otherwise) == set()


EDITS = [
    # Which images a prediction is of, and which ones say what a layer costs a group.
    ("fairq_utils/data/splits.py", "manual_seed(0)", "manual_seed(1)", RESTORED),
    ("fairq_utils/treatments/bits_by_layer.py", "_EACH = 50", "_EACH = 60", RESTORED),
    ("fairq_utils/quantization/pruning.py", "(bits - 1) / 32", "bits / 32", RESTORED),
    ("fairq_utils/training/distillation.py", "_SOFT = 0.5", "_SOFT = 0.6", RESTORED),
    # By which images a treatment is fitted.
    ("fairq_utils/treatments/treatment.py", "manual_seed(0)", "manual_seed(1)", RESTORED),
    ("fairq_utils/training/fairqat.py", "_EFFECTIVE = 0.999", "_EFFECTIVE = 0.99", RESTORED),
    ("fairq_utils/treatments/ablations.py", "zlib.crc32", "zlib.adler32", {"ablate"}),
    ("fairq_utils/curvature/surveys.py", "_STEPS = ", "_STEPS = 2 * ", {"survey"}),
    ("fairq_utils/curvature/hessian.py", "\ndef ", "\npass\ndef ", CURVATURE),
    ("fairq_utils/curvature/spectrum.py", "_ROUNDINGS = 32", "_ROUNDINGS = 31", CURVATURE),
    (
        "fairq_utils/quantization/quantizers.py",
        "_CLIPPED_SHARE = 0.001",
        "_CLIPPED_SHARE = 0.01",
        RESTORED | {"answer", "answer_given"} | TEXTS,
    ),
    (
        "fairq_utils/training/architectures.py",
        "_SMALLEST_MAP = 2",
        "_SMALLEST_MAP = 4",
        NETWORKS | ENCODERS | {"survey"} | LANGUAGE,
    ),
    (
        "fairq_utils/training/loop.py",
        "BadInput(",
        "BadInput('' ",
        NETWORKS | ENCODERS | {"survey"} | LANGUAGE,
    ),
    ("fairq_utils/encoders/mini.py", "BATCH = 250", "BATCH = 251", ENCODERS),
    (
        "fairq_utils/training/schedules.py",
        "climb: float = 0.1",
        "climb: float = 0.2",
        {"train_encoder"} | LANGUAGE,
    ),
    ("fairq_utils/encoders/questions.py", ".mean(dim=0)", ".sum(dim=0)", {"answer", "answer_given"}),
    ("fairq_utils/encoders/linear_layers.py", "_OUTLIER = 6.0", "_OUTLIER = 5.0", {"answer", "answer_given"}),
    ("fairq_utils/encoders/pretrained.py", '"bicubic"', '"bilinear"', {"answer_given"}),
    ("fairq_utils/data/moths.py", "_EVEN = (1.00,", "_EVEN = (1.01,", {"read", "draw"}),
    ("fairq_utils/data/layouts.py", "\ndef ", "\npass\ndef ", {"read"}),
    ("fairq_utils/data/archives.py", "_MOST_PIXELS = 64", "_MOST_PIXELS = 63", {"read"}),
    ("fairq_utils/language/articles.py", "TUNING = (8, ", "TUNING = (9, ", TEXTS),
    ("fairq_utils/language/decoder.py", "F.gelu", "F.relu", LANGUAGE),
    ("fairq_utils/language/measures.py", "context // 2", "context // 4", LANGUAGE),
    ("fairq_utils/language/treatments.py", "_EACH = 4", "_EACH = 8", LANGUAGE),
    ("fairq_utils/language/continuing.py", "\ndef ", "\npass\ndef ", set()),
    # What a language model from a file reads, how it is built and which of its weights are whose.
    ("fairq_utils/language/llama.py", "F.silu", "F.gelu", {"smollm2"}),
    ("fairq_utils/language/llama_files.py", '"gate": "ffn_gate"', '"gate": "ffn_up"', {"smollm2"}),
    # Content enters an identity whatever code made it: images of networks, and what is said of them.
    ("fairq_utils/data/sources.py", "_TUNING = 0.1", "_TUNING = 0.2", {"read"}),
    ("fairq_utils/encoders/captions.py", "NOISE = 0.2", "NOISE = 0.3", set()),
    # What says what is wrong, how far a job is, and how a file is written decides nothing.
    ("fairq_utils/errors.py", "\nclass ", "\npass\nclass ", set()),
    ("fairq_utils/progress.py", "\ndef ", "\npass\ndef ", set()),
    ("fairq_utils/files.py", "\ndef ", "\npass\ndef ", set()),
    # Nor does what only asks and keeps.
    ("fairq_book/experiments/studies.py", "\ndef ", "\npass\ndef ", set()),
    ("fairq_book/experiments/populations.py", "\ndef ", "\npass\ndef ", set()),
    ("fairq_book/experiments/scheduling.py", "\ndef ", "\npass\ndef ", set()),
    ("fairq_book/experiments/store.py", "timeout=0", "timeout=1", set()),
]


@pytest.mark.parametrize(("file", "old", "new", "stages"), EDITS)
def test_an_edit_changes_the_stages_that_it_decides(changed, file, old, new, stages):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert old in source
    assert changed(file, source.replace(old, new)) == stages


def test_the_edits_are_of_every_stage():
    assert set().union(*(stages for *_, stages in EDITS)) == codes.STAGES.keys()


class Asked(Exception):
    pass


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Every job that questions of all kinds lead to, with those that they need; none is run."""
    found: list[scheduling.Job] = []

    def note(wanted, **_options):
        found.extend(wanted)
        found.extend(need for job in wanted for need in job.needs)
        raise Asked

    monkeypatch.setattr(scheduling, "make", note)
    store = Store(tmp_path)
    small = studies.studies(seeds=[0], train_images=60, test_images=60)
    treatments = [FP32, Treatment.parse("int4-qat"), Ablation(Treatment(3), "random")]
    moths = MothSettings(train=60, test=40, sizes=(0.2,) * 5, image_size=16)
    settings = {
        "archs": ["patch8"],
        "training_sets": ["skewed"],
        "seeds": [0],
        "dataset": moths,
        "images": 15,
    }
    by_captions = populations.population(**settings)
    by_labels = populations.population(**settings, taught="labels")
    test = populations.scenes(by_captions[0], store=store).take(torch.arange(10))
    names = test.names("species")
    questions = EvaluationSet(replace(test, captions=()), "species", [[name] for name in names], ())
    for question in (
        lambda: studies.predictions(small, treatments, each=3, split="train", store=store),
        lambda: studies.landscapes(small, treatments[:2], store=store),
        lambda: populations.answers(by_captions, ["int4"], store=store),
        lambda: populations.answers(by_labels, ["int4"], store=store),
        lambda: populations.answers_of(
            MiniClassifier("patch8", names, image_size=16), questions, ["int4"], name="mine", store=store
        ),
    ):
        with suppress(Asked):
            question()
    return found


def test_each_job_carries_the_digest_of_the_module_that_holds_it(asked):
    stage_of = {module: stage for stage, module in codes.STAGES.items()}
    stages = [stage_of[job.function.func.__module__] for job in asked]
    assert set(stages) == codes.STAGES.keys() - {"read", "draw"} - TEXTS  # which no job makes
    assert [job.identity["code"] for job in asked] == [codes.CODE[stage] for stage in stages]


def test_a_job_is_given_nothing_that_other_code_than_its_own_defines(asked):
    """What travels to a worker names the modules that define it."""
    for job in asked:
        # This protocol writes each name out where it is used.
        travels = pickle.dumps((job.function, job.data), protocol=2)
        names = [arg for code, arg, _ in pickletools.genops(travels) if code.name == "GLOBAL"]
        ours = {name.split()[0] for name in names if name.split(".")[0] in PACKAGES}
        assert job.function.func.__module__ in ours
        assert ours <= code_files(job.function.func.__module__).keys()
