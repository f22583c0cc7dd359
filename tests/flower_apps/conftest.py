"""What tests of pictures and of the report share: the files that finished inversions leave."""

import json

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def inverted():
    """Return a function that writes the files of inversions, each a dict of tensors and of what differs in its record.

    `images` (n, C, H, W) has to be there; `originals`, `snapshots` (k, n, C, H, W) and `snapshot_steps` need not.
    """

    def leave(folder, *inversions, **values):
        folder.mkdir(parents=True, exist_ok=True)
        tensors, records = {}, []
        for place, each in enumerate(inversions):
            stored = {name: value for name, value in each.items() if isinstance(value, torch.Tensor)}
            count = len(stored["images"])
            whole = {name: value.clone(memory_format=torch.contiguous_format) for name, value in stored.items()}
            tensors |= {f"{place}/{name}": value for name, value in whole.items()}
            records.append({
                "round": 1, "client": place, "num_samples": count, "local_steps": 1, "learning_rate": 1e-4,
                "labels": [0] * count, "true_labels": [0] * count, "psnr": [20.0] * count, "ssim": [0.5] * count,
                "lpips": None, "unscored": None, "loss": 0.01, "best_step": 180, "steps": 200,
                "seconds_per_step": 0.02, "together": 1, "failure": None,
                **{name: value for name, value in each.items() if name not in stored},
            })  # fmt: skip
        content = {
            "curious": "agic(steps=200)", "observed": "rounds 1", "seconds": 12.3, "peak_memory_mib": 512.0,
            "warnings": [], "lpips_missing": "LPIPS needs a file, which is not there", **values, "inversions": records,
        }  # fmt: skip
        (folder / "inversions.json").write_text(json.dumps(content))
        save_file(tensors, folder / "inversions.safetensors")
        return folder

    return leave
