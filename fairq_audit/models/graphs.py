"""Models that are a graph and no modules: programs of torch.export, and ONNX files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairq_audit.models.outputs import first_line, logits_of
from fairq_utils.errors import BadInput


class GraphWeights(nn.ModuleList):
    """The weights that the layers of a graph read, as layers, so that any treatment of weights applies."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(weights)
        for weight in weights.values():
            layer = nn.Linear(1, 1, bias=False)
            layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            self.append(layer)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Each weight under the name that the graph knows it by."""
        for name, layer in zip(self.names, self, strict=True):
            yield name, layer.weight  # type: ignore[misc]


class Graph(nn.Module):
    """A model that is a graph. `batch`: how many rows it takes at once, where that is fixed."""

    def __init__(self, batch: int | None) -> None:
        super().__init__()
        self.batch = batch

    @abstractmethod
    def weights(self) -> GraphWeights:
        """The floating-point weights that layers read."""

    @abstractmethod
    def holding(self, weights: nn.Module) -> Graph:
        """A copy that reads these."""

    @abstractmethod
    def takes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of each of its inputs, by name; None is any length."""

    @abstractmethod
    def run(self, *tensors: Tensor) -> Any:
        """What the graph makes of a batch that it takes: a tensor for each of its inputs."""

    def forward(self, *tensors: Tensor) -> Any:
        """The logits of these rows, in batches of the size that the graph takes."""
        if self.batch is None:
            return self.run(*tensors)
        rows = []
        for parts in zip(*(tensor.split(self.batch) for tensor in tensors), strict=True):
            n = len(parts[0])
            whole = (torch.cat([part, part[:1].expand(self.batch - n, *part.shape[1:])]) for part in parts)
            rows.append(logits_of(self.run(*whole))[:n])
        return torch.cat(rows)


# The operations that read a weight, and which of their arguments it is.
_READS = {"linear": 1, "mm": 1, "addmm": 2, "embedding": 0, "convolution": 1} | {
    f"conv{transposed}{n}d": 1 for transposed in ("", "_transpose") for n in (1, 2, 3)
}
_TURNS = ("t", "transpose", "permute")  # of what is read, when a program is decomposed


