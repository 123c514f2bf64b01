/* SPDX-License-Identifier: MIT
 *
 * aloop's part in what goes through descriptors: pipes, programs, datagrams, servers. A server is a protocol table whose
 * data_received writes back what it got; the transport gathers the writes and stops reading when told to.
 */
#include "bench.h"

#include <aloop.h>
#include <netinet/in.h>
#include <stdlib.h>

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

typedef struct pipes {
  aloop_transport_t *in, *out;
  long size, depth, left; /* messages not yet sent */
  long under_way;         /* bytes */
} pipes_t;

static void send_messages(pipes_t *pipes) {
  pipes->left -= pipes->depth;
  pipes->under_way = pipes->depth * pipes->size;
  for (long i = 0; i < pipes->depth; i++)
    if (aloop_transport_write_owned(pipes->out, bench_bytes, (size_t)pipes->size, NULL, NULL) != 0)
      bench_die("aloop_transport_write_owned");
}

static int on_message(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  pipes_t *pipes = protocol;
  (void)data;
  pipes->under_way -= (long)size;
  if (pipes->under_way > 0) return 0;
  if (pipes->left > 0)
    send_messages(pipes);
  else
    aloop_stop(aloop_transport_loop(transport));
  return 0;
}

static aloop_future_t *open_end(aloop_t *loop, const aloop_protocol_t *table, pipes_t *pipes, int fd,
                                bool reads) {
  aloop_unix_connect_options_t options = {.size = sizeof options, .fd = fd};
  if (bench_pairs) return aloop_create_unix_connection(loop, table, pipes, &options);
  return reads ? aloop_connect_read_pipe(loop, table, pipes, fd)
               : aloop_connect_write_pipe(loop, table, pipes, fd);
}

int64_t peer_pipe(long size, long depth, long count) {
  static const aloop_protocol_t reader = {.size = sizeof reader, .data_received = on_message};
  static const aloop_protocol_t writer = {.size = sizeof writer};
  aloop_t *loop = peer_loop_new();
  pipes_t pipes = {.size = size, .depth = depth, .left = count};
  int fds[2];
  bench_pipe(fds);
  aloop_future_t *in = open_end(loop, &reader, &pipes, fds[0], true);
  aloop_future_t *out = open_end(loop, &writer, &pipes, fds[1], false);
  if (aloop_run_until_complete_ptr(loop, in, &pipes.in) != 0) bench_die("aloop_connect_read_pipe");
  if (aloop_run_until_complete_ptr(loop, out, &pipes.out) != 0) bench_die("aloop_connect_write_pipe");
  int64_t start = bench_cpu();
  send_messages(&pipes);
  aloop_run_forever(loop);
  int64_t took = bench_cpu() - start;
  aloop_transport_unref(pipes.in);
  aloop_transport_unref(pipes.out);
  aloop_free(loop);
  return pipes.left == 0 ? took : -1;
}

/* ---- Programs -------------------------------------------------------------------------------------------- */

typedef struct programs {
  aloop_t *loop;
  long to_start, to_end;
} programs_t;

static void start_program(programs_t *programs);

static void program_lost(aloop_process_t *process, void *protocol, int error) {
  (void)process, (void)error;
  programs_t *programs = protocol;
  if (--programs->to_end == 0) aloop_stop(programs->loop);
  if (programs->to_start > 0) start_program(programs);
}

static void start_program(programs_t *programs) {
  static const aloop_process_protocol_t protocol = {.size = sizeof protocol, .connection_lost = program_lost};
  static const char *const argv[] = {"/bin/true", NULL};
  static const aloop_process_options_t options = {.size = sizeof options,
                                                  .argv = argv,
                                                  .in = {.kind = ALOOP_STDIO_DEVNULL},
                                                  .err = {.kind = ALOOP_STDIO_INHERIT}};
  programs->to_start--;
  aloop_future_detach(aloop_subprocess_exec(programs->loop, &protocol, programs, &options));
}

int64_t peer_spawn(long count, long depth) {
  programs_t programs = {.loop = peer_loop_new(), .to_start = count, .to_end = count};
  int64_t start = bench_now();
  for (long i = 0; i < depth; i++) start_program(&programs);
  aloop_run_forever(programs.loop);
  int64_t took = bench_now() - start;
  aloop_free(programs.loop);
  return took;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

static void echo_datagrams(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                           size_t count) {
  if (aloop_datagram_send_many(endpoint, messages, count) != (int64_t)count)
    bench_die("aloop_datagram_send_many");
  *(long *)protocol += (long)count;
}

static const aloop_datagram_protocol_t datagram_protocol = {.size = sizeof datagram_protocol,
                                                            .datagrams_received = echo_datagrams};

int64_t peer_datagrams(long size, long depth, long count) {
  aloop_t *loop = peer_loop_new();
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1"};
  aloop_datagram_t *endpoint;
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  long echoed = 0;
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, &datagram_protocol, &echoed, &options);
  if (aloop_run_until_complete_ptr(loop, made, &endpoint) != 0 ||
      aloop_datagram_sockname(endpoint, (struct sockaddr *)&address, &address_size) != 0)
    bench_die("aloop_create_datagram_endpoint");
  int64_t took = bench_datagrams(ntohs(address.sin_port), size, depth, count, peer_loop_turn, loop, &echoed);
  aloop_datagram_unref(endpoint);
  aloop_free(loop);
  return took;
}

