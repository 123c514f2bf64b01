/* SPDX-License-Identifier: MIT
 *
 * Work that would hold up the loop, in other threads: a call that blocks, in the loop's own thread pool, and a long
 * computation, in a pool of one thread that is kept for such things. A ticking timer shows that the loop goes on
 * meanwhile.
 */
#include "aloop.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct bytes {
  size_t size;
  unsigned char data[100];
} bytes_t;

/* Runs in a thread. It may not touch the loop; what it returns comes back as the value of the future. */
static int64_t read_random(void *arg) {
  bytes_t *bytes = arg;
  FILE *file = fopen("/dev/urandom", "rb");
  if (file == NULL) return ALOOP_EIO;
  bytes->size = fread(bytes->data, 1, sizeof bytes->data, file);
  fclose(file);
  nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL); /* a slow disk */
  return 0;
}

static int64_t sum_of_squares(void *arg) {
  int64_t sum = 0, end = *(const int64_t *)arg;
  for (int64_t i = 0; i < end; i++) sum += i * i;
  return sum;
}

static void tick(aloop_t *loop, void *ticks) {
  (void)loop;
  ++*(int *)ticks;
}

/* The buffer belongs to the job and comes back as the object of the future, whoever cancels what. */
static aloop_future_t *start_reading(aloop_t *loop) {
  bytes_t *bytes = calloc(1, sizeof *bytes);
  if (bytes == NULL) return NULL;
  const aloop_job_options_t job = {
      .size = sizeof job, .fn = read_random, .arg = bytes, .destroy = free, .lane = ALOOP_LANE_FILE};
  aloop_future_t *future = aloop_submit(loop, NULL, &job);
  if (future == NULL) free(bytes);
  return future;
}

static int run(aloop_t *loop, aloop_executor_t *pool) {
  int64_t count = 1000000;
  int ticks = 0;
  bytes_t *bytes;
  aloop_handle_t timer = aloop_call_every(loop, ALOOP_MILLIS(5), tick, &ticks);
  aloop_future_t *sum = aloop_run_in_executor(loop, pool, sum_of_squares, &count);

  int error = aloop_run_until_complete_ptr(loop, start_reading(loop), &bytes);
  if (error == 0) {
    printf("default thread pool: %zu random bytes\n", bytes->size);
    free(bytes);
  }
  int64_t result = aloop_run_until_complete(loop, sum);
  if (result >= 0) printf("a pool of my own: %lld\n", (long long)result);
  aloop_cancel(loop, &timer);
  if (ticks > 0) puts("the loop went on ticking");
  /* Whoever wants to be sure that no thread is left waits for the end; aloop_free does not. */
  aloop_run_until_complete(loop, aloop_shutdown_default_executor(loop, ALOOP_FOREVER));
  return error < 0 ? error : result < 0 ? (int)result : 0;
}

int main(void) {
  const aloop_thread_pool_options_t options = {
      .size = sizeof options, .name = "number-cruncher", .threads = {1}};
  aloop_t *loop;
  aloop_executor_t *pool;
  int error = aloop_new(NULL, &loop);
  if (error < 0) return 1;
  error = aloop_thread_pool_new(&options, &pool);
  if (error == 0) {
    error = run(loop, pool);
    aloop_executor_shutdown(pool, ALOOP_FOREVER, 0);
    aloop_executor_unref(pool);
  }
  if (error < 0) fprintf(stderr, "run_in_executor: %s\n", aloop_strerror(error));
  aloop_free(loop);
  return error < 0;
}
