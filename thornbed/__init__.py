"""Thornbed: a federated-learning security testbed on Flower.

In a checkout, and in the bundle that Flower sends along, the packages lie beside this folder: `attacks` is the
folder `attacks`. In an installed wheel they lie within it. The project file tells the two apart.
"""

from pathlib import Path

_own = Path(__file__).resolve().parent
_beside = _own.parent
if (_beside / "pyproject.toml").is_file() and (_beside / "flower_apps").is_dir():
    __path__ = [str(_own), str(_beside)]
