#!/usr/bin/env bash
# Environments of their own for the tests marked `peers`: vla-eval 0.8.0 and openpi-client 0.1.2 from PyPI.
#   scripts/setup-peers.sh FOLDER && MUVLA_PEERS=FOLDER pytest -m peers tests/test_peers.py
# If PYTHON has LIBERO (`make libero`), a third environment puts vla-eval on top of PYTHON's packages: vla-eval's LIBERO
# benchmark needs both.
set -euo pipefail
folder=${1:?usage: scripts/setup-peers.sh FOLDER}
python=${PYTHON:-python3.11}
# openpi-client 0.1.2 imports typing_extensions, which its metadata do not list.
for peer in vla-eval==0.8.0 "openpi-client==0.1.2 typing_extensions"; do
    environment="$folder/${peer%%==*}"
    [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install -qq --disable-pip-version-check $peer
done
if "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('libero') is None)"; then
    environment="$folder/vla-eval-libero"
    [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
    packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    "$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$packages/libero.pth"
    "$environment/bin/python" -m pip install -qq --disable-pip-version-check vla-eval==0.8.0
fi
echo "export MUVLA_PEERS=$folder"
