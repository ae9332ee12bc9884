#!/bin/sh
# Make .venv with everything `make sweep` and `make test` need. Called by the Makefile.
# An interpreter that has a torch with CUDA keeps it, and what else it has. Otherwise a machine with an NVIDIA driver gets
# the CUDA build of torch that this driver runs, any other the CPU build.
set -eu

python="${PYTHON:-python3}"
torch=2.13.0
index=https://download.pytorch.org/whl
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet"
has_cuda='import torch, sys; sys.exit(torch.version.cuda is None)'

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "mixprof needs Python 3.10 or newer")'
if "$python" -c "$has_cuda" 2>/dev/null; then
    "$python" -m venv --system-site-packages .venv
    constraints=.venv/constraints.txt
    "$python" -c 'import torch; print(f"torch=={torch.__version__}")' > $constraints
else
    "$python" -m venv .venv
    constraints=constraints.txt
    driver=$(PYTHONPATH=src "$python" -c 'from mixprof.machine.cuda_driver import version; print(version() or "none")')
    if .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$torch')" 2>/dev/null; then
        : # already there
    else
        case "$driver-$(uname -s)-$(uname -m)" in
        none-Linux-x86_64)
            # The sources pip is set up with may hold the CPU build; its own index does.
            $pip "torch==$torch+cpu" 2>/dev/null || $pip "torch==$torch+cpu" --index-url $index/cpu ;;
        none-* | 1[3-9].* | [2-9][0-9].*) $pip "torch==$torch" ;;
        12.*) $pip "torch==$torch+cu126" --index-url $index/cu126 ;;
        *)
            echo "the NVIDIA driver runs CUDA $driver, expected 12 or newer: update it, or name an interpreter that has" \
                "a torch for it: make PYTHON=/path/to/python" >&2
            exit 1 ;;
        esac
    fi
fi
# onnxruntime and onnxruntime-gpu are one module: the one that is there stays, and never are both installed.
if .venv/bin/python -c 'import onnxruntime' 2>/dev/null; then extras=dev
elif .venv/bin/python -c "$has_cuda" 2>/dev/null; then extras=dev,onnxruntime-gpu
else extras=dev,onnxruntime; fi
$pip --constraint $constraints --editable ".[$extras]"
.venv/bin/python scripts/type_stubs.py
touch .venv/ready
