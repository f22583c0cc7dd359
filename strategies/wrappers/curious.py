"""A curious server: it follows the protocol to the letter and reads every update that passes.

Paper: Xu, Hong, Huang, Chen, Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated Learning", SRDS
2022, Section III (threat model: honest but curious server).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from thornbed.protocol.messages import ARRAYS, as_float
from thornbed.protocol.vector import Layout, to_tensors
from thornbed.strategies.wrappers.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a curious server sees of one reply: the model it sent to that node, the one that came back, and who sent it.

    The tensors are the observer's own copies; nothing that it does to them reaches the federation. `server_round` is
    the round in which the reply came. `num_examples` is what the client claims, None where it claims nothing.
    """

    server_round: int
    node_id: int
    sent: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    num_examples: float | None


class Curious(Wrapper):
    """Shows every training reply to an observer and changes none.

    Parameters
    ----------
    inner : a Flower strategy of the message API. Its verbs are called; a `start` of its own would not be.
    observer : called with each `Sighting`, in the order of arrival; an error it raises ends the run.
    every : look at every so many rounds only, counted from round 1.
    choose : given the round and the nodes that sent a model, ascending, returns those whose reply is looked at; by
        default all. What is not looked at is not copied.

    The model that a node was sent is that of the last message to it, of this round or of an earlier one; where a node
    is sent another before it answers, nobody can tell which of the two a reply belongs to, and the last one counts. Of
    several array records of a message or a reply the model is the one called `arrays`.

    Nothing is shown of error replies, of replies without a readable model like the one sent, and of replies of a node
    that has no message to answer; they are passed on like the others.
    """

    def __init__(
        self,
        inner: Strategy,
        observer: Callable[[Sighting], None],
        *,
        every: int = 1,
        choose: Callable[[int, Sequence[int]], Collection[int]] = lambda server_round, nodes: nodes,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is at least 1: it is {every}")
        super().__init__(inner)
        self.observer = observer
        self.every = every
        self.choose = choose
        self._sent: dict[int, ArrayRecord] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hand on, and remember the model that each node is sent."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message in messages:
            node = message.metadata.dst_node_id
            self._sent.pop(node, None)
            if (model := _model(message)) is not None:
                self._sent[node] = _kept(model)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Show the replies to the observer, then hand them on untouched."""
        replies = list(replies)
        if (server_round - 1) % self.every == 0:
            models = {reply.metadata.src_node_id: reply for reply in replies if self._shows_a_model(reply)}
            chosen = self.choose(server_round, sorted(models))
            for node, reply in models.items():
                if node in chosen and (sighting := self._sighting(server_round, reply)) is not None:
                    self.observer(sighting)
        for reply in replies:  # answered: kept any longer, a model of another round would lie here for every node
            self._sent.pop(reply.metadata.src_node_id, None)
        return self.inner.aggregate_train(server_round, replies)

    def _shows_a_model(self, reply: Message) -> bool:
        """Tell whether a reply has a model like the one sent; of others the strategy inside says what is wrong."""
        sent, received = self._sent.get(reply.metadata.src_node_id), _model(reply)
        return sent is not None and received is not None and Layout.of(sent).mismatch(received) is None

    def _sighting(self, server_round: int, reply: Message) -> Sighting | None:
        node, received = reply.metadata.src_node_id, _model(reply)
        assert received is not None  # see `_shows_a_model`
        try:
            before, after = to_tensors(self._sent[node]), to_tensors(received)
        except ValueError:
            return None
        claims = [record.get("num-examples") for record in reply.content.metric_records.values()]
        numbers = [as_float(claim) for claim in claims if isinstance(claim, int | float)]
        return Sighting(
            server_round=server_round,
            node_id=node,
            sent=before,
            received=after,
            num_examples=numbers[0] if numbers else None,
        )


def _model(message: Message) -> ArrayRecord | None:
    """Return the arrays of a message that are its model; None where it has none, or several and none called so."""
    if not message.has_content():
        return None
    records = message.content.array_records
    if len(records) == 1:
        return next(iter(records.values()))
    return records.get(ARRAYS)


def _kept(model: ArrayRecord) -> ArrayRecord:
    """Return the record as it is now, whatever becomes of it; the arrays, whose bytes nobody can change, are shared."""
    kept = ArrayRecord()  # filled by name, as it would copy every array of a dictionary that it is made from
    for name, array in model.items():
        kept[name] = array
    return kept
