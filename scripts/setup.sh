#!/bin/sh
# Make .venv with everything `make sweep` and `make test` need. Called by the Makefile.
# A machine with an NVIDIA GPU gets the CUDA build of torch, any other the CPU build.
set -eu

torch=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet"

"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "mixprof needs Python 3.10 or newer")'
"${PYTHON:-python3}" -m venv .venv

if .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$torch')" 2>/dev/null; then
    : # already there
elif [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ] || nvidia-smi >/dev/null 2>&1; then
    $pip "torch==$torch"
else
    # The sources pip is set up with may hold the CPU build; its own index does.
    $pip "torch==$torch+cpu" 2>/dev/null || $pip "torch==$torch+cpu" --index-url "$cpu_index"
fi
$pip --constraint constraints.txt --editable '.[dev,onnxruntime]'
.venv/bin/python scripts/type_stubs.py
touch .venv/ready
