/* SPDX-License-Identifier: MIT
 *
 * http: a server of static files on libaloop.
 *
 * Every worker is a thread with a loop of its own and a listening socket of its own for the same address
 * (SO_REUSEPORT), so the kernel spreads connections over them and they share nothing. Main's thread runs a
 * small loop as well: it starts the workers one after the other, waits for signals, and speaks to the workers
 * through aloop_call_soon_threadsafe, as they do to it.
 *
 * The first SIGINT or SIGTERM ends the service gracefully: no new connections, those that wait for a request
 * are closed at once, answers under way get GRACE to finish. The second one ends it at once.
 */
#include "../common.h"

#include "files.h"
#include "options.h"
#include "worker.h"

#include <pthread.h>

#define GRACE ALOOP_SECONDS(10)

typedef struct service service_t;

typedef struct member {
  worker_t worker;
  service_t *service;
  pthread_t thread;
  int port;  /* where it listens */
  int error; /* what it ended with */
} member_t;

/* Belongs to main's thread. Workers read `listen` as they start; main changes it only between two starts. */
struct service {
  aloop_t *loop;
  aloop_server_options_t listen;
  member_t *members;
  int count, started, ended;
  int error; /* the first that went wrong */
  bool stopping;
};

/* ---- In a worker's thread -------------------------------------------------------------------------------- */

static void on_drained(aloop_future_t *drained, void *arg) {
  (void)arg;
  aloop_stop(aloop_future_loop(drained));
  aloop_future_unref(drained);
}

static void stop_worker(aloop_t *loop, void *arg) {
  worker_t *worker = arg;
  bool again = worker->stopping;
  connection_stop_all(worker);
  if (worker->server == NULL) return; /* the signal was faster than the start: run_worker will notice */
  if (again) {
    aloop_server_abort_clients(worker->server);
    return;
  }
  aloop_future_t *drained = aloop_server_drain(worker->server, GRACE);
  if (drained == NULL || aloop_future_add_done_callback(drained, on_drained, NULL) < 0) aloop_stop(loop);
}

/* ---- In main's thread ------------------------------------------------------------------------------------ */

/* Asks every worker to stop; when asked again, to stop at once. */
static void stop_service(service_t *service) {
  service->stopping = true;
  for (int i = 0; i < service->started; i++)
    aloop_call_soon_threadsafe(service->members[i].worker.loop, stop_worker, &service->members[i].worker);
  if (service->ended == service->started) aloop_stop(service->loop);
}

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  stop_service(arg);
}

static void fail(service_t *service, int error) {
  if (service->error == 0) service->error = error;
  stop_service(service);
}

static void on_ended(aloop_t *loop, void *arg) {
  member_t *member = arg;
  service_t *service = member->service;
  service->ended++;
  if (member->error < 0) fail(service, member->error);
  if (service->ended == service->started) aloop_stop(loop);
}

/* Declared ahead because a worker that is ready makes main start the next one. */
static void on_ready(aloop_t *loop, void *arg);

/* A worker's thread from start to end. Its loop is released by main, which may still want to post to it. */
static void *run_worker(void *arg) {
  member_t *member = arg;
  service_t *service = member->service;
  worker_t *worker = &member->worker;
  member->error = make_server(worker->loop, &connection_protocol, worker, &service->listen, &worker->server);
  if (member->error == 0) {
    member->port = aloop_server_port(worker->server);
    const char *where = service->listen.tls != NULL ? "listening on https://" : "listening on http://";
    if (member == service->members) print_addresses(worker->server, where, "/");
    aloop_call_soon_threadsafe(service->loop, on_ready, member);
    if (!worker->stopping) member->error = aloop_run_forever(worker->loop);
  }
  aloop_server_unref(worker->server);
  aloop_call_soon_threadsafe(service->loop, on_ended, member);
  return NULL;
}

