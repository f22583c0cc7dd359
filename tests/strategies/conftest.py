"""A federation of made clients: what each replies is a function of the model it was sent."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.actions import IDENTIFY
from thornbed.protocol.messages import Identity, identify_reply


@pytest.fixture
def federation() -> Callable[..., InlineGrid]:
    """Return a maker of grids: behaviours[k](arrays as numpy) -> (arrays, metrics) or an exception to raise."""

    def make(behaviours):
        app = ClientApp()

        @app.query(IDENTIFY.removeprefix("query."))
        def identify(message: Message, context: Context) -> Message:
            config = context.node_config
            said = (str(config.get("role", "benign")), str(config.get("problem", "")))
            return identify_reply(message, Identity(int(config["partition-id"]), *said))

        @app.train()
        def train(message: Message, context: Context) -> Message:
            model = {name: array.numpy() for name, array in message.content["arrays"].items()}
            answer = behaviours[context.node_config["partition-id"]](model)
            if isinstance(answer, RecordDict):
                return Message(answer, reply_to=message)
            arrays, metrics = answer
            from flwr.app import Array

            content = RecordDict(
                {
                    "arrays": ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()}),
                    "metrics": MetricRecord(metrics),
                }
            )
            return Message(content, reply_to=message)

        return InlineGrid(app, len(behaviours), {})

    return make
