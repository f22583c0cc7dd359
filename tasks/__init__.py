"""What is learned: data, partition, model, loss and metrics; one task a file.

Every public module of this folder is a task that `--task NAME` names; it holds a function of the same name,
`NAME(data_dir, *, options) -> Task`, and a constant `DEFAULTS: Defaults`. It may have a constant `TUNED: Tuned` too, as
may one of `tasks/multitask`. Torch only: nothing in this folder knows Flower.
"""

from thornbed.tasks.samples import Defaults, Modality, Samples, Split, Task, Tuned

__all__ = ["Defaults", "Modality", "Samples", "Split", "Task", "Tuned"]
