/* SPDX-License-Identifier: MIT
 *
 * Where workers come from: that they are born with nothing they should not have, that each death is heard of
 * and told as what it was, and that nobody outlives the program. threads: yes
 */
#include "executor/nursery.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "harness.h"

enum { WAIT_MS = 30000 };

/* ---- A worker that does what a letter says --------------------------------------------------------------- */

static void crash(int how) {
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  signal(how, SIG_DFL); /* a sanitizer has its own idea of it */
  raise(how);
}

/* A process that lives as long as the program's end of the socket. */
static void leave_child(int socket) {
  char byte;
  if (fork() == 0) {
    while (recv(socket, &byte, 1, 0) > 0) continue;
    _exit(0);
  }
}

static unsigned char open_above_socket(void) {
  unsigned char count = 0;
  for (int fd = 4; fd < 1024; fd++)
    if (fcntl(fd, F_GETFD) >= 0) count++;
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0) count = 100;
  return count;
}

/* 0: signals are as in a new process. */
static unsigned char odd_signals(void) {
  struct sigaction action;
  sigset_t mask;
  unsigned char odd = 0;
  sigaction(SIGUSR1, NULL, &action);
  if (action.sa_handler != SIG_DFL) odd |= 1;
  sigaction(SIGPIPE, NULL, &action);
  if (action.sa_handler != SIG_DFL) odd |= 2;
  sigprocmask(SIG_SETMASK, NULL, &mask);
  if (sigismember(&mask, SIGUSR2)) odd |= 4;
  return odd;
}

static unsigned char survive_signals(void) {
  raise(SIGINT);
  raise(SIGTERM);
  raise(SIGHUP);
  raise(SIGQUIT);
  return 1;
}

#ifdef __linux__
static unsigned char has_its_name(void) {
  char name[16];
  return prctl(PR_GET_NAME, name) == 0 && strcmp(name, "aloop-worker") == 0;
}
#else
static unsigned char has_its_name(void) {
  return 1;
}
#endif

static void obey(int socket, void *arg) {
  unsigned char byte;
  while (recv(socket, &byte, 1, 0) == 1) {
    unsigned char answer = 0;
    if (byte == 'a') crash(SIGABRT);
    if (byte == 's') crash(SIGSEGV);
    if (byte == 'x') _exit(3);
    if (byte == 'k') raise(SIGKILL);
    if (byte == 'c') leave_child(socket);
    if (byte == 'z') close(socket);
    if (byte == 'h' || byte == 'z') {
      for (;;) pause();
    }
    if (byte == 'f') answer = open_above_socket();
    if (byte == 'o') answer = odd_signals();
    if (byte == 't') answer = survive_signals();
    if (byte == 'n') answer = has_its_name();
    if (byte == 'g') answer = *(unsigned char *)arg;
    send(socket, &answer, 1, MSG_NOSIGNAL);
  }
}

/* ---- Their owner ----------------------------------------------------------------------------------------- */

static unsigned char told = 42;

static void open_nursery(aloop__nursery_t *nursery, int workers) {
  memset(nursery, 0, sizeof *nursery);
  assert_int_equal(aloop__nursery_open(nursery, workers, obey, &told), 0);
}

static void fork_worker(aloop__nursery_t *nursery, aloop__worker_t *worker) {
  assert_int_equal(aloop__nursery_fork(nursery, worker), 0);
}

static void tell(const aloop__worker_t *worker, char what) {
  assert_int_equal(send(worker->socket, &what, 1, MSG_NOSIGNAL), 1);
}

static bool readable(int fd) {
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  return poll(&entry, 1, WAIT_MS) == 1;
}

/* What the worker answers; -1: it is gone. */
static int ask(const aloop__worker_t *worker, char what) {
  unsigned char answer;
  tell(worker, what);
  assert_true(readable(worker->socket));
  return recv(worker->socket, &answer, 1, 0) == 1 ? answer : -1;
}

static void assert_ends_with(aloop__worker_t *worker, const char *how) {
  char text[ALOOP__WORKER_TEXT];
  aloop__worker_end(worker, text);
  if (strstr(text, how) == NULL) fail_msg("\"%s\" does not say \"%s\"", text, how);
  assert_int_equal(worker->pid, 0);
}

