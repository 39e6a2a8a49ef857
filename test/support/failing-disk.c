/*
 * Preloaded into a daemon by tests: lets what is done to files under FAILING_DISK_FOLDER fail while the file
 * FAILING_DISK_CONTROL says so. `write` and `sync`: EIO; `open`: EMFILE; or several of them with blanks between.
 * Compile without optimisation: the C library would define some of these in its headers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *what) {
  const char *control = getenv("FAILING_DISK_CONTROL");
  if (control == NULL) return 0;
  static int (*real_open)(const char *, int, ...);
  if (real_open == NULL) real_open = dlsym(RTLD_NEXT, "open");
  int fd = real_open(control, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[64];
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  return strstr(text, what) != NULL;
}

static int below(const char *path) {
  const char *folder = getenv("FAILING_DISK_FOLDER");
  return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int below_fd(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return below(path);
}

#define FAIL(code) do { errno = code; return -1; } while (0)

int fdatasync(int fd) {
  static int (*real)(int);
  if (real == NULL) real = dlsym(RTLD_NEXT, "fdatasync");
  if (below_fd(fd) && fails("sync")) FAIL(EIO);
  return real(fd);
}

int fsync(int fd) {
  static int (*real)(int);
  if (real == NULL) real = dlsym(RTLD_NEXT, "fsync");
  if (below_fd(fd) && fails("sync")) FAIL(EIO);
  return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "write");
  if (below_fd(fd) && fails("write")) FAIL(EIO);
  return real(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
  if (below_fd(fd) && fails("write")) FAIL(EIO);
  return real(fd, bytes, size, at);
}

/* LevelDB appends to its log through stdio. */
size_t fwrite_unlocked(const void *bytes, size_t size, size_t count, FILE *file) {
  static size_t (*real)(const void *, size_t, size_t, FILE *);
  if (real == NULL) real = dlsym(RTLD_NEXT, "fwrite_unlocked");
  if (below_fd(fileno(file)) && fails("write")) { errno = EIO; return 0; }
  return real(bytes, size, count, file);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
  static size_t (*real)(const void *, size_t, size_t, FILE *);
  if (real == NULL) real = dlsym(RTLD_NEXT, "fwrite");
  if (below_fd(fileno(file)) && fails("write")) { errno = EIO; return 0; }
  return real(bytes, size, count, file);
}

FILE *fopen64(const char *path, const char *mode) {
  static FILE *(*real)(const char *, const char *);
  if (real == NULL) real = dlsym(RTLD_NEXT, "fopen64");
  if (below(path) && fails("open")) { errno = EMFILE; return NULL; }
  return real(path, mode);
}

int open64(const char *path, int flags, ...) {
  static int (*real)(const char *, int, ...);
  if (real == NULL) real = dlsym(RTLD_NEXT, "open64");
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  if (below(path) && fails("open")) FAIL(EMFILE);
  return real(path, flags, mode);
}
