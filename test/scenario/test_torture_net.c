/* SPDX-License-Identifier: MIT
 *
 * Torture of the network: servers, connections, files, connects, and the end of a loop that has all of them.
 * Each connection_made has one connection_lost, memory that was handed over is released once, a file's position
 * is where it should be, and what arrives is the beginning of what was sent, or all of it.
 *
 * Sockets take a few KiB between two polls, so that back-pressure does not depend on the kernel's buffers.
 *
 * pollers: all
 * faults: yes
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "names.h"
#include "peers.h"
#include "torture.h"

enum { SIDES_MAX = 24, FUTURES_MAX = 24, ROOM = 4096 };

typedef struct stage stage_t;

/* One end of a connection. */
typedef struct side {
  stage_t *stage;
  aloop_transport_t *transport; /* a reference, once made */
  int made, lost, eofs, pauses, resumes;
  int error;
  size_t received;
  int file;
  int files_sent;
} side_t;

struct stage {
  run_t *run;
  side_t sides[SIDES_MAX];
  int sides_count;
  aloop_future_t *futures[FUTURES_MAX]; /* looked at in the end */
  int futures_count;
  aloop_server_t *server;
  int port;
  size_t total; /* bytes of a message, and of two parts of a file */
  size_t head, tail;
  int senders;
  int owned, released; /* pieces of memory handed over, and given back */
};

/* What is sent everywhere: a byte tells its place. */
static unsigned char text[65536];

static void fill_text(void) {
  for (size_t i = 0; i < sizeof text; i++) text[i] = (unsigned char)(i * 7 + i / 256);
}

/* ---- The stage --------------------------------------------------------------------------------------------- */

static bool open_stage(stage_t *stage, run_t *run, int debug) {
  memset(stage, 0, sizeof *stage);
  stage->run = run;
  stage->total = run->kind == FAULT_SHORT ? 300 : 40000;
  stage->head = run->kind == FAULT_SHORT ? 200 : 20000;
  stage->tail = run->kind == FAULT_SHORT ? 100 : 10000;
  fill_text();
  faults_limit_sends(ROOM);
  return run_open(run, debug);
}

static side_t *new_side(stage_t *stage) {
  ALWAYS(stage->sides_count < SIDES_MAX);
  side_t *side = &stage->sides[stage->sides_count++];
  side->stage = stage;
  side->file = -1;
  return side;
}

static void keep(stage_t *stage, aloop_future_t *future) {
  if (run_made(stage->run, future) == NULL) return;
  ALWAYS(stage->futures_count < FUTURES_MAX);
  stage->futures[stage->futures_count++] = future;
}

/* Ends everything, however far it came. */
static void close_stage(stage_t *stage) {
  aloop_close(stage->run->loop);
  for (int i = 0; i < stage->futures_count; i++) {
    int64_t value = aloop_future_result(stage->futures[i]);
    ALWAYS(value >= 0 || (value != ALOOP_ENOTDONE && is_known(value)));
    aloop_future_unref(stage->futures[i]);
  }
  for (int i = 0; i < stage->sides_count; i++) {
    side_t *side = &stage->sides[i];
    ALWAYS(side->made == side->lost && side->made <= 1);
    if (side->transport != NULL) ALWAYS(aloop_transport_fd(side->transport) == ALOOP_ECLOSED);
    aloop_transport_unref(side->transport);
    faults_pause();
    if (side->file >= 0) close(side->file);
    faults_resume();
  }
  aloop_server_unref(stage->server);
  ALWAYS(stage->owned == stage->released);
}

/* ---- Protocols --------------------------------------------------------------------------------------------- */

static void *create_side(void *arg) {
  return new_side(arg);
}

static void note_made(side_t *side, aloop_transport_t *transport) {
  ALWAYS(side->made == 0 && side->lost == 0);
  side->made++;
  side->transport = aloop_transport_ref(transport);
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  note_made(protocol, transport);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  side_t *side = protocol;
  ALWAYS(side->made == 1 && side->lost == 0 && side->transport == transport);
  ALWAYS(error <= 0 && (error == 0 || is_known(error)));
  side->lost++;
  side->error = error;
}

static void on_pause(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  ALWAYS(side->pauses++ == side->resumes);
  aloop_transport_pause_reading(transport);
}

static void on_resume(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  ALWAYS(++side->resumes == side->pauses);
  int rc = aloop_transport_resume_reading(transport);
  NORMALLY(side->stage->run, rc == 0);
  if (rc < 0) aloop_transport_abort_error(transport, rc);
}

