/* SPDX-License-Identifier: MIT
 *
 * aloop once more, but its echo server has a task for each connection, which reads a line and writes it back.
 * It is no peer of the others; it tells what that style costs beside a protocol: a switch to the task's stack
 * and back, a future for each wait, a search for the newline. Everything else is bench_aloop.c's.
 */
#include "bench.h"

#include <aloop.h>
#include <stdlib.h>

const char *const peer_name = "aloop_task";

static int64_t echo(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop, (void)arg;
  const char *line;
  int64_t size;
  while ((size = aloop_await(aloop_stream_readline(stream, &line))) > 0) {
    if (aloop_stream_write(stream, line, (size_t)size) < 0) break;
    if (aloop_await(aloop_stream_drain(stream)) < 0) break;
  }
  return 0;
}

void peer_serve(bool for_memory) {
  (void)for_memory;
  aloop_t *loop;
  aloop_server_t *server;
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .backlog = BENCH_BACKLOG};
  if (aloop_new(NULL, &loop) < 0 ||
      aloop_run_until_complete_ptr(loop, aloop_start_server(loop, echo, NULL, &options, NULL), &server) < 0)
    bench_die("aloop_start_server");
  bench_listening(aloop_server_socket(server, 0, NULL, NULL));
  aloop_run_forever(loop);
}
