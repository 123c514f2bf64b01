/* SPDX-License-Identifier: MIT
 *
 * A child process and its end: how the loop learns of it, and collects the exit status.
 *
 * SIGCHLD belongs to the host program and is never touched. What is watched instead, the first that works:
 * - a pidfd (Linux): readable when the child has ended, and a name for the child that cannot come to mean
 *   another process, for collecting and for signals;
 * - a kqueue of its own with EVFILT_PROC: a kqueue is a descriptor that can be watched like others;
 * - a guard: a thread that blocks in waitid for this child and leaves the status for the loop to collect.
 *
 * All three only say "look now"; the status is always collected in the loop's thread, by one function, for this
 * child alone. If somebody else was faster (a host that waits for any child, or has SIGCHLD ignored), the
 * status is lost; that is an answer too: ALOOP_EREAPED.
 *
 * A guard is malloc's memory with a count of two, as a name lookup is (net/resolve.c): its mutex guards whether
 * the loop may still be told. In a fork of this process the children are the parent's: they are neither killed
 * nor waited for, and a guard's thread is not there.
 *
 * Left out: process trees. Who wants to end grandchildren too gives the child a group or a session of its own.
 */
#include "process/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#if ALOOP_HAVE_KQUEUE
#include <sys/event.h>
#endif

#include "core/clock.h"
#include "core/loop.h"
#include "executor/thread.h"
#include "process/spawn.h"
#include "process/stdio.h"

enum { STACK_SIZE = 64 * 1024, RETRY_NS = 10000000, LOOK_NS = 500000 };

/* waitid by pidfd; the name is newer than the number. */
#define BY_PIDFD ((idtype_t)3)

/* ---- The end --------------------------------------------------------------------------------------------- */

bool aloop__child_is_mine(const aloop__child_t *child) {
  return child->forks == aloop__current_forks();
}

static int wait_now(idtype_t type, id_t id, siginfo_t *info) {
  int rc;
  info->si_pid = 0;
  do rc = waitid(type, id, info, WEXITED | WNOHANG);
  while (rc < 0 && errno == EINTR);
  return rc;
}

static int wait_for(const aloop__child_t *child, siginfo_t *info) {
  if (child->is_pidfd) {
    int rc = wait_now(BY_PIDFD, (id_t)child->fd, info);
    if (rc == 0 || errno != EINVAL) return rc; /* before Linux 5.4 */
  }
  return wait_now(P_PID, (id_t)child->pid, info);
}

/* Collects the status. False: the child still runs. */
static bool collect(aloop__child_t *child) {
  siginfo_t info;
  if (child->code != ALOOP_ENOTDONE) return true;
  if (wait_for(child, &info) < 0)
    child->code = ALOOP_EREAPED;
  else if (info.si_pid != 0)
    child->code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
  return child->code != ALOOP_ENOTDONE;
}

static void look(aloop_t *loop, aloop__child_t *child) {
  if (!collect(child)) return;
  aloop__child_release(loop, child);
  child->ended(loop, child);
}

static void readable(aloop_t *loop, void *arg) {
  look(loop, ALOOP_CONTAINER_OF(arg, aloop__child_t, watch));
}

static const aloop__watch_ops_t child_ops = {.name = "child", .readable = readable, .writable = readable};

/* ---- Descriptors that tell ------------------------------------------------------------------------------- */

static int open_pidfd(pid_t pid) {
#if defined(__linux__) && defined(SYS_pidfd_open)
  if ((aloop__spawn_without & ALOOP__WITHOUT_PIDFD) == 0)
    return aloop__stdio_move_up((int)syscall(SYS_pidfd_open, pid, 0));
#else
  (void)pid;
#endif
  return ALOOP_ENOTSUP;
}

#if ALOOP_HAVE_KQUEUE
static int open_kqueue(pid_t pid) {
  struct kevent event;
  if (aloop__spawn_without & ALOOP__WITHOUT_KQUEUE) return -1;
  int fd = aloop__stdio_move_up(kqueue());
  if (fd < 0) return fd;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  EV_SET(&event, (uintptr_t)pid, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0, 0);
  if (kevent(fd, &event, 1, NULL, 0, NULL) == 0) return fd;
  close(fd); /* ESRCH: it has ended, and a guard will see that at once */
  return -1;
}
#else
static int open_kqueue(pid_t pid) {
  (void)pid;
  return -1;
}
#endif

static int watch_fd(aloop_t *loop, aloop__child_t *child) {
  int rc = aloop__watch_claim(loop, &child->watch, child->fd, &child_ops);
  if (rc == 0) rc = aloop__watch_set(loop, &child->watch, ALOOP_READABLE);
  if (rc < 0) aloop__watch_stop(loop, &child->watch);
  return rc;
}

/* ---- Guards ---------------------------------------------------------------------------------------------- */

struct aloop__guard {
  pthread_mutex_t mutex;
  aloop_t *loop; /* NULL: nobody wants to know */
  aloop__child_t *child;
  pid_t pid;
  bool posted;
  int refs;
};

