"""What the loop measures of a population besides its performance, and under which tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from clrl.agents.networks import Network, extensions
from clrl.agents.population import Population
from clrl.errors import UsageError
from clrl.metrics.measuring import Metric, load_metrics, measure
from clrl.metrics.plasticity import singular_values
from clrl.metrics.table import METRICS
from clrl.registry import Entry

PROBE_EXAMPLES = 2000
"""Examples of the probe batch (Dohare et al. 2024); fewer where a task has fewer."""

Values = dict[str, Tensor]
"""Tag to one number a member, [members]."""


class Diagnostics:
    """Measures every metric of the table, each under ``plasticity/<part>/<metric>``.

    The part is ``network``, or ``actor`` and ``critic`` where there are two. A metric of
    features has that tag for the mean over the part's hidden layers; one of gradients or
    weights has it for the whole part at once. ``…/<layer>`` holds each layer's own value, the
    layer ``output`` being what follows the last hidden one.

    Args:
        population: the learners.
        more: further metrics, as ``package.module:function``; the tag has the function's name.

    Raises:
        UsageError: a metric cannot be imported, asks for what is not measured, or has the name of
            another.
    """

    def __init__(self, population: Population, more: Sequence[str] = ()) -> None:
        self.population = population
        entries = [*METRICS]
        for target in more:
            name = target.rpartition(":")[2]
            if any(entry.name == name for entry in entries):
                raise UsageError(f"metrics: {target!r} has the name of another metric")
            entries.append(Entry(name, "plug-in", target))
        self._metrics: list[Metric] = load_metrics(entries)
        self._layer_of = _layer_of(population.network)

    def of_features(self, probes: Iterable[Tensor]) -> Values:
        """Unit and rank metrics of every hidden layer.

        Args:
            probes: for each member, inputs [examples, ...]: of the task just begun, before
                any training on it; of control tasks, the latest observations.

        Returns:
            The metrics, and ``plasticity/<part>/probe_examples``.
        """
        layers = self.population.network.hidden_layers
        per_layer: dict[str, list[Values]] = {layer.name: [] for layer in layers}
        examples = []
        for member, inputs in enumerate(probes):
            examples.append(float(len(inputs)))
            features = self.population.features(member, inputs)
            for layer in layers:
                h = features[layer.name].unsqueeze(0)
                values = measure(
                    self._metrics,
                    features=h,
                    activation=layer.function,
                    singular_values=singular_values(h),
                )
                per_layer[layer.name].append(values)
        values = {}
        for part, names in self._parts().items():
            values[f"{part}/probe_examples"] = torch.tensor(examples)
            for metric in per_layer[names[0]][0] if names else ():
                rows = {
                    name.rpartition("/")[2]: torch.cat([one[metric] for one in per_layer[name]])
                    for name in names
                }
                # One after another: a reduction would round by how many members there are.
                values[f"{part}/{metric}"] = sum(rows.values(), torch.zeros(())) / len(rows)
                values |= {f"{part}/{metric}/{name}": row for name, row in rows.items()}
        return _tagged(values)

    def _parts(self) -> dict[str, list[str]]:
        """The names of each part's hidden layers."""
        network = self.population.network
        parts: dict[str, list[str]] = {part: [] for part, _ in self._layer_of.values()}
        for layer in network.hidden_layers:
            parts[network.part_of(f"{layer.incoming}.weight")].append(layer.name)
        return parts

    def of_gradients(self) -> Values:
        """Metrics of the last gradient, as the update rule left it.

        Where penalties or methods against forgetting add to it they are of the loss's alone, and
        ``total_grad_norm`` is the norm of the sum.
        """
        values = self._of_parameters(gradients=self.population.loss_gradient_views())
        if self.population.added_to:
            whole = self._of_parameters(gradients=self.population.gradient_views())
            values |= {
                tag.replace("/grad_norm", "/total_grad_norm"): value
                for tag, value in whole.items()
                if "/grad_norm" in tag
            }
        return values

    def of_weights(self) -> Values:
        """Metrics of the weights, without biases; changes are since the last `mark_safe`."""
        weights = _matrices(self.population.parameters())
        return self._of_parameters(
            weights=weights, previous_weights=_matrices(self.population.safe_parameters)
        )

    def of_losses(self, before: Tensor, after: Tensor) -> Values:
        """Metrics of the loss on one batch, before and after learning it; each [members]."""
        values = measure(self._metrics, loss_before=before, loss_after=after)
        return _tagged({f"network/{name}": value for name, value in values.items()})

    def _of_parameters(self, **inputs: Mapping[str, Tensor]) -> Values:
        values: Values = {}
        for part in dict.fromkeys(part for part, _ in self._layer_of.values()):
            values |= self._of_those(inputs, part)
            for layer in dict.fromkeys(own for of, own in self._layer_of.values() if of == part):
                values |= self._of_those(inputs, part, layer)
        return _tagged(values)

    def _of_those(
        self, inputs: Mapping[str, Mapping[str, Tensor]], part: str, layer: str | None = None
    ) -> Values:
        """Metrics of the parameters of a part, or of one of its layers."""
        own = {
            key: [
                tensor
                for name, tensor in tensors.items()
                if name in self._layer_of
                and self._layer_of[name][0] == part
                and layer in (None, self._layer_of[name][1])
            ]
            for key, tensors in inputs.items()
        }
        if not all(own.values()):
            return {}
        suffix = "" if layer is None else f"/{layer}"
        measured = measure(self._metrics, **own)
        return {f"{part}/{metric}{suffix}": value for metric, value in measured.items()}


def _tagged(values: Mapping[str, Tensor]) -> Values:
    return {f"plasticity/{name}": value for name, value in values.items()}


def _matrices(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights among the parameters: those that are no vectors, the member axis apart."""
    return {name: value for name, value in parameters.items() if value.ndim > 2}


def _layer_of(network: Network) -> dict[str, tuple[str, str]]:
    """Each parameter's part and layer: the hidden layer that it feeds, else the output.

    What a method added, and counts to no part of the network, is left out.
    """
    apart = extensions(network).keys()
    owner = {layer.incoming: layer.name for layer in network.hidden_layers}
    for layer in network.hidden_layers:
        owner |= {norm: layer.name for norm in (layer.norm, layer.norm_after) if norm}
    return {
        name: (
            network.part_of(name),
            owner.get(name.rpartition(".")[0], "output").rpartition("/")[2],
        )
        for name, _ in network.named_parameters()
        if network.part_of(name) not in apart
    }
