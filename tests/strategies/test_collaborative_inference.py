"""Collaborative inference over a grid: what goes through messages is what bare tensors give, whoever is away."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from thornbed.defenses.fusion_head import HeadTraining
from thornbed.defenses.inference import ABSTAINS
from thornbed.defenses.inference.oracle import Oracle
from thornbed.defenses.inference.plain import Plain
from thornbed.defenses.inference.randomized_ablation import RandomizedAblation
from thornbed.defenses.inference.randomized_smoothing import RandomizedSmoothing
from thornbed.defenses.purification.copur import ON_MANIFOLD, copur
from thornbed.defenses.purification.unsecured import unsecured
from thornbed.defenses.reporting import listening
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.actions import IDENTIFY, QUERY_EMBED
from thornbed.protocol.inference import embed_reply, read_embed_request
from thornbed.protocol.messages import Identity, identify_reply
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_tensors
from thornbed.strategies import CollaborativeInference, NumberedClients, RunStopped
from thornbed.strategies._fusion_centre import FusionCentre
from thornbed.strategies.collaborative_inference import Queries, accuracies

AGENTS, DIM, ROWS = 5, 3, 120
Spoil = Callable[[int, int, Tensor], Tensor | None]


def table() -> tuple[Tensor, Tensor]:
    """Embeddings near a plane, (rows, agents, dim), and the half of it that each row lies in."""
    draw = torch.Generator().manual_seed(1)
    codes = torch.randn(ROWS, 2, generator=draw)
    rows = (codes @ torch.randn(2, AGENTS * DIM, generator=draw)).view(ROWS, AGENTS, DIM)
    return rows + 0.05 * torch.randn(rows.shape, generator=draw), (codes[:, 0] > 0).long()


def centre(**changes) -> FusionCentre:
    given = {
        "labels": table()[1][:80],
        "num_classes": 2,
        "embedding_size": DIM,
        "corrupted": torch.arange(AGENTS) == 4,
        "purify": partial(copur, solver="reweighted"),
        "on_manifold": ON_MANIFOLD,
        "defense": Plain(),
        "training": HeadTraining(hidden=(8,), epochs=20, learning_rate=1e-2),
        "bottleneck": 2,
        "hidden": (),
        "drop": 0.3,
        "epochs": 1,
    }
    return FusionCentre(**{**given, **changes})


def run(spoil: Spoil, rounds: int = 3, min_replies: int = 1, public: bool = False, **changes):
    """Return the strategy after so many rounds, the model's tensors, and what agents were told of it, by round."""
    app, told, accounts = ClientApp(), {}, {}

    @app.query(IDENTIFY.removeprefix("query."))
    def identify(message: Message, context: Context) -> Message:
        return identify_reply(message, Identity(int(context.node_config["partition-id"]), "benign"))

    @app.query(QUERY_EMBED.removeprefix("query."))
    def embed(message: Message, context: Context) -> Message:
        agent, request = int(context.node_config["partition-id"]), read_embed_request(message)
        told[request.server_round] = request.model
        offset = 0 if request.split == "train" else 80
        return embed_reply(message, spoil(agent, request.server_round, table()[0][offset + request.rows, agent]))

    asked = Queries(train=torch.arange(80), queries=torch.arange(40), split="test", public=public)
    strategy = CollaborativeInference(
        NumberedClients(AGENTS, AGENTS), min_replies, 7, centre(**changes), asked, embedding_size=DIM, bottleneck=2
    )

    def look(server_round, arrays):
        accounts[server_round] = strategy.account

    result = strategy.start(InlineGrid(app, AGENTS, {}), strategy.initial(), num_rounds=rounds, evaluate_fn=look)
    return strategy, to_tensors(result.arrays), told, accounts


def liars(agent: int, server_round: int, embeddings: Tensor) -> Tensor:
    return -10 * embeddings if agent == 4 and server_round >= 3 else embeddings


