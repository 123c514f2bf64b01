/* SPDX-License-Identifier: MIT
 *
 * Files and devices that no poller watches, as pipes.
 *
 * pollers: all
 * threads: yes
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pipes.h"
#include "process/pipe.h"

enum { MUCH = 700001 };

static char bytes[MUCH];
static char got[MUCH + 64];

/* ---- Helpers --------------------------------------------------------------------------------------------- */

/* An executor that keeps its jobs until it is told. */
typedef struct holder {
  aloop_job_t *job;
  int taken;
  int answer; /* of submit */
} holder_t;

static int hold(void *state, aloop_job_t *job, int lane) {
  holder_t *holder = state;
  assert_int_equal(lane, ALOOP_LANE_FILE);
  if (holder->answer < 0) return holder->answer;
  assert_null(holder->job);
  holder->job = job;
  holder->taken++;
  return 0;
}

static const aloop_executor_table_t holder_table = {
    .size = sizeof holder_table, .name = "holder", .submit = hold};

static void use_holder(env_t *env, holder_t *holder) {
  aloop_executor_t *executor;
  assert_int_equal(aloop_executor_new(&holder_table, holder, &executor), 0);
  assert_int_equal(aloop_set_default_executor(env->loop, executor), 0);
  aloop_executor_unref(executor);
}

static void run_held(holder_t *holder) {
  aloop_job_t *job = holder->job;
  assert_non_null(job);
  holder->job = NULL;
  aloop_job_run(job);
}

/* Reads always take a job, as on a file system that cannot be asked not to wait. */
static void take_waiting_file(tape_t *tape, int fd) {
  take_end(tape, fd, true);
  aloop__pipe_of(tape->transport)->waits = true;
}

/* So that no thread still has a duplicate of a descriptor when they are counted. */
static void end_jobs(env_t *env) {
  aloop_future_t *future = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  assert_int_equal(aloop_run_until_complete(env->loop, future), 0);
}

/* ---- Reading files --------------------------------------------------------------------------------------- */

static void reads_a_file_to_its_end(void **state) {
  tape_t tape = {.env = *state};
  take_end(&tape, make_file("some text\n", 10, O_RDONLY), true);
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "some text\n");
  release_tape(&tape, -1);
  end_jobs(tape.env);
}

static void reads_an_empty_file(void **state) {
  tape_t tape = {.env = *state};
  take_end(&tape, make_file("", 0, O_RDONLY), true);
  expect_lost(&tape, 0, "MEL");
  release_tape(&tape, -1);
  end_jobs(tape.env);
}

/* Files that were just written are in memory. */
static void what_is_in_memory_needs_no_thread(void **state) {
  tape_t tape = {.env = *state};
  pattern(bytes, sizeof bytes, 11);
  take_end(&tape, make_file(bytes, sizeof bytes, O_RDONLY), true);
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(tape.size, sizeof bytes);
  assert_memory_equal(tape.bytes, bytes, sizeof bytes);
  bool waited = aloop__pipe_of(tape.transport)->waits;
  bool threads = tape.env->loop->rooms[ALOOP__ROOM_EXECUTOR] != NULL;
  release_tape(&tape, -1);
  end_jobs(tape.env);
  if (waited) skip(); /* not on this system */
  assert_false(threads);
}

static void jobs_read_the_same(void **state) {
  tape_t tape = {.env = *state};
  pattern(bytes, sizeof bytes, 12);
  take_waiting_file(&tape, make_file(bytes, sizeof bytes, O_RDONLY));
  expect_lost(&tape, 0, "MDEL");
  assert_int_equal(tape.size, sizeof bytes);
  assert_memory_equal(tape.bytes, bytes, sizeof bytes);
  release_tape(&tape, -1);
  end_jobs(tape.env);
}

static void reads_into_a_protocols_own_memory(void **state) {
  tape_t tape = {.env = *state, .offer = 1000};
  pattern(bytes, sizeof bytes, 13);
  int fd = make_file(bytes, sizeof bytes, O_RDONLY);
  aloop_future_t *future = aloop_connect_read_pipe(tape.env->loop, &buffered_protocol, &tape, fd);
  assert_int_equal(aloop_run_until_complete(tape.env->loop, future), 0);
  aloop__pipe_of(tape.transport)->waits = true;
  expect_lost(&tape, 0, "MDEL");
  assert_int_equal(tape.size, sizeof bytes);
  assert_memory_equal(tape.bytes, bytes, sizeof bytes);
  release_tape(&tape, -1);
  end_jobs(tape.env);
}

