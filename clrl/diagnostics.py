"""What the loop measures of a population besides its performance, and under which tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from clrl.agents.networks import Network
from clrl.agents.population import Population
from clrl.metrics.measure import Metric, load_metrics, measure
from clrl.metrics.plasticity import singular_values

PROBE_EXAMPLES = 2000
"""Examples of the probe batch (Dohare et al. 2024); fewer where a task has fewer."""

Values = dict[str, Tensor]
"""Tag to one number a member, [members]."""


class Diagnostics:
    """Measures every metric of the table, each under ``plasticity/network/<metric>``.

    A metric of features has that tag for the mean over hidden layers; one of gradients or
    weights has it for the whole network at once. ``…/<layer>`` holds each layer's own value,
    the layer ``output`` being what follows the last hidden one.

    Args:
        population: the learners.
    """

    def __init__(self, population: Population) -> None:
        self.population = population
        self._metrics: list[Metric] = load_metrics()
        self._layer_of = _layer_of(population.network)

    def of_features(self, probes: Iterable[Tensor]) -> Values:
        """Unit and rank metrics of every hidden layer.

        Args:
            probes: for each member, inputs [examples, ...] of the task just begun, before
                any training on it.

        Returns:
            The metrics, and ``plasticity/network/probe_examples``.
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
        values = {"probe_examples": torch.tensor(examples)}
        for metric in per_layer[layers[0].name][0] if layers else ():
            rows = {
                name: torch.cat([one[metric] for one in members])
                for name, members in per_layer.items()
            }
            values[metric] = torch.stack(list(rows.values())).mean(dim=0)
            values |= {f"{metric}/{name}": row for name, row in rows.items()}
        return _tagged(values)

    def of_gradients(self) -> Values:
        """Metrics of the last gradient, as the update rule left it."""
        return self._of_parameters(gradients=self.population.gradient_views())

    def of_weights(self) -> Values:
        """Metrics of the weights, without biases; changes are since the last `mark_safe`."""
        weights = _matrices(self.population.parameters())
        return self._of_parameters(
            weights=weights, previous_weights=_matrices(self.population.safe_parameters)
        )

    def of_losses(self, before: Tensor, after: Tensor) -> Values:
        """Metrics of the loss on one batch, before and after learning it; each [members]."""
        return _tagged(measure(self._metrics, loss_before=before, loss_after=after))

    def _of_parameters(self, **inputs: Mapping[str, Tensor]) -> Values:
        values = measure(
            self._metrics, **{key: list(part.values()) for key, part in inputs.items()}
        )
        for layer in dict.fromkeys(self._layer_of.values()):
            own = {
                key: [tensor for name, tensor in part.items() if self._layer_of[name] == layer]
                for key, part in inputs.items()
            }
            if all(own.values()):
                of_layer = measure(self._metrics, **own)
                values |= {f"{metric}/{layer}": value for metric, value in of_layer.items()}
        return _tagged(values)


def _tagged(values: Mapping[str, Tensor]) -> Values:
    return {f"plasticity/network/{name}": value for name, value in values.items()}


def _matrices(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights among the parameters: those that are no vectors, the member axis apart."""
    return {name: value for name, value in parameters.items() if value.ndim > 2}


def _layer_of(network: Network) -> dict[str, str]:
    """Each parameter's layer: the hidden layer that it feeds, else the output."""
    owner = {layer.incoming: layer.name for layer in network.hidden_layers}
    owner |= {layer.norm: layer.name for layer in network.hidden_layers if layer.norm}
    return {
        name: owner.get(name.rpartition(".")[0], "output") for name, _ in network.named_parameters()
    }
