"""The numbers that clients report beside their work: which of them can be averaged, decided reply by reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from thornbed.protocol.messages import NUM_EXAMPLES, claimed_weight, only, refuse_error
from thornbed.protocol.vector import LARGEST


def read_evaluate_reply(message: Message, weighted_by: str = NUM_EXAMPLES) -> RecordDict:
    """Check the answer to an evaluation message and return its records.

    Raises RefusedReply for an error reply, without exactly one metric record, and for a weight that is none.
    """
    refuse_error(message)
    claimed_weight(only(message.content.metric_records, "metric record"), weighted_by)
    return message.content


def agreeing(replies: Sequence[RecordDict]) -> tuple[list[RecordDict], dict[int, str]]:
    """Return the replies whose metrics can be averaged with each other, and by index why the others cannot.

    A metric counts where more than half of the replies have it, as one number or as a list of the same length. What
    only some report is taken out; a reply that lacks such a metric, or has it with a value that is no finite number, is
    left out. Each reply has one metric record. The records returned are new, the arrays in them shared.
    """
    metrics = [only(reply.metric_records, "metric record") for reply in replies]
    kinds = [{name: _kind(value) for name, value in record.items()} for record in metrics]
    counts = Counter(item for kind in kinds for item in kind.items())
    shared = {name: kind for (name, kind), count in counts.items() if 2 * count > len(replies)}
    agreed, left_out = [], {}
    for index, (reply, record) in enumerate(zip(replies, metrics, strict=True)):
        if (fault := _fault(record, kinds[index], shared)) is not None:
            left_out[index] = fault
            continue
        own = MetricRecord({name: record[name] for name in shared})
        agreed.append(_with_metrics(reply, own))
    return agreed, left_out


def _kind(value: object) -> int:
    """Return the number of values of a list, and -1 for a single number."""
    return len(value) if isinstance(value, list) else -1


def _fault(record: MetricRecord, kinds: Mapping[str, int], shared: Mapping[str, int]) -> str | None:
    for name, kind in shared.items():
        if name not in record:
            return f"no {name}"
        if kinds[name] != kind:
            return f"{name} is not {'one number' if kind < 0 else f'a list of {kind} numbers'}, as most have it"
        value = record[name]
        values = value if isinstance(value, list) else [value]
        if not all(_finite(each) for each in values):
            return f"{name} is {str(value)[:30]}"
    return None


def _finite(value: object) -> bool:
    # As of arrays: of numbers that are any larger a sum may be none.
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _with_metrics(reply: RecordDict, metrics: MetricRecord) -> RecordDict:
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in reply.items():
        records[name] = metrics if isinstance(record, MetricRecord) else record
    return RecordDict(records)
