from __future__ import annotations
import shutil
from sim.names import HUB_REPOS, TINY_GEMMA4
def ensure() -> None:
    HUB_REPOS.mkdir(parents=True, exist_ok=True)
    if TINY_GEMMA4.exists():
        shutil.copytree(TINY_GEMMA4, HUB_REPOS / "dgx-spark/tiny-gemma4", dirs_exist_ok=True)
