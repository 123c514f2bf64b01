/* SPDX-License-Identifier: MIT
 *
 * libuv's part in what goes through descriptors: pipes, datagrams, programs, servers. uv_try_write before uv_write, one
 * shared read buffer, and handles embedded in the structs of their users.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <uv.h>

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

static char message_buffer[BENCH_BUFFER];

typedef struct pipes {
  uv_pipe_t in, out;
  uv_write_t *requests;
  long size, depth, left; /* messages not yet sent */
  long under_way;         /* bytes */
} pipes_t;

static void give_message_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *result) {
  (void)handle, (void)hint;
  *result = uv_buf_init(message_buffer, sizeof message_buffer);
}

static void send_messages(pipes_t *pipes) {
  pipes->left -= pipes->depth;
  pipes->under_way = pipes->depth * pipes->size;
  for (long i = 0; i < pipes->depth; i++) {
    uv_buf_t message = uv_buf_init(bench_bytes, (unsigned)pipes->size);
    int sent = uv_try_write((uv_stream_t *)&pipes->out, &message, 1);
    if (sent == (int)pipes->size) continue;
    if (sent < 0 && sent != UV_EAGAIN) bench_die("uv_try_write");
    if (sent > 0) message = uv_buf_init(bench_bytes + sent, (unsigned)(pipes->size - sent));
    if (uv_write(&pipes->requests[i], (uv_stream_t *)&pipes->out, &message, 1, NULL) != 0)
      bench_die("uv_write");
  }
}

static void on_message(uv_stream_t *stream, ssize_t size, const uv_buf_t *bytes) {
  pipes_t *pipes = stream->data;
  (void)bytes;
  if (size < 0) bench_die("uv_read");
  pipes->under_way -= (long)size;
  if (pipes->under_way > 0) return;
  if (pipes->left > 0)
    send_messages(pipes);
  else
    uv_stop(stream->loop);
}