/* Waits until the worker's socket has ended, then for what is told of it. */
static void assert_dies_with(aloop__nursery_t *nursery, char what, const char *how) {
  aloop__worker_t worker;
  fork_worker(nursery, &worker);
  assert_int_equal(ask(&worker, what), -1);
  assert_ends_with(&worker, how);
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void a_worker_answers_and_ends(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  assert_true(worker.pid > 0 && worker.pid != nursery.pid && worker.pid != getpid());
  assert_int_equal(ask(&worker, '?'), 0);
  assert_int_equal(ask(&worker, 'n'), 1);
  assert_true(aloop__worker_idle(&worker));
  assert_ends_with(&worker, "exited with code 0");
  aloop__nursery_close(&nursery);
}

static void it_is_given_what_was_there_when_the_nursery_was_made(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  told = 43;
  fork_worker(&nursery, &worker);
  assert_int_equal(ask(&worker, 'g'), 42);
  told = 42;
  aloop__worker_forget(&worker);
  aloop__nursery_close(&nursery);
}

static void several_live_side_by_side(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t workers[3], one_more;
  open_nursery(&nursery, 3);
  for (int i = 0; i < 3; i++) fork_worker(&nursery, &workers[i]);
  assert_int_equal(aloop__nursery_fork(&nursery, &one_more), ALOOP_EAGAIN);
  for (int i = 0; i < 3; i++) assert_int_equal(ask(&workers[i], '?'), 0);
  assert_ends_with(&workers[1], "exited with code 0");
  fork_worker(&nursery, &workers[1]);
  for (int i = 0; i < 3; i++) assert_int_equal(ask(&workers[i], '?'), 0);
  for (int i = 0; i < 3; i++) aloop__worker_forget(&workers[i]);
  aloop__nursery_close(&nursery);
}

static void many_can_follow_each_other(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 2);
  for (int i = 0; i < 100; i++) {
    fork_worker(&nursery, &worker);
    assert_int_equal(ask(&worker, '?'), 0);
    assert_ends_with(&worker, "exited with code 0");
  }
  aloop__nursery_close(&nursery);
}

static void no_descriptor_is_inherited(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t first, second;
  int fds[2];
  make_pipe(fds);
  open_nursery(&nursery, 2);
  fork_worker(&nursery, &first);
  fork_worker(&nursery, &second);
  assert_int_equal(ask(&second, 'f'), 0);
  close(fds[1]);
  assert_true(readable(fds[0])); /* nobody else has the other end */
  close(fds[0]);
  aloop__worker_forget(&first);
  aloop__worker_forget(&second);
  aloop__nursery_close(&nursery);
}

static void note_signal(int signal) {
  (void)signal;
}

static void signals_are_as_in_a_new_process(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  signal(SIGUSR1, note_signal);
  signal(SIGPIPE, SIG_IGN);
  sigprocmask(SIG_BLOCK, &set, NULL);
  open_nursery(&nursery, 1);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  signal(SIGUSR1, SIG_DFL);
  fork_worker(&nursery, &worker);
  assert_int_equal(ask(&worker, 'o'), 0);
  aloop__worker_forget(&worker);
  aloop__nursery_close(&nursery);
}

static void signals_for_the_whole_group_are_left_to_the_program(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  assert_int_equal(ask(&worker, 't'), 1);
  kill(nursery.pid, SIGTERM);
  kill(nursery.pid, SIGINT);
  assert_int_equal(ask(&worker, '?'), 0);
  assert_ends_with(&worker, "exited with code 0");
  fork_worker(&nursery, &worker);
  aloop__worker_forget(&worker);
  aloop__nursery_close(&nursery);
}

/* ---- Death ----------------------------------------------------------------------------------------------- */

static void each_death_is_told_as_what_it_was(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  open_nursery(&nursery, 1);
  assert_dies_with(&nursery, 'a', "was killed by signal 6 (SIGABRT)");
  assert_dies_with(&nursery, 's', "was killed by signal 11 (SIGSEGV)");
  assert_dies_with(&nursery, 'k', "was killed by signal 9 (SIGKILL)");
  assert_dies_with(&nursery, 'x', "exited with code 3");
  aloop__nursery_close(&nursery);
}

static void a_dead_worker_is_not_idle(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  kill(worker.pid, SIGKILL);
  assert_true(readable(worker.leash));
  assert_false(aloop__worker_idle(&worker));
  assert_ends_with(&worker, "SIGKILL");
  aloop__nursery_close(&nursery);
}

static void a_busy_worker_can_be_killed(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  tell(&worker, 'h');
  aloop__worker_kill(&worker);
  aloop__worker_kill(&worker);
  assert_true(readable(worker.leash));
  assert_ends_with(&worker, "SIGKILL");
  aloop__nursery_close(&nursery);
}

static void a_worker_that_closed_its_socket_is_killed(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  assert_int_equal(ask(&worker, 'z'), -1);
  assert_ends_with(&worker, "closed its connection");
  aloop__nursery_close(&nursery);
}

static void a_death_is_heard_though_a_grandchild_has_the_socket(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  assert_int_equal(ask(&worker, 'c'), 0);
  kill(worker.pid, SIGKILL);
  assert_true(readable(worker.leash));
  assert_ends_with(&worker, "SIGKILL");
  aloop__nursery_close(&nursery);
}