static void drop_locked(aloop__guard_t *guard) {
  bool last = --guard->refs == 0;
  pthread_mutex_unlock(&guard->mutex);
  if (!last) return;
  pthread_mutex_destroy(&guard->mutex);
  free(guard);
}

/* The post. A loop that has let go meanwhile has left its count to it. */
static void deliver(aloop_t *loop, void *arg) {
  aloop__guard_t *guard = arg;
  aloop__child_t *child = guard->child;
  pthread_mutex_lock(&guard->mutex);
  guard->posted = false;
  if (child == NULL) {
    drop_locked(guard);
    return;
  }
  pthread_mutex_unlock(&guard->mutex);
  look(loop, child);
}

static void *stand_guard(void *arg) {
  aloop__guard_t *guard = arg;
  siginfo_t info;
  aloop__thread_name("aloop-child");
  while (waitid(P_PID, (id_t)guard->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) continue;
  pthread_mutex_lock(&guard->mutex);
  while (guard->loop != NULL && !guard->posted) {
    int rc = aloop_call_soon_threadsafe_from(guard->loop, deliver, guard, NULL);
    guard->posted = rc == 0;
    if (rc != ALOOP_ENOMEM) break;
    /* Nobody else would ever tell, so the news waits for memory. */
    pthread_mutex_unlock(&guard->mutex);
    nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    pthread_mutex_lock(&guard->mutex);
  }
  drop_locked(guard);
  return NULL;
}

static int start_thread(aloop__guard_t *guard) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return ALOOP_ENOMEM;
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  int rc = aloop__thread_start(NULL, &attributes, stand_guard, guard);
  pthread_attr_destroy(&attributes);
  return rc;
}

static int post_guard(aloop_t *loop, aloop__child_t *child) {
  aloop__guard_t *guard = calloc(1, sizeof *guard);
  if (guard == NULL) return ALOOP_ENOMEM;
  if (pthread_mutex_init(&guard->mutex, NULL) != 0) {
    free(guard);
    return ALOOP_ENOMEM;
  }
  *guard = (aloop__guard_t){.mutex = guard->mutex, .loop = loop, .child = child, .pid = child->pid, .refs = 2};
  int rc = start_thread(guard);
  if (rc == 0) {
    child->guard = guard;
    return 0;
  }
  pthread_mutex_destroy(&guard->mutex);
  free(guard);
  return rc;
}

static void dismiss(aloop_t *loop, aloop__guard_t *guard, bool threads_live) {
  if (!threads_live) return; /* its mutex may be locked for ever: the block stays */
  pthread_mutex_lock(&guard->mutex);
  guard->loop = NULL;
  guard->child = NULL;
  /* A closed loop drops its posts uncalled; any other delivers this one. */
  if (guard->posted && !aloop_is_closed(loop))
    pthread_mutex_unlock(&guard->mutex);
  else
    drop_locked(guard);
}

/* ---- The child ------------------------------------------------------------------------------------------- */

void aloop__child_init(aloop__child_t *child) {
  *child = (aloop__child_t){.watch = {.fd = -1}, .pid = -1, .fd = -1, .code = ALOOP_ENOTDONE};
}

int aloop__child_watch(aloop_t *loop, aloop__child_t *child, pid_t pid, int pidfd, aloop__child_fn ended) {
  child->pid = pid;
  child->ended = ended;
  child->forks = aloop__current_forks();
  child->fd = pidfd >= 0 ? pidfd : open_pidfd(pid);
  child->is_pidfd = child->fd >= 0;
  if (child->fd < 0) child->fd = open_kqueue(pid);
  if (child->fd >= 0 && watch_fd(loop, child) == 0) return 0;
  return post_guard(loop, child);
}

int aloop__child_signal(aloop__child_t *child, int signum) {
  if (child->code != ALOOP_ENOTDONE || child->pid <= 0) return ALOOP_ESRCH;
#if defined(__linux__) && defined(SYS_pidfd_send_signal)
  if (child->is_pidfd) {
    if (syscall(SYS_pidfd_send_signal, child->fd, signum, NULL, 0) == 0) return 0;
    if (errno != ENOSYS) return -errno;
  }
#endif
  return kill(child->pid, signum) == 0 ? 0 : -errno;
}

bool aloop__child_await(aloop__child_t *child, int64_t limit) {
  if (!aloop__child_is_mine(child)) return false;
  while (!collect(child)) {
    int64_t left = limit - aloop__clock_monotonic();
    if (left <= 0) return false;
    if (child->is_pidfd)
      poll(&(struct pollfd){.fd = child->fd, .events = POLLIN}, 1, (int)(left / 1000000) + 1);
    else
      nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
  }
  return true;
}

void aloop__child_release(aloop_t *loop, aloop__child_t *child) {
  aloop__watch_stop(loop, &child->watch);
  if (child->fd >= 0) close(child->fd);
  child->fd = -1;
  child->is_pidfd = false;
  aloop__guard_t *guard = child->guard;
  child->guard = NULL;
  if (guard != NULL) dismiss(loop, guard, aloop__child_is_mine(child));
}
