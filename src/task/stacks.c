/* SPDX-License-Identifier: MIT
 *
 * The stacks of coroutines: reserved address space, guards, and a pool of what is not in use.
 *
 * A stack is a power of two of address space, of which the lowest sixteenth, at least a page, is a guard:
 * running into it is a fault, and not somebody else's data changed. The kernel gives memory page by page when
 * it is touched, so a coroutine that needs little costs a page or two, whatever its size.
 *
 * The guard has a page more, so that stacks do not lie powers of two apart. Else the entries of page tables for
 * their topmost pages, which the CPU reads to find them, would share an eighth of its second cache: switching
 * among 10 000 coroutines, each with its lines and its page, took a sixth longer. Now it takes 15 ns; the least
 * assembly among as many stacks, with no control block, takes 10.7 to 14.7. Twice as many colors
 * bring nothing.
 *
 * Many stacks share a mapping, each next mapping of a size being as large as all before it, up to 64 MiB. Where
 * the kernel has guards that are no mappings of their own (Linux 6.13) the number of stacks is limited by
 * memory only. Elsewhere each guard is cut out of the mapping by mprotect, and the kernel's limit for mappings
 * (65530 by default on Linux) ends at some 32000 stacks; then the answer is ALOOP_ENOMEM. A guard is made when
 * its stack is first taken.
 *
 * Stacks not in use wait in two lists per size: the warm ones, which may hold memory, last used first; and the
 * cold ones. Per size the pool notes how many warm stacks were never needed since it was last tidied. These lie
 * at the end of the list, and tidying makes them cold: their memory goes back to the system, and so does a
 * whole mapping when all its stacks are. Taking and giving are O(1) but for a system call when a stack is used
 * for the first time; tidying walks all stacks if there is anything to do.
 *
 * Sanitizers and valgrind are told what a stack is: the address sanitizer forgets the marks that dropped frames
 * left, and its leak checker looks for pointers on stacks that live.
 */
#include "task/stacks.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/check.h"
#include "core/memory.h"
#include "task/fibers.h"

#if defined(__linux__) && !defined(MADV_GUARD_INSTALL)
#define MADV_GUARD_INSTALL 102 /* as yet missing in the headers of most C libraries */
#endif
#ifndef MAP_STACK
#define MAP_STACK 0
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

enum { FIRST_COUNT = 4, GUARD_SHARE = 16, USUAL_CLASS = 4 };

_Static_assert(ALOOP__STACK_MIN << USUAL_CLASS == ALOOP_STACK_SIZE, "the class of most stacks");

/* What one mapping reserves at most, unless a single stack is larger. */
static const size_t map_max = sizeof(void *) == 8 ? (size_t)64 << 20 : (size_t)4 << 20;

struct aloop__stack_map {
  aloop__list_t link;
  char *base;
  size_t count;
  size_t used; /* stacks from the first that were ever taken */
  size_t live; /* ... and are */
  size_t warm;
  int class;
  bool light_guards;
  aloop__stack_t stacks[];
};

static size_t class_size(int class) {
  return (size_t)ALOOP__STACK_MIN << class;
}

/* From one stack to the next. */
static size_t spacing(const aloop__stacks_t *stacks, int class) {
  return class_size(class) + stacks->page;
}

static aloop__stack_t *stack_of(aloop__list_t *link) {
  return ALOOP_CONTAINER_OF(link, aloop__stack_t, link);
}

void aloop__stacks_init(aloop__stacks_t *stacks, aloop_t *loop) {
  *stacks = (aloop__stacks_t){.loop = loop, .how = aloop__switch_ways()[0], .light_guards = true};
  stacks->page = (size_t)sysconf(_SC_PAGESIZE);
  aloop__list_init(&stacks->maps);
  for (int i = 0; i < ALOOP__STACK_CLASSES; i++) {
    aloop__list_init(&stacks->classes[i].warm);
    aloop__list_init(&stacks->classes[i].cold);
    stacks->classes[i].next_count = FIRST_COUNT;
  }
}

/* ---- Mappings -------------------------------------------------------------------------------------------- */

static void unmap(aloop__stacks_t *stacks, aloop__stack_map_t *map) {
  for (size_t i = 0; i < map->used; i++) {
    aloop__list_remove(&map->stacks[i].link);
    aloop__fibers_forget_stack(map->stacks[i].registered);
    stacks->pooled--;
  }
  if (stacks->classes[map->class].at == map) stacks->classes[map->class].at = NULL;
  size_t bytes = map->count * spacing(stacks, map->class);
  munmap(map->base, bytes);
  stacks->reserved -= bytes;
  aloop__list_remove(&map->link);
  aloop__memory_release(stacks->loop, map);
}

/* Huge pages would give each stack far more memory than it touches. */
static char *reserve(size_t bytes) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) return NULL;
#ifdef MADV_NOHUGEPAGE
  (void)madvise(base, bytes, MADV_NOHUGEPAGE);
