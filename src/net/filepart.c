/* SPDX-License-Identifier: MIT
 *
 * What every sendfile does with its file, wherever the bytes go.
 *
 * The file's position is never used while bytes move, so that others may read the file meanwhile, and is set to
 * just behind the last byte sent when the operation ends, however it ends. Each call looks at the file anew:
 * one that shrinks ends the operation early, with the number of bytes there were; one that grows is sent on, if
 * it was to be sent to its end.
 *
 * Where there is no sendfile, 64 KiB at a time are read from the file into a copy of the operation (not the
 * loop's shared buffer: data_received may be reading that). That read may wait for a disk; running it in the
 * executor is left to callers who cannot bear that.
 */
#include "net/filepart.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

/* Notes which rule was broken. */
static int fault(int error, const char *message, const char **rule) {
  *rule = message;
  return error;
}

int aloop__filepart_open(aloop__filepart_t *part, int file, int64_t offset, int64_t count, unsigned flags,
                         const char **rule) {
  struct stat info;
  if (offset < 0 || count < 0)
    return fault(ALOOP_EINVAL, "offset and count of sendfile must not be negative", rule);
  if (flags & ~(unsigned)ALOOP_NO_FALLBACK)
    return fault(ALOOP_EINVAL, "the flags of sendfile are 0 or ALOOP_NO_FALLBACK", rule);
  if (fstat(file, &info) < 0) return fault(-errno, "the file to send is not open", rule);
  if (!S_ISREG(info.st_mode)) return fault(ALOOP_EINVAL, "sendfile sends regular files only", rule);
  *part = (aloop__filepart_t){.file = file,
                              .offset = offset,
                              .left = count == 0 ? INT64_MAX : count,
                              .end = info.st_size,
                              .may_fall_back = (flags & ALOOP_NO_FALLBACK) == 0};
  return 0;
}

void aloop__filepart_close(aloop_t *loop, aloop__filepart_t *part) {
  lseek(part->file, (off_t)part->offset, SEEK_SET);
  aloop__memory_release(loop, part->copy);
  part->copy = NULL;
}

void aloop__filepart_account(aloop__filepart_t *part, int64_t n) {
  part->offset += n;
  part->sent += n;
  if (part->left != INT64_MAX) part->left -= n;
}

ssize_t aloop__filepart_send(aloop_t *loop, aloop__filepart_t *part, aloop__filepart_fn send, void *arg) {
  ssize_t n = send(arg, part->file, part->offset, part->left);
  if (n > 0) aloop__filepart_account(part, n);
  /* Nothing but a second call tells whether the end that was seen is still the end. */
  if (n > 0 && part->left > 0 && part->offset >= part->end) {
    n = send(arg, part->file, part->offset, part->left);
    if (n > 0) aloop__filepart_account(part, n);
  }
  if (n != ALOOP_ENOTSUP || !part->may_fall_back) return n;
  part->copy = aloop__memory_new(loop, ALOOP__FILEPART_PIECE);
  return part->copy != NULL ? ALOOP_ENOTSUP : ALOOP_ENOMEM;
}

ssize_t aloop__filepart_read(aloop__filepart_t *part) {
  size_t want = part->left < ALOOP__FILEPART_PIECE ? (size_t)part->left : ALOOP__FILEPART_PIECE;
  ssize_t n;
  do n = pread(part->file, part->copy, want, (off_t)part->offset);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}
