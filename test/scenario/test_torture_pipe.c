/* SPDX-License-Identifier: MIT
 *
 * Torture of pipes: what a program reads from one descriptor it writes to another, both the caller's. Whatever
 * goes wrong, a descriptor belongs to its transport if the connect succeeded and to the caller if not,
 * connection_lost comes once for each connection_made, and what arrives is the beginning of what was sent, or
 * all of it.
 *
 * pollers: all
 * faults: yes
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "pipes.h"
#include "torture.h"

enum { ROOM = 40000 };

typedef struct stage stage_t;

typedef struct side {
  stage_t *stage;
  aloop_transport_t *transport; /* a reference, once connected */
  int made, lost, eofs;
  int error;
} side_t;

struct stage {
  run_t *run;
  side_t in, out;
  size_t total;    /* bytes of the message */
  size_t received; /* of it by `in` */
};

static char text[ROOM];
static char got[ROOM];
static aloop_executor_t *refusing; /* so that no thread is left when descriptors are counted */

/* ---- Protocols ------------------------------------------------------------------------------------------- */

static void on_made(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  (void)transport;
  ALWAYS(side->made == 0 && side->lost == 0);
  side->made++;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  side_t *side = protocol;
  stage_t *stage = side->stage;
  (void)transport;
  ALWAYS(side->made == 1 && side->lost == 0 && side->eofs == 0);
  ALWAYS(size > 0 && size <= stage->total - stage->received);
  ALWAYS(memcmp(data, text + stage->received, size) == 0);
  stage->received += size;
  if (stage->out.transport == NULL) return 0;
  int rc = aloop_transport_write(stage->out.transport, data, size);
  ALWAYS(rc == 0 || is_known(rc));
  return rc;
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  (void)transport;
  ALWAYS(side->eofs == 0 && side->lost == 0);
  side->eofs++;
  return 1;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  side_t *side = protocol;
  (void)transport;
  ALWAYS(side->made == 1 && side->lost == 0);
  ALWAYS(error == 0 || is_known(error));
  side->lost++;
  side->error = error;
  if (side == &side->stage->in && side->stage->out.transport != NULL)
    aloop_transport_write_eof(side->stage->out.transport);
  if (side == &side->stage->out && side->stage->in.transport != NULL)
    aloop_transport_close(side->stage->in.transport);
}

static const aloop_protocol_t table = {
    .size = sizeof table,
    .connection_made = on_made,
    .data_received = on_data,
    .eof_received = on_eof,
    .connection_lost = on_lost,
};

/* ---- The play -------------------------------------------------------------------------------------------- */

static bool is_open(int fd) {
  faults_pause();
  bool open = fcntl(fd, F_GETFD) >= 0;
  faults_resume();
  return open;
}

/* Connects one side. If that fails the descriptor is still there, and the caller's to close. */
static void connect_side(side_t *side, int fd, bool reads) {
  run_t *run = side->stage->run;
  aloop_future_t *future = reads ? aloop_connect_read_pipe(run->loop, &table, side, fd)
                                 : aloop_connect_write_pipe(run->loop, &table, side, fd);
  bool connected = run_object_of(run, future, &side->transport);
  NORMALLY(run, connected);
  ALWAYS(is_open(fd));
  if (connected || side->made > side->lost) return;
  faults_pause();
  if (side->made == 0) close(fd);
  faults_resume();
}

static bool is_over(const void *arg) {
  const stage_t *stage = arg;
  return stage->in.made == stage->in.lost && stage->out.made == stage->out.lost;
}

static void end_side(side_t *side) {
  ALWAYS(side->made == side->lost);
  aloop_transport_unref(side->transport);
}

/* What comes from `from` goes to `to`. */
static size_t filter(run_t *run, size_t total, int from, int to) {
  stage_t stage = {.run = run, .total = total};
  stage.in.stage = stage.out.stage = &stage;
  connect_side(&stage.out, to, false);
  connect_side(&stage.in, from, true);
  if (stage.in.transport == NULL && stage.out.transport != NULL) aloop_transport_close(stage.out.transport);
  if (stage.out.transport == NULL && stage.in.transport != NULL) aloop_transport_close(stage.in.transport);
  run_to(run, is_over, &stage);
  NORMALLY(run, stage.in.error == 0 && stage.out.error == 0 && stage.in.eofs == 1);
  NORMALLY(run, stage.received == total);
  aloop_close(run->loop);
  end_side(&stage.in);
  end_side(&stage.out);
  return stage.received;
}

static size_t begin(run_t *run) {
  pattern(text, sizeof text, 31);
  if (!run_open(run, 0)) return 0;
  return run->kind == FAULT_SHORT ? 100 : sizeof text; /* what a socket takes in messages of one byte */
}

/* Through descriptors that take the whole message and give it back at their other ends. */
static void play_between(run_t *run, void (*make)(int fds[2])) {
  int first[2];
  int second[2];
  size_t total = begin(run);
  if (total == 0) return;
  faults_pause();
  make(first);
  make(second);
  assert_int_equal(write(first[1], text, total), total);
  close(first[1]);
  faults_resume();
  size_t received = filter(run, total, first[0], second[1]);
  faults_pause();
  set_nonblocking(second[0]);
  size_t arrived = drain(second[0], got, sizeof got);
  close(second[0]);
  faults_resume();
  ALWAYS(arrived <= received && memcmp(got, text, arrived) == 0);
  NORMALLY(run, arrived == total);
}

static void play_pipes(run_t *run) {
  play_between(run, make_blocking_pipe);
}

static void play_sockets(run_t *run) {
  play_between(run, make_blocking_pair);
}

static void play_files(run_t *run) {
  size_t total = begin(run);
  if (total == 0) return;
  if (aloop_set_default_executor(run->loop, refusing) < 0) {
    ALWAYS(run->memory);
    return;
  }
  faults_pause();
  int from = make_file(text, total, O_RDONLY);
  int to = make_file("", 0, O_RDWR);
  int shared = fcntl(to, F_DUPFD_CLOEXEC, 0);
  faults_resume();
  size_t received = filter(run, total, from, to);
  faults_pause();
  size_t arrived = file_content(shared, got, sizeof got);
  close(shared);
  faults_resume();
  ALWAYS(arrived <= received && memcmp(got, text, arrived) == 0);
  NORMALLY(run, arrived == total);
}

/* ---- Tests ----------------------------------------------------------------------------------------------- */

static int refuse(void *state, aloop_job_t *job, int lane) {
  (void)state, (void)job, (void)lane;
  return ALOOP_EAGAIN;
}

static void pipes_survive(void **state) {
  torture_all(*state, "pipes", play_pipes);
}

static void sockets_survive(void **state) {
  torture_all(*state, "sockets", play_sockets);
}

static void files_survive(void **state) {
  static const aloop_executor_table_t executor = {
      .size = sizeof executor, .name = "refusing", .submit = refuse};
  assert_int_equal(aloop_executor_new(&executor, NULL, &refusing), 0);
  torture_all(*state, "files", play_files);
  aloop_executor_unref(refusing);
}

TESTS(T(pipes_survive), T(sockets_survive), T(files_survive))