/* The end of a connection on which both sides have said all. */
static int on_last_eof(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  ALWAYS(((side_t *)protocol)->eofs++ == 0);
  return 0;
}

static bool clients_lost(const void *arg) {
  const stage_t *stage = arg;
  for (int i = 0; i < stage->sides_count; i++)
    if (stage->sides[i].made != stage->sides[i].lost) return false;
  return true;
}

static bool serve(stage_t *stage, const aloop_protocol_t *table) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  run_t *run = stage->run;
  bool serving = run_object_of(run, aloop_create_server(run->loop, table, stage, &options), &stage->server);
  NORMALLY(run, serving);
  if (!serving) return false;
  stage->port = aloop_server_port(stage->server);
  NORMALLY(run, stage->port > 0);
  ALWAYS(stage->port > 0 || is_known(stage->port));
  return stage->port > 0;
}

/* Returns the client's side, of which nothing is known yet, with a future that is kept. */
static side_t *connect_to_server(stage_t *stage, const aloop_protocol_t *table) {
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = stage->port};
  side_t *side = new_side(stage);
  keep(stage, aloop_create_connection(stage->run->loop, table, side, &options));
  return side;
}

static bool futures_done(const void *arg) {
  const stage_t *stage = arg;
  for (int i = 0; i < stage->futures_count; i++)
    if (!aloop_future_done(stage->futures[i])) return false;
  return true;
}

/* ---- Echo -------------------------------------------------------------------------------------------------- */

static int echo_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  int rc = aloop_transport_write(transport, data, size);
  NORMALLY(((side_t *)protocol)->stage->run, rc == 0);
  ALWAYS(rc == 0 || rc == ALOOP_ENOMEM || rc == ALOOP_ECLOSED);
  return rc;
}

static int echo_eof(aloop_transport_t *transport, void *protocol) {
  ALWAYS(((side_t *)protocol)->eofs++ == 0);
  ALWAYS(aloop_transport_write_eof(transport) == 0);
  aloop_transport_close(transport);
  return 1;
}

static void echo_made(aloop_transport_t *transport, void *protocol) {
  note_made(protocol, transport);
  ALWAYS(aloop_transport_set_write_buffer_limits(transport, 1000, 100) == 0);
}

static const aloop_protocol_t echo_protocol = {.size = sizeof(aloop_protocol_t),
                                               .create = create_side,
                                               .connection_made = echo_made,
                                               .data_received = echo_data,
                                               .eof_received = echo_eof,
                                               .pause_writing = on_pause,
                                               .resume_writing = on_resume,
                                               .connection_lost = on_lost};

static void release_text(void *arg) {
  ((stage_t *)arg)->released++;
}

/* Says the whole text in three ways. Returns 0 or why not. */
static int say_text(stage_t *stage, aloop_transport_t *transport) {
  size_t part = stage->total / 4;
  struct iovec parts[3] = {
      {text + part, part / 2}, {text + part + part / 2, 0}, {text + part + part / 2, part / 2}};
  int rc = aloop_transport_write(transport, text, part);
  if (rc == 0) rc = aloop_transport_writev(transport, parts, 3);
  if (rc < 0) return rc;
  size_t said = part + part / 2 * 2;
  rc = aloop_transport_write_owned(transport, text + said, stage->total - said, release_text, stage);
  stage->owned += rc == 0;
  return rc == 0 ? aloop_transport_write_eof(transport) : rc;
}

static void resume_later(aloop_t *loop, void *arg) {
  (void)loop;
  side_t *side = arg;
  int rc = aloop_transport_resume_reading(side->transport);
  NORMALLY(side->stage->run, rc == 0);
  if (rc < 0) aloop_transport_abort_error(side->transport, rc);
}

static void talker_made(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  note_made(side, transport);
  int rc = aloop_transport_set_timeouts(transport, ALOOP_SECONDS(3600), 0, ALOOP_SECONDS(3600));
  if (rc == 0) rc = say_text(side->stage, transport);
  aloop_transport_pause_reading(transport);
  aloop_handle_t handle = aloop_call_later(aloop_transport_loop(transport), 1, resume_later, side);
  if (rc == 0) rc = aloop_handle_error(handle);
  NORMALLY(side->stage->run, rc == 0);
  if (rc < 0) aloop_transport_abort_error(transport, rc);
}

