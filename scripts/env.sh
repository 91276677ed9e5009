# Sourced by the Makefile's recipes and by the other scripts: where built things are kept.
#
# RocksDB takes a quarter of an hour to compile, so its library is built once a machine and
# version, outside of any clone. CI keeps cargo's output there, too.
PINTLE_CACHE="${PINTLE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pintle}"
export PINTLE_CACHE
ROCKSDB_VERSION=$(sed -n '/^name = "librocksdb-sys"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
export ROCKSDB_LIB_DIR="$PINTLE_CACHE/rocksdb-$ROCKSDB_VERSION-sse4.2/lib"
export ROCKSDB_STATIC=1
if [ "${CI:-}" = true ]; then
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PINTLE_CACHE/target}"
fi
export PATH="$PINTLE_CACHE/tools/bin:${HOME:-/root}/.cargo/bin:$PATH:/usr/sbin:/sbin"
