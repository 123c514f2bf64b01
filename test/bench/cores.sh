#!/bin/sh
# What a second core brings, by examples/servers/threads and the load generator: requests per second and CPU time of the
# server per request, on one core with one loop and on two with two, both ways of sharing connections out.
#
#     sh test/bench/cores.sh              (about a minute; needs two cores that are free, and taskset)
#
# On N cores run N loops and N load generators, each of these on one core, so that one core and two do the same kind of
# work: the ratio of their rates is the scaling of all that is there, the kernel and the load generator too. The CPU time
# of the server per request is the part that is ours: if loops shared anything that they write, it would grow with their
# number. The environment may set BUILD, ROUNDS (5), SECONDS_EACH (1), CONNECTIONS (for each load generator, 50).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build-bench}
results=$build/bench-cores.txt

mkdir -p "$build"
generator=
[ -f "$build/CMakeCache.txt" ] || ! command -v ninja >/dev/null 2>&1 || generator="-G Ninja"
# shellcheck disable=SC2086 # the generator is two words or none
cmake -S "$root" -B "$build" $generator -DCMAKE_BUILD_TYPE=RelWithDebInfo -DALOOP_BUILD_TESTS=OFF \
  -DALOOP_BUILD_BENCH=ON -DALOOP_BUILD_EXAMPLES=ON >"$build/bench-build.log"
cmake --build "$build" -j2 --target threads bench_client >>"$build/bench-build.log"

# run WAY SCENARIO LOOPS: one line with the way, the scenario, the loops, requests per second, ns per request, and the
# connections of the first loop in percent.
run() {
  way=$1 scenario=$2 loops=$3 cores=0-$(($3 - 1))
  option=
  [ "$way" = acceptor ] || option=--reuse-port
  mkfifo "$folder/said"
  taskset -c "$cores" "$build/examples/threads" --port 0 --threads "$loops" $option >"$folder/said" &
  server=$!
  exec 3<"$folder/said"
  rm "$folder/said"
  read -r line <&3
  clients=
  for core in $(seq 0 $((loops - 1))); do
    "$build/test/bench/bench_client" "$scenario" --cpu "$core" --port "${line##*:}" --pid "$server" \
      --connections "${CONNECTIONS:-50}" --size 64 --seconds "${SECONDS_EACH:-1}" >"$folder/client.$core" &
    clients="$clients $!"
  done
  # shellcheck disable=SC2086
  wait $clients
  kill "$server"
  wait "$server"
  share=$(awk '/^loop/ { sum += $6; if ($2 == "1:") first = $6 } END { printf "%.0f", 100 * first / sum }' <&3)
  cat "$folder"/client.* | awk -v what="$way $scenario $loops" -v share="$share" '
    { for (i = 1; i <= NF; i++) { split($i, pair, "="); value[pair[1]] = pair[2] }
      rate += value["per_s"]; inverse += 1 / value["cpu_ns"] }
    END { print what, rate, 1 / inverse, share }' >>"$results"
  rm -f "$folder"/client.*
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
: >"$results"
for round in $(seq "${ROUNDS:-5}"); do
  echo "round $round" >&2
  for scenario in echo churn; do
    for way in acceptor reuse_port; do
      for loops in 1 2; do run $way $scenario $loops; done
    done
  done
done

echo "| sharing out | scenario | loops and cores | requests/s | by one core | CPU ns per request | by one core | on the first loop |"
echo "|---|---|---|---|---|---|---|---|"
sort -k1,3 -s "$results" | awk '
  function median(list, n,    i, j, t) {
    for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j] < list[j - 1]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
  }
  function flush(    rate, cost) {
    if (n == 0) return
    rate = median(rates, n); cost = median(costs, n)
    if (loops == 1) { rate1 = rate; cost1 = cost }
    printf "| %s | %s | %d | %.0f | %.2f | %.0f | %.2f | %d %% |\n", way, scenario, loops, rate, rate / rate1, cost, cost / cost1, median(shares, n)
    n = 0
  }
  $1 != way || $2 != scenario || $3 != loops { flush(); way = $1; scenario = $2; loops = $3 }
  { n++; rates[n] = $4; costs[n] = $5; shares[n] = $6 }
  END { flush() }'
