import pytest

from thornbed.strategies import AnyNodes, NumberedClients


def nothing(model):
    return model, {"num-examples": 1}


def clients(members):
    return [member.client for member in members]


def test_the_draw_depends_on_seed_and_round_alone(federation):
    draws = [clients(NumberedClients(10, 4, seed=1).draw(r, federation([nothing] * 10))) for r in (1, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(draw == sorted(draw) and len(set(draw)) == 4 for draw in draws)
    assert clients(NumberedClients(10, 4, seed=2).draw(1, federation([nothing] * 10))) != draws[0]


def test_a_client_whose_node_left_stays_in_the_draw(federation):
    grid = federation([nothing] * 4)
    cohort = NumberedClients(4, 4)
    cohort.draw(1, grid)
    del grid._contexts[3]  # the node of client 1
    members = cohort.draw(2, grid)
    assert clients(members) == [0, 1, 2, 3]
    assert [member.node_id for member in members] == [2, None, 4, 5]


def test_too_few_nodes_are_named_after_the_wait(federation):
    with pytest.raises(RuntimeError, match=r"5 clients are needed and 2 nodes are connected"):
        NumberedClients(5, 5, wait_seconds=0.1).draw(1, federation([nothing] * 2))


def test_two_nodes_with_one_number_are_refused(federation):
    grid = federation([nothing] * 2)
    grid._contexts[3].node_config["partition-id"] = 0
    with pytest.raises(RuntimeError, match="two nodes say they hold client 0"):
        NumberedClients(2, 2).draw(1, grid)


def claiming(grid, node, client, **said):
    """Take a node out of a grid and return it, as one that claims a client."""
    context = grid._contexts.pop(node)
    context.node_config = {"partition-id": client, **said}
    return context


def asking(grid, monkeypatch, node):
    """Return the list to which every round is added in which a node is asked; `nodes_of` tells the grid the round."""
    deliver, asked = grid._deliver, []

    def listen(message):
        if message.metadata.dst_node_id == node:
            asked.append(grid.server_round)
        return deliver(message)

    monkeypatch.setattr(grid, "_deliver", listen)
    return asked


def nodes_of(cohort, grid, server_round):
    grid.server_round = server_round
    return [member.node_id for member in cohort.draw(server_round, grid)]


def test_a_restarted_node_takes_the_place_of_the_old_one_once_that_is_gone(federation, monkeypatch, caplog):
    """A SuperNode that comes back is a new node with an old number, and the old one stays listed for a while."""
    grid = federation([nothing] * 3)
    late = claiming(grid, 4, 0, role="backdoor")
    asked = asking(grid, monkeypatch, 4)
    cohort = NumberedClients(2, 2)
    assert nodes_of(cohort, grid, 1) == [2, 3]
    grid._contexts[4] = late
    for server_round in range(2, 6):
        assert nodes_of(cohort, grid, server_round) == [2, 3]
    assert asked == [2]  # what it says cannot matter until the old one is gone
    [refusal] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Node 4 takes no part for now: it says it holds client 0, which node 2 holds" in refusal.getMessage()
    assert (cohort.client_of(4), cohort.roles, list(cohort.replaced)) == (None, {0: "benign", 1: "benign"}, [])
    del grid._contexts[2]
    assert nodes_of(cohort, grid, 6) == [4, 3]
    assert asked == [2, 6]
    assert [(each.client, each.node, each.by) for each in cohort.replaced] == [(0, 2, 4)]
    assert (cohort.client_of(4), cohort.client_of(2), cohort.roles[0]) == (0, None, "backdoor")
    assert "Node 4 holds client 0 now: node 2, which held it, is gone" in caplog.text
    assert nodes_of(cohort, grid, 7) == [4, 3]
    assert list(cohort.replaced) == []  # it was at the draw before


def test_a_node_that_was_replaced_comes_back_as_a_newcomer(federation, caplog):
    grid = federation([nothing] * 3)
    late = claiming(grid, 4, 0)
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    old, grid._contexts[4] = grid._contexts.pop(2), late
    assert nodes_of(cohort, grid, 2) == [4, 3]
    grid._contexts[2] = old
    assert nodes_of(cohort, grid, 3) == [4, 3]
    assert "Node 2 takes no part for now: it says it holds client 0, which node 4 holds" in caplog.text
    assert list(cohort.replaced) == []
    del grid._contexts[4]
    assert nodes_of(cohort, grid, 4) == [2, 3]
    assert [(each.client, each.node, each.by) for each in cohort.replaced] == [(0, 4, 2)]


def test_a_node_that_was_away_and_not_replaced_is_taken_as_before(federation):
    grid = federation([nothing] * 2)
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    away = grid._contexts.pop(2)
    assert nodes_of(cohort, grid, 2) == [None, 3]
    grid._contexts[2] = away
    assert nodes_of(cohort, grid, 3) == [2, 3]
    assert list(cohort.replaced) == []


def test_of_two_newcomers_the_one_that_claimed_first_takes_the_client(federation, monkeypatch):
    grid = federation([nothing] * 4)
    late = {node: claiming(grid, node, 0) for node in (4, 5)}
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    for server_round, node in ((2, 5), (3, 4)):
        grid._contexts[node] = late[node]
        assert nodes_of(cohort, grid, server_round) == [2, 3]
    del grid._contexts[2]
    assert nodes_of(cohort, grid, 4) == [5, 3]
    del grid._contexts[5]
    assert nodes_of(cohort, grid, 5) == [4, 3]


def test_a_newcomer_that_is_silent_when_its_turn_comes_is_asked_ever_more_rarely(federation, monkeypatch):
    grid = federation([nothing] * 3)
    late = claiming(grid, 4, 0)
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    grid._contexts[4] = late
    nodes_of(cohort, grid, 2)
    del grid._contexts[2]
    late.node_config = {}
    asked = asking(grid, monkeypatch, 4)
    for server_round in range(3, 9):
        assert nodes_of(cohort, grid, server_round) == [None, 3]
    assert asked == [3, 5]


def test_a_newcomer_that_left_again_is_not_waited_for(federation, monkeypatch):
    grid = federation([nothing] * 3)
    late = claiming(grid, 4, 0)
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    grid._contexts[4] = late
    nodes_of(cohort, grid, 2)
    asked = asking(grid, monkeypatch, 4)
    del grid._contexts[2], grid._contexts[4]
    assert nodes_of(cohort, grid, 3) == [None, 3]
    assert asked == []


def test_replacements_of_one_draw_are_told_by_client(federation):
    grid = federation([nothing] * 4)
    late = {node: claiming(grid, node, client) for node, client in ((4, 1), (5, 0))}
    cohort = NumberedClients(2, 2)
    nodes_of(cohort, grid, 1)
    grid._contexts = late
    assert nodes_of(cohort, grid, 2) == [5, 4]
    assert [(each.client, each.node, each.by) for each in cohort.replaced] == [(0, 2, 5), (1, 3, 4)]


@pytest.mark.parametrize("step", [1, -1])
def test_who_answers_faster_gets_nothing_by_that(federation, monkeypatch, step):
    grid = federation([nothing] * 4)
    late = {node: claiming(grid, node, 2) for node in (4, 5)}
    cohort = NumberedClients(3, 3, min_clients=2, wait_seconds=0.1)
    nodes_of(cohort, grid, 1)
    grid._contexts.update(late)
    send_and_receive = grid.send_and_receive
    monkeypatch.setattr(
        grid, "send_and_receive", lambda *given, **named: list(send_and_receive(*given, **named))[::step]
    )
    assert nodes_of(cohort, grid, 2) == [2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "KeyError"),
        ({"partition-id": 3}, "partition-id 3 is none of 0 to 2"),
        ({"partition-id": -1}, "partition-id -1 is none of 0 to 2"),
        ({"partition-id": 2, "role": "benign\x1b[2J"}, "role is no printable text of 1 to 100 characters"),
    ],
)
def test_a_node_whose_identification_failed_is_asked_ever_more_rarely(federation, monkeypatch, caplog, wrong, reason):
    grid = federation([nothing] * 3)
    grid._contexts[4].node_config = wrong
    asked = asking(grid, monkeypatch, 4)
    cohort = NumberedClients(3, 3, min_clients=2)
    for server_round in range(1, 15):
        assert nodes_of(cohort, grid, server_round) == [2, 3, None]
    assert asked == [1, 3, 7]
    said = [record.getMessage() for record in caplog.records if "Node 4 takes no part for now" in record.getMessage()]
    assert [message.rsplit("; ", 1)[1] for message in said] == [f"it is asked again in {n} rounds" for n in (2, 4, 8)]
    assert all(reason in message for message in said)
    grid._contexts[4].node_config = {"partition-id": 2}
    assert nodes_of(cohort, grid, 15) == [2, 3, 4]


