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


def test_a_restarted_node_takes_the_place_of_the_old_one(federation):
    """A SuperNode that comes back is a new node with an old number, and the old one stays listed for a while."""
    grid = federation([nothing] * 3)
    late = grid._contexts.pop(4)
    cohort = NumberedClients(2, 2)
    cohort.draw(1, grid)
    late.node_config["partition-id"] = 0
    grid._contexts[4] = late
    assert [member.node_id for member in cohort.draw(2, grid)] == [4, 3]


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