static int talker_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  side_t *side = protocol;
  ALWAYS(side->received + size <= side->stage->total);
  ALWAYS(memcmp(data, text + side->received, size) == 0);
  side->received += size;
  return 0;
}

static const aloop_protocol_t talker_protocol = {.size = sizeof(aloop_protocol_t),
                                                 .connection_made = talker_made,
                                                 .data_received = talker_data,
                                                 .eof_received = on_last_eof,
                                                 .connection_lost = on_lost};

static void rude_made(aloop_transport_t *transport, void *protocol) {
  note_made(protocol, transport);
  int rc = aloop_transport_write(transport, "x", 1);
  ALWAYS(rc == 0 || rc == ALOOP_ENOMEM);
  aloop_transport_abort_reset(transport);
}

static const aloop_protocol_t rude_protocol = {
    .size = sizeof(aloop_protocol_t), .connection_made = rude_made, .connection_lost = on_lost};

static const aloop_protocol_t silent_protocol = {.size = sizeof(aloop_protocol_t),
                                                 .connection_made = on_made,
                                                 .eof_received = on_last_eof,
                                                 .connection_lost = on_lost};

/* Connects are over, and so are the connections of two clients. */
typedef struct pair {
  const stage_t *stage;
  const side_t *first, *second;
} pair_t;

static bool pair_over(const void *arg) {
  const pair_t *pair = arg;
  return futures_done(pair->stage) && pair->first->made == pair->first->lost &&
         pair->second->made == pair->second->lost;
}

/* Ends the server, gently if that is possible. */
static void end_server(stage_t *stage) {
  run_t *run = stage->run;
  keep(stage, aloop_server_wait_closed(stage->server));
  int64_t left = run_end_of(run, aloop_server_drain(stage->server, ALOOP_MILLIS(1)));
  NORMALLY(run, left == 1); /* the silent one */
  if (left < 0) {
    aloop_server_close(stage->server);
    aloop_server_abort_clients(stage->server);
  }
}

static void play_echo(run_t *run) {
  stage_t stage;
  if (!open_stage(&stage, run, -1)) return;
  if (serve(&stage, &echo_protocol)) {
    pair_t talk = {.stage = &stage};
    talk.first = connect_to_server(&stage, &talker_protocol);
    talk.second = connect_to_server(&stage, &rude_protocol);
    connect_to_server(&stage, &silent_protocol);
    run_to(run, pair_over, &talk);
    NORMALLY(run, talk.first->received == stage.total && talk.first->error == 0);
    aloop_future_t *forever = aloop_server_serve_forever(stage.server);
    keep(&stage, forever);
    end_server(&stage);
    run_to(run, futures_done, &stage);
    NORMALLY(run, aloop_future_cancelled(forever));
    run_to(run, clients_lost, &stage);
    NORMALLY(run, stage.sides_count == 6);
  }
  close_stage(&stage);
}

static void echo(void **state) {
  torture_all(*state, "echo", play_echo);
}

/* ---- Files ------------------------------------------------------------------------------------------------- */

enum { HEAD_OFFSET = 100, FILE_SIZE = 60000 };

static int open_file(void) {
  char path[] = "/tmp/aloop-torture-XXXXXX";
  faults_pause();
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  unlink(path);
  assert_int_equal(write(fd, text, FILE_SIZE), FILE_SIZE);
  faults_resume();
  return fd;
}

static int64_t offset_of_part(const side_t *side) {
  return side->files_sent == 0 ? HEAD_OFFSET : (int64_t)(FILE_SIZE - side->stage->tail);
}

static void check_position(const side_t *side, int64_t sent) {
  faults_pause();
  int64_t position = lseek(side->file, 0, SEEK_CUR);
  faults_resume();
  NORMALLY(side->stage->run, position == offset_of_part(side) + sent);
}

/* Starts a part. `done` is called with its end, or the connection is over. */
static aloop_future_t *send_part(side_t *side, aloop_done_fn done) {
  int64_t count = side->files_sent == 0 ? (int64_t)side->stage->head : 0;
  aloop_future_t *future = aloop_sendfile(side->transport, side->file, offset_of_part(side), count, 0);
  if (run_made(side->stage->run, future) == NULL || aloop_future_add_done_callback(future, done, side) < 0)
    aloop_transport_abort(side->transport);
  return future;
}

