#!/usr/bin/env bash
# Installs the renderer's system packages if SAPIEN cannot render yet and we are root on Debian or Ubuntu. Never fails: the
# tests decide what a missing renderer means (a skip with its reason; a failure under CI).
set -u
python=$1
can_render() {
  "$python" -c "from muvla.envs.mikasa import MikasaEnv; MikasaEnv('RememberColor3-VLA-v0').reset(seed=0)" >/dev/null 2>&1
}
can_render && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing the renderer's system packages"
  log=$(mktemp)
  bash "$(dirname "$0")/install-system-packages.sh" >"$log" 2>&1 || { echo "that failed:"; tail -n 5 "$log"; }
  rm -f "$log"
fi
can_render || echo "no renderer: the simulator's tests will be skipped (as root: scripts/install-system-packages.sh)"
exit 0
