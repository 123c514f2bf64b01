/* SPDX-License-Identifier: MIT
 *
 * Starting a program: everything between the decision and its first instruction.
 *
 * The child is made by clone with CLONE_VM and CLONE_VFORK: it borrows the parent's memory, on a stack of its
 * own, and the calling thread rests until the child has become another program or is gone. Nothing of the
 * parent is copied, so starting costs the same from 1 MiB as from 100 GiB. What goes wrong in the child is
 * simply written to the plan, which both see. Where there is no such clone there is fork, with a pipe that
 * closes as the program begins and otherwise brings the plan's report. (vfork itself would do without the
 * stack, but what a compiler may keep in the frame that is left twice is nobody's promise.)
 *
 * The child runs in a place where almost nothing is allowed: other threads of the parent hold locks that are
 * never going to be released here (fork) or that are shared (clone). So all that can be is prepared before, the
 * paths to try above all, and the child makes system calls only. On Linux they are raw ones: the C libraries
 * make setuid and its like a matter of all threads, and sanitizers keep books of closed descriptors, in memory
 * that is the parent's.
 *
 * Signals: all are blocked during the birth, the C library's own too, because a handler that ran in the child
 * would run in the parent's memory. The child gives those with handlers their default action and unblocks last,
 * right before exec. Ignored signals stay ignored, as exec has it.
 *
 * Descriptors: every one above 2 is marked close-on-exec rather than closed, then those to be passed are
 * unmarked. So the error pipe needs no exception, and one call of close_range does it all.
 *
 * Left out: starting without waiting for the program to begin (it takes as long as exec does), and running a
 * file that is no program with /bin/sh, as execvp does. Emulators that give such a clone memory of its own
 * (valgrind) cannot bring the report; a start that fails then shows as exit code 127, as with posix_spawn.
 */
#include "process/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#endif

#include "core/memory.h"
#include "process/stdio.h"

extern char **environ;

unsigned aloop__spawn_without;

/* Where clone can be used: stacks grow down, and the kernel's sigaction struct begins with the handler. */
#if ALOOP_HAVE_CLONE && defined(__linux__) &&                                                                  \
    (defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__arm__) ||                   \
     defined(__riscv) || defined(__powerpc64__) || defined(__s390x__) || defined(__loongarch__))
#define CAN_CLONE 1
#else
#define CAN_CLONE 0
#endif

/* Code that runs in the child is not instrumented: it does not return to where it was called from, and what
 * sanitizers note about it would be noted in the parent. */
#ifdef __has_attribute
#if __has_attribute(disable_sanitizer_instrumentation)
/* Clang 14 heeds the first for the thread sanitizer alone. */
#define IN_CHILD __attribute__((disable_sanitizer_instrumentation, no_sanitize("address", "undefined")))
#endif
#endif
#if !defined(IN_CHILD) && defined(__GNUC__) && !defined(__clang__)
#define IN_CHILD __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#elif !defined(IN_CHILD)
#define IN_CHILD
#endif

enum { STACK_SIZE = 64 * 1024, LIST_SIZE = 2048, LIMIT_MAX = 1 << 20, FAILED = 127 };

typedef enum step {
  STEP_NONE,
  STEP_SESSION,
  STEP_PROCESS_GROUP,
  STEP_STDIO,
  STEP_PASS,
  STEP_CWD,
  STEP_GROUPS,
  STEP_GROUP,
  STEP_USER,
  STEP_EXECUTE
} step_t;

/* What the child has to say, if anything. */
typedef struct report {
  step_t step;
  int error; /* an errno value */
  int which; /* descriptor */
} report_t;

/* What the child goes by. */
typedef struct plan {
  const aloop_process_options_t *options;
  const char *const *env;
  char **paths; /* to try in turn, ended by NULL; one block with its strings */
  int stdio[3];
  int limit;     /* no descriptor is above, as far as one can know */
  int error_fd;  /* of the forked child */
  sigset_t mask; /* what the calling thread blocked */
  volatile report_t report;
} plan_t;

/* ---- In the child ---------------------------------------------------------------------------------------- */

#ifdef __linux__
/* Users and groups were 16 bits wide once, and on some CPUs the plain names still mean that. */
#ifdef SYS_setresuid32
#define SYS_SETRESUID SYS_setresuid32
#define SYS_SETRESGID SYS_setresgid32
#define SYS_SETGROUPS SYS_setgroups32
#else
#define SYS_SETRESUID SYS_setresuid
#define SYS_SETRESGID SYS_setresgid
#define SYS_SETGROUPS SYS_setgroups
#endif
#define SIGNAL_SET_SIZE ((size_t)(_NSIG / 8))

