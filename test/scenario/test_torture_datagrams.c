/* SPDX-License-Identifier: MIT
 *
 * Torture of messages: datagrams there and back over UDP, one by one, in batches and in segments; over Unix
 * sockets with files; and over a connection that keeps messages apart, with descriptors in some. Each tells its
 * number. Whatever fails, what comes back is whole, in order and no more than was sent; what was lost is only
 * what an error was told for; no descriptor and no socket file stays behind.
 *
 * pollers: all
 * faults: yes
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "torture.h"

enum { NUMBER = 5, SINGLE = 5, BATCH = 10, SEGMENTS = 70, TOTAL = SINGLE + BATCH + SEGMENTS, PACKETS = 20 };

typedef struct stage {
  run_t *run;
  char folder[40];
  char paths[2][60];
  struct sockaddr_storage address; /* of the server */
  aloop_datagram_t *server, *client;
  aloop_transport_t *connection; /* the client's */
  int made, lost;                /* both sides together */
  int errors;
  int last;   /* number that came back */
  int passed; /* descriptors that came to the server */
  size_t came, echoed;
  bool wrong;
} stage_t;

/* ---- What is sent, and what came back -------------------------------------------------------------------- */

static const char *numbers(void) {
  static char text[TOTAL * NUMBER + 1];
  for (int i = 0; i < TOTAL; i++) snprintf(text + i * NUMBER, NUMBER + 1, "%05d", i + 1);
  return text;
}

static void take(stage_t *stage, const void *data, size_t size) {
  char text[NUMBER + 1] = "";
  if (size == NUMBER) memcpy(text, data, NUMBER);
  int number = size == 0 ? stage->last : atoi(text); /* empty ones come from the connection only */
  if ((size != NUMBER && size != 0) || number < stage->last || (size > 0 && number == stage->last))
    stage->wrong = true;
  stage->last = number;
  stage->came++;
}

