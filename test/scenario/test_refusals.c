/* SPDX-License-Identifier: MIT
 *
 * What the system refuses comes back as the code that aloop.h promises, nothing has changed, and the same call
 * succeeds when the system has thought better of it. Each call under test is repeated with every one of its
 * system calls failing in every way that faults.c knows.
 *
 * pollers: all, faults: yes / */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "faults.h"
#include "peers.h"
#include "streams.h"

enum { VARIANTS = 4, CODES_MAX = 64 };

typedef struct attempts {
  env_t *env;
  void *arg;
  int codes[CODES_MAX]; /* what came back, each once */
  int count;
} attempts_t;

static bool seen(const attempts_t *self, int code) {
  for (int i = 0; i < self->count; i++)
    if (self->codes[i] == code) return true;
  return false;
}

/* Makes the call until no system call is left to fail. It returns its code, and takes back what it did. */
static void try_all(attempts_t *self, int (*call)(attempts_t *self)) {
  bool struck = true;
  for (long n = 1; struck; n++)
    for (int variant = 0; variant < VARIANTS; variant++) {
      int fds = open_fds();
      faults_begin(FAULT_ERROR, n, variant);
      int rc = call(self);
      struck = faults_struck();
      faults_end();
      assert_int_equal(open_fds(), fds);
      if (!seen(self, rc) && self->count < CODES_MAX) self->codes[self->count++] = rc;
      if (!struck) assert_int_equal(rc, 0);
    }
}

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void ignore_signal(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum, (void)arg;
}

/* ---- Loops ----------------------------------------------------------------------------------------------- */

/* A loop is woken through an eventfd, or a pipe, which wants no memory of its own. */
#if ALOOP_HAVE_EVENTFD
enum { WAKE_ENDS = 1, WAKE_THIRD = ALOOP_ENOMEM };
#else
enum { WAKE_ENDS = 2, WAKE_THIRD = ALOOP_EMFILE };
#endif

static int make_loop(attempts_t *self) {
  aloop_t *loop = NULL;
  aloop_options_t options = {.size = sizeof options, .allocator = &self->env->allocator};
  long live = self->env->live;
  int rc = aloop_new(&options, &loop);
  assert_true((rc == 0) == (loop != NULL));
  faults_pause();
  aloop_free(loop);
  faults_resume();
  assert_int_equal(self->env->live, live);
  return rc;
}

static void a_new_loop(void **state) {
  attempts_t self = {.env = *state};
  try_all(&self, make_loop);
  assert_true(seen(&self, ALOOP_EMFILE));
  assert_true(seen(&self, ALOOP_ENFILE));
  assert_true(seen(&self, WAKE_THIRD));
  if (on_poller(self.env, "epoll")) assert_true(seen(&self, ALOOP_ENOTSUP)); /* ENOSYS */
}

/* In a child: until it succeeds the loop cannot run, and then it can. The first of the calls close the old
 * wake-up descriptors; the new ones are the next. */
static int use_in_child(env_t *env) {
  static const struct {
    long call;
    int variant, code;
  } refusals[] = {{WAKE_ENDS + 1, 0, ALOOP_EMFILE}, {1, 1, ALOOP_ENFILE}, {1, 2, WAKE_THIRD}};
  for (int i = 0; i < 3; i++) {
    faults_begin(FAULT_ERROR, refusals[i].call, refusals[i].variant);
    int rc = aloop_after_fork(env->loop);
    faults_end();
    if (rc != refusals[i].code || aloop_run_once(env->loop, 0) != ALOOP_ECHILD) return i + 1;
  }
  return aloop_after_fork(env->loop) == 0 && aloop_run_once(env->loop, 0) >= 0 ? 0 : 4;
}

