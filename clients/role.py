"""What a client does with its data, with the server's message and with its update; a role changes one verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from thornbed.attacks.update import Sight
from thornbed.tasks import Samples

Group = Callable[[Samples, int, torch.Generator], Samples]
"""What members of a group train on: `(pool, num_members, generator) -> samples`."""


class Role:
    """A client that changes nothing; subclasses override the verb they are about, and never what they were given.

    Every verb gets a generator of its own, which depends on the run's seed, the round and the client.
    """

    name = "benign"

    @property
    def group(self) -> Group | None:
        """What the client trains on as one of a group, in place of its own samples; None where it acts alone."""
        return None

    @property
    def sees_accomplices(self) -> bool:
        """Whether `outgoing` is to be shown what accomplices would honestly send."""
        return False

    @property
    def edits_samples(self) -> bool:
        """Whether `prepare` may return anything but the samples."""
        return type(self).prepare is not Role.prepare

    @property
    def edits_objective(self) -> bool:
        """Whether `objective` may return anything but the cross-entropy."""
        return type(self).objective is not Role.objective

    @property
    def edits_update(self) -> bool:
        """Whether `outgoing` may return anything but the update; where not, the trained model is sent as it is."""
        return type(self).outgoing is not Role.outgoing

    def data(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Return what the client trains on."""
        return samples

    def incoming(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the model that the client starts from, given the one that the server sent."""
        return tensors

    def prepare(self, network: nn.Module, samples: Samples, generator: torch.Generator) -> Samples:
        """Return what the client trains on, once it has the server's model; the network stays as it is."""
        return samples

    def objective(self, cross_entropy: Tensor, distance: Tensor) -> Tensor:
        """Return what a step minimises: `distance` is how far (L2) the parameters are from those it started with."""
        return cross_entropy

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
        """Return the update (d,) of the parameters that the client sends; other tensors are sent as it trained them.

        `peers` (k, d) has the client's own update first; where it `sees_accomplices`, the other rows are what the
        accomplices that were drawn too would honestly send. `sight` is what else the client can find out.
        """
        return update


class Roles(Role):
    """Several roles one after the other: `edge_case() + scaling()` plants a backdoor, then boosts the update."""

    def __init__(self, parts: Sequence[Role]) -> None:
        if not parts:
            raise ValueError("roles need at least one part")
        self.parts = tuple(parts)
        self.name = "+".join(dict.fromkeys(part.name for part in parts))

    @property
    def group(self) -> Group | None:
        """The group of the first part that has one."""
        return next((part.group for part in self.parts if part.group is not None), None)

    @property
    def sees_accomplices(self) -> bool:
        """Whether any part does."""
        return any(part.sees_accomplices for part in self.parts)

    @property
    def edits_samples(self) -> bool:
        """Whether any part does."""
        return any(part.edits_samples for part in self.parts)

    @property
    def edits_objective(self) -> bool:
        """Whether any part does."""
        return any(part.edits_objective for part in self.parts)

    @property
    def edits_update(self) -> bool:
        """Whether any part does."""
        return any(part.edits_update for part in self.parts)

    def data(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Apply every part in order."""
        for part in self.parts:
            samples = part.data(samples, generator)
        return samples

    def incoming(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Apply every part in order."""
        for part in self.parts:
            tensors = part.incoming(tensors)
        return tensors

    def prepare(self, network: nn.Module, samples: Samples, generator: torch.Generator) -> Samples:
        """Apply every part in order."""
        for part in self.parts:
            samples = part.prepare(network, samples, generator)
        return samples

    def objective(self, cross_entropy: Tensor, distance: Tensor) -> Tensor:
        """Apply every part in order."""
        loss = cross_entropy
        for part in self.parts:
            loss = part.objective(loss, distance)
        return loss

    def outgoing(self, update: Tensor, peers: Tensor, generator: torch.Generator, sight: Sight) -> Tensor:
        """Apply every part in order; each sees what the one before made of the client's own update."""
        for part in self.parts:
            update = part.outgoing(update, torch.cat([update[None], peers[1:]]), generator, sight)
        return update
