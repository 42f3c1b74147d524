"""A trained model's network as an ONNX graph: normalised densities of one tile in, class probabilities out.

The forward pass is traced to JAX's intermediate form, and each operation is written as the ONNX operators of the same meaning
(opset 18). Whatever depends on parameters alone is computed here and stored. Tiling, normalisation and picking are not in the
graph: the metadata's entry `robpicker_jax` holds the card, which says how the model is applied.

    input    densities      float32 (1, tile, tile, tile, 1), axes n z y x channel, normalised as the card says
    output   probabilities  float32 (1, tile, tile, tile, classes), class 0 is the background
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.config import as_plain_values
from robpicker_jax.models.conv import padding
from robpicker_jax.models.scores import FullResolution, class_probabilities
from robpicker_jax.models.trained_model import TrainedModel, build_network
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

INPUT, OUTPUT = "densities", "probabilities"
OPSET = 18
_IR_VERSION = 9  # what runtimes since 2023 read
_MOST_STORED = 1 << 16  # elements up to which a repeated constant is stored as it is

Operand = str | np.ndarray
"""A tensor of the graph by its name, or an array that is known already."""


def save_onnx(path: str | os.PathLike[str], model: TrainedModel) -> None:
    """Write the model's network as an ONNX file; the file appears whole or not at all.

    Raises:
        InputError: the package onnx is not installed, the network holds an operation that is not translated, or the file
            cannot be written.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("ONNX is not installed", where=path, fix="pip install 'robpicker-jax[onnx]'") from None
    graph = onnx_graph(model)
    onnx.checker.check_model(graph, full_check=True)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", where=path) from None


def onnx_graph(model: TrainedModel) -> Any:
    """The model's network as an `onnx.ModelProto`.

    Raises:
        InputError: the network holds an operation that is not translated.
    """
    from onnx import TensorProto, helper

    card = replace(model.card, model=replace(model.card.model, compute_dtype="float32"))
    network = build_network(card)
    segment = FullResolution(network)
    tile = card.inference.tile
    assert tile is not None  # a card always gives it
    shape = (1, tile, tile, tile, 1)
    params, batch_stats = jax.tree.map(jnp.asarray, (model.params, model.batch_stats))  # a file gives NumPy arrays

    def predict(densities: jax.Array) -> jax.Array:
        _, scores, _ = segment(params, batch_stats, densities, train=False)
        return class_probabilities(scores, network.head)

    traced = jax.make_jaxpr(predict)(jax.ShapeDtypeStruct(shape, jnp.float32))
    graph = _Graph(card.model.backbone)
    known = dict(zip(traced.jaxpr.constvars, map(np.asarray, traced.consts), strict=True))
    (found,) = graph.add_all(traced.jaxpr, known, [INPUT])
    graph.emit("Identity", [found], outputs=[OUTPUT])
    tensor = helper.make_tensor_value_info
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "robpicker_jax",
            [tensor(INPUT, TensorProto.FLOAT, shape)],
            [tensor(OUTPUT, TensorProto.FLOAT, (*shape[:-1], card.n_classes))],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="robpicker_jax",
        producer_version=card.package_version,
    )
    helper.set_model_props(made, {"robpicker_jax": json.dumps(as_plain_values(model.card))})
    return made


@dataclass
class _Graph:
    """The graph while it is built.

    Attributes:
        backbone: the network's name, for messages.
        nodes, constants: of ONNX.
    """

    backbone: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add_all(self, jaxpr: Any, known: dict[Any, Operand], arguments: Sequence[Operand]) -> list[Operand]:
        """Translate all operations of a traced function; its results.

        Args:
            jaxpr: the function.
            known: values of its constants.
            arguments: of its arguments.
        """
        values = known | dict(zip(jaxpr.invars, arguments, strict=True))

        def value(atom: Any) -> Operand:
            return np.asarray(atom.val) if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            operands = [value(atom) for atom in equation.invars]
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if inner is not None:  # a function within the function
                consts = dict(zip(inner.jaxpr.constvars, map(np.asarray, inner.consts), strict=True))
                results = self.add_all(inner.jaxpr, consts, operands)
            elif all(variable.aval.size == 0 for variable in equation.outvars):  # ONNX's Expand makes none of these
                results = [np.zeros(variable.aval.shape, variable.aval.dtype) for variable in equation.outvars]
            elif _is_known(equation, operands):
                found = equation.primitive.bind(*map(jnp.asarray, operands), **equation.params)
                results = [np.asarray(each) for each in (found if equation.primitive.multiple_results else [found])]
            else:
                results = [self._translated(equation, operands)]
            values.update(zip(equation.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def _translated(self, equation: Any, operands: list[Operand]) -> Operand:
        name = equation.primitive.name
        if name not in _TRANSLATIONS:
            raise InputError(
                f"its operation {name} is not translated to ONNX",
                where=f"model.backbone: {self.backbone}",
                fix="export a .rpk file, or a model of the backbone unet, deepfinder or deepict",
            )
        return _TRANSLATIONS[name](self, equation, operands)

    def emit(
        self, operator: str, operands: Sequence[Operand], outputs: Sequence[str] | None = None, **attributes: Any
    ) -> str:
        """Add an operator; the name of its (first) output."""
        from onnx import helper

        inputs = [self.tensor(operand) for operand in operands]
        results = list(outputs or [f"t{len(self.nodes)}"])
        self.nodes.append(helper.make_node(operator, inputs, results, **attributes))
        return results[0]

    def tensor(self, operand: Operand) -> str:
        """Name of a tensor; an array is stored as a constant."""
        from onnx import numpy_helper

        if isinstance(operand, str):
            return operand
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(operand), name))
        return name