static void start_worker(service_t *service) {
  member_t *member = &service->members[service->started];
  int error = -pthread_create(&member->thread, NULL, run_worker, member);
  if (error == 0) {
    service->started++;
  } else {
    fprintf(stderr, "cannot start a thread: %s\n", aloop_strerror(error));
    fail(service, error);
  }
}

/* A worker listens. The port it got is the one for the others too, which matters if the kernel has chosen it.
 * */
static void on_ready(aloop_t *loop, void *arg) {
  (void)loop;
  member_t *member = arg;
  service_t *service = member->service;
  service->listen.port = member->port;
  if (service->started < service->count && !service->stopping) start_worker(service);
}

/* ---- Setting up ------------------------------------------------------------------------------------------ */

/* Binds the address once without SO_REUSEPORT, under which a second server would start on a busy port
 * unnoticed, and take half of the first one's connections. */
static int check_port(service_t *service, bool fall_back) {
  aloop_server_options_t options = service->listen;
  aloop_server_t *server;
  options.reuse_port = false;
  options.start_serving = -1;
  int error = aloop_run_until_complete_ptr(
      service->loop, aloop_create_server(service->loop, &connection_protocol, NULL, &options), &server);
  if (error == 0) {
    aloop_server_close(server);
    aloop_server_unref(server);
  } else if (error == ALOOP_EADDRINUSE && fall_back) {
    fprintf(stderr, "port %d is in use, taking another one\n", options.port);
    service->listen.port = 0;
    error = 0;
  } else {
    fprintf(stderr, "cannot listen on %s port %d: %s\n", options.host, options.port, aloop_strerror(error));
  }
  return error;
}

static int make_workers(service_t *service, int count, int root, int64_t idle_timeout) {
  service->members = calloc((size_t)count, sizeof service->members[0]);
  if (service->members == NULL) return ALOOP_ENOMEM;
  for (int i = 0; i < count; i++) {
    member_t *member = &service->members[i];
    member->service = service;
    member->worker.root = root;
    member->worker.idle_timeout = idle_timeout;
    int error = aloop_new(NULL, &member->worker.loop);
    if (error < 0) return error;
    service->count++;
  }
  return 0;
}

static void free_workers(service_t *service) {
  for (int i = 0; i < service->count; i++) {
    worker_t *worker = &service->members[i].worker;
    if (i < service->started) pthread_join(service->members[i].thread, NULL);
    aloop_free(worker->loop);
    connection_free_worker(worker);
  }
  free(service->members);
}

/* Runs the service until it is told to stop. */
static int run_service(service_t *service, const options_t *options, int root) {
  int error = make_workers(service, options->threads, root, ALOOP_SECONDS(options->idle_timeout));
  if (error == 0) error = watch_stop_signals(service->loop, on_signal, service);
  if (error < 0) {
    fprintf(stderr, "cannot start: %s\n", aloop_strerror(error));
    return error;
  }
  if (service->listen.port != 0) error = check_port(service, options->fall_back);
  if (error < 0) return error;
  start_worker(service);
  error = aloop_run_forever(service->loop);
  return error < 0 ? error : service->error;
}

int main(int argc, char **argv) {
  options_t options;
  options_read(argc, argv, &options);
  int root = files_open_root(options.root);
  if (root < 0) {
    fprintf(stderr, "cannot serve \"%s\": %s\n", options.root, aloop_strerror(root));
    return 1;
  }
  service_t service = {.listen = {.size = sizeof service.listen,
                                  .host = options.host,
                                  .port = options.port,
                                  .backlog = 1024,
                                  .reuse_port = options.threads > 1}};
  static const char *const protocols[] = {"http/1.1", "http/1.0"};
  service.listen.tls = make_tls_context(&options.tls, protocols, 2);
  int error = aloop_new(NULL, &service.loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
  } else {
    error = run_service(&service, &options, root);
    free_workers(&service);
    aloop_free(service.loop);
  }
  aloop_tls_context_unref(service.listen.tls);
  close(root);
  return error == 0 ? 0 : 1;
}
