#!/bin/sh
# Lays a package `vllm` into the image: enough to be found, imported, asked for its version, and patched by a mount.
set -eu
packages=$(python3 -c 'import sys; print(f"/usr/local/lib/python3.{sys.version_info.minor}/dist-packages")')
models="$packages/vllm/model_executor/models"
mkdir -p "$models" "$packages/vllm-$1.dist-info"
printf '"""A stand-in for vLLM."""\n\n__version__ = "%s"\n' "$1" > "$packages/vllm/__init__.py"
: > "$packages/vllm/model_executor/__init__.py"
: > "$models/__init__.py"
cp /opt/lab/sim/vllm_scripted/image/gemma4.py "$models/gemma4.py"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$1" > "$packages/vllm-$1.dist-info/METADATA"
printf '#!/bin/sh\nexec env PYTHONPATH=/opt/lab PYTHONUNBUFFERED=1 python3 -m sim.vllm_scripted "$@"\n' > /usr/local/bin/vllm
chmod 755 /usr/local/bin/vllm
python3 -m compileall -q /opt/lab "$packages"
