#!/bin/sh
# sh header.sh BUILD SOURCE: aloop.h compiled alone, and with every macro expanded once, by gcc and clang, as strict C11
# (no feature-test macro set), as GNU C and as C++, without one warning.
set -eu
source=$2
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM

header=$source/include/aloop.h
macros=$source/test/package/macros.c

# Only the include guard and the macro that the header undefines again are not for use.
for name in $(sed -n 's/^ *# *define \([A-Za-z_0-9]*\).*/\1/p' "$header" | sort -u); do
  case $name in
  ALOOP_H | ALOOP_ERROR_) continue ;;
  esac
  grep -qw "$name" "$macros" || {
    echo "header: macro $name is not expanded in test/package/macros.c" >&2
    exit 1
  }
done

printf '#include "aloop.h"\n#include "aloop.h"\nextern int not_empty;\n' >"$temporary/alone.c"
strict="-Wall -Wextra -Wshadow -Wconversion -Wundef -pedantic-errors -Werror"

# compile COMPILER LANGUAGE STANDARD...
compile() {
  compiler=$1
  language=$2
  shift 2
  for standard in "$@"; do
    for file in "$temporary/alone.c" "$macros"; do
      for define in -DPLAIN -DALOOP_NO_ORIGIN; do
        # shellcheck disable=SC2086
        "$compiler" -x "$language" -std="$standard" $strict $define -I"$source/include" -fsyntax-only "$file" || {
          echo "header: $compiler -std=$standard $define $file" >&2
          exit 1
        }
      done
    done
  done
}

used=0
for compiler in gcc clang cc; do
  [ $compiler = cc ] && [ $used -gt 0 ] && continue
  command -v $compiler >/dev/null || continue
  compile $compiler c c11 c17 gnu11
  used=$((used + 1))
done
[ $used -gt 0 ] || {
  echo "header: no C compiler" >&2
  exit 1
}
for compiler in g++ clang++; do
  if command -v $compiler >/dev/null; then
    compile $compiler c++ c++17 gnu++17 c++20
  fi
done
