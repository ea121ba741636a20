#!/usr/bin/env bash
# Installs the renderers' system packages if SAPIEN or LIBERO cannot render and the user is root on Debian or Ubuntu. The
# script never fails. The tests report a missing renderer: a skip with its reason, or a failure under CI.
set -u
python=$1
sapien() { "$python" -c "from muvla.envs.mikasa import MikasaEnv; MikasaEnv('RememberColor3-VLA-v0').reset(seed=0)" 2>&1; }
opengl() { MUJOCO_GL=${MUJOCO_GL:-egl} "$python" -c "import mujoco; mujoco.GLContext(16, 16).make_current()" 2>&1; }
sapien >/dev/null && opengl >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing the renderers' system packages"
  log=$(mktemp)
  bash "$(dirname "$0")/install-system-packages.sh" >"$log" 2>&1 || { echo "the installation failed:"; tail -n 5 "$log"; }
  rm -f "$log"
fi
for renderer in sapien opengl; do
  problem=$("$renderer") || {
    echo "no $renderer renderer: the simulator's tests will be skipped. Remedy: run scripts/install-system-packages.sh as root"
    echo "  ${problem##*$'\n'}"
  }
done
exit 0
