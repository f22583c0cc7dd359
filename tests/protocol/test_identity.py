"""Who a node says it is: what arrives of it, and what of it is refused."""

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from thornbed.protocol.messages import Identity, RefusedReply, identify_message, identify_reply, read_identity


def request():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # a message says where it was made
    message = identify_message(2)
    message.metadata.__dict__["_message_id"] = "1"
    return message


def saying(**content):
    record = ConfigRecord({key.replace("_", "-"): value for key, value in content.items()})
    return Message(RecordDict({"config": record}), reply_to=request())


@pytest.mark.parametrize("problem", ["", "it has no channel", "p" * 300])
def test_what_a_node_says_arrives(problem):
    identity = Identity(3, "backdoor", problem)
    reply = identify_reply(request(), identity)
    assert read_identity(reply) == identity
    assert ("problem" in reply.content["config"]) == bool(problem)


def test_a_problem_is_sent_in_one_printable_line_of_300_characters_at_most():
    reply = identify_reply(request(), Identity(3, "backdoor", f"no file\n  of\tthat\x00name {'x' * 400}"))
    sent = read_identity(reply).problem
    assert sent.startswith("no file of that name xxx")
    assert len(sent) == 300
    assert "problem" not in identify_reply(request(), Identity(3, "benign", " \n")).content["config"]


@pytest.mark.parametrize("partition_id", [True, False, 0.0, "0", [0], None])
def test_a_partition_id_that_is_no_whole_number_is_refused(partition_id):
    said = {} if partition_id is None else {"partition_id": partition_id}
    with pytest.raises(RefusedReply, match="no whole number partition-id"):
        read_identity(saying(**said, role="benign"))


@pytest.mark.parametrize("text", ["", "  ", "benign\n", "be\x1b[2Jnign", "be\u202enign", b"benign", 1])
@pytest.mark.parametrize("key", ["role", "problem"])
def test_a_text_that_no_record_is_to_hold_is_refused(key, text):
    with pytest.raises(RefusedReply, match=f"^{key} is no printable text"):
        read_identity(saying(**{"partition_id": 0, "role": "benign", key: text}))


@pytest.mark.parametrize(("key", "longest"), [("role", 100), ("problem", 300)])
def test_a_text_that_is_too_long_is_refused(key, longest):
    said = {"partition_id": 0, "role": "benign"}
    assert getattr(read_identity(saying(**{**said, key: "x" * longest})), key) == "x" * longest
    with pytest.raises(RefusedReply, match=f"{key} is no printable text of 1 to {longest} characters"):
        read_identity(saying(**{**said, key: "x" * (longest + 1)}))


def test_a_node_without_a_role_is_refused():
    with pytest.raises(RefusedReply, match="role is no printable text"):
        read_identity(saying(partition_id=0))
