#!/usr/bin/env bash
# All that only a GPU can show, in one command and under 8 minutes: the processor's losses, the same
# bits again, a killed run that goes on, and the time of a step beside PyTorch's.
#
#   scripts/gpu_check.sh [CUVEE [PYTHON]]
#
# CUVEE is the program (default target/release/cuvee), PYTHON one with PyTorch for CUDA. The program
# is all that has to be carried to the machine: `strip` makes it small, and it brings its kernels.
# NVIDIA's libraries may be those that came with PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."
cuvee=${1:-target/release/cuvee} python=${2:-python3}

libraries=$("$python" - <<'PYTHON'
import glob
import os
import site
import sysconfig

folders = {sysconfig.get_path("purelib"), *site.getsitepackages()}
print(":".join(sorted(found for folder in folders for found in glob.glob(os.path.join(folder, "nvidia", "*", "lib")))))
PYTHON
)
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
exec "$python" scripts/gpu_check.py --cuvee "$cuvee" --python "$python"
