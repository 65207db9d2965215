#!/bin/sh
# All acceptance scripts, short, on this machine, and a table of what came out.
#
#   run.sh gpu|cpu MODEL_PATH [FLAGS OF THE SERVER...]
#
# BINARY names the server; SOAK_MINUTES=10 adds the soak; ONLY="long_prefill soak" runs these alone.
# Each script may take LIMIT seconds.
set -u
[ $# -ge 2 ] || { sed -n '4,6s/^# *//p' "$0"; exit 2; }
size=$1 model=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
binary=${BINARY:-$here/../../target/release/sglang-mlx}
table=$(mktemp) ready=$(mktemp)
keeper='' url='' pid='' failed=0

clean_up() {
    if [ -n "$keeper" ]; then
        kill "$keeper" 2>/dev/null
        wait "$keeper"
    fi
    rm -f "$table" "$ready"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

wanted() {
    case " ${ONLY:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
}

# one SCRIPT OPTIONS... -- FLAGS OF THE SERVER...
one() {
    script=$1
    shift
    wanted "$script" || return
    echo "== $script"
    log=$(timeout "${LIMIT:-300}" python3 "$here/$script.py" --binary "$binary" --model-path "$model" "$@")
    code=$?
    echo "$log"
    [ $code -eq 0 ] || failed=1
    line=$(echo "$log" | grep -E '^(PASS|MISS) ' | tail -n 1)
    echo "${line:-FAIL $script: exit status $code}" >>"$table"
}

# start FLAGS OF THE SERVER...
# Most scripts share a server: on a GPU its start takes up to a minute.
start() {
    wanted ttft_warm || wanted steady_state || wanted beside_long_prompt || wanted soak || return
    echo "== server"
    python3 "$here/serve.py" --binary "$binary" --model-path "$model" -- "$@" >"$ready" &
    keeper=$!
    while [ ! -s "$ready" ] && kill -0 "$keeper" 2>/dev/null; do sleep 0.2; done
    read -r url pid <"$ready" || { echo "FAIL server: did not start" >>"$table"; failed=1; }
}

# shared SCRIPT OPTIONS... -- FLAGS OF THE SERVER...
shared() {
    [ -n "$url" ] || return
    script=$1
    shift
    one "$script" --url "$url" --pid "$pid" "$@"
}

case $size in
gpu)
    one long_prefill -- "$@"
    one decode_growth -- "$@"
    start --max-total-tokens 131072 --max-running-requests 64 --chunked-prefill-size 2048 "$@"
    shared ttft_warm -- "$@"
    shared steady_state --steps 10000 -- "$@"
    # The bar of a step's host time is for 32 requests.
    shared steady_state --streams 32 --steps 2000 -- "$@"
    shared beside_long_prompt -- "$@"
    [ -z "${SOAK_MINUTES:-}" ] ||
        LIMIT=$((SOAK_MINUTES * 60 + 300)) shared soak --minutes "$SOAK_MINUTES" -- "$@"
    ;;
cpu)
    one long_prefill --lengths 128 512 --chunk 128 -- "$@"
    one decode_growth --lengths 128 512 --output-len 16 -- "$@"
    start --max-total-tokens 8192 --chunked-prefill-size 128 "$@"
    shared ttft_warm --prefix-len 1024 --rounds 1 -- "$@"
    shared steady_state --streams 2 --steps 120 --first 20 -- "$@"
    shared beside_long_prompt --streams 2 --stream-len 400 --undisturbed 20 --long-len 1024 --chunk 128 -- "$@"
    [ -z "${SOAK_MINUTES:-}" ] ||
        LIMIT=$((SOAK_MINUTES * 60 + 300)) shared soak --clients 4 --minutes "$SOAK_MINUTES" --output-len 32 -- "$@"
    ;;
*) echo "gpu or cpu, not $size" >&2; exit 2 ;;
esac
echo
cat "$table"
exit $failed