IN_CHILD static long child_dup2(int from, int to) {
  return syscall(SYS_dup3, from, to, 0);
}
IN_CHILD static long child_fcntl(int fd, int command, int value) {
  return syscall(SYS_fcntl, fd, command, value);
}
IN_CHILD static long child_setsid(void) {
  return syscall(SYS_setsid);
}
IN_CHILD static long child_setpgid(pid_t group) {
  return syscall(SYS_setpgid, 0, group);
}
IN_CHILD static long child_chdir(const char *path) {
  return syscall(SYS_chdir, path);
}
IN_CHILD static void child_umask(mode_t mask) {
  syscall(SYS_umask, mask);
}
IN_CHILD static long child_setuid(uid_t user) {
  return syscall(SYS_SETRESUID, user, user, user);
}
IN_CHILD static long child_setgid(gid_t group) {
  return syscall(SYS_SETRESGID, group, group, group);
}
IN_CHILD static long child_setgroups(size_t count, const gid_t *groups) {
  return syscall(SYS_SETGROUPS, count, groups);
}
IN_CHILD static void child_execve(const char *path, const char *const *argv, const char *const *env) {
  syscall(SYS_execve, path, argv, env);
}
IN_CHILD static void child_unblock(const sigset_t *mask) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, mask, NULL, SIGNAL_SET_SIZE);
}
IN_CHILD static void child_exit(void) {
  for (;;) syscall(SYS_exit_group, FAILED);
}
#else
static int child_dup2(int from, int to) {
  return dup2(from, to);
}
static int child_fcntl(int fd, int command, int value) {
  return fcntl(fd, command, value);
}
static int child_setsid(void) {
  return (int)setsid();
}
static int child_setpgid(pid_t group) {
  return setpgid(0, group);
}
static int child_chdir(const char *path) {
  return chdir(path);
}
static void child_umask(mode_t mask) {
  umask(mask);
}
static int child_setuid(uid_t user) {
  return setreuid(user, user);
}
static int child_setgid(gid_t group) {
  return setregid(group, group);
}
static int child_setgroups(size_t count, const gid_t *groups) {
#ifdef __GLIBC__ /* the Hurd's */
  return setgroups(count, groups);
#else
  return setgroups((int)count, groups);
#endif
}
static void child_execve(const char *path, const char *const *argv, const char *const *env) {
  execve(path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
}
static void child_unblock(const sigset_t *mask) {
  sigprocmask(SIG_SETMASK, mask, NULL);
}
static void child_exit(void) {
  _exit(FAILED);
}
#endif

/* Gives a signal its default action: if it has a handler, or in any case. */
#if CAN_CLONE
IN_CHILD static void reset_signal(int number, bool ignored_too) {
  static const char by_default[256]; /* the kernel's struct, all zero: SIG_DFL without flags */
  char now[sizeof by_default];
  void (*handler)(int) = NULL;
  if (syscall(SYS_rt_sigaction, number, NULL, now, SIGNAL_SET_SIZE) < 0) return;
  for (size_t i = 0; i < sizeof handler; i++) ((volatile char *)&handler)[i] = now[i];
  if (handler == SIG_DFL || (handler == SIG_IGN && !ignored_too)) return;
  syscall(SYS_rt_sigaction, number, by_default, NULL, SIGNAL_SET_SIZE);
}
#else
static void reset_signal(int number, bool ignored_too) {
  struct sigaction now;
  if (sigaction(number, NULL, &now) < 0) return;
  if (now.sa_handler == SIG_DFL || (now.sa_handler == SIG_IGN && !ignored_too)) return;
  now.sa_handler = SIG_DFL;
  now.sa_flags = 0;
  sigaction(number, &now, NULL);
}
#endif

IN_CHILD static bool fail(plan_t *plan, step_t step, int which) {
  plan->report.error = errno;
  plan->report.which = which;
  plan->report.step = step;
  return false;
}

IN_CHILD static bool join_groups(plan_t *plan) {
  const aloop_process_options_t *options = plan->options;
  if (options->start_new_session && child_setsid() < 0) return fail(plan, STEP_SESSION, 0);
  if (options->process_group == 0) return true;
  pid_t group = options->process_group > 0 ? (pid_t)options->process_group : 0;
  return child_setpgid(group) < 0 ? fail(plan, STEP_PROCESS_GROUP, 0) : true;
}

/* Puts the three in their places. Sources that stand in a place themselves step aside first, so that no order
 * of them can go wrong. */
IN_CHILD static bool place_stdio(plan_t *plan) {
  int source[3];
  for (int i = 0; i < 3; i++) {
    source[i] = plan->stdio[i];
    if (source[i] == i || source[i] > 2) continue;
    source[i] = (int)child_fcntl(source[i], F_DUPFD_CLOEXEC, 3);
    if (source[i] < 0) return fail(plan, STEP_STDIO, i);
  }
  for (int i = 0; i < 3; i++) {
    if (source[i] == i)
      child_fcntl(i, F_SETFD, 0); /* may be closed, and is then inherited closed */
    else if (child_dup2(source[i], i) < 0)
      return fail(plan, STEP_STDIO, i);
  }
  return true;
}

#ifdef __linux__
/* What the kernel lists in a folder. */
typedef struct entry {
  uint64_t inode;
  int64_t next;
  uint16_t size;
  uint8_t type;
  char name[];
} entry_t;

/* -1: not a number, and so none of the descriptors. */
IN_CHILD static int number_in(const char *name) {
  int number = 0;
  for (; *name != '\0'; name++) {
    if (*name < '0' || *name > '9' || number > LIMIT_MAX * 100) return -1;
    number = number * 10 + (*name - '0');
  }
  return number;
}

IN_CHILD static bool mark_listed(void) {
  _Alignas(entry_t) char list[LIST_SIZE];
  if (aloop__spawn_without & ALOOP__WITHOUT_PROC) return false;
  long folder = syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return false;
  long size;
  while ((size = syscall(SYS_getdents64, folder, list, sizeof list)) > 0) {
    for (long at = 0; at < size;) {
      const entry_t *entry = (const entry_t *)(const void *)(list + at);
      int fd = number_in(entry->name);
      if (fd > 2) child_fcntl(fd, F_SETFD, FD_CLOEXEC);
      at += entry->size;
    }
  }
  return size == 0;
}

IN_CHILD static bool mark_range(void) {
#if defined(SYS_close_range)
  enum { CLOSE_ON_EXEC = 4 }; /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */
  if (aloop__spawn_without & ALOOP__WITHOUT_CLOSE_RANGE) return false;
  return syscall(SYS_close_range, 3u, ~0u, CLOSE_ON_EXEC) == 0;
#else
  return false;
#endif
}
#else
static bool mark_listed(void) {
  return false;
}
static bool mark_range(void) {
  return false;
}
#endif

IN_CHILD static bool choose_descriptors(plan_t *plan) {
  if (!mark_range() && !mark_listed())
    for (int fd = 3; fd < plan->limit; fd++) child_fcntl(fd, F_SETFD, FD_CLOEXEC);
  for (size_t i = 0; i < plan->options->pass_fds_count; i++) {
    int fd = plan->options->pass_fds[i];
    if (child_fcntl(fd, F_SETFD, 0) < 0) return fail(plan, STEP_PASS, fd);
  }
  return true;
}

/* As the user that this process is, until the last. */
IN_CHILD static bool change_identity(plan_t *plan) {
  const aloop_process_options_t *options = plan->options;
  if (options->cwd != NULL && child_chdir(options->cwd) < 0) return fail(plan, STEP_CWD, 0);
  if (options->set & ALOOP_SET_UMASK) child_umask(options->umask & 0777);
  if ((options->set & ALOOP_SET_GROUPS) && child_setgroups(options->groups_count, options->groups) < 0)
    return fail(plan, STEP_GROUPS, 0);
  if ((options->set & ALOOP_SET_GROUP) && child_setgid(options->group) < 0) return fail(plan, STEP_GROUP, 0);
  if ((options->set & ALOOP_SET_USER) && child_setuid(options->user) < 0) return fail(plan, STEP_USER, 0);
  return true;
}

IN_CHILD static void set_signals(const plan_t *plan) {
  for (int number = 1; number < _NSIG; number++) reset_signal(number, false);
  if (plan->options->restore_signals == 0) {
    reset_signal(SIGPIPE, true);
#ifdef SIGXFSZ
    reset_signal(SIGXFSZ, true);
#endif
  }
  child_unblock(&plan->mask);
}

/* The first path that can be executed. One that exists but is not for this user is remembered, in case there
 * is no other. */
IN_CHILD static void execute(plan_t *plan) {
  int denied = 0;
  for (char **path = plan->paths; *path != NULL; path++) {
    child_execve(*path, plan->options->argv, plan->env);
    if (errno == EACCES)
      denied = EACCES;
    else if (errno != ENOENT && errno != ENOTDIR)
      break;
  }
  if (denied != 0 && (errno == ENOENT || errno == ENOTDIR)) errno = denied;
  fail(plan, STEP_EXECUTE, 0);
}

IN_CHILD static void become_program(plan_t *plan) {
  if (!join_groups(plan) || !place_stdio(plan) || !choose_descriptors(plan) || !change_identity(plan)) return;
  set_signals(plan);
  execute(plan);
}

/* ---- Being born ------------------------------------------------------------------------------------------ */

static void collect(pid_t pid) {
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

#ifdef __linux__
/* The C library keeps some signals to itself and leaves them out of its own calls. */
static void block_signals(sigset_t *before) {
  sigset_t all;
  memset(&all, 0xff, sizeof all);
  memset(before, 0, sizeof *before);
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, before, SIGNAL_SET_SIZE);
}

static void unblock_signals(const sigset_t *before) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, NULL, SIGNAL_SET_SIZE);
}
#else
static void block_signals(sigset_t *before) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

