#!/usr/bin/env bash
# A CUDA toolkit to build the feature `cuda` with, which runs the reference engine on a GPU: from
# PyPI's wheels, with no GPU and no installer. The fused engine needs none of this.
#
#   scripts/cuda-toolkit.sh FOLDER [stub]
#   . FOLDER/env && cargo build --release --features cuda
#
# With `stub` cuBLAS, cuRAND and NVRTC are not fetched (1.2 GB): programs link against libraries
# of their names that hold nothing. A program so linked starts, and finds no GPU, with
# LD_LIBRARY_PATH=$CUDA_HOME/lib/stubs. Needs gcc, and cudarc in Cargo's registry (`cargo fetch`).
set -euo pipefail
folder=${1:?a folder} version=13.0.3.0
parts=nvcc,cccl,cudart
[ "${2:-}" = stub ] || parts=$parts,cublas,curand,nvrtc
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "cuda-toolkit[$parts]==$version"
home=$(realpath "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)
ln -sfn lib "$home/lib64"
mkdir -p "$home/lib/stubs"
# The linker looks for names without a version.
for file in "$home"/lib/lib*.so.*; do
    name=$(basename "$file")
    case $name in *.alt.*) continue ;; esac
    ln -sfn "$name" "$home/lib/${name%%.so.*}.so"
done

bindings=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-*/src | tail -1)
# stub NAME FILE MODULE CODE: a library of the functions that cudarc binds; all return CODE.
stub() {
    grep -hoE '\bpub (unsafe )?fn (cu|nv)[A-Za-z0-9_]+' "$bindings/$3/sys/mod.rs" | awk '{ print $NF }' | sort -u |
        awk -v code="$4" '{ print "int " $1 "(void) { return " code "; }" }' |
        gcc -shared -fPIC -w -Wl,-soname,"$2" -o "$home/lib/stubs/lib$1.so" -x c -
    [ "$2" = "lib$1.so" ] || ln -sfn "lib$1.so" "$home/lib/stubs/$2"
}
stub cuda libcuda.so.1 driver 100 # "no device"
if [ "${2:-}" = stub ]; then
    stub cublas libcublas.so.13 cublas 1
    stub cublasLt libcublasLt.so.13 cublaslt 1
    stub curand libcurand.so.10 curand 1
    stub nvrtc libnvrtc.so.13 nvrtc 1
fi
{
    echo "export CUDA_HOME='$home' PATH='$home/bin':\"\$PATH\""
    # Of the GPU that Candle's kernels are compiled for: sm_90, unless it is said otherwise.
    echo 'export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}'
} >"$folder/env"
echo "$home: $(du -shL "$home" | cut -f1)"
