"""The metrics of collaborative inference."""

from __future__ import annotations

from collections.abc import Mapping

from thornbed.flower_apps.metrics import Metric

# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    "clean_accuracy": Metric(words="clean accuracy", rate=True, short="clean"),
    "robust_accuracy": Metric(words="robust accuracy", rate=True, short="robust"),
    "majority_share": Metric(words="majority share", rate=True, column=False),
    "explained_variance": Metric(words="explained variance", column=False),
}