int64_t peer_pipe(long size, long depth, long count) {
  uv_loop_t *loop = peer_loop_new();
  pipes_t pipes = {.size = size, .depth = depth, .left = count};
  int fds[2];
  bench_pipe(fds);
  pipes.requests = bench_alloc((size_t)depth * sizeof *pipes.requests);
  uv_pipe_init(loop, &pipes.in, 0);
  uv_pipe_init(loop, &pipes.out, 0);
  if (uv_pipe_open(&pipes.in, fds[0]) != 0 || uv_pipe_open(&pipes.out, fds[1]) != 0) bench_die("uv_pipe_open");
  pipes.in.data = &pipes;
  uv_read_start((uv_stream_t *)&pipes.in, give_message_buffer, on_message);
  int64_t start = bench_cpu();
  send_messages(&pipes);
  uv_run(loop, UV_RUN_DEFAULT);
  int64_t took = bench_cpu() - start;
  peer_loop_free(loop);
  free(pipes.requests);
  return pipes.left == 0 ? took : -1;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

/* Room for 20 at a time, which is what libuv reads with one recvmmsg if it can. */
static void give_datagram_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *buffer) {
  static char bytes[20 * 65536];
  (void)handle;
  (void)hint;
  *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void on_datagram(uv_udp_t *udp, ssize_t size, const uv_buf_t *bytes, const struct sockaddr *address,
                        unsigned flags) {
  (void)flags;
  if (size < 0) bench_die("uv_udp_recv");
  if (address == NULL) return; /* the end of a batch */
  uv_buf_t answer = uv_buf_init(bytes->base, (unsigned)size);
  if (uv_udp_try_send(udp, &answer, 1, address) != size) bench_die("uv_udp_try_send");
  ++*(long *)udp->data;
}

int64_t peer_datagrams(long size, long depth, long count) {
  uv_loop_t *loop = peer_loop_new();
  uv_udp_t udp;
  struct sockaddr_in address;
  int address_size = sizeof address;
  long echoed = 0;
  uv_ip4_addr("127.0.0.1", 0, &address);
  if (uv_udp_init_ex(loop, &udp, AF_INET | UV_UDP_RECVMMSG) != 0 ||
      uv_udp_bind(&udp, (struct sockaddr *)&address, 0) != 0 ||
      uv_udp_recv_start(&udp, give_datagram_buffer, on_datagram) != 0 ||
      uv_udp_getsockname(&udp, (struct sockaddr *)&address, &address_size) != 0)
    bench_die("uv_udp");
  udp.data = &echoed;
  int64_t took = bench_datagrams(ntohs(address.sin_port), size, depth, count, peer_loop_turn, loop, &echoed);
  peer_loop_free(loop);
  return took;
}

static void count_datagram(uv_udp_t *udp, ssize_t size, const uv_buf_t *bytes, const struct sockaddr *address,
                           unsigned flags) {
  (void)udp, (void)size, (void)bytes, (void)flags;
  if (address != NULL) bench_received++;
}

void peer_receive(void) {
  uv_loop_t *loop = peer_loop_new();
  uv_udp_t udp;
  uv_os_fd_t fd;
  struct sockaddr_in address;
  uv_ip4_addr("127.0.0.1", 0, &address);
  if (uv_udp_init_ex(loop, &udp, AF_INET | UV_UDP_RECVMMSG) != 0 ||
      uv_udp_bind(&udp, (struct sockaddr *)&address, 0) != 0 ||
      uv_udp_recv_start(&udp, give_datagram_buffer, count_datagram) != 0)
    bench_die("uv_udp");
  uv_fileno((uv_handle_t *)&udp, &fd);
  bench_listening(fd);
  uv_run(loop, UV_RUN_DEFAULT);
}

/* ---- Programs -------------------------------------------------------------------------------------------- */

typedef struct programs {
  uv_loop_t *loop;
  long to_start, to_end;
} programs_t;

typedef struct program {
  uv_process_t process;
  uv_pipe_t out;
  programs_t *programs;
  int open; /* of the two handles */
} program_t;

static void start_program(programs_t *programs);

static void program_closed(uv_handle_t *handle) {
  program_t *program = handle->data;
  if (--program->open > 0) return;
  programs_t *programs = program->programs;
  free(program);
  programs->to_end--;
  if (programs->to_start > 0) start_program(programs);
}

static void program_exited(uv_process_t *process, int64_t status, int signal) {
  (void)status, (void)signal;
  uv_close((uv_handle_t *)process, program_closed);
}

static void read_program(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer) {
  (void)buffer;
  if (size < 0) uv_close((uv_handle_t *)stream, program_closed);
}

static void offer_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *buffer) {
  static char bytes[BENCH_BUFFER];
  (void)handle, (void)hint;
  *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void start_program(programs_t *programs) {
  static char *argv[] = {"/bin/true", NULL};
  program_t *program = bench_alloc(sizeof *program);
  *program = (program_t){.programs = programs, .open = 2};
  uv_pipe_init(programs->loop, &program->out, 0);
  uv_stdio_container_t stdio[3] = {
      {.flags = UV_IGNORE},
      {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&program->out},
      {.flags = UV_INHERIT_FD, .data.fd = 2}};
  uv_process_options_t options = {
      .file = argv[0], .args = argv, .exit_cb = program_exited, .stdio = stdio, .stdio_count = 3};
  programs->to_start--;
  if (uv_spawn(programs->loop, &program->process, &options) != 0) bench_die("uv_spawn");
  program->process.data = program->out.data = program;
  uv_read_start((uv_stream_t *)&program->out, offer_buffer, read_program);
}

int64_t peer_spawn(long count, long depth) {
  programs_t programs = {.loop = peer_loop_new(), .to_start = count, .to_end = count};
  int64_t start = bench_now();
  for (long i = 0; i < depth; i++) start_program(&programs);
  uv_run(programs.loop, UV_RUN_DEFAULT);
  int64_t took = bench_now() - start;
  peer_loop_free(programs.loop);
  return programs.to_end == 0 ? took : -1;
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

typedef struct rest { /* what uv_try_write left over */
  uv_write_t request;
  char data[];
} rest_t;

static char buffer[BENCH_BUFFER];

static void on_closed(uv_handle_t *handle) {
  free(handle);
}

static void end(uv_stream_t *stream) {
  if (!uv_is_closing((uv_handle_t *)stream)) uv_close((uv_handle_t *)stream, on_closed);
}

static void give_buffer(uv_handle_t *handle, size_t hint, uv_buf_t *result) {
  (void)handle, (void)hint;
  *result = uv_buf_init(buffer, sizeof buffer);
}

static void echo(uv_stream_t *stream, ssize_t size, const uv_buf_t *data);

static void on_written(uv_write_t *request, int status) {
  uv_stream_t *stream = request->handle;
  free(request);
  if (status == 0)
    uv_read_start(stream, give_buffer, echo);
  else
    end(stream);
}

static void write_rest(uv_stream_t *stream, const char *data, size_t size) {
  rest_t *rest = bench_alloc(sizeof *rest + size);
  memcpy(rest->data, data, size);
  uv_buf_t whole = uv_buf_init(rest->data, (unsigned)size);
  uv_read_stop(stream);
  if (uv_write(&rest->request, stream, &whole, 1, on_written) != 0) {
    free(rest);
    end(stream);
  }
}

static void echo(uv_stream_t *stream, ssize_t size, const uv_buf_t *data) {
  if (size == 0) return;
  if (size < 0) {
    end(stream);
    return;
  }
  uv_buf_t whole = uv_buf_init(data->base, (unsigned)size);
  int written = uv_try_write(stream, &whole, 1);
  if (written == UV_EAGAIN) written = 0;
  if (written < 0)
    end(stream);
  else if (written < size)
    write_rest(stream, data->base + written, (size_t)(size - written));
}

static void on_unix_connection(uv_stream_t *server, int status) {
  if (status != 0) return;
  uv_pipe_t *client = bench_alloc(sizeof *client);
  uv_pipe_init(server->loop, client, 0);
  if (uv_accept(server, (uv_stream_t *)client) == 0)
    uv_read_start((uv_stream_t *)client, give_buffer, echo);
  else
    end((uv_stream_t *)client);
}

static void serve_unix(uv_loop_t *loop) {
  uv_pipe_t server;
  uv_os_fd_t fd;
  uv_pipe_init(loop, &server, 0);
  if (uv_pipe_bind(&server, bench_path) != 0 ||
      uv_listen((uv_stream_t *)&server, BENCH_BACKLOG, on_unix_connection) != 0)
    bench_die("uv_listen");
  uv_fileno((uv_handle_t *)&server, &fd);
  bench_listening(fd);
  uv_run(loop, UV_RUN_DEFAULT);
}

/* An accepted connection, of `size` bytes, or NULL. */
static uv_tcp_t *accept_one(uv_stream_t *server, int status, size_t size) {
  if (status != 0) return NULL;
  uv_tcp_t *client = bench_alloc(size);
  uv_tcp_init(server->loop, client);
  if (uv_accept(server, (uv_stream_t *)client) != 0) {
    end((uv_stream_t *)client);
    return NULL;
  }
  uv_tcp_nodelay(client, 1);
  return client;
}

static void on_connection(uv_stream_t *server, int status) {
  uv_tcp_t *client = accept_one(server, status, sizeof *client);
  if (client != NULL) uv_read_start((uv_stream_t *)client, give_buffer, echo);
}

static void serve(uv_loop_t *loop, uv_connection_cb on_client) {
  uv_tcp_t server;
  struct sockaddr_in address;
  uv_os_fd_t fd;
  uv_ip4_addr("127.0.0.1", 0, &address);
  uv_tcp_init(loop, &server);
  if (uv_tcp_bind(&server, (struct sockaddr *)&address, 0) != 0 ||
      uv_listen((uv_stream_t *)&server, BENCH_BACKLOG, on_client) != 0)
    bench_die("uv_listen");
  uv_fileno((uv_handle_t *)&server, &fd);
  bench_listening(fd);
  uv_run(loop, UV_RUN_DEFAULT);
}

void peer_serve(bool for_memory) {
  (void)for_memory;
  uv_loop_t *loop = peer_loop_new();
  if (bench_path != NULL) serve_unix(loop);
  serve(loop, on_connection);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static void forget(uv_stream_t *stream, ssize_t size, const uv_buf_t *data) {
  (void)data;
  if (size < 0) end(stream);
}

static void on_pushing(uv_stream_t *server, int status) {
  uv_tcp_t *client = accept_one(server, status, sizeof *client);
  if (client != NULL) uv_read_start((uv_stream_t *)client, give_buffer, forget);
}

void peer_serve_sink(void) {
  serve(peer_loop_new(), on_pushing);
}

typedef struct source {
  uv_tcp_t stream;
  uv_write_t request;
} source_t;

/* Tries first, which costs no request; what is left over goes the other way. */
static void write_on(uv_write_t *request, int status) {
  source_t *source = request->data;
  uv_stream_t *stream = (uv_stream_t *)&source->stream;
  uv_buf_t block = uv_buf_init(bench_block, sizeof bench_block);
  int n = status;
  while (n >= 0 && (n = uv_try_write(stream, &block, 1)) == (int)sizeof bench_block) continue;
  if (n == UV_EAGAIN) n = 0;
  block = uv_buf_init(bench_block + (n < 0 ? 0 : n), (unsigned)sizeof bench_block - (unsigned)(n < 0 ? 0 : n));
  if (n < 0 || uv_write(&source->request, stream, &block, 1, write_on) != 0) end(stream);
}

static void on_pulling(uv_stream_t *server, int status) {
  source_t *source = (source_t *)(void *)accept_one(server, status, sizeof *source);
  if (source == NULL) return;
  source->request.data = source;
  write_on(&source->request, 0);
}

void peer_serve_source(void) {
  serve(peer_loop_new(), on_pulling);
}

/* uv_fs_sendfile knows no streams, and answers EAGAIN where one is full; so the file is mapped and written. */
static uv_buf_t mapped;

static void on_file_written(uv_write_t *request, int status) {
  source_t *source = request->data;
  if (status < 0) end((uv_stream_t *)&source->stream);
}

static void send_file(uv_stream_t *stream, ssize_t size, const uv_buf_t *data) {
  source_t *source = (source_t *)(void *)stream;
  (void)data;
  if (size < 0 || (size > 0 && uv_write(&source->request, stream, &mapped, 1, on_file_written) != 0))
    end(stream);
}

static void on_asking(uv_stream_t *server, int status) {
  source_t *source = (source_t *)(void *)accept_one(server, status, sizeof *source);
  if (source == NULL) return;
  source->request.data = source;
  uv_read_start((uv_stream_t *)&source->stream, give_buffer, send_file);
}

void peer_serve_file(int file, long size) {
  mapped = uv_buf_init(mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0), (unsigned)size);
  serve(peer_loop_new(), on_asking);
}

/* ---- Relay ----------------------------------------------------------------------------------------------- */

typedef struct half {
  uv_tcp_t stream;
  struct half *opposite;
  uv_connect_t connecting;
} half_t;

static struct sockaddr_in relay_target;

static void end_both(half_t *half) {
  end((uv_stream_t *)&half->stream);
  end((uv_stream_t *)&half->opposite->stream);
}

static void pass_on(uv_stream_t *stream, ssize_t size, const uv_buf_t *data);

static void on_passed(uv_write_t *request, int status) {
  half_t *source = request->data;
  free(request);
  if (status == 0)
    uv_read_start((uv_stream_t *)&source->stream, give_buffer, pass_on);
  else
    end_both(source);
}

static void pass_rest(half_t *source, const char *data, size_t size) {
  rest_t *rest = bench_alloc(sizeof *rest + size);
  memcpy(rest->data, data, size);
  rest->request.data = source;
  uv_buf_t whole = uv_buf_init(rest->data, (unsigned)size);
  uv_read_stop((uv_stream_t *)&source->stream);
  if (uv_write(&rest->request, (uv_stream_t *)&source->opposite->stream, &whole, 1, on_passed) != 0)
    bench_die("uv_write");
}

static void pass_on(uv_stream_t *stream, ssize_t size, const uv_buf_t *data) {
  half_t *source = (half_t *)(void *)stream;
  if (size == 0) return;
  uv_buf_t whole = uv_buf_init(data->base, (unsigned)(size < 0 ? 0 : size));
  int written = size < 0 ? (int)size : uv_try_write((uv_stream_t *)&source->opposite->stream, &whole, 1);
  if (written == UV_EAGAIN) written = 0;
  if (written < 0)
    end_both(source);
  else if (written < size)
    pass_rest(source, data->base + written, (size_t)(size - written));
}

static void on_target(uv_connect_t *connecting, int status) {
  half_t *target = connecting->data;
  if (status != 0) bench_die("uv_tcp_connect");
  uv_read_start((uv_stream_t *)&target->stream, give_buffer, pass_on);
  uv_read_start((uv_stream_t *)&target->opposite->stream, give_buffer, pass_on);
}

static void on_relayed(uv_stream_t *server, int status) {
  half_t *client = (half_t *)(void *)accept_one(server, status, sizeof *client), *target;
  if (client == NULL) return;
  target = bench_alloc(sizeof *target);
  uv_tcp_init(server->loop, &target->stream);
  uv_tcp_nodelay(&target->stream, 1);
  client->opposite = target;
  target->opposite = client;
  target->connecting.data = target;
  if (uv_tcp_connect(&target->connecting, &target->stream, (struct sockaddr *)&relay_target, on_target) != 0)
    bench_die("uv_tcp_connect");
}

void peer_serve_relay(int port) {
  uv_ip4_addr("127.0.0.1", port, &relay_target);
  serve(peer_loop_new(), on_relayed);
}
