/* SPDX-License-Identifier: MIT
 *
 * Where workers come from. Forking a program that has threads and much memory is slow and full of traps: locks
 * held by threads that do not exist in the child, gigabytes of page tables to copy, descriptors that stay
 * open. So the program is forked once, early; that child, the nursery, stays as small and single-threaded as
 * it was then and makes a worker whenever it is asked. Until a worker's own life begins, only
 * async-signal-safe calls are made in the children; all the nursery's memory is allocated before the fork.
 *
 * Three kinds of socket pair, all between the program and one child:
 * - control: a byte asks for a worker, the answer is its pid with the program's ends of the next two
 *   (SCM_RIGHTS);
 * - the worker's socket, on which its jobs go to and fro: the nursery keeps no end of it;
 * - the worker's leash, whose other end the nursery keeps. When the worker is dead the nursery writes its wait
 *   status there. When the program shuts its end down, the nursery kills the worker. The worker's own
 *   descendants may hold its socket open; they have no leash, so a death is always heard of.
 *
 * Deaths reach the nursery as SIGCHLD, which is its own: the program's is left alone. A handler writes to a
 * pipe that is polled with the leashes. Of itself the program gets one child, which it waits for by its pid.
 *
 * The end of the program, however it comes, is the end of all: the nursery sees EOF on control, or its
 * parent's pid change (on Linux a signal says when to look: a copy of the control socket may live on in a
 * child that the program forked), kills the workers and exits. If the nursery is killed, Linux kills the
 * workers with it; elsewhere the program does, as it learns of it.
 *
 * Ctrl-C and "kill this group" reach every process of the group. What they mean is for the program to decide,
 * so the nursery and the workers take no notice of SIGINT, SIGQUIT, SIGHUP and SIGTERM: handlers that do
 * nothing, because what is ignored would stay ignored in programs that a worker starts. All other dispositions
 * are those of a new process.
 */
#include "executor/nursery.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "aloop.h"
#include "core/descriptors.h"
#include "core/loop.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif
#ifndef NSIG
#define NSIG 65
#endif

enum { CONTROL = 3, WAKE_READ = 4, WAKE_WRITE = 5 };    /* descriptors of the nursery, */
enum { SOCKET = 3 };                                    /* and of a worker */
enum { END_MS = 500, CLOSE_MS = 1500, NO_STATUS = -1 }; /* how long a death may take before force is used */
enum { DEATHS_MAX = 100 };                              /* and after how many looks at it */
enum { POLL_CONTROL, POLL_WAKE, POLL_LEASHES };

typedef struct slot {
  pid_t pid; /* 0: free */
  int leash;
  bool killed;
} slot_t;

/* All that the nursery knows. */
typedef struct nest {
  pid_t parent;
  aloop__worker_fn work;
  void *arg;
  slot_t *last; /* the worker that was answered with; NULL if it was an error */
  int size;
  struct pollfd *polls; /* size + POLL_LEASHES */
  slot_t slots[];
} nest_t;

/* What travels on control: a byte there, a note back. The second byte says that there was no room for the
 * descriptors of a new worker. */
enum { REQUEST_FORK = 'f', REQUEST_KILL = 'k' };

typedef struct note {
  int32_t pid; /* or a negative code */
} note_t;

/* ---- In the children ------------------------------------------------------------------------------------- */

static void wake_up(int signal) {
  (void)signal;
  int saved = errno;
  ssize_t n = write(WAKE_WRITE, "", 1);
  (void)n; /* a full pipe is as good */
  errno = saved;
}

static void take_no_notice(int signal) {
  (void)signal;
}

static void handle(int signal, void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, NULL);
}

/* The dispositions of a child. All signals are blocked meanwhile. */
static void reset_signals(void) {
  static const int for_the_program[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM};
  for (int signal = 1; signal < NSIG; signal++)
    if (signal != SIGKILL && signal != SIGSTOP) handle(signal, SIG_DFL);
  for (size_t i = 0; i < sizeof for_the_program / sizeof for_the_program[0]; i++)
    handle(for_the_program[i], take_no_notice);
}

