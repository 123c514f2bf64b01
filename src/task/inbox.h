/* SPDX-License-Identifier: MIT
 *
 * What a stream has received and nobody has read yet. See inbox.c for the story.
 */
#ifndef ALOOP_TASK_INBOX_H
#define ALOOP_TASK_INBOX_H

#include "aloop.h"
#include "core/loop.h"

typedef struct aloop__inbox {
  char *block; /* NULL: none; otherwise `room` bytes and one more */
  size_t room;
  size_t head;    /* the oldest byte */
  size_t tail;    /* behind the newest */
  size_t taken;   /* handed out, from head on; they may come back */
  size_t scanned; /* bytes behind those in which the separator does not begin */
  bool lent;      /* what was taken is read in place, with a zero behind it, */
  bool gap;       /* which has a byte of its own, */
  char saved;     /* or stands where this byte belongs */
  uint8_t class;  /* of the block */
  uint8_t want;   /* of the next one */
} aloop__inbox_t;

/* Room for what arrives: at least one byte. Errors: ALOOP_ENOBUFS (what is lent lies in the way),
 * ALOOP_ENOMEM. */
int aloop__inbox_space(aloop_t *loop, aloop__inbox_t *inbox, void **at, size_t *size);

/* `size` bytes have arrived there, of `offered`. */
void aloop__inbox_added(aloop__inbox_t *inbox, size_t size, size_t offered);

/* How far behind the first byte the separator begins; SIZE_MAX: it does not. Goes on where it stopped, until
 * aloop__inbox_settle is called. */
size_t aloop__inbox_find(aloop__inbox_t *inbox, const char *separator, size_t size);

/* Hands out the first `size` bytes: copied, or lent, with a zero behind them. Only when all was settled. */
void aloop__inbox_take(aloop__inbox_t *inbox, void *into, size_t size);
const char *aloop__inbox_lend(aloop__inbox_t *inbox, size_t size);

/* What was handed out, if anything, is gone for good, or comes back. What was lent must not be used any more.
 */
void aloop__inbox_settle(aloop__inbox_t *inbox, bool back);

/* Gives an empty block back to the loop; any block. */
void aloop__inbox_rest(aloop_t *loop, aloop__inbox_t *inbox);
void aloop__inbox_release(aloop_t *loop, aloop__inbox_t *inbox);

/* How many bytes can be taken. */
static inline size_t aloop__inbox_size(const aloop__inbox_t *inbox) {
  return inbox->tail - inbox->head - inbox->taken - inbox->gap;
}

/* Whether aloop__inbox_space would fail because of what is lent. */
static inline bool aloop__inbox_stuck(const aloop__inbox_t *inbox) {
  return inbox->lent && inbox->tail + (inbox->head + inbox->taken == inbox->tail) >= inbox->room;
}

#endif
