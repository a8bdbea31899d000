#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Everything that is to be measured on a GPU, in under four minutes: correctness, speed, peers, one table.
# Nothing is built here. Usage: tools/gpu/run.sh [OUT]; see README.md beside this file.
#
# OUT                  where results.json, table.txt and log.txt go; also from the environment
# LIMIT                seconds that all of it may take (230)
# ONLY                 steps to run, by name (all): check kernels device peers
#                      host cameras q4 long sweep
# SWEEP                1: look for the fastest tiles first, and measure with those; needs a LIMIT of 400
# STREAMKVQA_KERNELS   a folder of kernels to use in place of the built-in ones
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${OUT:-}}
[ -n "$out" ] || { sed -n '3,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$SECONDS
python=${PYTHON:-python3}

# The bundle of `make gpu-bundle`, or a checkout that `make build` was run in.
if [ -f "$here/bench.gz" ]; then
    gzip -dc "$here/bench.gz" > "$work/bench" && chmod +x "$work/bench"
    bench=$work/bench models=$here/models fixtures=$here/fixtures
    kernels=$here/kernels kernel_tools=$here/kernel-tools
else
    root=$(cd "$here/../.." && pwd)
    bench=${BENCH:-${CARGO_TARGET_DIR:-$root/target}/debug/examples/bench}
    models=$root/models fixtures=$root/tests/fixtures
    kernels=$root/src/model/kernels kernel_tools=$root/tools/kernels
fi
[ -x "$bench" ] || { echo "$bench is not there: run make gpu-bundle or make build" >&2; exit 1; }

# PyTorch's wheels bring CUDA's libraries.
libraries=$("$python" -c '
import glob, site
folders = site.getsitepackages() + [site.getusersitepackages()]
print(":".join(f for p in folders for f in glob.glob(p + "/nvidia/*/lib")))' 2>/dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

if nvidia-smi -L > "$out/log.txt" 2>&1; then
    device=cuda
    shape="--shape llava-onevision-7b --device cuda --dtype bf16 --chunk 10 --tokens 48"
    peers="--shape llava-onevision-7b --device cuda"
    device_stored=128,500,1800 stored=1800 long_stored=500,10000 cameras=16 fixture_names="ov-even ov-odd ov-even-bf16 qwen-wide qwen-hub"
    # Little more than the windows fit on the device, so that a question's blocks come from the host.
    tiers="--max-memory 2500000000 --max-host-memory 64000000000"
    frames=24
else
    echo 'no GPU here' > "$out/log.txt"
    device=cpu
    shape="--shape tiny --device cpu --window 200 --chunk 10 --tokens 8 --repeat 2 --frame-size 64x48"
    peers="--shape tiny --device cpu --window 200 --stored 100 --repeat 1 --tokens 4"
    device_stored=30,60 stored=60 long_stored=30,120 cameras=4 fixture_names=ov-even-bf16
    tiers="--max-memory 4000000 --max-host-memory 64000000"
    frames=12
fi

# step NAME SECONDS COMMAND...: runs one if there is time; renews the table, whatever became of it.
step() {
    local name=$1 limit=$2 left=$((${LIMIT:-230} - (SECONDS - began)))
    shift 2
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    [ "$left" -ge 5 ] || { echo "$name: no time left" | tee -a "$out/log.txt"; return; }
    [ "$limit" -le "$left" ] || limit=$left
    echo "== $name: $*" >> "$out/log.txt"
    local start=$SECONDS
    timeout -k 3 "$limit" "$@" >> "$out/log.txt" 2>&1
    local status=$?
    echo "== $name: status $status after $((SECONDS - start)) s of $limit" | tee -a "$out/log.txt"
    "$python" "$here/table.py" "$work" "$out" > /dev/null 2>> "$out/log.txt"
}

# Attention by tile sizes, warps and stages; all kernels made again with what won, and used from here on.
if [ $device = cuda ] && [ -n "${SWEEP:-}" ]; then
    step sweep 100 "$python" "$kernel_tools/sweep.py" --shape prefill --shape decode --best "$out/variants.json"
    if [ -s "$out/variants.json" ]; then
        STREAMKVQA_VARIANTS=$out/variants.json step make 60 "$python" "$kernel_tools/build.py" --out "$work/kernels"
        [ -s "$work/kernels/table.json" ] && export STREAMKVQA_KERNELS=$work/kernels
    fi
fi

fixture_paths=()
for name in $fixture_names; do fixture_paths+=("$fixtures/$name"); done
# shellcheck disable=SC2086 # lists of options
{
    step check 45 "$bench" check "$models/toyworld" "${fixture_paths[@]}" --device $device --frames $frames \
        --json "$work/check.json"
    # The kernels alone, from their texts, against numpy.
    [ $device = cpu ] || step kernels 20 "$python" "$kernel_tools/check.py" --short --device "${STREAMKVQA_KERNELS:-$kernels}"
    step device 90 "$bench" $shape --method rekv,streamkv,auto --stored $device_stored --seconds 25 \
        --json "$work/device.json"
    if "$python" -c 'import torch' 2>/dev/null; then
        step peers 45 "$python" "$here/peer.py" $peers --json "$work/peers.json"
    else
        echo '== peers: no PyTorch here' | tee -a "$out/log.txt"
    fi
    step host 45 "$bench" $shape --method rekv,streamkv --stored $stored --seconds 18 $tiers \
        --json "$work/host.json"
    step cameras 25 "$bench" $shape --method rekv --stored 10 --repeat 4 --cameras $cameras \
        --json "$work/cameras.json"
    step q4 25 "$bench" $shape --method streamkv --stored 128,256 --store q4 --repeat 1 --seconds 12 \
        --json "$work/q4.json"
    # At 7B ten thousand frames are 112 GB as they come; a quarter of that in q4.
    step long 120 "$bench" $shape --method rekv --stored $long_stored --store q4 --repeat 2 \
        --json "$work/long.json"
}
# How fast each built-in variant of attention is.
if [ $device = cuda ] && [ -z "${SWEEP:-}" ]; then
    step sweep 40 "$python" "$kernel_tools/sweep.py" --shape prefill --shape decode --quick
fi
sed -n '/^== sweep: .*python/,/^== sweep: status/p' "$out/log.txt"
"$python" "$here/table.py" "$work" "$out"