static void unblock_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Keeps `own` as descriptor 3, and 0 to 2, which are never left free for other things to get. */
static void keep_only(int own) {
  if (own != CONTROL) {
    dup2(own, CONTROL);
    if (own < CONTROL) close(own);
  }
  aloop__descriptors_close_from(CONTROL + 1);
  aloop__descriptors_fill_standard();
  fcntl(CONTROL, F_SETFD, FD_CLOEXEC);
}

/* The signal that comes when the parent dies. A pid that has changed by now will not change again. */
static void die_with(pid_t parent, int signal) {
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0);
#else
  (void)signal;
#endif
  if (getppid() != parent && getppid() != 0) _exit(0); /* 0: the parent is in another pid namespace */
}

static void set_name(const char *name) {
#ifdef __linux__
  prctl(PR_SET_NAME, name, 0, 0, 0);
#else
  (void)name;
#endif
}

static void be_worker(const nest_t *nest, pid_t nursery, int socket) {
  reset_signals();
  die_with(nursery, SIGKILL);
  keep_only(socket);
  set_name("aloop-worker");
  unblock_signals();
  nest->work(SOCKET, nest->arg);
  _exit(0);
}

/* ---- The nursery ----------------------------------------------------------------------------------------- */

/* Tells the program that a worker is dead. */
static void report(slot_t *slot, int status) {
  int32_t word = status;
  aloop__descriptors_send(slot->leash, &word, sizeof word);
  close(slot->leash);
  slot->pid = 0;
}

static void reap(nest_t *nest) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
    for (int i = 0; i < nest->size; i++)
      if (nest->slots[i].pid == pid) report(&nest->slots[i], status);
}

static void kill_worker(slot_t *slot) {
  if (slot == NULL || slot->pid == 0 || slot->killed) return;
  slot->killed = true;
  kill(slot->pid, SIGKILL);
}

static bool any_left(const nest_t *nest) {
  for (int i = 0; i < nest->size; i++)
    if (nest->slots[i].pid != 0) return true;
  return false;
}

/* After poll: what is left wakes again. */
static void drain_wake(const struct pollfd *wake) {
  char bytes[64];
  if (wake->revents == 0) return;
  ssize_t n = read(WAKE_READ, bytes, sizeof bytes);
  (void)n;
}

/* Waits a moment for one that was killed. */
static void await_death(nest_t *nest) {
  struct pollfd wake = {.fd = WAKE_READ, .events = POLLIN};
  poll(&wake, 1, END_MS / DEATHS_MAX);
  drain_wake(&wake);
  reap(nest);
}

/* Workers are gone when the nursery is, but one that cannot die (its disk does not answer) is left behind. */
static void finish(nest_t *nest) {
  for (int i = 0; i < nest->size; i++) kill_worker(&nest->slots[i]);
  for (int i = 0; i < DEATHS_MAX && any_left(nest); i++) await_death(nest);
  _exit(0);
}

/* Answers a request: a worker's pid with the program's ends of its sockets, or an error alone. */
static bool answer(int32_t pid, int fds[2]) {
  note_t note = {pid};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec part = {&note, sizeof note};
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fds != NULL) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = sizeof control.bytes;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(&control.header), fds, 2 * sizeof(int));
  }
  ssize_t n;
  do n = sendmsg(CONTROL, &message, MSG_NOSIGNAL);
  while (n < 0 && aloop__descriptors_again(CONTROL, POLLOUT));
  return n > 0 && aloop__descriptors_send(CONTROL, (char *)&note + n, sizeof note - (size_t)n);
}