static void unblock_signals(const sigset_t *before) {
  pthread_sigmask(SIG_SETMASK, before, NULL);
}
#endif

#if CAN_CLONE
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

/* The thread sanitizer takes every clone for a fork; the C library's other name for it passes it by. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define WITH_THREAD_SANITIZER 1
#endif
#endif
#if defined(__GLIBC__) && (defined(__SANITIZE_THREAD__) || defined(WITH_THREAD_SANITIZER))
extern int __clone(int (*run)(void *), void *stack, int flags, void *arg, ...);
#define clone __clone
#endif

IN_CHILD static int cloned(void *arg) {
  become_program(arg);
  child_exit();
  return FAILED;
}

/* Returns an error if no child could be made, whatever it does then. Kernels before 5.2 ignore CLONE_PIDFD. */
static int begin_by_clone(plan_t *plan, aloop__spawned_t *spawned) {
  int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
  char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return -errno;
  if ((aloop__spawn_without & ALOOP__WITHOUT_PIDFD) == 0) flags |= CLONE_PIDFD;
  spawned->pid = clone(cloned, stack + STACK_SIZE, flags, plan, &spawned->pidfd);
  int rc = spawned->pid < 0 ? -errno : 0;
  munmap(stack, STACK_SIZE);
  if (spawned->pidfd >= 0) spawned->pidfd = aloop__stdio_move_up(spawned->pidfd);
  return rc;
}
#endif