static void part_sent(aloop_future_t *future, void *arg) {
  side_t *side = arg;
  int64_t sent = aloop_future_result(future);
  NORMALLY(side->stage->run, sent == (int64_t)(side->files_sent == 0 ? side->stage->head : side->stage->tail));
  ALWAYS(sent >= 0 || is_known(sent));
  if (sent >= 0) check_position(side, sent);
  side->files_sent++;
  if (sent >= 0 && side->files_sent < 2)
    aloop_future_unref(send_part(side, part_sent));
  else
    aloop_transport_close(side->transport);
}

static void part_cancelled(aloop_future_t *future, void *arg) {
  side_t *side = arg;
  int64_t sent = aloop_future_result(future);
  NORMALLY(side->stage->run, sent == ALOOP_ECANCELED);
  ALWAYS(sent == ALOOP_ECANCELED || is_known(sent));
  aloop_transport_close(side->transport);
}

/* The first sends its two parts, the second is stopped at once. */
static void sender_made(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  note_made(side, transport);
  side->file = open_file();
  if (side->stage->senders++ == 0) {
    aloop_future_unref(send_part(side, part_sent));
  } else {
    aloop_future_t *future = send_part(side, part_cancelled);
    aloop_future_cancel(future);
    aloop_future_unref(future);
  }
}

static const aloop_protocol_t sender_protocol = {.size = sizeof(aloop_protocol_t),
                                                 .create = create_side,
                                                 .connection_made = sender_made,
                                                 .eof_received = on_last_eof,
                                                 .connection_lost = on_lost};

/* What arrives is the beginning of the two parts. */
static int collector_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  side_t *side = protocol;
  const unsigned char *bytes = data;
  size_t head = side->stage->head, tail = side->stage->tail;
  ALWAYS(side->received + size <= head + tail);
  for (size_t i = 0; i < size; i++, side->received++)
    ALWAYS(bytes[i] == (side->received < head ? text[HEAD_OFFSET + side->received]
                                              : text[FILE_SIZE - tail + side->received - head]));
  return 0;
}

static const aloop_protocol_t collector_protocol = {.size = sizeof(aloop_protocol_t),
                                                    .connection_made = on_made,
                                                    .data_received = collector_data,
                                                    .eof_received = on_last_eof,
                                                    .connection_lost = on_lost};

static void play_files(run_t *run) {
  stage_t stage;
  if (!open_stage(&stage, run, -1)) return;
  if (serve(&stage, &sender_protocol)) {
    pair_t both = {.stage = &stage};
    both.first = connect_to_server(&stage, &collector_protocol);
    both.second = connect_to_server(&stage, &collector_protocol);
    run_to(run, pair_over, &both);
    NORMALLY(run, both.first->received == stage.head + stage.tail);
    NORMALLY(run, both.second->received <= stage.head);
    aloop_server_close(stage.server);
    run_to(run, clients_lost, &stage);
  }
  close_stage(&stage);
}

static void play_copied_files(run_t *run) {
  faults_without_sendfile();
  play_files(run);
}

static void files(void **state) {
  torture_all(*state, "files", play_files);
}

static void copied_files(void **state) {
  torture_all(*state, "copied files", play_copied_files);
}

/* ---- Connects ---------------------------------------------------------------------------------------------- */

/* Waits for a connection and ends it. */
static void meet(stage_t *stage, const aloop_connect_options_t *options, side_t *side) {
  run_t *run = stage->run;
  aloop_transport_t *transport = NULL;
  bool met =
      run_object_of(run, aloop_create_connection(run->loop, &silent_protocol, side, options), &transport);
  NORMALLY(run, met);
  if (!met) return;
  ALWAYS(transport == side->transport);
  aloop_transport_abort(transport);
  aloop_transport_unref(transport);
}

static void be_refused(stage_t *stage, int port) {
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = port};
  aloop_attempt_t attempt;
  run_t *run = stage->run;
  aloop_future_t *future =
      run_made(run, aloop_create_connection(run->loop, &silent_protocol, new_side(stage), &options));
  if (future == NULL) return;
  aloop_future_ref(future);
  int64_t error = run_end_of(run, future);
  NORMALLY(run, error == ALOOP_ECONNREFUSED);
  NORMALLY(run, aloop_future_attempt(future, 0, &attempt) == 0 && attempt.error == ALOOP_ECONNREFUSED);
  ALWAYS(run->broken || (error < 0 && strlen(aloop_future_message(future)) > 0));
  aloop_future_unref(future);
}

