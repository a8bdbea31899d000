#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Stands before nvcc when candle's kernels are built, as a file named nvcc in a folder of its own.
#
# - The kernels that are kept as text (--ptx) go to the compiler that REAL_NVCC names. Without one their
#   texts are empty: enough to check, lint and link, not to run on a GPU.
# - The kernels that would be linked (-c, then --lib) are candle's for GGUF files and mixtures of experts,
#   three quarters of the work and 37 MB, and nothing here calls them. In their place come functions that
#   say so and end the process.
set -eu

out= dir=. source= action=
previous=
for argument; do
    case $previous in
        -o) out=$argument ;;
        --output-directory) dir=$argument ;;
    esac
    case $argument in
        --version | --ptx | --lib | -c) action=$argument ;;
        *.cu) source=$argument ;;
    esac
    previous=$argument
done

case $action in
    --version)
        # As nvcc prints it: cudarc reads the fourth line.
        echo 'nvcc: tools/cuda/nvcc.sh before the CUDA compiler driver'
        echo
        echo
        echo 'Cuda compilation tools, release 13.0, V13.0'
        ;;
    --ptx)
        if [ -n "${REAL_NVCC-}" ]; then exec "$REAL_NVCC" "$@"; fi
        name=${source##*/}
        : > "$dir/${name%.cu}.ptx"
        ;;
    -c)
        : > "$out"
        ;;
    --lib)
        # A build script runs in its crate's folder.
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        {
            echo '#include <stdio.h>'
            echo '#include <stdlib.h>'
            grep -oE 'pub fn [A-Za-z0-9_]+' src/ffi.rs | sort -u | sed 's/pub fn \(.*\)/void \1(void) {\
    fputs("\1: kernels for GGUF and mixtures of experts are not in this build\\n", stderr);\
    abort();\
}/'
        } > "$work/absent.c"
        cc -O2 -fPIC -c -o "$work/absent.o" "$work/absent.c"
        rm -f "$out"
        ar rcs "$out" "$work/absent.o"
        ;;
    *)
        echo "tools/cuda/nvcc.sh does not know what to do: $*" >&2
        exit 1
        ;;
esac