static void close_pair(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

/* Makes the pairs, of which the first is the program's. Returns the worker's pid or a code. */
static pid_t fork_worker(const nest_t *nest, int socket[2], int leash[2]) {
  pid_t nursery = getpid();
  int rc = aloop__descriptors_pair(socket);
  if (rc < 0) return rc;
  rc = aloop__descriptors_pair(leash);
  if (rc < 0) {
    close_pair(socket);
    return rc;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  if (pid == 0) be_worker(nest, nursery, socket[1]);
  rc = -errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid > 0) return pid;
  close_pair(socket);
  close_pair(leash);
  return rc;
}

/* Where a killed worker is still dying, its place will be free. */
static slot_t *free_slot(nest_t *nest) {
  for (int tries = 0; tries < DEATHS_MAX; tries++) {
    bool dying = false;
    for (int i = 0; i < nest->size; i++) {
      if (nest->slots[i].pid == 0) return &nest->slots[i];
      dying = dying || nest->slots[i].killed;
    }
    if (!dying) break;
    await_death(nest);
  }
  return NULL;
}

/* False: the program cannot be answered, so it must not wait for that. */
static bool serve_fork(nest_t *nest) {
  int socket[2], leash[2];
  slot_t *slot = free_slot(nest);
  pid_t pid = slot == NULL ? -EAGAIN : fork_worker(nest, socket, leash);
  nest->last = NULL;
  if (pid < 0) return answer(pid, NULL);
  *slot = (slot_t){.pid = pid, .leash = leash[1]};
  nest->last = slot;
  int ends[2] = {socket[0], leash[0]};
  bool answered = answer(pid, ends);
  close_pair(socket);
  close(leash[0]);
  if (answered) return true;
  kill_worker(slot);
  return answer(-EMFILE, NULL);
}

static bool is_watched(const slot_t *slot) {
  return slot->pid != 0 && !slot->killed;
}

/* Waits for something to do. Only what is there is polled: poll refuses more entries than there may be
 * descriptors. */
static void wait_for_events(nest_t *nest) {
  nfds_t count = POLL_LEASHES;
  nest->polls[POLL_CONTROL] = (struct pollfd){.fd = CONTROL, .events = POLLIN};
  nest->polls[POLL_WAKE] = (struct pollfd){.fd = WAKE_READ, .events = POLLIN};
  for (int i = 0; i < nest->size; i++)
    if (is_watched(&nest->slots[i]))
      nest->polls[count++] = (struct pollfd){.fd = nest->slots[i].leash, .events = POLLIN};
  if (poll(nest->polls, count, -1) < 0)
    for (nfds_t i = 0; i < count; i++) nest->polls[i].revents = 0;
}

/* Those whose leash the program has let go of. */
static void kill_released(nest_t *nest) {
  const struct pollfd *at = &nest->polls[POLL_LEASHES];
  for (int i = 0; i < nest->size; i++)
    if (is_watched(&nest->slots[i]) && at++->revents != 0) kill_worker(&nest->slots[i]);
}

static void serve(nest_t *nest) {
  char request;
  for (;;) {
    wait_for_events(nest);
    drain_wake(&nest->polls[POLL_WAKE]);
    if (getppid() != nest->parent) return;
    kill_released(nest);
    reap(nest);
    if (nest->polls[POLL_CONTROL].revents == 0) continue;
    ssize_t n = recv(CONTROL, &request, 1, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
    if (n == 1 && request == REQUEST_KILL) kill_worker(nest->last);
    if (n == 1 && request == REQUEST_FORK && !serve_fork(nest)) return;
  }
}

/* Its numbers are the lowest that are free, which is just as wanted, unless there is no /dev/null. */
static void open_wake(void) {
  int fds[2];
  if (pipe(fds) < 0) _exit(1);
  for (int i = 1; i >= 0; i--) {
    int wanted = WAKE_READ + i;
    if (fds[i] != wanted) {
      dup2(fds[i], wanted);
      close(fds[i]);
    }
    fcntl(wanted, F_SETFD, FD_CLOEXEC);
    fcntl(wanted, F_SETFL, O_NONBLOCK);
  }
}

static void be_nursery(nest_t *nest, pid_t program, int control) {
  reset_signals();
  keep_only(control);
  open_wake();
  handle(SIGCHLD, wake_up);
  die_with(program, SIGCHLD);
  nest->parent = getppid() == 0 ? 0 : program;
  set_name("aloop-nursery");
  unblock_signals();
  if (answer(0, NULL)) serve(nest);
  finish(nest);
}

/* ---- In the program -------------------------------------------------------------------------------------- */

/* Takes the descriptors out of a message: as many as came of the two. */
static int take_descriptors(struct msghdr *message, int fds[2]) {
  int count = 0;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = at->cmsg_len - CMSG_LEN(0);
    count = (int)(bytes / sizeof(int));
    memcpy(fds, CMSG_DATA(at), (size_t)count * sizeof(int));
  }
  for (int i = 0; i < count; i++) fcntl(fds[i], F_SETFD, FD_CLOEXEC);
  return count;
}

static bool request(int control, char what) {
  return aloop__descriptors_send(control, &what, 1);
}

/* Waits for what the nursery answers: a pid (0: it is ready) or a code. */
static int hear(int control, int fds[2]) {
  note_t note;
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
  } space;
  struct iovec part = {&note, sizeof note};
  struct msghdr message;
  ssize_t n;
  memset(&message, 0, sizeof message);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &space;
  message.msg_controllen = sizeof space.bytes;
  do n = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n <= 0) {
    shutdown(control, SHUT_WR); /* what it says later would be taken for the answer to something else */
    return ALOOP_ECRASHED;
  }
  int count = take_descriptors(&message, fds);
  if (!aloop__descriptors_receive(control, (char *)&note + n, sizeof note - (size_t)n))
    note.pid = ALOOP_ECRASHED;
  if (note.pid <= 0 || count == 2) return note.pid;
  if (count == 1) close(fds[0]);
  return request(control, REQUEST_KILL) ? ALOOP_EMFILE : ALOOP_ECRASHED;
}

