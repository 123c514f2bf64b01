# The tables of the README at the top, for table.awk: from the results of "full", of TLS and of "count" together.

function counted(key, name) { row((key ~ /^echo/ ? "TCP echo, " : "") cell_title("count/" key), "count/" key, name, 1, 0) }

function timed(text, key, name, scale) { row(text, key, name, scale ? scale : 1, 0) }

function with_tls(text, key) { timed(text ", µs of CPU", key, "cpu_ns", 1000) }

function with_tls_bulk(text, key) { timed(text ", µs of CPU per MiB", key, "cpu_ns", 1000) }

END {
  title("instructions per operation")
  split("echo/1/64/1 echo/50/64/1 echo/1/64/16 echo/50/64/16 unix/50/64/1 churn chain burst timers/start " \
    "timers/cancel fire rearm restart posts/1 posts/4 pingpong lookup jobs/1000 pipe/64/1 pipe/64/100 udp/64/1 " \
    "udp/64/64 tasks/create tasks/pending", cells, " ")
  for (i = 1; i in cells; i++) counted(cells[i], "instructions")

  title("system calls per operation")
  split("echo/1/64/1 echo/50/64/1 unix/50/64/1 churn pingpong lookup pipe/64/1 pipe/64/100 udp/64/1 udp/64/64", cells,
        " ")
  for (i = 1; i <= 10; i++) counted(cells[i], "calls")

  title("bytes")
  timed("idle connection, user space", "idle/9000", "bytes")
  timed("loop", "loop", "bytes")
  timed("timer", "memory", "timer_bytes")
  timed("task, with its stack", "memory", "task_resident")

  title("ns per operation")
  timed("callback, chained", "chain", "ns")
  timed("callback, 1000 at a time", "burst/1000", "ns")
  timed("timer, start, with the turn that orders them (10^6)", "timers", "insert_ns")
  timed("timer, cancel", "timers", "cancel_ns")
  timed("timer, fire", "fire", "ns")
  timed("timer, push back (10^5 of them)", "rearm", "ns")
  timed("timer, stop and start (10^5 of them)", "restart", "ns")
  timed("post from another thread, all CPU time", "posts/1", "cpu_ns")
  timed("post from one of four threads, all CPU time", "posts/4", "cpu_ns")
  timed("to another thread and back, all CPU time", "pingpong", "cpu_ns")
  timed("look up 127.0.0.1", "lookup", "ns")
  timed("job in a thread and back", "jobs/1", "ns")
  timed("job, 1000 at a time", "jobs/1000", "ns")
  timed("job, 1000 at a time, all CPU time", "jobs/1000", "cpu_ns")
  timed("pipe, message of 64 B", "pipe/64/1", "ns")
  timed("pipe, 64 B, 100 at a time", "pipe/64/100", "ns")
  timed("pipe, 64 KiB", "pipe/65536/1", "ns")
  timed("UDP echo, 64 B", "udp/64/1", "ns")
  timed("UDP echo, 64 B, 64 at a time", "udp/64/64", "ns")
  timed("task, made and run", "tasks", "create_ns")
  timed("switch between coroutines", "switch", "ns")
  timed("loop, made and destroyed", "loop", "ns")
  timed("program started and ended, µs", "spawn/1/0", "ns", 1000)
  timed("program, from a parent of 1 GiB, µs", "spawn/1/1024", "ns", 1000)

  title("server CPU ns per echo")
  split("1/64/1 50/64/1 1000/64/1 10000/64/1 50/64/16 50/16384/1", cells, " ")
  for (i = 1; i <= 6; i++) timed(cell_title("echo/" cells[i]), "echo/" cells[i], "cpu_ns")
  timed("Unix socket, 50 connections, 64 B", "unix/50/64/1", "cpu_ns")
  timed("connect, 1 byte, close", "churn", "cpu_ns")

  title("server CPU µs per MiB")
  timed("receive and forget", "push/1", "cpu_ns", 1000)
  timed("send from memory", "pull/1", "cpu_ns", 1000)
  timed("send a file", "file/1", "cpu_ns", 1000)
  timed("relay", "relay/1", "cpu_ns", 1000)

  peer_count = split("aloop event asio nginx", peer_names, " ")
  title("TLS 1.3, AES-256-GCM")
  split("1/64/1 50/64/1 50/64/16 50/16384/1", cells, " ")
  for (i = 1; i <= 4; i++) with_tls("echo, " cell_title("echo/" cells[i]), "tls-echo/" cells[i])
  with_tls("page of 1 KiB", "tls-http/50")
  with_tls("handshake, 1 byte, close", "tls-shake")
  with_tls("the same, resumed", "tls-resume")
  with_tls("web server, page of 1 KiB", "web-http/50")
  with_tls("web server, handshake, page, close", "web-shake")
  with_tls("web server, the same, resumed", "web-resume")
  with_tls_bulk("receive and forget", "tls-push")
  with_tls_bulk("send from memory", "tls-pull")
  with_tls_bulk("web server, file of 64 MiB", "web-file")
  timed("idle connection, library, bytes resident", "tls-idle/300", "resident")
  timed("idle connection, web server, bytes resident", "web-idle/300", "resident")
}
