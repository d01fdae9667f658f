/* One kind of observation for each name; run as `observe NAME` in a root with the files that
 * test_coverage.py makes below /t. Exit status 77: this kernel has no such thing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char buffer[65536];
static struct stat info;

static void need(long result) {
    if (result >= 0) return;
    if (errno == ENOSYS || errno == EOPNOTSUPP) exit(77);
    perror("observe");
    exit(1);
}
static int rd(const char *path) { int fd = open(path, O_RDONLY); need(fd); return fd; }
static void take(int fd) { need(read(fd, buffer, sizeof buffer)); }
static void list(int fd) { need(syscall(SYS_getdents64, fd, buffer, sizeof buffer)); }
static int out(void) { int fd = open("/out", O_RDWR | O_CREAT, 0644); need(fd); return fd; }
static void wait_for(pid_t pid) {
    int status;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) exit(1);
}
static void run(const char *path) {
    pid_t pid = vfork();
    if (!pid) { execl(path, path, "nothing", (char *)0); _exit(9); }
    wait_for(pid);
}

/* io_uring by hand: one submission, one completion. */
static long ring(uint8_t opcode, int fd, uint64_t address, uint32_t length, uint64_t offset,
                 uint32_t flags) {
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    int ring_fd = syscall(SYS_io_uring_setup, 4, &p);
    if (ring_fd < 0) exit(77);
    char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, ring_fd, IORING_OFF_SQ_RING);
    char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
                    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_fd,
                    IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqe = mmap(0, p.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_POPULATE, ring_fd, IORING_OFF_SQES);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->addr = address;
    sqe->len = length;
    sqe->off = offset;
    sqe->open_flags = flags;
    ((unsigned *)(sq + p.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    need(syscall(SYS_io_uring_enter, ring_fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0));
    struct io_uring_cqe *cqe = (void *)(cq + p.cq_off.cqes);
    long result = cqe->res;
    if (result < 0) { errno = -result; need(-1); }
    return result;
}

static void *thread_read(void *path) { take(rd(path)); return 0; }

#define KIND(name) static void name(void)
KIND(read_file) { take(rd("/t/file")); }
KIND(open_absent) { if (open("/t/absent", O_RDONLY) >= 0) exit(1); }
KIND(stat_file) { need(stat("/t/file", &info)); }
KIND(stat_directory) { need(stat("/t/dir", &info)); }
KIND(stat_absent) { if (!stat("/t/absent", &info)) exit(1); }
KIND(lstat_link) { need(lstat("/t/link", &info)); }
KIND(fstat_open) { need(fstat(rd("/t/file"), &info)); }
KIND(stat_path_fd) {
    int fd = open("/t/file", O_PATH);
    need(fstatat(fd, "", &info, AT_EMPTY_PATH));
}
KIND(statx_file) { struct statx x; need(statx(AT_FDCWD, "/t/file", 0, STATX_ALL, &x)); }
KIND(statx_cached) {
    struct statx x;
    need(statx(AT_FDCWD, "/t/file", AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &x));
}
KIND(statx_cached_after_read) {
    struct statx x;
    int fd = rd("/t/file");
    take(fd);
    take(fd);
    need(statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &x));
}
KIND(access_file) { need(access("/t/file", R_OK)); }
KIND(access_absent) { if (!access("/t/absent", F_OK)) exit(1); }
KIND(faccessat2_file) { need(syscall(439, AT_FDCWD, "/t/file", R_OK, AT_EACCESS)); }
KIND(readlink_link) { need(readlink("/t/link", buffer, sizeof buffer)); }
KIND(follow_link) { take(rd("/t/link")); }
KIND(follow_chain) { take(rd("/t/chain1")); }
KIND(follow_directory_link) { take(rd("/t/dirlink/inner")); }
KIND(dangling_link) { if (open("/t/dangling", O_RDONLY) >= 0) exit(1); }
KIND(absent_beneath_directory) { if (!access("/t/dir/absent", F_OK)) exit(1); }
KIND(dotdot) { take(rd("/t/dir/../file")); }
KIND(list_directory) { list(rd("/t/dir")); }
KIND(list_empty) { list(rd("/t/empty")); }
KIND(list_through_link) { list(rd("/t/dirlink")); }
KIND(list_root) { list(rd("/")); }
KIND(relative_to_cwd) { need(chdir("/t/dir")); take(rd("inner")); }
KIND(relative_to_dirfd) {
    int fd = openat(rd("/t/dir"), "inner", O_RDONLY);
    need(fd);
    take(fd);
}
KIND(relative_after_fchdir) { need(fchdir(rd("/t/dir"))); need(stat("inner", &info)); }
KIND(openat2_beneath) {
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd = syscall(SYS_openat2, rd("/t"), "dir/inner", &how, sizeof how);
    need(fd);
    take(fd);
}
KIND(open_path_only) { need(open("/t/file", O_PATH)); }
KIND(chdir_directory) { need(chdir("/t/dir")); }
KIND(chroot_directory) { need(chroot("/t/dir")); take(rd("/inner")); }
KIND(mmap_file) {
    volatile char *p = mmap(0, 4, PROT_READ, MAP_PRIVATE, rd("/t/file"), 0);
    if (p == MAP_FAILED || p[0] != 'f') exit(1);
}
KIND(mmap_shared) {
    volatile char *p = mmap(0, 4, PROT_READ, MAP_SHARED, rd("/t/file"), 0);
    if (p == MAP_FAILED || p[0] != 'f') exit(1);
}
KIND(pread_file) { need(pread(rd("/t/file"), buffer, 2, 1)); }
KIND(readv_file) {
    struct iovec v = {buffer, 4};
    need(readv(rd("/t/file"), &v, 1));
}
KIND(read_page_in_middle) { need(pread(rd("/t/big"), buffer, 10, 200000)); }
KIND(readahead_then_read) { int fd = rd("/t/file"); readahead(fd, 0, 4); take(fd); }
KIND(sendfile_file) { need(sendfile(out(), rd("/t/file"), 0, 100)); }
KIND(splice_file) {
    int p[2];
    need(pipe(p));
    need(splice(rd("/t/file"), 0, p[1], 0, 100, 0));
}
KIND(copy_range) {
    if (copy_file_range(rd("/t/file"), 0, out(), 0, 100, 0) < 0) {
        if (errno != EXDEV) need(-1);
        need(stat("/t/file", &info));
        take(rd("/t/file"));
    }
}
KIND(size_by_fionread) { int n; need(ioctl(rd("/t/file"), FIONREAD, &n)); if (n != 5) exit(1); }
KIND(size_by_seek) { if (lseek(rd("/t/file"), 0, SEEK_END) != 5) exit(1); }
KIND(size_by_read) { if (read(rd("/t/nothing"), buffer, 10)) exit(1); }
KIND(size_by_sendfile) { if (sendfile(out(), rd("/t/nothing"), 0, 10)) exit(1); }
KIND(size_by_fiemap) {
    struct fiemap map;
    memset(&map, 0, sizeof map);
    map.fm_length = ~0ULL;
    if (ioctl(rd("/t/file"), FS_IOC_FIEMAP, &map) < 0) need(fstat(rd("/t/file"), &info));
}
KIND(hole_by_seek) { need(lseek(rd("/t/file"), 0, SEEK_HOLE)); }
KIND(uring_open) {
    int fd = ring(IORING_OP_OPENAT, AT_FDCWD, (uintptr_t)"/t/file", 0, 0, O_RDONLY);
    ring(IORING_OP_READ, fd, (uintptr_t)buffer, 5, 0, 0);
}
KIND(uring_statx) {
    struct statx x;
    ring(IORING_OP_STATX, AT_FDCWD, (uintptr_t)"/t/file", STATX_ALL, (uintptr_t)&x, 0);
}
KIND(uring_statx_cached) {
    struct statx x;
    ring(IORING_OP_STATX, AT_FDCWD, (uintptr_t)"/t/file", STATX_BASIC_STATS, (uintptr_t)&x,
         AT_STATX_DONT_SYNC);
}
KIND(int80_open) {
#ifdef __x86_64__
    /* The 32-bit entry takes 32-bit pointers. */
    char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (low == MAP_FAILED) exit(1);
    strcpy(low, "/t/file");
    long fd;
    __asm__ volatile("int $0x80" : "=a"(fd) : "a"(5L), "b"(low), "c"(0L), "d"(0L) : "memory");
    if (fd < 0) exit(77);
    take(fd);
#else
    exit(77);
#endif
}
KIND(xattr_get) { need(getxattr("/t/marked", "user.mark", buffer, sizeof buffer)); }
KIND(xattr_absent) { if (getxattr("/t/file", "user.none", buffer, 9) >= 0) exit(1); }
KIND(xattr_list) { need(listxattr("/t/marked", buffer, sizeof buffer)); }
KIND(xattr_none) {
    if (listxattr("/t/file", buffer, sizeof buffer)) exit(1);
    if (getxattr("/t/file", "user.none", buffer, 9) >= 0 || errno != ENODATA) exit(1);
}
KIND(exec_script) { run("/t/script"); }
KIND(exec_static) { run("/t/dir/again"); }
KIND(exec_by_fd) {
    pid_t pid = fork();
    if (!pid) {
        char *argv[] = {"again", "nothing", 0}, *env[] = {0};
        syscall(SYS_execveat, open("/t/dir/again", O_PATH), "", argv, env, AT_EMPTY_PATH);
        _exit(9);
    }
    wait_for(pid);
}
KIND(exec_absent) {
    char *argv[] = {"x", 0};
    execvp("not-in-path", argv);
}
KIND(append_copies_up) { int fd = open("/t/file", O_WRONLY | O_APPEND); need(write(fd, "x", 1)); }
KIND(chmod_copies_up) { need(chmod("/t/file", 0600)); }
KIND(chown_copies_up) { need(chown("/t/file", 5, 6)); }
KIND(utime_copies_up) {
    struct timespec t[2] = {{0, UTIME_OMIT}, {1000, 0}};
    need(utimensat(AT_FDCWD, "/t/file", t, 0));
}
KIND(truncate_copies_up) { need(truncate("/t/file", 2)); }
KIND(write_into_middle) { int fd = open("/t/file", O_RDWR); need(pwrite(fd, "x", 1, 2)); }
KIND(overwrite) { int fd = open("/t/file", O_WRONLY | O_TRUNC); need(write(fd, "x", 1)); }
KIND(create_exclusive) { if (open("/t/file", O_CREAT | O_EXCL, 0644) >= 0) exit(1); }
KIND(create_absent) { need(open("/t/absent", O_CREAT | O_EXCL, 0644)); }
KIND(rename_file) { need(rename("/t/file", "/t/absent")); }
KIND(rename_over) { need(rename("/t/file", "/t/other")); }
KIND(rename_no_replace) {
    if (!syscall(SYS_renameat2, AT_FDCWD, "/t/file", AT_FDCWD, "/t/other", 1)) exit(1);
}
KIND(rename_exchange) {
    need(syscall(SYS_renameat2, AT_FDCWD, "/t/file", AT_FDCWD, "/t/other", 2));
}
KIND(hard_link) { need(link("/t/file", "/t/absent")); }
KIND(unlink_file) { need(unlink("/t/file")); }
KIND(unlink_absent) { if (!unlink("/t/absent")) exit(1); }
KIND(rmdir_directory) { need(rmdir("/t/empty")); }
KIND(rmdir_full) { if (!rmdir("/t/dir")) exit(1); }
KIND(mkdir_absent) { need(mkdir("/t/absent", 0755)); }
KIND(mkdir_there) { if (!mkdir("/t/dir", 0755)) exit(1); }
KIND(symlink_absent) { need(symlink("x", "/t/absent")); }
KIND(mkfifo_absent) { need(mkfifo("/t/absent", 0644)); }
KIND(temporary_file) { need(open("/t/dir", O_TMPFILE | O_RDWR, 0600)); }
KIND(create_in_directory) { need(open("/t/dir/new", O_CREAT, 0644)); }
KIND(bind_socket) {
    struct sockaddr_un a = {AF_UNIX, "/t/absent"};
    need(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a));
}
KIND(connect_socket) {
    struct sockaddr_un a = {AF_UNIX, "/t/absent"};
    if (!connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a)) exit(1);
}
KIND(watch_file) { need(inotify_add_watch(inotify_init1(0), "/t/file", IN_ACCESS)); }
KIND(handle_of_file) {
    struct file_handle *h = (void *)buffer;
    int mount;
    h->handle_bytes = 128;
    if (name_to_handle_at(AT_FDCWD, "/t/file", h, &mount, 0) < 0 && errno != EOPNOTSUPP) exit(1);
}
KIND(statfs_file) { struct statfs s; need(statfs("/t/file", &s)); }
KIND(lock_file) { need(flock(rd("/t/file"), LOCK_EX)); }
KIND(in_thread) {
    pthread_t t;
    pthread_create(&t, 0, thread_read, "/t/file");
    pthread_join(t, 0);
}
KIND(in_child) {
    pid_t pid = fork();
    if (!pid) { take(rd("/t/file")); _exit(0); }
    wait_for(pid);
}
KIND(in_orphan) {
    int p[2];
    char c;
    need(pipe(p));
    if (!fork()) {
        if (!fork()) { setsid(); take(rd("/t/file")); write(p[1], "x", 1); }
        _exit(0);
    }
    need(read(p[0], &c, 1));
}
KIND(through_proc) { take(rd("/proc/self/root/t/file")); }
KIND(device_stat) { need(stat("/t/device", &info)); }
KIND(stat_after_read) { int fd = rd("/t/nothing"); take(fd); need(fstat(fd, &info)); }
KIND(nothing) { }

