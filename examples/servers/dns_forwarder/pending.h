/* SPDX-License-Identifier: MIT
 *
 * The queries that wait for an answer, found by the id under which they were sent.
 */
#ifndef DNS_PENDING_H
#define DNS_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PENDING_MAX = 4096, PENDING_BUCKETS = 1024 };

/* To be put into what waits. */
typedef struct pending_entry {
  struct pending_entry *next;
  uint16_t id;
} pending_entry_t;

/* {0}: nothing waits. */
typedef struct pending {
  size_t count;
  pending_entry_t *buckets[PENDING_BUCKETS];
} pending_t;

/* Adds an entry under an id that nobody can guess and no other has. Returns false if there is no room, or no
 * random number to be had. */
bool pending_add(pending_t *pending, pending_entry_t *entry);

/* The one of that id, or NULL. */
pending_entry_t *pending_find(const pending_t *pending, uint16_t id);

void pending_remove(pending_t *pending, pending_entry_t *entry);

/* Some entry, or NULL if there is none. */
pending_entry_t *pending_any(const pending_t *pending);

#endif
