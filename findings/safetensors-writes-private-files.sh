#!/usr/bin/env bash
# Since 0.8, safetensors' save_file leaves every file with mode 0600, whatever the umask says; a file that
# was there with a wider mode is replaced and loses it. Up to 0.7 the umask counted and an existing mode
# was kept. So a checkpoint that one user saves cannot be read by a server that runs as another, while
# config.json and tokenizer beside it can: the error names the weights only.
#
# Versions: safetensors 0.7.0 and 0.8.0, numpy 2.4.6, Python 3.11, Linux.
# Seen with umask 022, and over a file of mode 0664:
#   0.7.0 new 0644 over 0664
#   0.8.0 new 0600 over 0600
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

seen=""
for version in 0.7.0 0.8.0; do
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "safetensors==$version" numpy==2.4.6
  seen+=$(cd "$folder" && umask 022 && "$folder/venv/bin/python" - "$version" <<'PYTHON'
import os
import stat
import sys

import numpy
from safetensors.numpy import save_file


def mode(name: str) -> str:
    return f"{stat.S_IMODE(os.stat(name).st_mode):04o}"


values = {"weight": numpy.zeros(2, dtype=numpy.float32)}
save_file(values, "new.safetensors")
new = mode("new.safetensors")
os.chmod("new.safetensors", 0o664)
save_file(values, "new.safetensors")
print(sys.argv[1], "new", new, "over", mode("new.safetensors"))
os.remove("new.safetensors")
PYTHON
)$'\n'
done
printf '%s' "$seen"
[ "$seen" = $'0.7.0 new 0644 over 0664\n0.8.0 new 0600 over 0600\n' ] || { echo "it behaves otherwise now" >&2; exit 1; }
