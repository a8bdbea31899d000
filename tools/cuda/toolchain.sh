#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What the cargo feature `cuda` needs to build, without a GPU, a driver or root. Usage:
#
#   eval "$(tools/cuda/toolchain.sh DIR)"           a CUDA 13.0 compiler from PyPI wheels
#   eval "$(tools/cuda/toolchain.sh --check DIR)"   no compiler: what is built starts and runs on the CPU
set -euo pipefail
check=
if [ "${1-}" = --check ]; then check=yes; shift; fi
dir=${1:?usage: tools/cuda/toolchain.sh [--check] DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
tree=$dir/tree/nvidia/cu13

if [ -z "$check" ] && [ ! -e "$dir/complete" ]; then
    mkdir -p "$dir/wheels" "$dir/tree"
    # 13.0: later compilers write PTX that drivers of the 13.0 generation refuse.
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$dir/wheels" \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' \
        'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' >&2
    for wheel in "$dir"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dir/tree"; done
    chmod +x "$tree"/bin/* "$tree"/nvvm/bin/*
    rm -r "$dir/wheels"
    touch "$dir/complete"
fi

# The root that the build scripts see: our nvcc and our stand-ins for the libraries, nothing else. Both
# are renewed only where they changed, since build scripts run again when they did.
root=$dir/${check:+check-}root
mkdir -p "$root/bin" "$root/lib"
ln -sfn "$here/nvcc.sh" "$root/bin/nvcc"
stamp=$(cat "$here/lazy.sh" "$here/lazy.h" | cksum)
if [ "$stamp" != "$(cat "$root/stamp" 2>/dev/null)" ]; then
    "$here/lazy.sh" "$root/lib"
    echo "$stamp" > "$root/stamp"
fi

cat <<END
export CUDA_HOME=$root CUDA_ROOT=$root CUDA_PATH=$root NVCC=$root/bin/nvcc PATH=$root/bin:\$PATH
export CUDARC_CUDA_VERSION=13000 CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80} LIBRARY_PATH=$root/lib:\${LIBRARY_PATH:-}
END
if [ -z "$check" ]; then echo "export REAL_NVCC=$tree/bin/nvcc"; else echo "unset REAL_NVCC"; fi
