/* SPDX-License-Identifier: MIT
 *
 * The names of Unix sockets: paths, and Linux's abstract names, which are no files and go with their socket.
 *
 * A path is a file that outlives its socket unless somebody unlinks it, and bind refuses one that is there. So
 * a server, or an endpoint of datagrams, that crashed would be in its own way. Such a file is replaced, but
 * only if no socket is bound to it: asked by connecting a datagram socket, which is refused exactly then. It is
 * never accepted by a server of streams, so that nobody sees a connection that is none, a full backlog makes no
 * difference, and a socket that is bound and does not listen yet counts as alive, too.
 *
 * When it closes it unlinks the file if it is still its own: another may have been put in its place.
 * The inode number tells, as long as the socket is open and keeps the number from being used again. The child
 * of a fork leaves its parent's files alone.
 *
 * What a file system offers no means for: two servers that start in the same moment over the same dead file
 * may both see that it is dead, and the second removes what the first has made. The time for that is the one
 * between two system calls. A relative path is taken from where the process is at the moment of the call.
 *
 * Permissions are set before the file is there, where the system can (Linux), and widened before the socket
 * listens, so that nobody connects who should not.
 */
#include "net/unix.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "net/address.h"

struct aloop__unix_file {
  dev_t device;
  ino_t inode;
  pid_t owner;
  char path[];
};

/* ---- Names ----------------------------------------------------------------------------------------------- */

size_t aloop__unix_path_size(const char *path, size_t path_size) {
  return path_size > 0 ? path_size : strlen(path);
}

bool aloop__unix_is_abstract(const aloop__unix_name_t *name) {
  return name->address.sun_path[0] == '\0';
}

static int check_bytes(const char *path, size_t size, const char **reason) {
  if (size == 0) {
    *reason = "a path is empty";
    return ALOOP_EINVAL;
  }
  if (path[0] != '\0') {
    if (memchr(path, '\0', size) == NULL) return 0;
    *reason = "a zero byte in a path: its size does not count the one at its end";
    return ALOOP_EINVAL;
  }
#ifdef __linux__
  return 0;
#else
  *reason = "names that begin with a zero byte are for Linux only";
  return ALOOP_ENOTSUP;
#endif
}

int aloop__unix_name(aloop__unix_name_t *name, const char *path, size_t path_size, const char **reason) {
  size_t size = aloop__unix_path_size(path, path_size);
  int rc = check_bytes(path, size, reason);
  if (rc < 0) return rc;
  bool abstract = path[0] == '\0';
  if (size > ALOOP__UNIX_PATH_MAX + (abstract ? 1u : 0u)) return ALOOP_ENAMETOOLONG;
  memset(name, 0, sizeof *name);
  name->address.sun_family = AF_UNIX;
  memcpy(name->address.sun_path, path, size);
  name->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (abstract ? 0u : 1u));
  return 0;
}

bool aloop__unix_name_set(aloop__unix_name_t *name, const struct sockaddr *address, socklen_t size) {
  size_t begin = offsetof(struct sockaddr_un, sun_path);
  if (address->sa_family != AF_UNIX || size <= begin || size > sizeof name->address) return false;
  memset(name, 0, sizeof *name);
  memcpy(&name->address, address, size);
  name->size = size;
  return aloop__unix_is_abstract(name) ||
         memchr(name->address.sun_path, '\0', ALOOP__UNIX_PATH_MAX + 1) != NULL;
}

int aloop__unix_socket(int type) {
  aloop__address_t address = {.type = type, .protocol = 0};
  address.as.any.sa_family = AF_UNIX;
  return aloop__address_socket(&address);
}

static const struct sockaddr *as_any(const aloop__unix_name_t *name) {
  return (const struct sockaddr *)(const void *)&name->address;
}

/* ---- Files that are left --------------------------------------------------------------------------------- */

/* Whether no socket is bound to the file: 1, 0, or a code. */
static int is_dead(const aloop__unix_name_t *name) {
  int fd = aloop__unix_socket(SOCK_DGRAM);
  if (fd < 0) return fd;
  bool refused = connect(fd, as_any(name), name->size) < 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

static bool is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Removes a dead socket file: 0 also if nothing is there any more. */
static int remove_dead(const aloop__unix_name_t *name, const char **reason) {
  const char *path = name->address.sun_path;
  struct stat before, now;
  *reason = NULL;
  if (lstat(path, &before) < 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(before.st_mode)) {
    *reason = "a file is there that is no socket";
    return ALOOP_EADDRINUSE;
  }
  int rc = is_dead(name);
  if (rc < 0) return rc;
  *reason = "another socket is bound to it";
  if (rc == 0) return ALOOP_EADDRINUSE;
  if (lstat(path, &now) < 0) return errno == ENOENT ? 0 : -errno;
  if (!is_same(&before, &now)) return ALOOP_EADDRINUSE;
  *reason = NULL;
  return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* ---- Binding --------------------------------------------------------------------------------------------- */

static int bind_once(int fd, const aloop__unix_name_t *name) {
  return bind(fd, as_any(name), name->size) < 0 ? -errno : 0;
}

static int bind_replacing(int fd, const aloop__unix_name_t *name, const char **reason) {
  int rc = bind_once(fd, name);
  if (rc != ALOOP_EADDRINUSE || aloop__unix_is_abstract(name)) return rc;
  rc = remove_dead(name, reason);
  return rc == 0 ? bind_once(fd, name) : rc;
}

static int note_file(const aloop__unix_name_t *name, aloop__unix_file_t *file) {
  struct stat now;
  if (lstat(name->address.sun_path, &now) < 0) return -errno;
  file->device = now.st_dev;
  file->inode = now.st_ino;
  file->owner = getpid();
  return 0;
}

int aloop__unix_bind(aloop_t *loop, int fd, const aloop__unix_name_t *name, mode_t mode,
                     aloop__unix_file_t **file, const char **reason) {
  size_t length = strlen(name->address.sun_path);
  aloop__unix_file_t *note = NULL;
  if (file != NULL && length > 0) {
    note = aloop__memory_zero(loop, sizeof *note + length + 1);
    if (note == NULL) return ALOOP_ENOMEM;
    memcpy(note->path, name->address.sun_path, length + 1);
  }
  if (mode != 0) (void)(fchmod(fd, mode) < 0); /* some systems cannot, and the file has to do */
  int rc = bind_replacing(fd, name, reason);
  if (rc == 0 && note != NULL) rc = note_file(name, note);
  if (rc == 0 && mode != 0 && chmod(name->address.sun_path, mode) < 0) rc = -errno;
  if (rc == 0 && file != NULL)
    *file = note;
  else
    aloop__unix_file_drop(loop, &note);
  return rc;
}

void aloop__unix_file_drop(aloop_t *loop, aloop__unix_file_t **file) {
  aloop__unix_file_t *note = *file;
  struct stat now;
  if (note == NULL) return;
  *file = NULL;
  if (note->owner == getpid() && lstat(note->path, &now) == 0 && now.st_dev == note->device &&
      now.st_ino == note->inode)
    unlink(note->path);
  aloop__memory_release(loop, note);
}
