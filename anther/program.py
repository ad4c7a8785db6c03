"""Where the program's own packages are, whatever folder Python was started in.

`service`, `training` and `bundle` are common names. A project may have folders or packages called so, and Python would
take those first. Importing this module puts the folder that holds ours before all others on `sys.path`; processes that
`multiprocessing` starts inherit that path. A process that is started as a command runs its module with
`python -m anther.program MODULE ARGUMENTS`.
"""

import runpy
import sys
from pathlib import Path

PACKAGES = ("bundle", "service", "training")
_INSTALLED = Path(__file__).parent / "_program"  # where a wheel has them; in a checkout they lie beside this package
ROOT = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1]
EMBEDDED_MODELS = ROOT / "models"

if sys.path[:1] != [str(ROOT)]:
    sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
