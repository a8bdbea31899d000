# SPDX-License-Identifier: MPL-2.0
# What every training of this folder needs first; to be sourced. Takes $run, the folder of its checkpoints,
# and leaves $python.
# One thread for each rank: at these sizes threads wait for each other more than they help.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
export TOYWORLD=${TOYWORLD:-$root/target/release/toyworld}

mkdir -p "$run"
[ -x "$TOYWORLD" ] || cargo build --release --manifest-path "$root/Cargo.toml" --package toyworld
if [ ! -x "$run/venv/bin/python" ]; then
    python3 -m venv "$run/venv"
    "$run/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
fi
python=$run/venv/bin/python
cd "$here/training"
