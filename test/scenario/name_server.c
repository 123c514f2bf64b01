/* SPDX-License-Identifier: MIT
 *
 * A name server for scripts: it knows a few names, and for each of them what is to go wrong. It is a peer of
 * the programs under test, so it uses nothing of the library.
 *
 *     name_server [--host HOST] [--port PORT] NAME=ITEM,ITEM...      default 127.0.0.1, port 0: any free one
 *     name_server two.test=::1,127.0.0.1 late.test=::1@800,127.0.0.1 lost.test=lose,127.0.0.1
 *
 * An ITEM is an address, which is the answer to questions for its type, with "@MS" so many milliseconds late;
 * or a word about every answer for that name:
 *
 *     lose        the first question is not answered
 *     ignore      no question is
 *     forge       before the right answer comes one with another id, and one to another question
 *     malform     before it comes a message that is none
 *     truncate    it says that it is truncated, and has no records
 *
 * Names that are not in the list do not exist. Each question is a line on stderr: its id, name and type.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { RULES_MAX = 32, LATER_MAX = 256, MESSAGE_MAX = 512, HEAD_SIZE = 12, TYPE_A = 1, TYPE_AAAA = 28 };

typedef struct rule {
  char *name;
  char *items; /* what stands behind the "=" */
  bool lose, ignore, forge, malform, truncate;
} rule_t;

typedef struct message {
  uint8_t data[MESSAGE_MAX];
  size_t size;
  struct sockaddr_storage to;
  socklen_t to_size;
  int64_t due; /* 0: this place is free */
} message_t;

typedef struct question {
  char name[256];
  unsigned type;
  size_t end; /* in the message */
} question_t;

static rule_t rules[RULES_MAX];
static size_t rule_count;
static message_t later[LATER_MAX];

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Rules ----------------------------------------------------------------------------------------------- */

static void read_rule(char *text) {
  char *equals = strchr(text, '=');
  if (equals == NULL || rule_count == RULES_MAX) {
    fprintf(stderr, "name_server: \"%s\" is no rule, or one too many\n", text);
    exit(2);
  }
  *equals = '\0';
  rules[rule_count++] = (rule_t){.name = text,
                                 .items = equals + 1,
                                 .lose = strstr(equals + 1, "lose") != NULL,
                                 .ignore = strstr(equals + 1, "ignore") != NULL,
                                 .forge = strstr(equals + 1, "forge") != NULL,
                                 .malform = strstr(equals + 1, "malform") != NULL,
                                 .truncate = strstr(equals + 1, "truncate") != NULL};
}

static rule_t *find_rule(const char *name) {
  for (size_t i = 0; i < rule_count; i++)
    if (strcasecmp(rules[i].name, name) == 0) return &rules[i];
  return NULL;
}

/* ---- Messages -------------------------------------------------------------------------------------------- */

/* Reads the question of a message. Returns false if it is none that we answer. */
static bool read_question(const message_t *from, question_t *question) {
  size_t at = HEAD_SIZE, length = 0;
  if (from->size < HEAD_SIZE + 5 || (from->data[2] & 0xf8) != 0) return false;
  while (at < from->size && from->data[at] != 0) {
    size_t label = from->data[at++];
    if (label > 63 || at + label + 5 > from->size || length + label + 2 > sizeof question->name) return false;
    if (length > 0) question->name[length++] = '.';
    memcpy(question->name + length, from->data + at, label);
    length += label;
    at += label;
  }
  question->name[length] = '\0';
  question->end = at + 5;
  if (question->end > from->size) return false;
  question->type = (unsigned)from->data[at + 1] << 8 | from->data[at + 2];
  return true;
}

/* The start of an answer: the question again. */
static message_t answer_to(const message_t *from, const question_t *question, unsigned rcode) {
  message_t answer = *from;
  answer.size = question->end;
  answer.due = now_ms();
  answer.data[2] = 0x84 | (from->data[2] & 1); /* an answer, authoritative, "recursion desired" as it was */
  answer.data[3] = (uint8_t)(0x80 | rcode);
  memset(answer.data + 4, 0, HEAD_SIZE - 4);
  answer.data[5] = 1;
  return answer;
}

static void add_record(message_t *answer, unsigned type, const void *address, size_t size) {
  const uint8_t head[] = {0xc0, HEAD_SIZE, 0, (uint8_t)type, 0, 1, 0, 0, 0, 0, 0, (uint8_t)size};
  if (answer->size + sizeof head + size > sizeof answer->data) return;
  memcpy(answer->data + answer->size, head, sizeof head);
  memcpy(answer->data + answer->size + sizeof head, address, size);
  answer->size += sizeof head + size;
  answer->data[7]++;
}

