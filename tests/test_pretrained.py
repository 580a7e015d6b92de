import json

import pandas as pd
import pytest
import safetensors.torch
import torch

from fairq_book.chapters.encoders.tables import failures, measures
from fairq_book.experiments.populations import answers_of
from fairq_book.experiments.store import Store
from fairq_utils.encoders import pretrained
from fairq_utils.encoders.linear_layers import quantize_linear, quietly, runs
from fairq_utils.encoders.pretrained import OpenClip, open_clip
from fairq_utils.encoders.questions import EvaluationSet
from fairq_utils.encoders.scenes import Scenes
from fairq_utils.errors import BadInput

with quietly():
    library = pytest.importorskip("open_clip", reason="open_clip_torch is not installed: the extra clip")

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model as open_clip saves one: its configuration and its weights."""
    root = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    with quietly():
        model = library.CLIP(
            TINY["embed_dim"],
            library.CLIPVisionCfg(**TINY["vision_cfg"]),
            library.CLIPTextCfg(**TINY["text_cfg"]),
        )
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (root / "open_clip_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(dict(model.state_dict()), root / "open_clip_model.safetensors")
    return root


@pytest.fixture(scope="module")
def encoder(folder) -> OpenClip:
    return open_clip(str(folder))


@pytest.fixture(scope="module")
def questions() -> EvaluationSet:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 40, 40), generator=random, dtype=torch.uint8)
    attributes = pd.DataFrame(
        {"kind": pd.Categorical(["owl", "cat"] * 6), "group": pd.Categorical(["a"] * 6 + ["b"] * 6)}
    )
    scenes = Scenes(images, tuple((f"a {kind}",) for kind in attributes["kind"]), attributes)
    return EvaluationSet(scenes, "kind", [["a cat", "some cat"], ["an owl"]], ["an animal"])


def test_it_sees_and_reads_as_open_clip_does(encoder, folder):
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with quietly():
        model = library.create_model(f"local-dir:{folder}")
        tokens = library.get_tokenizer(f"local-dir:{folder}")(["an owl", "a cat"])
    with torch.no_grad():
        seen = model.encode_image((images / 255 - 0.5) / 0.25, normalize=True)
        read = model.encode_text(tokens, normalize=True)
    assert torch.allclose(encoder.encode_images(images), seen, atol=1e-5)
    assert torch.allclose(encoder.encode_texts(["an owl", "a cat"]), read, atol=1e-5)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_images_of_any_size_are_scaled(encoder):
    large = torch.full((1, 3, 64, 48), 90, dtype=torch.uint8)
    small = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    assert torch.allclose(encoder.encode_images(large), encoder.encode_images(small), atol=1e-5)


@pytest.mark.parametrize("treatment", ["bnb-int8", "bnb-nf4", "torch-int8", "int4"])
def test_all_its_linear_layers_are_treated(encoder, treatment, questions):
    treated = quantize_linear(encoder, treatment)
    plain = [module for module in treated.modules() if type(module) is torch.nn.Linear]
    # Three blocks: queries, keys and values; heads together; two of the mix.
    assert (
        len([module for module in encoder.modules() if isinstance(module, torch.nn.MultiheadAttention)]) == 3
    )
    if runs(treatment).startswith("fairq_utils"):
        assert len(plain) == 12
        before = dict(encoder.state_dict())
        assert all(not any(torch.equal(layer.weight, one) for one in before.values()) for layer in plain)
    else:
        assert plain == []
    close = torch.cosine_similarity(
        treated.encode_images(questions.scenes.images), encoder.encode_images(questions.scenes.images)
    )
    assert 0.8 < close.min() < 1 - 1e-7


def test_it_is_asked_as_our_own_are_and_kept(encoder, questions, tmp_path):
    store = Store(tmp_path)
    treatments = ["fp32", "bnb-int8", "bnb-nf4", "torch-int8"]
    given = answers_of(encoder, questions, treatments, name="tiny", store=store)
    assert store.written["answers"] == 4
    answers_of(encoder, questions, treatments, name="tiny", store=store)
    assert store.written["answers"] == 4
    table = measures(given, "group", ks=(1,), top=4)
    assert set(table["treatment"]) == set(treatments)
    assert {"accuracy", "flips", "recall to text@1", "MaxSkew@4"} <= set(table["measure"])
    assert len(failures(given)) == 4


def test_a_file_of_weights_is_read_for_a_named_architecture(folder, monkeypatch):
    monkeypatch.setitem(library.factory._MODEL_CONFIGS, "tiny", TINY)
    state = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    torch.save({"state_dict": state}, folder / "tiny.pt")
    by_name = open_clip("tiny", str(folder / "tiny.pt"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in by_name.model.state_dict().items())


class Harm:
    def __reduce__(self):
        return (print, ("a pickle ran",))


def test_nothing_in_a_file_is_run(folder, monkeypatch, capsys):
    monkeypatch.setitem(library.factory._MODEL_CONFIGS, "tiny", TINY)
    torch.save({"state_dict": Harm()}, folder / "harm.pt")
    with pytest.raises(BadInput, match="open_clip cannot read"):
        open_clip("tiny", str(folder / "harm.pt"))
    assert "a pickle ran" not in capsys.readouterr().out


def test_weights_are_fetched_only_when_that_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(library, "create_model", lambda *names, **_: asked.append(names) or 1 / 0)
    with pytest.raises(BadInput, match="download=True to fetch"):
        open_clip("ViT-B-32")
    with pytest.raises(BadInput, match="names no training of ViT-B-32; expected ViT-B-32/"):
        open_clip("ViT-B-32", download=True)
    assert asked == []
    with pytest.raises(BadInput, match="cannot read"):
        open_clip("ViT-B-32/openai", download=True)
    assert asked == [("ViT-B-32",)]


def test_what_cannot_be_read_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no architecture of open_clip"):
        open_clip("ViT-Z-1")
    with pytest.raises(BadInput, match="is no file"):
        open_clip("ViT-B-32", str(tmp_path / "none.pt"))
    with pytest.raises(BadInput, match="no model that open_clip saved"):
        open_clip(str(tmp_path))
    with pytest.raises(BadInput, match="cannot read"):
        open_clip("ViT-B-32", str(folder / "open_clip_model.safetensors"))


def test_where_it_is_missing_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(BadInput, match=r"pip install 'fairq-utils\[models\]'"):
        pretrained.open_clip("ViT-B-32")
