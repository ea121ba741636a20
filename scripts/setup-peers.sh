#!/usr/bin/env bash
# Environments of their own for the tests marked `peers`: vla-eval 0.8.0 and openpi-client 0.1.2 from PyPI.
#   scripts/setup-peers.sh FOLDER && MUVLA_PEERS=FOLDER pytest -m peers tests/test_peers.py
set -euo pipefail
folder=${1:?usage: scripts/setup-peers.sh FOLDER}
python=${PYTHON:-python3.11}
# openpi-client 0.1.2 imports typing_extensions, which its metadata do not list.
for peer in vla-eval==0.8.0 "openpi-client==0.1.2 typing_extensions"; do
    environment="$folder/${peer%%==*}"
    [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install -q --disable-pip-version-check $peer
done
echo "export MUVLA_PEERS=$folder"
