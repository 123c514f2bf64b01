/* SPDX-License-Identifier: MIT
 *
 * A kernel with TLS, played in the process: in a test whose opening comment says "softtls: yes" the library's calls on
 * sockets go through softtls.c, which takes keys as Linux does and from then on makes records of what is sent. How
 * they are encrypted is the test's affair.
 *
 * It has the habits that matter: it takes bytes that the TCP buffer has no room for, up to one record, and loses them
 * if the socket is closed before that has room; a sendfile that moves less than it was asked for leaves the rest of a
 * record open; keys can be exchanged only if `exchanges` says so.
 */
#ifndef SOFTTLS_H
#define SOFTTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SOFT_ALERT = 21, SOFT_HANDSHAKE = 22, SOFT_DATA = 23, SOFT_RECORD_MAX = 16384, SOFT_SEALED_MAX = 17000 };

/* The struct of linux/tls.h that a socket was given, and the number of its next record. */
typedef struct soft_keys {
  unsigned char info[64];
  size_t size;
  int version;
  int cipher;
  uint64_t sequence; /* counted from that of the struct on */
} soft_keys_t;

typedef struct soft {
  bool available; /* the kernel has TLS */
  bool exchanges; /* and takes new keys for old ones */
  bool refuses;   /* it takes no keys */
  bool full;      /* the TCP buffers take nothing */
  int sockets;    /* given keys so far */
  int exchanged;
  int files;   /* calls of sendfile that moved something */
  size_t lost; /* bytes that were taken and dropped at a close */
  size_t open; /* bytes in records that wait for more, of all sockets */
  int records[256];
  /* Makes a record; returns its size. */
  size_t (*seal)(const soft_keys_t *keys, int type, const unsigned char *data, size_t size,
                 unsigned char *into);
} soft_t;

extern soft_t soft;

void soft_begin(void);

/* The TCP buffers have room again. Also done by what waits and reads. */
void soft_work(void);

#endif
