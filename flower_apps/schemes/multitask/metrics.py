"""The metrics of federated multitask learning."""

from __future__ import annotations

from collections.abc import Mapping

from thornbed.flower_apps.metrics import Metric

# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    "error": Metric(words="error", rate=True, short="error"),
    "target_error": Metric(words="target error", rate=True, short="targets"),
    "rmse": Metric(words="RMSE", short="RMSE"),
    "target_rmse": Metric(words="target RMSE", short="targets"),
    "primal_objective": Metric(words="primal objective", form="{:.4g}", column=False),
    "dual_objective": Metric(words="dual objective", form="{:.4g}", column=False),
    "duality_gap": Metric(words="duality gap", form="{:.2e}"),
}