static void change_ones_mind(stage_t *stage, const aloop_connect_options_t *options) {
  side_t *side = new_side(stage);
  aloop_future_t *future =
      run_made(stage->run, aloop_create_connection(stage->run->loop, &silent_protocol, side, options));
  if (future == NULL) return;
  NORMALLY(stage->run, aloop_future_cancel(future) == 1);
  aloop_future_cancel(future);
  keep(stage, future);
}

static void adopt(stage_t *stage, int fd) {
  run_t *run = stage->run;
  side_t *side = new_side(stage);
  int64_t adopted = run_end_of(run, aloop_connect_accepted_socket(run->loop, &silent_protocol, side, fd, NULL));
  NORMALLY(run, adopted == 0);
  if (adopted == 0) aloop_transport_abort(side->transport);
  if (side->made > 0) return;
  faults_pause();
  ALWAYS(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
  close(fd);
  faults_resume();
}

static void play_connects(run_t *run) {
  stage_t stage;
  int port, dead_port, fds[2];
  if (!open_stage(&stage, run, -1)) return;
  faults_pause();
  int listener = peer_listen(5, &port);
  int dead = peer_bind("127.0.0.1", &dead_port);
  make_socketpair(fds);
  faults_resume();
  aloop_connect_options_t from_here = {.size = sizeof from_here,
                                       .host = "127.0.0.1",
                                       .port = port,
                                       .local_host = "127.0.0.1",
                                       .timeout = ALOOP_SECONDS(3600)};
  aloop_connect_options_t by_name = {.size = sizeof by_name, .host = "many.test", .port = port};
  meet(&stage, &from_here, new_side(&stage));
  meet(&stage, &by_name, new_side(&stage));
  be_refused(&stage, dead_port);
  change_ones_mind(&stage, &from_here);
  change_ones_mind(&stage, &by_name);
  adopt(&stage, fds[0]);
  run_to(run, futures_done, &stage);
  run_to(run, clients_lost, &stage);
  close_stage(&stage);
  faults_pause();
  close(listener);
  close(dead);
  close(fds[1]);
  faults_resume();
}

static void connects(void **state) {
  names_errno = 0;
  torture_all(*state, "connects", play_connects);
}

/* ---- The end of everything --------------------------------------------------------------------------------- */

static void never(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  fail_msg("%s: called after the end", torture_where);
}

static void open_all(stage_t *stage, const int fds[2]) {
  aloop_t *loop = stage->run->loop;
  aloop_connect_options_t by_name = {.size = sizeof by_name, .host = "many.test", .port = stage->port};
  aloop_future_t *two[] = {aloop_future_new(loop), aloop_sleep(loop, ALOOP_SECONDS(3600))};
  keep(stage, aloop_gather(loop, two, 2, 0));
  keep(stage, aloop_wait_for(aloop_future_new(loop), ALOOP_SECONDS(3600)));
  keep(stage, aloop_server_serve_forever(stage->server));
  keep(stage, aloop_server_wait_closed(stage->server));
  keep(stage, aloop_create_connection(loop, &silent_protocol, new_side(stage), &by_name));
  keep(stage, aloop_server_drain(stage->server, ALOOP_SECONDS(3600)));
  aloop_call_soon(loop, never, NULL);
  aloop_call_later(loop, ALOOP_SECONDS(3600), never, NULL);
  aloop_call_every(loop, ALOOP_SECONDS(3600), never, NULL);
  for (int i = 0; i < 5; i++) aloop_call_soon_threadsafe(loop, never, NULL);
  aloop_add_reader(loop, fds[0], never, NULL);
  aloop_add_writer(loop, fds[1], never, NULL);
}

static void play_the_end(run_t *run) {
  stage_t stage;
  int fds[2];
  if (!open_stage(&stage, run, 1)) return;
  faults_pause();
  make_pipe(fds);
  faults_resume();
  if (serve(&stage, &echo_protocol)) {
    connect_to_server(&stage, &talker_protocol);
    connect_to_server(&stage, &silent_protocol);
    run_to(run, futures_done, &stage);
    for (int i = 0; i < 3 && !run->broken; i++) run_a_turn(run);
    open_all(&stage, fds);
  }
  close_stage(&stage);
  faults_pause();
  close(fds[0]);
  close(fds[1]);
  faults_resume();
}

static void the_end(void **state) {
  torture_all(*state, "the end", play_the_end);
}

TESTS(T(echo), T(files), T(copied_files), T(connects), T(the_end))
