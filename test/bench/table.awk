# Reads result lines "peer key name=value ...", prints tables of medians in Markdown.
#
# -v peers="aloop uv ..."  the columns, in this order
# -v columns=peers         adds two ratios: the time of aloop divided by that of the fastest library beside it, and by
#                          that of the faster of the programs without a library (raw and uring, which are the limit and
#                          no peers); 1.00 is as fast, less is faster
# -v stat=best             the best run of each instead of the median, where others keep the machine busy
# -v columns=old           for two columns "aloop_old aloop": adds new divided by old

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
  line = line (columns == "old" ? " new / old |" : " / best peer | / bare |")
  pending = "\n" line "\n" rule (columns == "old" ? "--:|" : "--:|--:|") "\n"
}

# A row, if anybody has a value for it; `scale` divides.
function row(text, key, name, scale, rate,    i, line, value, any) {
  line = "| " text " |"
  for (i = 1; i <= peer_count; i++) {
    value = result(peer_names[i], key, name)
    if (value != "") { any = 1; value /= scale }
    line = line " " number(value) " |"
  }
  if (!any) return
  line = line " " ratio(key, name, rate, "peer") " |"
  if (columns != "old") line = line " " ratio(key, name, rate, "bare") " |"
  print pending line
  pending = ""
}

function connections(n) {
  return n (n == 1 ? " connection" : " connections")
}

function echo_rows(name, scale, rate,    i, parts) {
  for (i = 1; i <= key_count; i++)
    if (split(keys[i], parts, "/") == 4 && (parts[1] == "echo" || parts[1] == "unix"))
      row((parts[1] == "unix" ? "Unix socket, " : "") connections(parts[2]) ", " parts[3] " B" \
          (parts[4] > 1 ? ", " parts[4] " deep" : ""), keys[i], name, scale, rate)
  row("connect, 1 byte, close", "churn", name, scale, rate)
}

function blast_rows(name, scale, rate) {
  row("64 B, each by itself", "blast/64/1", name, scale, rate)
  row("1200 B, 32 in a message", "blast/1200/32", name, scale, rate)
}

function bulk_rows(name, scale, rate) {
  row("receive and forget", "push/1", name, scale, rate)
  row("send from memory", "pull/1", name, scale, rate)
  row("send a file of 64 MiB", "file/1", name, scale, rate)
  row("relay", "relay/1", name, scale, rate)
}

# TLS between a library and a client, and two web servers.
function tls_rows(name, scale, rate,    i, parts) {
  for (i = 1; i <= key_count; i++)
    if (split(keys[i], parts, "/") == 4 && parts[1] == "tls-echo")
      row("echo, " connections(parts[2]) ", " parts[3] " B" (parts[4] > 1 ? ", " parts[4] " deep" : ""), keys[i],
          name, scale, rate)
  row("page of 1 KiB", "tls-http/50", name, scale, rate)
  row("handshake, 1 byte, close", "tls-shake", name, scale, rate)
  row("the same, resumed", "tls-resume", name, scale, rate)
  row("web server, page of 1 KiB", "web-http/50", name, scale, rate)
  row("web server, handshake, page, close", "web-shake", name, scale, rate)
  row("web server, the same, resumed", "web-resume", name, scale, rate)
}

function tls_bulk_rows(name, scale, rate) {
  row("receive and forget", "tls-push", name, scale, rate)
  row("send from memory", "tls-pull", name, scale, rate)
  row("web server, file of 64 MiB", "web-file", name, scale, rate)
}