static nest_t *new_nest(int workers, aloop__worker_fn work, void *arg) {
  size_t slots = (size_t)workers, polls = slots + POLL_LEASHES;
  nest_t *nest = calloc(1, sizeof *nest + slots * sizeof(slot_t) + polls * sizeof(struct pollfd));
  if (nest == NULL) return NULL;
  nest->work = work;
  nest->arg = arg;
  nest->size = workers;
  nest->polls = (struct pollfd *)(void *)&nest->slots[workers];
  return nest;
}

/* No handler of the program runs in the child, since all signals wait until it has reset them. */
static pid_t fork_nursery(nest_t *nest, const int fds[2]) {
  pid_t program = getpid();
  sigset_t all, before;
  aloop__current_forks(); /* from now on they are counted, so that the children know what they are */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
    be_nursery(nest, program, fds[1]);
  }
  if (pid < 0) pid = -errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return pid;
}

int aloop__nursery_open(aloop__nursery_t *nursery, int workers, aloop__worker_fn work, void *arg) {
  int fds[2];
  nest_t *nest = new_nest(workers, work, arg);
  if (nest == NULL) return ALOOP_ENOMEM;
  int rc = aloop__descriptors_pair(fds);
  if (rc < 0) {
    free(nest);
    return rc;
  }
  pid_t pid = fork_nursery(nest, fds);
  free(nest);
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    return pid;
  }
  nursery->pid = pid;
  nursery->control = fds[0];
  rc = hear(nursery->control, NULL);
  if (rc < 0) aloop__nursery_close(nursery);
  return rc < 0 ? ALOOP_EAGAIN : 0;
}

int aloop__nursery_fork(aloop__nursery_t *nursery, aloop__worker_t *worker) {
  int fds[2];
  if (nursery->pid == 0 || !request(nursery->control, REQUEST_FORK)) return ALOOP_ECRASHED;
  int pid = hear(nursery->control, fds);
  if (pid < 0) return pid;
  if (pid == 0) return ALOOP_ECRASHED;
  *worker = (aloop__worker_t){.pid = pid, .socket = fds[0], .leash = fds[1]};
  return 0;
}

static bool readable_within(int fd, int milliseconds) {
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  int n;
  do n = poll(&entry, 1, milliseconds);
  while (n < 0 && errno == EINTR);
  return n != 0;
}

void aloop__nursery_release(aloop__nursery_t *nursery) {
  if (nursery->pid != 0 && nursery->control >= 0) close(nursery->control);
  nursery->control = -1;
}

