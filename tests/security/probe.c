// Makes the system calls that the file named by the first argument lists, one process for each.
//
// A line is: number of the ABI (0 the machine's own, 1 that of 32-bit programs on x86), number of
// the call, six arguments. For each line there is one of output: the result and the error.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static long narrow(long *a)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" // the sixth argument, of no call that is probed, is left out
                     : "=a"(result)
                     : "a"(a[0]), "b"(a[1]), "c"(a[2]), "d"(a[3]), "S"(a[4]), "D"(a[5])
                     : "memory", "r8", "r9", "r10", "r11");
    result = (int)result;
    if (result < 0 && result > -4096) {
        errno = -result;
        return -1;
    }
    return result;
#else
    return -1;
#endif
}

int main(int argc, char **argv)
{
    FILE *file = fopen(argc > 1 ? argv[1] : "/calls", "re");
    long abi, a[7];
    if (!file)
        return 2;
    while (fscanf(file, "%ld %ld %ld %ld %ld %ld %ld %ld", &abi, a, a + 1, a + 2, a + 3, a + 4,
                  a + 5, a + 6) == 8) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(5);
            errno = 0;
            long result = abi == 1 ? narrow(a) : syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
            int error = errno;
            char line[64];
            int size = snprintf(line, sizeof line, "%ld %d\n", result, error);
            if (write(1, line, size) != size)
                _exit(1);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (!WIFEXITED(status))
            printf("killed %d\n", WTERMSIG(status));
    }
    return 0;
}