def test_why_a_client_is_missing_at_the_beginning_is_said(federation):
    grid = federation([nothing] * 2)
    grid._contexts[3].node_config = {"partition-id": 7}
    with pytest.raises(RuntimeError, match=r"client 1 first \(node 3 is refused: partition-id 7 is none of 0 to 1\)"):
        NumberedClients(2, 2).draw(1, grid)


def test_a_run_does_not_begin_with_an_attacker_that_cannot_attack(federation):
    grid = federation([nothing] * 3)
    for node, client in ((2, 2), (3, 1), (4, 0)):
        grid._contexts[node].node_config["partition-id"] = client
        if client:  # of several the first client is named
            grid._contexts[node].node_config["problem"] = "it has no channel"
    with pytest.raises(RuntimeError, match=r"^client 1 cannot attack: it has no channel$"):
        NumberedClients(3, 3).draw(1, grid)


def test_an_attacker_that_comes_late_and_cannot_attack_is_asked_again(federation, monkeypatch, caplog):
    grid = federation([nothing] * 3)
    late = claiming(grid, 4, 2, problem="it has no channel")
    asked = asking(grid, monkeypatch, 4)
    cohort = NumberedClients(3, 3, min_clients=2, wait_seconds=0.1)
    nodes_of(cohort, grid, 1)
    grid._contexts[4] = late
    assert nodes_of(cohort, grid, 2) == [2, 3, None]
    assert "Node 4 takes no part for now: client 2 cannot attack: it has no channel" in caplog.text
    late.node_config = {"partition-id": 2, "role": "backdoor"}
    assert nodes_of(cohort, grid, 3) == [2, 3, None]
    assert nodes_of(cohort, grid, 4) == [2, 3, 4]
    assert asked == [2, 4]
    assert cohort.roles[2] == "backdoor"


