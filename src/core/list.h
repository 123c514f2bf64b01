/* SPDX-License-Identifier: MIT
 *
 * Intrusive doubly linked list: the node lives in the object, removal needs no search and no allocation. A
 * list head is a node whose neighbours are itself when empty. The one definition of container_of is here.
 */
#ifndef ALOOP_CORE_LIST_H
#define ALOOP_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define ALOOP_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

typedef struct aloop__list {
  struct aloop__list *prev;
  struct aloop__list *next;
} aloop__list_t;

static inline void aloop__list_init(aloop__list_t *list) {
  list->prev = list->next = list;
}

static inline bool aloop__list_empty(const aloop__list_t *list) {
  return list->next == list;
}

static inline void aloop__list_append(aloop__list_t *list, aloop__list_t *node) {
  node->prev = list->prev;
  node->next = list;
  list->prev->next = node;
  list->prev = node;
}

/* Leaves the node pointing at itself, so that removing it again is harmless. */
static inline void aloop__list_remove(aloop__list_t *node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  aloop__list_init(node);
}

#endif
