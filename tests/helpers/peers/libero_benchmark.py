"""vla-eval's LIBERO benchmark, with LIBERO's assets from a folder of this machine. Runs in an environment with both."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

package = Path(find_spec("libero").submodule_search_locations[0]) / "libero"
config = Path(os.environ["LIBERO_CONFIG_PATH"])  # without the file, LIBERO asks on the terminal
config.mkdir(exist_ok=True)
paths = {"benchmark_root": package, "bddl_files": package / "bddl_files", "init_states": package / "init_files"}
paths |= {"datasets": package.parent / "datasets", "assets": os.environ["MUVLA_LIBERO_ASSETS"]}
(config / "config.yaml").write_text(json.dumps({name: str(path) for name, path in paths.items()}))

import libero.libero  # noqa: E402

libero.libero._assets_path_cache = os.environ["MUVLA_LIBERO_ASSETS"]  # else LIBERO downloads them

from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark  # noqa: E402, F401
