#!/bin/sh
# All acceptance scripts, short, on this machine, and a table of what came out.
#
#   run.sh gpu|cpu MODEL_PATH [FLAGS OF THE SERVER...]
#
# BINARY names the server; SOAK_MINUTES=10 adds the soak. Each script may take LIMIT seconds.
set -u
[ $# -ge 2 ] || { sed -n '4,6s/^# *//p' "$0"; exit 2; }
size=$1 model=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
binary=${BINARY:-$here/../../target/release/sglang-mlx}
table=$(mktemp)
trap 'rm -f "$table"' EXIT
failed=0

# one SCRIPT OPTIONS... -- FLAGS OF THE SERVER...
one() {
    script=$1
    shift
    echo "== $script"
    log=$(timeout "${LIMIT:-300}" python3 "$here/$script.py" --binary "$binary" --model-path "$model" "$@")
    code=$?
    echo "$log"
    [ $code -eq 0 ] || failed=1
    line=$(echo "$log" | grep -E '^(PASS|MISS) ' | tail -n 1)
    echo "${line:-FAIL $script: exit status $code}" >>"$table"
}

case $size in
gpu)
    one ttft_warm -- "$@"
    one long_prefill -- "$@"
    one decode_growth -- "$@"
    one steady_state --steps 1500 -- "$@"
    one beside_long_prompt -- "$@"
    [ -z "${SOAK_MINUTES:-}" ] ||
        LIMIT=$((SOAK_MINUTES * 60 + 300)) one soak --minutes "$SOAK_MINUTES" -- "$@"
    ;;
cpu)
    one ttft_warm --prefix-len 1024 --rounds 1 -- "$@"
    one long_prefill --lengths 128 512 --chunk 128 -- "$@"
    one decode_growth --long 512 --output-len 16 -- "$@"
    one steady_state --streams 2 --steps 120 --first 20 -- "$@"
    one beside_long_prompt --streams 2 --stream-len 150 --undisturbed 20 --long-len 1024 --chunk 128 -- "$@"
    [ -z "${SOAK_MINUTES:-}" ] ||
        LIMIT=$((SOAK_MINUTES * 60 + 300)) one soak --clients 4 --minutes "$SOAK_MINUTES" --output-len 32 -- "$@"
    ;;
*) echo "gpu or cpu, not $size" >&2; exit 2 ;;
esac
echo
cat "$table"
exit $failed
