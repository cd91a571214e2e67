"""Record a tensor function once as a flat list of operations, and replay that list.

For the small networks of online learning most of a step's time is Python: `vmap` wraps
every tensor, autograd builds and walks a graph. The operations are the same at every step,
so they are recorded once and replayed without that machinery. The recording
is then trimmed:

- reshapes that change nothing and multiplications by 1 are dropped;
- a batched outer product (``bmm`` over an inner dimension of 1) becomes an elementwise
  product: the same numbers, without the start-up cost of a matrix kernel;
- products of matrices get a form that treats members alike (`clrl.agents.even`);
- gradients are written where the optimizer reads them, and laid out as they lie there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from clrl.agents.even import Look, stacked

Replay = Callable[..., tuple[Tensor, ...]]


class Recording:
    """A recorded function; see `record`.

    Attributes:
        look: what was found of its operations, where that was asked for.
    """

    def __init__(
        self,
        forward: Replay,
        transposes: Sequence[Sequence[tuple[int, int]]],
        look: Look | None,
    ) -> None:
        self._forward = forward
        self._transposes = transposes
        self.look = look

    def bind(self, destinations: Sequence[Tensor]) -> Replay:
        """The function, storing into the given tensors.

        Args:
            destinations: where the first outputs go, in place, at every call.

        Returns:
            A function of inputs of the recorded shapes that returns the other outputs.
        """
        places = []
        for destination, transposes in zip(destinations, self._transposes, strict=True):
            for first, second in transposes:
                destination = destination.transpose(first, second)
            places.append(destination)
        forward = self._forward

        def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
            return forward(*inputs, *places)

        return replay


def record(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    stored: int,
    members: int | None = None,
) -> Recording:
    """Record a function of tensors, for inputs of the given shapes.

    The function must be pure: operations on its inputs alone, no choice that depends on a
    tensor's values, and no Python state that changes between calls.

    Args:
        function: takes the inputs, returns tensors.
        inputs: example inputs; a replay must get the same shapes and types.
        stored: how many of the outputs, from the first, are to be stored into given
            tensors in place of being returned.
        members: the length of the inputs' first axis, where that is one of members that are to
            get the same bits as each alone; see `clrl.agents.even.Look`.
    """
    module = _Tracer(inputs).trace(function)
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            _drop_identity(node)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.op == "call_function":
            _simplify_product(node)
    _shorten(graph)
    _turn_products(graph, stored)
    look = None
    if members is not None:
        look = Look(module, members)
        look.run(*inputs)
    transposes = _store(graph, stored)
    _shorten(graph)
    graph.set_codegen(fx.graph.CodeGen())
    graph.lint()
    module.recompile()
    return Recording(module.forward, transposes, look)


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no types
    """Notes every operation of torch that a function comes down to, autograd's included.

    ``make_fx`` does as much, and more that is not needed here, in some ten times the time.

    Args:
        inputs: what the function is called with.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inputs = inputs
        self._graph = fx.Graph()
        self._root = torch.nn.Module()
        # A tensor by its identity, which holds as long as it is kept.
        self._nodes: dict[int, fx.Node] = {}
        self._kept: list[Tensor] = []
        for number, value in enumerate(inputs):
            self._name(value, self._graph.placeholder(f"input_{number}"))

    def trace(self, function: Callable[..., Sequence[Tensor]]) -> fx.GraphModule:
        """The operations of one call."""
        with self:
            results = function(*self._inputs)
        self._graph.output(tuple(map(self._node, results)))
        return fx.GraphModule(self._root, self._graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out one operation, and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        node = self._graph.call_function(
            func,
            tree_map_only(Tensor, self._node, tuple(args)),
            tree_map_only(Tensor, self._node, dict(kwargs)),
        )
        if isinstance(result, Tensor):
            self._name(result, node)
        elif isinstance(result, tuple | list):
            for number, value in enumerate(result):
                if isinstance(value, Tensor):
                    part = self._graph.call_function(operator.getitem, (node, number))
                    self._name(value, part)
        return result

    def _name(self, value: Tensor, node: fx.Node) -> None:
        node.meta["shape"], node.meta["dtype"] = tuple(value.shape), value.dtype
        self._nodes[id(value)] = node
        self._kept.append(value)

    def _node(self, value: Tensor) -> fx.Node:
        """What stands for a tensor; one that is neither input nor result is a constant."""
        if id(value) not in self._nodes:
            name = f"constant_{len(self._kept)}"
            self._root.register_buffer(name, value.detach())
            self._name(value, self._graph.get_attr(name))
        return self._nodes[id(value)]


def quick_tanh(x: Tensor) -> Tensor:
    """Tanh as 2 sigmoid(2 x) - 1, to 2e-7: torch's sigmoid takes a sixth of the time of its tanh.

    That kernel rounds an array's last few elements otherwise; where a row holds a multiple of 64
    numbers there are no such elements, whatever the number of rows. Else it is torch's tanh, and
    so it is on other devices, where one operation costs less than three.
    """
    if not x.is_cpu or x.numel() // x.shape[0] % 64:
        return torch.tanh(x)
    return x.mul(2.0).sigmoid_().mul_(2.0).sub_(1.0)


_DIRECT: dict[Any, Any] = {
    torch.ops.aten.add.Tensor: torch.add,
    torch.ops.aten.bmm.default: stacked,
    torch.ops.aten.copy_.default: Tensor.copy_,
    torch.ops.aten.gather.default: torch.gather,
    torch.ops.aten.mul.Tensor: torch.mul,
    torch.ops.aten.mul.out: torch.mul,
    torch.ops.aten.neg.default: torch.neg,
    torch.ops.aten.relu.default: torch.relu,
    torch.ops.aten.tanh.default: quick_tanh,
    torch.ops.aten.transpose.int: torch.transpose,
    torch.ops.aten.unsqueeze.default: torch.unsqueeze,
    torch.ops.aten.view.default: Tensor.view,
}


def _shorten(graph: fx.Graph) -> None:
    """Call what is called by the shortest way from Python that there is."""
    for node in graph.nodes:
        node.target = _DIRECT.get(node.target, node.target)


def _shape(node: Any) -> tuple[int, ...] | None:
    return node.meta.get("shape") if isinstance(node, fx.Node) else None


def _dtype(node: fx.Node) -> Any:
    return node.meta["dtype"]


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


def _simplify_product(node: fx.Node) -> None:
    """Replace an outer product [M, a, 1] bmm [M, 1, b], which needs no matrix kernel."""
    if node.target is torch.ops.aten.bmm.default:
        left = _shape(node.args[0])
        if left is not None and left[2] == 1:
            node.target = torch.ops.aten.mul.Tensor


def _turn_products(graph: fx.Graph, stored: int) -> None:
    """Compute (a b)^T that is to be stored as b^T a^T: to store across the grain takes longer."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    for result in output.args[0][:stored]:
        if not _is_transpose(result) or len(result.users) > 1:
            continue
        product = result.args[0]
        if product.target is stacked and len(product.users) == 1:
            with graph.inserting_before(product):
                turned = [_transposed(graph, factor) for factor in reversed(product.args)]
                better = graph.call_function(stacked, tuple(turned))
            better.meta.update(result.meta)
            result.replace_all_uses_with(better)
    graph.eliminate_dead_code()


def _is_transpose(node: fx.Node) -> bool:
    """Whether each matrix of a stack is transposed."""
    axes = ((1, 2), (2, 1), (-1, -2), (-2, -1))
    return node.target is torch.transpose and node.args[1:] in axes


def _transposed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    if _is_transpose(node):
        assert isinstance(node.args[0], fx.Node)
        return node.args[0]
    made = graph.call_function(torch.transpose, (node, 1, 2))
    first, *rest = node.meta["shape"]
    made.meta.update(shape=(first, *reversed(rest)), dtype=node.meta["dtype"])
    return made


def _store(graph: fx.Graph, stored: int) -> list[list[tuple[int, int]]]:
    """Write the first outputs into further inputs instead of returning them.

    Returns:
        For each, how the tensor to store into is to be transposed before it is given.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (output,) = (node for node in graph.nodes if node.op == "output")
    results = list(output.args[0])
    all_transposes = []
    for i, result in enumerate(results[:stored]):
        node, transposes = _before_transposes(result)
        all_transposes.append(transposes)
        with graph.inserting_after(inputs[-1]):
            inputs.append(graph.placeholder(f"destination_{i}"))
        if node.target is torch.mul and len(node.users) == 1:
            with graph.inserting_before(node):
                graph.call_function(torch.ops.aten.mul.out, node.args, {"out": inputs[-1]})
        else:
            with graph.inserting_before(output):
                graph.call_function(torch.ops.aten.copy_.default, (inputs[-1], node))
    output.args = (tuple(results[stored:]),)
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.target is Tensor.copy_)
    return all_transposes


def _before_transposes(node: fx.Node) -> tuple[fx.Node, list[tuple[int, int]]]:
    """Storing a transposed tensor is storing the tensor into the transposed place."""
    transposes = []
    while node.target is torch.transpose and len(node.users) == 1:
        source, first, second = node.args
        assert isinstance(source, fx.Node) and isinstance(first, int) and isinstance(second, int)
        transposes.append((first, second))
        node = source
    return node, transposes
