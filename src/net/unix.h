/* SPDX-License-Identifier: MIT
 *
 * Unix sockets: names, and the socket files that servers and endpoints leave. See unixname.c.
 */
#ifndef ALOOP_NET_UNIX_H
#define ALOOP_NET_UNIX_H

#include <sys/socket.h>
#include <sys/un.h>

#include "aloop.h"
#include "net/driver.h"

typedef struct aloop__unix_name {
  socklen_t size; /* of the address */
  struct sockaddr_un address;
} aloop__unix_name_t;

/* The longest path; abstract names may have as many bytes behind the zero. */
enum { ALOOP__UNIX_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1 };

/* How many bytes options ask for. */
size_t aloop__unix_path_size(const char *path, size_t path_size);

/* The address of a path, or on Linux of a name that begins with a zero byte. Returns 0, or
 * ALOOP_ENAMETOOLONG, or ALOOP_EINVAL or ALOOP_ENOTSUP with a reason. */
int aloop__unix_name(aloop__unix_name_t *name, const char *path, size_t path_size, const char **reason);
/* The same of an address; false: it has no name, or one that is no string. */
bool aloop__unix_name_set(aloop__unix_name_t *name, const struct sockaddr *address, socklen_t size);
bool aloop__unix_is_abstract(const aloop__unix_name_t *name);

/* A non-blocking, close-on-exec socket of the type, or a code. */
int aloop__unix_socket(int type);

/* The driver of a caller's socket, if that is a Unix socket; NULL: the loop's own. */
const aloop__driver_t *aloop__unix_driver_of(int fd);

/* Whether descriptors travel over it. */
static inline bool aloop__unix_passes_fds(const aloop_transport_t *transport) {
  return transport->driver == &aloop__driver_unix || transport->driver == &aloop__driver_seqpacket;
}

/* fdpass.c: the descriptors that wait at a transport over a Unix socket travel on with the next byte that is
 * written to another, or are closed if that is over something else. On failure they are where they were. */
int aloop__unix_pass_fds(aloop_transport_t *from, aloop_transport_t *to);

/* The file of a bound socket, and whose it is. */
typedef struct aloop__unix_file aloop__unix_file_t;

/* Binds the socket, replacing a file that no socket is bound to; `mode` of a new file, 0: as the umask says.
 * With `file`, what to unlink later (nothing: NULL). Returns 0, or a code, and ALOOP_EADDRINUSE with a
 * reason. */
int aloop__unix_bind(aloop_t *loop, int fd, const aloop__unix_name_t *name, mode_t mode,
                     aloop__unix_file_t **file, const char **reason);

/* Unlinks the file, if it is still the same and this is the process that made it, and forgets it. The socket is
 * still open. */
void aloop__unix_file_drop(aloop_t *loop, aloop__unix_file_t **file);

/* unix.c: a future that says what aloop__unix_name has against a path. */
aloop_future_t *aloop__unix_refused(aloop_t *loop, const char *origin, int error, const char *reason,
                                    size_t path_size);

#endif