/* In the forked child, which has a plan of its own. */
IN_CHILD static void forked(plan_t *plan) {
  become_program(plan);
  report_t report = {plan->report.step, plan->report.error, plan->report.which};
  ssize_t ignored = write(plan->error_fd, &report, sizeof report);
  (void)ignored;
  child_exit();
}

/* Waits until the program runs, or says why not. */
static void hear_report(plan_t *plan, int fd) {
  report_t report = {0};
  ssize_t n;
  do n = read(fd, &report, sizeof report);
  while (n < 0 && errno == EINTR);
  if (n != (ssize_t)sizeof report) return;
  plan->report.error = report.error;
  plan->report.which = report.which;
  plan->report.step = report.step;
}

static int begin_by_fork(plan_t *plan, aloop__spawned_t *spawned) {
  int ends[2];
  int rc = aloop__stdio_pipe(ends);
  if (rc < 0) return rc;
  plan->error_fd = ends[1];
  spawned->pid = fork();
  if (spawned->pid == 0) forked(plan);
  rc = spawned->pid < 0 ? -errno : 0;
  close(ends[1]);
  if (rc == 0) hear_report(plan, ends[0]);
  close(ends[0]);
  return rc;
}

static int begin(plan_t *plan, aloop__spawned_t *spawned) {
#if CAN_CLONE
  if ((aloop__spawn_without & ALOOP__WITHOUT_CLONE) == 0) {
    int rc = begin_by_clone(plan, spawned);
    if (rc != ALOOP_EINVAL && rc != -ENOSYS && rc != ALOOP_EPERM) return rc;
  }
#endif
  return begin_by_fork(plan, spawned);
}

/* ---- The plan -------------------------------------------------------------------------------------------- */

