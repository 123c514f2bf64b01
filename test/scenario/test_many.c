/* SPDX-License-Identifier: MIT
 *
 * Ten thousand connections at one time: all are accepted, each gets its answer, an idle one costs at most 256
 * bytes, and all ends arrive. The other ends are in a process of their own, so that each needs no more than ten
 * thousand descriptors. pollers: all
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peers.h"

enum { MANY = 10000, SPARE = 100, BYTES_EACH = 256 };

/* ---- Memory that is counted ------------------------------------------------------------------------------ */

typedef union block {
  size_t bytes;
  max_align_t aligned;
} block_t;

static void *resize(void *user, void *memory, size_t bytes) {
  size_t *live = user;
  block_t *block = memory != NULL ? (block_t *)memory - 1 : NULL;
  size_t before = block != NULL ? block->bytes : 0;
  block_t *grown = realloc(block, sizeof *grown + bytes);
  if (grown == NULL) return NULL;
  grown->bytes = bytes;
  *live += bytes - before;
  return grown + 1;
}

static void release(void *user, void *memory) {
  size_t *live = user;
  block_t *block = memory != NULL ? (block_t *)memory - 1 : NULL;
  if (block != NULL) *live -= block->bytes;
  free(block);
}

/* ---- The server ------------------------------------------------------------------------------------------ */

typedef struct counts {
  int made, received, lost;
} counts_t;

static void on_made(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  ((counts_t *)protocol)->made++;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  ((counts_t *)protocol)->received += (int)size;
  return aloop_transport_write(transport, data, size);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)error;
  ((counts_t *)protocol)->lost++;
}

static const aloop_protocol_t echo = {.size = sizeof(aloop_protocol_t),
                                      .connection_made = on_made,
                                      .data_received = on_data,
                                      .connection_lost = on_lost};

static aloop_server_t *serve(aloop_t *loop, counts_t *counts) {
  aloop_server_t *server = NULL;
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .backlog = 1024};
  aloop_future_t *future = aloop_create_server(loop, &echo, counts, &options);
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  return server;
}

/* ---- The clients, in a process of their own -------------------------------------------------------------- */

static int sockets[MANY];

static bool connect_all(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < MANY; i++) {
    struct linger now = {.l_onoff = 1, .l_linger = 0}; /* leave no ports behind */
    sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
    if (sockets[i] < 0) return false;
    setsockopt(sockets[i], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    if (connect(sockets[i], (struct sockaddr *)(void *)&address, sizeof address) < 0) return false;
  }
  return true;
}

static bool talk_to_all(void) {
  for (int i = 0; i < MANY; i++)
    if (send(sockets[i], &i, 1, 0) != 1) return false;
  for (int i = 0; i < MANY; i++) {
    unsigned char answer;
    if (recv(sockets[i], &answer, 1, 0) != 1 || answer != (unsigned char)i) return false;
  }
  return true;
}

/* Connects, waits for a word, talks, waits again, and goes with all sockets. */
static void run_clients(int port, int words) {
  char word;
  if (!connect_all(port)) _exit(1);
  if (read(words, &word, 1) != 1 || !talk_to_all()) _exit(2);
  if (read(words, &word, 1) != 1) _exit(3);
  _exit(0);
}

static bool enough_descriptors(void) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur >= MANY + SPARE) return true;
  if (limit.rlim_max < MANY + SPARE) return false;
  limit.rlim_cur = MANY + SPARE;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void ten_thousand_connections_live_side_by_side(void **state) {
  env_t *env = *state;
  size_t live = 0;
  counts_t counts = {0};
  int words[2];
  if (on_poller(env, "select") || !enough_descriptors()) skip();
  aloop_t *loop = NULL;
  aloop_allocator_t allocator = {sizeof allocator, resize, release, &live};
  assert_int_equal(
      aloop_new(&(aloop_options_t){.size = sizeof(aloop_options_t), .allocator = &allocator}, &loop), 0);
  aloop_server_t *server = serve(loop, &counts);
  assert_int_equal(pipe(words), 0);
  size_t before = live;
  pid_t child = fork();
  if (child == 0) run_clients(aloop_server_port(server), words[0]);
  assert_true(child > 0);

  run_until_count(loop, &counts.made, MANY);
  run_turns(loop, 2);
  assert_int_equal(aloop_server_clients(server), MANY);
  print_message("%zu bytes for each idle connection\n", (live - before) / MANY);
  assert_true(live - before <= (size_t)MANY * BYTES_EACH);

  assert_int_equal(write(words[1], "!", 1), 1);
  run_until_count(loop, &counts.received, MANY);
  assert_int_equal(write(words[1], "!", 1), 1);
  run_until_count(loop, &counts.lost, MANY);
  assert_int_equal(aloop_server_clients(server), 0);

  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
  aloop_server_close(server);
  aloop_server_unref(server);
  aloop_free(loop);
  assert_int_equal(live, 0);
  close(words[0]);
  close(words[1]);
}

TESTS(T(ten_thousand_connections_live_side_by_side))
