#!/bin/sh
# Installs what `make build` has built under a prefix:
#
#   install.sh [PREFIX]      /usr/local by default; below DESTDIR, if that is set
#
#   PREFIX/bin/sglang-mlx    looks for the library where the next line puts it
#   PREFIX/lib/sglang-mlx/   the MLX library, in its wheel's own layout
#
# A server that runs keeps the files that it has opened: new ones take their
# places by a rename.
set -eu

cd "$(dirname "$0")/.."
prefix=${DESTDIR:-}${1:-/usr/local}
binary=${CARGO_TARGET_DIR:-target}/${PROFILE:-release}/sglang-mlx

die() { printf 'install: %s\n' "$*" >&2; exit 1; }

[ -x "$binary" ] || die "$binary is missing; run: make build"
[ -d third_party/mlx/lib ] || die "third_party/mlx is missing; run: make setup"
# Through the link: the folder of the wheel.
wheel=$(cd third_party/mlx && cd "$(pwd -P)/.." && pwd)

home=$prefix/lib/sglang-mlx
mkdir -p "$prefix/bin" "$prefix/lib"
rm -rf "$home.new" "$home.old"
mkdir "$home.new"
for part in "$wheel"/*; do
    # The wheel's own papers stay: they name its licences.
    cp -R "$part" "$home.new/"
done
if [ -e "$home" ]; then mv "$home" "$home.old"; fi
mv "$home.new" "$home"
rm -rf "$home.old"
cp "$binary" "$prefix/bin/.sglang-mlx.new"
chmod 755 "$prefix/bin/.sglang-mlx.new"
chmod -R go+rX "$home"
mv "$prefix/bin/.sglang-mlx.new" "$prefix/bin/sglang-mlx"
printf 'install: %s/bin/sglang-mlx and %s\n' "$prefix" "$home"