def test_a_missing_client_is_named(federation):
    grid = federation([nothing] * 2)
    grid._contexts[3].node_config["partition-id"] = 7
    with pytest.raises(RuntimeError, match="1 of 2 clients are held by no node, client 1 first"):
        NumberedClients(2, 2).draw(1, grid)


def test_a_run_begins_with_enough_clients_and_takes_the_others_in_later(federation):
    grid = federation([nothing] * 3)
    late = grid._contexts.pop(4)
    cohort = NumberedClients(3, 3, min_clients=2, wait_seconds=0.1)
    assert [member.node_id for member in cohort.draw(1, grid)] == [2, 3, None]
    grid._contexts[4] = late
    assert [member.node_id for member in cohort.draw(2, grid)] == [2, 3, 4]
    with pytest.raises(RuntimeError, match="3 clients are needed and 1 nodes"):
        NumberedClients(3, 3, min_clients=2, wait_seconds=0.1).draw(1, federation([nothing]))


def test_connected_nodes_that_say_nothing_in_time_are_not_called_missing(federation, monkeypatch):
    grid = federation([nothing] * 3)
    deliver = grid._deliver
    monkeypatch.setattr(
        grid, "_deliver", lambda message: "lost" if message.metadata.dst_node_id > 2 else deliver(message)
    )
    with pytest.raises(RuntimeError, match=r"2 of 3 connected nodes did not say within 60 s .*--node-timeout"):
        NumberedClients(3, 3).draw(1, grid)


def test_a_node_that_says_nothing_is_asked_ever_more_rarely(federation, monkeypatch):
    grid = federation([nothing] * 3)
    deliver, asked = grid._deliver, []

    def silent(message):
        if message.metadata.dst_node_id == 4:
            asked.append(server_round)
            return "lost"
        return deliver(message)

    monkeypatch.setattr(grid, "_deliver", silent)
    cohort = NumberedClients(3, 3, min_clients=2)
    for server_round in range(1, 16):
        assert [member.node_id for member in cohort.draw(server_round, grid)] == [2, 3, None]
    assert asked == [1, 3, 7, 15]
    monkeypatch.setattr(grid, "_deliver", deliver)
    assert [member.node_id for member in cohort.draw(31, grid)] == [2, 3, 4]


def test_what_the_superlink_says_of_a_lost_node_is_nobodys_identity(federation, monkeypatch):
    """Flower answers for a node that went away with an error that names the SuperLink itself, node 1."""
    from flwr.app import Error, Message

    grid = federation([nothing] * 3)
    deliver = grid._deliver

    def lost(message):
        message_id = deliver(message)
        if message.metadata.dst_node_id == 4:
            request = Message(message.content, dst_node_id=4, message_type=message.metadata.message_type)
            answer = Message(Error(code=14, reason="Node Unavailable"), reply_to=request)
            answer.metadata.__dict__["_src_node_id"] = 1
            grid._replies[message_id] = answer
        return message_id

    monkeypatch.setattr(grid, "_deliver", lost)
    cohort = NumberedClients(3, 3, min_clients=2)
    assert [member.node_id for member in cohort.draw(1, grid)] == [2, 3, None]
    assert set(cohort._identities) == {2, 3}


def test_more_a_round_than_there_are_is_refused():
    with pytest.raises(ValueError, match="5 of 4 clients"):
        NumberedClients(4, 5)


def test_any_nodes_takes_a_share(federation):
    assert len(AnyNodes(0.5).draw(1, federation([nothing] * 10))) == 5
    with pytest.raises(ValueError, match="fraction"):
        AnyNodes(0.0)
