/* SPDX-License-Identifier: MIT
 *
 * Names to addresses, and addresses back to names, all at the same time:
 *
 *     resolve localhost 127.0.0.1
 *     resolve -t 0.5 www.example.org www.example.com
 */
#include "aloop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUESTIONS_MAX = 100 };

static const struct addrinfo one_kind = {.ai_socktype =
                                             SOCK_STREAM}; /* or each address would come three times */

/* The address that a text is, NULL if it is a name. That is known without asking anybody. */
static aloop_future_t *numeric(aloop_t *loop, const char *text) {
  struct addrinfo hints = one_kind;
  hints.ai_flags = AI_NUMERICHOST;
  aloop_future_t *address = aloop_getaddrinfo(loop, text, NULL, &hints, 0);
  if (address != NULL && aloop_future_result(address) == 0) return address;
  aloop_future_unref(address);
  return NULL;
}

static aloop_future_t *ask(aloop_t *loop, const char *text, int64_t timeout) {
  const struct addrinfo *list;
  aloop_future_t *address = numeric(loop, text);
  if (address == NULL) return aloop_getaddrinfo(loop, text, NULL, &one_kind, timeout);
  aloop_future_result_ptr(address, &list);
  aloop_future_t *name = aloop_getnameinfo(loop, list->ai_addr, list->ai_addrlen, NI_NAMEREQD, timeout);
  aloop_future_unref(address);
  return name;
}

static void print_addresses(const char *name, const struct addrinfo *list) {
  for (; list != NULL; list = list->ai_next) {
    char host[NI_MAXHOST];
    if (getnameinfo(list->ai_addr, list->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0)
      printf("%s has address %s\n", name, host);
  }
}

/* Prints an answer; returns whether there is one. */
static bool print_answer(aloop_t *loop, const char *text, aloop_future_t *answer) {
  aloop_future_t *address = numeric(loop, text);
  const struct addrinfo *list;
  const aloop_nameinfo_t *name;
  bool known = aloop_future_result(answer) == 0;
  if (!known) {
    fprintf(stderr, "resolve: %s\n", aloop_future_message(answer));
  } else if (address != NULL) {
    aloop_future_result_ptr(answer, &name);
    printf("%s is %s\n", text, name->host);
  } else {
    aloop_future_result_ptr(answer, &list);
    print_addresses(text, list);
  }
  aloop_future_unref(address);
  return known;
}

/* Returns the index of the first name, 0 if the command line makes no sense. */
static int read_options(int argc, char **argv, int64_t *timeout) {
  int first = 1;
  *timeout = ALOOP_SECONDS(5);
  if (argc > 2 && strcmp(argv[1], "-t") == 0) {
    char *end;
    double seconds = strtod(argv[2], &end);
    if (end == argv[2] || *end != '\0' || !(seconds >= 0 && seconds <= 1e6)) return 0;
    *timeout = ALOOP_SECONDS(seconds);
    first = 3;
  }
  return first < argc && argv[first][0] != '-' && argc - first <= QUESTIONS_MAX ? first : 0;
}

int main(int argc, char **argv) {
  int64_t timeout;
  int first = read_options(argc, argv, &timeout);
  if (first == 0) {
    fprintf(stderr, "usage: %s [-t SECONDS] NAME-OR-ADDRESS...   (at most %d)\n", argv[0], QUESTIONS_MAX);
    return 2;
  }
  aloop_t *loop;
  aloop_future_t *answers[QUESTIONS_MAX];
  int count = argc - first, failed = 0;
  if (aloop_new(NULL, &loop) < 0) return 1;
  for (int i = 0; i < count; i++) answers[i] = ask(loop, argv[first + i], timeout);
  aloop_future_t *all = aloop_gather(loop, answers, (size_t)count, ALOOP_RETURN_ERRORS);
  if (all == NULL || aloop_run_until_complete(loop, aloop_future_ref(all)) < 0) return 1;
  for (int i = 0; i < count; i++)
    if (!print_answer(loop, argv[first + i], aloop_future_child(all, (size_t)i))) failed = 1;
  aloop_future_unref(all);
  aloop_free(loop); /* does not wait for name servers that have not answered yet */
  return failed;
}