#endif
  return base;
}

/* Whether guards can be light ones. Emulators (qemu's user mode) take any advice, even none there is, and do
 * nothing. */
static bool heeds_advice(char *base, size_t page) {
#ifdef MADV_GUARD_INSTALL
  return madvise(base, page, -1) < 0;
#else
  (void)base, (void)page;
  return false;
#endif
}

/* A new mapping, of fewer stacks if address space is short. NULL: out of memory. */
static aloop__stack_map_t *map_new(aloop__stacks_t *stacks, int class) {
  size_t size = class_size(class), step = spacing(stacks, class), count = stacks->classes[class].next_count;
  while (count > 1 && count * size > map_max) count /= 2;
  aloop__stack_map_t *map = aloop__memory_new(stacks->loop, sizeof *map + count * sizeof map->stacks[0]);
  if (map == NULL) return NULL;
  char *base = reserve(count * step);
  while (base == NULL && count > 1) {
    count /= 2;
    base = reserve(count * step);
  }
  if (base == NULL) {
    aloop__memory_release(stacks->loop, map);
    return NULL;
  }
  bool light = stacks->light_guards && heeds_advice(base, stacks->page);
  *map = (aloop__stack_map_t){.base = base, .count = count, .class = class, .light_guards = light};
  aloop__list_append(&stacks->maps, &map->link);
  stacks->classes[class].at = map;
  stacks->classes[class].next_count = count * size < map_max ? count * 2 : count;
  stacks->reserved += count * step;
  return map;
}

/* A mapping whose first guard cannot be a light one will have heavy ones. */
static int install_guard(aloop__stack_map_t *map, char *base, size_t bytes) {
#ifdef MADV_GUARD_INSTALL
  if (map->light_guards) {
    int rc;
    do rc = madvise(base, bytes, MADV_GUARD_INSTALL);
    while (rc < 0 && errno == EINTR);
    if (rc == 0) return 0;
    if (errno != EINVAL) return ALOOP_ENOMEM;
    map->light_guards = false;
  }
#endif
  map->light_guards = false;
  return mprotect(base, bytes, PROT_NONE) < 0 ? ALOOP_ENOMEM : 0;
}

/* Tops of stacks would share a few lines of the CPU's caches, and push each other out, did each begin at the
 * end of a page. A part of a page puts neighbours on different lines. */
static uint16_t color(const char *base, size_t step) {
  return (uint16_t)((uintptr_t)base / step % 16 * 128);
}

/* A stack never used yet. */
static int carve(aloop__stacks_t *stacks, int class, aloop__stack_t **out) {
  aloop__stack_map_t *map = stacks->classes[class].at;
  if (map == NULL) map = map_new(stacks, class);
  if (map == NULL) return ALOOP_ENOMEM;
  size_t step = spacing(stacks, class), share = class_size(class) / GUARD_SHARE;
  size_t guard = (share > stacks->page ? share : stacks->page) + step - class_size(class);
  char *base = map->base + map->used * step;
  int rc = install_guard(map, base, guard);
  if (rc < 0) return rc;
  stacks->light_guards = map->light_guards;
  aloop__stack_t *stack = &map->stacks[map->used++];
  if (map->used == map->count) stacks->classes[class].at = NULL;
  *stack = (aloop__stack_t){.low = base + guard, .top = base + step, .map = map, .color = color(base, step)};
  aloop__list_init(&stack->link);
  stack->registered = aloop__fibers_note_stack(stack->low, stack->top);
  *out = stack;
  return 0;
}

void aloop__stacks_close(aloop__stacks_t *stacks) {
  ALOOP_CHECK(stacks->live == 0);
  while (!aloop__list_empty(&stacks->maps))
    unmap(stacks, ALOOP_CONTAINER_OF(stacks->maps.next, aloop__stack_map_t, link));
}

/* ---- Taking and giving ----------------------------------------------------------------------------------- */

static int class_of(size_t size) {
  int class = 0;
  if (ALOOP_LIKELY(size == 0)) return USUAL_CLASS;
  while (class < ALOOP__STACK_CLASSES && class_size(class) < size) class ++;
  return class;
}

/* NULL: there is none that may hold memory. */
static inline aloop__stack_t *take_warm(aloop__stacks_t *stacks, aloop__stack_class_t *class) {
  if (class->warm_count == 0) return NULL;
  aloop__stack_t *stack = stack_of(class->warm.next);
  class->warm.next = stack->link.next;
  stack->link.next->prev = &class->warm;
  if (--class->warm_count < class->idle) class->idle = class->warm_count;
  stack->map->warm--;
  stacks->pooled--;
  return stack;
}

