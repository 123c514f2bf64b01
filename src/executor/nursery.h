/* SPDX-License-Identifier: MIT
 *
 * The small process that makes a pool's worker processes and knows how they died.
 */
#ifndef ALOOP_EXECUTOR_NURSERY_H
#define ALOOP_EXECUTOR_NURSERY_H

#include <stdbool.h>
#include <sys/types.h>

/* The life of a worker: serves its socket, which is descriptor 3, and returns when that ends. */
typedef void (*aloop__worker_fn)(int socket, void *arg);

/* The caller's end of it. Zero it before open. */
typedef struct aloop__nursery {
  pid_t pid;   /* 0: there is none, or it was waited for */
  int control; /* -1: released */
} aloop__nursery_t;

/* A worker, as its owner sees it. pid 0: none. */
typedef struct aloop__worker {
  pid_t pid;
  int socket;
  int leash; /* becomes readable when the worker is dead; once shut down for writing, it is killed */
} aloop__worker_t;

/* Forks the nursery and waits until it is ready, with no descriptor of this process left in it but 0 to 2.
 * At most `workers` live at a time. `arg` is copied with everything else, at this moment. */
int aloop__nursery_open(aloop__nursery_t *nursery, int workers, aloop__worker_fn work, void *arg);

/* Asks for a worker. One caller at a time. Errors: ALOOP_ECRASHED (the nursery is gone), ALOOP_EAGAIN (there
 * can be no more processes), ALOOP_EMFILE, ... */
int aloop__nursery_fork(aloop__nursery_t *nursery, aloop__worker_t *worker);

/* Gives the descriptor back, by which the nursery kills all workers and ends. Does not wait for that; close
 * does, and is still needed. */
void aloop__nursery_release(aloop__nursery_t *nursery);

/* Kills all workers, ends the nursery and waits for it. A closed one is fine. */
void aloop__nursery_close(aloop__nursery_t *nursery);

/* In the child of a fork, to whom it does not belong: only gives the descriptors back. */
void aloop__nursery_forget(aloop__nursery_t *nursery);
void aloop__worker_forget(aloop__worker_t *worker);

/* Has the worker killed, without waiting. Any thread, as long as the worker has not ended. */
void aloop__worker_kill(const aloop__worker_t *worker);

/* Whether it is alive and silent, as one without a job should be. */
bool aloop__worker_idle(const aloop__worker_t *worker);

enum { ALOOP__WORKER_TEXT = 96 };

/* Tells it that no more jobs come, waits until it is dead, with force after a moment, and puts what became of
 * it into `text`: "worker process 123 was killed by signal 11 (SIGSEGV)". */
void aloop__worker_end(aloop__worker_t *worker, char text[ALOOP__WORKER_TEXT]);

#endif