/* Adds the addresses of a rule that are of the type, and its delay. */
static void add_addresses(message_t *answer, const rule_t *rule, unsigned type) {
  char items[512], *rest = items, *item;
  snprintf(items, sizeof items, "%s", rule->items);
  while ((item = strsep(&rest, ",")) != NULL) {
    uint8_t address[16];
    char *delay = strchr(item, '@');
    if (delay != NULL) *delay++ = '\0';
    int family = strchr(item, ':') != NULL ? AF_INET6 : AF_INET;
    if (type != (family == AF_INET6 ? TYPE_AAAA : TYPE_A) || inet_pton(family, item, address) != 1) continue;
    add_record(answer, type, address, family == AF_INET6 ? 16 : 4);
    if (delay != NULL) answer->due += strtol(delay, NULL, 10);
  }
}

/* ---- The server ------------------------------------------------------------------------------------------ */

static void send_now(int fd, const message_t *message) {
  sendto(fd, message->data, message->size, 0, (const struct sockaddr *)&message->to, message->to_size);
}

static void send_forgeries(int fd, const message_t *answer) {
  message_t forged = *answer;
  forged.data[0] ^= 0x55;
  send_now(fd, &forged);
  forged = *answer;
  forged.data[HEAD_SIZE + 1] ^= 1; /* the first letter of the name */
  send_now(fd, &forged);
}

static void send_nonsense(int fd, const message_t *answer) {
  message_t malformed = *answer;
  malformed.data[7]++; /* one record more than there is */
  send_now(fd, &malformed);
  malformed.size = HEAD_SIZE - 1;
  send_now(fd, &malformed);
}

static void keep_for_later(const message_t *answer) {
  for (size_t i = 0; i < LATER_MAX; i++) {
    if (later[i].due != 0) continue;
    later[i] = *answer;
    return;
  }
}

static void take_question(int fd, const message_t *from) {
  question_t question;
  if (!read_question(from, &question)) return;
  fprintf(stderr, "%u %s %u\n", (unsigned)from->data[0] << 8 | from->data[1], question.name, question.type);
  rule_t *rule = find_rule(question.name);
  message_t answer = answer_to(from, &question, rule != NULL ? 0 : 3);
  if (rule != NULL && (rule->ignore || rule->lose)) {
    rule->lose = false;
    return;
  }
  if (rule != NULL && rule->truncate) answer.data[2] |= 2;
  if (rule != NULL && !rule->truncate) add_addresses(&answer, rule, question.type);
  if (rule != NULL && rule->forge) send_forgeries(fd, &answer);
  if (rule != NULL && rule->malform) send_nonsense(fd, &answer);
  if (answer.due > now_ms())
    keep_for_later(&answer);
  else
    send_now(fd, &answer);
}

/* Sends what is due. Returns how long nothing else will be, in ms, or -1. */
static int send_due(int fd) {
  int64_t now = now_ms(), next = -1;
  for (size_t i = 0; i < LATER_MAX; i++) {
    if (later[i].due == 0) continue;
    if (later[i].due <= now) {
      send_now(fd, &later[i]);
      later[i].due = 0;
    } else if (next < 0 || later[i].due - now < next) {
      next = later[i].due - now;
    }
  }
  return (int)next;
}

static void serve(int fd) {
  for (;;) {
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    message_t from = {.to_size = sizeof from.to};
    if (poll(&waiting, 1, send_due(fd)) <= 0) continue;
    ssize_t size =
        recvfrom(fd, from.data, sizeof from.data, MSG_DONTWAIT, (struct sockaddr *)&from.to, &from.to_size);
    if (size < 0) continue; /* an answer could not be delivered */
    from.size = (size_t)size;
    take_question(fd, &from);
  }
}

static int listen_on(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
      bind(fd, (struct sockaddr *)&address, size) < 0 ||
      getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
    perror("name_server");
    exit(1);
  }
  printf("listening on %s:%d\n", host, ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

int main(int argc, char **argv) {
  const char *host = "127.0.0.1";
  int port = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--host") == 0 && i + 1 < argc)
      host = argv[++i];
    else if (strcmp(argv[i], "--port") == 0 && i + 1 < argc)
      port = (int)strtol(argv[++i], NULL, 10);
    else
      read_rule(argv[i]);
  }
  serve(listen_on(host, port));
}
