# The library of another revision beside that of the working tree, both under the benchmarks of the working tree.
# shellcheck shell=sh disable=SC2154,SC2034 # they are those of run.sh

# Becomes the peer "aloop_old". What that revision cannot build is left out, and so are the scenarios in it.
build_old() { # revision
  old=$build/compare
  rm -rf "$old"
  mkdir -p "$old/source" "$old/objects"
  (cd "$root" && git archive "$1") | tar -x -C "$old/source"
  build_tree "$old/source" "$old/build"
  objects=
  for part in bench bench_inside bench_network bench_aloop bench_aloop_await bench_aloop_io; do
    object=$old/objects/$part.o
    if ${CC:-cc} -O2 -g -DNDEBUG -std=c11 -D_GNU_SOURCE -I "$old/source/include" -c "$here/$part.c" -o "$object" \
      2>"$old/objects/$part.log"; then
      objects="$objects $object"
    else
      say "$1 is measured without what is in $part.c: $(grep -m 1 'error:' "$old/objects/$part.log")"
    fi
  done
  # shellcheck disable=SC2086 # a list
  ${CC:-cc} -o "$programs/bench_aloop_old" $objects -L "$old/build" "-Wl,-rpath,$old/build" -laloop -lpthread \
    2>"$old/objects/link.log" || {
    cat "$old/objects/link.log" >&2
    say "$1 cannot be measured: it lacks something that bench_aloop.c uses"
    exit 1
  }
}

run_compare() { # revision
  build_old "$1"
  begin compare 5 0.2
  peers="aloop_old aloop"
  each_round compare_cells
  table old
}

compare_cells() {
  in_process 3
  network
  rotate idle idle --connections 2000
}
