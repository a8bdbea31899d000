#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Makes libcuda.a, libcublas.a, libcublasLt.a, libcurand.a, libnvrtc.a and libcudart.a, which stand in
# for NVIDIA's libraries when a program is linked: tools/cuda/lazy.sh DIR. What is linked with them needs
# no CUDA library to start. Each function looks its library up when it is first called (dlopen, dlsym)
# and from then on jumps there; where there is none it returns the error that candle makes a sentence of.
# x86-64 with the System V calling convention, which is Linux.
set -euo pipefail
out=${1:?usage: tools/cuda/lazy.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
[ "$(uname -sm)" = 'Linux x86_64' ] || { echo "tools/cuda/lazy.sh knows Linux on x86-64 only" >&2; exit 1; }
# The bindings' source, wherever cargo keeps it; it is fetched if it is not here yet.
manifest=$(cd "$here/../.." && "${CARGO:-cargo}" metadata --format-version 1 --locked --features cuda |
    grep -oE '"manifest_path":"[^"]*/cudarc[^/"]*/Cargo.toml"' | cut -d'"' -f4)
bindings=${manifest%/Cargo.toml}/src
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# library ROOM NAME ABSENT UNKNOWN FILE...: what the bindings of src/ROOM/sys name goes into libNAME.a.
# ABSENT is returned where none of the FILEs is found, UNKNOWN where one is but lacks the function; both
# are numbers that the bindings know.
library() {
    local room=$1 name=$2 absent=$3 unknown=$4
    shift 4
    # Name and kind: what a function returns that is not there. A status, a text, or a number.
    grep -oE '^ +fn cu[A-Za-z0-9_]+\(.*|^ +fn nvrtc[A-Za-z0-9_]+\(.*' "$bindings/$room/sys/mod.rs" |
        sed -E 's/^ +fn ([A-Za-z0-9_]+)\(.*\) -> \*const .*/\1 TEXT/
                s/^ +fn ([A-Za-z0-9_]+)\(.*\) -> (usize|u64|u32|i32);.*/\1 NUMBER/
                s/^ +fn (cuGetError[A-Za-z]+)\(.*/\1 REASON/
                s/^ +fn ([A-Za-z0-9_]+)\(.*/\1 STATUS/' | sort -u > "$work/functions"
    [ -s "$work/functions" ] || { echo "no functions in the bindings of $room" >&2; exit 1; }
    {
        echo "static const char *const files[] = {$(printf '"%s", ' "$@") 0};"
        echo "enum { ABSENT = $absent, UNKNOWN = $unknown, COUNT = $(wc -l < "$work/functions") };"
        echo 'enum kind { STATUS, TEXT, NUMBER, REASON };'
        echo 'static const struct { const char *name; enum kind kind; } functions[] = {'
        sed -E 's/(.*) (.*)/    {"\1", \2},/' "$work/functions"
        echo '};'
        echo "#include \"$here/lazy.h\""
        awk '{ printf "__asm__(\"door %s, %d\");\n", $1, NR - 1 }' "$work/functions"
    } > "$work/$name.c"
    cc -O2 -fPIC -Wall -Wextra -Werror -c -o "$work/$name.o" "$work/$name.c"
    rm -f "$out/lib$name.a"
    ar rcs "$out/lib$name.a" "$work/$name.o"
}

# CUDA_ERROR_NO_DEVICE and CUDA_ERROR_NOT_FOUND; CUBLAS_STATUS_NOT_INITIALIZED and ..._NOT_SUPPORTED;
# CURAND_STATUS_INITIALIZATION_FAILED and ..._INTERNAL_ERROR; NVRTC_ERROR_INTERNAL_ERROR.
library driver cuda 100 500 libcuda.so.1 libcuda.so
library cublas cublas 1 15 libcublas.so.13 libcublas.so.12 libcublas.so
library cublaslt cublasLt 1 15 libcublasLt.so.13 libcublasLt.so.12 libcublasLt.so
library curand curand 203 999 libcurand.so.10 libcurand.so
library nvrtc nvrtc 11 11 libnvrtc.so.13 libnvrtc.so.12 libnvrtc.so
# Nothing here calls the runtime library; candle-kernels names it for the kernels that nvcc.sh leaves out.
rm -f "$out/libcudart.a"
ar rcs "$out/libcudart.a"
