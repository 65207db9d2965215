#!/bin/sh
# Runs SGLang's own conformance kits against a running server.
#
#     tools/acceptance/kits.sh http://127.0.0.1:30000 [kit...]
#
# Without kit names: basic_api_contract_kit and basic_scheduler_stress_kit. The
# kits come from the wheel of sglang 0.5.23, in a virtual environment that is
# kept in third_party/kits-venv; nothing else of SGLang is imported.
set -eu
base_url=${1:?usage: kits.sh BASE_URL [kit...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
venv=${KITS_VENV:-$here/../../third_party/kits-venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --no-deps sglang==0.5.23
    "$venv/bin/pip" install -q requests aiohttp
fi
[ $# -gt 0 ] || set -- basic_api_contract_kit basic_scheduler_stress_kit
exec "$venv/bin/python" "$here/run_kits.py" "$base_url" "$@"
