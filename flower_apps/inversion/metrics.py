"""The metrics of a curious server's inversions."""

from __future__ import annotations

from collections.abc import Mapping

from thornbed.flower_apps.metrics import Metric

# In the order of the columns of tables and files.
METRICS: Mapping[str, Metric] = {
    "psnr": Metric(words="PSNR", unit="dB", form="{:.2f}"),
    "ssim": Metric(words="SSIM"),
    "lpips": Metric(words="LPIPS"),
    "label_accuracy": Metric(words="label accuracy", rate=True),
    "matching_success_rate": Metric(words="matching success rate", rate=True),
    "seconds_per_step": Metric(words="seconds per step", form="{:.3g}"),
}
