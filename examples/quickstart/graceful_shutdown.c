/* SPDX-License-Identifier: MIT
 *
 * A server that ends well. A client sends a line and gets it back in capitals, which takes a while (asking a
 * database would) and is therefore done in a thread. On SIGINT or SIGTERM:
 *
 * 1. There are no new connections. Clients have a second to get their answer; those that did not even ask are
 *    then sent away.
 * 2. What still goes on in the background is cancelled.
 * 3. The default executor ends its threads, once they are done with their jobs.
 * 4. The loop is closed, which gives the signals back to who had them before.
 *
 * A second signal does not wait for anybody. Try: printf 'hello\n' | nc 127.0.0.1 PORT
 */
#include "aloop.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct service {
  aloop_server_t *server;
  aloop_future_t *backup;  /* what goes on in the background */
  aloop_future_t *drained; /* the end of the clients, once it is waited for */
  int signals;             /* that have come */
} service_t;

/* ---- The work -------------------------------------------------------------------------------------------- */

enum { LINE_MAX_SIZE = 200 };

typedef struct client {
  aloop_transport_t *transport;
  aloop_future_t *job; /* while there is one */
  size_t size;
  char line[LINE_MAX_SIZE];
} client_t;

/* In a thread of the executor. */
static int64_t shout(void *arg) {
  nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
  for (char *at = arg; *at != '\0'; at++) *at = (char)toupper((unsigned char)*at);
  return 0;
}

static void answer(aloop_future_t *job, void *arg) {
  client_t *client = arg;
  const char *text;
  client->job = NULL;
  if (aloop_future_result_ptr(job, &text) == 0) aloop_transport_write(client->transport, text, strlen(text));
  aloop_future_unref(job);
  aloop_transport_close(client->transport);
}

/* The text belongs to the job: a client that goes away does not take it from under the thread. */
static int start_job(client_t *client) {
  char *text = strdup(client->line);
  aloop_job_options_t options = {.size = sizeof options, .fn = shout, .arg = text, .destroy = free};
  if (text == NULL) return ALOOP_ENOMEM;
  client->job = aloop_submit(aloop_transport_loop(client->transport), NULL, &options);
  if (client->job == NULL) {
    free(text);
    return ALOOP_ENOMEM;
  }
  printf("working on %s", client->line);
  return aloop_future_add_done_callback(client->job, answer, client);
}

static void made(aloop_transport_t *transport, void *protocol) {
  client_t *client = protocol;
  client->transport = transport;
}

/* Takes one line, and no more than that. */
static int received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  client_t *client = protocol;
  if (client->job != NULL) return 0;
  if (size >= sizeof client->line - client->size) return ALOOP_EMSGSIZE;
  memcpy(client->line + client->size, data, size);
  client->size += size;
  char *end = memchr(client->line, '\n', client->size);
  if (end == NULL) return 0;
  end[1] = '\0';
  aloop_transport_pause_reading(transport);
  return start_job(client);
}

static int keep_open(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  return ((client_t *)protocol)->job != NULL;
}

static void lost(aloop_transport_t *transport, void *protocol, int error) {
  client_t *client = protocol;
  (void)transport, (void)error;
  if (client->job != NULL) {
    aloop_future_remove_done_callback(client->job, answer, client);
    aloop_future_cancel(client->job);
    aloop_future_unref(client->job);
  }
  free(client);
}

static void *new_client(void *arg) {
  (void)arg;
  return calloc(1, sizeof(client_t));
}

static const aloop_protocol_t shouter = {.size = sizeof shouter,
                                         .create = new_client,
                                         .connection_made = made,
                                         .data_received = received,
                                         .eof_received = keep_open,
                                         .connection_lost = lost};

static void backup_ended(aloop_future_t *backup, void *arg) {
  (void)arg;
  puts(aloop_future_cancelled(backup) ? "the backup is cancelled" : "the backup is made");
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void on_executor_down(aloop_future_t *down, void *arg) {
  (void)arg;
  puts(aloop_future_result(down) < 0 ? "a job goes on and on: it is left alone" : "the threads have ended");
  aloop_stop(aloop_future_loop(down));
  aloop_future_unref(down);
}

static void on_drained(aloop_future_t *drained, void *arg) {
  service_t *service = arg;
  aloop_t *loop = aloop_future_loop(drained);
  printf("clients sent away: %d\n", (int)aloop_future_result(drained));
  aloop_future_cancel(service->backup);
  aloop_future_t *down = aloop_shutdown_default_executor(loop, ALOOP_SECONDS(5));
  if (down == NULL || aloop_future_add_done_callback(down, on_executor_down, service) < 0) aloop_stop(loop);
}

static void on_signal(aloop_t *loop, int signum, void *arg) {
  service_t *service = arg;
  printf("%s: ", signum == SIGINT ? "SIGINT" : "SIGTERM");
  if (service->signals++ > 0) {
    puts("at once, then");
    aloop_stop(loop);
    return;
  }
  puts("no new clients");
  service->drained = aloop_server_drain(service->server, ALOOP_SECONDS(1));
  if (service->drained == NULL || aloop_future_add_done_callback(service->drained, on_drained, service) < 0)
    aloop_stop(loop);
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

static int begin(aloop_t *loop, service_t *service) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  aloop_future_t *server = aloop_create_server(loop, &shouter, NULL, &options);
  int error = aloop_run_until_complete_ptr(loop, server, &service->server);
  if (error == 0) error = aloop_add_signal_handler(loop, SIGINT, on_signal, service, 0);
  if (error == 0) error = aloop_add_signal_handler(loop, SIGTERM, on_signal, service, 0);
  if (error < 0) return error;
  service->backup = aloop_sleep(loop, ALOOP_SECONDS(3600)); /* in an hour */
  if (service->backup == NULL) return ALOOP_ENOMEM;
  return aloop_future_add_done_callback(service->backup, backup_ended, NULL);
}

int main(void) {
  aloop_t *loop;
  service_t service = {0};
  if (aloop_new(NULL, &loop) < 0) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  int error = begin(loop, &service);
  if (error == 0) {
    printf("listening on 127.0.0.1:%d\n", aloop_server_port(service.server));
    error = aloop_run_forever(loop);
  }
  if (error < 0) fprintf(stderr, "graceful_shutdown: %s\n", aloop_strerror(error));
  aloop_future_unref(service.drained);
  aloop_future_unref(service.backup);
  aloop_server_unref(service.server);
  aloop_free(loop);
  return error < 0;
}
