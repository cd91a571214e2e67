"""Members stacked and members alone: the same bits, on the processor at hand.

A member's results must not depend, in any bit, on how many members are computed with it, on its
place among them, or on where its numbers lie in memory. Most operations are so by nature: they
move numbers, or round each by itself. The others are looked at, on random numbers of the shapes
at hand, whenever a computation is recorded (`Look`): libraries choose their kernels by shape, by
address and by processor, and what was measured on one processor says little of another.

Products of matrices are what differs. Each has a **reference form**, in which no product knows of
another: one pair of matrices, multiplied as a stack of two copies of itself (a library may send
a single pair, one dimension of which is 1, to another kernel than several pairs). The faster
forms are used where they equal it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

ALIGNMENT = 64
"""Bytes: torch's allocator begins every tensor of its own at a multiple of these."""

# They move numbers, choose among them, or round each result by itself as IEEE 754 has it.
_EXACT = frozenset(
    """
    getitem view _unsafe_view reshape expand transpose permute t squeeze unsqueeze slice select
    split split_with_sizes cat stack clone detach alias _to_copy copy gather index_select
    slice_backward select_backward new_zeros zeros_like ones_like full_like scalar_tensor full
    zeros ones where masked_fill_ eq ne lt le gt ge logical_and logical_and_ logical_or
    logical_not argmax argmin amax amin neg abs sign sgn relu threshold_backward clamp clamp_min
    clamp_max maximum minimum hardtanh hardtanh_backward mul div sqrt sort scatter
    """.split()
)
# Their results were equal for all numbers tried, on every processor tried. torch's sigmoid, SiLU,
# ELU, GELU, softplus, pow, sinh and others are not among them: they round an array's last few
# elements by another formula, which shows for some numbers only, so that a look may miss it.
_LOOKED_AT = frozenset(
    """
    add sub rsub reciprocal rsqrt leaky_relu leaky_relu_backward
    exp expm1 log log1p tanh quick_tanh tanh_backward sin cos erf scatter_add
    sum mean bmm _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
    native_layer_norm native_layer_norm_backward
    """.split()
)
EVEN = _EXACT | _LOOKED_AT
"""Operations whose result for a row of a stack may be taken not to depend on the others."""

_SEEN = 5
"""Members of a stack that are compared with themselves alone: the first ones, and the last."""

_SEEN_IN_PRODUCTS = 17  # sixteen floats fill what memory is aligned to


# The forms of a product [members, a, b] x [members, b, c]


def stacked(left: Tensor, right: Tensor) -> Tensor:
    """All pairs in one call; of one pair, whatever kernel the library has for that."""
    return torch.bmm(left, right)


def doubled(left: Tensor, right: Tensor) -> Tensor:
    """One pair, as a stack of two copies of itself: the reference form."""
    return torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1))[:1]


def one_by_one(left: Tensor, right: Tensor) -> Tensor:
    """Every pair in the reference form."""
    return torch.cat([doubled(_alone(left, i), _alone(right, i)) for i in range(len(left))])


def aligned(value: Tensor) -> Tensor:
    """The tensor, or a copy, that begins where torch's own tensors do."""
    return value.clone() if value.is_cpu and _offset(value) else value


