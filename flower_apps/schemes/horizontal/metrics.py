"""The metrics of horizontal learning."""

from __future__ import annotations

from collections.abc import Mapping

from thornbed.flower_apps.metrics import Metric

# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(words="accuracy", rate=True, short="acc"),
    "loss": Metric(words="loss", alone="{:.4f}", column=False, missing="not finite"),
    "attack_success_rate": Metric(words="attack success rate", rate=True, short="asr"),
}