def test_through_messages_it_is_what_bare_tensors_give():
    strategy, tensors, told, accounts = run(liars)
    made, (rows, labels) = centre(), table()
    model, _ = made.fit(rows[:80], generator(7, "fusion"), 2)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    everybody = torch.ones(AGENTS, dtype=torch.bool)
    lied = rows[80:].clone()
    lied[:, 4] *= -10
    for name, sent in (("clean", rows[80:]), ("attacked", lied)):
        found = made.answer(model, sent, everybody, None, generator(7, "answer", 2))
        assert torch.equal(strategy.memory[name], found.labels)
        torch.testing.assert_close(strategy.memory[f"moved/{name}"], found.moved, rtol=0, atol=0)
    right = accuracies(strategy.memory, labels[80:])
    assert right["clean"] > 0.9
    assert right["attacked"] > 0.9
    assert strategy.memory["moved/attacked"][:, 4].median() > 10 * strategy.memory["moved/attacked"][:, :4].median()
    assert told == {1: {}, 2: {}, 3: {}}
    assert accounts[1].defense["explained_variance"] > 0.9
    assert accounts[3].defense["stage1_converged"] > 0.9


def four_codes() -> tuple[Tensor, Tensor]:
    """Embeddings (400, 5, 3) of four codes, the first two the largest, and the class: the sign of the fourth."""
    draw = torch.Generator().manual_seed(2)
    codes = torch.randn(400, 4, generator=draw) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    spread = torch.linalg.qr(torch.randn(AGENTS * DIM, 4, generator=draw))[0]
    return (codes @ spread.T).view(400, AGENTS, DIM), (codes[:, 3] > 0).long()


def test_a_bottleneck_is_the_smallest_that_costs_hardly_any_accuracy_on_rows_held_out_of_training():
    rows, labels = four_codes()
    costs = {}
    for size in (None, 2, 7):
        with listening() as figures:
            found = centre(labels=labels, bottleneck=size).weigh(rows, generator(0, "held out"))
        assert figures["bottleneck"] == found
        costs[size] = found, figures["manifold_cost"]
    assert costs[None][0] == 5  # of 2, 3, 5, 7, ..., the first that four codes fit in
    assert costs[None][1] <= 0.01
    assert costs[2][0] == 2
    assert costs[2][1] > 0.2
    assert costs[7][0] == 7
    with pytest.raises(ValueError, match="2 training rows are too few to choose a bottleneck by; name one"):
        centre(labels=labels[:2], bottleneck=None).weigh(rows[:2], generator(0, "held out"))


def test_rows_held_out_have_no_part_in_what_a_bottleneck_is_weighed_with():
    rows, labels = four_codes()
    wrong = labels.clone()
    wrong[320:] = 1 - wrong[320:]
    costs = []
    for each in (labels, wrong):
        with listening() as figures:
            centre(labels=each, bottleneck=2).weigh(rows, generator(0, "held out"))
        costs.append(figures["manifold_cost"])
    assert costs[1] == pytest.approx(-costs[0])  # the same answers, of which the others are right


def test_a_run_without_a_bottleneck_has_the_one_that_was_chosen():
    strategy, tensors, _, accounts = run(liars, bottleneck=None)
    size = accounts[1].defense["bottleneck"]
    assert tensors["autoencoder.decoder.0.weight"].shape == (AGENTS * DIM, size)
    assert accuracies(strategy.memory, table()[1][80:])["attacked"] > 0.9
    _, _, _, plain = run(liars, bottleneck=None, purify=unsecured, on_manifold=False)
    assert "manifold_cost" not in plain[1].defense  # nobody is asked to pay it


def test_a_silent_agent_is_a_missing_block_and_is_counted():
    def silent(agent, server_round, embeddings):
        return None if agent == 1 and server_round == 3 else embeddings

    strategy, _, _, accounts = run(silent)
    assert accounts[2].dropped == []
    assert accounts[3].dropped == [{"client": 1, "reason": "it sent nothing"}]
    assert bool(strategy.memory["moved/attacked"][:, 1].isnan().all())
    assert accuracies(strategy.memory, table()[1][80:])["attacked"] > 0.9


def test_the_oracle_answers_where_a_clean_block_did_not_come():
    def spoiled(agent, server_round, embeddings):
        if server_round == 2 and agent == 1:
            return None
        if server_round == 2 and agent == 2:
            embeddings = embeddings.clone()
            embeddings[:3] = math.nan
        return liars(agent, server_round, embeddings)

    strategy, _, _, _ = run(spoiled, defense=Oracle(), purify=unsecured, on_manifold=False)
    right = accuracies(strategy.memory, table()[1][80:])
    assert right["clean"] == right["attacked"] > 0.8


