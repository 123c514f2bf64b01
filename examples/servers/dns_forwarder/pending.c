/* SPDX-License-Identifier: MIT
 *
 * The table of pending queries: an entry hangs in the bucket of its id.
 *
 * Whoever wants to slip a false answer in has to guess the id, so ids come from the kernel's random numbers and
 * not from a counter. The table is bounded well below the 65536 ids there are: memory has a limit however many
 * queries come, an id that is drawn is nearly always free, and one that is guessed nearly never in use. All
 * operations take constant time; ids are random, so the buckets fill evenly.
 */
#include "pending.h"

#include <sys/random.h>
#include <unistd.h>

static pending_entry_t **bucket_of(pending_t *pending, uint16_t id) {
  return &pending->buckets[id % PENDING_BUCKETS];
}

bool pending_add(pending_t *pending, pending_entry_t *entry) {
  uint16_t id;
  if (pending->count == PENDING_MAX) return false;
  do {
    if (getentropy(&id, sizeof id) < 0) return false;
  } while (pending_find(pending, id) != NULL);
  pending_entry_t **bucket = bucket_of(pending, id);
  entry->id = id;
  entry->next = *bucket;
  *bucket = entry;
  pending->count++;
  return true;
}

pending_entry_t *pending_find(const pending_t *pending, uint16_t id) {
  pending_entry_t *entry = pending->buckets[id % PENDING_BUCKETS];
  while (entry != NULL && entry->id != id) entry = entry->next;
  return entry;
}

void pending_remove(pending_t *pending, pending_entry_t *entry) {
  pending_entry_t **link = bucket_of(pending, entry->id);
  while (*link != entry) link = &(*link)->next;
  *link = entry->next;
  pending->count--;
}

pending_entry_t *pending_any(const pending_t *pending) {
  for (size_t i = 0; i < PENDING_BUCKETS; i++)
    if (pending->buckets[i] != NULL) return pending->buckets[i];
  return NULL;
}
