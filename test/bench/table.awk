# Reads result lines "peer key name=value ...", prints tables of medians in Markdown.
#
# -v peers="aloop uv ..."  the columns, in this order
# -v columns=peers         adds two ratios: the time of aloop divided by that of the fastest library beside it, and by
#                          that of the faster of the programs without a library (raw and uring, which are the limit and
#                          no peers); 1.00 is as fast, less is faster
# -v stat=best             the best run of each instead of the median, where others keep the machine busy
# -v columns=old           for two columns "aloop_old aloop": adds new divided by old
# -v columns=plain         adds nothing, as the README has it
#
# Which tables is said by a second file: rows.awk has all of them, readme.awk those of the README at the top.

# The sorted values of a list, in `values`.
function sort_values(list, count, values,    i, j, swap) {
  split(list, values, " ")
  for (i = 2; i <= count; i++)
    for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) {
      swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
    }
}

function median(values, count) {
  return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
}

# The median of a peer (with stat=best its best run), or "" if there is none.
function result(peer, key, name,    values, n) {
  n = count[peer, key, name]
  if (n == 0) return ""
  sort_values(list[peer, key, name], n, values)
  if (stat == "best") return name == "per_s" ? values[n] : values[1]
  return median(values, n)
}

function number(value) {
  if (value == "") return "-"
  return sprintf(value >= 1000 ? "%.0f" : value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value)
}

function kind(peer) {
  return peer ~ /^(raw|uring)$/ ? "bare" : peer != "aloop_old" && peer ~ /^aloop/ ? "own" : "peer"
}

# How aloop compares with the best of a kind; for rates (more is better) the inverse, so that less than 1 always means
# faster.
function ratio(key, name, rate, of,    own, best, value, i) {
  own = result("aloop", key, name)
  best = ""
  for (i = 1; i <= peer_count; i++) {
    if (kind(peer_names[i]) != of) continue
    value = result(peer_names[i], key, name)
    if (value != "" && (best == "" || (rate ? value > best : value < best))) best = value
  }
  if (own == "" || best == "" || own == 0 || best == 0) return "-"
  return sprintf("%.2f", rate ? best / own : own / best)
}

function title(text,    i, line, rule) {
  line = "| " text " |"
  rule = "|---|"
  for (i = 1; i <= peer_count; i++) {
    line = line " " (peer_names[i] in shown ? shown[peer_names[i]] : peer_names[i]) " |"
    rule = rule "--:|"
  }
  if (columns == "old") line = line " new / old |"
  if (columns == "peers") line = line " / best peer | / bare |"
  pending = "\n" line "\n" rule (columns == "old" ? "--:|" : columns == "peers" ? "--:|--:|" : "") "\n"
}

# A row, if anybody has a value for it; `scale` divides.
function row(text, key, name, scale, rate,    i, line, value, any) {
  line = "| " text " |"
  for (i = 1; i <= peer_count; i++) {
    value = result(peer_names[i], key, name)
    if (value != "") { any = 1; value /= scale }
    line = line (value == "" && columns == "plain" ? " |" : " " number(value) " |")
  }
  if (!any) return
  if (columns != "plain") line = line " " ratio(key, name, rate, "peer") " |"
  if (columns == "peers") line = line " " ratio(key, name, rate, "bare") " |"
  print pending line
  pending = ""
}

function connections(n) {
  return n (n == 1 ? " connection" : " connections")
}

# What a cell of the mode "count" is about.
function cell_title(key,    parts) {
  sub(/^count\//, "", key)
  if (key in cell_names) return cell_names[key]
  if (sub(/^tls-/, "", key)) return "TLS, " connections(key) ", 64 B"
  if (split(key, parts, "/") != 4) return key
  return (parts[1] == "unix" ? "Unix socket, " : "") connections(parts[2]) ", " parts[3] " B" \
         (parts[4] > 1 ? ", " parts[4] " deep" : "")
}

# A line of a list "KEY: TITLE".
function name_cell(text,    at) {
  at = index(text, ": ")
  cell_names[substr(text, 1, at - 1)] = substr(text, at + 2)
}

BEGIN {
  peer_count = split(peers, peer_names, " ")
  shown["uv"] = "libuv"
  shown["ev"] = "libev"
  shown["event"] = "libevent"
  shown["raw"] = "(epoll)"
  shown["uring"] = "(uring)"
  shown["aloop_uring"] = "on uring"
  shown["aloop_old"] = "old"
  if (columns == "old") shown["aloop"] = "new"
  if (columns == "plain") shown["raw"] = "bare epoll"
  if (columns == "plain") shown["uring"] = "bare io_uring"
  count_cells = split("chain: callback, chained|burst: callback, burst of 1000|timers/start: timer, start (10^5)|" \
    "timers/cancel: timer, cancel (10^5)|fire: timer, fire (10^5)|rearm: timer, push back (10^5)|" \
    "restart: timer, stop and start (10^5)|posts/1: post, 1 thread, both sides|posts/4: post, 4 threads, all sides|" \
    "pingpong: to another thread and back|lookup: look up 127.0.0.1|jobs/1: job in a thread and back|" \
    "jobs/1000: job, 1000 at a time|pipe/64/1: pipe, 64 B|pipe/64/100: pipe, 64 B, 100 at a time|" \
    "pipe/65536/1: pipe, 64 KiB|pipe/65536/16: pipe, 64 KiB, 16 at a time|" \
    "pair/64/100: Unix sockets, 64 B, 100 at a time|udp/64/1: UDP echo, 64 B|" \
    "udp/64/64: UDP echo, 64 B, 64 at a time|spawn: program, its own calls included|" \
    "loop: loop, make and destroy|tasks/create: task, made and run|tasks/ready: future, awaited when done|" \
    "tasks/pending: future, awaited for a turn|tasks/future: future, made and read without a task|" \
    "tls-shake: TLS, handshake, 1 byte, close|tls-resume: TLS, resumed handshake, 1 byte, close|" \
    "web-shake: web server, TLS handshake, page, close|web-resume: web server, resumed TLS handshake, page, close|" \
    "sync/lock: lock, taken and released|sync/hand_over: lock, handed over to another task|" \
    "sync/queue: queue of one place, an item to another task|sync/limit: time limit, begun and ended|" \
    "sync/group: task group of one task, begun and ended|churn: connect, 1 byte, close", list_of_names, "|")
  for (i = 1; i <= count_cells; i++) name_cell(list_of_names[i])
}

{
  if (!($2 in seen)) { seen[$2] = 1; keys[++key_count] = $2 }
  for (i = 3; i <= NF; i++) {
    split($i, pair, "=")
    list[$1, $2, pair[1]] = list[$1, $2, pair[1]] " " pair[2]
    count[$1, $2, pair[1]]++
    if (pair[1] ~ /^call_/) calls[$1, $2] = calls[$1, $2] sprintf(" %s %.2f,", substr(pair[1], 6), pair[2])
  }
}
