#!/usr/bin/env bash
# The suite on a Python without the GIL, a part of it under pytest-run-parallel, six threads on three layers under ThreadSanitizer,
# and the same for MINUTES.
#
#   tests/free_threading.sh [MINUTES]        half a minute if it is not said
#
# The interpreter is the newest of python3.13t ... python3.15t on the path; else CPython 3.13 is built from Debian's source package,
# once for all trees, in ~/.cache/fastrnn, in about ten minutes. The packages are in .venv-free-threaded.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-0.5}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fastrnn
venv=.venv-free-threaded

# apt-get with the sources of another release, and lists of its own. Where they come from is what this system's apt has for its own.
apt_of_release() {
    local release=$1 folder=$2 site
    site=$(apt-get indextargets --format '$(SUITE) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ { print $2; exit }')
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release main" >"$folder/sources.list"
    cat >"$folder/apt.conf" <<END
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder";
END
    export APT_CONFIG=$folder/apt.conf
    apt-get update -qq
}

build_python() {
    local folder
    folder=$(mktemp -d)
    (
        cd "$folder"
        apt_of_release trixie "$folder/apt"
        apt-get source -qq --download-only python3.13
        mkdir source
        tar -xf python3.13_*.orig.tar.xz --strip-components 1 -C source
        cd source
        ./configure -q --disable-gil --prefix="$cache/python3.13t"
        make -s -j "$(nproc)"
        make -s install
    ) >"$cache/build.log" 2>&1 || { tail -20 "$cache/build.log" >&2; exit 1; }
    rm -rf "$folder"
}

find_python() {
    for version in 3.15 3.14 3.13; do
        command -v "python${version}t" && return
    done
    mkdir -p "$cache"
    [ -x "$cache/python3.13t/bin/python3.13t" ] || build_python
    echo "$cache/python3.13t/bin/python3.13t"
}

# Wheels alone, so that pip takes the newest releases that have one for this Python; fastrnn is built with the NumPy that it runs on.
make_venv() {
    local pip="$venv/bin/python -m pip --disable-pip-version-check --quiet install --only-binary :all:"
    "$1" -m venv "$venv"
    $pip numpy Cython setuptools
    $pip --no-build-isolation --editable '.[test]' pytest-run-parallel
}

# The module with ThreadSanitizer in it, in the interpreter as it is. Address randomisation is off: some systems map memory where the
# sanitizer wants its own.
watch_for_races() {
    local folder=build/races python=$PWD/$venv/bin/python
    rm -rf $folder
    mkdir -p $folder
    cp -R setup.py pyproject.toml README.md LICENSE fastrnn csrc tests $folder
    rm -f $folder/fastrnn/*.so
    cd $folder
    FASTRNN_SANITIZE=thread CC=gcc "$python" setup.py --quiet build_ext --inplace
    FASTRNN_ISA=scalar OPENBLAS_NUM_THREADS=1 PYTHONPATH=. TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" \
        LD_PRELOAD="$(gcc -print-file-name=libtsan.so)" setarch "$(uname -m)" -R "$python" tests/six_threads.py 0 6
}

python=$(find_python)
make_venv "$python"
$venv/bin/python - <<'END'
import sys
import fastrnn.train
print("Python", sys.version)
assert not sys._is_gil_enabled(), "importing fastrnn brought the GIL back"
END
$venv/bin/python -m pytest -q -n auto --dist loadfile -m "not alone"
# Not what looks at the whole process: its threads, its memory, its settings.
$venv/bin/python -m pytest -q -p no:xdist --parallel-threads 4 \
    tests/test_{golden,layers,packed,parameters,train_losses,train_recurrences}.py
(watch_for_races)
$venv/bin/python tests/six_threads.py "$minutes"
