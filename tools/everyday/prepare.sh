# SPDX-License-Identifier: MPL-2.0
# What every training of this folder needs first; to be sourced. Takes $run, the folder of its checkpoints,
# and leaves $python.
export CAMERAS=${CAMERAS:-128}
export EVERYDAY=${EVERYDAY:-$root/target/release/everyday}
export EVERYDAY_ATLAS=${EVERYDAY_ATLAS:-$root/target/everyday/atlas.bin}
# Threads that wait must not spin: on a shared machine one of them may not be running. Ranks, one
# thread each, wait less.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1

mkdir -p "$run"
[ -x "$EVERYDAY" ] || cargo build --release --manifest-path "$root/Cargo.toml" --package everyday
[ -f "$EVERYDAY_ATLAS" ] || "$here/atlas.sh" "$EVERYDAY_ATLAS"
if [ ! -x "$run/venv/bin/python" ]; then
    python3 -m venv "$run/venv"
    "$run/venv/bin/pip" install --quiet --requirement "$here/training/requirements.txt"
fi
python=$run/venv/bin/python
cd "$here/training"
# A curriculum may name kinds: these ask where and how things were.
looking_back=where_was+where_now+distance_was+distance_now+which_way+did_appear+beside
