/* SPDX-License-Identifier: MIT
 *
 * Servers of several loops. See spread.c.
 */
#ifndef ALOOP_NET_SPREAD_H
#define ALOOP_NET_SPREAD_H

#include "aloop.h"
#include "net/driver.h"

typedef struct aloop__spread aloop__spread_t; /* a server, as far as it is on other loops */
typedef struct aloop__branch aloop__branch_t; /* its part on one of them */

/* ---- In the thread of the server's loop ---- */

/* Why options.loops cannot be used, or NULL. */
const char *aloop__spread_fault(aloop_t *const *loops, size_t count);

/* Tells the other loops. *spread is NULL for no loops. Errors: ALOOP_ENOMEM, ALOOP_ECLOSED. */
int aloop__spread_new(aloop_t *loop, aloop_t *const *loops, size_t count, aloop__spread_t **spread);

/* It is not going to have a server. NULL is fine. */
void aloop__spread_drop(aloop__spread_t *spread);

/* It has: what its connections need is copied. The server is kept until the spread is detached. */
void aloop__spread_attach(aloop__spread_t *spread, aloop_server_t *server);

/* What `arg` of the server wants to be released with, once no loop needs it any more. */
void aloop__spread_release_with(aloop__spread_t *spread, aloop_destroy_fn release);

/* Connections on other loops, and on their way there. */
size_t aloop__spread_clients(const aloop__spread_t *spread);

/* Whether a connection would find a place now. If not, aloop__accept_retry is called when that changes. */
bool aloop__spread_wants(aloop__spread_t *spread);

/* Where a new connection goes: ALOOP__SPREAD_HERE: it is the caller's. */
typedef enum { ALOOP__SPREAD_HERE, ALOOP__SPREAD_AWAY, ALOOP__SPREAD_NOWHERE } aloop__spread_place_t;
aloop__spread_place_t aloop__spread_place(aloop__spread_t *spread, const aloop__driver_t *driver, int fd);

/* Ends the connections that are on other loops or on their way there now. Returns how many. */
size_t aloop__spread_end_clients(aloop__spread_t *spread, bool abort);

/* The server is closed: its parts are, too. aloop__server_settle is called when the last client is lost. */
void aloop__spread_close(aloop__spread_t *spread);

/* The server has ended, or its loop is being closed. */
void aloop__spread_detach(aloop__spread_t *spread);

/* The server's object was stalled: returns false if it still has to be. */
bool aloop__spread_resume(aloop__spread_t *spread);

/* How many loops there are, the own one too. */
size_t aloop__spread_loops(const aloop__spread_t *spread);

/* Of the network's room: somebody may have news for a server of this loop. */
void aloop__spread_woken(aloop_t *loop, aloop__room_t *room);

/* ---- In the thread of another loop, for the server that is its part ---- */

/* Whether it takes connections. */
void aloop__branch_set_open(aloop__branch_t *branch, bool open);

/* It is closed. */
void aloop__branch_closed(aloop__branch_t *branch);

/* A client of it is lost. The branch may be gone when this returns. */
void aloop__branch_lost(aloop__branch_t *branch);

#endif
