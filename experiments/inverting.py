"""What `thornbed invert` does: recorded updates in, images out, with no run and no data set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thornbed.flower_apps.inversion.files import write_inversions
from thornbed.flower_apps.inversion.inverting import Inversions, invert, mean_known
from thornbed.flower_apps.inversion.records import INVERSIONS
from thornbed.flower_apps.metrics import METRICS
from thornbed.flower_apps.records.folder import alone
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.run.run import device_of
from thornbed.flower_apps.settings import BadSettings, Interrupted, settings_from
from thornbed.protocol.recordings import recordings_in


def run(
    recordings: Sequence[Path],
    attack: str,
    output: Path | None,
    model: str | None,
    seed: int,
    device: str,
    out: Console,
    err: Console,
) -> None:
    """Invert recordings, print what came out, and write it; the arguments are those of the command line."""
    paths = _paths(recordings)
    folder = (output or Path("runs") / f"invert-{time.strftime('%Y%m%d-%H%M%S')}").expanduser().resolve()
    if (folder / INVERSIONS).exists():
        raise BadSettings(f"--output {folder} holds inversions already; name another folder")
    chosen = device_of(resolve(settings_from({"device": device})).device)
    with alone(folder):
        try:
            with err.status(f"Inverting {len(paths)} update{'' if len(paths) == 1 else 's'} with {escape(attack)}"):
                inversions = invert(paths, attack, seed=seed, device=chosen, model=model)
        except BadSettings:
            raise
        except ValueError as error:
            raise BadSettings(str(error)) from error
        except KeyboardInterrupt:
            raise Interrupted("interrupted; an inversion keeps nothing before its last step") from None
        write_inversions(folder, inversions)
    _say(inversions, out)
    out.print(f"Pictures and numbers: {folder}", markup=False, highlight=False, soft_wrap=True)


def _paths(given: Sequence[Path]) -> list[Path]:
    """Return the recordings that are named, those of folders by name; raises BadSettings where there are none."""
    paths: dict[Path, None] = {}
    for path in (each.expanduser() for each in given):
        if path.is_dir():
            found = recordings_in(path)
            if not found:
                raise BadSettings(f"{path} holds no recordings; thornbed run --record DIR makes some")
            paths |= dict.fromkeys(found)
        elif path.is_file():
            paths[path] = None
        else:
            raise BadSettings(f"{path} is not there; name a recording, or a folder of them")
    return list(paths)


def _say(inversions: Inversions, out: Console) -> None:
    table = Table("recording", title=escape(inversions.spec), title_justify="left")
    for name in ("images", "PSNR", "SSIM", "LPIPS", "loss", "best step"):
        table.add_column(name, justify="right")
    for result in inversions.results:
        found, scores = result.reconstruction, result.scores()
        means = [mean_known(scores[name] or ()) for name in ("psnr", "ssim", "lpips")]
        losses = found.losses[found.losses.isfinite()]
        table.add_row(
            escape(result.path.name),
            str(len(found.images)),
            *(METRICS[name].shown(value) for name, value in zip(("psnr", "ssim", "lpips"), means, strict=True)),
            f"{float(losses.min()):.4g}" if len(losses) else "–",
            f"{found.best_step} of {len(found.losses) - 1}",
        )
    out.print(table)
    for name, value in inversions.metrics().items():
        if value is not None and name in ("label_accuracy", "matching_success_rate", "seconds_per_step"):
            out.print(f"{METRICS[name].words}: {METRICS[name].shown(value)}", highlight=False)
    for sentence in inversions.beware():
        out.print(f"Beware: {sentence}.", markup=False, highlight=False, soft_wrap=True)