class Program(Graph):
    """A program of `torch.export`, and the weights that it reads in place of its own."""

    module: torch.fx.GraphModule

    def __init__(
        self,
        module: torch.fx.GraphModule,
        keywords: Sequence[str] = (),
        batch: int | None = None,
        rounded: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(batch)
        # Not as a submodule: it refuses eval(), and may hold the CPU in its constants.
        self.__dict__["module"] = module
        self.keywords = tuple(keywords)  # of its inputs those that it was exported with by name
        self.rounded = dict(rounded or {})

    def weights(self) -> GraphWeights:
        """The weights that the layers of the program read."""
        found = {}
        for node in self.module.graph.nodes:
            place = _READS.get(_operation(node))
            if place is None or len(node.args) <= place:
                continue
            read = node.args[place]
            while isinstance(read, torch.fx.Node) and _operation(read) in _TURNS:
                read = read.args[0]
            if isinstance(read, torch.fx.Node) and read.op == "get_attr":
                with suppress(AttributeError):  # a buffer is no weight
                    weight = self.module.get_parameter(str(read.target))
                    if weight.is_floating_point():
                        found[str(read.target)] = weight
        return GraphWeights(found | self.rounded)

    def holding(self, weights: nn.Module) -> Program:
        """The program with these weights in place of its own."""
        assert isinstance(weights, GraphWeights)
        return Program(self.module, self.keywords, self.batch, dict(weights.items()))

    def takes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of each of its inputs, by name."""
        return {name: _fixed(given.shape) for name, given in self._placeholders().items()}

    def run(self, *tensors: Tensor) -> Any:
        """The logits of as many rows as the program takes at once."""
        # in the layout of the example that it was exported with, which some of its views need
        given = [
            tensor.to("cpu", example.dtype).contiguous()
            for tensor, example in zip(tensors, self._placeholders().values(), strict=True)
        ]
        plain = len(given) - len(self.keywords)
        named = dict(zip(self.keywords, given[plain:], strict=True))
        return torch.func.functional_call(self.module, self.rounded, tuple(given[:plain]), named)

    def _placeholders(self) -> dict[str, Tensor]:
        """What the program takes, as tensors without content."""
        nodes = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        return {str(node.target): node.meta["val"] for node in nodes}


def _operation(node: torch.fx.Node) -> str:
    """The name of what a node calls: `conv2d` of `aten::conv2d.default`."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else ""


_KINDS = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class OnnxGraph(Graph):
    """An ONNX model: its path, or its bytes after they were changed."""

    def __init__(self, path: Path, content: Path | bytes, batch: int | None = None) -> None:
        super().__init__(batch)
        self.path, self.content = path, content

    @cached_property
    def session(self) -> Any:
        """What runs the graph, opened at its first use."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BadInput(
                f"{self.path} is run by the package onnxruntime; run pip install fairq-utils[models]."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, not what it would like to have been told
        content = self.content if isinstance(self.content, bytes) else str(self.content)
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has classes of its own for what it refuses
            raise BadInput(
                f"{self.path} cannot be run ({first_line(error)}); expected an ONNX file that "
                "onnxruntime takes: "
                "export it again."
            ) from error

    def takes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of each of its inputs, by name."""
        return {given.name: _fixed(given.shape) for given in self.session.get_inputs()}

    def run(self, *tensors: Tensor) -> Any:
        """The logits of as many rows as the graph takes at once."""
        values = {
            given.name: tensor.cpu()
            .contiguous()
            .numpy()
            .astype(_KINDS.get(given.type, np.float32), copy=False)
            for given, tensor in zip(self.session.get_inputs(), tensors, strict=True)
        }
        names = [output.name for output in self.session.get_outputs()]
        wanted = ["logits"] if "logits" in names else names
        outputs = self.session.run(wanted, values)
        return torch.from_numpy(outputs[0]) if len(outputs) == 1 else tuple(outputs)

    def weights(self) -> GraphWeights:
        """The weights that the layers of the graph read."""
        return GraphWeights(
            {
                name: torch.from_numpy(_turned(value, turned).copy())
                for name, (value, turned) in self._read(self._model()).items()
            }
        )

    def holding(self, weights: nn.Module) -> OnnxGraph:
        """The graph with these weights in place of its own."""
        from onnx import numpy_helper

        assert isinstance(weights, GraphWeights)
        model = self._model()
        turned = {name: turned for name, (_, turned) in self._read(model).items()}
        tensors = _constants(model)
        for name, weight in weights.items():
            value = np.ascontiguousarray(_turned(weight.numpy(), turned[name]))
            tensors[name].CopyFrom(numpy_helper.from_array(value, name))
        return OnnxGraph(self.path, model.SerializeToString(), self.batch)

    def _model(self) -> Any:
        try:
            import onnx
        except ImportError as error:
            raise BadInput(
                f"the weights of {self.path} are rounded by the package onnx; run pip install "
                "fairq-utils[models]."
            ) from error
        return (
            onnx.load_from_string(self.content) if isinstance(self.content, bytes) else onnx.load(self.path)
        )

    @staticmethod
    def _read(model: Any) -> dict[str, tuple[np.ndarray, bool]]:
        """The weights that layers read, and whether their first axis is the inputs, as in `x @ w`."""
        from onnx import numpy_helper

        tensors = _constants(model)
        makers = {name: node for node in model.graph.node for name in node.output}
        found = {}
        for node in model.graph.node:
            if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                continue
            of_gemm = any(a.name == "transB" and a.i for a in node.attribute)
            turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not of_gemm)
            name = node.input[1]
            while name in makers and makers[name].op_type in ("Transpose", "Identity"):
                turned ^= makers[name].op_type == "Transpose"
                name = makers[name].input[0]
            if name in tensors:
                value = numpy_helper.to_array(tensors[name])
                if value.dtype in (np.float16, np.float32, np.float64):
                    found[name] = value, turned and value.ndim == 2
        return found


def _turned(value: np.ndarray, turned: bool) -> np.ndarray:
    return value.T if turned else value


def _constants(model: Any) -> dict[str, Any]:
    """The tensors that a graph holds, by the name that nodes read them under: its weights are among them."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            held = [given.t for given in node.attribute if given.name == "value"]
            found |= dict(zip(node.output, held, strict=False))  # none where it holds no tensor
    return found


def _fixed(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(n if isinstance(n, int) else None for n in shape)
