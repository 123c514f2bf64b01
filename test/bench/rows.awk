# All tables, for table.awk.

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

function count_rows(name,    i) {
  for (i = 1; i <= key_count; i++)
    if (keys[i] ~ /^count/) row(cell_title(keys[i]), keys[i], name, 1, 0)
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
  row("Unix sockets, 64 B, 100 at a time", "pair/64/100", "ns", 1, 0)
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
  row("library", "tls-idle/300", "resident", 1, 0)
  row("web server", "web-idle/300", "resident", 1, 0)
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
  if (("aloop_task", "echo/50/64/1", "cpu_ns") in count) {
    peer_count = split("aloop aloop_task aloop_sock", peer_names, " ")
    shown["aloop"] = "protocol"
    shown["aloop_task"] = "a task for each"
    shown["aloop_sock"] = "socket by socket"
    columns = "plain"
    title("Echo by aloop in three styles, server CPU ns per request")
    row("1 connection, 64 B", "echo/1/64/1", "cpu_ns", 1, 0)
    row("50 connections, 64 B", "echo/50/64/1", "cpu_ns", 1, 0)
    row("50 connections, 64 B, 16 deep", "echo/50/64/16", "cpu_ns", 1, 0)
  }
}
