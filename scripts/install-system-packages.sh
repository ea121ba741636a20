#!/usr/bin/env bash
# Installs system packages for the renderers of SAPIEN (Vulkan) and MuJoCo (OpenGL through EGL). The script needs root on
# Debian 12 or newer, or Ubuntu 25.04 or newer. The packages are a 70 MB download and take 300 MB on disk. SAPIEN can
# render on a CPU only with Mesa 24.3 or newer; Debian 12 has this release only in backports.
set -euo pipefail
. /etc/os-release
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
mesa_from=()
if [ "${VERSION_CODENAME:-}" = bookworm ]; then
  mirror=$(apt-cache policy | grep -oE 'https?://[^ ]+ bookworm/main' | awk '{print $1; exit}')
  echo "deb $mirror bookworm-backports main" > /etc/apt/sources.list.d/bookworm-backports.list
  apt-get update -q
  mesa_from=(-t bookworm-backports)
fi
apt-get install -y -q --no-install-recommends "${mesa_from[@]}" mesa-vulkan-drivers
apt-get install -y -q --no-install-recommends libvulkan1 libgl1 libglib2.0-0 libsm6 libxext6 libx11-6
apt-get install -y -q --no-install-recommends "${mesa_from[@]}" libegl1 libegl-mesa0 libgl1-mesa-dri