/* Turns until all has come back, or nothing does any more. */
static void run_quiet(stage_t *stage, size_t wanted) {
  int patience = run_is_strict(stage->run) ? 200 : 4;
  size_t before = 0;
  for (int idle = 0; idle < patience && stage->came < wanted && stage->lost == 0; idle++) {
    if (idle == patience / 2) stage->run->env->fail_from = 0;
    int rc = stage->run->broken ? -1 : aloop_run_once(stage->run->loop, ALOOP_MILLIS(1));
    NORMALLY(stage->run, rc >= 0);
    if (rc < 0) stage->run->broken = true;
    if (rc < 0) return;
    if (stage->came + stage->echoed > before) idle = 0;
    before = stage->came + stage->echoed;
  }
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

static void made(aloop_datagram_t *endpoint, void *protocol) {
  (void)endpoint;
  ((stage_t *)protocol)->made++;
}

static void answer(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages, size_t count) {
  stage_t *stage = protocol;
  int64_t taken = aloop_datagram_send_many(endpoint, messages, count);
  ALWAYS(taken >= 0 || is_known(taken));
  NORMALLY(stage->run, taken == (int64_t)count);
  for (size_t i = 0; i < count; i++)
    if (messages[i].segment != 0 && messages[i].segment != NUMBER) stage->wrong = true;
  stage->echoed += count;
}

static void received(aloop_datagram_t *endpoint, void *protocol, const void *data, size_t size,
                     const struct sockaddr *address, socklen_t address_size) {
  (void)endpoint, (void)address, (void)address_size;
  take(protocol, data, size);
}

static void failed(aloop_datagram_t *endpoint, void *protocol, int error) {
  stage_t *stage = protocol;
  (void)endpoint;
  ALWAYS(is_known(error));
  NORMALLY(stage->run, false);
  stage->errors++;
}

static void lost(aloop_datagram_t *endpoint, void *protocol, int error) {
  stage_t *stage = protocol;
  (void)error;
  stage->lost++;
  if (stage->server == endpoint) stage->server = NULL;
  if (stage->client == endpoint) stage->client = NULL;
}

static const aloop_datagram_protocol_t server_protocol = {.size = sizeof server_protocol,
                                                          .connection_made = made,
                                                          .datagrams_received = answer,
                                                          .error_received = failed,
                                                          .connection_lost = lost};

static const aloop_datagram_protocol_t client_protocol = {.size = sizeof client_protocol,
                                                          .connection_made = made,
                                                          .datagram_received = received,
                                                          .error_received = failed,
                                                          .connection_lost = lost};

static bool open_endpoint(stage_t *stage, const aloop_datagram_protocol_t *table,
                          aloop_datagram_options_t options, aloop_datagram_t **endpoint) {
  aloop_t *loop = stage->run->loop;
  options.size = sizeof options;
  bool opened =
      run_object_of(stage->run, aloop_create_datagram_endpoint(loop, table, stage, &options), endpoint);
  NORMALLY(stage->run, opened);
  return opened;
}

/* Each of the ways to send. */
static void send_all(stage_t *stage) {
  const char *text = numbers();
  aloop_message_t messages[BATCH + 1];
  for (int i = 0; i < SINGLE && stage->client != NULL; i++, text += NUMBER) {
    int rc = aloop_datagram_sendto(stage->client, text, NUMBER, NULL, 0);
    ALWAYS(rc == 0 || is_known(rc));
    NORMALLY(stage->run, rc == 0);
  }
  for (int i = 0; i < BATCH; i++, text += NUMBER) messages[i] = (aloop_message_t){.data = text, .size = NUMBER};
  messages[BATCH] = (aloop_message_t){.data = text, .size = SEGMENTS * NUMBER, .segment = NUMBER};
  int64_t rc = stage->client != NULL ? aloop_datagram_send_many(stage->client, messages, BATCH + 1) : 0;
  ALWAYS(rc >= 0 || is_known(rc));
  NORMALLY(stage->run, rc == BATCH + 1);
}

static void exchange(stage_t *stage, aloop_datagram_options_t at, aloop_datagram_options_t to) {
  aloop_datagram_t *server = NULL, *client = NULL;
  if (open_endpoint(stage, &server_protocol, at, &server)) {
    stage->server = server;
    if (to.remote != NULL) {
      socklen_t size = sizeof stage->address;
      faults_pause();
      aloop_datagram_sockname(server, (struct sockaddr *)&stage->address, &size);
      faults_resume();
    }
    if (open_endpoint(stage, &client_protocol, to, &client)) {
      stage->client = client;
      send_all(stage);
      run_quiet(stage, TOTAL);
    }
  }
  NORMALLY(stage->run, stage->came == TOTAL);
  ALWAYS(stage->came <= TOTAL && !stage->wrong);
  aloop_datagram_unref(client);
  aloop_datagram_unref(server);
}

static void close_stage(stage_t *stage) {
  struct stat now;
  if (stage->run->loop != NULL) aloop_close(stage->run->loop);
  faults_pause();
  ALWAYS(lstat(stage->paths[0], &now) < 0 && lstat(stage->paths[1], &now) < 0);
  assert_int_equal(rmdir(stage->folder), 0);
  faults_resume();
  ALWAYS(stage->made == stage->lost);
}

static bool open_stage(stage_t *stage, run_t *run) {
  *stage = (stage_t){.run = run, .folder = "/tmp/aloop-torture-XXXXXX"};
  faults_pause();
  assert_non_null(mkdtemp(stage->folder));
  for (int i = 0; i < 2; i++) snprintf(stage->paths[i], sizeof stage->paths[i], "%s/%d", stage->folder, i);
  faults_resume();
  return run_open(run, -1);
}

static void play_udp(run_t *run) {
  stage_t stage;
  if (open_stage(&stage, run)) {
    aloop_datagram_options_t at = {
        .local_host = "127.0.0.1", .want_local = true, .want_ecn = true, .want_segments = true};
    aloop_datagram_options_t to = {.remote = (struct sockaddr *)&stage.address,
                                   .remote_size = sizeof(struct sockaddr_in)};
    exchange(&stage, at, to);
  }
  close_stage(&stage);
}

static void play_unix(run_t *run) {
  stage_t stage;
  if (open_stage(&stage, run))
    exchange(&stage, (aloop_datagram_options_t){.local_path = stage.paths[0]},
             (aloop_datagram_options_t){.local_path = stage.paths[1], .remote_path = stage.paths[0]});
  close_stage(&stage);
}

/* ---- A connection of messages ---------------------------------------------------------------------------- */

static void connected(aloop_transport_t *transport, void *protocol) {
  stage_t *stage = protocol;
  stage->made++;
  if (aloop_transport_server(transport) == NULL) stage->connection = transport;
}

static void send_back(stage_t *stage, aloop_transport_t *transport, const void *data, size_t size) {
  int fd = aloop_transport_take_fd(transport);
  int rc = fd >= 0 ? aloop_transport_write_fds(transport, data, size, &fd, 1)
                   : aloop_transport_write(transport, data, size);
  ALWAYS(rc == 0 || is_known(rc));
  faults_pause();
  if (fd >= 0) close(fd);
  faults_resume();
  stage->passed += fd >= 0;
  stage->echoed++;
}

static int message(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  stage_t *stage = protocol;
  if (aloop_transport_server(transport) != NULL) {
    send_back(stage, transport, data, size);
    return 0;
  }
  int fd = aloop_transport_take_fd(transport);
  take(stage, data, size);
  bool wanted = size > 0 && stage->last % 10 == 0;
  if ((fd >= 0) != wanted) stage->wrong = true;
  faults_pause();
  if (fd >= 0) close(fd);
  faults_resume();
  return 0;
}

static void disconnected(aloop_transport_t *transport, void *protocol, int error) {
  stage_t *stage = protocol;
  ALWAYS(error == 0 || is_known(error));
  stage->lost++;
  if (stage->connection == transport) stage->connection = NULL;
}

static const aloop_protocol_t packet_protocol = {.size = sizeof packet_protocol,
                                                 .connection_made = connected,
                                                 .data_received = message,
                                                 .connection_lost = disconnected};

/* Each tenth with a descriptor, and an empty one behind it. */
static void send_packets(stage_t *stage) {
  const char *text = numbers();
  for (int i = 1; i <= PACKETS && stage->connection != NULL; i++, text += NUMBER) {
    int rc, fds[2];
    if (i % 10 == 0) {
      faults_pause();
      make_pipe(fds);
      faults_resume();
      rc = aloop_transport_write_fds(stage->connection, text, NUMBER, fds, 1);
      faults_pause();
      close(fds[0]);
      close(fds[1]);
      faults_resume();
      ALWAYS(rc == 0 || is_known(rc));
      if (rc < 0) break;
    } else {
      rc = aloop_transport_write(stage->connection, text, NUMBER);
    }
    if (rc == 0 && i % 10 == 0 && stage->connection != NULL)
      rc = aloop_transport_write(stage->connection, "", 0);
    ALWAYS(rc == 0 || is_known(rc));
    NORMALLY(stage->run, rc == 0);
  }
}

static void exchange_packets(stage_t *stage) {
  run_t *run = stage->run;
  aloop_server_t *server = NULL;
  aloop_unix_server_options_t at = {.size = sizeof at, .path = stage->paths[0], .type = SOCK_SEQPACKET};
  aloop_unix_connect_options_t to = {.size = sizeof to, .path = stage->paths[0], .type = SOCK_SEQPACKET};
  bool serves = run_object_of(run, aloop_create_unix_server(run->loop, &packet_protocol, stage, &at), &server);
  NORMALLY(run, serves);
  if (!serves) return;
  int64_t rc = run_end_of(run, aloop_create_unix_connection(run->loop, &packet_protocol, stage, &to));
  NORMALLY(run, rc == 0);
  if (rc == 0) send_packets(stage);
  run_quiet(stage, PACKETS + PACKETS / 10);
  NORMALLY(run, stage->came == PACKETS + PACKETS / 10 && stage->passed == PACKETS / 10);
  ALWAYS(!stage->wrong);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void play_packets(run_t *run) {
  stage_t stage;
  if (open_stage(&stage, run)) exchange_packets(&stage);
  close_stage(&stage);
}

static void datagrams_over_udp(void **state) {
  torture_all(*state, "udp", play_udp);
}

static void datagrams_over_unix_sockets(void **state) {
  torture_all(*state, "unix datagrams", play_unix);
}

static void messages_over_a_connection(void **state) {
  torture_all(*state, "seqpacket", play_packets);
}

TESTS(T(datagrams_over_udp), T(datagrams_over_unix_sockets), T(messages_over_a_connection))
