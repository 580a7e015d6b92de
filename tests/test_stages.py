"""What decides a stored number stands in the digest of its stage, and no edit elsewhere changes that."""

import ast
import pickle
import pickletools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fairq_utils
from fairq_book.experiments import codes, populations, scheduling, studies
from fairq_book.experiments.code import code_digest, code_files
from fairq_book.experiments.store import Store
from fairq_utils.data.moths import MothSettings
from fairq_utils.encoders.mini import MiniClassifier
from fairq_utils.encoders.questions import Questions
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

PACKAGE = Path(fairq_utils.__file__).parent
MODULES = sorted({path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__", "codes"})
NETWORKS = {"train", "train_further", "predict", "ablate"}
# The stages that reach a module of the folder, where it is not one stage alone.
REACHED_BY = {
    "here": NETWORKS,
    "restore": {"train_further", "predict", "ablate", "survey"},
    "images": {"predict", "ablate"},
    "predict": {"predict", "ablate"},
    "answer": {"answer", "answer_given"},
}


def functions(module: str) -> list[ast.FunctionDef]:
    tree = ast.parse((PACKAGE / "stages" / f"{module}.py").read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.fixture
def changed(monkeypatch):
    """The stages whose digest another source of a module changes."""

    def ask(path: Path, source: str) -> set[str]:
        read = Path.read_text
        before = codes.digests()
        try:
            with monkeypatch.context() as edited:
                edited.setattr(
                    Path, "read_text", lambda self, **how: source if self == path else read(self, **how)
                )
                code_digest.cache_clear()
                after = codes.digests()
        finally:
            code_digest.cache_clear()
        return {stage for stage in codes.STAGES if before[stage] != after[stage]}

    return ask


@pytest.mark.parametrize(
    ("module", "place"),
    [
        pytest.param(module, place, id=f"{module}.{function.name}")
        for module in MODULES
        for place, function in enumerate(functions(module))
    ],
)
def test_a_line_more_in_any_function_changes_the_stages_that_run_it_and_no_other(changed, module, place):
    path = PACKAGE / "stages" / f"{module}.py"
    lines = path.read_text(encoding="utf-8").split("\n")
    lines.insert(functions(module)[place].body[-1].lineno - 1, "    pass")
    assert changed(path, "\n".join(lines)) == REACHED_BY.get(module, {module})


@pytest.mark.parametrize("module", MODULES)
def test_words_change_no_stage(changed, module):
    path = PACKAGE / "stages" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count('"""') >= 4
    told_otherwise = "# Why, once more.\n" + source.replace('"""\n', ' And more."""\n')
    assert told_otherwise.count("And more.") >= 2
    assert changed(path, told_otherwise) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        # Which images a prediction is of.
        ("stages/images.py", "manual_seed(0)", "manual_seed(1)", {"predict", "ablate"}),
        (
            "fairqat.py",
            "torch.Generator().manual_seed(0)",
            "torch.Generator().manual_seed(1)",
            {"train_further", "predict", "ablate", "survey"},
        ),
        ("ablations.py", "zlib.crc32", "zlib.adler32", {"ablate"}),
        ("surveys.py", "_STEPS = ", "_STEPS = 2 * ", {"survey"}),
        ("landscape.py", "\ndef ", "\npass\ndef ", {"survey"}),
        ("training.py", "BadInput(", "BadInput('' ", codes.STAGES.keys() - {"read", "draw"}),
        ("vision_language.py", "BATCH = 250", "BATCH = 251", {"train_encoder", "answer", "answer_given"}),
        ("questions.py", ".mean(dim=0)", ".sum(dim=0)", {"answer", "answer_given"}),
        ("pretrained.py", '"bicubic"', '"bilinear"', {"answer_given"}),
        ("moths.py", "\ndef ", "\npass\ndef ", {"read", "draw"}),
        ("faces.py", "\ndef ", "\npass\ndef ", {"read"}),
        # Content enters an identity whatever code made it: images of networks, and what is said of them.
        ("data.py", "_TEST_EVERY = 5", "_TEST_EVERY = 6", {"read"}),
        ("captions.py", "NOISE = 0.2", "NOISE = 0.3", set()),
        # What only asks and keeps decides nothing.
        ("studies.py", "\ndef ", "\npass\ndef ", set()),
        ("populations.py", "\ndef ", "\npass\ndef ", set()),
        ("jobs.py", "\ndef ", "\npass\ndef ", set()),
        ("store.py", "timeout=0", "timeout=1", set()),
    ],
)
def test_an_edit_changes_the_stages_that_it_decides(changed, file, old, new, stages):
    path = PACKAGE / file
    source = path.read_text(encoding="utf-8")
    assert old in source
    assert changed(path, source.replace(old, new)) == set(stages)


def test_every_module_of_the_folder_is_a_stage_or_serves_one():
    served = {
        name
        for stage, without in codes.STAGES.items()
        for name in code_files(codes.module(stage), without=without)
    }
    assert {codes.module(module) for module in MODULES} <= served


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
    questions = Questions(replace(test, captions=()), "species", [[name] for name in names], ())
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
    stages = [job.function.func.__module__.removeprefix("fairq_utils.treatments.jobs.") for job in asked]
    assert set(stages) == codes.STAGES.keys() - {"read", "draw"}  # which no job makes
    assert [job.identity["code"] for job in asked] == [codes.CODE[stage] for stage in stages]


def test_a_job_is_given_nothing_that_other_code_than_its_own_defines(asked):
    """What travels to a worker names the modules that define it."""
    for job in asked:
        # This protocol writes each name out where it is used.
        travels = pickle.dumps((job.function, job.data), protocol=2)
        names = [arg for code, arg, _ in pickletools.genops(travels) if code.name == "GLOBAL"]
        ours = {name.split()[0] for name in names if name.startswith("fairq_utils.")}
        assert job.function.func.__module__ in ours
        assert ours <= code_files(job.function.func.__module__).keys()
