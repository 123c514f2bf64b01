/* SPDX-License-Identifier: MIT
 *
 * An executor is a table of functions, a state for them, and an atomic count of references. Nothing here knows
 * how jobs are run: thread pools, process pools and a program's own executors look alike from above.
 *
 * References are held by the program, by each loop whose default the executor is, and by each job until its end
 * has reached the loop or nobody waits for it any more. The last one shuts the executor down without waiting
 * and then lets the table release the state; so `destroy` may come from any thread that had a reference, while
 * jobs whose futures were cancelled still run.
 *
 * That an executor is shut down is noted here too, before its table hears of it: so even a table without a
 * `shutdown` refuses jobs afterwards.
 *
 * Executors, pools and jobs belong to no loop, because threads may still have them when the loop and its
 * allocator are gone. Their memory is malloc's.
 */
#include "executor/executor.h"

#include <stdatomic.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"

struct aloop_executor {
  aloop_executor_table_t table; /* a copy, with every member that an older caller's may lack */
  const aloop_executor_table_t *given;
  void *state;
  atomic_size_t refs;
  atomic_bool shut;
};

void *aloop__executor_new_block(size_t bytes) {
  void *block = aloop__memory_default.resize(NULL, NULL, bytes);
  if (block != NULL) memset(block, 0, bytes);
  return block;
}

void aloop__executor_free_block(void *block) {
  aloop__memory_default.release(NULL, block);
}

int aloop_executor_new(const aloop_executor_table_t *table, void *state, aloop_executor_t **out) {
  aloop_executor_table_t copy;
  if (table == NULL || aloop__memory_copy_options(&copy, sizeof copy, table) < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "set table.size to sizeof(aloop_executor_table_t)");
  if (copy.submit == NULL || out == NULL)
    return aloop__misuse(NULL, ALOOP_EINVAL,
                         "an executor needs a submit function in its table, and a place to go to");
  aloop_executor_t *executor = aloop__executor_new_block(sizeof *executor);
  if (executor == NULL) return ALOOP_ENOMEM;
  executor->table = copy;
  executor->given = table;
  executor->state = state;
  atomic_init(&executor->refs, 1);
  atomic_init(&executor->shut, false);
  *out = executor;
  return 0;
}

aloop_executor_t *aloop_executor_ref(aloop_executor_t *executor) {
  if (executor != NULL) atomic_fetch_add_explicit(&executor->refs, 1, memory_order_relaxed);
  return executor;
}

void aloop_executor_unref(aloop_executor_t *executor) {
  if (executor == NULL || atomic_fetch_sub_explicit(&executor->refs, 1, memory_order_acq_rel) > 1) return;
  if (!atomic_load(&executor->shut) && executor->table.shutdown != NULL)
    executor->table.shutdown(executor->state, 0, 0);
  if (executor->table.destroy != NULL) executor->table.destroy(executor->state);
  aloop__executor_free_block(executor);
}

int aloop_executor_shutdown(aloop_executor_t *executor, int64_t timeout, unsigned flags) {
  if (executor == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the executor is NULL");
  if (timeout < ALOOP_FOREVER)
    return aloop__misuse(NULL, ALOOP_EINVAL, "a timeout is not negative, or ALOOP_FOREVER");
  if ((flags & ~(unsigned)ALOOP_CANCEL_QUEUED) != 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "the only flag of aloop_executor_shutdown is ALOOP_CANCEL_QUEUED");
  bool before = atomic_exchange(&executor->shut, true);
  int rc = executor->table.shutdown != NULL ? executor->table.shutdown(executor->state, timeout, flags) : 0;
  if (rc < 0 && rc != ALOOP_ETIMEDOUT) atomic_store(&executor->shut, before);
  return rc;
}

int aloop_executor_stats(const aloop_executor_t *executor, aloop_executor_stats_t *stats) {
  aloop_executor_stats_t now = {.size = sizeof now};
  if (executor == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the executor is NULL");
  if (stats == NULL || stats->size <= sizeof stats->size)
    return aloop__misuse(NULL, ALOOP_EINVAL, "set stats.size to sizeof stats");
  if (executor->table.stats == NULL) return ALOOP_ENOTSUP;
  int rc = executor->table.stats(executor->state, &now);
  if (rc < 0) return rc;
  size_t size = stats->size;
  memcpy(stats, &now, size < sizeof now ? size : sizeof now);
  stats->size = size;
  return 0;
}

int aloop__executor_submit(aloop_executor_t *executor, aloop_job_t *job, int lane) {
  if (atomic_load_explicit(&executor->shut, memory_order_relaxed)) return ALOOP_ECLOSED;
  int rc = executor->table.submit(executor->state, job, lane);
  return rc < 0 ? rc : 0;
}

int aloop__executor_cancel(aloop_executor_t *executor, aloop_job_t *job) {
  return executor->table.cancel != NULL && executor->table.cancel(executor->state, job) == 1;
}

const char *aloop__executor_name(const aloop_executor_t *executor) {
  return executor->table.name != NULL ? executor->table.name : "executor";
}

void *aloop__executor_state(const aloop_executor_t *executor, const aloop_executor_table_t *table) {
  return executor != NULL && executor->given == table ? executor->state : NULL;
}
