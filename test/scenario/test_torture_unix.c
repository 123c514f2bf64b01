/* SPDX-License-Identifier: MIT
 *
 * Torture of Unix sockets: a server on a path, a connection, descriptors one way between bytes. As many
 * descriptors are there as bytes that stand for one, in their order; none stays behind, and no socket file.
 *
 * pollers: all
 * faults: yes
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "torture.h"

enum { PARCELS = 5, PER_PARCEL = 40, TOTAL = PARCELS * PER_PARCEL };

typedef struct stage {
  run_t *run;
  char folder[40];
  char path[60];
  aloop_transport_t *client;
  int made, lost; /* both sides together */
  size_t size, marks, taken;
  bool wrong;
} stage_t;

static void on_made(aloop_transport_t *transport, void *protocol) {
  stage_t *stage = protocol;
  stage->made++;
  if (aloop_transport_server(transport) == NULL) stage->client = transport;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  stage_t *stage = protocol;
  const char *bytes = data;
  int fd;
  for (size_t i = 0; i < size; i++) stage->marks += bytes[i] == 'F';
  stage->size += size;
  while ((fd = aloop_transport_take_fd(transport)) >= 0) {
    struct stat now;
    faults_pause();
    /* The first of each parcel is a pipe, the second the folder. */
    bool is_pipe = fstat(fd, &now) == 0 && S_ISFIFO(now.st_mode);
    if (is_pipe != (stage->taken % 2 == 0) || (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) stage->wrong = true;
    close(fd);
    faults_resume();
    stage->taken++;
  }
  if (stage->taken != stage->marks * 2) stage->wrong = true;
  return 0;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)error;
  stage_t *stage = protocol;
  stage->lost++;
  if (stage->client == transport) stage->client = NULL;
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol, .connection_made = on_made, .data_received = on_data, .connection_lost = on_lost};

static bool is_over(const void *arg) {
  const stage_t *stage = arg;
  return stage->size == TOTAL || stage->lost > 0;
}

static bool all_sent(stage_t *stage) {
  char bytes[PER_PARCEL];
  int fds[2];
  memset(bytes, '.', sizeof bytes);
  bytes[0] = 'F';
  faults_pause();
  int pipes[2];
  make_pipe(pipes);
  fds[0] = pipes[0];
  fds[1] = open(stage->folder, O_RDONLY | O_CLOEXEC);
  faults_resume();
  int rc = 0;
  for (int i = 0; i < PARCELS && rc == 0 && stage->client != NULL; i++) {
    rc = aloop_transport_write_fds(stage->client, bytes, 10, fds, 2);
    ALWAYS(rc == 0 || is_known(rc));
    if (rc == 0 && stage->client != NULL)
      rc = aloop_transport_write(stage->client, bytes + 10, PER_PARCEL - 10);
  }
  NORMALLY(stage->run, rc == 0);
  faults_pause();
  close(pipes[0]);
  close(pipes[1]);
  close(fds[1]);
  faults_resume();
  return rc == 0 && stage->client != NULL;
}

static void pass(stage_t *stage) {
  run_t *run = stage->run;
  aloop_server_t *server = NULL;
  aloop_unix_server_options_t at = {.size = sizeof at, .path = stage->path};
  aloop_unix_connect_options_t to = {.size = sizeof to, .path = stage->path, .timeout = ALOOP_SECONDS(5)};
  bool serves = run_object_of(run, aloop_create_unix_server(run->loop, &protocol, stage, &at), &server);
  NORMALLY(run, serves);
  if (!serves) return;
  int64_t rc = run_end_of(run, aloop_create_unix_connection(run->loop, &protocol, stage, &to));
  NORMALLY(run, rc == 0);
  if (rc == 0 && stage->client != NULL && all_sent(stage) && run_to(run, is_over, stage))
    NORMALLY(run, stage->size == TOTAL && stage->taken == 2 * PARCELS);
  ALWAYS(!stage->wrong);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void play(run_t *run) {
  stage_t stage = {.run = run, .folder = "/tmp/aloop-torture-XXXXXX"};
  struct stat now;
  faults_pause();
  assert_non_null(mkdtemp(stage.folder));
  snprintf(stage.path, sizeof stage.path, "%s/s", stage.folder);
  faults_resume();
  if (run_open(run, -1)) {
    pass(&stage);
    aloop_close(run->loop);
  }
  faults_pause();
  ALWAYS(lstat(stage.path, &now) < 0);
  assert_int_equal(rmdir(stage.folder), 0);
  faults_resume();
  ALWAYS(stage.made == stage.lost);
}

static void descriptors_between_bytes(void **state) {
  torture_all(*state, "unix sockets", play);
}

TESTS(T(descriptors_between_bytes))
