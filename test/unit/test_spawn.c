/* SPDX-License-Identifier: MIT
 *
 * Starting programs: what they find in their place (descriptors, environment, groups, signals), and which step
 * is named when that fails. Each test runs once for every way that a system may offer. threads: yes
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "peers.h"
#include "process/spawn.h"

/* ---- Running a program ----------------------------------------------------------------------------------- */

static const unsigned ways[] = {
    0,
    ALOOP__WITHOUT_CLONE,
    ALOOP__WITHOUT_PIDFD | ALOOP__WITHOUT_CLOSE_RANGE,
    ALOOP__WITHOUT_CLONE | ALOOP__WITHOUT_CLOSE_RANGE | ALOOP__WITHOUT_PROC,
};

/* A test that runs in every way. */
#define IN_EVERY_WAY(name)                                                                                     \
  static void name##_once(env_t *env);                                                                         \
  static void name(void **state) {                                                                             \
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {                                                \
      aloop__spawn_without = ways[i];                                                                          \
      name##_once(*state);                                                                                     \
    }                                                                                                          \
    aloop__spawn_without = 0;                                                                                  \
  }                                                                                                            \
  static void name##_once(env_t *env)

typedef struct outcome {
  int error; /* of aloop__spawn */
  char step[ALOOP__SPAWN_TEXT];
  int code;        /* exit code, or minus the signal */
  char text[8192]; /* what it wrote */
} outcome_t;

