/* SPDX-License-Identifier: MIT
 *
 * System calls that fail on demand. In a test whose opening comment says "faults: yes" the linker sends the
 * library's system calls (the list is in test/CMakeLists.txt) through faults.c, which counts them and lets one
 * of them fail, or all of them do less than they were asked for.
 *
 *     faults_begin(FAULT_ERROR, 7, 0);    the 7th call from now on fails with the first error of its kind
 *     ...
 *     faults_end();
 * / */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum fault_kind {
  FAULT_NONE,            /* count only */
  FAULT_ERROR,           /* the n-th call fails with an error that means something */
  FAULT_ERRORS,          /* and so do the next few of its kind */
  FAULT_INTERRUPT,       /* the n-th call fails with EINTR, if a signal can do that to it */
  FAULT_AGAIN,           /* the n-th call fails with EAGAIN, if it is one that may */
  FAULT_INTERRUPT_OFTEN, /* and so does every other call or so */
  FAULT_AGAIN_OFTEN,
  FAULT_SHORT /* one byte is moved at a time */
} fault_kind_t;

enum { FAULT_CALLS_MAX = 4096 };

void faults_begin(fault_kind_t kind, long n, int variant);
void faults_end(void);

/* Around calls that are the test's own. */
void faults_pause(void);
void faults_resume(void);

/* From now on sockets take at most so many bytes between two polls; 0: as many as they like. */
void faults_limit_sends(size_t bytes);

/* From now on the kernel has no sendfile. */
void faults_without_sendfile(void);

long faults_calls(void); /* since faults_begin */
long faults_calls_of(const char *name);
bool faults_struck(void);        /* whether a call was made to fail since then */
const char *faults_name(long n); /* of the n-th call */
int faults_errors(long n);       /* how many errors its kind has */
bool faults_interruptible(long n);
bool faults_may_wait(long n);

#endif