def test_rows_that_are_not_finite_are_missing_where_they_are_and_counted():
    def broken(agent, server_round, embeddings):
        if agent == 1 and server_round == 3:
            embeddings = embeddings.clone()
            embeddings[:10] = math.nan
        return embeddings

    strategy, _, _, accounts = run(broken)
    gone = strategy.memory["moved/attacked"].isnan()
    assert gone.nonzero().tolist() == [[row, 1] for row in range(10)]
    assert accounts[3].defense["rejected_share"] == pytest.approx(10 / (40 * AGENTS))
    assert accounts[3].defense["rejected_by_agent"] == [0, 10, 0, 0, 0]
    assert "rejected_by_agent" not in accounts[2].defense
    assert accuracies(strategy.memory, table()[1][80:])["attacked"] > 0.9


def test_ablation_takes_blocks_that_are_not_finite_for_missing_and_abstains_where_too_few_are_left():
    def broken(agent, server_round, embeddings):
        if agent == 0 and server_round == 4:
            return None
        if agent in (1, 2) and server_round >= 3:
            embeddings = embeddings.clone()
            embeddings[: 10 * agent, 0] = math.inf
        return embeddings

    for rounds, unanswered in ((2, 0), (3, 10), (4, 20)):  # of five agents three are left for 10 rows, then for 20
        changes = {"defense": RandomizedAblation(keep=4), "purify": unsecured, "on_manifold": False}
        strategy, _, _, _ = run(broken, rounds, **changes)
        name = "clean" if rounds == 2 else "attacked"
        silent = strategy.memory[name] == ABSTAINS
        assert silent.nonzero()[:, 0].tolist() == list(range(unanswered))
        tolerated = strategy.memory[f"label_tolerated/{name}"]
        assert set(tolerated[silent].tolist()) <= {-1}
        assert int(tolerated[~silent].max()) == 0


def test_a_wrong_size_is_refused_alone():
    def wrong(agent, server_round, embeddings):
        return embeddings[:, :2] if agent == 0 and server_round == 3 else embeddings

    _, _, _, accounts = run(wrong)
    [drop] = accounts[3].dropped
    assert drop == {"client": 0, "reason": "embeddings are float32 (40, 2) instead of float32 (40, 3)"}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda agent, turn, x: None if turn == 3 else x,
            r"round 3 has 0 usable replies and needs 1 \(it sent nothing",
        ),
        (lambda agent, turn, x: None if agent == 2 else x, r"round 1 has 4 usable replies and needs 5"),
        (lambda agent, turn, x: x * math.nan if agent == 2 else x, "values that are not finite, in 80 of 80 rows"),
    ],
)
def test_it_stops_where_training_is_not_whole_or_nobody_answers(spoil, sentence):
    with pytest.raises(RunStopped, match=sentence):
        run(spoil)


def test_an_oracle_is_told_what_was_sent_before_the_attack():
    changes = {"defense": Oracle(), "purify": copur}
    strategy, _, _, _ = run(liars, **changes)
    assert torch.equal(strategy.memory["attacked"], strategy.memory["clean"])
    torch.testing.assert_close(strategy.memory["honest"], table()[0][80:])


def test_what_a_defense_certifies_of_labels_is_remembered():
    smoothing = RandomizedSmoothing(sigma=0.3, trials=64)
    strategy, _, _, _ = run(liars, defense=smoothing)
    for name in ("clean", "attacked"):
        radius = strategy.memory[f"label_radius/{name}"]
        assert radius.shape == strategy.memory[name].shape
        assert float(radius.max()) > 0.3
        assert f"label_tolerated/{name}" not in strategy.memory
    assert accuracies(strategy.memory, table()[1][80:])["attacked"] > 0.9


def test_a_count_of_agents_is_certified_only_where_nothing_mixes_their_blocks():
    """A liar reaches all blocks of what copur returns, and ablation counts on it that it reaches its own."""
    for purify, on_manifold, counts in ((unsecured, False, True), (copur, True, False)):
        changes = {"defense": RandomizedAblation(keep=1), "purify": purify, "on_manifold": on_manifold}
        strategy, _, _, _ = run(liars, **changes)
        assert ("label_tolerated/attacked" in strategy.memory) is counts


def test_a_public_model_goes_out_with_the_queries_that_are_attacked():
    _, tensors, told, _ = run(liars, public=True)
    assert told[1] == told[2] == {}
    assert told[3].keys() == tensors.keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"embedding_size": 0}, "needs embedding_size >= 1: embedding_size = 0"),
        ({"validation": 1.0}, "0 <= validation < 1"),
        ({"drop": -0.1}, "0 <= drop < 1"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CollaborativeInference(NumberedClients(2, 2), **options)