/* Where programs are looked for: the PATH that the child is going to have. */
static const char *search_path(const char *const *env) {
  for (; *env != NULL; env++)
    if (strncmp(*env, "PATH=", 5) == 0) return *env + 5;
  return "/bin:/usr/bin";
}

static char **one_path(aloop_t *loop, const char *name) {
  size_t size = strlen(name) + 1;
  char **paths = aloop__memory_new(loop, 2 * sizeof *paths + size);
  if (paths == NULL) return NULL;
  paths[0] = memcpy(paths + 2, name, size);
  paths[1] = NULL;
  return paths;
}

/* The name in every folder of the list; an empty one means the current folder. NULL: out of memory. */
static char **paths_to_try(aloop_t *loop, const char *name, const char *folders) {
  if (strchr(name, '/') != NULL || *name == '\0') return one_path(loop, name);
  size_t count = 1, length = strlen(name);
  for (const char *at = folders; *at != '\0'; at++) count += *at == ':';
  char **paths = aloop__memory_new(loop, (count + 1) * sizeof *paths + strlen(folders) + count * (length + 2));
  if (paths == NULL) return NULL;
  char *to = (char *)(paths + count + 1);
  for (size_t i = 0; i < count; i++) {
    size_t folder = strcspn(folders, ":");
    paths[i] = to;
    memcpy(to, folders, folder);
    to += folder;
    if (folder > 0 && to[-1] != '/') *to++ = '/';
    memcpy(to, name, length + 1);
    to += length + 1;
    folders += folder + 1;
  }
  paths[count] = NULL;
  return paths;
}

static int descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > LIMIT_MAX) return LIMIT_MAX;
  return (int)limit.rlim_cur;
}

static const char *program_of(const aloop_process_options_t *options) {
  return options->executable != NULL ? options->executable : options->argv[0];
}

/* The failed step in words. */
static void name_step(const plan_t *plan, char text[ALOOP__SPAWN_TEXT]) {
  const aloop_process_options_t *options = plan->options;
  const size_t size = ALOOP__SPAWN_TEXT;
  static const char *const names[] = {"stdin", "stdout", "stderr"};
  switch (plan->report.step) {
  case STEP_NONE:
    snprintf(text, size, "start a process");
    break;
  case STEP_SESSION:
    snprintf(text, size, "start a new session");
    break;
  case STEP_PROCESS_GROUP:
    snprintf(text, size, "join process group %d", options->process_group);
    break;
  case STEP_STDIO:
    snprintf(text, size, "set up %s", names[plan->report.which]);
    break;
  case STEP_PASS:
    snprintf(text, size, "pass descriptor %d", plan->report.which);
    break;
  case STEP_CWD:
    snprintf(text, size, "chdir to %.120s", options->cwd);
    break;
  case STEP_GROUPS:
    snprintf(text, size, "set the extra groups");
    break;
  case STEP_GROUP:
    snprintf(text, size, "change to group %lu", (unsigned long)options->group);
    break;
  case STEP_USER:
    snprintf(text, size, "change to user %lu", (unsigned long)options->user);
    break;
  case STEP_EXECUTE:
    snprintf(text, size, "execute %.120s", program_of(options));
    break;
  }
}

/* The mask that the child begins with, unless it is to be this thread's. */
static void choose_mask(plan_t *plan, const sigset_t *before) {
  plan->mask = *before;
  if (plan->options->restore_signals == 0) sigemptyset(&plan->mask);
}

int aloop__spawn(aloop_t *loop, const aloop_process_options_t *options, const int stdio[3],
                 aloop__spawned_t *spawned) {
  sigset_t before;
  plan_t plan = {.options = options, .limit = descriptor_limit(), .error_fd = -1};
  plan.env = options->env != NULL ? options->env : (const char *const *)(uintptr_t)environ;
  plan.paths = paths_to_try(loop, program_of(options), search_path(plan.env));
  if (plan.paths == NULL) return ALOOP_ENOMEM;
  for (int i = 0; i < 3; i++) plan.stdio[i] = stdio[i];
  spawned->pid = spawned->pidfd = -1;
  block_signals(&before);
  choose_mask(&plan, &before);
  int rc = begin(&plan, spawned);
  if (rc == 0 && plan.report.error != 0) {
    rc = -plan.report.error;
    collect(spawned->pid);
    if (spawned->pidfd >= 0) close(spawned->pidfd);
  }
  unblock_signals(&before);
  if (rc < 0) name_step(&plan, spawned->step);
  aloop__memory_release(loop, plan.paths);
  return rc;
}
