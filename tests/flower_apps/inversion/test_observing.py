"""From a recording to what an attack sees."""

from pathlib import Path

import torch

from thornbed.flower_apps.inversion.observing import observations
from thornbed.flower_apps.settings import plugins
from thornbed.protocol.recordings import Facts, Recording
from thornbed.tasks.models import normalised


def test_a_step_of_a_float64_model_is_taken_before_the_cast():
    facts = Facts(model="mlp(hidden=(4,))", sample_shape=(1, 4, 4), num_classes=3, num_samples=2, learning_rate=0.5)
    network = normalised(plugins.load("model", facts.model)((1, 4, 4), 3), (), ())
    sent = {name: torch.ones_like(tensor).double() for name, tensor in network.state_dict().items()}
    received = {name: tensor - 1e-9 for name, tensor in sent.items()}
    [seen] = observations([(Path("x"), Recording(sent=sent, received=received, facts=facts), None)], "cpu")
    for tensor in seen.gradient.values():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, torch.full_like(tensor, 2e-9), rtol=1e-6, atol=0)
