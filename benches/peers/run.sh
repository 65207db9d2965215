#!/bin/sh
# Compares with other engines on this machine and prints the ratios:
#
#   run.sh cpu [options of cpu.py]    llama.cpp and mlx-lm, the default model
#   run.sh gpu [options of gpu.py]    mlx-lm, random weights of real shapes
#
# Installs the peers first if they are missing (install.sh). Needs `make build`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
what=${1:-}
case $what in
cpu | gpu) shift ;;
*)
    printf 'usage: run.sh cpu|gpu [options]\n' >&2
    exit 2
    ;;
esac
if [ "$what" = cpu ] || [ -z "${PEERS_PYTHON:-}" ]; then
    "$here/install.sh" "$what" >&2
fi
exec python3 "$here/$what.py" "$@"
