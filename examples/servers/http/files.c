/* SPDX-License-Identifier: MIT
 *
 * How a path stays beneath the root. Looking at the string first is not enough: symbolic links and renames
 * change what a name means between the look and the open. So the kernel has to hold the line while it resolves
 * the name, in one of two ways:
 *
 * - openat2 with RESOLVE_BENEATH (Linux 5.6): ".." and links may be there, but a step that would leave the root
 *   fails. Links that stay inside are followed.
 * - Elsewhere, and where a sandbox forbids openat2, one openat per segment with O_NOFOLLOW. No link is followed
 *   at all: the kernel cannot be asked where one would lead.
 *
 * Files open with O_NONBLOCK, or a FIFO in the tree would stop the whole thread until somebody writes to it.
 * Opening and reading still block on a slow disk; a server for those would do both in an executor.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif
#if defined(SYS_openat2)
#include <linux/openat2.h>
#endif

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, NAME_SIZE = 256 };

int files_open_root(const char *directory) {
  int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

/* Keeps the descriptor if it is something that can be served. */
static int check_kind(int fd, struct stat *info) {
  int error = 0;
  if (fstat(fd, info) < 0)
    error = errno;
  else if (!S_ISREG(info->st_mode) && !S_ISDIR(info->st_mode))
    error = EACCES;
  if (error == 0) return fd;
  close(fd);
  return -error;
}

int files_open_by_steps(int root, const char *path, struct stat *info) {
  int directory = openat(root, ".", OPEN_FLAGS | O_DIRECTORY);
  int error = directory < 0 ? errno : 0;
  while (error == 0 && *path != '\0') {
    char name[NAME_SIZE];
    size_t length = strcspn(path, "/");
    bool last = path[length] == '\0';
    if (length >= sizeof name) {
      error = ENAMETOOLONG;
      break;
    }
    memcpy(name, path, length);
    name[length] = '\0';
    if (strcmp(name, "..") == 0) {
      error = EXDEV;
      break;
    }
    int next = openat(directory, name, OPEN_FLAGS | O_NOFOLLOW | (last ? 0 : O_DIRECTORY));
    if (next < 0) error = errno;
    close(directory);
    directory = next;
    path += length + (last ? 0 : 1);
  }
  if (error == 0) return check_kind(directory, info);
  if (directory >= 0) close(directory);
  return -error;
}

int files_open(int root, const char *path, struct stat *info) {
#if defined(SYS_openat2)
  struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
  long fd;
  int attempts = 0;
  do { /* EAGAIN: something was renamed meanwhile, and the kernel cannot vouch for the result */
    fd = syscall(SYS_openat2, root, *path != '\0' ? path : ".", &how, sizeof how);
  } while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++attempts < 8);
  if (fd >= 0) return check_kind((int)fd, info);
  if (errno != ENOSYS && errno != EPERM) return -errno;
#endif
  return files_open_by_steps(root, path, info);
}
