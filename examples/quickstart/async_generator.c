/* SPDX-License-Identifier: MIT
 *
 * An async generator, asyncio's "async def ... yield": it waits for something, hands out an item, goes on when it is
 * asked for the next. Here it counts in rhythm; the one who asks stops early and closes it, and it cleans up.
 */
#include <stdio.h>

#include "aloop.h"

typedef struct ticker {
  int64_t delay;
  int until;
} ticker_t;

/* async def ticker(delay, until) */
static int64_t tick(aloop_t *loop, void *arg) {
  const ticker_t *ticker = arg;
  int64_t rc = 0;
  for (int i = 0; i < ticker->until && rc == 0; i++) {
    rc = aloop_yield(&i); /* not 0: somebody closes this generator */
    if (rc == 0) rc = aloop_await(aloop_sleep(loop, ticker->delay));
  }
  printf("ticker: %s\n", rc == ALOOP_ECLOSED ? "closed early" : "done");
  return rc;
}

/* async for i in ticker(...) */
static int64_t main_task(aloop_t *loop, void *arg) {
  (void)arg;
  ticker_t ticker = {ALOOP_MILLIS(10), 10};
  aloop_generator_t *generator;
  int rc = aloop_generator_new(loop, tick, &ticker, NULL, &generator);
  if (rc < 0) return rc;
  int *i, sum = 0;
  while ((rc = aloop_await_ptr(aloop_generator_next(generator), &i)) == 0) {
    printf("%d\n", *i);
    sum += *i;
    if (sum == 10) break;
  }
  int64_t closed = aloop_await(aloop_generator_close(generator));
  aloop_generator_unref(generator);
  if (rc < 0 && rc != ALOOP_ENOENT) return rc;
  return closed < 0 ? closed : sum;
}

int main(void) {
  int64_t sum = aloop_run(main_task, NULL, NULL);
  if (sum < 0) {
    fprintf(stderr, "async_generator: %s\n", aloop_strerror(sum));
    return 1;
  }
  printf("sum: %d\n", (int)sum);
  return 0;
}
