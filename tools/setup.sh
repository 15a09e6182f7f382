#!/bin/sh
# Make .venv anew with the pinned, hashed requirements: by uv where it is installed, else by venv
# and pip. PYTHON names the interpreter; without it, the first fitting one on the PATH is taken.
# `setup.sh hub` adds the optional KerasHub to the .venv that is there, `setup.sh onnx` ONNX,
# `setup.sh ray` Ray, `setup.sh s3` remotes in S3, `setup.sh upkeep` the tools that look after
# dependencies and tests.
set -eu
cd "$(dirname "$0")/.."

install() {
    # On a terminal the installer shows how far it is.
    quiet=--quiet
    if [ -t 2 ]; then quiet=; fi
    if command -v uv >/dev/null 2>&1; then
        uv pip install $quiet --python .venv/bin/python --require-hashes "$@"
    else
        # Compiled when first imported, as uv does, and not all of TensorFlow's 10,000 files now.
        .venv/bin/python -m pip install $quiet --disable-pip-version-check --require-hashes \
            --no-compile "$@"
    fi
}

if [ -n "${1:-}" ]; then
    # Both files, as what the first one pins is needed by the second one's packages.
    install -r requirements.txt -r "requirements-$1.txt"
    exit
fi

if [ -L .venv ]; then
    echo "error: .venv is a link to $(readlink .venv), which others may use, and would be made anew;" \
        "remove the link, or make setup where it leads" >&2
    exit 1
fi

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if fits "$candidate"; then python=$candidate && break; fi
done
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>&1 | head -n 1) || found="no ${PYTHON:-python3}"
    echo "error: needs Python 3.10 to 3.13, found ${found}; install one, or name it:" \
        "make setup PYTHON=/path/to/python3.12" >&2
    exit 1
fi

# Made anew each time, as an interrupted installation may have left anything behind.
echo "setting up .venv with $("$python" --version) (once; 2.5 GB on disk, a minute or several)"
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --clear --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
else
    "$python" -m venv --clear .venv || {
        echo "error: $python cannot make a virtual environment; install its venv module" \
            "(Debian: python3-venv) or uv" >&2
        exit 1
    }
fi
install -r requirements.txt
touch .venv/installed
