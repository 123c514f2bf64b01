/* SPDX-License-Identifier: MIT
 *
 * Descriptors that travel over Unix sockets: what the drivers of streams (fdpass.c) and of messages
 * (seqpacket.c) share.
 */
#ifndef ALOOP_NET_FDPASS_H
#define ALOOP_NET_FDPASS_H

#include <sys/socket.h>

#include "net/driver.h"

enum { ALOOP__FDS_MAX = 253 }; /* SCM_MAX_FD of Linux */

#ifdef MSG_CMSG_CLOEXEC
enum { ALOOP__RECEIVE_FLAGS = MSG_CMSG_CLOEXEC };
#else
enum { ALOOP__RECEIVE_FLAGS = 0 };
#endif

typedef struct aloop__parcel aloop__parcel_t;

/* Descriptors on their way out. */
struct aloop__parcel {
  aloop__parcel_t *next;
  uint64_t at; /* the place of its byte in the stream */
  size_t count;
  int fds[];
};

typedef struct aloop__inbox {
  size_t first;
  size_t count;
  int fds[ALOOP__FDS_MAX]; /* a ring */
} aloop__inbox_t;

typedef struct aloop__unix_transport {
  aloop_transport_t transport;
  uint64_t sent; /* bytes, so far */
  aloop__parcel_t *parcels;
  aloop__parcel_t **last; /* where the next one is linked */
  aloop__inbox_t *inbox;  /* made when the first descriptor comes */
  bool stamped;           /* of messages: each is received with a time stamp */
  uint8_t skips;          /* ... events at which one is looked for, and no more */
} aloop__unix_transport_t;

typedef union aloop__fdcontrol {
  struct cmsghdr header;                                      /* for its alignment */
  char bytes[CMSG_SPACE(ALOOP__FDS_MAX * sizeof(int)) + 128]; /* and for a time stamp or credentials */
} aloop__fdcontrol_t;

static inline aloop__unix_transport_t *aloop__fdpass_of(aloop_transport_t *transport) {
  return ALOOP_CONTAINER_OF(transport, aloop__unix_transport_t, transport);
}

/* Puts the descriptors into a message; takes all out of one that came: 0, or the code that the connection ends
 * with. */
void aloop__fdpass_enclose(struct msghdr *message, aloop__fdcontrol_t *control, const aloop__parcel_t *parcel);
int aloop__fdpass_unpack(aloop__unix_transport_t *self, struct msghdr *message);

/* The descriptors of the first parcel are the kernel's now, or nobody's. */
void aloop__fdpass_drop_first(aloop__unix_transport_t *self);

/* aloop__driver_t.detach, after which nothing is sent, and .close, until which what was received may be
 * taken. */
void aloop__fdpass_detach(aloop_transport_t *transport);
void aloop__fdpass_close(aloop_transport_t *transport);

#endif
