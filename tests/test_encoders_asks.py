"""What the chapter on vision and language asks for, and that its tables are made of that."""

from fairq_book.chapters.encoders import asks, tables
from fairq_book.experiments import populations
from fairq_book.experiments.store import Store
from fairq_utils.encoders.linear_layers import LINEAR_TREATMENTS


def test_the_original_is_compared_with_whether_or_not_it_is_named():
    assert asks.Asks().compared == list(LINEAR_TREATMENTS)
    assert asks.Asks(treatments=["int4", "fp32"]).compared == ["fp32", "int4"]


def test_a_population_and_its_twins_differ_in_what_they_are_taught_alone():
    wanted = asks.Asks(images=50, archs=["patch8"], training_sets=["noisy"])
    shared = {"seeds": [0, 1], "epochs": 3, "test_images": 20}
    encoders, twins = (wanted.population(**shared, taught=taught) for taught in ("captions", "labels"))
    assert [one.name for one in encoders] == ["moths-patch8-noisy-seed0", "moths-patch8-noisy-seed1"]
    assert [one.name for one in twins] == [
        "moths-patch8-noisy-labels-seed0",
        "moths-patch8-noisy-labels-seed1",
    ]
    assert {(one.recipe.epochs, one.images, one.dataset.test) for one in [*encoders, *twins]} == {(3, 50, 20)}


def test_every_table_is_made_of_what_was_asked_for(tmp_path):
    wanted = asks.Asks(images=60, archs=["patch8"], training_sets=["balanced"], treatments=["int4"])
    shared = {"seeds": [0, 1], "epochs": 1, "test_images": 60}
    answers, of_twins = (
        populations.answers(
            wanted.population(**shared, taught=taught), wanted.compared, store=Store(tmp_path)
        )
        for taught in ("captions", "labels")
    )
    made = tables.make(answers, of_twins, "species", ks=[1], top=10)
    assert set(made) == {
        *("measures", "failures", "by_model", "consistency", "by_query", "lost_and_won"),
        *("classifier_failures", "classifier_consistency", "failures_of_both", "beyond_classifiers"),
    }
    assert "recall to text@1" in set(made["measures"]["measure"])
    assert "MaxSkew@10" in set(made["measures"]["measure"])
    assert len(made["failures_of_both"]) == len(made["failures"]) + len(made["classifier_failures"]) == 8
