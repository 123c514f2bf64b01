#!/bin/sh
# sh documents.sh BUILD SOURCE: what the README files say is true. Their C programs compile without a warning and end
# with 0, the functions that README.md names are in aloop.h, and the files they name are there.
set -eu
build=$1
cd "$2"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
status=0
documents=$(find README.md src test examples -name README.md | sort)

# ends_well PROGRAM: it ends with 0, or is a server: then it is still there after a second.
ends_well() {
  "$1" >"$temporary/said" &
  pid=$!
  { sleep 1 && kill $pid; } >/dev/null 2>&1 &
  code=0
  { wait $pid || code=$?; } 2>/dev/null # the shell would say "Terminated"
  kill $! 2>/dev/null || true
  [ $code = 0 ] || [ $code = 143 ]
}

# Every block between ```c and ``` becomes a file of its own; those with a main are programs.
programs=0
for document in $documents; do
  rm -f "$temporary"/*.c
  awk -v to="$temporary/" '
    /^```c$/ { file = to (++count) ".c"; next }
    /^```/ { file = "" }
    file != "" { print > file }
  ' "$document"
  for program in "$temporary"/*.c; do
    grep -q 'int main(' "$program" 2>/dev/null || continue
    programs=$((programs + 1))
    if ! cc -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude "$program" -o "$temporary/program" \
      -L"$build" -laloop -Wl,-rpath,"$build" || ! ends_well "$temporary/program"; then
      cat "$program" >&2
      echo "documents: this program of $document does not compile or run" >&2
      status=1
    fi
  done
done
if [ $programs = 0 ]; then
  echo "documents: no program found" >&2
  status=1
fi

# In README.md `aloop_xyz` is a promise to the reader.
for name in $(grep -o '\<aloop_[a-z][a-z_0-9]*' README.md | sort -u); do
  grep -qw "$name" include/aloop.h || {
    echo "README.md: $name is not in aloop.h" >&2
    status=1
  }
done

# What a document links to is there.
for document in $documents; do
  for link in $(grep -oE '\]\([^)#]+' "$document" | cut -c3- | grep -v '^http' | sort -u); do
    [ -e "$(dirname "$document")/$link" ] || {
      echo "$document: links to $link, which is not there" >&2
      status=1
    }
  done
done

# The steps of the turn have the names of their functions, and internal names are those of the code.
for name in $(sed -n 's/^[1-9]\. `\([a-z_]*\)`.*/\1/p' src/README.md); do
  grep -q "^[a-zA-Z].*[ *]$name(aloop_t \*loop" src/core/loop.c || {
    echo "src/README.md: $name is no step of src/core/loop.c" >&2
    status=1
  }
done
for name in $(grep -o '\<aloop__[a-z][a-z_0-9]*[a-z0-9]\>' src/README.md | sort -u); do
  grep -qr "$name" src/core src/future src/executor src/net src/process src/poller src/task || {
    echo "src/README.md: $name is not in the code" >&2
    status=1
  }
done

# Nothing is left out of the map but the pollers, which are all of one shape.
for module in src/core/*.c src/future/*.c src/executor/*.c src/net/*.c src/process/*.c src/task/*.c; do
  grep -q "$module" src/README.md || {
    echo "src/README.md: does not say what $module is for" >&2
    status=1
  }
done

# `src/core/loop.c` names a file; a capital letter or a star stands for several.
for document in $documents; do
  for file in $(grep -oE '(^|[^A-Za-z0-9_./-])(include|src|test|examples)/[A-Za-z0-9_./*-]+' "$document" |
    sed 's/^[^a-z]//; s/[.,]*$//' | sort -u); do
    case $file in
    *NAME* | *ROOM* | *'*'*) continue ;;
    esac
    [ -e "$file" ] || {
      echo "$document: there is no $file" >&2
      status=1
    }
  done
done
exit $status