static void closing_kills_and_waits(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t workers[2];
  open_nursery(&nursery, 2);
  pid_t pid = nursery.pid;
  for (int i = 0; i < 2; i++) fork_worker(&nursery, &workers[i]);
  tell(&workers[0], 'h');
  aloop__nursery_close(&nursery);
  assert_int_equal(nursery.pid, 0);
  assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
  assert_int_equal(errno, ECHILD);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(kill(workers[i].pid, 0), -1);
    aloop__worker_forget(&workers[i]);
  }
  aloop__nursery_close(&nursery);
}

static void releasing_need_not_wait(void **state) {
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  int fds = open_fds();
  (void)state;
  open_nursery(&nursery, 1);
  pid_t pid = nursery.pid;
  fork_worker(&nursery, &worker);
  tell(&worker, 'h');
  aloop__nursery_release(&nursery);
  aloop__worker_forget(&worker);
  assert_int_equal(open_fds(), fds);
  aloop__nursery_close(&nursery);
  assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
}

static void a_stopped_nursery_is_closed_with_force(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  open_nursery(&nursery, 1);
  kill(nursery.pid, SIGSTOP);
  aloop__nursery_close(&nursery);
  assert_int_equal(nursery.pid, 0);
  open_nursery(&nursery, 1);
  kill(nursery.pid, SIGSTOP);
  aloop__nursery_release(&nursery);
  aloop__nursery_close(&nursery);
  assert_int_equal(nursery.pid, 0);
}

static void with_the_nursery_its_workers_die(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker, another;
  open_nursery(&nursery, 2);
  fork_worker(&nursery, &worker);
  tell(&worker, 'h');
  kill(nursery.pid, SIGKILL);
  assert_true(readable(worker.leash));
#ifdef __linux__
  assert_true(readable(worker.socket)); /* the kernel sees to it */
#endif
  assert_ends_with(&worker, "the process that made it are gone");
  assert_int_equal(aloop__nursery_fork(&nursery, &another), ALOOP_ECRASHED);
  aloop__nursery_close(&nursery);
}

/* ---- The end of the program ------------------------------------------------------------------------------ */

/* A program with a nursery and a busy worker, all of which have the pipe's end as their standard input. Writes
 * a byte to it when they are there. With `copy`, a child of the program keeps its descriptors but that one. */
static pid_t start_program(const int pipe[2], bool copy) {
  pid_t program = fork();
  if (program != 0) return program;
  aloop__nursery_t nursery = {0};
  aloop__worker_t worker;
  dup2(pipe[1], 0);
  close(pipe[0]);
  close(pipe[1]);
  if (aloop__nursery_open(&nursery, 1, obey, &told) < 0 || aloop__nursery_fork(&nursery, &worker) < 0) _exit(1);
  if (copy && fork() == 0) {
    close(0);
    char byte;
    while (recv(worker.socket, &byte, 1, 0) > 0) continue; /* until the worker is gone */
    _exit(0);
  }
  tell(&worker, 'h');
  if (write(0, "x", 1) != 1) _exit(1);
  for (;;) pause();
}

static void assert_all_end_with_the_program(bool copy) {
  int fds[2];
  char byte;
  make_pipe(fds);
  pid_t program = start_program(fds, copy);
  assert_true(program > 0);
  close(fds[1]);
  assert_true(readable(fds[0]));
  assert_int_equal(read(fds[0], &byte, 1), 1);
  kill(program, SIGKILL);
  assert_int_equal(waitpid(program, NULL, 0), program);
  assert_true(readable(fds[0]));
  assert_int_equal(read(fds[0], &byte, 1), 0);
  close(fds[0]);
}

static void nobody_outlives_the_program(void **state) {
  (void)state;
  assert_all_end_with_the_program(false);
}

static void nobody_outlives_the_program_though_a_child_of_it_does(void **state) {
  (void)state;
#ifdef __linux__
  assert_all_end_with_the_program(true);
#else
  skip();
#endif
}

static void *open_in_thread(void *nursery) {
  open_nursery(nursery, 1);
  return NULL;
}

/* On Linux a child hears of the end of the thread that forked it, which is not the end of the program. */
static void the_thread_that_made_it_may_end(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, open_in_thread, &nursery), 0);
  pthread_join(thread, NULL);
  for (int i = 0; i < 3; i++) {
    fork_worker(&nursery, &worker);
    assert_int_equal(ask(&worker, '?'), 0);
    assert_ends_with(&worker, "exited with code 0");
  }
  aloop__nursery_close(&nursery);
}

static void a_program_that_ignores_its_children_is_fine(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  signal(SIGCHLD, SIG_IGN);
  open_nursery(&nursery, 1);
  assert_dies_with(&nursery, 'x', "exited with code 3");
  aloop__nursery_close(&nursery);
  signal(SIGCHLD, SIG_DFL);
}

