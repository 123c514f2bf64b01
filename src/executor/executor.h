/* SPDX-License-Identifier: MIT
 *
 * Executors as the rest of the library sees them: a table, its state, and a count.
 */
#ifndef ALOOP_EXECUTOR_EXECUTOR_H
#define ALOOP_EXECUTOR_EXECUTOR_H

#include "aloop.h"

/* Hands a job to the executor: 0, or why it was not taken. Takes a waiting job back: 1, or 0 if it is too late.
 * Any thread that holds a reference. */
int aloop__executor_submit(aloop_executor_t *executor, aloop_job_t *job, int lane);
int aloop__executor_cancel(aloop_executor_t *executor, aloop_job_t *job);

/* What to call it in messages. */
const char *aloop__executor_name(const aloop_executor_t *executor);

/* The state of an executor that has this table; NULL if it has another. */
void *aloop__executor_state(const aloop_executor_t *executor, const aloop_executor_table_t *table);

/* Whether it is a process pool, which runs no jobs of this process. */
bool aloop__executor_is_process_pool(const aloop_executor_t *executor);

/* Memory of executors, jobs and what else may outlive the loops they work for: malloc's. */
void *aloop__executor_new_block(size_t bytes); /* cleared; NULL: out of memory */
void aloop__executor_free_block(void *block);  /* NULL is fine */

#endif
