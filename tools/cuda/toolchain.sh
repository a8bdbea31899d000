#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Makes a CUDA 13.0 toolchain from PyPI wheels, without a GPU, a driver or root: what the cargo
# feature `cuda` needs to build. Usage: eval "$(tools/cuda/toolchain.sh DIR)"; 1.2 GB in DIR.
set -euo pipefail
dir=${1:?usage: tools/cuda/toolchain.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cuda=$dir/tree/nvidia/cu13

if [ ! -e "$dir/complete" ]; then
    mkdir -p "$dir/wheels" "$dir/tree"
    # 13.0: later compilers write PTX that drivers of the 13.0 generation refuse.
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$dir/wheels" \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' \
        'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' \
        'nvidia-cublas==13.0.*' 'nvidia-curand==10.4.0.35' >&2
    for wheel in "$dir"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dir/tree"; done
    chmod +x "$cuda"/bin/* "$cuda"/nvvm/bin/*
    ln -sfn lib "$cuda/lib64"
    for library in cublas cublasLt cudart curand nvrtc; do
        found=$(cd "$cuda/lib" && ls lib$library.so.* | grep -v alt | head -1)
        ln -sf "$found" "$cuda/lib/lib$library.so"
    done
    rm -r "$dir/wheels"
    touch "$dir/complete"
fi

# The driver's library comes with a driver. In its place, for linking only: every function that the
# bindings name, each saying CUDA_ERROR_NO_DEVICE.
stub=$cuda/lib/stubs
if [ ! -e "$stub/libcuda.so" ]; then
    mkdir -p "$stub"
    bindings=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19*/src/driver/sys/mod.rs 2>/dev/null | tail -1)
    [ -n "$bindings" ] || { echo "run 'cargo fetch' first" >&2; exit 1; }
    grep -oE 'pub (unsafe )?fn cu[A-Za-z0-9_]+' "$bindings" | awk '{print $NF}' | grep -v culib | sort -u |
        sed 's/.*/int &(void) { return 100; }/' > "$stub/cuda.c"
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stub/libcuda.so" "$stub/cuda.c"
    ln -sf libcuda.so "$stub/libcuda.so.1"
fi

cat <<END
export CUDA_HOME=$cuda CUDA_ROOT=$cuda CUDA_PATH=$cuda NVCC=$cuda/bin/nvcc PATH=$cuda/bin:\$PATH
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80} LIBRARY_PATH=$cuda/lib/stubs:$cuda/lib:\${LIBRARY_PATH:-}
END