/* ---- Want ------------------------------------------------------------------------------------------------ */

static void limit_descriptors(rlim_t count) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = count;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* Runs a check in a child, so that what it does to itself stays there. */
static void check_in_child(bool (*check)(void)) {
  int status = -1;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(check() ? 0 : 1);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
}

/* The first number from which on none is open. */
static rlim_t end_of_open(void) {
  rlim_t end = 0;
  for (int fd = 0; fd < 1024; fd++)
    if (fcntl(fd, F_GETFD) >= 0) end = (rlim_t)fd + 1;
  return end;
}

static bool works(aloop__nursery_t *nursery, bool keep) {
  aloop__worker_t worker;
  char text[ALOOP__WORKER_TEXT];
  if (aloop__nursery_fork(nursery, &worker) < 0) return false;
  bool well = ask(&worker, 'f') == 0;
  aloop__worker_end(&worker, text);
  if (!keep) aloop__nursery_close(nursery);
  return well;
}

static bool live_without_descriptors(void) {
  aloop__nursery_t nursery = {0};
  aloop__worker_t worker;
  if (aloop__nursery_open(&nursery, 1, obey, &told) < 0) return false;
  rlim_t end = end_of_open();
  for (rlim_t room = 0; room < 2; room++) {
    for (int fd = 0; (rlim_t)fd < end; fd++)
      if (fcntl(fd, F_GETFD) < 0) dup2(0, fd); /* no gaps */
    limit_descriptors(end + room);
    int rc = aloop__nursery_fork(&nursery, &worker);
    limit_descriptors(1024);
    if (rc != ALOOP_EMFILE || end_of_open() != end || !works(&nursery, true)) return false;
  }
  return works(&nursery, false);
}

static void want_of_descriptors_is_an_error_that_passes(void **state) {
  (void)state;
  check_in_child(live_without_descriptors);
}

static bool more_workers_than_descriptors(void) {
  aloop__nursery_t nursery = {0};
  limit_descriptors(end_of_open() + 16);
  return aloop__nursery_open(&nursery, 1000, obey, &told) == 0 && works(&nursery, true) &&
         works(&nursery, false);
}

static void more_workers_than_descriptors_may_be_wanted(void **state) {
  (void)state;
  check_in_child(more_workers_than_descriptors);
}

static bool no_descriptors_at_all(void) {
  aloop__nursery_t nursery = {0};
  limit_descriptors(0);
  int rc = aloop__nursery_open(&nursery, 1, obey, &told);
  return rc == ALOOP_EMFILE && nursery.pid == 0;
}

static void no_nursery_without_descriptors(void **state) {
  (void)state;
  check_in_child(no_descriptors_at_all);
}

static bool without_standard(void) {
  aloop__nursery_t nursery = {0};
  for (int fd = 0; fd < 3; fd++) close(fd);
  return aloop__nursery_open(&nursery, 1, obey, &told) == 0 && nursery.control < 3 && works(&nursery, false);
}

static void missing_standard_descriptors_do_no_harm(void **state) {
  (void)state;
  check_in_child(without_standard);
}

/* A child of the program closes what it inherited, and the program's workers live on. */
static void a_child_can_forget_them(void **state) {
  (void)state;
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  int status = -1;
  open_nursery(&nursery, 1);
  fork_worker(&nursery, &worker);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    aloop__worker_forget(&worker);
    aloop__nursery_forget(&nursery);
    _exit(nursery.pid == 0 && worker.pid == 0 ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(ask(&worker, '?'), 0);
  aloop__worker_forget(&worker);
  aloop__nursery_close(&nursery);
}

TESTS(T(a_worker_answers_and_ends), T(it_is_given_what_was_there_when_the_nursery_was_made),
      T(several_live_side_by_side), T(many_can_follow_each_other), T(no_descriptor_is_inherited),
      T(signals_are_as_in_a_new_process), T(signals_for_the_whole_group_are_left_to_the_program),
      T(each_death_is_told_as_what_it_was), T(a_dead_worker_is_not_idle), T(a_busy_worker_can_be_killed),
      T(a_worker_that_closed_its_socket_is_killed), T(a_death_is_heard_though_a_grandchild_has_the_socket),
      T(closing_kills_and_waits), T(releasing_need_not_wait), T(a_stopped_nursery_is_closed_with_force),
      T(with_the_nursery_its_workers_die), T(nobody_outlives_the_program),
      T(nobody_outlives_the_program_though_a_child_of_it_does), T(the_thread_that_made_it_may_end),
      T(a_program_that_ignores_its_children_is_fine), T(want_of_descriptors_is_an_error_that_passes),
      T(more_workers_than_descriptors_may_be_wanted), T(no_nursery_without_descriptors),
      T(missing_standard_descriptors_do_no_harm), T(a_child_can_forget_them))
