/* SPDX-License-Identifier: MIT
 *
 * Opening files beneath a directory, and never outside of it.
 */
#ifndef HTTP_FILES_H
#define HTTP_FILES_H

#include <sys/stat.h>

/* Opens the directory that everything is served from. Returns a descriptor or a negative errno value. */
int files_open_root(const char *directory);

/* Opens the regular file or directory `path` (relative; "" is the root itself) for reading and fills in *info.
 * Returns a descriptor or a negative errno value; -EXDEV and -ELOOP: a symbolic link leads out, or may not be
 * followed; -EACCES also for what is neither file nor directory. Any thread. */
int files_open(int root, const char *path, struct stat *info);

/* The same by the way that needs no help from the kernel; public for its test. */
int files_open_by_steps(int root, const char *path, struct stat *info);

#endif
