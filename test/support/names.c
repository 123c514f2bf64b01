/* SPDX-License-Identifier: MIT
 *
 * See names.h. These definitions take the place of the C library's in programs that use something of names.h.
 */
#include "names.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_FLAG = 0x5a5a };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int gate;    /* how many of "slow.test" may go on */
static int entered; /* ... and how many have begun */
static int begun;   /* lookups of either kind */
static int busy;    /* ... that are under way */
static int live;    /* answers that are not released */

int names_result;
int names_errno;
sigset_t names_mask;
pthread_t names_thread;

static void count(int *counter, int by) {
  pthread_mutex_lock(&lock);
  *counter += by;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

/* Waits for a counter and takes one from it. */
static void take_one(int *counter) {
  pthread_mutex_lock(&lock);
  while (*counter == 0) pthread_cond_wait(&changed, &lock);
  --*counter;
  pthread_mutex_unlock(&lock);
}

void names_open_gate(void) {
  count(&gate, 1);
}

void names_await_slow(void) {
  take_one(&entered);
}

int names_begun(void) {
  pthread_mutex_lock(&lock);
  int value = begun;
  pthread_mutex_unlock(&lock);
  return value;
}

bool names_are_freed(void) {
  pthread_mutex_lock(&lock);
  bool freed = busy == 0 && live == 0;
  pthread_mutex_unlock(&lock);
  return freed;
}

void names_await_freed(void) {
  pthread_mutex_lock(&lock);
  while (busy > 0 || live > 0) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

void names_finish(aloop_t *loop) {
  aloop_future_t *down = aloop_shutdown_default_executor(loop, ALOOP_FOREVER);
  assert_int_equal(run_future(loop, down), 0);
  aloop_future_unref(down);
  for (int i = 0; i < 2; i++) run_turn(loop);
  assert_true(names_are_freed());
}

static struct addrinfo *fake_node(const char *host, const char *port, struct addrinfo *next) {
  struct addrinfo *node = calloc(1, sizeof *node + sizeof(struct sockaddr_in6));
  struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(node + 1);
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)(node + 1);
  bool six = strchr(host, ':') != NULL;
  node->ai_flags = FAKE_FLAG;
  node->ai_protocol = IPPROTO_TCP;
  node->ai_addr = (struct sockaddr *)(void *)(node + 1);
  node->ai_addr->sa_family = six ? AF_INET6 : AF_INET;
  node->ai_addrlen = six ? sizeof *v6 : sizeof *v4;
  if (six)
    v6->sin6_port = htons((uint16_t)strtol(port != NULL ? port : "0", NULL, 10));
  else
    v4->sin_port = htons((uint16_t)strtol(port != NULL ? port : "0", NULL, 10));
  inet_pton(six ? AF_INET6 : AF_INET, host, six ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr);
  node->ai_next = next;
  return node;
}

static void begin(const char *host) {
  count(&begun, 1);
  count(&busy, 1);
  if (strcmp(host, "self.test") == 0) {
    names_thread = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &names_mask);
  }
  if (strcmp(host, "slow.test") == 0) {
    count(&entered, 1);
    take_one(&gate);
  }
}

static int fake_answer(const char *host, const char *port, struct addrinfo **found) {
  if (strcmp(host, "fail.test") == 0) return names_result;
  count(&live, 1);
  *found = fake_node("127.0.0.1", port, NULL);
  if (strcmp(host, "many.test") == 0) *found = fake_node("::1", port, fake_node("127.0.0.1", port, *found));
  if (strcmp(host, "odd.test") == 0) (*found)->ai_addr->sa_family = AF_UNIX;
  return 0;
}

static int fake_lookup(const char *host, const char *port, struct addrinfo **found) {
  begin(host);
  int result = fake_answer(host, port, found);
  count(&busy, -1);
  errno = names_errno;
  return result;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  typedef int (*real_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  size_t length = host != NULL ? strlen(host) : 0;
  if (length > 5 && strcmp(host + length - 5, ".test") == 0) return fake_lookup(host, port, found);
  void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
  real_fn real;
  memcpy(&real, &symbol, sizeof real);
  return real(host, port, hints, found);
}

void freeaddrinfo(struct addrinfo *found) {
  typedef void (*real_fn)(struct addrinfo *);
  if (found->ai_flags == FAKE_FLAG) {
    while (found != NULL) {
      struct addrinfo *next = found->ai_next;
      free(found);
      found = next;
    }
    count(&live, -1);
    return;
  }
  void *symbol = dlsym(RTLD_NEXT, "freeaddrinfo");
  real_fn real;
  memcpy(&real, &symbol, sizeof real);
  real(found);
}

/* The host number of an address of 192.0.2.0/24, else 0. */
static int fake_number(const struct sockaddr *address) {
  if (address->sa_family != AF_INET) return 0;
  uint32_t host = ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr);
  return host >> 8 == 0xc00002 ? (int)(host & 255) : 0;
}

static int fake_names(int number, char *host, size_t host_size, char *service, size_t service_size) {
  begin(number == 2 ? "slow.test" : "");
  count(&busy, -1);
  errno = names_errno;
  if (number == 3) return names_result;
  snprintf(host, host_size, "name.test");
  snprintf(service, service_size, "service");
  return 0;
}

int getnameinfo(const struct sockaddr *address, socklen_t size, char *host, socklen_t host_size, char *service,
                socklen_t service_size, int flags) {
  typedef int (*real_fn)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
  int number = (flags & NI_NUMERICHOST) == 0 ? fake_number(address) : 0;
  if (number > 0) return fake_names(number, host, host_size, service, service_size);
  void *symbol = dlsym(RTLD_NEXT, "getnameinfo");
  real_fn real;
  memcpy(&real, &symbol, sizeof real);
  return real(address, size, host, host_size, service, service_size, flags);
}
