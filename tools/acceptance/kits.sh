#!/bin/sh
# Runs SGLang's own conformance kits against a running server.
#
#     tools/acceptance/kits.sh http://127.0.0.1:30000 [kit...]
#
# Without kit names: the eight that ask for nothing but a text model. The kits come
# from the wheel of sglang 0.5.23, in a virtual environment that is kept in
# third_party/kits-venv (or KITS_VENV); nothing else of SGLang is imported.
#
# Some assertions are about what the model knows: qwen_coder.py beside this file fetches
# one that knows enough. matched_stop_kit's test_finish_stop_eos knows the ids of Llama's
# end tokens and 2, so it is for the default model. That the default model fails at the
# others by itself is shown by kits_oracle.py.
set -eu
base_url=${1:?usage: kits.sh BASE_URL [kit...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
venv=${KITS_VENV:-$here/../../third_party/kits-venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/python" -c 'import aiohttp, openai, requests' 2>/dev/null || "$venv/bin/pip" install -q requests openai aiohttp
[ -d "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sglang" ] ||
    "$venv/bin/pip" install -q --no-deps sglang==0.5.23
[ $# -gt 0 ] || set -- basic_api_contract_kit basic_decode_correctness_kit basic_scheduler_stress_kit \
    json_constrained_kit json_mode_kit regex_constrained_kit ebnf_constrained_kit matched_stop_kit
exec "$venv/bin/python" "$here/run_kits.py" "$base_url" "$@"