static void count_datagrams(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                            size_t count) {
  (void)endpoint, (void)protocol;
  for (size_t i = 0; i < count; i++) {
    size_t segment = messages[i].segment;
    bench_received += segment == 0 ? 1 : (long)((messages[i].size + segment - 1) / segment);
  }
}

void peer_receive(void) {
  static const aloop_datagram_protocol_t counter = {.size = sizeof counter,
                                                    .datagrams_received = count_datagrams};
  aloop_t *loop = peer_loop_new();
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1", .want_segments = true};
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, &counter, NULL, &options);
  aloop_datagram_t *endpoint;
  if (aloop_run_until_complete_ptr(loop, made, &endpoint) != 0) bench_die("aloop_create_datagram_endpoint");
  bench_listening(aloop_datagram_fd(endpoint));
  aloop_run_forever(loop);
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

static int echo(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
}

static void on_full(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static void on_drained(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_resume_reading(transport);
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol, .data_received = echo, .pause_writing = on_full, .resume_writing = on_drained};

static void serve(const aloop_protocol_t *table, void *arg) {
  aloop_t *loop = peer_loop_new();
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .backlog = BENCH_BACKLOG};
  aloop_unix_server_options_t at = {
      .size = sizeof at, .path = bench_path, .backlog = BENCH_BACKLOG, .flags = ALOOP_UNIX_NO_DESCRIPTORS};
  aloop_server_t *server;
  aloop_future_t *made = bench_path != NULL ? aloop_create_unix_server(loop, table, arg, &at)
                                            : aloop_create_server(loop, table, arg, &options);
  if (aloop_run_until_complete_ptr(loop, made, &server) != 0) bench_die("aloop_create_server");
  bench_listening(aloop_server_socket(server, 0, NULL, NULL));
  aloop_run_forever(loop);
}

/* Weak, as all of bench.h: bench_aloop_sock.c and bench_aloop_task.c have other servers, and are linked before. */
void peer_serve(bool for_memory) {
  (void)for_memory;
  serve(&protocol, NULL);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static int forget(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  (void)transport, (void)arg, (void)data, (void)size;
  return 0;
}

void peer_serve_sink(void) {
  static const aloop_protocol_t sink = {.size = sizeof sink, .data_received = forget};
  serve(&sink, NULL);
}

/* Until pause_writing, after which the buffer is full. */
static void write_on(aloop_transport_t *transport, void *arg) {
  bool *full = arg;
  *full = false;
  while (!*full)
    if (aloop_transport_write_owned(transport, bench_block, sizeof bench_block, NULL, NULL) != 0) break;
}

static void note_full(aloop_transport_t *transport, void *arg) {
  (void)transport;
  *(bool *)arg = true;
}

static void *make_flag(void *arg) {
  (void)arg;
  return bench_alloc(sizeof(bool));
}

void peer_serve_source(void) {
  static const aloop_protocol_t source = {.size = sizeof source,
                                          .create = make_flag,
                                          .connection_made = write_on,
                                          .pause_writing = note_full,
                                          .resume_writing = write_on};
  serve(&source, NULL);
}

/* Clients leave in the middle, which is no news. */
static void read_error(aloop_future_t *future, void *arg) {
  (void)arg;
  (void)aloop_future_result(future);
}

static void let_it_end(aloop_future_t *future) {
  aloop_future_add_done_callback(future, read_error, NULL);
  aloop_future_unref(future);
}

static int send_file(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  (void)data, (void)size;
  let_it_end(aloop_sendfile(transport, *(const int *)arg, 0, 0, 0));
  return 0;
}

void peer_serve_file(int file, long size) {
  static const aloop_protocol_t files = {.size = sizeof files, .data_received = send_file};
  (void)size;
  serve(&files, &file);
}

/* ---- Relay ----------------------------------------------------------------------------------------------- */

static const aloop_protocol_t nothing = {.size = sizeof nothing};

static void on_connected(aloop_future_t *connecting, void *arg) {
  aloop_transport_t *target;
  if (aloop_future_take_ptr(connecting, &target) != 0) bench_die("aloop_create_connection");
  let_it_end(aloop_relay(arg, target));
  aloop_transport_unref(target);
}

static void connect_target(aloop_transport_t *transport, void *arg) {
  aloop_transport_pause_reading(transport);
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = *(const int *)arg};
  aloop_future_t *connecting =
      aloop_create_connection(aloop_transport_loop(transport), &nothing, NULL, &options);
  aloop_future_add_done_callback(connecting, on_connected, transport);
  aloop_future_unref(connecting);
}

void peer_serve_relay(int port) {
  static const aloop_protocol_t client = {.size = sizeof client, .connection_made = connect_target};
  serve(&client, &port);
}