class Look(fx.Interpreter):
    """Runs a recorded computation once, and looks at every operation on the way.

    A product of matrices is given the first of its forms that equals the reference form on random
    numbers. Other operations are compared with themselves on one member's numbers, elsewhere in
    memory.

    Args:
        module: what was recorded; its products are `stacked`.
        members: length of the member axis, which is the first of every tensor that has one.

    Attributes:
        uneven: names of operations by which a member would differ from itself alone, or of which
            that is not known.
        products: how many there are.
        doubled: how many of them, of one member, take the reference form.
        apart: how many of them are computed one by one, although there are several members.
        seconds: of the processor, that it took.
    """

    def __init__(self, module: fx.GraphModule, members: int) -> None:
        super().__init__(module)
        self._count = members
        self._numbers = torch.randn(2**16, generator=torch.Generator().manual_seed(0))
        self._known: dict[Any, Any] = {}
        self.uneven: list[str] = []
        self.products = self.doubled = self.apart = 0
        self.seconds = 0.0

    def run(self, *args: Any, **options: Any) -> Any:
        """Run the computation, on tensors of the kind that it will be given."""
        start = time.process_time()
        result = super().run(*args, **options)
        self.seconds = time.process_time() - start
        return result

    def run_node(self, n: fx.Node) -> Any:
        """Look at one operation, and run it as it will be run from now on."""
        if n.op == "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            name = name_of(n)
            if n.target is stacked:
                n.target = self._once(self._form, n, *args)
                self.products += 1
                self.doubled += n.target is doubled
                self.apart += n.target is one_by_one
            elif not {name, _pure(name)} & EVEN:
                self.uneven.append(name)
            elif not {name, _pure(name)} & _EXACT and self._count > 1:
                if not self._once(self._is_even, n, *args, **kwargs):
                    self.uneven.append(name)
        return super().run_node(n)

    def _once(self, look: Callable[..., Any], n: fx.Node, *args: Any, **kwargs: Any) -> Any:
        """What a look finds, which is the same for the same operation at the same shapes."""
        key = n.target, _kind(args), _kind(kwargs)
        if key not in self._known:
            self._known[key] = look(n.target, *args, **kwargs)
        return self._known[key]

    def _form(self, _: Any, left: Tensor, right: Tensor) -> Callable[..., Tensor]:
        """The form of a product."""
        size = left.shape[1] * right.shape[2]
        for _ in range(min(16, -(-64 // size))):  # a single number may agree by chance
            operands = self._random(left), self._random(right)
            product = stacked(*operands)
            for member in self._some(_SEEN_IN_PRODUCTS):
                own = (_alone(operand, member) for operand in operands)
                if not _same(product[member : member + 1], doubled(*own)):
                    return doubled if self._count == 1 else one_by_one
        return stacked

    def _is_even(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Whether some members' results in the stack are those of themselves alone."""
        rank = max((value.ndim for value in args if isinstance(value, Tensor)), default=0)

        def has_members(value: Any) -> bool:
            return isinstance(value, Tensor) and value.ndim == rank and len(value) == self._count

        if not rank or not any(map(has_members, args)):
            return True
        values = [self._random(value) if has_members(value) else value for value in args]
        whole = _tensors(operation(*values, **kwargs))
        if not all(value.ndim and len(value) == self._count for value in whole):
            return False  # it adds up over members
        for member in self._some(_SEEN):
            own = [_alone(value, member) if has_members(value) else value for value in values]
            for got, expected in zip(whole, _tensors(operation(*own, **kwargs)), strict=True):
                if not _same(got[member : member + 1], expected):
                    return False
        return True

    def _some(self, number: int) -> list[int]:
        """The first members, and the last."""
        return sorted({*range(min(number - 1, self._count)), self._count - 1})

    def _random(self, value: Tensor) -> Tensor:
        """Random numbers in place of a tensor's own, laid out as they are."""
        if not value.is_floating_point():
            return value.clone()  # labels, indices and choices have a meaning
        memory, numbers = _room(value.shape, value)
        for first in range(0, len(memory), len(self._numbers)):
            piece = memory[first : first + len(self._numbers)]
            piece.copy_(self._numbers[: len(piece)])
        self._numbers = self._numbers.roll(len(memory) % 8191 + 1)
        return numbers


def name_of(node: fx.Node) -> str:
    """An operation's name without its namespace and overload."""
    target: Any = node.target
    return str(target.__name__).partition(".")[0]


def _pure(name: str) -> str:
    """The operation of which one is the form that writes into its first argument."""
    return name.removesuffix("_")


def _kind(value: Any) -> Any:
    """What decides how an operation is computed: layouts of tensors, and other arguments."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), _offset(value), value.dtype
    if isinstance(value, Mapping):
        return tuple((key, _kind(one)) for key, one in value.items())
    return tuple(map(_kind, value)) if isinstance(value, list | tuple) else repr(value)


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [one for one in value if one is not None]


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether all bits are equal."""
    kind = {4: torch.int32, 8: torch.int64}.get(left.element_size())
    if left.is_floating_point() and kind is not None:
        left, right = left.view(kind), right.view(kind)
    return torch.equal(left, right)


def _offset(value: Tensor) -> int:
    return value.data_ptr() % ALIGNMENT


def _alone(value: Tensor, member: int) -> Tensor:
    """A copy of one member's part [1, ...], laid out and aligned as the first member's is."""
    return _placed(value[member : member + 1], value)


def _placed(value: Tensor, like: Tensor) -> Tensor:
    """A copy, with strides and alignment of another tensor."""
    for axis, stride in enumerate(like.stride()):
        if not stride:
            value = value.narrow(axis, 0, 1)
    _, copy = _room(value.shape, like)
    shape = [max(own, one) for own, one in zip(value.shape, like.shape, strict=True)]
    return copy.copy_(value).expand(value.shape[0], *shape[1:])


def _room(shape: torch.Size, like: Tensor) -> tuple[Tensor, Tensor]:
    """New memory, and a tensor of this shape in it with strides and alignment of another one."""
    pairs = zip(shape, like.stride(), strict=True)
    ahead = _offset(like) // like.element_size()
    memory = like.new_zeros(1 + ahead + sum((size - 1) * stride for size, stride in pairs))
    return memory, memory.as_strided(shape, like.stride(), ahead)