static void moves_the_position_that_others_share(void **state) {
  for (int waits = 0; waits < 2; waits++) {
    tape_t tape = {.env = *state};
    int fd = make_file("0123456789", 10, O_RDONLY);
    int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(lseek(shared, 4, SEEK_SET), 4);
    take_end(&tape, fd, true);
    aloop__pipe_of(tape.transport)->waits = waits;
    expect_lost(&tape, 0, "MDEL");
    expect_read(&tape, "456789");
    assert_int_equal(lseek(shared, 0, SEEK_CUR), 10);
    release_tape(&tape, -1);
    close(shared);
  }
  end_jobs(*state);
}

static void pause_tape(tape_t *tape) {
  assert_int_equal(aloop_transport_pause_reading(tape->transport), 0);
}

static void delivers_nothing_while_paused(void **state) {
  tape_t tape = {.env = *state};
  holder_t holder = {0};
  use_holder(tape.env, &holder);
  take_waiting_file(&tape, make_file("text", 4, O_RDONLY));
  settle(tape.env->loop);
  pause_tape(&tape);
  run_held(&holder);
  settle(tape.env->loop);
  assert_string_equal(tape.events, "M");
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  settle(tape.env->loop);
  expect_read(&tape, "text");
  run_held(&holder);
  expect_lost(&tape, 0, "MDEL");
  assert_int_equal(holder.taken, 2);
  release_tape(&tape, -1);
}

static void a_pause_inside_data_received_holds(void **state) {
  for (int waits = 0; waits < 2; waits++) {
    tape_t tape = {.env = *state};
    pattern(bytes, sizeof bytes, 14);
    tape.on[DATA] = pause_tape;
    take_end(&tape, make_file(bytes, sizeof bytes, O_RDONLY), true);
    aloop__pipe_of(tape.transport)->waits = waits;
    for (long calls = 1; !tape.eof; calls++) {
      while (tape.calls[DATA] < calls && !tape.lost)
        assert_true(aloop_run_once(tape.env->loop, ALOOP_FOREVER) >= 0);
      settle(tape.env->loop);
      if (!tape.lost) assert_int_equal(tape.calls[DATA], calls);
      aloop_transport_resume_reading(tape.transport);
    }
    run_until(tape.env->loop, &tape.lost);
    assert_int_equal(tape.size, sizeof bytes);
    assert_memory_equal(tape.bytes, bytes, sizeof bytes);
    release_tape(&tape, -1);
  }
  end_jobs(*state);
}

/* ---- Writing files --------------------------------------------------------------------------------------- */

static void writes_a_file(void **state) {
  tape_t tape = {.env = *state};
  int fd = make_file("old content that is longer", 26, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fd, false);
  put(&tape, "new ");
  put(&tape, "words");
  aloop_transport_close(tape.transport);
  expect_lost(&tape, 0, "ML");
  assert_int_equal(file_content(shared, got, sizeof got), 26);
  assert_memory_equal(got, "new wordsnt that is longer", 26);
  assert_int_equal(lseek(shared, 0, SEEK_CUR), 9);
  release_tape(&tape, -1);
  close(shared);
  end_jobs(tape.env);
}

static void appends_where_the_file_is_open_for_that(void **state) {
  tape_t tape = {.env = *state};
  int fd = make_file("first ", 6, O_RDWR | O_APPEND);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fd, false);
  put(&tape, "second");
  aloop_transport_write_eof(tape.transport);
  expect_lost(&tape, 0, "ML");
  assert_int_equal(file_content(shared, got, sizeof got), 12);
  assert_memory_equal(got, "first second", 12);
  release_tape(&tape, -1);
  close(shared);
  end_jobs(tape.env);
}