/* Whether it has ended, and was waited for, within CLOSE_MS. Without its descriptor this can only be tried. */
static bool has_ended(pid_t pid) {
  for (int i = 0; i < CLOSE_MS; i++) {
    if (waitpid(pid, NULL, WNOHANG) != 0) return true;
    poll(NULL, 0, 1);
  }
  return false;
}

void aloop__nursery_close(aloop__nursery_t *nursery) {
  if (nursery->pid == 0) return;
  bool ended = false;
  if (nursery->control >= 0) {
    shutdown(nursery->control, SHUT_WR);
    if (!readable_within(nursery->control, CLOSE_MS)) kill(nursery->pid, SIGKILL); /* somebody stopped it */
    aloop__nursery_release(nursery);
  } else {
    ended = has_ended(nursery->pid);
    if (!ended) kill(nursery->pid, SIGKILL);
  }
  while (!ended && waitpid(nursery->pid, NULL, 0) < 0 && errno == EINTR) continue;
  nursery->pid = 0;
}

void aloop__nursery_forget(aloop__nursery_t *nursery) {
  aloop__nursery_release(nursery);
  nursery->pid = 0;
}

/* ---- Workers, in the program ----------------------------------------------------------------------------- */

void aloop__worker_forget(aloop__worker_t *worker) {
  if (worker->pid == 0) return;
  close(worker->socket);
  close(worker->leash);
  worker->pid = 0;
}

void aloop__worker_kill(const aloop__worker_t *worker) {
  shutdown(worker->leash, SHUT_WR);
}

bool aloop__worker_idle(const aloop__worker_t *worker) {
  struct pollfd entries[] = {{.fd = worker->socket, .events = POLLIN}, {.fd = worker->leash, .events = POLLIN}};
  return poll(entries, 2, 0) == 0;
}

static const char *signal_name(int signal) {
  static const struct {
    int signal;
    const char *name;
  } names[] = {{SIGABRT, "SIGABRT"}, {SIGALRM, "SIGALRM"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
               {SIGHUP, "SIGHUP"},   {SIGILL, "SIGILL"},   {SIGINT, "SIGINT"},   {SIGKILL, "SIGKILL"},
               {SIGPIPE, "SIGPIPE"}, {SIGQUIT, "SIGQUIT"}, {SIGSEGV, "SIGSEGV"}, {SIGSYS, "SIGSYS"},
               {SIGTERM, "SIGTERM"}, {SIGTRAP, "SIGTRAP"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"},
               {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (names[i].signal == signal) return names[i].name;
  return "?";
}

static void describe(pid_t pid, int status, bool forced, char text[ALOOP__WORKER_TEXT]) {
  int size = ALOOP__WORKER_TEXT, id = (int)pid;
  if (status == NO_STATUS)
    snprintf(text, (size_t)size, "worker process %d and the process that made it are gone", id);
  else if (forced)
    snprintf(text, (size_t)size, "worker process %d closed its connection", id);
  else if (WIFSIGNALED(status))
    snprintf(text, (size_t)size, "worker process %d was killed by signal %d (%s)", id, WTERMSIG(status),
             signal_name(WTERMSIG(status)));
  else
    snprintf(text, (size_t)size, "worker process %d exited with code %d", id, WEXITSTATUS(status));
}

/* Without a nursery nobody else kills a worker that goes on with its job; on Linux the kernel has done so. It
 * still has its socket, so its pid is still its own. */
static void kill_orphan(const aloop__worker_t *worker) {
#ifndef __linux__
  char byte;
  bool alone = recv(worker->leash, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
  if (alone && !readable_within(worker->socket, END_MS)) kill(worker->pid, SIGKILL);
#else
  (void)worker; /* whose pid may be of another namespace */
#endif
}

void aloop__worker_end(aloop__worker_t *worker, char text[ALOOP__WORKER_TEXT]) {
  int32_t status;
  kill_orphan(worker);
  shutdown(worker->socket, SHUT_RDWR);
  bool forced = !readable_within(worker->leash, END_MS);
  if (forced) aloop__worker_kill(worker);
  if (!aloop__descriptors_receive(worker->leash, &status, sizeof status)) status = NO_STATUS;
  describe(worker->pid, status, forced, text);
  aloop__worker_forget(worker);
}
