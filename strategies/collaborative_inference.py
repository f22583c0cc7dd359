"""Collaborative inference: clients send embeddings of the rows asked for, the fusion centre purifies and predicts.

Paper: Liu, Xie, Koyejo, Li, "CoPur: Certifiably Robust Collaborative Inference via Feature Purification", NeurIPS 2022.

The first round collects clean embeddings of the training rows, from which the fusion centre learns its manifold and
its classifier: training is protected, as in Section 2.2. Every later round asks for the queries, the second one before
anybody attacks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import INFO

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from torch import Tensor

from thornbed.defenses.reporting import listening
from thornbed.protocol.inference import EmbedRequest, embed_message, read_embed_reply
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies._cohort import Cohort
from thornbed.strategies._fusion_centre import FusionCentre
from thornbed.strategies._rounds import RoundAccount, RunStopped, SentRound, ServerTested

TRAINING, FIRST_ATTACKED = 1, 3  # rounds
CLEAN, ATTACKED, HONEST, EXPLAINED = "clean", "attacked", "honest", "explained_variance"  # in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """The rows that clients are asked for.

    Attributes
    ----------
    train : (N,) int64, of the training samples, those that `FusionCentre.labels` are of.
    queries : (n,) int64, of the samples of `split`, "train" (held out for validation) or "test".
    public : whether attackers know the fusion centre's model; then it is published.
    """

    train: Tensor
    queries: Tensor
    split: str
    public: bool


class CollaborativeInference(ServerTested):
    """Asks M clients for embeddings of c numbers a row, learns from clean ones, then predicts.

    Parameters
    ----------
    cohort : who takes part in a round: clients 0 to M - 1, so they have to say who they are.
    min_replies : the run stops with `RunStopped` where fewer clients answer a query; training needs all of them.
    seed : everything random follows from it, the round, and what it is for.
    centre : how embeddings are purified and classified. asked : which rows.
    embedding_size : c. hidden_units : of the head with which extractors are trained, and of the classifier.
    bottleneck, hidden, drop, epochs : of the autoencoder, see `defenses.autoencoder_fit`. Without a bottleneck it is
        chosen on a part of the training rows, see `FusionCentre.weigh`.
    head_epochs : passes over the training rows that the classifier makes.
    validation : share of the training rows, the last ones, that are held out and queried in place of the test rows:
        what a setting is chosen by. 0 queries the test rows.

    A client that does not answer a query, or whose reply is refused, is a missing block, counted in `account`; one that
    sends values that are not finite is missing in the rows where they stand. `memory` holds the predictions of the
    latest clean and attacked round, `clean` and `attacked` (n,), what purification moved, `moved/clean` (n, M), how
    far from its minimum it is at most, `gap/clean` (n,), and where the defense certifies its labels,
    `label_radius/clean` and `label_tolerated/clean` (n,).
    Raises ValueError for options out of range.
    """

    scheme = "inference"

    def __init__(
        self,
        cohort: Cohort,
        min_replies: int = 1,
        seed: int = 0,
        centre: FusionCentre | None = None,
        asked: Queries | None = None,
        *,
        embedding_size: int = 32,
        hidden_units: int = 32,
        bottleneck: int | None = None,
        hidden: tuple[int, ...] = (),
        drop: float = 0.3,
        epochs: int = 200,
        head_epochs: int = 30,
        validation: float = 0.0,
    ) -> None:
        sizes = {"min_replies": min_replies, "embedding_size": embedding_size, "hidden_units": hidden_units}
        for name, value in {**sizes, "bottleneck": bottleneck, "epochs": epochs, "head_epochs": head_epochs}.items():
            if value is not None and value < 1:
                raise ValueError(f"collaborative_inference needs {name} >= 1: {name} = {value}")
        if min(hidden, default=1) < 1:
            raise ValueError(f"collaborative_inference needs every entry of hidden >= 1: hidden = {hidden}")
        if not 0 <= validation < 1 or not 0 <= drop < 1:
            raise ValueError(
                "collaborative_inference needs 0 <= validation < 1 and 0 <= drop < 1: "
                f"validation = {validation}, drop = {drop}"
            )
        self.cohort, self.min_replies, self.seed = cohort, min_replies, seed
        self.centre, self.asked = centre, asked
        self.embedding_size, self.hidden_units = embedding_size, hidden_units
        self.bottleneck, self.hidden, self.drop, self.epochs = bottleneck, hidden, drop, epochs
        self.head_epochs, self.validation = head_epochs, validation
        self.memory: dict[str, Tensor] = {}
        self.account: RoundAccount | None = None
        self._sent = SentRound.now(0, ())
        self._arrays = ArrayRecord()

    def initial(self) -> ArrayRecord:
        """Return a model that has learned nothing, which the first round replaces."""
        return to_arrays(self._given()[0].blank().state_dict())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients for the training rows, in later rounds for the queries."""
        asked, members = self._given()[1], self.cohort.draw(server_round, grid)
        self._arrays, self._sent = arrays, SentRound.now(server_round, members)
        public = asked.public and server_round >= FIRST_ATTACKED
        request = EmbedRequest(
            split="train" if server_round == TRAINING else asked.split,
            rows=asked.train if server_round == TRAINING else asked.queries,
            server_round=server_round,
            model=to_tensors(arrays) if public else {},
        )
        return [embed_message(request, config, member.node_id) for member in members if member.node_id is not None]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies; learn from them in the first round, later predict."""
        (centre, asked), training = self._given(), server_round == TRAINING
        shape = len(asked.train if training else asked.queries), self.embedding_size
        agents = len(centre.corrupted)
        accepted, account = self._sent.gather(
            replies,
            lambda reply, place: read_embed_reply(reply, shape, finite=training),
            at_least=agents if training else self.min_replies,
        )
        self.account = account
        started = time.perf_counter()
        embeddings = torch.full((shape[0], agents, shape[1]), math.nan)
        for agent, block in accepted.items():
            embeddings[:, agent] = block
        arrays, metrics = self._arrays, MetricRecord({"replies": len(accepted), "dropped": len(account.dropped)})
        with listening() as figures:
            try:
                if training:
                    size = centre.weigh(embeddings, generator(self.seed, "held out"))
                    model, account.train_loss = centre.fit(embeddings, generator(self.seed, "fusion"), size)
                    arrays = to_arrays(model.state_dict())
                    self.memory = {EXPLAINED: torch.tensor(figures[EXPLAINED], dtype=torch.float64)}
                else:
                    observed = torch.zeros(agents, dtype=torch.bool)
                    observed[list(accepted)] = True
                    self._answer(server_round, embeddings, observed)
            except ValueError as error:
                raise RunStopped(f"round {server_round} cannot be answered: {error}") from error
        # Embeddings that nobody purifies leave nothing to tell but what was not finite.
        account.defense = figures if training or centre.on_manifold or any(figures.values()) else {}
        account.seconds_aggregation = time.perf_counter() - started
        return arrays, metrics

    def summary(self) -> None:
        """Log the sizes."""
        log(
            INFO,
            "\t└──> collaborative inference: embeddings of %s, bottleneck %s",
            self.embedding_size,
            "chosen on training rows" if self.bottleneck is None else self.bottleneck,
        )

    def _answer(self, server_round: int, embeddings: Tensor, observed: Tensor) -> None:
        centre, name = self._given()[0], CLEAN if server_round < FIRST_ATTACKED else ATTACKED
        if name == CLEAN and HONEST in centre.defense.told:
            self.memory[HONEST] = embeddings
        model = centre.load(to_tensors(self._arrays))
        source = generator(self.seed, "answer", server_round)
        found = centre.answer(model, embeddings, observed, self.memory.get(HONEST), source)
        told = {
            name: found.labels,
            f"moved/{name}": found.moved,
            f"gap/{name}": found.gap,
            f"clipped/{name}": found.clipped,
            f"label_radius/{name}": found.radius,
            f"label_tolerated/{name}": found.tolerated,
        }
        self.memory |= {key: each for key, each in told.items() if each is not None}

    def _given(self) -> tuple[FusionCentre, Queries]:
        if self.centre is None or self.asked is None:
            raise ValueError("collaborative inference needs a fusion centre, and the rows to ask for")
        return self.centre, self.asked


def accuracies(memory: Mapping[str, Tensor], labels: Tensor) -> dict[str, float | None]:
    """Return the share of queries answered rightly, of true labels (n,), before and under the attack; None of no round.

    A query that is not answered counts as wrong.
    """
    found = {name: memory.get(name) for name in (CLEAN, ATTACKED)}
    return {name: None if each is None else float((each == labels).double().mean()) for name, each in found.items()}