static void writes_much_with_pauses(void **state) {
  tape_t tape = {.env = *state};
  int fd = make_file("", 0, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  pattern(bytes, sizeof bytes, 15);
  take_end(&tape, fd, false);
  for (size_t at = 0; at < sizeof bytes; at += 10001) {
    size_t size = sizeof bytes - at < 10001 ? sizeof bytes - at : 10001;
    assert_int_equal(aloop_transport_write(tape.transport, bytes + at, size), 0);
  }
  assert_string_equal(tape.events, "MP");
  aloop_transport_write_eof(tape.transport);
  expect_lost(&tape, 0, "MPRL");
  assert_int_equal(file_content(shared, got, sizeof got), sizeof bytes);
  assert_memory_equal(got, bytes, sizeof bytes);
  release_tape(&tape, -1);
  close(shared);
  end_jobs(tape.env);
}

static void writes_of_a_turn_leave_together(void **state) {
  tape_t tape = {.env = *state};
  holder_t holder = {0};
  use_holder(tape.env, &holder);
  int fd = make_file("", 0, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fd, false);
  put(&tape, "one ");
  put(&tape, "two ");
  settle(tape.env->loop);
  put(&tape, "three");
  settle(tape.env->loop);
  run_held(&holder);
  assert_int_equal(file_content(shared, got, sizeof got), 8);
  settle(tape.env->loop);
  assert_int_equal(unsent(&tape), 5);
  run_held(&holder);
  settle(tape.env->loop);
  assert_int_equal(unsent(&tape), 0);
  assert_int_equal(file_content(shared, got, sizeof got), 13);
  assert_memory_equal(got, "one two three", 13);
  end_tape(&tape, shared);
}

static void a_full_disk_ends_it_with_the_error(void **state) {
  tape_t tape = {.env = *state};
  struct rlimit before;
  struct rlimit little;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  little = before;
  little.rlim_cur = 5;
  int fd = make_file("", 0, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fd, false);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
  put(&tape, "too long");
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  assert_int_equal(tape.error, -EFBIG);
  assert_int_equal(file_content(shared, got, sizeof got), 5);
  release_tape(&tape, shared);
  end_jobs(tape.env);
}

static void sends_a_file_to_a_file(void **state) {
  tape_t tape = {.env = *state};
  pattern(bytes, sizeof bytes, 16);
  int from = make_file(bytes, sizeof bytes, O_RDONLY);
  int fd = make_file("", 0, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fd, false);
  put(&tape, "then: ");
  aloop_future_t *future = aloop_sendfile(tape.transport, from, 0, 0, 0);
  assert_int_equal(aloop_run_until_complete(tape.env->loop, future), sizeof bytes);
  aloop_transport_close(tape.transport);
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(file_content(shared, got, sizeof got), sizeof bytes + 6);
  assert_memory_equal(got + 6, bytes, sizeof bytes);
  release_tape(&tape, shared);
  close(from);
  end_jobs(tape.env);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

static void an_abort_leaves_a_running_job_its_own_descriptor(void **state) {
  tape_t tape = {.env = *state};
  holder_t holder = {0};
  use_holder(tape.env, &holder);
  int fd = make_file("text", 4, O_RDONLY);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_waiting_file(&tape, fd);
  settle(tape.env->loop);
  end_tape(&tape, -1);
  assert_int_equal(fcntl(fd, F_GETFD), -1);
  run_held(&holder);
  settle(tape.env->loop);
  assert_int_equal(lseek(shared, 0, SEEK_CUR), 4);
  close(shared);
}

static void a_closed_loop_leaves_its_jobs_alone(void **state) {
  tape_t in = {.env = *state};
  tape_t out = {.env = *state};
  holder_t holder = {0};
  use_holder(in.env, &holder);
  take_waiting_file(&in, make_file("text", 4, O_RDONLY));
  settle(in.env->loop);
  take_end(&out, make_file("", 0, O_WRONLY), false);
  put(&out, "unwritten");
  aloop_close(in.env->loop);
  assert_int_equal(in.error, ALOOP_ECLOSED);
  assert_int_equal(out.error, ALOOP_ECLOSED);
  run_held(&holder);
  release_tape(&in, -1);
  release_tape(&out, -1);
}

static void a_dropped_job_is_done_here(void **state) {
  tape_t tape = {.env = *state};
  holder_t holder = {0};
  use_holder(tape.env, &holder);
  take_waiting_file(&tape, make_file("text", 4, O_RDONLY));
  settle(tape.env->loop);
  aloop_job_drop(holder.job, ALOOP_ECANCELED);
  holder.job = NULL;
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "text");
  assert_int_equal(holder.taken, 1);
  release_tape(&tape, -1);
}

static void refused_jobs_are_done_here(void **state) {
  tape_t in = {.env = *state};
  tape_t out = {.env = *state};
  holder_t holder = {.answer = ALOOP_EAGAIN};
  use_holder(in.env, &holder);
  pattern(bytes, sizeof bytes, 17);
  take_waiting_file(&in, make_file(bytes, sizeof bytes, O_RDONLY));
  int fd = make_file("", 0, O_RDWR);
  int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  take_end(&out, fd, false);
  assert_int_equal(aloop_transport_write(out.transport, bytes, sizeof bytes), 0);
  run_until(in.env->loop, &in.lost);
  aloop_transport_close(out.transport);
  run_until(out.env->loop, &out.lost);
  assert_int_equal(in.size, sizeof bytes);
  assert_memory_equal(in.bytes, bytes, sizeof bytes);
  assert_int_equal(file_content(shared, got, sizeof got), sizeof bytes);
  assert_memory_equal(got, bytes, sizeof bytes);
  release_tape(&in, -1);
  release_tape(&out, shared);
}

static void a_shut_down_executor_is_not_missed(void **state) {
  tape_t tape = {.env = *state};
  end_jobs(tape.env);
  take_waiting_file(&tape, make_file("text", 4, O_RDONLY));
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "text");
  release_tape(&tape, -1);
}

