"""Opens MLflow's page of runs: `make ui`, or `python -m sweeps.tracking.ui`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

from sweeps.tracking.mlflow import tracking_address

PORT = 5000
STARTING = 8.0  # seconds that the server needs before a browser finds it


def runs_page(address: str, port: int = PORT) -> str:
    """The page of the runs of the study that was changed last.

    MLflow's own start page lists traces of language models, which a study does not have.

    Args:
        address: address of the store.
        port: port of the server.
    """
    from mlflow import MlflowClient

    experiments = MlflowClient(tracking_uri=address).search_experiments()
    studies = [experiment for experiment in experiments if experiment.name != "Default"]
    newest = max(studies, key=lambda experiment: experiment.last_update_time, default=None)
    # MLflow folds the cells into the study's run where it sorts by date or filters nothing.
    cells = "searchFilter=tags.level%20%3D%20%27cell%27&orderByKey=params.%60variant%60&orderByAsc=true"
    page = "experiments" if newest is None else f"experiments/{newest.experiment_id}/runs?{cells}"
    return f"http://127.0.0.1:{port}/#/{page}"


def main(root: Path = Path("runs")) -> int:
    """Starts the server, and opens the page in a browser where there is one. Ctrl-C ends the server."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    root.mkdir(exist_ok=True)
    address = tracking_address(root)
    page = runs_page(address)
    print(f"MLflow: {page} (Ctrl-C ends it)", flush=True)
    timer = threading.Timer(STARTING, webbrowser.open, [page])
    timer.daemon = True
    timer.start()
    words = ["ui", "--backend-store-uri", address, "--host", "127.0.0.1", "--port", str(PORT), "--workers", "1"]
    try:
        return subprocess.run([sys.executable, "-m", "mlflow", *words], check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