static int code_of(pid_t pid) {
  int status;
  pid_t ended;
  do ended = waitpid(pid, &status, 0);
  while (ended < 0 && errno == EINTR);
  assert_int_equal(ended, pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void read_all(int fd, char *into, size_t room) {
  size_t size = 0;
  ssize_t n;
  while ((n = read(fd, into + size, room - 1 - size)) > 0 || (n < 0 && errno == EINTR))
    size += n > 0 ? (size_t)n : 0;
  assert_int_equal(n, 0);
  into[size] = '\0';
}

/* Runs a program, with stdout and stderr in a pipe, to its end. */
static outcome_t run(env_t *env, aloop_process_options_t options) {
  outcome_t outcome = {0};
  aloop__spawned_t spawned;
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  outcome.error = aloop__spawn(env->loop, &options, (int[3]){0, ends[1], ends[1]}, &spawned);
  close(ends[1]);
  if (outcome.error < 0) {
    memcpy(outcome.step, spawned.step, sizeof outcome.step);
    read_all(ends[0], outcome.text, sizeof outcome.text);
  } else {
    read_all(ends[0], outcome.text, sizeof outcome.text);
    outcome.code = code_of(spawned.pid);
    if (spawned.pidfd >= 0) close(spawned.pidfd);
  }
  close(ends[0]);
  return outcome;
}

static outcome_t run_program(env_t *env, const char *const *argv) {
  return run(env, (aloop_process_options_t){.argv = argv});
}

/* Runs a shell command, with these options otherwise. */
static outcome_t run_shell(env_t *env, const char *command, aloop_process_options_t options) {
  options.argv = (const char *const[]){"/bin/sh", "-c", command, NULL};
  return run(env, options);
}

static void expect_output(env_t *env, const char *command, aloop_process_options_t options, const char *text) {
  outcome_t outcome = run_shell(env, command, options);
  if (outcome.error < 0) fail_msg("%s: %s", outcome.step, aloop_strerror(outcome.error));
  assert_string_equal(outcome.text, text);
  assert_int_equal(outcome.code, 0);
}

static void expect_failure(env_t *env, aloop_process_options_t options, int error, const char *step) {
  static const char *const program[] = {"/bin/true", NULL};
  if (options.argv == NULL) options.argv = program;
  outcome_t outcome = run(env, options);
  assert_int_equal(outcome.error, error);
  assert_string_equal(outcome.step, step);
  assert_string_equal(outcome.text, "");
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left */
  assert_int_equal(errno, ECHILD);
}

/* ---- Files ----------------------------------------------------------------------------------------------- */

static char folder[64];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/aloop-spawn-XXXXXX");
  assert_non_null(mkdtemp(folder));
}

static const char *in_folder(const char *name) {
  static char paths[4][160];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static void make_file(const char *name, const char *text, mode_t mode) {
  int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  fchmod(fd, mode);
  close(fd);
}

static void make_subfolder(const char *name) {
  assert_int_equal(mkdir(in_folder(name), 0755), 0);
}

static void remove_folder(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

/* ---- The program ----------------------------------------------------------------------------------------- */

IN_EVERY_WAY(a_program_runs_and_its_exit_code_is_its_own) {
  outcome_t outcome = run_shell(env, "echo here; exit 7", (aloop_process_options_t){0});
  assert_int_equal(outcome.error, 0);
  assert_string_equal(outcome.text, "here\n");
  assert_int_equal(outcome.code, 7);
}

IN_EVERY_WAY(arguments_arrive_as_they_are) {
  outcome_t outcome = run_program(env, (const char *const[]){"printf", "<%s>", "", "a b", "$x\n'\"", NULL});
  assert_string_equal(outcome.text, "<><a b><$x\n'\">");
}

IN_EVERY_WAY(the_environment_is_the_given_one_or_this_processs) {
  const char *const given[] = {"A=1", "B=two words", NULL};
  setenv("ALOOP_TEST_OWN", "mine", 1);
  expect_output(env, "echo $A,$B,$ALOOP_TEST_OWN", (aloop_process_options_t){.env = given}, "1,two words,\n");
  expect_output(env, "echo $ALOOP_TEST_OWN", (aloop_process_options_t){0}, "mine\n");
  unsetenv("ALOOP_TEST_OWN");
}

IN_EVERY_WAY(an_executable_may_differ_from_the_name) {
  aloop_process_options_t options = {.executable = "/bin/sh",
                                     .argv = (const char *const[]){"other", "-c", "echo $0", NULL}};
  assert_string_equal(run(env, options).text, "other\n");
}

IN_EVERY_WAY(programs_are_looked_up_in_the_childs_path) {
  char path[200];
  make_folder();
  make_subfolder("a");
  make_subfolder("b");
  make_file("b/tool", "#!/bin/sh\necho b\n", 0755);
  snprintf(path, sizeof path, "PATH=/nowhere:%s:%s/:/bin:/usr/bin", in_folder("a"), in_folder("b"));
  aloop_process_options_t options = {.argv = (const char *const[]){"tool", NULL},
                                     .env = (const char *const[]){path, NULL}};
  assert_string_equal(run(env, options).text, "b\n");
  expect_failure(env, (aloop_process_options_t){.argv = options.argv}, ALOOP_ENOENT, "execute tool");
  remove_folder();
}

IN_EVERY_WAY(an_empty_part_of_the_path_is_the_current_folder) {
  make_folder();
  make_file("tool", "#!/bin/sh\necho here\n", 0755);
  aloop_process_options_t options = {.argv = (const char *const[]){"tool", NULL}, .cwd = folder};
  static const char *const paths[] = {"PATH=:/bin", "PATH=/bin:", "PATH=/bin::/usr/bin", "PATH="};
  for (size_t i = 0; i < 4; i++) {
    options.env = (const char *const[]){paths[i], NULL};
    assert_string_equal(run(env, options).text, "here\n");
  }
  remove_folder();
}

IN_EVERY_WAY(without_a_path_the_usual_folders_are_searched) {
  aloop_process_options_t options = {.argv = (const char *const[]){"echo", "found", NULL},
                                     .env = (const char *const[]){"A=1", NULL}};
  assert_string_equal(run(env, options).text, "found\n");
}

IN_EVERY_WAY(a_name_with_a_slash_is_not_looked_up) {
  make_folder();
  make_subfolder("sub");
  make_file("sub/tool", "#!/bin/sh\necho sub\n", 0755);
  aloop_process_options_t options = {.argv = (const char *const[]){"sub/tool", NULL}, .cwd = folder};
  assert_string_equal(run(env, options).text, "sub\n");
  options.cwd = NULL;
  expect_failure(env, options, ALOOP_ENOENT, "execute sub/tool");
  remove_folder();
}

IN_EVERY_WAY(what_may_not_be_executed_is_passed_over_and_remembered) {
  char path[200];
  make_folder();
  make_subfolder("a");
  make_subfolder("b");
  make_file("a/tool", "#!/bin/sh\necho a\n", 0644);
  snprintf(path, sizeof path, "PATH=%s:%s", in_folder("a"), in_folder("b"));
  aloop_process_options_t options = {.argv = (const char *const[]){"tool", NULL},
                                     .env = (const char *const[]){path, NULL}};
  expect_failure(env, options, ALOOP_EACCES, "execute tool");
  make_file("b/tool", "#!/bin/sh\necho b\n", 0755);
  assert_string_equal(run(env, options).text, "b\n");
  remove_folder();
}

IN_EVERY_WAY(a_start_that_fails_names_the_step) {
  make_folder();
  make_file("text", "no program\n", 0755);
  make_file("private", "#!/bin/sh\n", 0600);
  expect_failure(env, (aloop_process_options_t){.cwd = "/nope"}, ALOOP_ENOENT, "chdir to /nope");
  expect_failure(env, (aloop_process_options_t){.cwd = "/dev/null"}, ALOOP_ENOTDIR, "chdir to /dev/null");
  expect_failure(env, (aloop_process_options_t){.argv = (const char *const[]){"/nope/x", NULL}}, ALOOP_ENOENT,
                 "execute /nope/x");
  expect_failure(env, (aloop_process_options_t){.argv = (const char *const[]){"", NULL}}, ALOOP_ENOENT,
                 "execute ");
  expect_failure(env, (aloop_process_options_t){.argv = (const char *const[]){"/dev/null/x", NULL}},
                 ALOOP_ENOTDIR, "execute /dev/null/x");
  expect_failure(env,
                 (aloop_process_options_t){.argv = (const char *const[]){"./private", NULL}, .cwd = folder},
                 ALOOP_EACCES, "execute ./private");
  expect_failure(env, (aloop_process_options_t){.argv = (const char *const[]){"./text", NULL}, .cwd = folder},
                 ALOOP_ENOEXEC, "execute ./text");
  expect_failure(env, (aloop_process_options_t){.pass_fds = (int[]){4000}, .pass_fds_count = 1}, ALOOP_EBADF,
                 "pass descriptor 4000");
  expect_failure(env, (aloop_process_options_t){.process_group = 1 << 22}, ALOOP_EPERM,
                 "join process group 4194304");
  remove_folder();
}

IN_EVERY_WAY(arguments_that_are_too_long_are_refused) {
  size_t size = 3 * 1024 * 1024;
  char *giant = malloc(size + 1);
  assert_non_null(giant);
  memset(giant, 'x', size);
  giant[size] = '\0';
  expect_failure(env, (aloop_process_options_t){.argv = (const char *const[]){"/bin/true", giant, NULL}},
                 ALOOP_E2BIG, "execute /bin/true");
  free(giant);
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

/* Files with a letter each, under the given numbers. */
static void place_file(char letter, int number) {
  char name[2] = {letter, 0};
  char text[64];
  for (int i = 0; i < 32; i++) memcpy(text + 2 * i, (char[2]){letter, '\n'}, 2);
  text[63] = '\0';
  make_file(name, text, 0600);
  int fd = open(in_folder(name), O_RDWR | O_CLOEXEC);
  assert_true(fd >= 0);
  if (fd == number) return;
  assert_int_equal(dup2(fd, number), number);
  close(fd);
}

/* Which letters a child finds at 0, 1 and 2. */
static int letters_of_child(env_t *env, const int stdio[3], char letters[32]) {
  aloop__spawned_t spawned;
  int ends[2];
  if (pipe(ends) < 0) return -errno;
  dup2(ends[1], 30);
  aloop_process_options_t options = {
      .argv = (const char *const[]){"/bin/sh", "-c",
                                    "read a <&0; read b <&1; read c <&2; echo $a$b$c >/dev/fd/30", NULL},
      .pass_fds = (int[]){30},
      .pass_fds_count = 1};
  int rc = aloop__spawn(env->loop, &options, stdio, &spawned);
  close(30);
  close(ends[1]);
  ssize_t n = rc == 0 ? read(ends[0], letters, 31) : 0;
  letters[n > 0 ? n : 0] = '\0';
  close(ends[0]);
  if (rc < 0) return rc;
  if (spawned.pidfd >= 0) close(spawned.pidfd);
  while (waitpid(spawned.pid, NULL, 0) < 0 && errno == EINTR) continue;
  return 0;
}

/* The test's own 0, 1 and 2 are A, B and C meanwhile, and 20 is D. */
IN_EVERY_WAY(every_permutation_of_descriptors_comes_out_right) {
  static const int sources[] = {0, 1, 2, 20};
  int saved[3];
  char failed[64] = "";
  fflush(NULL);
  make_folder();
  for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 40);
  for (int i = 0; i < 3; i++) place_file((char)('A' + i), i);
  place_file('D', 20);
  for (int n = 0; n < 64 && failed[0] == '\0'; n++) {
    int stdio[3] = {sources[n % 4], sources[n / 4 % 4], sources[n / 16]};
    char expected[8], letters[32];
    for (int i = 0; i < 3; i++) expected[i] = (char)(stdio[i] == 20 ? 'D' : 'A' + stdio[i]);
    memcpy(expected + 3, "\n", 2);
    for (int i = 0; i < 4; i++) lseek(sources[i], 0, SEEK_SET);
    int rc = letters_of_child(env, stdio, letters);
    if (rc < 0 || strcmp(letters, expected) != 0)
      snprintf(failed, sizeof failed, "%d %d %d: %d %.20s", stdio[0], stdio[1], stdio[2], rc, letters);
  }
  for (int i = 0; i < 3; i++) {
    dup2(saved[i], i);
    close(saved[i]);
  }
  close(20);
  remove_folder();
  assert_string_equal(failed, "");
}

IN_EVERY_WAY(a_closed_standard_descriptor_is_inherited_closed) {
  int saved = fcntl(0, F_DUPFD_CLOEXEC, 40);
  close(0);
  /* With 0 closed the pipe of the test would take its number. */
  assert_int_equal(open("/dev/null", O_RDONLY), 0);
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  close(0);
  aloop__spawned_t spawned;
  aloop_process_options_t options = {
      .argv = (const char *const[]){"/bin/sh", "-c", "cat && echo open || echo closed", NULL}};
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* takes 0 */
  int high = fcntl(null, F_DUPFD_CLOEXEC, 10);
  close(null);
  int rc = aloop__spawn(env->loop, &options, (int[3]){0, ends[1], high}, &spawned);
  dup2(saved, 0);
  close(saved);
  close(ends[1]);
  close(high);
  assert_int_equal(rc, 0);
  char text[64];
  read_all(ends[0], text, sizeof text);
  close(ends[0]);
  if (spawned.pidfd >= 0) close(spawned.pidfd);
  code_of(spawned.pid);
  assert_string_equal(text, "closed\n");
}

IN_EVERY_WAY(no_other_descriptor_reaches_the_child) {
  int fds[6];
  for (int i = 0; i < 6; i++) {
    fds[i] = fcntl(2, F_DUPFD, 3 + i * 100); /* not close-on-exec */
    assert_true(fds[i] >= 0);
  }
  /* The shell lists its own; 3 is the list. */
  expect_output(env, "cd /proc/self/fd && echo *", (aloop_process_options_t){0}, "0 1 2 3\n");
  for (int i = 0; i < 6; i++) close(fds[i]);
}

IN_EVERY_WAY(passed_descriptors_keep_their_numbers) {
  int saved[2] = {fcntl(2, F_DUPFD_CLOEXEC, 57), fcntl(2, F_DUPFD, 203)};
  int other = fcntl(2, F_DUPFD, 100);
  aloop_process_options_t options = {.pass_fds = saved, .pass_fds_count = 2};
  expect_output(env, "cd /proc/self/fd && echo *", options, "0 1 2 203 3 57\n");
  assert_int_equal(fcntl(saved[0], F_GETFD), FD_CLOEXEC); /* here nothing has changed */
  close(saved[0]);
  close(saved[1]);
  close(other);
}

IN_EVERY_WAY(without_descriptors_nothing_is_left_behind) {
  aloop__spawned_t spawned;
  aloop_process_options_t options = {.argv = (const char *const[]){"/bin/true", NULL}};
  int before = open_fds();
  use_up_fds();
  int rc = aloop__spawn(env->loop, &options, (int[3]){0, 1, 2}, &spawned);
  restore_fd_limit();
  if (rc == 0) { /* it needed none */
    code_of(spawned.pid);
    assert_int_equal(spawned.pidfd, -1);
  } else {
    assert_int_equal(rc, ALOOP_EMFILE);
    assert_string_equal(spawned.step, "start a process");
  }
  assert_int_equal(open_fds(), before);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- Place in the world ---------------------------------------------------------------------------------- */

IN_EVERY_WAY(the_working_folder_and_the_umask_are_set) {
  mode_t before = umask(022);
  expect_output(env, "umask; pwd",
                (aloop_process_options_t){.set = ALOOP_SET_UMASK, .umask = 077, .cwd = "/usr"}, "0077\n/usr\n");
  expect_output(env, "umask", (aloop_process_options_t){.umask = 077}, "0022\n");
  assert_int_equal(umask(before), 022);
}

static const char tell_groups[] = "read a b c d group session rest </proc/$$/stat; test $group = $$ && echo "
                                  "leader; test $session = $$ && echo session";

IN_EVERY_WAY(a_child_starts_in_the_group_or_session_it_is_told) {
  char command[256];
  snprintf(command, sizeof command, "%s; true", tell_groups);
  expect_output(env, command, (aloop_process_options_t){0}, "");
  expect_output(env, command, (aloop_process_options_t){.process_group = -1}, "leader\n");
  expect_output(env, command, (aloop_process_options_t){.start_new_session = true}, "leader\nsession\n");
}

IN_EVERY_WAY(a_child_joins_a_group) {
  aloop__spawned_t leader;
  int ends[2];
  char expected[32];
  assert_int_equal(pipe(ends), 0);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  aloop_process_options_t options = {.argv = (const char *const[]){"cat", NULL}, .process_group = -1};
  assert_int_equal(aloop__spawn(env->loop, &options, (int[3]){ends[0], 1, 2}, &leader), 0);
  snprintf(expected, sizeof expected, "%ld\n", (long)leader.pid);
  expect_output(env, "read a b c d group rest </proc/$$/stat; echo $group",
                (aloop_process_options_t){.process_group = (int)leader.pid}, expected);
  close(ends[0]);
  close(ends[1]);
  if (leader.pidfd >= 0) close(leader.pidfd);
  assert_int_equal(code_of(leader.pid), 0);
}

IN_EVERY_WAY(only_root_may_become_somebody_else) {
  const gid_t groups[] = {12347, 12348};
  if (geteuid() == 0) {
    aloop_process_options_t options = {.set = ALOOP_SET_USER | ALOOP_SET_GROUP | ALOOP_SET_GROUPS,
                                       .user = 12345,
                                       .group = 12346,
                                       .groups = groups,
                                       .groups_count = 2};
    expect_output(env, "echo $(id -u) $(id -g) $(id -G)", options, "12345 12346 12346 12347 12348\n");
    options.set = ALOOP_SET_GROUPS;
    options.groups_count = 0;
    expect_output(env, "id -G", options, "0\n");
    return;
  }
  expect_failure(env, (aloop_process_options_t){.set = ALOOP_SET_USER}, ALOOP_EPERM, "change to user 0");
  expect_failure(env, (aloop_process_options_t){.set = ALOOP_SET_GROUP}, ALOOP_EPERM, "change to group 0");
  expect_failure(env, (aloop_process_options_t){.set = ALOOP_SET_GROUPS, .groups = groups, .groups_count = 2},
                 ALOOP_EPERM, "set the extra groups");
}

/* The same for a root that gives up its rights, in a process of its own. */
static void without_rights_no_user_can_be_chosen(void **state) {
  if (geteuid() != 0) skip();
  pid_t pid = fork();
  if (pid == 0) {
    env_t *env = *state;
    aloop__spawned_t spawned = {0};
    aloop_process_options_t options = {.argv = (const char *const[]){"/bin/true", NULL}, .set = ALOOP_SET_USER};
    if (setgid(65534) < 0 || setuid(65534) < 0) _exit(1);
    int rc = aloop__spawn(env->loop, &options, (int[3]){0, 1, 2}, &spawned);
    _exit(rc == ALOOP_EPERM && strcmp(spawned.step, "change to user 0") == 0 ? 0 : 2);
  }
  assert_int_equal(code_of(pid), 0);
}

/* ---- Signals --------------------------------------------------------------------------------------------- */

static atomic_int handled, handled_in_child;
static pid_t test_pid;

static void handle(int number) {
  (void)number;
  atomic_fetch_add(&handled, 1);
  if (getpid() != test_pid) atomic_fetch_add(&handled_in_child, 1);
}

static unsigned long long mask_in(const char *text, const char *name) {
  const char *at = strstr(text, name);
  assert_non_null(at);
  return strtoull(at + strlen(name), NULL, 16);
}

#define BIT(number) (1ull << ((number)-1))

/* The dispositions and the mask of a child, as the kernel lists them. */
static void expect_signals(env_t *env, int restore, unsigned long long ignored, unsigned long long blocked) {
  aloop_process_options_t options = {.restore_signals = restore,
                                     .argv = (const char *const[]){"cat", "/proc/self/status", NULL}};
  outcome_t outcome = run(env, options);
  const unsigned long long ours = BIT(SIGPIPE) | BIT(SIGXFSZ) | BIT(SIGHUP) | BIT(SIGUSR1) | BIT(SIGTERM);
  assert_int_equal(mask_in(outcome.text, "SigCgt:"), 0);
  assert_int_equal(mask_in(outcome.text, "SigIgn:") & ours, ignored);
  assert_int_equal(mask_in(outcome.text, "SigBlk:") & ours, blocked);
}

IN_EVERY_WAY(a_child_begins_with_clean_signals) {
  sigset_t blocked, before;
  signal(SIGUSR1, handle);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  expect_signals(env, 0, BIT(SIGHUP), 0);
  expect_signals(env, -1, BIT(SIGHUP) | BIT(SIGPIPE) | BIT(SIGXFSZ), BIT(SIGTERM));
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, &before, &now);
  assert_true(sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGUSR1) == 0);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
}

static atomic_bool storming;

static void *send_signals(void *arg) {
  (void)arg;
  while (atomic_load(&storming)) kill(0, SIGUSR1);
  return NULL;
}

/* Signals go to the whole group, children included; these may die of them, as soon as they are on their own. */
IN_EVERY_WAY(no_handler_runs_in_a_child) {
  pthread_t thread;
  aloop__spawned_t spawned;
  aloop_process_options_t options = {.argv = (const char *const[]){"/bin/true", NULL}};
  pid_t group = getpgrp();
  test_pid = getpid();
  atomic_store(&handled, 0);
  setpgid(0, 0);
  struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  atomic_store(&storming, true);
  assert_int_equal(pthread_create(&thread, NULL, send_signals, NULL), 0);
  while (atomic_load(&handled) == 0) continue;
  for (int i = 0; i < 50; i++) {
    assert_int_equal(aloop__spawn(env->loop, &options, (int[3]){0, 1, 2}, &spawned), 0);
    int code = code_of(spawned.pid);
    assert_true(code == 0 || code == -SIGUSR1);
    if (spawned.pidfd >= 0) close(spawned.pidfd);
  }
  atomic_store(&storming, false);
  pthread_join(thread, NULL);
  signal(SIGUSR1, SIG_DFL);
  setpgid(0, group);
  assert_int_equal(atomic_load(&handled_in_child), 0);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void try_to_run(env_t *env) {
  aloop__spawned_t spawned;
  aloop_process_options_t options = {.argv = (const char *const[]){"true", NULL}};
  int rc = aloop__spawn(env->loop, &options, (int[3]){0, 1, 2}, &spawned);
  if (rc < 0) {
    assert_int_equal(rc, ALOOP_ENOMEM);
    return;
  }
  assert_int_equal(code_of(spawned.pid), 0);
  if (spawned.pidfd >= 0) close(spawned.pidfd);
}

static void out_of_memory_starts_nothing(void **state) {
  torture(*state, try_to_run);
}

TESTS(T(a_program_runs_and_its_exit_code_is_its_own), T(arguments_arrive_as_they_are),
      T(the_environment_is_the_given_one_or_this_processs), T(an_executable_may_differ_from_the_name),
      T(programs_are_looked_up_in_the_childs_path), T(an_empty_part_of_the_path_is_the_current_folder),
      T(without_a_path_the_usual_folders_are_searched), T(a_name_with_a_slash_is_not_looked_up),
      T(what_may_not_be_executed_is_passed_over_and_remembered), T(a_start_that_fails_names_the_step),
      T(arguments_that_are_too_long_are_refused), T(every_permutation_of_descriptors_comes_out_right),
      T(a_closed_standard_descriptor_is_inherited_closed), T(no_other_descriptor_reaches_the_child),
      T(passed_descriptors_keep_their_numbers), T(without_descriptors_nothing_is_left_behind),
      T(the_working_folder_and_the_umask_are_set), T(a_child_starts_in_the_group_or_session_it_is_told),
      T(a_child_joins_a_group), T(only_root_may_become_somebody_else), T(without_rights_no_user_can_be_chosen),
      T(a_child_begins_with_clean_signals), T(no_handler_runs_in_a_child), T(out_of_memory_starts_nothing))