def _is_known(equation: Any, operands: Sequence[Operand]) -> bool:
    """Whether an operation can be computed here, and its result is not merely something small repeated many times."""
    if not all(isinstance(operand, np.ndarray) for operand in operands):
        return False
    size = max(variable.aval.size for variable in equation.outvars)
    return equation.primitive.name not in ("robpicker_voxel_spread", "broadcast_in_dim") or size <= _MOST_STORED


def _integers(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int64)


def _shape(equation: Any, operand: int = 0) -> tuple[int, ...]:
    return tuple(equation.invars[operand].aval.shape)


def _plain(operator: str) -> Callable[[_Graph, Any, list[Operand]], Operand]:
    """An operator of the same meaning in ONNX."""
    return lambda graph, equation, operands: graph.emit(operator, operands)


def _convolution(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    """Channels last to channels first and back, about ONNX's convolution."""
    kernel = operands[1]
    if isinstance(kernel, np.ndarray):
        weights: Operand = kernel.transpose(4, 3, 0, 1, 2)
    else:
        weights = graph.emit("Transpose", [kernel], perm=[4, 3, 0, 1, 2])
    pads = padding(_shape(equation, 1)[:3], equation.params["mirrored"])
    first = graph.emit("Transpose", [operands[0]], perm=[0, 4, 1, 2, 3])
    before, after = zip(*pads, strict=True)
    found = graph.emit("Conv", [first, weights], pads=[*before, *after])
    return graph.emit("Transpose", [found], perm=[0, 2, 3, 4, 1])


def _spread(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Expand", [operands[0], _integers(equation.params["shape"])])


def _broadcast(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    with_ones = [1] * len(shape)
    for place, edge in zip(places, _shape(equation), strict=True):
        with_ones[place] = edge
    found = graph.emit("Reshape", [operands[0], _integers(with_ones)])
    return found if tuple(with_ones) == tuple(shape) else graph.emit("Expand", [found, _integers(shape)])


def _reshaped(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Reshape", [operands[0], _integers(equation.outvars[0].aval.shape)])


def _transposed(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Transpose", operands, perm=list(equation.params["permutation"]))


def _reduced(operator: str) -> Callable[[_Graph, Any, list[Operand]], Operand]:
    return lambda graph, equation, operands: graph.emit(
        operator, [operands[0], _integers(equation.params["axes"])], keepdims=0
    )


def _product(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    """A product summed over some axes, by the letters of Einstein's sum."""
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in _shape(equation, 0)]
    second = [next(letters) for _ in _shape(equation, 1)]
    for one, other in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        second[other] = first[one]
    kept = [letter for axis, letter in enumerate(first) if axis not in (*left, *left_batch)]
    kept += [letter for axis, letter in enumerate(second) if axis not in (*right, *right_batch)]
    result = [first[axis] for axis in left_batch] + kept
    return graph.emit("Einsum", operands, equation=f"{''.join(first)},{''.join(second)}->{''.join(result)}")


def _joined(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    filled = [operand for operand, atom in zip(operands, equation.invars, strict=True) if atom.aval.size]
    return filled[0] if len(filled) == 1 else graph.emit("Concat", filled, axis=equation.params["dimension"])


def _sliced(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or [1] * len(starts)
    axes = _integers(range(len(starts)))
    return graph.emit("Slice", [operands[0], _integers(starts), _integers(limits), axes, _integers(steps)])


def _padded(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    before, after, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise InputError("its padding between voxels is not translated to ONNX", where="model.backbone")
    return graph.emit("Pad", [operands[0], _integers([int(edge) for edge in (*before, *after)]), operands[1]])


def _selected(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    condition, otherwise, value = operands
    return graph.emit("Where", [condition, value, otherwise])


def _converted(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    from onnx import helper

    return graph.emit("Cast", operands, to=helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"])))


def _power(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Pow", [operands[0], np.asarray(equation.params["y"], np.float32)])


def _reciprocal_root(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Reciprocal", [graph.emit("Sqrt", operands)])


def _complementary_error(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Sub", [np.ones((), np.float32), graph.emit("Erf", operands)])


def _unequal(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return graph.emit("Not", [graph.emit("Equal", operands)])


def _same(graph: _Graph, equation: Any, operands: list[Operand]) -> Operand:
    return operands[0]


_TRANSLATIONS: dict[str, Callable[[_Graph, Any, list[Operand]], Operand]] = {
    "robpicker_conv3d": _convolution,
    "robpicker_voxel_spread": _spread,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "transpose": _transposed,
    "reduce_max": _reduced("ReduceMax"),
    "reduce_sum": _reduced("ReduceSum"),
    "dot_general": _product,
    "concatenate": _joined,
    "slice": _sliced,
    "pad": _padded,
    "select_n": _selected,
    "convert_element_type": _converted,
    "integer_pow": _power,
    "rsqrt": _reciprocal_root,
    "erfc": _complementary_error,
    "stop_gradient": _same,
    "copy": _same,
    "optimization_barrier": _same,
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "max": _plain("Max"),
    "min": _plain("Min"),
    "ge": _plain("GreaterOrEqual"),
    "ne": _unequal,
    "or": _plain("Or"),
    "neg": _plain("Neg"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "sqrt": _plain("Sqrt"),
    "tanh": _plain("Tanh"),
    "erf": _plain("Erf"),
    "logistic": _plain("Sigmoid"),
}
"""The operations of JAX's intermediate form by name."""