# What a cell of the mode "count" is about.
function cell_title(key,    parts) {
  sub(/^count\//, "", key)
  if (sub(/^tls-/, "", key)) return "TLS, " connections(key) ", 64 B"
  if (key in cell_names) return cell_names[key]
  if (split(key, parts, "/") != 4) return key
  return (parts[1] == "unix" ? "Unix socket, " : "") connections(parts[2]) ", " parts[3] " B" \
         (parts[4] > 1 ? ", " parts[4] " deep" : "")
}

# A line of a list "KEY: TITLE".
function name_cell(text,    at) {
  at = index(text, ": ")
  cell_names[substr(text, 1, at - 1)] = substr(text, at + 2)
}

function count_rows(name,    i) {
  for (i = 1; i <= key_count; i++)
    if (keys[i] ~ /^count/) row(cell_title(keys[i]), keys[i], name, 1, 0)
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
  count_cells = split("chain: callback, chained|burst: callback, burst of 1000|timers/start: timer, start (10^5)|" \
    "timers/cancel: timer, cancel (10^5)|fire: timer, fire (10^5)|rearm: timer, push back (10^5)|" \
    "restart: timer, stop and start (10^5)|posts/1: post, 1 thread, both sides|posts/4: post, 4 threads, all sides|" \
    "pingpong: to another thread and back|lookup: look up 127.0.0.1|jobs/1: job in a thread and back|" \
    "jobs/1000: job, 1000 at a time|pipe/64/1: pipe, 64 B|pipe/64/100: pipe, 64 B, 100 at a time|" \
    "pipe/65536/1: pipe, 64 KiB|pipe/65536/16: pipe, 64 KiB, 16 at a time|udp/64/1: UDP echo, 64 B|" \
    "udp/64/64: UDP echo, 64 B, 64 at a time|spawn: program, without what it calls itself|" \
    "loop: loop, make and destroy|tasks/create: task, made and run|tasks/ready: future, awaited when done|" \
    "tasks/pending: future, awaited for a turn|tasks/future: future, made and read without a task|" \
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

END {
  title("ns per operation")
  row("callback, chained", "chain", "ns", 1, 0)
  row("callback, burst of 1000", "burst/1000", "ns", 1, 0)
  row("timer, start (10^6)", "timers", "insert_ns", 1, 0)
  row("timer, cancel (10^6)", "timers", "cancel_ns", 1, 0)
  row("timer, fire (10^6)", "fire", "ns", 1, 0)
  row("timer, push back (10^5)", "rearm", "ns", 1, 0)
  row("timer, stop and start (10^5)", "restart", "ns", 1, 0)
  row("post, 1 thread", "posts/1", "ns", 1, 0)
  row("post, 4 threads", "posts/4", "ns", 1, 0)
  row("post, 1 thread, CPU time of all", "posts/1", "cpu_ns", 1, 0)
  row("post, 4 threads, CPU time of all", "posts/4", "cpu_ns", 1, 0)
  row("to another thread and back", "pingpong", "ns", 1, 0)
  row("to another thread and back, CPU time of both", "pingpong", "cpu_ns", 1, 0)
  row("look up 127.0.0.1", "lookup", "ns", 1, 0)
  row("job in a thread and back", "jobs/1", "ns", 1, 0)
  row("job, CPU time of all", "jobs/1", "cpu_ns", 1, 0)
  row("job, 1000 at a time", "jobs/1000", "ns", 1, 0)
  row("job, 1000 at a time, CPU time of all", "jobs/1000", "cpu_ns", 1, 0)
  row("pipe, 64 B", "pipe/64/1", "ns", 1, 0)
  row("pipe, 64 B, 100 at a time", "pipe/64/100", "ns", 1, 0)
  row("pipe, 64 KiB", "pipe/65536/1", "ns", 1, 0)
  row("pipe, 64 KiB, 16 at a time", "pipe/65536/16", "ns", 1, 0)
  row("UDP echo, 64 B", "udp/64/1", "ns", 1, 0)
  row("UDP echo, 64 B, 64 at a time", "udp/64/64", "ns", 1, 0)
  row("program, one after the other (us)", "spawn/1/0", "ns", 1000, 0)
  row("program, 16 at a time (us)", "spawn/16/0", "ns", 1000, 0)
  row("program, from a parent of 1 GiB (us)", "spawn/1/1024", "ns", 1000, 0)
  row("program, 16 at a time, 1 GiB (us)", "spawn/16/1024", "ns", 1000, 0)
  row("task, made and run", "tasks", "create_ns", 1, 0)
  row("future, awaited when done", "tasks", "ready_ns", 1, 0)
  row("future, made and read without a task", "tasks", "future_ns", 1, 0)
  row("future, awaited for a turn", "tasks", "pending_ns", 1, 0)
  row("lock, taken and released", "sync", "lock_ns", 1, 0)
  row("lock, handed over to another task", "sync", "hand_over_ns", 1, 0)
  row("queue of one place, an item to another task", "sync", "queue_ns", 1, 0)
  row("time limit, begun and ended", "sync", "limit_ns", 1, 0)
  row("task group of one task, begun and ended", "sync", "group_ns", 1, 0)
  row("switch between coroutines", "switch", "ns", 1, 0)
  row("switch between 10 000 coroutines", "switch", "among_ns", 1, 0)
  row("coroutine, made, run and let go", "switch", "life_ns", 1, 0)
  row("loop, make and destroy", "loop", "ns", 1, 0)
  title("UDP one way, 1000 datagrams received per second")
  blast_rows("per_s", 1000, 1)
  title("UDP one way, receiver CPU ns per datagram received")
  blast_rows("cpu_ns", 1, 0)
  title("UDP one way, % of the datagrams lost")
  blast_rows("lost", 1, 0)
  title("bytes")
  for (i = 1; i <= key_count; i++)
    if (keys[i] ~ /^idle/) {
      row("idle connection, allocated", keys[i], "bytes", 1, 0)
      row("idle connection, resident", keys[i], "resident", 1, 0)
    }
  row("timer, allocated (10^5)", "memory", "timer_bytes", 1, 0)
  row("timer, resident", "memory", "timer_resident", 1, 0)
  row("task, allocated (10^4, each waits)", "memory", "task_bytes", 1, 0)
  row("task, resident", "memory", "task_resident", 1, 0)
  row("loop, allocated", "loop", "bytes", 1, 0)
  row("loop, resident", "loop", "resident", 1, 0)
  title("Bulk over one connection, server CPU us per MiB")
  bulk_rows("cpu_ns", 1000, 0)
  title("Bulk over one connection, MiB per second")
  bulk_rows("per_s", 1, 1)
  title("Relay of 64 B there and back, its CPU ns")
  row("1 connection", "relay/1/64/1", "cpu_ns", 1, 0)
  row("50 connections", "relay/50/64/1", "cpu_ns", 1, 0)
  title("Echo, 1000 requests per second")
  echo_rows("per_s", 1000, 1)
  title("Echo, server CPU ns per request")
  echo_rows("cpu_ns", 1, 0)
  title("Echo, median latency in us")
  echo_rows("p50_us", 1, 0)
  title("Echo, 99th percentile of latency in us")
  echo_rows("p99_us", 1, 0)
  title("Echo, 99.9th percentile of latency in us")
  echo_rows("p999_us", 1, 0)
  title("TLS, server CPU us per request")
  tls_rows("cpu_ns", 1000, 0)
  title("TLS bulk over one connection, server CPU us per MiB")
  tls_bulk_rows("cpu_ns", 1000, 0)
  title("TLS, 1000 requests per second")
  tls_rows("per_s", 1000, 1)
  title("TLS bulk over one connection, MiB per second")
  tls_bulk_rows("per_s", 1, 1)
  title("TLS, bytes resident per idle connection")
  row("library", "tls-idle/1000", "resident", 1, 0)
  row("web server", "web-idle/1000", "resident", 1, 0)
  title("System calls per operation")
  count_rows("calls")
  title("User-space instructions per operation")
  count_rows("instructions")
  for (i = 1; i <= key_count; i++)
    if (keys[i] ~ /^count/) {
      head = sprintf("\nCalls per operation, %s:\n\n", cell_title(keys[i]))
      for (p = 1; p <= peer_count; p++) {
        line = calls[peer_names[p], keys[i]]
        if (line == "") continue
        printf "%s- %s:%s\n", head, peer_names[p], substr(line, 1, length(line) - 1)
        head = ""
      }
    }
}
