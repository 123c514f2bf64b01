# The TLS part of run.sh: libraries with OpenSSL among each other, and the example web server beside nginx. All speak
# TLS 1.3 with AES-256-GCM and the same P-256 certificate; the client sees to that.
# shellcheck disable=SC2154,SC2034 # they are those of run.sh

libraries_with_tls() {
  use_peer aloop # on the poller that it would take, whoever was the last before
  tls_peers=
  for peer in ${PEERS:-aloop event asio}; do
    case $peer in aloop | event | asio) ;; *) continue ;; esac
    if [ -x "$programs/bench_tls_$peer" ]; then
      tls_peers="$tls_peers $peer"
    else
      say "$peer with TLS is left out: not found (Debian: libssl-dev libevent-dev libasio-dev g++)"
    fi
  done
}

# "web" is aloop's own, the http server of its examples.
servers_with_tls() {
  web_peers=web
  case " ${PEERS:-nginx} " in *" nginx "*) ;; *) return 0 ;; esac
  if command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ]; then
    web_peers="web nginx"
  else
    say "nginx is left out: not found (Debian: nginx-light)"
  fi
}

# A certificate of a throw-away authority, a page of 1 KiB and a file of 64 MiB.
make_site() {
  site=$build/bench-tls
  [ -f "$site/www/big" ] && return 0
  mkdir -p "$site/www"
  sh "$root/examples/certificates.sh" "$site" >/dev/null || { say "TLS needs openssl (Debian: openssl)"; exit 1; }
  head -c 1024 /dev/zero | tr '\0' x >"$site/www/page"
  head -c 67108864 /dev/zero | tr '\0' x >"$site/www/big"
}

# One scenario on every peer in turn.
rotate_tls() { # name, peers, scenario, further arguments
  wanted "$1" || return 0
  who=$2 what=$3
  shift 3
  for peer in $who; do
    if line=$(PATH=$PATH:/usr/sbin timeout 120 "$programs/bench_tls" "$what" "$peer" --certs "$site" \
      --www "$site/www" --seconds "$seconds" "$@"); then
      printf '%s\n' "$line" >>"$results"
    else
      say "$peer failed: $what $*"
    fi
  done
}

tls_cells() {
  for cell in 1/64/1 50/64/1 50/64/16 50/16384/1; do
    connections=${cell%%/*} rest=${cell#*/}
    rotate_tls "tls-echo/$cell" "$tls_peers" echo --connections "$connections" --size "${rest%/*}" --depth "${rest#*/}"
  done
  rotate_tls tls-http "$tls_peers" http --connections 50
  for way in push pull; do rotate_tls tls-$way "$tls_peers" $way --connections 1; done
  for way in shake resume; do rotate_tls tls-$way "$tls_peers" $way --connections 8; done
  rotate_tls tls-idle "$tls_peers" idle --connections 300
  rotate_tls web-http "$web_peers" http --connections 50
  rotate_tls web-file "$web_peers" file --connections 1
  for way in shake resume; do rotate_tls web-$way "$web_peers" $way --connections 8; done
  rotate_tls web-idle "$web_peers" idle --connections 300
}

# Beside the results of everything else, since the columns are others.
run_tls() {
  if [ "${1:-}" = count ]; then
    begin tls-count 1 0
    count_tls
    peers="aloop event asio nginx"
    table peers
    return 0
  fi
  [ -x "$programs/bench_tls" ] || { say "TLS is left out: OpenSSL was not found (Debian: libssl-dev)"; return 0; }
  libraries_with_tls
  servers_with_tls
  make_site
  begin tls 3 0.3
  for round in $(seq "$rounds"); do
    say "TLS, round $round of $rounds"
    tls_cells
  done
  peers="aloop event asio nginx"
  table peers
}

# ---- count ----

# So many requests of a scenario to a peer's server under a tool, whose words go to $build/bench-tool.txt.
count_under() { # tool, scenario, requests, further arguments
  tool=$1 what=$2 requests=$3
  shift 3
  PATH=$PATH:/usr/sbin "$programs/bench_tls" "$what" "$peer" --certs "$site" --www "$site/www" --requests "$requests" \
    --under "$tool" "$@" 2>"$build/bench-tool.txt" || { cat "$build/bench-tool.txt" >&2; exit 1; }
}

tls_calls() {
  count_under "strace -f -c -o $build/bench-strace.txt" "$@"
  awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print $NF, $4 }' "$build/bench-strace.txt"
}

tls_instructions() {
  count_under "valgrind --tool=callgrind --callgrind-out-file=/dev/null" "$@"
  awk '/Collected :/ { print $NF }' "$build/bench-tool.txt"
}

# Two runs of different length; what the second one has more is divided by the operations that it has more.
count_tls_instructions() { # name, scenario, few, many, further arguments
  name=$1 what=$2 few=$3 many=$4
  shift 4
  less=$(tls_instructions "$what" "$few" "$@")
  more=$(tls_instructions "$what" "$many" "$@")
  [ "$peer" != web ] || peer=aloop
  add_instructions "$name" $((more - less)) $((many - few))
}

# Echo of 64 B, as count_served; handshakes, with libraries and web servers.
count_tls() {
  [ -x "$programs/bench_tls" ] || return 0
  libraries_with_tls
  servers_with_tls
  make_site
  for connections in 1 50; do
    wanted "tls-$connections" || continue
    say "TLS, $connections connections"
    for peer in $tls_peers; do
      { tls_calls echo 500 --connections "$connections"; echo; tls_calls echo 2500 --connections "$connections"; } |
        subtract_calls "tls-$connections" 2000
      count_tls_instructions "tls-$connections" echo 500 2500 --connections "$connections"
    done
  done
  for scenario in shake resume; do
    wanted "tls-$scenario" || continue
    say "TLS, $scenario"
    for peer in $tls_peers; do count_tls_instructions "tls-$scenario" "$scenario" 20 120 --connections 1; done
    for peer in $web_peers; do count_tls_instructions "web-$scenario" "$scenario" 20 120 --connections 1; done
  done
}
