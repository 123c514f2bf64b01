/* SPDX-License-Identifier: MIT
 *
 * Runs a fuzz target without libFuzzer: every seed as it is, and then thousands of mutations of them, the same
 * ones each time. This is no substitute for a fuzzer, which learns from coverage; it keeps the target and its
 * seeds alive in every test run, under any compiler and sanitizer.
 *
 *     replay_NAME SEED-DIRECTORY [MUTATIONS [FIRST]]
 *
 * When a target traps, the number of the mutation is on stderr: with 1 and that number as arguments it runs
 * alone.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEEDS_MAX = 256, INPUT_MAX = 64 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct seed {
  char *name;
  uint8_t *data;
  size_t size;
} seed_t;

static seed_t seeds[SEEDS_MAX];
static size_t seed_count;
static char running[300]; /* what to print when the target traps */

static void on_trap(int number) {
  ssize_t ignored = write(STDERR_FILENO, running, strlen(running));
  (void)ignored;
  signal(number, SIG_DFL);
  raise(number);
}

static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t limit) {
  return limit == 0 ? 0 : (size_t)(next_random(state) % limit);
}

/* Puts `size` bytes in place of `cut` bytes at `at`; leaves the input alone if it would grow too long. */
static size_t replace(uint8_t *input, size_t length, size_t at, size_t cut, const uint8_t *data, size_t size) {
  if (length - cut + size > INPUT_MAX) return length;
  memmove(input + at + size, input + at + cut, length - at - cut);
  if (size > 0) memcpy(input + at, data, size);
  return length - cut + size;
}

/* One change: bytes are removed, changed, doubled many times, or come from another seed. */
static size_t mutate(uint8_t *input, size_t length, uint64_t *random) {
  static uint8_t piece[INPUT_MAX];
  size_t at = below(random, length + 1), left = length - at;
  size_t cut = below(random, left < 16 ? left + 1 : 16);
  const seed_t *other = &seeds[below(random, seed_count)];
  size_t from = below(random, other->size), size = below(random, other->size - from + 1);
  switch (below(random, 6)) {
  case 0:
    return replace(input, length, at, cut, NULL, 0);
  case 1:
    return replace(input, length, at, cut, other->data + from, size);
  case 2:
    return replace(input, length, at, 0, other->data + from, size < 8 ? size : 8);
  case 3:
    if (left > 0) input[at] ^= (uint8_t)(1U << below(random, 8));
    return length;
  case 4:
    if (left > 0) input[at] = (uint8_t)("\r\n\0 :%/.\t\xff"[below(random, 10)]);
    return length;
  default:
    if (cut == 0) return length;
    size = cut * (1 + below(random, below(random, 8) == 0 ? 4000 : 8));
    if (size > INPUT_MAX) size = INPUT_MAX;
    for (size_t i = 0; i < size; i++) piece[i] = input[at + i % cut];
    return replace(input, length, at, 0, piece, size);
  }
}

static void run_mutation(uint64_t number) {
  static uint8_t input[INPUT_MAX];
  uint64_t random = number * 1000003;
  const seed_t *seed = &seeds[below(&random, seed_count)];
  size_t length = seed->size;
  memcpy(input, seed->data, length);
  for (size_t changes = 1 + below(&random, 8); changes > 0; changes--) length = mutate(input, length, &random);
  snprintf(running, sizeof running, "trapped in mutation %llu (of %s)\n", (unsigned long long)number,
           seed->name);
  LLVMFuzzerTestOneInput(input, length);
}

static int compare_seeds(const void *left, const void *right) {
  return strcmp(((const seed_t *)left)->name, ((const seed_t *)right)->name);
}

static int read_seed(const char *directory, const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "rb");
  seed_t seed = {strdup(name), malloc(INPUT_MAX), 0};
  if (file == NULL || seed.name == NULL || seed.data == NULL) return -1;
  seed.size = fread(seed.data, 1, INPUT_MAX, file);
  fclose(file);
  seeds[seed_count++] = seed;
  return 0;
}

static int read_seeds(const char *directory) {
  DIR *stream = opendir(directory);
  if (stream == NULL) return -1;
  int error = 0;
  for (struct dirent *entry; error == 0 && seed_count < SEEDS_MAX && (entry = readdir(stream)) != NULL;)
    if (entry->d_name[0] != '.') error = read_seed(directory, entry->d_name);
  closedir(stream);
  qsort(seeds, seed_count, sizeof seeds[0], compare_seeds); /* directories have no order to rely on */
  return error < 0 || seed_count == 0 ? -1 : 0;
}

int main(int argc, char **argv) {
  if (argc < 2 || read_seeds(argv[1]) < 0) {
    fprintf(stderr, "usage: %s SEED-DIRECTORY [MUTATIONS [FIRST]]\n", argv[0]);
    return 2;
  }
  unsigned long long count = argc > 2 ? strtoull(argv[2], NULL, 10) : 5000;
  unsigned long long first = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
  static const int traps[] = {SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE};
  for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++) signal(traps[i], on_trap);
  for (size_t i = 0; i < seed_count; i++) {
    snprintf(running, sizeof running, "trapped in seed %s\n", seeds[i].name);
    LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
  }
  for (unsigned long long i = 0; i < count; i++) run_mutation(first + i);
  printf("%zu seeds and %llu mutations\n", seed_count, count);
  for (size_t i = 0; i < seed_count; i++) {
    free(seeds[i].name);
    free(seeds[i].data);
  }
  return 0;
}
