/* SPDX-License-Identifier: MIT
 *
 * Work for every CPU: counting the primes up to a number, in pieces that a pool of processes counts side by side.
 * One piece crashes on purpose. That costs this piece and nothing else: its future tells what happened, another
 * worker takes the place of the one that died, and the piece is counted again.
 */
#include "aloop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECES = 4, NUMBERS = 250000, UNLUCKY = 2 };

typedef struct piece {
  int from, to;
  bool crash;
} piece_t;

static bool is_prime(int number) {
  if (number < 2) return false;
  for (int i = 2; i <= number / i; i++)
    if (number % i == 0) return false;
  return true;
}

/* Runs in a worker, on a copy of the piece. More than a number would go back by aloop_reply_add. */
static int64_t count_primes(const void *data, size_t size, aloop_reply_t *reply) {
  piece_t piece;
  int64_t count = 0;
  (void)reply;
  memcpy(&piece, data, size);
  if (piece.crash) abort();
  for (int i = piece.from; i < piece.to; i++) count += is_prime(i);
  return count;
}

static aloop_future_t *start(aloop_t *loop, aloop_executor_t *pool, int index, bool crash) {
  piece_t piece = {index * NUMBERS, (index + 1) * NUMBERS, crash};
  return aloop_run_in_process(loop, pool, count_primes, &piece, sizeof piece);
}

/* Adds up what the pieces came to; those that were lost are counted again. */
static int64_t collect(aloop_t *loop, aloop_executor_t *pool, const aloop_future_t *all) {
  int64_t total = 0;
  for (int i = 0; i < PIECES; i++) {
    aloop_future_t *piece = aloop_future_child(all, (size_t)i);
    int64_t count = aloop_future_result(piece);
    if (count == ALOOP_ECRASHED) {
      printf("%s; once more\n", aloop_future_message(piece));
      count = aloop_run_until_complete(loop, start(loop, pool, i, false));
    }
    if (count < 0) return count;
    printf("%d to %d: %" PRId64 " primes\n", i * NUMBERS, (i + 1) * NUMBERS, count);
    total += count;
  }
  return total;
}

int main(void) {
  aloop_executor_t *pool;
  aloop_t *loop;
  aloop_future_t *pieces[PIECES];
  if (aloop_process_pool_new(NULL, &pool) < 0) return 1; /* first of all: it forks */
  if (aloop_new(NULL, &loop) < 0) return 1;
  for (int i = 0; i < PIECES; i++) pieces[i] = start(loop, pool, i, i == UNLUCKY);
  aloop_future_t *all = aloop_gather(loop, pieces, PIECES, ALOOP_RETURN_ERRORS);
  int64_t total = aloop_run_until_complete(loop, aloop_future_ref(all));
  if (total >= 0) total = collect(loop, pool, all);
  if (total < 0)
    fprintf(stderr, "process_pool: %s\n", aloop_strerror(total));
  else
    printf("%" PRId64 " primes below %d\n", total, PIECES * NUMBERS);
  aloop_future_unref(all);
  aloop_executor_unref(pool);
  aloop_free(loop);
  return total < 0;
}