#define ROW(name) {#name, name}
static struct { const char *name; void (*run)(void); } kinds[] = {
    ROW(read_file), ROW(open_absent), ROW(stat_file), ROW(stat_directory), ROW(stat_absent),
    ROW(lstat_link), ROW(fstat_open), ROW(stat_path_fd), ROW(statx_file), ROW(statx_cached),
    ROW(statx_cached_after_read), ROW(uring_statx_cached), ROW(rename_exchange), ROW(access_file),
    ROW(access_absent), ROW(faccessat2_file), ROW(readlink_link), ROW(follow_link),
    ROW(follow_chain), ROW(follow_directory_link), ROW(dangling_link),
    ROW(absent_beneath_directory), ROW(dotdot), ROW(list_directory), ROW(list_empty),
    ROW(list_through_link), ROW(list_root), ROW(relative_to_cwd), ROW(relative_to_dirfd),
    ROW(relative_after_fchdir), ROW(openat2_beneath), ROW(open_path_only), ROW(chdir_directory),
    ROW(chroot_directory), ROW(mmap_file), ROW(mmap_shared), ROW(pread_file), ROW(readv_file),
    ROW(read_page_in_middle), ROW(readahead_then_read), ROW(sendfile_file), ROW(splice_file),
    ROW(copy_range), ROW(size_by_fionread), ROW(size_by_seek), ROW(size_by_read),
    ROW(size_by_sendfile), ROW(size_by_fiemap), ROW(hole_by_seek), ROW(uring_open),
    ROW(uring_statx), ROW(int80_open), ROW(xattr_get), ROW(xattr_absent), ROW(xattr_list),
    ROW(xattr_none),
    ROW(exec_script), ROW(exec_static), ROW(exec_by_fd), ROW(exec_absent),
    ROW(append_copies_up), ROW(chmod_copies_up), ROW(chown_copies_up), ROW(utime_copies_up),
    ROW(truncate_copies_up), ROW(write_into_middle), ROW(overwrite), ROW(create_exclusive),
    ROW(create_absent), ROW(rename_file), ROW(rename_over), ROW(rename_no_replace),
    ROW(hard_link), ROW(unlink_file), ROW(unlink_absent), ROW(rmdir_directory), ROW(rmdir_full),
    ROW(mkdir_absent), ROW(mkdir_there), ROW(symlink_absent), ROW(mkfifo_absent),
    ROW(temporary_file), ROW(create_in_directory), ROW(bind_socket), ROW(connect_socket),
    ROW(watch_file), ROW(handle_of_file), ROW(statfs_file), ROW(lock_file), ROW(in_thread),
    ROW(in_child), ROW(in_orphan), ROW(through_proc), ROW(device_stat), ROW(stat_after_read), ROW(nothing),
};

int main(int argc, char **argv) {
    for (unsigned n = 0; argc > 1 && n < sizeof kinds / sizeof *kinds; n++)
        if (!strcmp(argv[1], kinds[n].name)) {
            kinds[n].run();
            return 0;
        }
    return 2;
}
