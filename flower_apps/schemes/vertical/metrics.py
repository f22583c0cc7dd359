"""The metrics of vertical learning, beside those that it shares with horizontal learning."""

from __future__ import annotations

from collections.abc import Mapping

from thornbed.flower_apps.metrics import Metric

# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    "clean_data_accuracy": Metric(words="clean data accuracy", rate=True, short="acc"),
    "untriggered_rate": Metric(words="untriggered rate", rate=True),
    "replaced_rate": Metric(words="replaced rate", rate=True),
    "label_inference_accuracy": Metric(words="label inference accuracy", rate=True),
    "inferred_samples": Metric(words="inferred samples", form="{:.6g}"),
    "gradient_perturbation": Metric(words="gradient perturbation", form="{:.3g}"),
    "connectivity": Metric(words="connectivity", form="{:.3g}"),
}
