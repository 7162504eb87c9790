#!/bin/sh
# Puts ONNX Runtime into the folder DIR for -DONNXRUNTIME_ROOT=DIR:  sh recipes/cpp/get_onnxruntime.sh DIR [PYTHON]
#
# For Debian 12 and newer: the headers are those of Debian 13's package libonnxruntime-dev, and the library is that of the
# Python package onnxruntime, which PYTHON (default: python3) imports. Nothing else on the system changes.
set -eu
mkdir -p "$1"
dir=$(cd "$1" && pwd)
python=${2:-python3}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(SITE)' | grep -m 1 '/debian/*$')
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror trixie main" >"$work/sources.list"
mkdir -p "$work/lists/partial" "$work/archives/partial"
apt() {
    apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Cache="$work" \
        -o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$work" && apt download libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb unpacked)
library=$("$python" -c 'import onnxruntime, pathlib; print(*(pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))')

rm -rf "$dir/include" "$dir/lib"
mkdir "$dir/lib"
cp -r "$work/unpacked/usr/include/onnxruntime" "$dir/include"
cp "$library" "$dir/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$dir/lib/libonnxruntime.so"
echo "headers and library are in $dir"