/* ---- Devices --------------------------------------------------------------------------------------------- */

static void reads_the_end_of_dev_null(void **state) {
  tape_t tape = {.env = *state};
  take_end(&tape, open("/dev/null", O_RDONLY | O_CLOEXEC), true);
  expect_lost(&tape, 0, "MEL");
  release_tape(&tape, -1);
}

static void writes_to_dev_null(void **state) {
  tape_t tape = {.env = *state};
  take_end(&tape, open("/dev/null", O_WRONLY | O_CLOEXEC), false);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(aloop_transport_write(tape.transport, bytes, sizeof bytes), 0);
    settle(tape.env->loop);
  }
  aloop_transport_write_eof(tape.transport);
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, -1);
}

static void an_endless_device_leaves_others_their_time(void **state) {
  tape_t tape = {.env = *state};
  trace_t trace = {{0}, 0};
  step_t step = {&trace, 'x'};
  take_end(&tape, open("/dev/zero", O_RDONLY | O_CLOEXEC), true);
  for (int i = 0; i < 20; i++) {
    size_t before = tape.size;
    aloop_call_soon(tape.env->loop, trace_step, &step);
    assert_true(aloop_run_once(tape.env->loop, 0) >= 0);
    assert_int_equal(trace.length, i + 1);
    assert_true(tape.size - before <= 262144);
  }
  assert_true(tape.size > 262144);
  assert_string_equal(tape.events, "MD");
  end_tape(&tape, -1);
}

static void a_paused_endless_device_rests(void **state) {
  tape_t tape = {.env = *state};
  take_end(&tape, open("/dev/zero", O_RDONLY | O_CLOEXEC), true);
  pause_tape(&tape);
  settle(tape.env->loop); /* it would find no rest otherwise */
  size_t before = tape.size;
  aloop_transport_resume_reading(tape.transport);
  while (tape.size == before) aloop_run_once(tape.env->loop, 0);
  end_tape(&tape, -1);
}

static void a_full_device_ends_with_the_error(void **state) {
  tape_t tape = {.env = *state};
  int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (fd < 0) skip();
  take_end(&tape, fd, false);
  put(&tape, "x");
  expect_lost(&tape, -ENOSPC, "ML");
  release_tape(&tape, -1);
}

TESTS(T(reads_a_file_to_its_end), T(reads_an_empty_file), T(what_is_in_memory_needs_no_thread),
      T(jobs_read_the_same), T(reads_into_a_protocols_own_memory), T(moves_the_position_that_others_share),
      T(delivers_nothing_while_paused), T(a_pause_inside_data_received_holds), T(writes_a_file),
      T(appends_where_the_file_is_open_for_that), T(writes_much_with_pauses),
      T(writes_of_a_turn_leave_together), T(a_full_disk_ends_it_with_the_error), T(sends_a_file_to_a_file),
      T(an_abort_leaves_a_running_job_its_own_descriptor), T(a_closed_loop_leaves_its_jobs_alone),
      T(a_dropped_job_is_done_here), T(refused_jobs_are_done_here), T(a_shut_down_executor_is_not_missed),
      T(reads_the_end_of_dev_null), T(writes_to_dev_null), T(an_endless_device_leaves_others_their_time),
      T(a_paused_endless_device_rests), T(a_full_device_ends_with_the_error))