static void a_loop_after_fork(void **state) {
  env_t *env = *state;
  int status = 0;
  if (on_libkqueue(env)) skip(); /* its child may only exec */
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(use_in_child(env));
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

/* ---- Descriptors and signals ----------------------------------------------------------------------------- */

static int add_reader(attempts_t *self) {
  int rc = aloop_add_reader(self->env->loop, *(int *)self->arg, ignore, NULL);
  faults_pause();
  assert_int_equal(aloop_remove_reader(self->env->loop, *(int *)self->arg), rc == 0);
  faults_resume();
  return rc;
}

static void a_reader(void **state) {
  int fds[2];
  make_pipe(fds);
  attempts_t self = {.env = *state, .arg = fds};
  try_all(&self, add_reader);
  if (on_poller(self.env, "epoll")) assert_true(seen(&self, ALOOP_ENOMEM));
  close(fds[0]);
  close(fds[1]);
}

static int add_signal_handler(attempts_t *self) {
  int rc = aloop_add_signal_handler(self->env->loop, SIGUSR1, ignore_signal, NULL, 0);
  faults_pause();
  assert_int_equal(aloop_remove_signal_handler(self->env->loop, SIGUSR1, ignore_signal, NULL), rc == 0);
  faults_resume();
  return rc;
}

static void a_signal_handler(void **state) {
  attempts_t self = {.env = *state};
  try_all(&self, add_signal_handler);
  for (int i = 0; i < self.count; i++)
    assert_true(self.codes[i] == 0 || self.codes[i] == ALOOP_EMFILE || self.codes[i] == ALOOP_ENFILE ||
                self.codes[i] == ALOOP_ENOMEM || self.codes[i] == ALOOP_EBADF /* of a harmless fcntl */ ||
                self.codes[i] == ALOOP_EIO /* the poller's look at the file */);
}

/* ---- Connections ----------------------------------------------------------------------------------------- */

static int resume_reading(attempts_t *self) {
  tape_t *tape = self->arg;
  faults_pause();
  assert_int_equal(aloop_transport_pause_reading(tape->transport), 0);
  faults_resume();
  int rc = aloop_transport_resume_reading(tape->transport);
  faults_pause();
  assert_int_equal(aloop_transport_is_reading(tape->transport), rc == 0);
  assert_false(aloop_transport_is_closing(tape->transport));
  faults_resume();
  return rc;
}

static void reading_goes_on(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  attempts_t self = {.env = env, .arg = &tape};
  try_all(&self, resume_reading);
  if (on_poller(env, "epoll")) assert_true(seen(&self, ALOOP_ENOMEM));
  say(peer, "hello");
  settle(env->loop);
  assert_int_equal(tape.size, 5);
  end_tape(&tape, peer);
}

static int ask_for_addresses(attempts_t *self) {
  tape_t *tape = self->arg;
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  struct sockaddr *any = (struct sockaddr *)(void *)&address;
  int rc = aloop_transport_sockname(tape->transport, any, &size);
  size = sizeof address;
  return rc < 0 ? rc : aloop_transport_peername(tape->transport, any, &size);
}

static void the_addresses_of_a_connection(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_tape(&tape, &plain_protocol);
  attempts_t self = {.env = *state, .arg = &tape};
  try_all(&self, ask_for_addresses);
  assert_true(seen(&self, ALOOP_ENOBUFS));
  end_tape(&tape, peer);
}

/* Whatever it makes is gone when it returns. */
static int connect_and_close(attempts_t *self) {
  env_t *env = self->env;
  crowd_t crowd = {0};
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = *(int *)self->arg};
  aloop_future_t *future = aloop_create_connection(env->loop, &crowd_protocol, &crowd, &options);
  faults_pause();
  int rc = (int)run_future(env->loop, future);
  if (rc < 0) assert_true(aloop_future_message(future)[0] != '\0');
  aloop_future_unref(future);
  if (crowd.open > 0) aloop_transport_abort(crowd.transports[0]);
  run_until_count(env->loop, &crowd.lost, crowd.made);
  run_turns(env->loop, 3);
  faults_resume();
  return rc;
}

static void a_connection(void **state) {
  int port, listener = peer_listen(128, &port);
  attempts_t self = {.env = *state, .arg = &port};
  try_all(&self, connect_and_close);
  assert_true(seen(&self, ALOOP_ECONNREFUSED));
  assert_true(seen(&self, ALOOP_ENETUNREACH));
  assert_true(seen(&self, ALOOP_EADDRNOTAVAIL));
  assert_true(seen(&self, ALOOP_EMFILE));
  assert_true(seen(&self, ALOOP_EAFNOSUPPORT));
  close(listener);
}

/* ---- Servers --------------------------------------------------------------------------------------------- */

static int serve(attempts_t *self) {
  env_t *env = self->env;
  crowd_t crowd = {0};
  aloop_server_t *server = NULL;
  aloop_server_options_t options = {
      .size = sizeof options, .host = "127.0.0.1", .keep_alive = true, .start_serving = -1};
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, &options);
  int rc = (int)aloop_future_result(future);
  faults_pause();
  if (rc < 0) assert_true(aloop_future_message(future)[0] != '\0');
  if (rc == 0) assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  faults_resume();
  if (rc == 0) rc = aloop_server_start_serving(server);
  faults_pause();
  if (server != NULL) assert_int_equal(aloop_server_is_serving(server), rc == 0);
  if (rc < 0 && server != NULL) assert_int_equal(aloop_server_start_serving(server), 0);
  faults_resume();
  int port = rc == 0 ? aloop_server_port(server) : 0;
  faults_pause();
  if (server != NULL) aloop_server_close(server);
  aloop_server_unref(server);
  faults_resume();
  return port < 0 ? port : rc;
}

static void a_server(void **state) {
  attempts_t self = {.env = *state};
  aloop_server_t *first = crowd_serve(self.env, &(crowd_t){0}); /* opens what a loop keeps for its servers */
  try_all(&self, serve);
  assert_true(seen(&self, ALOOP_EMFILE));
  assert_true(seen(&self, ALOOP_EADDRINUSE));
  assert_true(seen(&self, ALOOP_EADDRNOTAVAIL));
  assert_true(seen(&self, ALOOP_EACCES));
  assert_true(seen(&self, ALOOP_ENOBUFS));
  aloop_server_close(first);
  aloop_server_unref(first);
}

TESTS(T(a_new_loop), T(a_loop_after_fork), T(a_reader), T(a_signal_handler), T(reading_goes_on),
      T(the_addresses_of_a_connection), T(a_connection), T(a_server))
