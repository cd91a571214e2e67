"""Record a tensor function once as a flat list of operations, and replay that list.

For the small networks of online learning most of a step's time is Python: `vmap` wraps
every tensor, autograd builds and walks a graph. The operations are the same at every step,
so they are recorded once (``make_fx``) and replayed without that machinery. The recording
is then trimmed:

- reshapes that change nothing and multiplications by 1 are dropped;
- a batched outer product (``bmm`` over an inner dimension of 1) becomes an elementwise
  product: the same numbers, without the start-up cost of a matrix kernel;
- gradients are written where the optimizer reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

Record = Callable[..., tuple[Tensor, ...]]


def record(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    destinations: Sequence[Tensor],
) -> Record:
    """Record a function of tensors, for inputs of the given shapes.

    The function must be pure: operations on its inputs alone, no choice that depends on a
    tensor's values, and no Python state that changes between calls.

    Args:
        function: takes the inputs, returns tensors; the first ``len(destinations)`` of
            them are to be stored, the others returned.
        inputs: example inputs; a replay must get the same shapes and strides.
        destinations: where the first outputs go, in place, at every replay.

    Returns:
        A function of the same inputs that returns the remaining outputs.
    """
    module = make_fx(function)(*inputs)
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            _drop_identity(node)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.op == "call_function":
            _simplify_outer_product(graph, node)
    places = _store(graph, destinations)
    for node in graph.nodes:
        node.target = _DIRECT.get(node.target, node.target)
    graph.set_codegen(fx.graph.CodeGen())
    graph.lint()
    module.recompile()
    forward = module.forward

    def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
        return forward(*inputs, *places)  # type: ignore[no-any-return]

    return replay


# The same kernels by a shorter way from Python.
_DIRECT: dict[Any, Any] = {
    torch.ops.aten.add.Tensor: torch.add,
    torch.ops.aten.bmm.default: torch.bmm,
    torch.ops.aten.copy_.default: Tensor.copy_,
    torch.ops.aten.gather.default: torch.gather,
    torch.ops.aten.mul.Tensor: torch.mul,
    torch.ops.aten.mul.out: torch.mul,
    torch.ops.aten.neg.default: torch.neg,
    torch.ops.aten.relu.default: torch.relu,
    torch.ops.aten.tanh.default: torch.tanh,
    torch.ops.aten.transpose.int: torch.transpose,
    torch.ops.aten.unsqueeze.default: torch.unsqueeze,
    torch.ops.aten.view.default: Tensor.view,
}


def _shape(node: Any) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return tuple(meta.shape) if meta is not None else None


def _dtype(node: fx.Node) -> Any:
    return node.meta["tensor_meta"].dtype


_RESHAPES = (
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.reshape.default,
)
_PASS_ON = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)


def _drop_identity(node: fx.Node) -> None:
    """Remove an operation that returns its first argument unchanged."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return
    if node.target in _RESHAPES:
        same = _shape(node) is not None and _shape(node) == _shape(source)
    elif node.target is torch.ops.aten.mul.Scalar:
        same = bool(node.args[1] == 1) and _dtype(node) == _dtype(source)
    else:
        same = node.target in _PASS_ON
    if same:
        node.replace_all_uses_with(source)


def _simplify_outer_product(graph: fx.Graph, node: fx.Node) -> None:
    """[M, a, 1] bmm [M, 1, b] is the elementwise product of the two."""
    if node.target is not torch.ops.aten.bmm.default:
        return
    left = _shape(node.args[0])
    if left is not None and left[2] == 1:
        node.target = torch.ops.aten.mul.Tensor


def _store(graph: fx.Graph, destinations: Sequence[Tensor]) -> list[Tensor]:
    """Write the first outputs to their destinations instead of returning them.

    The graph takes the destinations as further inputs, in the form returned here.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (output,) = (node for node in graph.nodes if node.op == "output")
    results = list(output.args[0])
    places = []
    for i, destination in enumerate(destinations):
        node, place = _undo_transposes(results[i], destination)
        places.append(place)
        with graph.inserting_after(inputs[-1]):
            inputs.append(graph.placeholder(f"destination_{i}"))
        if node.target is torch.ops.aten.mul.Tensor and len(node.users) == 1:
            with graph.inserting_before(node):
                graph.call_function(torch.ops.aten.mul.out, node.args, {"out": inputs[-1]})
        else:
            with graph.inserting_before(output):
                graph.call_function(torch.ops.aten.copy_.default, (inputs[-1], node))
    output.args = (tuple(results[len(destinations) :]),)
    graph.eliminate_dead_code()
    return places


def _undo_transposes(node: fx.Node, destination: Tensor) -> tuple[fx.Node, Tensor]:
    """Storing a transposed tensor is storing the tensor into the transposed place."""
    while node.target is torch.ops.aten.transpose.int and len(node.users) == 1:
        source, first, second = node.args
        assert isinstance(source, fx.Node) and isinstance(first, int) and isinstance(second, int)
        destination = destination.transpose(first, second)
        node = source
    return node, destination
