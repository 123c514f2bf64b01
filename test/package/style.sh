#!/bin/sh
# sh style.sh BUILD SOURCE: the habits of this code that a script can see. style.awk reads the C files; here are the
# rules about which files there are, and the layout, where clang-format of the version that the layout was made with is
# found. exceptions.txt lists what is allowed to differ, and why.
set -eu
cd "$2"
exceptions=test/package/exceptions.txt
LC_ALL=C
export LC_ALL
faults=$(mktemp)
trap 'rm -f "$faults"' EXIT
trap 'exit 1' HUP INT TERM

find src include -name '*.[ch]' | sort | xargs awk -v exceptions="$exceptions" -f test/package/style.awk >"$faults"

# Every module has its test, under the same name.
for module in src/*/*.c; do
  [ -e "$module" ] || continue
  name=$(basename "$module" .c)
  test=test/unit/test_$name.c
  listed=no
  grep -q "^untested $module [^ ]" $exceptions && listed=yes
  if [ $listed = yes ] && [ -e "$test" ]; then
    echo "$exceptions: $module has a test now: remove its line" >>"$faults"
  elif [ $listed = no ] && ! [ -e "$test" ]; then
    echo "$module: has no $test" >>"$faults"
  fi
done
grep '^untested ' $exceptions | while read -r _ module _; do
  [ -e "$module" ] || echo "$exceptions: $module is gone: remove its line" >>"$faults"
done

# Every function of the public header has a comment, which ends with the threads that may call it.
awk '
  /^\/\*/ { tagged = 0; comment = 1 }
  comment && /\[(loop|any|signal|task)\]/ { tagged = 1 }
  /\*\/ *$/ { comment = 0; described = 1 }
  /^$/ { described = 0 }
  /^ALOOP_API / && !(described && tagged) { print FILENAME ":" FNR ": no comment that ends with [loop], [any], [signal] or [task]" }
' include/aloop.h >>"$faults"

# Nothing lies at the top level but what belongs there.
for entry in *; do
  case $entry in
  include | src | test | examples | CMakeLists.txt | README.md | LICENSE | build | build-*) ;;
  *) echo "$entry: does not belong at the top level" >>"$faults" ;;
  esac
done

for format in clang-format-14 clang-format; do
  if command -v $format >/dev/null && $format --version | grep -q 'version 14\.'; then
    find src include test examples -name '*.[ch]' | sort | xargs $format --dry-run 2>&1 |
      sed -n 's/:.*clang-format-violations.*/: clang-format -i changes it/p' | uniq >>"$faults"
    break
  fi
done

if [ -s "$faults" ]; then
  cat "$faults" >&2
  echo "style: $(wc -l <"$faults") faults" >&2
  exit 1
fi
