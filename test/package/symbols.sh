#!/bin/sh
# sh symbols.sh BUILD SOURCE: what libaloop.so exports and needs, and libaloop-openssl.so exports. The exported symbols are exactly those of symbols.txt,
# each with its version, and exactly the functions that aloop.h declares. After a change of the API renew the list:
#
#     nm -D --defined-only build/libaloop.so | awk '$2 != "A" { print $3 }' | LC_ALL=C sort > test/package/symbols.txt
set -eu
build=$1
source=$2
library=$build/libaloop.so
if ! [ -e "$library" ] || ! command -v readelf >/dev/null; then
  echo "symbols: needs an ELF library and binutils"
  exit 77
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
LC_ALL=C
export LC_ALL
status=0

nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort >"$temporary/exported"
if ! diff "$source/test/package/symbols.txt" "$temporary/exported" >&2; then
  echo "symbols: exported symbols (>) differ from test/package/symbols.txt (<); $0 tells how to renew it" >&2
  status=1
fi

# The engine has a library of its own with one symbol, which is there if OpenSSL is.
engine=$build/libaloop-openssl.so
if [ -e "$engine" ]; then
  nm -D --defined-only "$engine" | awk '$2 != "A" { print $3 }' >"$temporary/engine"
  if [ "$(cat "$temporary/engine")" != "aloop_tls_openssl@@ALOOP_0.1" ]; then
    echo "symbols: libaloop-openssl.so exports more or less than aloop_tls_openssl" >&2
    status=1
  fi
  if ! readelf -d "$engine" | grep -q 'SONAME.*\[libaloop-openssl\.so\.0\]'; then
    echo "symbols: SONAME is not libaloop-openssl.so.0" >&2
    status=1
  fi
fi

# The name of a declaration is the word before its first parenthesis. A macro of the same name does not declare.
awk '/^ALOOP_API / { sub(/[(].*/, ""); sub(/.*[ *]/, ""); print }' "$source/include/aloop.h" |
  grep -vx aloop_tls_openssl | sort -u >"$temporary/declared"
sed 's/@.*//' "$temporary/exported" >"$temporary/names"
if ! diff "$temporary/declared" "$temporary/names" >&2; then
  echo "symbols: exported symbols (>) differ from the functions declared in aloop.h (<)" >&2
  status=1
fi

if sed 's/^aloop_[a-z][a-z0-9_]*@@ALOOP_0\.1$//' "$temporary/exported" | grep .; then
  echo "symbols: the names above are not aloop_... of version ALOOP_0.1" >&2
  status=1
fi

readelf -d "$library" >"$temporary/dynamic"
if ! grep -q 'SONAME.*\[libaloop\.so\.0\]' "$temporary/dynamic"; then
  echo "symbols: SONAME is not libaloop.so.0" >&2
  status=1
fi
# The C library may come in several pieces. libkqueue is there only where the build was asked to use it.
allowed='libc\.|libpthread\.|ld-linux|ld-musl'
grep -q '^ALOOP_KQUEUE_LIBRARY:.*/' "$build/CMakeCache.txt" && allowed="$allowed|libkqueue\."
if grep NEEDED "$temporary/dynamic" | grep -Ev "\[($allowed)"; then
  echo "symbols: libaloop.so needs more than the C library" >&2
  status=1
fi
exit $status