static ALOOP_NOINLINE int take_cold(aloop__stacks_t *stacks, int class, aloop__stack_t **out) {
  aloop__list_t *cold = &stacks->classes[class].cold;
  if (aloop__list_empty(cold)) return carve(stacks, class, out);
  *out = stack_of(cold->next);
  aloop__list_remove(&(*out)->link);
  stacks->pooled--;
  return 0;
}

int aloop__stacks_take(aloop__stacks_t *stacks, size_t size, aloop__stack_t **out) {
  if (stacks->how == NULL) return ALOOP_ENOTSUP;
  int class = class_of(size);
  if (class == ALOOP__STACK_CLASSES) return ALOOP_EINVAL;
  aloop__stack_t *stack = take_warm(stacks, &stacks->classes[class]);
  if (ALOOP_UNLIKELY(stack == NULL)) {
    int rc = take_cold(stacks, class, &stack);
    if (rc < 0) return rc;
  }
  stack->state = ALOOP__STACK_TAKEN;
  stack->map->live++;
  stack->label = NULL;
  if (++stacks->live > stacks->high_water) stacks->high_water = stacks->live;
  aloop__fibers_begin_stack(stack->low, stack->top, stack->registered);
  *out = stack;
  return 0;
}

static void list_prepend(aloop__list_t *list, aloop__list_t *node) {
  aloop__list_append(list->next, node);
}

void aloop__stacks_give(aloop__stacks_t *stacks, aloop__stack_t *stack) {
  aloop__stack_class_t *class = &stacks->classes[stack->map->class];
  aloop__fibers_end_stack(stack->low, stack->top);
  list_prepend(&class->warm, &stack->link);
  class->warm_count++;
  stack->state = ALOOP__STACK_WARM;
  stack->map->warm++;
  stack->map->live--;
  stacks->pooled++;
  stacks->live--;
}

/* ---- Tidying --------------------------------------------------------------------------------------------- */

/* The warm stacks that nobody needed lie at the end of the list. Returns whether there were any. */
static bool cool(aloop__stack_class_t *class) {
  bool any = class->idle > 0;
  for (; class->idle > 0; class->idle--) {
    aloop__stack_t *stack = stack_of(class->warm.prev);
    aloop__list_remove(&stack->link);
    aloop__list_append(&class->cold, &stack->link);
    stack->state = ALOOP__STACK_COOLING;
    stack->map->warm--;
    class->warm_count--;
  }
  class->idle = class->warm_count;
  return any;
}

static void give_memory_back(char *low, char *top) {
#if defined(__linux__)
  (void)madvise(low, (size_t)(top - low), MADV_DONTNEED);
#elif defined(MADV_FREE)
  (void)madvise(low, (size_t)(top - low), MADV_FREE);
#else
  (void)low, (void)top;
#endif
}

/* Neighbours go with one call; guards between them stay what they are. */
static void tidy_map(aloop__stacks_t *stacks, aloop__stack_map_t *map) {
  if (map->live == 0 && map->warm == 0) {
    unmap(stacks, map);
    return;
  }
  for (size_t i = 0; i < map->used; i++) {
    char *low = map->stacks[i].low, *top = NULL;
    for (; i < map->used && map->stacks[i].state == ALOOP__STACK_COOLING; i++) {
      map->stacks[i].state = ALOOP__STACK_COLD;
      top = map->stacks[i].top;
    }
    if (top != NULL) give_memory_back(low, top);
  }
}

bool aloop__stacks_tidy(aloop__stacks_t *stacks) {
  bool any = false, more = false;
  for (int i = 0; i < ALOOP__STACK_CLASSES; i++) {
    any |= cool(&stacks->classes[i]);
    more |= stacks->classes[i].warm_count > 0;
  }
  if (!any) return more;
  for (aloop__list_t *at = stacks->maps.next; at != &stacks->maps;) {
    aloop__stack_map_t *map = ALOOP_CONTAINER_OF(at, aloop__stack_map_t, link);
    at = at->next;
    tidy_map(stacks, map);
  }
  return more;
}

/* ---- Questions ------------------------------------------------------------------------------------------- */

const aloop__stack_t *aloop__stacks_find(const aloop__stacks_t *stacks, const void *address) {
  uintptr_t wanted = (uintptr_t)address;
  for (const aloop__list_t *at = stacks->maps.next; at != &stacks->maps; at = at->next) {
    const aloop__stack_map_t *map = ALOOP_CONTAINER_OF(at, const aloop__stack_map_t, link);
    uintptr_t base = (uintptr_t)map->base, step = spacing(stacks, map->class);
    if (wanted < base || wanted >= base + map->used * step) continue;
    const aloop__stack_t *stack = &map->stacks[(wanted - base) / step];
    return wanted < (uintptr_t)stack->low ? stack : NULL;
  }
  return NULL;
}

size_t aloop__stack_size(const aloop__stack_t *stack) {
  return class_size(stack->map->class);
}
